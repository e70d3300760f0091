"""Samples a worker process: Python imports this module at its start when the directory is on PYTHONPATH.

SIGUSR1 begins, SIGUSR2 writes the samples to the file that PYTHON_WORKER_SAMPLES names (a worker's environment keeps
variables with this prefix). A sample is taken each time that the process has used INTERVAL_S of CPU, or as often as the
system's clock allows. Time in C counts for the Python function that called it; what the event loop itself does between
two callbacks counts for the one that runs next.
"""

import json
import os
import signal
import sys
from collections import Counter
from types import FrameType

INTERVAL_S = 0.001
DEPTH_MAX = 60


def _begin_when_asked(path: str) -> None:
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()

    def sample(number: int, frame: FrameType | None) -> None:
        names: list[str] = []
        while frame is not None and len(names) < DEPTH_MAX:
            code = frame.f_code
            names.append(f"{code.co_filename}:{code.co_firstlineno}:{code.co_qualname}")
            frame = frame.f_back
        own[names[0] if names else ""] += 1
        whole.update(set(names))

    def begin(number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def end(number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        with open(f"{path}.part", "w") as file:
            json.dump({"own": own, "whole": whole}, file)
        os.rename(f"{path}.part", path)

    signal.signal(signal.SIGPROF, sample)
    signal.signal(signal.SIGUSR1, begin)
    signal.signal(signal.SIGUSR2, end)


if "sandwich_node.worker_main" in sys.orig_argv:
    _begin_when_asked(os.environ["PYTHON_WORKER_SAMPLES"])
