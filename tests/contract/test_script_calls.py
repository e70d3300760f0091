"""Scripts that are called in one turn share a round trip, and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, NoPermissionError, ResponseError

from sandwich_node.cache.script import Script
from sandwich_node.cache.script_calls import CALLS_MAX, JOINED_BYTES_MAX, ScriptCalls
from sandwich_node.dev.embedded import EmbeddedRedis
from tests.support.redis_cluster import redis_cluster

pytestmark = pytest.mark.contract
ECHO = Script.of("redis.call('RPUSH', KEYS[1], ARGV[1]); return ARGV[1]")
FAILS = Script.of("return redis.call('INCR', KEYS[1])")
PARTS = Script.of(
    """
    local replies, at = {}, 1
    for key = 1, #KEYS do
      local reply = redis.pcall('HINCRBY', KEYS[key], ARGV[at + 1], 1)
      if type(reply) ~= 'table' then reply = ARGV[at + 1] .. ' of ' .. ARGV[at] end
      replies[key], at = reply, at + 1 + tonumber(ARGV[at])
    end
    return replies
    """,
    has_parts=True,
)


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
    scripts = ScriptCalls(client, 1.0)
    assert await scripts.run(ECHO, ["k"], ["first"]) == b"first"
    before = await trips(client)
    found = await asyncio.gather(*(scripts.run(ECHO, ["k"], [str(number)]) for number in range(CALLS_MAX)))
    assert found == [str(number).encode() for number in range(CALLS_MAX)]
    assert await trips(client) - before <= 3
    assert await client.lrange("k", 1, -1) == found


async def calls_of_scripts(client: redis.Redis) -> int:
    stats: dict[str, Any] = await client.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval"))


async def test_parts_of_one_turn_share_a_call_and_each_gets_its_reply(client: redis.Redis) -> None:
    scripts = ScriptCalls(client, 1.0)
    await scripts.run(PARTS, ["warm"], ["up"])
    before = await calls_of_scripts(client)
    runs = [scripts.run(PARTS, [f"k{number}"], [str(number), *["x"] * number]) for number in range(CALLS_MAX)]
    assert await asyncio.gather(*runs) == [b"%d of %d" % (number, number + 1) for number in range(CALLS_MAX)]
    assert await calls_of_scripts(client) - before == 1
    await scripts.close()


async def test_parts_that_are_large_or_many_are_for_calls_of_their_own(client: redis.Redis) -> None:
    scripts = ScriptCalls(client, 1.0)
    await scripts.run(PARTS, ["warm"], ["up"])
    before = await calls_of_scripts(client)
    await asyncio.gather(*(scripts.run(PARTS, ["k"], ["x" * JOINED_BYTES_MAX]) for _ in range(3)))
    assert await calls_of_scripts(client) - before == 3
    await asyncio.gather(*(scripts.run(PARTS, ["k"], ["x"]) for _ in range(CALLS_MAX + 1)))
    assert await calls_of_scripts(client) - before == 5
    await scripts.close()


async def test_a_part_fails_alone(client: redis.Redis) -> None:
    scripts = ScriptCalls(client, 1.0)
    await client.set("text", "x")
    runs = (scripts.run(PARTS, [key], [key]) for key in ("a", "text", "b"))
    found: list[Any] = await asyncio.gather(*runs, return_exceptions=True)
    assert (found[0], found[2]) == (b"a of 1", b"b of 1")
    assert isinstance(found[1], ResponseError)
    await scripts.close()


async def test_a_part_with_a_key_that_the_user_may_not_use_fails_alone(client: redis.Redis) -> None:
    await client.execute_command("ACL", "SETUSER", "some", "on", "nopass", "~may:*", "+@all")
    await client.execute_command("SCRIPT", "LOAD", PARTS.text)
    where = client.connection_pool.connection_kwargs
    some = redis.Redis(host=where["host"], port=where["port"], username="some", password="any")
    scripts = ScriptCalls(some, 1.0)
    runs = (scripts.run(PARTS, [key], [key]) for key in ("may:a", "not:b", "may:c"))
    found: list[Any] = await asyncio.gather(*runs, scripts.run(ECHO, ["may:d"], ["e"]), return_exceptions=True)
    assert [*found[:1], *found[2:]] == [b"may:a of 1", b"may:c of 1", b"e"]
    assert isinstance(found[1], NoPermissionError)
    await scripts.close()
    await some.aclose()


async def test_a_part_that_is_sent_alone_is_sent_with_its_text_if_the_server_forgot_the_script(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.execute_command("ACL", "SETUSER", "some", "on", "nopass", "~may:*", "+@all")
    await client.execute_command("SCRIPT", "LOAD", PARTS.text)
    where = client.connection_pool.connection_kwargs
    some = redis.Redis(host=where["host"], port=where["port"], username="some", password="any")
    scripts = ScriptCalls(some, 1.0)
    sent = scripts._send

    async def forgetting(*args: Any, **kwargs: Any) -> list[Any]:
        replies = await sent(*args, **kwargs)
        if any(isinstance(reply, NoPermissionError) for reply in replies):
            await client.script_flush()
        return replies

    monkeypatch.setattr(scripts, "_send", forgetting)
    found: list[Any] = await asyncio.gather(
        *(scripts.run(PARTS, [key], [key]) for key in ("may:a", "not:b", "may:c")), return_exceptions=True
    )
    assert [found[0], found[2]] == [b"may:a of 1", b"may:c of 1"]
    assert isinstance(found[1], NoPermissionError)
    await scripts.close()
    await some.aclose()


async def test_a_reply_that_is_none_for_each_part_fails_all(client: redis.Redis) -> None:
    scripts = ScriptCalls(client, 1.0)
    none = Script.of("return {1}", has_parts=True)
    found = await asyncio.gather(*(scripts.run(none, ["k"], []) for _ in range(2)), return_exceptions=True)
    assert all(isinstance(error, InvalidResponse) for error in found)
    await scripts.close()


async def test_a_connection_that_the_server_closed_is_made_again(client: redis.Redis) -> None:
    scripts = ScriptCalls(client, 1.0)
    await scripts.run(ECHO, ["k"], ["a"])
    mine = [entry["id"] for entry in await client.client_list() if entry["cmd"].startswith("eval")]
    assert len(mine) == 1
    await client.client_kill_filter(_id=mine[0])
    async with asyncio.timeout(10):
        # Its end may be read only after the next call is written.
        while await _failed(scripts.run(ECHO, ["k"], ["b"])):
            pass
    assert await client.lrange("k", -1, -1) == [b"b"]
    await scripts.close()


async def _failed(work: Awaitable[Any]) -> bool:
    try:
        await work
    except RedisConnectionError:
        return True
    return False


async def test_a_submitted_call_always_gets_a_reply(tmp_path: Path) -> None:
    found: list[Any] = []
    async with EmbeddedRedis(tmp_path / "redis") as server:
        client = redis.Redis.from_url(server.url)
        scripts = ScriptCalls(client, 0.2)
        scripts.submit(ECHO, ["k"], ["a"], 1, found.append)
        await scripts.run(ECHO, ["k"], ["b"])
        await server.pause()
        scripts.submit(PARTS, ["h"], ["c"], 1, found.append)
        scripts.submit(PARTS, ["h"], ["d"], 1, found.append)
        async with asyncio.timeout(10):
            while len(found) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        server.unpause()
        await scripts.close()
        await client.aclose()
    assert found[0] == b"a"
    assert [type(error) for error in found[1:]] == [TimeoutError, TimeoutError]


async def test_calls_of_a_turn_share_a_round_trip_to_each_server_of_a_cluster(tmp_path: Path) -> None:
    async with redis_cluster(tmp_path, 2) as servers, RedisCluster.from_url(servers[0].url) as client:
        scripts = ScriptCalls(client, 1.0)
        keys = [f"{{{number}}}" for number in range(CALLS_MAX)]
        direct = [redis.Redis.from_url(server.url) for server in servers]
        await asyncio.gather(*(scripts.run(PARTS, [key], ["x"]) for key in keys))
        before = sum([await trips(one) for one in direct])
        assert await asyncio.gather(*(scripts.run(PARTS, [key], ["x"]) for key in keys)) == [b"x of 1"] * CALLS_MAX
        assert sum([await trips(one) for one in direct]) - before <= 2 * len(servers) + 2
        for one in direct:
            await one.aclose()
        await scripts.close()


async def test_a_failing_call_fails_alone(client: redis.Redis) -> None:
    scripts = ScriptCalls(client, 1.0)
    await client.set("text", "x")
    calls = (scripts.run(ECHO, ["k"], ["a"]), scripts.run(FAILS, ["text"], []), scripts.run(ECHO, ["k"], ["b"]))
    found: tuple[Any, ...] = await asyncio.gather(*calls, return_exceptions=True)
    assert (found[0], found[2]) == (b"a", b"b")
    assert isinstance(found[1], ResponseError)


async def test_scripts_that_the_server_forgot_are_sent_again(client: redis.Redis) -> None:
    scripts = ScriptCalls(client, 1.0)
    await scripts.run(ECHO, ["k"], ["a"])
    await client.script_flush()
    found: list[Any] = await asyncio.gather(*(scripts.run(ECHO, ["k"], [name]) for name in ("b", "c")))
    assert found == [b"b", b"c"]


async def test_a_call_that_is_given_up_leaves_the_others(client: redis.Redis) -> None:
    scripts = ScriptCalls(client, 1.0)
    tasks = [asyncio.create_task(scripts.run(ECHO, ["k"], [name])) for name in ("a", "b", "c")]
    await asyncio.sleep(0)
    tasks[1].cancel()
    found: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
    assert (found[0], found[2]) == (b"a", b"c")
    assert isinstance(found[1], asyncio.CancelledError)


async def test_without_a_server_every_call_fails(tmp_path: Path) -> None:
    client = redis.Redis(host="127.0.0.1", port=1)
    scripts = ScriptCalls(client, 1.0)
    found = await asyncio.gather(*(scripts.run(ECHO, ["k"], ["a"]) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(error, RedisConnectionError) for error in found)
    await scripts.close()
    await client.aclose()


async def test_closing_settles_what_has_not_left_yet(client: redis.Redis) -> None:
    scripts = ScriptCalls(client, 1.0)
    found: list[Any] = []
    scripts.submit(PARTS, ["h"], ["a"], 1, found.append)
    await scripts.close()
    assert [type(reply) for reply in found] == [asyncio.CancelledError]
    scripts.submit(PARTS, ["h"], ["b"], 1, found.append)
    # Its trip exists now, and has not begun.
    scripts._leave()
    await scripts.close()
    assert [type(reply) for reply in found] == [asyncio.CancelledError] * 2


async def test_closing_ends_what_is_under_way(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path / "redis") as server:
        client = redis.Redis.from_url(server.url)
        scripts = ScriptCalls(client, 1.0)
        await scripts.run(ECHO, ["k"], ["a"])
        await server.pause()
        task = asyncio.create_task(scripts.run(ECHO, ["k"], ["b"]))
        await asyncio.sleep(0.05)
        await scripts.close()
        with pytest.raises(asyncio.CancelledError):
            await task
        server.unpause()
        await client.aclose()
