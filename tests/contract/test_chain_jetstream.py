"""A shard's chain in a real JetStream: fences, lost answers, a restarted server, a stream deleted by hand."""

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import nats.js.errors
import pytest
from nats.js.api import StreamSource

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_node.dev.embedded import EmbeddedNats, nats_cluster
from sandwich_node.nats_connection import NatsConnection, NatsUnreachable
from sandwich_node.nats_options import NatsOptions
from sandwich_node.publishing import jetstream
from sandwich_node.publishing.chain import Chain, Checkpoint
from sandwich_node.publishing.frames import EventBuffer, ShardOrigin
from sandwich_node.publishing.jetstream import JetStreamLog
from sandwich_node.publishing.log import Extent, Fenced, LogUnavailable, StoredFrame, StreamLimits, StreamMissing
from sandwich_node.publishing.publisher import ShardPublisher
from sandwich_sdk.wire.frame import inflate, split_events
from sandwich_sdk.wire.headers import EXPECTED_LAST_SEQ, FrameHeaders

pytestmark = pytest.mark.contract

ORIGIN = ShardOrigin(shard=ShardId("bot", 0, 3), count=4, route="bot", bot="42")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    async with EmbeddedNats(tmp_path) as nats:
        yield nats


@pytest.fixture
async def log(server: EmbeddedNats) -> AsyncIterator[JetStreamLog]:
    made = JetStreamLog(NatsConnection(NatsOptions(servers=(server.url,))))
    await made.connection.connect()
    await made.check()
    await made.ensure_stream("bot")
    yield made
    await made.connection.close()


def chain(log: JetStreamLog, fence: int) -> Chain:
    return Chain(log, ORIGIN, fence=Fence(fence), pause=asyncio.sleep, rng=random.Random(1))


def event(seq: int, pad: str = "") -> bytes:
    return b'{"t":"MESSAGE_CREATE","s":%d,"op":0,"d":{"pad":"%s"}}' % (seq, pad.encode())


def publisher(writer: Chain, last: int = 0) -> ShardPublisher:
    events = EventBuffer(ORIGIN)
    events.start_session("aa", last)
    return ShardPublisher(events, writer)


async def stored(log: JetStreamLog) -> list[int]:
    """Sequences of all events in the stream, in its order, read from the payloads."""
    info = await log._jetstream.stream_info("SANDWICH_bot")
    found: list[int] = []
    payload = b""
    for seq in range(info.state.first_seq, info.state.last_seq + 1):
        try:
            message = await log._jetstream.get_msg("SANDWICH_bot", seq)
        except nats.js.errors.NotFoundError:
            continue
        if EXPECTED_LAST_SEQ not in (message.headers or {}):
            continue
        headers = FrameHeaders.decode(message.headers)
        if headers.kind:
            continue
        part, total = headers.part or (1, 1)
        payload = (payload if part > 1 else b"") + (message.data or b"")
        if part == total:
            lines = split_events(inflate(payload))
            assert len(lines) == headers.count
            found += range(headers.first_seq, headers.last_seq + 1)
    return found


async def run_through(writer: Chain, first: int, last: int, meanwhile: Coroutine[Any, Any, None] | None = None) -> None:
    """Publish the events one by one while `meanwhile` runs."""
    feeding = publisher(writer, first - 1)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        running = group.create_task(feeding.run())
        trouble = group.create_task(meanwhile) if meanwhile is not None else None
        for seq in range(first, last + 1):
            feeding.push(event(seq), "MESSAGE_CREATE", seq)
            await asyncio.sleep(0.002)
        if trouble is not None:
            await trouble
        await feeding.flushed()
        running.cancel()


async def test_an_owner_that_was_overtaken_stores_nothing_more(log: JetStreamLog) -> None:
    old, new = chain(log, 10), chain(log, 11)
    await old.take_over()
    await run_through(old, 1, 50)
    assert await new.take_over() == Checkpoint("aa", 50)
    with pytest.raises(ExceptionGroup) as raised:
        await run_through(old, 51, 60)
    assert isinstance(raised.value.exceptions[0], Fenced)
    await run_through(new, 51, 60)
    assert await stored(log) == list(range(1, 61))


async def test_a_restarted_server_costs_nothing(server: EmbeddedNats, log: JetStreamLog) -> None:
    writer = chain(log, 10)
    await writer.take_over()

    async def restart() -> None:
        await asyncio.sleep(0.1)
        await server.kill()
        await asyncio.sleep(0.3)
        await server.start()

    await run_through(writer, 1, 300, restart())
    assert await stored(log) == list(range(1, 301))


async def test_a_frozen_server_makes_events_wait_and_loses_none(server: EmbeddedNats, log: JetStreamLog) -> None:
    writer = chain(log, 10)
    await writer.take_over()

    async def freeze() -> None:
        await server.pause()
        await asyncio.sleep(6.0)
        server.unpause()

    await run_through(writer, 1, 100, freeze())
    assert await stored(log) == list(range(1, 101))


