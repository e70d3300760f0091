"""Counts saved for a shard's next owner: written seldom, removed at once, bounded. Virtual time."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sandwich_node.cache.errors import CacheUnavailable
from sandwich_node.invites import count_persistence
from sandwich_node.invites.count_persistence import CountPersistence
from verification.simulation.loop import run_virtual


class FakeStore:
    """Accepts writes after `delay` seconds, or none while `away`; counts them."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {"old": b"from before"}
        self.writes = 0
        self.renewed = 0
        self.delay = 0.01
        self.away = False

    async def write(self, states: Mapping[str, bytes | None], *, clear: bool) -> None:
        self.writes += 1
        await asyncio.sleep(self.delay)
        if self.away:
            raise CacheUnavailable("away")
        if clear:
            self.kept.clear()
        for guild, state in states.items():
            self.kept.pop(guild, None)
            if state is not None:
                self.kept[guild] = state

    async def renew(self) -> None:
        self.renewed += 1


GUILDS = 300
Story = Callable[[CountPersistence, FakeStore, list[str]], Awaitable[Any]]


def play(story: Story, *, is_clean: bool = True) -> None:
    async def main() -> None:
        store, news = FakeStore(), []
        persistence = CountPersistence(store, is_clean=is_clean, on_whole=lambda: news.append("whole"))
        running = asyncio.create_task(persistence.run())
        try:
            await story(persistence, store, news)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run_virtual(main())


def test_changes_are_written_together_once_a_second() -> None:
    async def story(persistence: CountPersistence, store: FakeStore, news: list[str]) -> None:
        for number in range(30):
            persistence.save(f"g{number % 10}", b"%d" % number, urgent=False)
            await asyncio.sleep(0.1)
        await asyncio.sleep(2.0)
        assert store.writes <= 4
        assert store.kept == {"old": b"from before"} | {f"g{number}": b"%d" % (20 + number) for number in range(10)}
        assert (persistence.is_whole, news) == (True, [])

    play(story)


def test_outdated_counts_are_removed_at_once() -> None:
    async def story(persistence: CountPersistence, store: FakeStore, news: list[str]) -> None:
        persistence.save("a", b"1", urgent=False)
        persistence.save("old", None, urgent=True)
        assert not persistence.is_whole
        await asyncio.sleep(0.02)
        assert (persistence.is_whole, news, store.kept) == (True, ["whole"], {"a": b"1"})

    play(story)


def test_counts_that_become_outdated_during_their_write_are_removed_after_it() -> None:
    async def story(persistence: CountPersistence, store: FakeStore, news: list[str]) -> None:
        store.delay = 0.5
        persistence.save("a", b"0", urgent=True)
        persistence.save("a", b"1", urgent=False)
        assert not persistence.is_whole
        await asyncio.sleep(0.1)
        persistence.save("a", None, urgent=True)
        await asyncio.sleep(0.5)
        assert (persistence.is_whole, store.kept["a"]) == (False, b"1")
        await asyncio.sleep(0.5)
        assert (persistence.is_whole, "a" in store.kept, news) == (True, False, ["whole"])

    play(story)


def test_a_store_with_unknown_content_is_cleared_before_it_is_whole() -> None:
    async def story(persistence: CountPersistence, store: FakeStore, news: list[str]) -> None:
        assert not persistence.is_whole
        persistence.save("a", b"1", urgent=False)
        await asyncio.sleep(0.02)
        assert (persistence.is_whole, news, store.kept) == (True, ["whole"], {"a": b"1"})
        persistence.save("b", b"2", urgent=False)
        persistence.clear()
        await asyncio.sleep(0.02)
        assert (persistence.is_whole, store.kept) == (True, {})

    play(story, is_clean=False)


def test_writes_to_an_unavailable_store_are_repeated_and_the_waiting_changes_are_bounded() -> None:
    async def story(persistence: CountPersistence, store: FakeStore, news: list[str]) -> None:
        store.away = True
        persistence.save("old", None, urgent=True)
        size = count_persistence.WAITING_BYTES_MAX // 10
        for number in range(20):
            persistence.save(f"g{number}", bytes(size), urgent=False)
        await asyncio.sleep(10.0)
        assert not persistence.is_whole
        assert 8 <= store.writes <= 12
        store.away = False
        await asyncio.sleep(2.0)
        assert (persistence.is_whole, news) == (True, ["whole"])
        await asyncio.sleep(10.0)
        assert sorted(store.kept) == sorted(f"g{number}" for number in range(10, 20))

    play(story)


def test_an_owner_that_leaves_waits_only_for_the_writes() -> None:
    async def story(persistence: CountPersistence, store: FakeStore, news: list[str]) -> None:
        for number in range(GUILDS):
            persistence.save(f"g{number}", b"1", urgent=False)
        started = asyncio.get_running_loop().time()
        await persistence.drained()
        assert asyncio.get_running_loop().time() - started < 0.1
        assert len(store.kept) == GUILDS + 1
        store.away = True
        persistence.save("late", b"1", urgent=False)
        await persistence.drained()
        assert asyncio.get_running_loop().time() - started < 0.2

    play(story)


def test_saved_counts_do_not_expire_while_their_owner_runs() -> None:
    async def story(persistence: CountPersistence, store: FakeStore, news: list[str]) -> None:
        await asyncio.sleep(4 * 3600.0 + 1)
        assert store.renewed == 12

    play(story)
