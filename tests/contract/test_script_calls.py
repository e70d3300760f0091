"""Scripts that are called in one turn share a round trip, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from sandwich_node.cache.script import Script
from sandwich_node.cache.script_calls import CALLS_MAX, ScriptCalls
from sandwich_node.dev.embedded import EmbeddedRedis

pytestmark = pytest.mark.contract
ECHO = Script.of("redis.call('RPUSH', KEYS[1], ARGV[1]); return ARGV[1]")
FAILS = Script.of("return redis.call('INCR', KEYS[1])")


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[redis.Redis]:
    async with EmbeddedRedis(tmp_path / "redis") as server:
        client = redis.Redis.from_url(server.url)
        yield client
        await client.aclose()


async def trips(client: redis.Redis) -> int:
    info: dict[str, Any] = await client.info("stats")
    return int(info["total_reads_processed"])


async def test_calls_of_one_turn_share_a_round_trip_and_each_gets_its_reply(client: redis.Redis) -> None:
    scripts = ScriptCalls(client)
    assert await scripts.run(ECHO, ["k"], ["first"]) == b"first"
    before = await trips(client)
    found = await asyncio.gather(*(scripts.run(ECHO, ["k"], [str(number)]) for number in range(CALLS_MAX)))
    assert found == [str(number).encode() for number in range(CALLS_MAX)]
    assert await trips(client) - before <= 3
    assert await client.lrange("k", 1, -1) == found


async def test_a_failing_call_fails_alone(client: redis.Redis) -> None:
    scripts = ScriptCalls(client)
    await client.set("text", "x")
    calls = (scripts.run(ECHO, ["k"], ["a"]), scripts.run(FAILS, ["text"], []), scripts.run(ECHO, ["k"], ["b"]))
    found: tuple[Any, ...] = await asyncio.gather(*calls, return_exceptions=True)
    assert (found[0], found[2]) == (b"a", b"b")
    assert isinstance(found[1], ResponseError)


async def test_scripts_that_the_server_forgot_are_sent_again(client: redis.Redis) -> None:
    scripts = ScriptCalls(client)
    await scripts.run(ECHO, ["k"], ["a"])
    await client.script_flush()
    found: list[Any] = await asyncio.gather(*(scripts.run(ECHO, ["k"], [name]) for name in ("b", "c")))
    assert found == [b"b", b"c"]


async def test_a_call_that_is_given_up_leaves_the_others(client: redis.Redis) -> None:
    scripts = ScriptCalls(client)
    tasks = [asyncio.create_task(scripts.run(ECHO, ["k"], [name])) for name in ("a", "b", "c")]
    await asyncio.sleep(0)
    tasks[1].cancel()
    found: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
    assert (found[0], found[2]) == (b"a", b"c")
    assert isinstance(found[1], asyncio.CancelledError)


async def test_without_a_server_every_call_fails(tmp_path: Path) -> None:
    client = redis.Redis(host="127.0.0.1", port=1)
    scripts = ScriptCalls(client)
    found = await asyncio.gather(*(scripts.run(ECHO, ["k"], ["a"]) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(error, RedisConnectionError) for error in found)
    await scripts.close()
    await client.aclose()


async def test_closing_ends_what_is_under_way(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path / "redis") as server:
        client = redis.Redis.from_url(server.url)
        scripts = ScriptCalls(client)
        await scripts.run(ECHO, ["k"], ["a"])
        await server.pause()
        task = asyncio.create_task(scripts.run(ECHO, ["k"], ["b"]))
        await asyncio.sleep(0.05)
        await scripts.close()
        with pytest.raises(asyncio.CancelledError):
            await task
        server.unpause()
        await client.aclose()
