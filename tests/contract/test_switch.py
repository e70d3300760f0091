"""Consumer groups at a switch between shard groups, on a real nats-server."""

import asyncio
import logging
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sandwich_node.dev.embedded import EmbeddedNats
from sandwich_sdk import Consumer, Event, ordered
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.switch import Switch
from tests.support import group_worker, processes
from tests.support.generations import Generations
from tests.support.publisher import Publisher, running, settled, until

pytestmark = pytest.mark.contract
STREAM = subjects.stream_name("bot")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered, "DISCOVER_S", 0.05)
    monkeypatch.setattr(ordered, "HEARTBEAT_S", 0.05)


class Log:
    """What workers in this process begin and handle, as guild and n."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, int]] = []
        self.handled: list[tuple[int, int]] = []

    def worker(
        self, server: EmbeddedNats, chance: random.Random | None = None, *, group: str = "o", **options: object
    ) -> Consumer:
        """With `chance`: its handlers take a random time, and some fail."""
        settings = {"start": "all", "ordered": True, "concurrency": 3, "nak_delay": 0.01, **options}
        consumer = Consumer(server.url, app="bot", group=group, **settings)  # type: ignore[arg-type]
        consumer.on_error(lambda failure: None)

        @consumer.on_any
        async def handle(event: Event) -> None:
            what = event.data["guild"], event.data["n"]
            self.begun.append(what)
            if chance is not None:
                await asyncio.sleep(chance.random() * 0.005)
                if chance.random() < 0.05:
                    raise RuntimeError("now and then")
            await self.handle(what)
            self.handled.append(what)

        return consumer

    async def handle(self, what: tuple[int, int]) -> None:
        """What the handler of a test does besides."""

    def of(self, guild: int) -> list[int]:
        return [n for where, n in self.handled if where == guild]


class Blocked(Log):
    """The handler of one event waits for `free`."""

    def __init__(self, event: tuple[int, int]) -> None:
        super().__init__()
        self.event = event
        self.free = asyncio.Event()

    async def handle(self, what: tuple[int, int]) -> None:
        if what == self.event:
            await self.free.wait()


def in_order(written: list[tuple[int, int]], guilds: range) -> dict[int, list[int]]:
    return {guild: [n for where, n in written if where == guild] for guild in guilds}


@pytest.mark.parametrize(
    ("counts", "workers", "lanes", "reads"),
    [
        ((2, 3), 1, ("all",), "all"),
        ((5, 2), 2, ("all", "chat"), "*"),
        ((3, 4), 3, ("all", "chat"), "all"),
        ((2, 3, 5, 2), 4, ("all", "chat", "voice"), "*"),
        ((33, 40), 2, ("all",), "all"),
    ],
)
async def test_each_guild_s_events_are_handled_once_in_the_order_of_the_stream(
    server: EmbeddedNats,
    publisher: Publisher,
    counts: tuple[int, ...],
    workers: int,
    lanes: tuple[str, ...],
    reads: str,
) -> None:
    chance = random.Random(str((counts, workers)))
    guilds = range(12)
    bot = Generations(publisher.client, counts[0], lanes=lanes)
    log = Log()
    first = [log.worker(server, chance, lane=reads) for _ in range(workers)]

    async def events(count: int) -> None:
        for _ in range(count):
            await bot.event(chance.choice(guilds), lane=chance.choice(lanes), parts=chance.choice([1, 1, 3]))

    await events(60)
    async with running(*first):
        for count in counts[1:]:
            await events(60)
            joining = log.worker(server, chance, lane=reads)
            async with running(joining):
                await bot.switch(count, guilds=guilds, chance=chance)
                await events(20)
                await until(lambda: len(log.handled) > len(bot.events_of(reads)) - 10)
        await events(20)
        expected = bot.events_of(reads)
        await until(lambda: len(log.handled) >= len(expected))
    assert in_order(log.handled, guilds) == in_order(expected, guilds)
