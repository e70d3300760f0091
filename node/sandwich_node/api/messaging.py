"""The API's own connections to NATS and Redis, made when a request needs one.

A node whose API is not asked for these has no connections beyond those of its workers.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandwich_coordinator.config import ClusterSettings
from sandwich_coordinator.operations.errors import Unavailable
from sandwich_coordinator.sealing import ClusterKey
from sandwich_node.agent.configuration import secret_opener
from sandwich_node.agent.worker_settings import nats_options, redis_options
from sandwich_node.nats_options import NatsOptions

if TYPE_CHECKING:
    from nats.aio.client import Client

    from sandwich_node.nats_connection import NatsConnection
    from sandwich_sdk.cache import Cache

IDLE_S = 60.0
REFUSED_S = 1.0
"""How long a failed attempt is the answer to others: a NATS that is down is tried once a second."""
REDIS_TIMEOUT_S = 3.0


@dataclass(slots=True)
class _Open:
    """A connection that is there, and how many requests use it."""

    options: NatsOptions
    connection: "NatsConnection"
    users: int = 0


class Messaging:
    """One NATS connection, shared by all requests of this node. `settings`: the node's now; None: it has none yet."""

    def __init__(self, settings: Callable[[], ClusterSettings | None], key: ClusterKey | None) -> None:
        self._settings = settings
        self._open_secret = secret_opener(key)
        self._open: _Open | None = None
        self._connecting: asyncio.Task[_Open] | None = None
        self._refused: tuple[float, str] = (float("-inf"), "")
        self._idle: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def client(self) -> AsyncIterator["Client"]:
        """NATS for the context. Raises Unavailable with the servers and the reason, SealingError for a wrong key."""
        opened = await self._opened()
        opened.users += 1
        try:
            if not opened.connection.is_connected:
                raise Unavailable(opened.connection.absence())
            yield opened.connection.client
        finally:
            opened.users -= 1
            if not opened.users:
                self._let_go(opened)

    async def _opened(self) -> _Open:
        options = nats_options(self._known_settings(), self._open_secret)
        if self._open is not None and self._open.options == options and not self._open.connection.client.is_closed:
            return self._open
        failed_at, why = self._refused
        if asyncio.get_running_loop().time() - failed_at < REFUSED_S:
            raise Unavailable(why)
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect(options))
        # Shielded: other requests wait for the same connection.
        return await asyncio.shield(self._connecting)

    async def _connect(self, options: NatsOptions) -> _Open:
        from sandwich_node.nats_connection import NatsConnection, NatsUnreachable

        connection = NatsConnection(options, name="sandwich-api")
        try:
            await connection.connect()
        except NatsUnreachable as error:
            self._refused = (asyncio.get_running_loop().time(), str(error))
            await connection.close()
            raise Unavailable(str(error)) from None
        before, self._open = self._open, _Open(options, connection)
        if before is not None and not before.users:
            await before.connection.close()
        return self._open

    def _let_go(self, opened: _Open) -> None:
        """Close a connection that no request uses: after a while, or at once when there is a newer one."""
        if opened is not self._open:
            self._close(opened)
            return
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._close, opened)

    def _close(self, opened: _Open) -> None:
        if opened.users:
            return
        if opened is self._open:
            self._open = None
        task = asyncio.create_task(opened.connection.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _known_settings(self) -> ClusterSettings:
        settings = self._settings()
        if settings is None:
            raise Unavailable("this node has no configuration yet")
        return settings

    @asynccontextmanager
    async def cache(self, namespace: str = "default") -> AsyncIterator["Cache"]:
        """The cluster's cache for the context. Raises Unavailable, SealingError."""
        from sandwich_sdk.cache import Cache, CacheUnavailable, Tls

        redis = redis_options(self._known_settings(), self._open_secret)
        tls = Tls(ca=redis.ca, cert=redis.cert, key=redis.key) if redis.ca or redis.cert else None
        try:
            cache = Cache(redis.url, namespace=namespace, password=redis.password, tls=tls, timeout=REDIS_TIMEOUT_S)
        except ValueError as error:
            raise Unavailable(f"the cluster's Redis settings cannot be used: {error}") from None
        try:
            async with cache:
                yield cache
        except CacheUnavailable as error:
            raise Unavailable(str(error)) from None

    async def guild_count(self, namespace: str, app: str) -> int:
        """How many guilds of an application Redis has. Raises Unavailable, SealingError."""
        async with self.cache(namespace) as cache:
            return await cache.guild_count(app)

    async def close(self) -> None:
        """Close what is open."""
        if self._idle is not None:
            self._idle.cancel()
        tasks: set[asyncio.Task[Any]] = {*self._closing}
        if self._connecting is not None:
            self._connecting.cancel()
            tasks.add(self._connecting)
        if tasks:
            await asyncio.wait(tasks)
        if self._open is not None:
            await self._open.connection.close()


@asynccontextmanager
async def open_messaging(
    settings: Callable[[], ClusterSettings | None], key: ClusterKey | None
) -> AsyncIterator[Messaging]:
    """Messaging while the context lasts. Nothing is connected before it is used."""
    messaging = Messaging(settings, key)
    try:
        yield messaging
    finally:
        await messaging.close()
