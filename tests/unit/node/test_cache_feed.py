"""A shard's way into the cache: in order, bounded, and never long in the way of the stream. Virtual time."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from sandwich_coordinator.types import CacheSpec
from sandwich_node.cache import feed as feeding
from sandwich_node.cache.batch import Batch, EventOps
from sandwich_node.cache.errors import CacheUnavailable
from sandwich_node.cache.feed import CacheFeed
from sandwich_node.cache.replies import Applied, Extra
from sandwich_node.cache.settings import Writer
from simulation.loop import run_virtual

WRITER = Writer(app="bot", group=0, shard=0, fence=1, bot="9", intents=1, settings=CacheSpec())


class FakeCache:
    """Answers in `delay` seconds, or not at all while `away`. Remembers what was applied."""

    def __init__(self) -> None:
        self.applied: list[int] = []
        self.delay = 0.0
        self.away = False
        self.recorded = -1

    async def apply(self, batch: Batch) -> Applied:
        if self.away:
            raise CacheUnavailable("Redis does not answer")
        await asyncio.sleep(self.delay)
        reply = Applied(is_first=self.recorded < 0, stood=self.recorded)
        for event in batch.events:
            self.applied.append(event.seq)
            reply.extras[event.seq] = Extra(before=b"{}")
        self.recorded = batch.events[-1].seq
        return reply


def events(*seqs: int, size: int = 10) -> tuple[EventOps, ...]:
    return tuple(EventOps(seq, (("x", "1"),), size) for seq in seqs)


def play(story: Callable[[CacheFeed, FakeCache, list[str]], Awaitable[Any]], *, complete: bool = True) -> Any:
    async def main() -> Any:
        cache, told = FakeCache(), []
        feed = CacheFeed(
            WRITER,
            cache,  # type: ignore[arg-type]
            rng=random.Random(1),
            caught_up=lambda: told.append("caught up"),
            complete=complete,
        )
        running = asyncio.create_task(feed.run())
        try:
            await feed.apply("s", 0, events(1), starts_session=True)
            return await story(feed, cache, told)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    return run_virtual(main())


def test_a_frame_gets_what_its_events_replaced() -> None:
    async def story(feed: CacheFeed, cache: FakeCache, told: list[str]) -> None:
        assert await feed.apply("s", 0, events(2, 3), starts_session=False) == {2: Extra(b"{}"), 3: Extra(b"{}")}
        assert feed.is_whole
        assert told == []

    play(story)


def test_a_slow_redis_holds_up_one_frame_for_a_moment_and_the_next_ones_not_at_all() -> None:
    async def story(feed: CacheFeed, cache: FakeCache, told: list[str]) -> None:
        cache.delay = 5.0
        clock = asyncio.get_running_loop().time
        started = clock()
        assert await feed.apply("s", 0, events(2), starts_session=False) is None
        assert await feed.apply("s", 0, events(3), starts_session=False) is None
        assert clock() - started <= feeding.WAIT_S + 0.01
        assert not feed.is_whole
        await feed.drained()
        assert cache.applied == [1, 2, 3]
        assert feed.is_whole
        assert told == ["caught up"]

    play(story)


def test_what_waits_while_redis_is_away_is_written_in_order_when_it_is_back() -> None:
    async def story(feed: CacheFeed, cache: FakeCache, told: list[str]) -> None:
        cache.away = True
        for seq in range(2, 40):
            assert await feed.apply("s", 0, events(seq), starts_session=False) is None
        assert feed.waiting == "Redis does not answer"
        cache.away = False
        await feed.drained()
        assert cache.applied == list(range(1, 40))
        assert feed.is_whole
        assert feed.waiting == ""

    play(story)


def test_memory_is_bounded_and_what_was_given_up_is_told() -> None:
    async def story(feed: CacheFeed, cache: FakeCache, told: list[str]) -> None:
        cache.away = True
        size = feeding.BACKLOG_BYTES_MAX // 10
        for seq in range(2, 40):
            await feed.apply("s", 0, events(seq, size=size), starts_session=False)
            assert feed.backlog <= 12
        cache.away = False
        await feed.drained()
        assert feed.counters.dropped > 0
        assert "away for too long" in feed.incomplete
        await feed.apply("t", 0, events(1), starts_session=True)
        assert feed.is_whole, "READY: all guilds come anew"

    play(story)


def test_a_redis_that_lost_its_data_is_noticed() -> None:
    async def story(feed: CacheFeed, cache: FakeCache, told: list[str]) -> None:
        await feed.apply("s", 0, events(2, 3), starts_session=False)
        cache.recorded = -1
        await feed.apply("s", 0, events(4), starts_session=False)
        assert "emptied" in feed.incomplete

    play(story)


def test_a_redis_that_lost_its_last_writes_is_noticed() -> None:
    async def story(feed: CacheFeed, cache: FakeCache, told: list[str]) -> None:
        await feed.apply("s", 0, events(2, 3), starts_session=False)
        cache.recorded = 2
        await feed.apply("s", 0, events(4), starts_session=False)
        assert "lost what was written last" in feed.incomplete

    play(story)


def test_an_owner_before_us_that_left_the_cache_behind_is_not_forgotten() -> None:
    async def story(feed: CacheFeed, cache: FakeCache, told: list[str]) -> str:
        return feed.incomplete

    assert play(story) == ""

    async def unfinished() -> str:
        feed = CacheFeed(
            WRITER,
            FakeCache(),
            rng=random.Random(1),
            caught_up=lambda: None,
            complete=False,  # type: ignore[arg-type]
        )
        return feed.incomplete

    assert "last owner" in run_virtual(unfinished())
