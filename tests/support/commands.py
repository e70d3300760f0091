"""Runs `sandwich` for tests that are about what it does, not how it starts: each time in a process of its own.

A start takes most of a second of a core, nearly all of it for imports. So one server a test process has them done, and
forks for each command (see `command_server`). How the program starts is tested in
`tests/unit/coordinator/test_command_start.py`, and by tests that need a terminal, a pipe or a signal.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from sandwich_node.dev.embedded import die_with_parent
from tests.support import leftovers

COMMAND_S = 180
START_S = 60
ROOT = Path(__file__).parents[2]
Said = tuple[int, str, str]
"""Exit code, stdout, stderr."""


class _Server:
    """The server of this test process, from the first command on."""

    def __init__(self) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="sandwich-commands-")
        self.socket = str(Path(self._place.name) / "s")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.command_server", self.socket],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
        leftovers.KEPT.add(self._process.pid)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        end = time.monotonic() + START_S
        while True:
            try:
                return await asyncio.open_unix_connection(self.socket)
            except (FileNotFoundError, ConnectionRefusedError):
                assert self._process.poll() is None, "the command server ended"
                assert time.monotonic() < end, "the command server does not start"
                await asyncio.sleep(0.02)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        leftovers.KEPT.discard(self._process.pid)
        self._place.cleanup()


_servers: list[_Server] = []


async def run_command(
    *arguments: str, env: Mapping[str, str], directory: Path, piped: str = "", merged: bool = False
) -> Said:
    """Run it to its end, in `directory`, with this environment alone. `merged`: stderr goes to stdout."""
    if not _servers:
        _servers.append(_Server())
    with tempfile.TemporaryDirectory(prefix="sandwich-command-") as name:
        place = Path(name)
        files = {file: str(place / file) for file in ("stdin", "stdout", "stderr")}
        (place / "stdin").write_text(piped)
        (place / "stderr").touch()
        request = {"arguments": arguments, "env": dict(env), "directory": str(directory), **files}
        if merged:
            request["stderr"] = files["stdout"]
        reader, writer = await _servers[0].connect()
        pid = 0
        try:
            async with asyncio.timeout(COMMAND_S):
                pid = int(await reader.readline())
                writer.write(json.dumps(request).encode() + b"\n")
                code = int(await reader.readline())
                pid = 0
        finally:
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            writer.close()
        out, err = ((place / file).read_text(errors="replace") for file in ("stdout", "stderr"))
    return code, out, err


def pytest_unconfigure(config: pytest.Config) -> None:
    while _servers:
        _servers.pop().end()
