"""A shard's cache begins in the middle of its session, behind the group before. Virtual time."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_coordinator.types import CacheSpec
from sandwich_node.cache import group_switch, handover_drain
from sandwich_node.cache.batch import names_of
from sandwich_node.cache.errors import CacheUnavailable
from sandwich_node.cache.group_switch import PreviousShard, PreviousShards
from sandwich_node.cache.handover_drain import Standing
from sandwich_node.cache.settings import CacheWriter
from sandwich_node.gateway.effects import State
from sandwich_node.publishing.chain import Checkpoint
from sandwich_node.shards.caching import NOT_ALL_WRITTEN, ShardCaching
from tests.support.applied import applied
from tests.unit.node.test_cache_feed import WRITER, FakeCache, events
from verification.simulation.loop import run_virtual

NEW = replace(WRITER, shard=ShardId("bot", 1, 1), fence=Fence(20))
ENDS = tuple(
    PreviousShard(shard=number, end=Standing(f"s{number}", 7), behind=False, fence=Fence(5)) for number in (0, 1)
)
BEFORE = PreviousShards(
    group=0, count=2, own_count=3, shards=ENDS, session="new", seq=40, guilds=frozenset({str(1 << 22)})
)
FRESH = Checkpoint("", 0)


class SwitchedCache(FakeCache):
    """Records the steps of a take-over; guild 1 << 22 is located at the old group."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[str] = []
        self.fences: dict[str, int] = {}
        self.keys: dict[str, bytes] = {}
        self.was_written = True

    def _step(self, name: str) -> None:
        if self.away:
            raise CacheUnavailable("Redis does not answer")
        self.steps.append(name)

    async def fence_out(self, writers: Sequence[CacheWriter], guilds: Iterable[Any] = ()) -> bool:
        self._step("fence")
        self.fences |= {writer.location: writer.fence for writer in writers}
        return self.was_written

    async def read_sets(self, keys: Sequence[str]) -> list[frozenset[str]]:
        return [frozenset({str(1 << 22)} if self.was_written else ())] + [frozenset() for _ in keys[1:]]

    async def move_guilds(self, writer: CacheWriter, group: int, moves: list[tuple[str, int]], *, to: int) -> int:
        self._step(f"move {moves} from {group} to {to}")
        return len(moves)

    async def begin_session(self, writer: CacheWriter, session: str, seq: int) -> None:
        self._step(f"begin {session} {seq}")
        self.recorded = seq

    async def command(self, *words: str) -> Any:
        if self.away:
            raise CacheUnavailable("Redis does not answer")
        if words[0] == "MGET":
            return [self.keys.get(key) for key in words[1:]]
        if words[0] == "SET":
            self.kept = words[2]
            return None
        return self.keys.get(words[1])


@dataclass
class Shard:
    """A shard's cache, and what it reported."""

    caching: ShardCaching
    cache: SwitchedCache
    calls: list[str] = field(default_factory=list)

    @property
    def numbers(self) -> tuple[str, bool]:
        found = self.caching.numbers()
        assert found is not None
        return found.incomplete, found.behind


def play(
    story: Callable[[Shard], Awaitable[Any]],
    *,
    before: PreviousShards = BEFORE,
    left: Checkpoint = FRESH,
    cache: SwitchedCache | None = None,
    writer: CacheWriter = NEW,
) -> None:
    async def main() -> None:
        redis, calls = cache or SwitchedCache(), list[str]()
        async with asyncio.TaskGroup() as group:
            caching = ShardCaching(
                writer,
                redis,  # type: ignore[arg-type]
                None,  # type: ignore[arg-type]
                None,  # type: ignore[arg-type]
                group,
                commands=None,  # type: ignore[arg-type]
                send=lambda message: None,
                rng=random.Random(1),
                caught_up=lambda: calls.append("caught up"),
                taken_over=left,
                before=before,
                # Not live: no resync begins.
                state=State.CONNECTING,
            )
            await story(Shard(caching, redis, calls))
            caching.stop()

    run_virtual(main())


def test_it_fences_off_and_takes_over_before_it_writes_and_is_complete() -> None:
    async def story(shard: Shard) -> None:
        feed = shard.caching.feed
        assert feed is not None
        assert await applied(feed, "new", 40, events(41), starts_session=False) is not None
        assert shard.cache.steps == [
            "fence",
            f"move [('{1 << 22}', 1)] from 0 to 1",
            "begin new 40",
        ]
        assert shard.cache.fences == {"0:0": 20, "0:1": 20}
        assert shard.cache.applied == [41]
        assert shard.numbers == ("", False)
        assert feed.begun.is_set()

    play(story)


