"""A resolver that stalls: Redis, NATS, etcd and HTTP are still reachable, in both event loops, with real libraries."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_node.cache.options import RedisOptions
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.dev.embedded import EmbeddedEtcd, EmbeddedNats, EmbeddedRedis
from sandwich_node.discord_http import discord_session
from sandwich_node.names import Address, Names, NodeLoop, WorkerLoop
from sandwich_node.nats_connection import NatsConnection
from sandwich_node.nats_options import NatsOptions
from sandwich_node.publishing.jetstream import JetStreamLog
from tests.support.certificates import certificate

pytestmark = pytest.mark.contract

DEADLINE_S = 60.0
Body = Callable[[], Coroutine[Any, Any, None]]


class Stalling:
    """Resolves every name to this machine; while it stalls it does not answer. Its clock can be advanced."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self.asked: list[str] = []
        self.answers = threading.Event()
        self.answers.set()
        self.names = Names(self._ask, lambda: time.monotonic() + self.ahead_s)

    def _ask(self, host: str) -> list[Address]:
        self.asked.append(host)
        self.answers.wait(DEADLINE_S)
        return [(socket.AF_INET, ("127.0.0.1", 0))]

    def stall(self) -> None:
        """Stall from now on, and expire the known names."""
        self.answers.clear()
        self.ahead_s += 60.0


@pytest.fixture
def resolver() -> Iterator[Stalling]:
    resolver = Stalling()
    yield resolver
    resolver.answers.set()


@pytest.fixture(params=[NodeLoop, WorkerLoop])
def run(request: pytest.FixtureRequest, resolver: Stalling) -> Callable[[Body], None]:
    def run(body: Body) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(DEADLINE_S - 5):
                await body()

        with asyncio.Runner(loop_factory=lambda: request.param(resolver.names)) as runner:
            runner.run(bounded())

    return run


def named(url: str, name: str) -> str:
    assert "127.0.0.1" in url
    return url.replace("127.0.0.1", name)


def test_redis_is_reached_while_the_resolver_stalls(
    run: Callable[[Body], None], resolver: Stalling, tmp_path: Path
) -> None:
    async def body() -> None:
        async with EmbeddedRedis(tmp_path) as server:
            options = RedisOptions(url=named(server.url, "redis.test"))
            for stalls in (False, True):
                if stalls:
                    resolver.stall()
                cache = RedisCache(options, clock=time.monotonic)
                await cache.check()
                await cache.close()

    run(body)
    assert resolver.asked == ["redis.test", "redis.test"]


def test_nats_is_reached_while_the_resolver_stalls(
    run: Callable[[Body], None], resolver: Stalling, tmp_path: Path
) -> None:
    async def body() -> None:
        async with EmbeddedNats(tmp_path) as server:
            options = NatsOptions(servers=(named(server.url, "nats.test"),))
            for stalls in (False, True):
                if stalls:
                    resolver.stall()
                log = JetStreamLog(NatsConnection(options))
                await log.connection.connect()
                await log.check()
                await log.connection.close()

    run(body)
    assert resolver.asked == ["nats.test", "nats.test"]


def test_etcd_is_reached_while_the_resolver_stalls(
    run: Callable[[Body], None], resolver: Stalling, tmp_path: Path
) -> None:
    async def body() -> None:
        async with EmbeddedEtcd(tmp_path) as server:
            for stalls in (False, True):
                if stalls:
                    resolver.stall()
                store = EtcdStore([named(server.url, "etcd.test")])
                await store.server_version()
                await store.close()

    run(body)
    assert resolver.asked[0] == "etcd.test"


def test_discord_is_reached_while_the_resolver_stalls(run: Callable[[Body], None], resolver: Stalling) -> None:
    async def hello(request: web.Request) -> web.Response:
        return web.Response(text=request.host, headers={"Connection": "close"})

    async def body() -> None:
        app = web.Application()
        app.router.add_get("/", hello)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://discord.test:{runner.addresses[0][1]}/"
        async with discord_session() as http:
            for stalls in (False, True):
                if stalls:
                    resolver.stall()
                async with http.get(url) as response:
                    assert (await response.text()).startswith("discord.test:")
        await runner.cleanup()

    run(body)
    assert resolver.asked == ["discord.test", "discord.test"]


def test_tls_checks_the_name_and_not_the_address(run: Callable[[Body], None], tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "redis.test")
    served, trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(cert))
    served.load_cert_chain(str(cert), str(key))

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        await writer.drain()
        writer.close()

    async def body() -> None:
        server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=served)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("redis.test", port, ssl=trusted)
        assert await reader.readline() == b"hello\n"
        writer.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("another.test", port, ssl=trusted)
        server.close()

    run(body)


def test_a_worker_tries_every_address_of_a_name_and_the_one_that_answered_first_next_time(tmp_path: Path) -> None:
    # Loopback addresses on which nothing listens; they need no configuration.
    addresses: list[Address] = [(socket.AF_INET, ("127.0.0.2", 0)), (socket.AF_INET, ("127.0.0.1", 0))]
    names = Names(lambda host: addresses)

    async def body() -> None:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("nats.test", port)
        writer.close()
        assert [address[0] for _, address in await names.addresses("nats.test")] == ["127.0.0.1", "127.0.0.2"]
        server.close()
        await server.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("nats.test", port)

    with asyncio.Runner(loop_factory=lambda: WorkerLoop(names)) as runner:
        runner.run(body())
