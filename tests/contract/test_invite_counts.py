"""What a shard's next owner finds in a real Redis, and in a Redis Cluster, with the rights that nodes have."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio as redis

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_node.cache.errors import CacheError
from sandwich_node.cache.options import RedisOptions
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.dev.embedded import EmbeddedRedis
from sandwich_node.invites.redis_counts import EXPIRE_S, RedisCounts
from tests.support.documented import CLUSTER_RIGHTS, acl_rule
from tests.support.redis_cluster import redis_cluster
from tests.support.starvation import PATIENT_S

pytestmark = pytest.mark.contract


def counts(cache: RedisCache, fence: int, *, shard: int = 0) -> RedisCounts:
    return RedisCounts(cache, "music", ShardId("bot", 3, shard), Fence(fence))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[EmbeddedRedis]]:
    """Tests share it and begin with it empty: its servers need two seconds to agree."""
    async with redis_cluster(Path(tmp_path_factory.mktemp("cluster")), 2) as servers:
        yield servers


@pytest.fixture(params=["one server", "a cluster"])
async def cache(request: Any, cluster: list[EmbeddedRedis], tmp_path: Path) -> AsyncIterator[RedisCache]:
    async with AsyncExitStack() as stack:
        if request.param == "one server":
            servers, more = [await stack.enter_async_context(EmbeddedRedis(tmp_path / "redis"))], ""
        else:
            servers, more = cluster, CLUSTER_RIGHTS
        for server in servers:
            async with redis.Redis.from_url(server.url) as client:
                await client.flushall()
                await client.execute_command("ACL", "SETUSER", *acl_rule("sandwich", more=more))
        url = servers[0].url.replace("://", "://sandwich@")
        made = RedisCache(RedisOptions(url=url, password="secret", timeout_s=PATIENT_S), clock=time.monotonic)
        stack.push_async_callback(made.close)
        yield made


async def test_the_next_owner_finds_what_was_kept_and_not_what_was_taken_back(cache: RedisCache) -> None:
    first = counts(cache, 10)
    assert await first.take_over(Fence(7)) == {}
    await first.write({"1": b"one", "2": b"two", "3": b"three"}, clear=False)
    await first.write({"4": b"four", "2": None, "9": None}, clear=False)
    await first.write({"3": None}, clear=False)
    second = counts(cache, 11)
    assert await second.take_over(Fence(10)) == {"1": b"one", "4": b"four"}
    # An owner that was overtaken and does not know it yet.
    await first.write({"1": b"stale", "5": b"stale"}, clear=False)
    assert await counts(cache, 12).take_over(Fence(11)) == {"1": b"one", "4": b"four"}
    assert await second.take_over(Fence(11)) == {}, "it is the third one's"


async def test_what_is_not_believed_is_emptied(cache: RedisCache) -> None:
    one = counts(cache, 10)
    await one.write({"1": b"one"}, clear=False)
    await one.write({"2": b"two", "7": None}, clear=True)
    assert await one.take_over(Fence(10)) == {"2": b"two"}
    await one.write({}, clear=True)
    assert await one.take_over(Fence(10)) == {}


async def test_shards_are_kept_apart(cache: RedisCache) -> None:
    await counts(cache, 10, shard=0).write({"1": b"one"}, clear=False)
    assert await counts(cache, 11, shard=1).take_over(Fence(10)) == {}


async def test_counts_without_an_owner_expire(cache: RedisCache) -> None:
    one = counts(cache, 10)
    await one.write({"1": b"one"}, clear=False)
    key = "sw:music:invites:{bot:3:0}:10"
    assert 0 < await cache.command("TTL", key) <= EXPIRE_S
    await cache.command("EXPIRE", key, "10")
    await one.renew()
    assert await cache.command("TTL", key) > 10


async def test_a_redis_that_is_away_is_a_cache_error(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path / "redis") as server:
        made = RedisCache(RedisOptions(url=server.url, timeout_s=PATIENT_S), clock=time.monotonic)
        async with redis.Redis.from_url(server.url) as client:
            await client.set("sw:music:invites:{bot:3:0}:10", "another type")
        with pytest.raises(CacheError):
            await counts(made, 11).take_over(Fence(10))
    with pytest.raises(CacheError):
        await counts(made, 11).take_over(Fence(10))
    await made.close()
