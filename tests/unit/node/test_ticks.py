"""When a worker's shards publish: pure rule, and the shared moments on virtual time."""

import asyncio

import pytest

from sandwich_node.publishing.ticks import QUIET_EVENTS_PER_S, WINDOW_S, Ticks, delay_s
from verification.simulation.loop import run_virtual


@pytest.mark.parametrize(
    ("now", "rate", "tick_s", "delay"),
    [
        (100.0, 50.0, 0.01, 0.0),
        (100.0, QUIET_EVENTS_PER_S - 1, 0.01, 0.0),
        (100.003, QUIET_EVENTS_PER_S, 0.01, 0.007),
        (100.003, 5000.0, 0.0, 0.0),
    ],
)
def test_an_event_waits_for_a_tick_only_where_much_happens(
    now: float, rate: float, tick_s: float, delay: float
) -> None:
    assert delay_s(now, rate, tick_s) == pytest.approx(delay, abs=1e-6)


class Shards:
    """Each takes one event when it publishes."""

    def __init__(self, ticks: Ticks) -> None:
        self.ticks = ticks
        self.order: list[str] = []

    def call(self, *names: str) -> None:
        for name in names:
            self.ticks.call(lambda name=name: self.publish(name))  # type: ignore[misc]

    def publish(self, name: str) -> int:
        self.order.append(name)
        return 1


def test_a_quiet_worker_never_waits_and_a_busy_ones_shards_leave_together() -> None:
    async def play() -> None:
        ticks = Ticks(0.02)
        shards = Shards(ticks)
        shards.call("quiet")
        assert shards.order == []
        await asyncio.sleep(0)
        assert shards.order == ["quiet"]
        await asyncio.sleep(2 * WINDOW_S)
        # The windows are complete now: a quiet one, and a busy one.
        now = asyncio.get_running_loop().time()
        ticks.took(0, now - 2 * WINDOW_S)
        ticks.took(10_000, now)
        # To the middle between two ticks.
        await asyncio.sleep(0.03 - now % 0.02)
        shards.call("a", "b")
        await asyncio.sleep(0.005)
        shards.call("c")
        assert shards.order == ["quiet"]
        await asyncio.sleep(0.01)
        assert shards.order == ["quiet", "a", "b", "c"]

    run_virtual(play())


async def test_a_shard_that_calls_again_while_it_publishes_is_called_at_the_next_tick() -> None:
    ticks, calls = Ticks(), 0

    def publish() -> int:
        nonlocal calls
        calls += 1
        if calls < 3:
            ticks.call(publish)
        return 1

    ticks.call(publish)
    await asyncio.sleep(0)
    assert calls == 1
    for _ in range(5):
        await asyncio.sleep(0)
    assert calls == 3


async def test_the_rate_is_forgotten_when_less_happens() -> None:
    ticks = Ticks(1000.0)
    ticks.took(10_000, WINDOW_S)
    ticks.took(1, 3 * WINDOW_S)
    shards = Shards(ticks)
    shards.call("a")
    await asyncio.sleep(0)
    assert shards.order == ["a"]


async def test_a_burst_after_a_pause_does_not_wait() -> None:
    ticks = Ticks(1000.0)
    ticks.took(5, 1000.0)
    shards = Shards(ticks)
    shards.call("a")
    await asyncio.sleep(0)
    assert shards.order == ["a"]
