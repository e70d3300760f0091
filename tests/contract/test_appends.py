"""Appends over a real nats-server: what it answers, what it does not answer, and a connection that is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
import pytest
from nats.js.api import StreamConfig

from sandwich_node.dev.embedded import EmbeddedNats
from sandwich_node.dev.freezing import freeze
from sandwich_node.nats_connection import NatsConnection
from sandwich_node.nats_options import NatsOptions
from sandwich_node.publishing.appends import AppendRefused, NoAck, NoStream
from sandwich_node.publishing.log import Append

pytestmark = pytest.mark.contract
WRONG_LAST = 10071


@asynccontextmanager
async def connected(server: EmbeddedNats) -> AsyncIterator[NatsConnection]:
    connection = NatsConnection(NatsOptions(servers=(server.url,)))
    await connection.connect()
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def connection(server: EmbeddedNats) -> AsyncIterator[NatsConnection]:
    async with connected(server) as connection:
        await connection.client.jetstream().add_stream(StreamConfig(name="S", subjects=["s.>"]))
        yield connection


async def append(connection: NatsConnection, subject: str, expected: int, body: bytes = b"x") -> int:
    return await connection.appends.append(Append(subject, body, {"A": "1"}, subject, expected))


async def test_each_append_gets_its_own_answer(connection: NatsConnection, server: EmbeddedNats) -> None:
    found = await asyncio.gather(*(append(connection, f"s.{number}", 0) for number in range(200)))
    assert sorted(found) == list(range(1, 201))
    message = await connection.client.jetstream().get_msg("S", seq=found[7])
    assert (message.subject, message.data, (message.headers or {})["A"]) == ("s.7", b"x", "1")


async def test_a_wrong_end_is_refused_and_others_are_not(connection: NatsConnection) -> None:
    first = await append(connection, "s.a", 0)
    refused, stored = await asyncio.gather(
        append(connection, "s.a", first + 5), append(connection, "s.b", 0), return_exceptions=True
    )
    assert isinstance(refused, AppendRefused)
    assert refused.code == WRONG_LAST
    assert stored == first + 1


async def test_a_subject_without_a_stream_is_known_at_once(connection: NatsConnection) -> None:
    with pytest.raises(NoStream):
        await append(connection, "elsewhere.a", 0)


async def test_a_lost_connection_ends_what_waits_and_the_next_one_serves(
    connection: NatsConnection, server: EmbeddedNats
) -> None:
    await append(connection, "s.a", 0)
    await freeze([server.pid])
    waiting = asyncio.create_task(append(connection, "s.b", 0))
    await asyncio.sleep(0)
    await server.kill()
    with pytest.raises(NoAck):
        await waiting
    await server.start()
    async with asyncio.timeout(30):
        while True:
            try:
                await append(connection, "s.c", 0)
                return
            except (NoAck, NoStream, AppendRefused):
                await asyncio.sleep(0.05)


async def test_a_cancelled_append_leaves_nothing_behind(connection: NatsConnection) -> None:
    task = asyncio.create_task(append(connection, "s.a", 0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await append(connection, "s.b", 0) > 0
    assert connection.appends._waiting == {}


async def test_another_client_on_the_inbox_ends_nothing(connection: NatsConnection, server: EmbeddedNats) -> None:
    await append(connection, "s.a", 0)
    inbox = connection.appends._inbox
    other = await nats.connect(server.url)
    for subject, body in ((f"{inbox}.99", b"{}"), (f"{inbox}.x", b"{}"), (f"{inbox}.1", b"\xff")):
        await other.publish(subject, body)
    await other.close()
    assert await append(connection, "s.b", 0) > 0
