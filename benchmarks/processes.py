"""Measured processes: waiting for them, their CPU time and memory from /proc, and clients for comparison."""

import asyncio
import base64
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from sandwich_node.dev.embedded import die_with_parent

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
QUIET_S = 1.0


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


async def until_quiet(pid: int, timeout_s: float = 60.0) -> float:
    """Wait until the process has used almost no CPU for a second; returns its CPU time then."""
    async with asyncio.timeout(timeout_s):
        while True:
            before = cpu_s(pid)
            await asyncio.sleep(QUIET_S)
            after = cpu_s(pid)
            if after - before <= 0.03:
                return after


class ClientFailed(Exception):
    """A client ended before it was ready."""


class Client:
    """A bot with another library, in its own process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.messages = 0
        self.ready = asyncio.Event()
        self.last_error = ""

    @property
    def pid(self) -> int:
        return self._process.pid

    async def read(self) -> None:
        """Read the client's output."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            text = line.decode().strip()
            if text == "ready":
                self.ready.set()
            elif text.isdecimal():
                self.messages = int(text)

    async def read_errors(self) -> None:
        """Read what it complains of, and keep the last line."""
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self.last_error = line.decode(errors="replace").strip()[:300]

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None


@asynccontextmanager
async def program(words: Sequence[str], env: Mapping[str, str], *, timeout_s: float = 120.0) -> AsyncIterator[Client]:
    """Start a client program and wait until it prints `ready`; it is killed at the end.

    `env` is added to our environment. Raises ClientFailed when it ends before, TimeoutError.
    """
    process = await asyncio.create_subprocess_exec(
        *words,
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=die_with_parent,
    )
    started = Client(process)
    reading = asyncio.create_task(started.read())
    complaints = asyncio.create_task(started.read_errors())
    try:
        ready = asyncio.create_task(started.ready.wait())
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wait((ready, reading), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if not started.ready.is_set():
            await complaints
            raise ClientFailed(f"{words[-1]} ended before it was ready: {started.last_error}")
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
