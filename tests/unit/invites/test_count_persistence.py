"""What a shard's next owner is left: written seldom, taken back at once, bounded. Virtual time."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sandwich_node.cache.errors import CacheUnavailable
from sandwich_node.invites import count_persistence
from sandwich_node.invites.count_persistence import CountPersistence
from verification.simulation.loop import run_virtual


class FakeStore:
    """Takes writes in `delay` seconds, or not at all while `away`; counts them."""

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
        keeper = CountPersistence(store, is_clean=is_clean, news=lambda: news.append("whole"))
        running = asyncio.create_task(keeper.run())
        try:
            await story(keeper, store, news)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run_virtual(main())


def test_what_is_to_be_kept_is_written_together_once_a_second() -> None:
    async def story(keeper: CountPersistence, store: FakeStore, news: list[str]) -> None:
        for number in range(30):
            keeper.keep(f"g{number % 10}", b"%d" % number, urgent=False)
            await asyncio.sleep(0.1)
        await asyncio.sleep(2.0)
        assert store.writes <= 4
        assert store.kept == {"old": b"from before"} | {f"g{number}": b"%d" % (20 + number) for number in range(10)}
        assert (keeper.is_whole, news) == (True, [])

    play(story)


def test_what_is_true_no_longer_is_taken_back_at_once() -> None:
    async def story(keeper: CountPersistence, store: FakeStore, news: list[str]) -> None:
        keeper.keep("a", b"1", urgent=False)
        keeper.keep("old", None, urgent=True)
        assert not keeper.is_whole
        await asyncio.sleep(0.02)
        assert (keeper.is_whole, news, store.kept) == (True, ["whole"], {"a": b"1"})

    play(story)


def test_what_is_taken_back_while_it_is_being_written_is_gone_in_the_end() -> None:
    async def story(keeper: CountPersistence, store: FakeStore, news: list[str]) -> None:
        store.delay = 0.5
        keeper.keep("a", b"0", urgent=True)
        keeper.keep("a", b"1", urgent=False)
        assert not keeper.is_whole
        await asyncio.sleep(0.1)
        keeper.keep("a", None, urgent=True)
        await asyncio.sleep(0.5)
        assert (keeper.is_whole, store.kept["a"]) == (False, b"1")
        await asyncio.sleep(0.5)
        assert (keeper.is_whole, "a" in store.kept, news) == (True, False, ["whole"])

    play(story)


def test_a_store_whose_content_is_not_known_is_emptied_before_it_is_whole() -> None:
    async def story(keeper: CountPersistence, store: FakeStore, news: list[str]) -> None:
        assert not keeper.is_whole
        keeper.keep("a", b"1", urgent=False)
        await asyncio.sleep(0.02)
        assert (keeper.is_whole, news, store.kept) == (True, ["whole"], {"a": b"1"})
        keeper.keep("b", b"2", urgent=False)
        keeper.clear()
        await asyncio.sleep(0.02)
        assert (keeper.is_whole, store.kept) == (True, {})

    play(story, is_clean=False)


def test_a_store_that_is_away_is_tried_again_and_what_waits_for_it_is_bounded() -> None:
    async def story(keeper: CountPersistence, store: FakeStore, news: list[str]) -> None:
        store.away = True
        keeper.keep("old", None, urgent=True)
        size = count_persistence.WAITING_BYTES_MAX // 10
        for number in range(20):
            keeper.keep(f"g{number}", bytes(size), urgent=False)
        await asyncio.sleep(10.0)
        assert not keeper.is_whole
        assert 8 <= store.writes <= 12
        store.away = False
        await asyncio.sleep(2.0)
        assert (keeper.is_whole, news) == (True, ["whole"])
        await asyncio.sleep(10.0)
        assert sorted(store.kept) == sorted(f"g{number}" for number in range(10, 20))

    play(story)


def test_whoever_leaves_waits_for_no_more_than_the_writes_themselves() -> None:
    async def story(keeper: CountPersistence, store: FakeStore, news: list[str]) -> None:
        for number in range(GUILDS):
            keeper.keep(f"g{number}", b"1", urgent=False)
        started = asyncio.get_running_loop().time()
        await keeper.drained()
        assert asyncio.get_running_loop().time() - started < 0.1
        assert len(store.kept) == GUILDS + 1
        store.away = True
        keeper.keep("late", b"1", urgent=False)
        await keeper.drained()
        assert asyncio.get_running_loop().time() - started < 0.2

    play(story)


def test_what_is_kept_does_not_age_out_while_its_owner_lives() -> None:
    async def story(keeper: CountPersistence, store: FakeStore, news: list[str]) -> None:
        await asyncio.sleep(4 * 3600.0 + 1)
        assert store.renewed == 12

    play(story)
