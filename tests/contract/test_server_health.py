"""What real etcd, Redis and NATS servers report about themselves, read as the agent reads it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

import nats
import pytest
import redis.asyncio
from nats.js.api import ConsumerConfig, StreamConfig

from sandwich_coordinator.problems import Code, Problem, problem
from sandwich_coordinator.store.base import Put, StoreUnavailable
from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.etcd_health import MemberStatus, etcd_problems
from sandwich_node.agent.redis_probe import RedisProbe
from sandwich_node.agent.server_health import Servers
from sandwich_node.cache.errors import CacheUnavailable
from sandwich_node.cache.options import RedisOptions
from sandwich_node.cache.redis_health import redis_problems
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.dev.embedded import EmbeddedEtcd, EmbeddedNats, EmbeddedRedis, etcd_cluster, nats_cluster
from sandwich_node.ipc import NatsSaid
from sandwich_node.nats_connection import NatsConnection, NatsUnreachable
from sandwich_node.nats_options import NatsOptions
from sandwich_node.publishing import jetstream as jetstream_log
from sandwich_node.publishing.jetstream import JetStreamLog
from sandwich_node.publishing.log import StreamLimits
from sandwich_sdk.wire import subjects

pytestmark = pytest.mark.contract
_Found = TypeVar("_Found")


async def until(found: Callable[[], Awaitable[_Found]], right: Callable[[_Found], bool]) -> _Found:
    """Ask until the answer is right."""
    async with asyncio.timeout(60):
        while True:
            if right(last := await found()):
                return last
            await asyncio.sleep(0.05)


async def fill(store: EtcdStore) -> None:
    """Write until etcd is full."""
    number = 0

    async def refused() -> str:
        nonlocal number
        number += 1
        try:
            await store.txn((), (Put(f"/fill/{number}", b"x" * 100_000),))
        except StoreUnavailable as error:
            return str(error)
        return ""

    await until(refused, lambda text: "out of space" in text)


async def test_an_etcd_that_is_full_says_so_and_is_tried_again_once_there_is_space(tmp_path: Path) -> None:
    async with EmbeddedEtcd(tmp_path / "etcd", extra=("--quota-backend-bytes", str(1024 * 1024))) as server:
        store = EtcdStore([server.url])
        try:
            assert etcd_problems(await store.member_statuses()) == []
            await fill(store)
            (found,) = etcd_problems(await store.member_statuses())
            assert found.code is Code.ETCD_NO_SPACE
            with pytest.raises(StoreUnavailable, match="out of space"):
                await store.grant(5)
        finally:
            await store.close()


async def test_an_etcd_member_that_is_gone_and_a_lost_quorum_are_problems(tmp_path: Path) -> None:
    members = etcd_cluster(tmp_path, 3)
    async with AsyncExitStack() as stack:
        for member in members:
            stack.push_async_exit(member)
        await asyncio.gather(*(member.start() for member in members))
        store = EtcdStore([member.url for member in members])
        stack.push_async_callback(store.close)

        async def found() -> list[Problem]:
            return etcd_problems(await store.member_statuses())

        await until(found, lambda problems: problems == [])
        await members[2].kill()
        (one,) = await until(found, lambda problems: [one.code for one in problems] == [Code.ETCD_MEMBER_UNREACHABLE])
        assert f"etcd at {members[2].url} does not answer" in one.text
        await members[1].kill()
        await until(found, lambda problems: Code.ETCD_NO_LEADER in {one.code for one in problems})


async def redis_says(cache: RedisCache) -> str:
    """What Redis says of itself; on a busy machine an answer may be too late, and is asked for again."""
    async with asyncio.timeout(60):
        while True:
            try:
                return "\n".join(one.text for one in redis_problems(await cache.infos()))
            except CacheUnavailable:
                await asyncio.sleep(0.2)


async def test_a_redis_that_is_full_evicts_or_is_a_replica_is_a_problem(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path / "redis", extra=("--maxmemory", "3mb")) as server:
        cache = RedisCache(RedisOptions(url=server.url), clock=asyncio.get_running_loop().time)
        client = redis.asyncio.Redis.from_url(server.url)

        try:
            assert await redis_says(cache) == ""
            pipeline = client.pipeline(transaction=False)
            for number in range(100):
                pipeline.set(f"k{number}", b"x" * 50_000)
            assert any(isinstance(answer, Exception) for answer in await pipeline.execute(raise_on_error=False))
            assert "full (" in await redis_says(cache)
            await client.config_set("maxmemory-policy", "allkeys-lru")
            await client.set("one-more", b"x" * 50_000)
            assert "maxmemory-policy allkeys-lru" in await redis_says(cache)
            await client.replicaof("127.0.0.1", "1")
            assert "read-only replica" in await redis_says(cache)
        finally:
            await client.aclose()
            await cache.close()


async def test_a_redis_that_cannot_save_is_a_problem(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path / "redis") as server:
        cache = RedisCache(RedisOptions(url=server.url), clock=asyncio.get_running_loop().time)
        client = redis.asyncio.Redis.from_url(server.url)
        try:
            # A directory where the snapshot is to go.
            (tmp_path / "redis" / "dump.rdb").mkdir()
            await client.bgsave()
            assert "rdb_last_bgsave_status" in await until(lambda: redis_says(cache), bool)
        finally:
            await client.aclose()
            await cache.close()


def texts(problems: list[Problem]) -> str:
    """Their lines."""
    return "\n".join(one.text for one in problems)


def jetstream(*servers: EmbeddedNats) -> JetStreamLog:
    return JetStreamLog(NatsConnection(NatsOptions(servers=tuple(server.url for server in servers))))


async def test_a_jetstream_account_at_its_limit_is_a_problem(tmp_path: Path) -> None:
    limits = "accounts { A { jetstream { max_file: 1000000, max_streams: 1 }, users: [{user: u, password: p}] } }"
    async with EmbeddedNats(tmp_path / "nats", extra=(limits, "no_auth_user: u")) as server:
        log = jetstream(server)
        await log.connection.connect()
        client = await nats.connect(server.url)
        try:
            assert await log.problems(["bot"]) == []
            context = client.jetstream()
            await context.add_stream(StreamConfig(name="X", subjects=["x"]))
            assert "takes no more streams" in texts(await log.problems(["bot"]))
            for _ in range(92):
                await context.publish("x", b"x" * 10_000)
            assert "storage limit is nearly used up" in texts(await log.problems(["bot"]))
        finally:
            await client.close()
            await log.connection.close()


async def test_a_stream_that_lacks_a_replica_and_one_without_a_leader_are_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A JetStream that elects its leader, or has none, answers nothing; it is asked again until the answer is right.
    monkeypatch.setattr(jetstream_log, "API_TIMEOUT_S", 1.0)
    servers = nats_cluster(tmp_path, 3)
    async with AsyncExitStack() as stack:
        for server in servers:
            stack.push_async_exit(server)
        await asyncio.gather(*(server.start() for server in servers))
        log = JetStreamLog(NatsConnection(NatsOptions(servers=(servers[0].url,))), limits=StreamLimits(replicas=3))
        await log.connection.connect()
        stack.push_async_callback(log.connection.close)

        async def made() -> bool:
            try:
                await log.ensure_stream("bot")
            except Exception:
                return False
            return True

        async def found() -> str:
            return texts(await log.problems(["bot"]))

        await until(made, bool)
        await until(found, lambda text: text == "")
        await servers[2].kill()
        name = subjects.stream_name("bot")
        text = await until(found, lambda text: "lacks replicas" in text)
        assert f"stream {name} lacks replicas (n2 of 3)" in text
        await servers[1].kill()
        await until(found, lambda text: "does not answer" in text)


async def test_the_agent_says_what_blocks_and_what_does_not(tmp_path: Path) -> None:
    full = ("--quota-backend-bytes", str(1024 * 1024))
    async with (
        EmbeddedEtcd(tmp_path / "etcd", extra=full) as etcd,
        EmbeddedRedis(tmp_path / "redis", extra=("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")) as cache,
    ):
        store = EtcdStore([etcd.url])
        await fill(store)
        asked = []
        servers = Servers(store, RedisOptions(url=cache.url), ask_nats=lambda: not asked.append(1))  # type: ignore[func-returns-value]
        running = asyncio.create_task(servers.run())
        try:

            async def said() -> bool:
                return bool(servers.problems and "NOSPACE" in texts(servers.waiting) and asked)

            await until(said, bool)
            assert "evicts keys" in servers.problems[0].text
            lacking = problem(Code.STREAM_REPLICAS_MISSING, "nats/S", "stream S lacks replicas")
            servers.nats_said(NatsSaid([lacking]), 1.0)
            assert servers.problems[-1] == lacking
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await store.close()


class Members:
    """An etcd that is well, whose client has other TLS files than those on the disk."""

    tls_refused = ""

    async def member_statuses(self) -> dict[str, MemberStatus | str]:
        return {}


async def test_changed_tls_files_for_etcd_that_cannot_be_used_are_a_problem_until_they_can(tmp_path: Path) -> None:
    members = Members()
    members.tls_refused = "etcd's CA /ca has no certificate in PEM"
    async with EmbeddedRedis(tmp_path / "redis") as cache:
        servers = Servers(members, RedisOptions(url=cache.url), ask_nats=lambda: True)
        running = asyncio.create_task(servers.run())
        try:

            async def found() -> list[str]:
                return [each.text for each in servers.problems if each.code is Code.CERTIFICATE_REFUSED]

            (text,) = await until(found, bool)
            assert "/ca has no certificate" in text
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_nats_that_refuses_the_credentials_says_so(tmp_path: Path) -> None:
    accounts = "accounts { A { jetstream: enabled, users: [{user: u, password: p}] } }"
    async with EmbeddedNats(tmp_path / "nats", extra=(accounts, "no_auth_user: u")) as server:
        connection = NatsConnection(NatsOptions(servers=(server.url,), user="u", password="wrong"))
        try:
            with pytest.raises(NatsUnreachable, match="authorization refused") as caught:
                await connection.connect()
            assert caught.value.code is Code.NATS_UNAUTHORIZED
        finally:
            await connection.close()


async def test_a_nats_that_is_not_there_is_not_reachable() -> None:
    connection = NatsConnection(NatsOptions(servers=("nats://127.0.0.1:1",)))
    with pytest.raises(NatsUnreachable, match="not reachable") as caught:
        await connection.connect()
    assert caught.value.code is Code.NATS_UNREACHABLE
    await connection.close()


async def test_a_redis_that_refuses_the_password_says_so(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path / "redis") as server:
        async with redis.asyncio.Redis.from_url(server.url) as client:
            await client.config_set("requirepass", "right")
        probe = RedisProbe(RedisOptions(url=server.url, password="wrong"))
        running = asyncio.create_task(probe.run())

        async def code() -> Code | None:
            return probe.waiting.code if probe.waiting is not None else None

        try:
            await until(code, lambda found: found is Code.REDIS_UNAUTHORIZED)
            assert probe.waiting is not None
            assert "authorization refused" in probe.waiting.summary
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_the_lag_of_groups_and_the_dead_letters_are_read_from_jetstream(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path / "nats") as server:
        log = jetstream(server)
        await log.connection.connect()
        client = await nats.connect(server.url)
        try:
            await log.ensure_stream("bot")
            context, name = client.jetstream(), subjects.stream_name("bot")
            for durable in ("greeter", "sorted", "sorted@0", "sorted@1"):
                await context.add_consumer(name, ConsumerConfig(durable_name=durable, name=durable))
            await context.add_consumer(name, ConsumerConfig(name="passing", inactive_threshold=60))
            for _ in range(3):
                await context.publish("sandwich.bot.events.all.0.0", b"x")
            await context.publish(subjects.dead_subject("bot", "greeter"), b"x")
            found = await log.consumers(["bot", "music"])
            assert [(group.app, group.group, group.lag) for group in found.groups] == [
                ("bot", "greeter", 3),
                ("bot", "sorted", 9),
            ]
            assert found.dead_letters == {"bot": 1, "music": 0}
        finally:
            await client.close()
            await log.connection.close()
