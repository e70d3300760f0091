"""A clock for tests of real time. It stops while the program waits for a core.

The kernel counts how long each thread was ready to run but did not run (schedstat, field 2; Linux,
Documentation/scheduler/sched-stats.rst). On a quiet machine this is almost zero, and a bound is as strict as with a
wall clock. On a loaded machine the same bound applies to the program's own time.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from pathlib import Path

PATIENT_S = 9.0
"""A server's time to answer where a test compares contents: on a loaded machine a second is not enough."""


def fair_time() -> float:
    """`time.monotonic` minus the seconds in which this thread waited for a core."""
    return time.monotonic() - _waited_s(Path("/proc/thread-self/schedstat"))


class LoopClock:
    """The seconds in which an event loop turns, for a wait whose loop has other work: of a long turn little counts.

    `run` it beside what is measured. A wait on a timer counts whole: the loop turns meanwhile.
    """

    TICK_S = 0.005
    TURN_MAX_S = 0.02

    def __init__(self) -> None:
        self.now = 0.0

    async def run(self) -> None:
        """Count until cancelled."""
        before = time.monotonic()
        while True:
            await asyncio.sleep(self.TICK_S)
            after = time.monotonic()
            self.now += min(after - before, self.TURN_MAX_S)
            before = after


def waited_s(pids: Iterable[int]) -> float:
    """Seconds that all threads of these processes have waited for a core since they started."""
    return sum(_waited_s(path) for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def _waited_s(path: Path) -> float:
    """0 if the kernel does not count it, or the thread has ended."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(path.read_text().split()[1]) / 1e9
    return 0.0
