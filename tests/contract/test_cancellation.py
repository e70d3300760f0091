"""A cancelled task ends, even during a call of a library that would swallow it (asyncio.wait_for, 3.11)."""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from sandwich_node.cache.options import RedisOptions
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.dev.embedded import EmbeddedNats, EmbeddedRedis
from sandwich_node.dev.ports import free_ports
from sandwich_node.nats_connection import NatsConnection
from sandwich_node.nats_options import NatsOptions
from sandwich_node.publishing.jetstream import JetStreamLog
from sandwich_node.publishing.log import Append
from sandwich_sdk import Consumer
from sandwich_sdk.rpc import Rpc
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.headers import FENCE, FrameHeaders

pytestmark = pytest.mark.contract
HEADERS = FrameHeaders(session="aa", first_seq=1, last_seq=1, count=0, epoch=1, kind=FENCE).encode()
ROUNDS = 400
SIDE_BY_SIDE = 8


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[RedisCache]:
    async with EmbeddedRedis(tmp_path) as server:
        made = RedisCache(RedisOptions(url=server.url), clock=time.monotonic)
        await made.check()
        yield made
        await made.close()


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[JetStreamLog]:
    async with EmbeddedNats(tmp_path) as server:
        made = JetStreamLog(NatsConnection(NatsOptions(servers=(server.url,))))
        await made.connection.connect()
        await made.ensure_stream("bot")
        yield made
        await made.connection.close()


async def all_end(call: Callable[[], Awaitable[object]]) -> None:
    """Tasks that call in a loop are cancelled at random moments of a call, and must end."""

    async def call_for_ever() -> None:
        while True:
            await call()

    rng = random.Random(1)
    for _ in range(ROUNDS // SIDE_BY_SIDE):
        tasks = [asyncio.create_task(call_for_ever()) for _ in range(SIDE_BY_SIDE)]
        await asyncio.sleep(rng.uniform(0.001, 0.01))
        for task in tasks:
            task.cancel()
        _, still = await asyncio.wait(tasks, timeout=30)
        for task in still:
            task.cancel()
        assert not still
        assert all(task.cancelled() for task in tasks)


@pytest.mark.parametrize("name", ["consumer", "requests", "node"])
async def test_connecting_while_no_server_listens(name: str) -> None:
    url = f"nats://127.0.0.1:{free_ports(1)[0]}"

    async def connect() -> None:
        match name:
            case "consumer":
                await Consumer(url, app="bot").__aenter__()
            case "requests":
                await Rpc(url, app="bot").connect()
            case "node":
                await NatsConnection(NatsOptions(servers=(url,))).connect()

    await all_end(connect)


async def test_calls_of_redis(cache: RedisCache) -> None:
    await all_end(lambda: cache.command("SET", "a", "b" * 2000))


async def test_appends_and_reading_the_end_of_a_chain(log: JetStreamLog) -> None:
    shards = itertools.count()

    async def append() -> None:
        shard = next(shards)
        chain = subjects.chain_filter("bot", 0, shard)
        await log.append(Append(subjects.events_subject("bot", "events", 0, shard), b"", HEADERS, chain, 0))
        await log.tail(subjects.stream_name("bot"), chain)

    await all_end(append)
