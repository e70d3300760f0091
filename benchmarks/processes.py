"""Measured processes: waiting for them, their CPU time and memory from /proc, and clients for comparison."""

import asyncio
import base64
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from sandwich_node.dev.embedded import die_with_parent

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
QUIET_S = 1.0
CHUNK_BYTES = 65536
KEPT_BYTES = 4096
"""So much of a line is read, and of what a client complains of."""
END_S = 2.0
"""The system says within this that a process has ended, and the end of its output has been read."""


def token(number: int) -> str:
    """A token that begins with the bot's id, as hikari needs it."""
    head = base64.urlsafe_b64encode(str(123456789012345000 + number).encode()).decode().rstrip("=")
    return f"{head}.GaBcDe.bench"


def application_id(token: str) -> str:
    """The bot's id, with which its token begins."""
    head = token.partition(".")[0]
    return base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)).decode()


async def until(check: Callable[[], Awaitable[Any]], timeout_s: float = 90.0) -> None:
    """Poll `check` until it is true. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not await check():  # noqa: ASYNC110 (other processes send no event)
            await asyncio.sleep(0.3)


def cpu_s(pid: int) -> float:
    """User and system time of a process, in seconds (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def rss_mib(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024**2


def children(pid: int) -> list[int]:
    """Direct children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def until_quiet(*pids: int, timeout_s: float = 60.0) -> float:
    """Wait until each process has used almost no CPU for a second, all at once; returns their CPU time then."""
    async with asyncio.timeout(timeout_s):
        while True:
            before = [cpu_s(pid) for pid in pids]
            await asyncio.sleep(QUIET_S)
            after = [cpu_s(pid) for pid in pids]
            if all(last - first <= 0.03 for first, last in zip(before, after, strict=True)):
                return sum(after)


class ClientFailed(Exception):
    """A client cannot be measured; the text says why."""


def not_run(failed: ClientFailed) -> str:
    """What a table says in place of figures."""
    return f"not run: {failed}".replace("|", "\\|")


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Each line; of one that is longer than KEPT_BYTES its end. `readline` raises ValueError for a very long one."""
    rest = b""
    while chunk := await stream.read(CHUNK_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line[-KEPT_BYTES:].decode(errors="replace").strip()
        rest = rest[-KEPT_BYTES:]
    if rest:
        yield rest.decode(errors="replace").strip()


class Client:
    """A bot with another library, in its own process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.messages = 0
        self.ready = asyncio.Event()
        self._last_error = ""
        self._complained = asyncio.Event()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def read(self) -> None:
        """Read the client's output."""
        assert self._process.stdout is not None
        async for line in lines(self._process.stdout):
            if line == "ready":
                self.ready.set()
            elif line.isdecimal():
                self.messages = int(line)

    async def read_errors(self) -> None:
        """Read what it complains of, and keep the last line that is not empty."""
        assert self._process.stderr is not None
        async for line in lines(self._process.stderr):
            self._last_error = line or self._last_error
        self._complained.set()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    @asynccontextmanager
    async def must_run(self) -> AsyncIterator[None]:
        """For what needs the client. Raises ClientFailed when it ends meanwhile, and for a TimeoutError."""
        try:
            yield
        except ClientFailed:
            raise
        except Exception as error:
            # A process that has just ended is gone from /proc before asyncio has its exit code.
            failed = await self.failure()
            if not self.running:
                raise failed from error
            if isinstance(error, TimeoutError):
                raise ClientFailed(str(error) or "not quiet or done in time") from error
            raise
        if not self.running:
            raise await self.failure()

    async def failure(self) -> ClientFailed:
        """What to raise for a client that has ended, or ends now: its exit code and its last complaint."""
        try:
            async with asyncio.timeout(END_S):
                await self._process.wait()
                await self._complained.wait()
        except TimeoutError:
            pass
        code = self._process.returncode
        if code is None:
            how = "closed its output"
        else:
            how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return ClientFailed(f"{how}: {self._last_error[-300:]}" if self._last_error else how)


@asynccontextmanager
async def program(words: Sequence[str], env: Mapping[str, str], *, timeout_s: float = 120.0) -> AsyncIterator[Client]:
    """Start a client program and wait until it prints `ready`; it is killed at the end.

    `env` is added to our environment. Raises ClientFailed when it cannot be started, ends before or is not ready in
    time.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            env={**os.environ, **env},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=die_with_parent,
        )
    except OSError as error:
        raise ClientFailed(f"{Path(words[0]).name} cannot be started: {error.strerror}") from error
    started = Client(process)
    reading = asyncio.create_task(started.read())
    complaints = asyncio.create_task(started.read_errors())
    try:
        ready = asyncio.create_task(started.ready.wait())
        try:
            done, _ = await asyncio.wait((ready, reading), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if not done:
            raise ClientFailed(f"not ready in {timeout_s:.0f} s")
        if not started.ready.is_set():
            raise await started.failure()
        yield started
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        reading.cancel()
        complaints.cancel()


def client(library: str, api_url: str, token: str, *, timeout_s: float = 120.0) -> AbstractAsyncContextManager[Client]:
    """A bot with a Python library of our own environment: see `program`."""
    words = (sys.executable, "-m", "benchmarks.clients", library, api_url)
    return program(words, {"BENCH_TOKEN": token}, timeout_s=timeout_s)
