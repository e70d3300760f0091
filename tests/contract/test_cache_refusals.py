"""A Redis that cannot be written to, or has corrupt values: nodes report it soon and without a secret."""

import ssl
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis.asyncio as redis

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_coordinator.intents import ALL
from sandwich_coordinator.types import CacheSpec
from sandwich_node.cache.batch import Batch, EventOps
from sandwich_node.cache.errors import CacheError, CacheFull, CacheReadOnly, CacheRefused, CacheUnavailable, NotRedis
from sandwich_node.cache.operations import Translator
from sandwich_node.cache.options import RedisOptions
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.cache.replies import Applied
from sandwich_node.cache.settings import CacheWriter
from sandwich_node.dev.embedded import EmbeddedRedis
from sandwich_node.dev.ports import free_ports
from sandwich_node.events.prefixes import GUILDS_MAX, GuildPrefixes
from sandwich_sdk.wire.cache_keys import collection_key, guild_key, prefixes_key
from tests.support.cache_layout import ADA, CHANNEL, GUILD, OTHER_GUILD, rich_guild
from tests.support.documented import acl_rule
from tests.support.servers import NOT_REDIS, Certificates, listening, relay, says
from tests.support.starvation import fair_time

pytestmark = pytest.mark.contract
NS, SECRET = "music", "hunter2-canary"
SOON_S = 3.0
WRITER = CacheWriter(
    shard=ShardId(NS, 3, 7), fence=Fence(1), bot="9", intents=ALL, settings=CacheSpec(namespace=NS, presences=True)
)


class Shard:
    """A shard that writes on its own connection."""

    def __init__(self, url: str, **more: Any) -> None:
        self.store = RedisCache(RedisOptions(url=url, **more), clock=time.monotonic)
        self.translator = Translator(WRITER)
        self.seq = 0

    async def receive(self, event_type: str, data: dict[str, Any]) -> Applied:
        self.seq += 1
        event = EventOps(self.seq, self.translator.translate(event_type, msgspec.json.encode(data)), 100)
        return await self.store.apply(Batch(writer=WRITER, session="session", confirmed=0, events=(event,)))

    async def refused(self) -> CacheError:
        """Write, and check that it fails as expected: soon, and without a secret."""
        started = fair_time()
        with pytest.raises(CacheError) as failed:
            await self.receive("GUILD_CREATE", rich_guild())
        assert fair_time() - started < SOON_S
        assert SECRET not in str(failed.value) + repr(failed.value)
        assert failed.value.__cause__ is None
        assert self.store.waiting == str(failed.value)
        await self.store.close()
        return failed.value


@pytest.mark.parametrize("kind", NOT_REDIS)
async def test_a_server_that_is_not_redis_is_reported_as_such(kind: str) -> None:
    async with listening(says(*NOT_REDIS[kind])) as port:
        assert type(await Shard(f"redis://127.0.0.1:{port}").refused()) is NotRedis


async def test_a_missing_server_is_reported_at_once_and_not_contacted_again_at_once() -> None:
    shard = Shard(f"redis://127.0.0.1:{free_ports(1)[0]}")
    assert type(await shard.refused()) is CacheUnavailable
    assert type(await shard.refused()) is CacheUnavailable
    assert shard.store.counters.errors == 1, "the second was not asked"


async def test_a_wrong_password_and_a_user_without_permissions_are_reported(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path) as server:
        url = server.url
        async with redis.Redis.from_url(url) as client:
            await client.config_set("requirepass", SECRET)
        for password in (None, SECRET + "x"):
            error = await Shard(url, password=password).refused()
            assert type(error) is CacheRefused
            assert str(error) == "Redis refuses the user name or password (authorization refused)"
        async with redis.Redis.from_url(url, password=SECRET) as client:
            await client.execute_command("ACL", "SETUSER", *acl_rule("website"))
            await client.execute_command("ACL", "SETUSER", *acl_rule("sandwich", keys="~sw:{other:*}:*"))
        for user in ("website", "sandwich"):
            error = await Shard(url.replace("://", f"://{user}@"), password="secret").refused()
            assert type(error) is CacheRefused
            assert "lacks rights that docs/guide/cache.md lists" in str(error)


async def test_a_missing_database_is_reported(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path) as server:
        error = await Shard(f"redis://127.0.0.1:{server.port}/99").refused()
        assert str(error) == "Redis has no database of the number in redis.url"