def test_an_old_fence_above_its_own_is_outdone() -> None:
    async def story(shard: Shard) -> None:
        await shard.caching.drained()
        assert shard.cache.fences == {"0:0": 20, "0:1": 31}

    play(story, before=replace(BEFORE, shards=(ENDS[0], replace(ENDS[1], fence=Fence(30)))))


def test_it_waits_for_the_old_owners_that_still_write_and_events_do_not_wait() -> None:
    behind = replace(BEFORE, shards=(replace(ENDS[0], behind=True), replace(ENDS[1], behind=True)))

    async def story(shard: Shard) -> None:
        feed = shard.caching.feed
        assert feed is not None
        assert await applied(feed, "new", 40, events(41), starts_session=False) is None
        await asyncio.sleep(3.0)
        assert (shard.cache.steps, shard.numbers) == ([], ("", True))
        for number in (0, 1):
            old = replace(NEW, shard=ShardId("bot", 0, number))
            shard.cache.keys[names_of(old).through] = f"s{number} 7".encode()
        await shard.caching.drained()
        assert shard.cache.steps[0] == "fence"
        assert shard.cache.applied == [41]
        assert shard.numbers == ("", False)
        assert shard.calls == ["caught up"]

    play(story, before=behind)


def test_the_cache_is_incomplete_when_an_old_owner_does_not_finish() -> None:
    behind = replace(BEFORE, shards=(ENDS[0], replace(ENDS[1], behind=True)))

    async def story(shard: Shard) -> None:
        await asyncio.sleep(handover_drain.WAIT_S + 1.0)
        assert shard.numbers == (NOT_ALL_WRITTEN, False)
        assert shard.cache.steps[0] == "fence"

    play(story, before=behind)


def test_the_cache_is_incomplete_when_the_old_group_cannot_have_completed_it() -> None:
    async def incomplete(shard: Shard, reason: str) -> None:
        await shard.caching.drained()
        assert shard.numbers == (reason, False)
        assert shard.cache.steps[0] == "fence"

    play(lambda shard: incomplete(shard, group_switch.NOT_ALL_RAN), before=replace(BEFORE, shards=ENDS[:1]))
    members = replace(NEW, intents=1 | 1 << 1)
    play(lambda shard: incomplete(shard, group_switch.OTHER_INTENTS), before=replace(BEFORE, intents=1), writer=members)
    emptied = SwitchedCache()
    emptied.was_written = False
    play(lambda shard: incomplete(shard, group_switch.LOST), cache=emptied)
    unmarked = Checkpoint("new", 44, behind=True)
    play(lambda shard: incomplete(shard, NOT_ALL_WRITTEN), left=unmarked)


def test_a_shard_whose_old_ones_never_ran_begins_with_nothing() -> None:
    async def story(shard: Shard) -> None:
        await shard.caching.drained()
        assert shard.numbers == (group_switch.NOT_ALL_RAN, False)
        assert shard.cache.steps == []

    play(story, before=replace(BEFORE, shards=()))


def test_the_take_over_waits_for_redis() -> None:
    away = SwitchedCache()
    away.away = True

    async def story(shard: Shard) -> None:
        await asyncio.sleep(30.0)
        assert shard.cache.steps == []
        shard.cache.away = False
        await shard.caching.drained()
        assert [step.split()[0] for step in shard.cache.steps] == ["fence", "move", "begin"]
        assert shard.numbers == ("", False)

    play(story, cache=away)


def test_options_that_changed_since_the_old_group_ended_are_noticed() -> None:
    kept = SwitchedCache()
    for number in (0, 1):
        kept.keys[names_of(replace(NEW, shard=ShardId("bot", 0, number))).kept] = b"c"

    async def story(shard: Shard) -> None:
        await shard.caching.drained()
        assert shard.numbers == ("more is kept than before", False)

    play(story, cache=kept)


def test_a_cache_that_is_switched_off_begins_when_it_is_switched_on() -> None:
    async def story(shard: Shard) -> None:
        assert shard.caching.feed is None
        shard.caching.follow(CacheSpec())
        await shard.caching.drained()
        assert shard.numbers[0].startswith("it was switched on")
        assert shard.cache.steps == []

    play(story, writer=replace(NEW, settings=CacheSpec(enabled=False)))


def test_what_an_ended_shard_still_has_to_write_is_left_at_its_end_frame() -> None:
    async def story(shard: Shard) -> None:
        await shard.caching.drained()
        assert shard.caching.left_at(Checkpoint("new", 50)) is None
        left = shard.caching.left_at(Checkpoint("new", 50, behind=True))
        assert left is not None
        assert left.standing == Standing("new", 50)
        assert shard.caching.feed is not None
        shard.caching.feed.mark_incomplete("Redis lost its data")
        assert shard.caching.left_at(Checkpoint("new", 50, behind=True)) is None

    play(story)