async def test_a_stream_deleted_by_hand_is_made_again_and_says_so(log: JetStreamLog) -> None:
    remade: list[str] = []
    log._on_remade = remade.append
    writer = chain(log, 10)
    await writer.take_over()
    await run_through(writer, 1, 10)
    await log._jetstream.delete_stream("SANDWICH_bot")
    await run_through(writer, 11, 20)
    assert await stored(log) == list(range(11, 21))
    assert remade == ["bot"]
    gap = await log._jetstream.get_msg("SANDWICH_bot", 1)
    assert FrameHeaders.decode(gap.headers).kind == "gap"
    assert b"what no consumer had read is lost" in (gap.data or b"")


SUBJECT = "sandwich.bot.events.all.0.3"
FOREIGN: list[dict[str, str] | None] = [
    None,
    {"Content-Type": "text/plain"},
    {"Sandwich-Version": "1"},
    {"Sandwich-Version": "99"},
    {"Nats-TTL": "1s"},
    # Like a frame of ours: of a newer owner, of another session, of the same one far ahead.
    *(
        FrameHeaders(session=session, first_seq=last, last_seq=last, count=1, epoch=fence).encode()
        for session, last, fence in (("bb", 1, 1 << 60), ("bb", 7, 10), ("aa", 5000, 10), ("aa", 3, 9))
    ),
]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_what_no_node_wrote_costs_the_chain_nothing(log: JetStreamLog, headers: dict[str, str] | None) -> None:
    first, second = chain(log, 10), chain(log, 11)
    await first.take_over()
    await run_through(first, 1, 5)
    await log.connection.client.publish(SUBJECT, b"foreign", headers=headers)
    await log.connection.client.flush()
    await run_through(first, 6, 10)
    await log.connection.client.publish(SUBJECT.replace("all", "other"), b"foreign", headers=headers)
    await log.connection.client.flush()
    assert await second.take_over() == Checkpoint("aa", 10)
    await run_through(second, 11, 15)
    assert await stored(log) == list(range(1, 16))
    assert (first.foreign, second.foreign) == (1, 1)


async def test_a_stream_that_moved_to_another_goes_on_where_it_was(server: EmbeddedNats, log: JetStreamLog) -> None:
    """As when an operator moves to other servers: NATS copies frames without their guards."""
    writer = chain(log, 10)
    await writer.take_over()
    await run_through(writer, 1, 20)
    stream = (await log._jetstream.stream_info("SANDWICH_bot")).config
    await log._jetstream.add_stream(name="COPY", mirror=StreamSource(name="SANDWICH_bot"))
    async with asyncio.timeout(10):
        frames = (await log._jetstream.stream_info("SANDWICH_bot")).state.messages
        while (await log._jetstream.stream_info("COPY")).state.messages < frames:  # noqa: ASYNC110 (a real server)
            await asyncio.sleep(0.02)
    await log._jetstream.delete_stream("SANDWICH_bot")
    copy = (await log._jetstream.stream_info("COPY")).config
    await log._jetstream.update_stream(copy, mirror=None, subjects=["elsewhere"])
    await log._jetstream.add_stream(stream, sources=[StreamSource(name="COPY")], subjects=["nowhere"])
    async with asyncio.timeout(10):
        while (await log._jetstream.stream_info("SANDWICH_bot")).state.messages < frames:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await log.ensure_stream("bot")
    new = chain(log, 11)
    assert await new.take_over() == Checkpoint("aa", 20)
    await run_through(new, 21, 25)
    assert await chain(log, 12).take_over() == Checkpoint("aa", 25)


async def test_a_thousand_messages_of_others_among_events_lose_and_double_none(log: JetStreamLog) -> None:
    writer = chain(log, 10)
    await writer.take_over()

    async def publish() -> None:
        for index in range(1000):
            await log.connection.client.publish(SUBJECT, b"x", headers=FOREIGN[index % 4])
            if index % 20 == 0:
                await asyncio.sleep(0.002)

    await run_through(writer, 1, 100, publish())
    new = chain(log, 11)
    assert await new.take_over() == Checkpoint("aa", 100)
    assert await stored(log) == list(range(1, 101))
    assert writer.foreign + new.foreign == 1000


