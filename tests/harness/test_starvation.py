"""The clock for bounds on durations: it counts the program's work and sleep, not its waits for a core."""

import asyncio
import os
import sys
import time
from asyncio.subprocess import PIPE

from tests.support.processes import started
from tests.support.starvation import LoopClock, fair_time, waited_s

BUSY = "print(1, flush=True)\nwhile True: pass"


async def test_waiting_for_a_core_does_not_count() -> None:
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    try:
        async with (
            started(sys.executable, "-c", BUSY, stdout=PIPE) as one,
            started(sys.executable, "-c", BUSY, stdout=PIPE) as two,
        ):
            for process in (one, two):
                assert process.stdout is not None
                await process.stdout.readline()
            began, fair_began, waited_began = time.monotonic(), fair_time(), waited_s([os.getpid()])
            while time.monotonic() < began + 1.0:
                pass
            seconds, fair, waited = (
                time.monotonic() - began,
                fair_time() - fair_began,
                waited_s([os.getpid()]) - waited_began,
            )
    finally:
        os.sched_setaffinity(0, mine)
    assert fair < 0.8 * seconds, "three run on one core"
    assert abs(fair + waited - seconds) < 0.2


def test_sleeping_and_computing_count() -> None:
    began = fair_time()
    time.sleep(0.2)
    assert fair_time() - began > 0.19
    began, used = fair_time(), time.thread_time()
    while time.thread_time() < used + 0.1:
        pass
    assert fair_time() - began > 0.09


async def test_a_loop_clock_counts_a_wait_and_little_of_a_long_turn() -> None:
    clock = LoopClock()
    ticking = asyncio.create_task(clock.run())
    await asyncio.sleep(0.1)
    began = clock.now
    await asyncio.sleep(0.5)
    waited = clock.now - began
    # Each tick on a loaded machine may be late by what does not count.
    assert 0.1 < waited <= 0.6
    began = clock.now
    time.sleep(0.5)  # noqa: ASYNC251  # a long turn
    await asyncio.sleep(0.05)
    assert clock.now - began <= 0.1
    ticking.cancel()
    await asyncio.wait({ticking})