async def test_a_full_and_a_read_only_redis_are_reported_and_used_again_afterwards(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        await client.config_set("maxmemory", "1")
        assert type(await Shard(server.url).refused()) is CacheFull
        await client.config_set("maxmemory", "0")
        await client.execute_command("REPLICAOF", "127.0.0.1", str(free_ports(1)[0]))
        assert type(await Shard(server.url).refused()) is CacheReadOnly
        await client.execute_command("REPLICAOF", "NO", "ONE")
        shard = Shard(server.url)
        assert not (await shard.receive("GUILD_CREATE", rich_guild())).failed
        await shard.store.close()


async def test_tls_with_certificates_of_both_sides(tmp_path: Path) -> None:
    mine = Certificates(tmp_path)
    cert, key = mine.issue("client")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*mine.issue("server", "127.0.0.1"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(mine.ca)
    async with EmbeddedRedis(tmp_path / "redis") as server, listening(relay(server.port), context) as port:
        url = f"rediss://127.0.0.1:{port}"
        shard = Shard(url, ca=str(mine.ca), cert=str(cert), key=str(key))
        assert not (await shard.receive("GUILD_CREATE", rich_guild())).failed
        await shard.store.close()
        assert "self-signed" in str(await Shard(url).refused())
        assert type(await Shard(url, ca=str(mine.ca)).refused()) is CacheUnavailable


async def test_a_corrupt_value_is_replaced_and_counted_and_never_published_as_before(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        shard = Shard(server.url)
        await shard.receive("GUILD_CREATE", rich_guild())
        channels = collection_key(NS, GUILD, "channels")
        (channel,) = [one for one in rich_guild()["channels"] if one["id"] == CHANNEL]
        for poison in (b"", b"\xff\xfe", b"[]", b"{", b"null", b"7", b'{"name":"x"'):
            await client.hset(channels, CHANNEL, poison)
            damaged = shard.store.counters.damaged
            applied = await shard.receive("CHANNEL_UPDATE", {**channel, "guild_id": GUILD, "name": "fixed"})
            extra = applied.extras.get(shard.seq)
            assert extra is None or b"fixed" not in extra.fields()
            assert not applied.failed
            assert shard.store.counters.damaged == damaged + 1, poison
            assert msgspec.json.decode(await client.hget(channels, CHANNEL) or b"")["name"] == "fixed"
        await shard.store.close()


@pytest.mark.parametrize("kind", ["string", "list", "hash", "set"])
async def test_a_key_of_another_type_is_repaired_by_the_next_guild_create(tmp_path: Path, kind: str) -> None:
    async with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        shard = Shard(server.url)
        await shard.receive("GUILD_CREATE", rich_guild())
        for key in (guild_key(NS, GUILD), *(collection_key(NS, GUILD, one) for one in ("channels", "members"))):
            await client.delete(key)
            match kind:
                case "string":
                    await client.set(key, "x")
                case "list":
                    await client.rpush(key, "x")
                case "hash":
                    await client.hset(key, "x", "x")
                case "set":
                    await client.sadd(key, "x")
        await shard.receive("GUILD_MEMBER_REMOVE", {"guild_id": GUILD, "user": {"id": ADA, "username": "ada"}})
        applied = await shard.receive("GUILD_CREATE", rich_guild())
        assert not applied.newer
        assert CHANNEL.encode() in await client.hkeys(collection_key(NS, GUILD, "channels"))
        assert msgspec.json.decode(await client.get(guild_key(NS, GUILD)) or b"")["id"] == GUILD
        await shard.store.close()


async def test_prefixes_are_remembered_for_a_time_and_unknown_while_redis_is_away(tmp_path: Path) -> None:
    now = 0.0
    async with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        store = RedisCache(RedisOptions(url=server.url), clock=time.monotonic)
        prefixes = GuildPrefixes(store, NS, clock=lambda: now)
        await client.sadd(prefixes_key(NS, GUILD), "!", "é?")
        await client.set(prefixes_key(NS, "3"), "no set")
        known = await prefixes.of([GUILD, OTHER_GUILD, "3", GUILD])
        assert known == {GUILD: {"!", "é?"}, OTHER_GUILD: frozenset(), "3": frozenset()}
        await client.delete(prefixes_key(NS, GUILD))
        now = 4.9
        assert (await prefixes.of([GUILD]))[GUILD] == {"!", "é?"}
        now = 5.0
        assert (await prefixes.of([GUILD]))[GUILD] == frozenset()
        await server.kill()
        assert await prefixes.of([GUILD, "4"]) == {GUILD: frozenset()}, "what is remembered needs no answer"
        now = 11.0
        assert await prefixes.of([GUILD]) == {}
        await store.close()
    assert GUILDS_MAX > 1000
