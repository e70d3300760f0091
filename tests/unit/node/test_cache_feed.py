"""A shard's way into the cache: in order, bounded, and never long in the way of the stream. Virtual time."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_coordinator.types import CacheSpec
from sandwich_node.cache import feed as feeding
from sandwich_node.cache.batch import Batch, EventOps
from sandwich_node.cache.context import Op
from sandwich_node.cache.errors import CacheError, CacheFull, CacheReadOnly, CacheUnavailable
from sandwich_node.cache.feed import CacheFeed
from sandwich_node.cache.replies import Applied, Extra
from sandwich_node.cache.settings import CacheWriter
from tests.support.applied import applied
from verification.simulation.loop import run_virtual

WRITER = CacheWriter(shard=ShardId("bot", 0, 0), fence=Fence(1), bot="9", intents=1, settings=CacheSpec())


class FakeCache:
    """Answers in `delay` seconds, or not at all while `away`. Remembers what was applied."""

    def __init__(self) -> None:
        self.applied: list[int] = []
        self.delay = 0.0
        self.away = False
        self.newer = False
        self.refusal: CacheError | None = None
        self.recorded = -1
        self.afresh: list[tuple[Op, ...]] = []
        self.kept: str | None = None
        self.forgotten: list[str] = []
        self.begun = 0
        self._answers: set[asyncio.Task[None]] = set()

    def begin(self, batch: Batch, size: int, then: Callable[[Applied | CacheError], None]) -> bool:
        async def answer() -> None:
            try:
                then(await self.apply(batch))
            except CacheError as error:
                then(error)

        self.begun += 1
        task = asyncio.create_task(answer())
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)
        return True

    async def keep(self, writer: CacheWriter, letters: str) -> str | None:
        before, self.kept = self.kept, letters
        return before

    async def forget(self, writer: CacheWriter, letters: str) -> None:
        self.forgotten.append(letters)

    async def apply_afresh(self, writer: CacheWriter, events: tuple[EventOps, ...]) -> Applied:
        if self.away:
            raise CacheUnavailable("Redis does not answer")
        self.afresh.append(tuple(op for event in events for op in event.ops))
        return Applied()

    async def apply(self, batch: Batch) -> Applied:
        if self.away:
            raise CacheUnavailable("Redis does not answer")
        if self.refusal is not None:
            raise self.refusal
        await asyncio.sleep(self.delay)
        if self.newer:
            return Applied(newer=True)
        reply = Applied(is_first=self.recorded < 0, stood=self.recorded)
        for event in batch.events:
            self.applied.append(event.seq)
            reply.extras[event.seq] = Extra(before=b"{}")
        self.recorded = batch.events[-1].seq
        return reply


def events(*seqs: int, size: int = 10, guild: str = "1") -> tuple[EventOps, ...]:
    return tuple(EventOps(seq, (("x", guild, str(seq)),), size) for seq in seqs)


def play(story: Callable[[CacheFeed, FakeCache, list[str]], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        cache, calls = FakeCache(), []
        feed = CacheFeed(
            WRITER,
            cache,  # type: ignore[arg-type]
            rng=random.Random(1),
            caught_up=lambda: calls.append("caught up"),
        )
        running = asyncio.create_task(feed.run())
        try:
            await applied(feed, "s", 0, events(1), starts_session=True)
            return await story(feed, cache, calls)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    return run_virtual(main())


def test_a_frame_gets_the_values_that_its_events_replaced() -> None:
    async def story(feed: CacheFeed, cache: FakeCache, calls: list[str]) -> None:
        assert await applied(feed, "s", 0, events(2, 3), starts_session=False) == {2: Extra(b"{}"), 3: Extra(b"{}")}
        assert feed.is_whole
        assert calls == []

    play(story)


def test_a_slow_redis_delays_one_frame_briefly_and_the_next_ones_not_at_all() -> None:
    async def story(feed: CacheFeed, cache: FakeCache, calls: list[str]) -> None:
        cache.delay = 5.0
        clock = asyncio.get_running_loop().time
        started = clock()
        assert await applied(feed, "s", 0, events(2), starts_session=False) is None
        assert await applied(feed, "s", 0, events(3), starts_session=False) is None
        assert clock() - started <= feeding.WAIT_S + 0.01
        assert not feed.is_whole
        assert feed.is_behind
        await feed.drained()
        assert cache.applied == [1, 2, 3]
        assert feed.is_whole
        assert not feed.is_behind
        assert calls == ["caught up"]

    play(story)


def test_a_frame_that_nothing_waits_before_is_sent_at_once() -> None:
    async def story(feed: CacheFeed, cache: FakeCache, calls: list[str]) -> None:
        await feed.drained()
        await applied(feed, "s", 0, events(2), starts_session=False)
        assert cache.begun == 1
        cache.delay = 5.0
        assert await applied(feed, "s", 0, events(3), starts_session=False) is None
        cache.delay = 0.0
        assert await applied(feed, "s", 0, events(4), starts_session=False) is None
        assert cache.begun == 2
        assert feed.is_behind
        await feed.drained()
        assert cache.applied == [1, 2, 3, 4]
        assert calls == ["caught up"]
        assert await applied(feed, "s", 0, events(5), starts_session=False) == {5: Extra(b"{}")}
        assert cache.begun == 3

    play(story)


def test_a_reply_that_comes_in_the_turn_in_which_the_wait_ends_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(feed: CacheFeed, cache: FakeCache, calls: list[str]) -> None:
        await feed.drained()
        loop = asyncio.get_running_loop()
        due = loop.time() + feeding.WAIT_S

        def late(batch: Batch, size: int, then: Callable[[Applied | CacheError], None]) -> bool:
            loop.call_at(due + 1e-12, then, Applied())
            return True

        with monkeypatch.context() as patched:
            patched.setattr(cache, "begin", late)
            assert await applied(feed, "s", 0, events(2), starts_session=False) is None
        assert calls == ["caught up"]
        assert not feed.is_behind
        assert await applied(feed, "s", 0, events(3), starts_session=False) == {3: Extra(b"{}")}

    play(story)


def test_a_frame_that_was_sent_in_vain_is_tried_again_before_the_next() -> None:
    async def story(feed: CacheFeed, cache: FakeCache, calls: list[str]) -> None:
        await feed.drained()
        cache.away = True
        assert await applied(feed, "s", 0, events(2), starts_session=False) is None
        assert feed.waiting == "Redis does not answer"
        assert await applied(feed, "s", 0, events(3), starts_session=False) is None
        cache.away = False
        await feed.drained()
        assert cache.applied == [1, 2, 3]
        assert feed.waiting == ""

    play(story)


@pytest.mark.parametrize("refusal", [CacheFull("full"), CacheReadOnly("read-only")])
def test_a_change_that_redis_refuses_is_counted_once_and_made_when_redis_takes_it(refusal: CacheError) -> None:
    async def story(feed: CacheFeed, cache: FakeCache, calls: list[str]) -> None:
        cache.away = True
        assert await applied(feed, "s", 0, events(2), starts_session=False) is None
        await asyncio.sleep(60.0)
        assert feed.counters.failed == 0, "no answer is no refusal"
        cache.away, cache.refusal = False, refusal
        await asyncio.sleep(60.0)
        assert (feed.counters.failed, feed.waiting) == (1, str(refusal))
        cache.refusal = None
        await feed.drained()
        assert (cache.applied, feed.counters.failed) == ([1, 2], 1)

    play(story)


def test_what_was_sent_at_once_is_written_by_the_last_owner_when_it_ends() -> None:
    async def main() -> None:
        cache = FakeCache()
        feed = CacheFeed(WRITER, cache, rng=random.Random(1), caught_up=lambda: None)  # type: ignore[arg-type]
        running = asyncio.create_task(feed.run())
        await applied(feed, "s", 0, events(1), starts_session=True)
        await feed.drained()
        cache.delay = 1.0
        publishing = asyncio.create_task(applied(feed, "s", 1, events(2), starts_session=False))
        await asyncio.sleep(0)
        assert cache.begun == 1
        publishing.cancel()
        running.cancel()
        await asyncio.gather(publishing, running, return_exceptions=True)
        ended: list[int] = []

        async def then() -> None:
            ended.extend(cache.applied)

        await feed.finish(then)
        assert ended == [1, 2]

    run_virtual(main())


def test_changes_that_wait_for_redis_are_written_in_order_when_it_is_back() -> None:
    async def story(feed: CacheFeed, cache: FakeCache, calls: list[str]) -> None:
        cache.away = True
        for seq in range(2, 40):
            assert await applied(feed, "s", 0, events(seq), starts_session=False) is None
        assert feed.waiting == "Redis does not answer"
        cache.away = False
        await feed.drained()
        assert cache.applied == list(range(1, 40))
        assert feed.is_whole
        assert feed.waiting == ""

    play(story)


def test_memory_is_bounded_and_dropped_events_are_reported() -> None:
    async def story(feed: CacheFeed, cache: FakeCache, calls: list[str]) -> None:
        cache.away = True
        size = feeding.BACKLOG_BYTES_MAX // 10
        for seq in range(2, 40):
            await applied(feed, "s", 0, events(seq, size=size), starts_session=False)
            assert feed.backlog <= 12
        cache.away = False
        await feed.drained()
        assert feed.counters.dropped > 0
        assert "unavailable for too long" in feed.incomplete
        await applied(feed, "t", 0, events(1), starts_session=True)
        assert feed.is_whole, "READY: all guilds follow"

    play(story)


def test_a_redis_that_lost_its_data_is_noticed() -> None:
    async def story(feed: CacheFeed, cache: FakeCache, calls: list[str]) -> None:
        await applied(feed, "s", 0, events(2, 3), starts_session=False)
        cache.recorded = -1
        await applied(feed, "s", 0, events(4), starts_session=False)
        assert "emptied" in feed.incomplete

    play(story)


def test_a_redis_that_lost_its_last_writes_is_noticed() -> None:
    async def story(feed: CacheFeed, cache: FakeCache, calls: list[str]) -> None:
        await applied(feed, "s", 0, events(2, 3), starts_session=False)
        cache.recorded = 2
        await applied(feed, "s", 0, events(4), starts_session=False)
        assert "lost what was written last" in feed.incomplete

    play(story)


def test_operations_during_a_resync_are_repeated_after_the_guild_is_written() -> None:
    async def story(feed: CacheFeed, cache: FakeCache, calls: list[str]) -> None:
        feed.mark_incomplete("Redis was emptied")
        cache.afresh.clear()
        feed.begin_resync()
        await applied(feed, "s", 0, events(2, guild="1"), starts_session=False)
        await applied(feed, "s", 0, events(3, guild="2"), starts_session=False)
        feed.refill("READY", b'{"user":{"id":"9"},"guilds":[{"id":"1"},{"id":"2"}]}')
        feed.refill("GUILD_CREATE", b'{"id":"1","name":"g"}')
        await feed.drained()
        await applied(feed, "s", 0, events(4, guild="1"), starts_session=False)
        feed.refill("GUILD_CREATE", b'{"id":"2","name":"h"}')
        feed.end_resync(complete=True)
        await feed.drained()
        shown = [[op[0] for op in ops] for ops in cache.afresh]
        assert shown == [["listed"], ["guild", "arrive", "x"], ["guild", "arrive", "x"]]
        assert [ops[-1] for ops in cache.afresh[1:]] == [("x", "1", "2"), ("x", "2", "3")]
        assert feed.is_whole
        assert calls == ["caught up"]

    play(story)


def test_operations_are_repeated_also_after_a_failed_call_and_for_a_guild_that_arrives_twice() -> None:
    async def story(feed: CacheFeed, cache: FakeCache, calls: list[str]) -> None:
        feed.mark_incomplete("Redis was emptied")
        cache.afresh.clear()
        feed.begin_resync()
        await applied(feed, "s", 0, events(2), starts_session=False)
        cache.away = True
        feed.refill("GUILD_CREATE", b'{"id":"1","name":"g"}')
        await asyncio.sleep(3)
        cache.away = False
        await feed.drained()
        await applied(feed, "s", 0, events(3), starts_session=False)
        feed.refill("GUILD_CREATE", b'{"id":"1","name":"g"}')
        await feed.drained()
        redone = [[op[2] for op in ops if op[0] == "x"] for ops in cache.afresh]
        assert redone == [["2"], ["2", "3"]]

    play(story)


@pytest.mark.parametrize("recorded", [-1, 1])
def test_a_refill_is_given_up_when_redis_loses_data_again(recorded: int) -> None:
    async def story(feed: CacheFeed, cache: FakeCache, calls: list[str]) -> None:
        await applied(feed, "s", 0, events(2, 3), starts_session=False)
        feed.mark_incomplete("Redis was emptied")
        feed.begin_resync()
        feed.refill("GUILD_CREATE", b'{"id":"1","name":"g"}')
        await feed.drained()
        cache.recorded = recorded
        await applied(feed, "s", 0, events(4), starts_session=False)
        assert not feed.refilling
        feed.end_resync(complete=True)
        await feed.drained()
        assert feed.incomplete

    play(story)


def test_a_refill_ends_when_a_session_of_the_shards_own_begins() -> None:
    async def story(feed: CacheFeed, cache: FakeCache, calls: list[str]) -> None:
        feed.mark_incomplete("Redis was emptied")
        feed.begin_resync()
        await applied(feed, "t", 0, events(1), starts_session=True)
        assert not feed.refilling
        cache.afresh.clear()
        feed.refill("GUILD_CREATE", b'{"id":"1"}')
        feed.end_resync(complete=True)
        await feed.drained()
        assert cache.afresh == []

    play(story)


def test_entities_that_are_no_longer_kept_are_removed_and_newly_kept_ones_need_a_resync() -> None:
    async def story(feed: CacheFeed, cache: FakeCache, calls: list[str]) -> None:
        feed.follow(replace(WRITER, settings=CacheSpec(presences=True, roles=False)))
        await feed.drained()
        assert cache.forgotten == ["r"]
        assert feed.incomplete == "more is kept than before"

    play(story)


def test_a_last_owner_with_an_incomplete_cache_makes_the_cache_incomplete() -> None:
    async def unfinished() -> CacheFeed:
        return CacheFeed(
            WRITER,
            FakeCache(),  # type: ignore[arg-type]
            rng=random.Random(1),
            caught_up=lambda: None,
            incomplete="its last owner ended",
        )

    feed = run_virtual(unfinished())
    assert feed.incomplete == "its last owner ended"
    assert feed.lacking.is_set()
    assert not feed.is_whole


def test_what_a_newer_owner_refuses_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def story(feed: CacheFeed, cache: FakeCache, calls: list[str]) -> int:
        cache.newer = True
        for seq in (2, 3):
            assert await applied(feed, "s", 1, events(seq, seq + 10), starts_session=False) == {}
        assert cache.applied == [1]
        return feed.counters.refused

    assert play(story) == 4
    assert [record.message for record in caplog.records] == [
        "shard bot/0:0 has a newer owner: its late changes of the cache are refused"
    ]


def test_each_unreadable_event_is_counted_and_each_type_is_logged_now_and_then_without_its_content(
    caplog: pytest.LogCaptureFixture,
) -> None:
    secret = "canary"
    damaged = b'{"id":"1","name":"%b","members":[{"user":"%b"},7],"roles":null}' % ((secret.encode(),) * 2)

    async def story(feed: CacheFeed, cache: FakeCache, calls: list[str]) -> None:
        for _ in range(3):
            assert feed.translate("GUILD_CREATE", damaged)
            assert feed.translate("CHANNEL_UPDATE", b'{"id":7,"topic":"canary"}') == ()
        assert (feed.counters.malformed, feed.counters.lost) == (6, 9)
        assert feed.incomplete == "an event CHANNEL_UPDATE could not be read"
        assert len(caplog.records) == 3, "a line a type, and one for the cache that lacks an event"
        await asyncio.sleep(61)
        feed.translate("GUILD_CREATE", damaged)
        assert feed.translate("CHANNEL_CREATE", b'{"id":"1","guild_id":"1"}')
        assert (feed.counters.malformed, feed.counters.lost) == (7, 12)

    play(story)
    left_out = "shard bot/0:0: GUILD_CREATE has parts that do not have the documented form and are left out: "
    assert [record.getMessage() for record in caplog.records] == [
        f"{left_out}2 of members, 1 of roles",
        "shard bot/0:0: CHANNEL_UPDATE does not have the documented form (ValidationError); it changes nothing",
        "the cache of shard bot/0:0 is incomplete: an event CHANNEL_UPDATE could not be read",
        f"{left_out}2 of members, 1 of roles (2 more like it since the last such line)",
    ]
    assert secret not in caplog.text
