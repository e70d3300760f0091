"""A clock for tests of real time. It stops while the program waits for a core.

The kernel counts how long each thread was ready to run but did not run (schedstat, field 2; Linux,
Documentation/scheduler/sched-stats.rst). On a quiet machine this is almost zero, and a bound is as strict as with a
wall clock. On a loaded machine the same bound applies to the program's own time.
"""

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path

PATIENT_S = 9.0
"""A server's time to answer where a test compares contents: on a loaded machine a second is not enough."""


def fair_time() -> float:
    """`time.monotonic` minus the seconds in which this thread waited for a core."""
    return time.monotonic() - _waited_s(Path("/proc/thread-self/schedstat"))


def waited_s(pids: Iterable[int]) -> float:
    """Seconds that all threads of these processes have waited for a core since they started."""
    return sum(_waited_s(path) for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def _waited_s(path: Path) -> float:
    """0 if the kernel does not count it, or the thread has ended."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(path.read_text().split()[1]) / 1e9
    return 0.0
