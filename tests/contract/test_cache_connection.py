"""A Redis that refuses, hangs, loads, uses TLS, restarts or is another server: a clear, fast error without a secret."""

import asyncio
import os
import ssl
from pathlib import Path

import pytest
import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster

from sandwich_node.dev.embedded import EmbeddedRedis
from sandwich_node.dev.ports import free_ports
from sandwich_sdk.cache import Cache, CacheUnavailable, Tls
from sandwich_sdk.cache.testing import guild_layout
from tests.support.cache_layout import ADA, GUILD, rich_guild, store
from tests.support.redis_cluster import redis_cluster
from tests.support.servers import NOT_REDIS, Certificates, listening, relay, says
from tests.support.starvation import fair_time

pytestmark = pytest.mark.contract
NS = "music"
SECRET = "hunter2-canary"
SOON_S = 3.0
"""For a timeout of at most a second on a busy machine. redis-py alone would take a minute."""


async def fill(url: str, password: str | None = None) -> None:
    async with redis.Redis.from_url(url, password=password) as client:
        await store(client, guild_layout(NS, rich_guild(), app=NS))


async def refused(cache: Cache) -> CacheUnavailable:
    """Send a request and check that it fails as expected: soon, and without a secret."""
    started = fair_time()
    with pytest.raises(CacheUnavailable) as failed:
        await cache.guild(GUILD)
    assert fair_time() - started < SOON_S
    assert SECRET not in str(failed.value) + repr(failed.value) + repr(cache)
    assert failed.value.__cause__ is None
    return failed.value


# --- not Redis --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NOT_REDIS)
async def test_a_server_that_is_not_redis_is_reported_as_such(kind: str) -> None:
    async with listening(says(*NOT_REDIS[kind])) as port:
        async with Cache(f"redis://:{SECRET}@127.0.0.1:{port}", namespace=NS) as cache:
            assert (await refused(cache)).reason in ("not redis", "refused login")
        async with Cache(f"redis://127.0.0.1:{port}", namespace=NS) as cache:
            error = await refused(cache)
    assert error.reason == "not redis"
    assert str(error) == f"the cache at 127.0.0.1:{port} is unavailable: the server there is not Redis"


async def test_a_silent_server_a_closed_connection_and_a_missing_server_have_different_reasons() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            pass

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with listening(mute) as port, Cache(f"redis://127.0.0.1:{port}", namespace=NS, timeout=0.2) as cache:
        error = await refused(cache)
        assert (error.reason, error.server) == ("no answer", f"127.0.0.1:{port}")
    async with listening(hang_up) as port, Cache(f"redis://127.0.0.1:{port}", namespace=NS) as cache:
        assert (await refused(cache)).reason == "no connection"
    async with Cache(f"redis://127.0.0.1:{free_ports(1)[0]}", namespace=NS) as cache:
        assert (await refused(cache)).reason == "no connection"
    async with Cache("unix:///nowhere/redis.sock", namespace=NS) as cache:
        assert (await refused(cache)).server == "/nowhere/redis.sock"
    async with Cache("redis://no-such-host.invalid", namespace=NS) as cache:
        assert (await refused(cache)).reason == "no connection"


# --- frozen, restarted, loading ---------------------------------------------------------------------------------


async def test_a_frozen_server_fails_after_the_timeout_and_answers_correctly_afterwards(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path) as server, Cache(server.url, namespace=NS, connections=2) as cache:
        await fill(server.url)
        assert await cache.guild(GUILD)
        await server.pause()
        try:
            # Ten requests over two connections: those that wait have the same deadline.
            async with asyncio.TaskGroup() as tasks:
                for _ in range(10):
                    tasks.create_task(refused(cache))
        finally:
            server.unpause()
        guild, channels, sizes = await asyncio.gather(cache.guild(GUILD), cache.channels(GUILD), cache.sizes(GUILD))
        assert guild is not None
        assert sizes is not None
        assert (guild.name, len(channels), sizes["members"]) == ("Chess", 2, 3)


async def test_a_frozen_server_is_detected_before_the_first_answer_and_during_a_long_scan(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path) as server, Cache(server.url, namespace=NS, timeout=0.3) as cache:
        await server.pause()
        try:
            assert (await refused(cache)).reason == "no answer"
            with pytest.raises(CacheUnavailable, match=r"no answer within 0\.3 s"):
                await cache.members(GUILD, query="a")
        finally:
            server.unpause()
        async with Cache(server.url, namespace=NS, scan_timeout=1e-9) as hasty:
            with pytest.raises(CacheUnavailable, match="no answer within 1e-09 s"):
                await hasty.mutual_guilds(ADA)


async def test_a_server_that_was_restarted_is_used_again_without_an_error(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path) as server, Cache(server.url, namespace=NS) as cache:
        await fill(server.url)
        assert len(await asyncio.gather(*(cache.guild(GUILD) for _ in range(8)))) == 8
        await server.kill()
        assert (await refused(cache)).reason == "no connection"
        await server.start()
        assert await cache.guild(GUILD) is None
        await fill(server.url)
        assert await cache.guild(GUILD)


