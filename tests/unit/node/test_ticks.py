"""When a worker's shards publish: pure rule, and the shared moments on virtual time."""

import asyncio

import pytest

from sandwich_node.publishing.ticks import QUIET_EVENTS_PER_S, WINDOW_S, Ticks, delay_s


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


async def test_a_quiet_worker_never_waits_and_a_busy_ones_shards_leave_together() -> None:
    ticks, order = Ticks(0.02), []

    async def shard(name: str) -> None:
        await ticks.wait(0.0)
        order.append(name)

    await shard("quiet")
    ticks.took(10_000, WINDOW_S)
    waiting = [asyncio.create_task(shard(name)) for name in ("a", "b", "c")]
    await asyncio.sleep(0)
    assert order == ["quiet"]
    waiting[1].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert order == ["quiet", "a", "c"]


async def test_the_rate_is_forgotten_when_less_happens() -> None:
    ticks = Ticks(1000.0)
    ticks.took(10_000, WINDOW_S)
    ticks.took(1, 3 * WINDOW_S)
    await ticks.wait(0.0)


async def test_a_burst_after_a_pause_does_not_wait() -> None:
    ticks = Ticks(1000.0)
    ticks.took(5, 1000.0)
    await ticks.wait(0.0)
