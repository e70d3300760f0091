"""Runs our programs for tests that are about what they do, not how they start: each time in a process of its own.

A start takes most of a second of a core, nearly all of it for imports, and a test of a cluster starts ten. So one
server a test process has the imports done, and forks for each program (see `program_server`). How programs start by
themselves is tested where a module says so (`REAL_PROGRAMS`), in `tests/unit/coordinator/test_command_start.py`,
`tests/contract/test_workers.py`, and wherever a test needs a terminal or a pipe.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sandwich_node.dev.embedded import die_with_parent
from sandwich_node.environment import for_worker
from sandwich_node.worker_process import Child
from tests.support import leftovers

COMMAND_S = 180
START_S = 60
ROOT = Path(__file__).parents[2]
WORKER = "worker"
REQUEST_BYTES_MAX = 1 << 20
DESCRIPTORS_MAX = 3
Said = tuple[int, str, str]
"""Exit code, stdout, stderr."""


class Served:
    """A process that the server runs: the part of `asyncio.subprocess.Process` that our callers use."""

    def __init__(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._reader, self._writer = reader, writer
        self._waiting = asyncio.create_task(self._wait())

    async def _wait(self) -> int:
        line = await self._reader.readline()
        # The server is killed with its programs.
        self.returncode = int(line) if line else -signal.SIGKILL
        self._writer.close()
        return self.returncode

    async def wait(self) -> int:
        """The exit code, at the end."""
        return await asyncio.shield(self._waiting)

    def send_signal(self, number: int) -> None:
        """Raises ProcessLookupError when it has ended."""
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def kill(self) -> None:
        """See `send_signal`."""
        self.send_signal(signal.SIGKILL)


async def _start(
    path: str,
    program: str,
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    directory: Path,
    descriptors: Sequence[int] = (),
    stdin: str = os.devnull,
    stdout: str = "",
    stderr: str = "",
    own_group: bool = False,
    dies_with_us: bool = True,
) -> Served:
    """Start a program. `stdout`, `stderr`: files; else the second and third descriptor.

    It has the server's limits (RLIMIT_*), not those of its parent. Raises OSError when the server does not start it.
    """
    request = {
        "program": program,
        "arguments": list(arguments),
        "env": dict(env),
        "directory": str(directory),
        "stdin": stdin,
        "stdout": stdout,
        "stderr": stderr,
        "own_group": own_group,
        "dies_with_us": dies_with_us,
    }
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
        sent = json.dumps(request).encode() + b"\n"
        connection.sendall(sent[socket.send_fds(connection, [sent], descriptors) :])
    except BaseException:
        connection.close()
        raise
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    try:
        async with asyncio.timeout(START_S):
            line = await reader.readline()
        if not line:
            raise OSError(f"the program server did not start {program}")
    except BaseException:
        writer.close()
        raise
    return Served(int(line), reader, writer)


def serving_spawn(path: str) -> Callable[[], Awaitable[Child]]:
    """As `spawn_worker`, for an agent that is such a program itself."""

    async def spawn() -> Child:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process: Any = await _start(
                    path,
                    WORKER,
                    (),
                    env=for_worker(os.environ),
                    directory=Path.cwd(),
                    descriptors=(theirs.fileno(), 1, 2),
                    dies_with_us=False,
                )
        except BaseException:
            ours.close()
            raise
        return Child(process, ours)

    return spawn


class _Server:
    """The server of this test process, from the first program on."""

    def __init__(self) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="sandwich-programs-")
        self.path = str(Path(self._place.name) / "s")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.program_server", self.path],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
        leftovers.KEPT.add(self._process.pid)

    async def ready(self) -> None:
        end = time.monotonic() + START_S
        while not os.path.exists(self.path):  # noqa: ASYNC240
            assert self._process.poll() is None, "the program server ended"
            assert time.monotonic() < end, "the program server does not start"
            await asyncio.sleep(0.02)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        leftovers.KEPT.discard(self._process.pid)
        self._place.cleanup()


_servers: list[_Server] = []


async def start_program(program: str, arguments: Sequence[str], **options: Any) -> Served:
    """Start `sandwich`, `sandwich-node` or `sandwich-simulator`; `options`: see `_start`."""
    if not _servers:
        _servers.append(_Server())
    await _servers[0].ready()
    return await _start(_servers[0].path, program, arguments, **options)


async def run_command(
    *arguments: str, env: Mapping[str, str], directory: Path, piped: str = "", merged: bool = False
) -> Said:
    """Run `sandwich` to its end, in `directory`, with this environment alone. `merged`: stderr goes to stdout."""
    with tempfile.TemporaryDirectory(prefix="sandwich-command-") as name:
        place = Path(name)
        (place / "stdin").write_text(piped)
        (place / "stderr").touch()
        process = await start_program(
            "sandwich",
            arguments,
            env=env,
            directory=directory,
            stdin=str(place / "stdin"),
            stdout=str(place / "stdout"),
            stderr=str(place / ("stdout" if merged else "stderr")),
        )
        try:
            async with asyncio.timeout(COMMAND_S):
                code = await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        out, err = ((place / file).read_text(errors="replace") for file in ("stdout", "stderr"))
    return code, out, err


def pytest_unconfigure(config: pytest.Config) -> None:
    while _servers:
        _servers.pop().end()