async def test_a_server_that_loads_its_data_is_reported_as_loading(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        # Redis answers after every 2 MiB that it has loaded.
        await client.mset({f"key {number}": os.urandom(1 << 20) for number in range(10)})
        await client.save()
    loading = EmbeddedRedis(tmp_path, extra=("--key-load-delay", "50000"))
    loading.take_ports(free_ports(1))
    starting = asyncio.create_task(loading.start())
    try:
        async with Cache(f"redis://127.0.0.1:{loading.port}", namespace=NS) as cache:
            reason = "no connection"
            async with asyncio.timeout(60):
                while reason == "no connection":
                    reason = (await refused(cache)).reason
                    await asyncio.sleep(0.01)
            assert reason == "loading"
    finally:
        await starting
        await loading.kill()


async def test_a_server_over_a_unix_socket_and_another_database(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with EmbeddedRedis(tmp_path, extra=("--unixsocket", str(path))) as server:
        await fill(f"redis://127.0.0.1:{server.port}/3")
        for url in (f"redis://127.0.0.1:{server.port}/3", f"unix://{path}?db=3"):
            async with Cache(url, namespace=NS) as cache:
                assert await cache.guild(GUILD)
        async with Cache(f"redis://127.0.0.1:{server.port}/99", namespace=NS) as cache:
            assert "no database with that number" in str(await refused(cache))


# --- logins and permissions ---------------------------------------------------------------------------------------


async def test_a_wrong_or_missing_password_is_refused_and_never_shown(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path) as server:
        await fill(server.url)
        async with redis.Redis.from_url(server.url) as client:
            await client.config_set("requirepass", SECRET)
        where = f"127.0.0.1:{server.port}"
        async with Cache(f"redis://:{SECRET}@{where}", namespace=NS) as cache:
            assert await cache.guild(GUILD)
        async with Cache(server.url, namespace=NS, username="default", password=SECRET) as cache:
            assert await cache.guild(GUILD)
        for url in (server.url, f"redis://:{SECRET}x@{where}", f"redis://ada:{SECRET}@{where}"):
            async with Cache(url, namespace=NS) as cache:
                error = await refused(cache)
                assert str(error) == f"the cache at {where} is unavailable: it refuses the user or the password"
                assert error.reason == "refused login"


async def test_a_password_for_a_server_without_one_is_reported(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path) as server, Cache(server.url, namespace=NS, password=SECRET) as cache:
        assert (await refused(cache)).reason == "refused login"


# --- TLS --------------------------------------------------------------------------------------------------------


async def test_tls_authenticates_the_server_and_optionally_the_client(tmp_path: Path) -> None:
    ours, strangers = tmp_path / "ours", tmp_path / "strangers"
    for directory in (ours, strangers):
        directory.mkdir()
    mine = Certificates(ours)
    client = Tls(ca=mine.ca, cert=mine.issue("client")[0], key=mine.issue("client")[1])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*mine.issue("server", "127.0.0.1"))
    async with EmbeddedRedis(tmp_path / "redis") as server:
        await fill(server.url)
        async with listening(relay(server.port), context) as port:
            url = f"rediss://127.0.0.1:{port}"
            async with Cache(url, namespace=NS, tls=Tls(ca=mine.ca)) as cache:
                assert await cache.guild(GUILD)
            async with Cache(f"rediss://localhost:{port}", namespace=NS, tls=Tls(ca=mine.ca)) as cache:
                assert "mismatch" in str(await refused(cache))
            for tls in (None, Tls(ca=Certificates(strangers).ca)):
                async with Cache(url, namespace=NS, tls=tls) as cache:
                    error = await refused(cache)
                    assert (error.reason, "TLS failed" in str(error)) == ("tls", True)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(mine.ca)
        async with listening(relay(server.port), context) as port:
            async with Cache(f"rediss://127.0.0.1:{port}", namespace=NS, tls=client) as cache:
                assert await cache.guild(GUILD)
            async with Cache(f"rediss://127.0.0.1:{port}", namespace=NS, tls=Tls(ca=mine.ca)) as cache:
                assert (await refused(cache)).reason in ("tls", "no connection")
        async with Cache(f"rediss://127.0.0.1:{server.port}", namespace=NS) as cache:
            # Redis takes the bytes for a command and waits for its end.
            assert (await refused(cache)).reason == "no answer"


# --- Redis Cluster ----------------------------------------------------------------------------------------------


async def test_a_frozen_node_of_a_cluster_fails_after_the_timeout_and_a_database_number_is_refused(
    tmp_path: Path,
) -> None:
    async with redis_cluster(tmp_path, 2) as servers:
        async with Cache(f"redis://127.0.0.1:{servers[1].port}/1", namespace=NS) as cache:
            assert (await refused(cache)).reason == "refused"
        async with RedisCluster.from_url(servers[0].url) as client:
            for guild in range(1, 20):
                await store(client, guild_layout(NS, rich_guild(str(guild)), app=NS))
        async with Cache(servers[1].url, namespace=NS) as cache:
            assert await cache.mutual_guilds(ADA) == [str(guild) for guild in range(1, 20)]
            await servers[0].pause()
            try:
                with pytest.raises(CacheUnavailable, match="no answer within 1 s"):
                    await cache.mutual_guilds(ADA)
            finally:
                servers[0].unpause()
            assert len(await cache.mutual_guilds(ADA)) == 19
