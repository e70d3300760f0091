"""Of a shard that moves on while Redis is slow, the last owner writes the rest and the next one waits. Virtual time."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from sandwich_coordinator.ids import Fence
from sandwich_node.cache import handover_drain
from sandwich_node.cache.batch import names_of
from sandwich_node.cache.feed import CacheFeed
from sandwich_node.cache.handover_drain import LeftBehind, Standing, last_owner_is_through
from sandwich_node.publishing.chain import Checkpoint
from sandwich_node.shards.caching import ShardCaching
from tests.support.applied import applied
from tests.unit.node.test_cache_feed import WRITER, FakeCache, events
from verification.simulation.loop import run_virtual

STANDING = Standing("s", 7)
LATE = "its last owner ended"


class KeyedCache(FakeCache):
    """Also has keys."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[str, bytes] = {}

    async def command(self, *words: str) -> bytes | None:
        if words[0] == "SET":
            self.keys[words[1]] = words[2].encode()
        return self.keys.get(words[1])


@dataclass
class Owners:
    """Two owners of one shard, of which the first has given it up with something to write."""

    cache: KeyedCache = field(default_factory=KeyedCache)
    calls: list[str] = field(default_factory=list)

    async def begin(self) -> None:
        self.first = CacheFeed(WRITER, self.cache, rng=random.Random(1), caught_up=lambda: None)  # type: ignore[arg-type]
        running = asyncio.create_task(self.first.run())
        await applied(self.first, "s", 0, events(1), starts_session=True)
        self.cache.away = True
        for seq in (5, 7):
            assert await applied(self.first, "s", 0, events(seq), starts_session=False) is None
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        self.left = LeftBehind(self.first, self.cache, STANDING)  # type: ignore[arg-type]
        until = asyncio.get_running_loop().time() + handover_drain.WAIT_S
        self.second = CacheFeed(
            replace(WRITER, fence=Fence(2)),
            self.cache,  # type: ignore[arg-type]
            rng=random.Random(2),
            caught_up=lambda: self.calls.append("caught up"),
            incomplete=LATE,
            last_owner=partial(last_owner_is_through, self.cache, WRITER, STANDING, until),  # type: ignore[arg-type]
        )
        self.running = asyncio.create_task(self.second.run())


def play(story: Callable[[Owners], Awaitable[Any]]) -> None:
    async def main() -> None:
        owners = Owners()
        await owners.begin()
        try:
            await story(owners)
        finally:
            owners.running.cancel()
            await asyncio.gather(owners.running, return_exceptions=True)

    run_virtual(main())


def test_the_next_owner_writes_after_the_last_one_and_the_cache_is_complete() -> None:
    async def story(owners: Owners) -> None:
        finishing_now = asyncio.create_task(owners.left.finish())
        clock = asyncio.get_running_loop().time
        started = clock()
        assert await applied(owners.second, "s", 7, events(8), starts_session=False) is None
        assert clock() == started, "an event does not wait for what is known to be late"
        assert not owners.second.is_whole
        assert owners.second.is_behind
        await asyncio.sleep(3.0)
        assert owners.cache.applied == [1]
        owners.cache.away = False
        await owners.second.drained()
        await finishing_now
        assert owners.cache.applied == [1, 5, 7, 8]
        assert owners.second.is_whole
        assert not owners.second.is_behind
        assert not owners.second.lacking.is_set()
        assert owners.calls == ["caught up"]
        assert await applied(owners.second, "s", 7, events(9), starts_session=False) is not None

    play(story)


def test_the_wait_of_the_next_owner_is_bounded() -> None:
    async def story(owners: Owners) -> None:
        await asyncio.sleep(1.0)
        assert not owners.second.incomplete, "it is not known yet"
        await asyncio.sleep(handover_drain.WAIT_S + 1.0)
        owners.cache.away = False
        await asyncio.sleep(handover_drain.WAIT_S)
        assert owners.second.incomplete == LATE
        assert owners.second.lacking.is_set()
        assert not owners.second.is_whole

    play(story)


def test_a_next_owner_without_an_event_yet_is_behind_until_the_last_one_is_through() -> None:
    async def story(owners: Owners) -> None:
        finishing_now = asyncio.create_task(owners.left.finish())
        await asyncio.sleep(3.0)
        assert (owners.second.backlog, owners.second.incomplete, owners.second.is_behind) == (0, "", True)
        owners.cache.away = False
        await owners.second.drained()
        assert not owners.second.is_behind
        await finishing_now

    play(story)


def test_the_report_of_a_shards_cache_is_behind_until_its_last_owner_is_through() -> None:
    async def main() -> list[bool]:
        cache = KeyedCache()
        reported: list[bool] = []
        async with asyncio.TaskGroup() as group:
            caching = ShardCaching(
                WRITER,
                cache,  # type: ignore[arg-type]
                None,  # type: ignore[arg-type]
                None,  # type: ignore[arg-type]
                group,
                commands=None,  # type: ignore[arg-type]
                send=lambda message: None,
                rng=random.Random(1),
                caught_up=lambda: None,
                taken_over=Checkpoint("s", 7, behind=True, marked=True),
            )
            await asyncio.sleep(3.0)
            reported.append(behind(caching))
            cache.keys[names_of(WRITER).through] = b"s 7"
            await caching.drained()
            reported.append(behind(caching))
            caching.stop()
        return reported

    def behind(caching: ShardCaching) -> bool:
        numbers = caching.numbers()
        assert numbers is not None
        assert (numbers.backlog, numbers.incomplete) == (0, "")
        return numbers.behind

    assert run_virtual(main()) == [True, False]


def test_the_last_owner_gives_up_in_time() -> None:
    async def story(owners: Owners) -> None:
        started = asyncio.get_running_loop().time()
        await owners.left.finish()
        assert asyncio.get_running_loop().time() - started < handover_drain.FINISH_S + 0.1
        assert owners.cache.keys == {}

    play(story)


def test_a_last_owner_with_an_incomplete_cache_or_a_newer_owner_records_nothing() -> None:
    async def lacking(owners: Owners) -> None:
        owners.first.mark_incomplete("Redis lost its data")
        owners.cache.away = False
        await owners.left.finish()
        assert owners.cache.applied == [1, 5, 7]
        assert owners.cache.keys == {}

    async def overtaken(owners: Owners) -> None:
        owners.cache.newer = True
        owners.cache.away = False
        await owners.left.finish()
        assert owners.cache.keys == {}

    play(lacking)
    play(overtaken)


def test_a_record_of_another_position_is_not_accepted() -> None:
    async def story(owners: Owners) -> None:
        owners.cache.away = False
        older = LeftBehind(owners.first, owners.cache, Standing("s", 6))  # type: ignore[arg-type]
        await older.finish()
        assert owners.cache.keys
        await asyncio.sleep(handover_drain.WAIT_S + 1.0)
        assert owners.second.incomplete == LATE

    play(story)
