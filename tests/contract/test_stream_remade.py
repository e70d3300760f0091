"""A stream deleted by hand under its shard and its reader: what is stored afterwards is read, all of it and once."""

import asyncio
import random
from pathlib import Path

import pytest

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_node.dev.embedded import EmbeddedNats
from sandwich_node.nats_connection import NatsConnection
from sandwich_node.nats_options import NatsOptions
from sandwich_node.publishing.chain import Chain
from sandwich_node.publishing.frames import EventBuffer, ShardOrigin
from sandwich_node.publishing.jetstream import JetStreamLog
from sandwich_node.publishing.publisher import ShardPublisher
from sandwich_sdk import Consumer, Gap

pytestmark = pytest.mark.contract

ORIGIN = ShardOrigin(shard=ShardId("bot", 0, 3), count=4, route="bot", bot="42")
STORED_BEFORE = 40


class Reader:
    """A consumer group of one worker, and what it got."""

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self.seen: list[int] = []
        self.gaps: list[Gap] = []

    async def run(self, url: str) -> None:
        async with Consumer(url, app="bot", group="g", start="all", ordered=self._ordered) as consumer:

            @consumer.on_gap
            async def keep(gap: Gap) -> None:
                self.gaps.append(gap)

            async for event in consumer:
                self.seen.append(int(event.id.split(":")[1]))

    async def until(self, last: int) -> None:
        async with asyncio.timeout(60):
            while not self.seen or self.seen[-1] != last:  # noqa: ASYNC110 (a real server)
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("at_once", [1, 2 * STORED_BEFORE])
async def test_what_is_stored_after_the_deletion_is_read_all_of_it_and_once(
    tmp_path: Path, at_once: int, ordered: bool
) -> None:
    """However long the new stream has become before its reader finds it."""
    reader = Reader(ordered=ordered)
    async with EmbeddedNats(tmp_path) as server:
        log = JetStreamLog(NatsConnection(NatsOptions(servers=(server.url,))))
        await log.connection.connect()
        await log.ensure_stream("bot")
        chain = Chain(log, ORIGIN, fence=Fence(10), pause=asyncio.sleep, rng=random.Random(1))
        await chain.take_over()
        buffer = EventBuffer(ORIGIN)
        buffer.start_session("aa", 0)
        publisher = ShardPublisher(buffer, chain)
        tasks = [asyncio.create_task(publisher.run()), asyncio.create_task(reader.run(server.url))]
        try:
            await publish(publisher, 1, STORED_BEFORE)
            await reader.until(STORED_BEFORE)
            await log._jetstream.delete_stream("SANDWICH_bot")
            await publish(publisher, STORED_BEFORE + 1, STORED_BEFORE + at_once)
            await publish(publisher, STORED_BEFORE + at_once + 1, 200)
            await reader.until(200)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await log.connection.close()
    assert reader.seen == list(range(1, 201))
    assert [(gap.session, gap.last_seq) for gap in reader.gaps] == [("aa", STORED_BEFORE)]


async def publish(publisher: ShardPublisher, first: int, last: int) -> None:
    """One frame an event."""
    for seq in range(first, last + 1):
        publisher.push(b'{"t":"MESSAGE_CREATE","s":%d,"op":0,"d":{}}' % seq, "MESSAGE_CREATE", seq)
        while not publisher.buffer.empty:  # noqa: ASYNC110 (a real server)
            await asyncio.sleep(0.001)


async def test_of_many_that_make_a_deleted_stream_again_at_once_one_says_so(tmp_path: Path) -> None:
    remade: list[str] = []
    async with EmbeddedNats(tmp_path) as server:
        logs = [
            JetStreamLog(NatsConnection(NatsOptions(servers=(server.url,))), on_remade=remade.append) for _ in range(8)
        ]
        for log in logs:
            await log.connection.connect()
            await log.ensure_stream("bot")
        for _ in range(5):
            await logs[0]._jetstream.delete_stream("SANDWICH_bot")
            await asyncio.gather(*(log.ensure_stream("bot") for log in logs))
        for log in logs:
            await log.connection.close()
    assert remade == ["bot"] * 5
