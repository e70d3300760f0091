"""A clock for tests of real time that does not run while the machine lets the program wait for a core.

The kernel counts how long each thread was ready to run and did not (schedstat, field 2; Linux,
Documentation/scheduler/sched-stats.rst). On a quiet machine that is next to nothing, and a bound is as strict as by the
clock on the wall. On a loaded machine the same bound holds for what the program itself takes.
"""

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path


def fair_time() -> float:
    """Seconds, as of `time.monotonic`, less those in which this thread waited for a core."""
    return time.monotonic() - _waited_s(Path("/proc/thread-self/schedstat"))


def waited_s(pids: Iterable[int]) -> float:
    """Seconds that all threads of these processes have waited for a core since they started."""
    return sum(_waited_s(path) for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def _waited_s(path: Path) -> float:
    """0 where the kernel does not count it, or the thread has ended."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(path.read_text().split()[1]) / 1e9
    return 0.0
