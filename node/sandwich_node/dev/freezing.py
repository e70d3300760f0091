"""Freezing processes, as a host that hangs: SIGSTOP, and proof that it has taken effect."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

STOP_TIMEOUT_S = 10.0
POLL_S = 0.001
_STOPPED = frozenset("Tt")
_ENDED = frozenset("ZX")


class FreezeError(RuntimeError):
    """A process went on running after SIGSTOP."""


async def freeze(pids: Collection[int], *, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """SIGSTOP, and wait until no thread of these processes runs. Raises FreezeError after `timeout_s`.

    kill(2) returns when the signal is queued. A thread that runs on another core at that moment goes on for a while
    and can still answer. Processes that have ended are left out.
    """
    _signal(pids, signal.SIGSTOP)
    try:
        async with asyncio.timeout(timeout_s):
            for pid in pids:
                while not is_frozen(pid):  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)
    except BaseException as error:
        thaw(pids)
        if isinstance(error, TimeoutError):
            raise FreezeError(f"not stopped after {timeout_s:g} s: {pids}") from None
        raise


def thaw(pids: Iterable[int]) -> None:
    """SIGCONT. The kernel lets every thread run again before kill(2) returns, so there is nothing to wait for."""
    _signal(pids, signal.SIGCONT)


@asynccontextmanager
async def frozen(pids: Collection[int]) -> AsyncIterator[None]:
    """Frozen inside, running again at the end, whatever happens between."""
    await freeze(pids)
    try:
        yield
    finally:
        thaw(pids)


def is_frozen(pid: int) -> bool:
    """Whether every thread of the process is stopped, or the process has ended.

    The threads are listed again afterwards: one that was still running may have started another.
    """
    states = _thread_states(pid)
    return all(state in _STOPPED | _ENDED for state in states.values()) and _thread_states(pid) == states


def _thread_states(pid: int) -> dict[str, str]:
    """State letter by thread (proc(5), the field after the name; a name may hold parentheses and spaces)."""
    found = {}
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for path in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found[path.name] = (path / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    return found


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
