"""A pytest plugin: no process outlives the tests that started it, whether they pass, fail or are interrupted.

Each child asks the kernel to end with pytest (`die_with_parent`). A grandchild does not; it becomes a child of pytest
when its parent dies (PR_SET_CHILD_SUBREAPER, prctl(2)). After the last test of a module, with its fixtures ended, no
process may be left: one that does not end by itself soon is killed by its pid, and the test fails.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.processes import descendants

GRACE_S = 60.0
"""Workers of an agent that was killed release their shards before they end."""
KILL_S = 5.0
"""The time from SIGKILL until a process can be reaped."""
POLL_S = 0.02
KEPT: set[int] = set()
"""Processes that serve all tests of this process; who starts one ends it."""
_PR_SET_CHILD_SUBREAPER = 36


def pytest_configure(config: pytest.Config) -> None:
    if _runs_tests(config):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    yield
    if nextitem is None or nextitem.path != item.path:
        left = end_all(GRACE_S)
        if left:
            pytest.fail("processes were left behind and have been killed: " + "; ".join(left))


def pytest_unconfigure(config: pytest.Config) -> None:
    if _runs_tests(config):
        end_all(0.0)


def _runs_tests(config: pytest.Config) -> bool:
    """False in the process that only distributes tests: its children run them."""
    return hasattr(config, "workerinput") or config.getoption("dist", "no") == "no"


def end_all(grace_s: float) -> list[str]:
    """Wait until no descendant runs; kill those that run after `grace_s`. Returns their names and command lines."""
    left = _wait(grace_s)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _wait(KILL_S)
    return list(left.values())


def _wait(seconds: float) -> dict[int, str]:
    """Wait at most `seconds`; returns the descendants that still run."""
    end = time.monotonic() + seconds
    while (running := _running()) and time.monotonic() < end:
        time.sleep(POLL_S)
    return running


def _running() -> dict[int, str]:
    """Names and command lines of running descendants; reaps zombies."""
    found = {}
    for pid in set(descendants(os.getpid())) - KEPT:
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            if state not in "ZX":
                name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(bytes(1), b" ").decode(errors="replace")
                found[pid] = f"{pid} {name}: {words}"
                continue
            os.waitpid(pid, os.WNOHANG)
    return found
