"""A frozen process does nothing: it does not answer what a test sends it afterwards."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandwich_node.dev.freezing import FreezeError, freeze, frozen, is_frozen, thaw

BUSY_THREADS = """
import hashlib, threading
data = bytes(1 << 20)
def work():
    while True:
        hashlib.sha256(data)
for _ in range(7):
    threading.Thread(target=work, daemon=True).start()
print("busy", flush=True)
work()
"""


@asynccontextmanager
async def started(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def states(pid: int) -> set[str]:
    """The kernel's state of each thread, from another file than the one that `freeze` reads."""
    found = set()
    for path in Path(f"/proc/{pid}/task").glob("*/status"):
        found.add(next(line for line in path.read_text().splitlines() if line.startswith("State:")).split()[1])
    return found


async def test_all_threads_are_stopped_when_freeze_returns_and_run_again_after_thaw() -> None:
    async with started(sys.executable, "-c", BUSY_THREADS) as process:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            await process.stdout.readline()
        for _ in range(20):
            await freeze([process.pid])
            assert states(process.pid) == {"T"}
            thaw([process.pid])
            assert "T" not in states(process.pid)


async def test_a_name_with_parentheses_is_not_parsed_as_a_state(tmp_path: Path) -> None:
    program = tmp_path / "a) T (b"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    async with started(str(program), "60") as process:
        assert not is_frozen(process.pid)
        async with frozen([process.pid]):
            assert is_frozen(process.pid)
        assert not is_frozen(process.pid)


async def test_freeze_does_not_wait_for_an_ended_process() -> None:
    async with started("true") as process:
        await process.wait()
        await freeze([process.pid])


def test_freeze_does_not_wait_for_a_zombie() -> None:
    zombie = os.posix_spawnp("true", ["true"], os.environ)
    try:
        asyncio.run(freeze([zombie]))
    finally:
        thaw([zombie])
        os.waitpid(zombie, 0)


async def test_a_process_that_does_not_stop_is_an_error_and_none_stays_frozen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with started("sleep", "60") as stops, started("sleep", "60") as goes_on:
        kill = os.kill

        def ignored_by_one(pid: int, number: int) -> None:
            if (pid, number) != (goes_on.pid, signal.SIGSTOP):
                kill(pid, number)

        monkeypatch.setattr(os, "kill", ignored_by_one)
        with pytest.raises(FreezeError, match=str(goes_on.pid)):
            await freeze([stops.pid, goes_on.pid], timeout_s=0.05)
        assert "T" not in states(stops.pid)