async def test_a_server_at_its_storage_limit_is_said_and_costs_nothing(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path, file_bytes_max=1_000_000) as server:
        log = JetStreamLog(NatsConnection(NatsOptions(servers=(server.url,))))
        await log.connection.connect()
        await log.ensure_stream("bot")
        writer = chain(log, 10)
        await writer.take_over()
        pad = random.Random(1).randbytes(400_000).hex()
        feeding = publisher(writer)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            running = group.create_task(feeding.run())
            for seq in range(1, 6):
                feeding.push(event(seq, pad), "MESSAGE_CREATE", seq)
            while "storage limit" not in writer.waiting_reason:  # noqa: ASYNC110 (a real server)
                await asyncio.sleep(0.05)
            server.file_bytes_max = 100_000_000
            await server.kill()
            await server.start()
            await feeding.flushed()
            running.cancel()
        assert await stored(log) == [1, 2, 3, 4, 5]
        await log.connection.close()


async def test_an_event_above_max_payload_travels_in_parts(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path, max_payload=64 * 1024) as server:
        log = JetStreamLog(NatsConnection(NatsOptions(servers=(server.url,))))
        await log.connection.connect()
        await log.ensure_stream("bot")
        writer = chain(log, 10)
        await writer.take_over()
        feeding = publisher(writer)
        pad = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=1_000_000))
        feeding.push(event(1, pad), "GUILD_CREATE", 1)
        feeding.push(event(2), "MESSAGE_CREATE", 2)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            running = group.create_task(feeding.run())
            await feeding.flushed()
            running.cancel()
        assert await stored(log) == [1, 2]
        await log.connection.close()


async def test_jetstream_switched_off_is_said(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path, jetstream=False) as server:
        log = JetStreamLog(NatsConnection(NatsOptions(servers=(server.url,))))
        await log.connection.connect()
        with pytest.raises(LogUnavailable, match="JetStream is not enabled"):
            await log.check()
        await log.connection.close()


async def test_an_unreachable_server_is_reported_without_the_password() -> None:
    connection = NatsConnection(NatsOptions(servers=("nats://user:secret@127.0.0.1:1",)))
    with pytest.raises(NatsUnreachable) as raised:
        await connection.connect()
    assert "secret" not in str(raised.value)
    await connection.close()


async def test_the_leader_of_a_replicated_stream_may_die(tmp_path: Path) -> None:
    servers = nats_cluster(tmp_path)
    await asyncio.gather(*(server.start() for server in servers))
    log = JetStreamLog(
        NatsConnection(NatsOptions(servers=tuple(server.url for server in servers))), limits=StreamLimits(replicas=3)
    )
    try:
        await log.connection.connect()
        async with asyncio.timeout(30):
            while True:
                try:
                    await log.ensure_stream("bot")
                    break
                except LogUnavailable:
                    await asyncio.sleep(0.3)
        writer = chain(log, 10)
        await writer.take_over()

        async def kill_the_leader() -> None:
            info = await log._jetstream.stream_info("SANDWICH_bot")
            assert info.cluster is not None
            leader = next(server for server in servers if server.server_name == info.cluster.leader)
            await leader.kill()

        await run_through(writer, 1, 200, kill_the_leader())
        assert await stored(log) == list(range(1, 201))
    finally:
        await log.connection.close()
        await asyncio.gather(*(server.kill() for server in servers))


async def test_a_group_is_read_in_pages_in_the_streams_order_without_what_no_node_wrote(
    log: JetStreamLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream, "PAGE_MESSAGES_MAX", 4)
    writer = chain(log, 10)
    await writer.take_over()
    await run_through(writer, 1, 30)
    await log._jetstream.publish("sandwich.bot.events.all.0.3", b"x")
    await log._jetstream.publish("sandwich.bot.events.all.9.3", b"x")
    assert await log.extent("SANDWICH_bot") == Extent(1, writer.end + 2)
    frames: list[StoredFrame] = []
    at, pages = 2, 0
    while (page := await log.read("SANDWICH_bot", "sandwich.bot.events.*.0.*", at)).next_seq > at:
        frames += page.frames
        at, pages = page.next_seq, pages + 1
    assert pages > 1
    lines = [line for frame in frames for line in split_events(inflate(frame.payload))]
    assert [msgspec.json.decode(line)["s"] for line in lines] == list(range(1, 31))
    assert {frame.subject for frame in frames} == {"sandwich.bot.events.all.0.3"}
    assert [frame.stream_seq for frame in frames] == sorted(frame.stream_seq for frame in frames)
    assert frames[-1].headers.last_seq == 30
    assert at == writer.end + 2


async def test_reading_a_stream_that_is_missing_says_so(log: JetStreamLog) -> None:
    with pytest.raises(StreamMissing):
        await log.extent("SANDWICH_other")
    with pytest.raises(StreamMissing):
        await log.read("SANDWICH_other", "sandwich.other.events.>", 1)


async def test_reading_while_the_server_is_away_says_so(server: EmbeddedNats, log: JetStreamLog) -> None:
    await server.stop()
    with pytest.raises(LogUnavailable):
        await log.read("SANDWICH_bot", "sandwich.bot.events.*.0.*", 1)
    with pytest.raises(LogUnavailable):
        await log.extent("SANDWICH_bot")
