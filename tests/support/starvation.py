"""How long processes waited for a core: what a test of real time must not blame on the program."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path


def waited_s(pids: Iterable[int] = ()) -> float:
    """Seconds that these processes and this one were ready to run since their start and did not, over all threads.

    Field 2 of schedstat (Linux, Documentation/scheduler/sched-stats.rst). On a quiet machine it hardly grows; on a
    loaded one, less the growth of this, a duration is what it would have been. 0 where the kernel does not count it.
    """
    return sum(map(_of_process, {os.getpid(), *pids}))


def _of_process(pid: int) -> float:
    found = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            found += int(path.read_text().split()[1])
    return found / 1e9
