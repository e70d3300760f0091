"""Child processes of tests. They end with the test that started them, and with pytest in any case."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sandwich_node.dev.embedded import die_with_parent


async def start(*command: str, **options: Any) -> asyncio.subprocess.Process:
    """Start a process that the kernel kills when pytest ends. The caller ends it: see `started` and `end`."""
    return await asyncio.create_subprocess_exec(*command, preexec_fn=die_with_parent, **options)


async def end(process: asyncio.subprocess.Process) -> None:
    """kill -9 and reap, unless it has ended."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


@asynccontextmanager
async def started(*command: str, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process for the duration of the context."""
    process = await start(*command, **options)
    try:
        yield process
    finally:
        await end(process)


def descendants(pid: int) -> list[int]:
    """Process ids of all descendants of `pid`."""
    by_parent: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
            by_parent.setdefault(parent, []).append(int(path.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = by_parent.get(waiting.pop(), [])
        found += below
        waiting += below
    return found
