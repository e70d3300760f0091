"""The connection to Redis or a Redis Cluster: every request has a deadline, and every failure a reason."""

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import redis.asyncio as redis
from hiredis import pack_command
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse, NoPermissionError, RedisClusterException, RedisError, ResponseError

from sandwich_sdk.cache import corruption
from sandwich_sdk.cache.address import Address, Tls, tls_arguments
from sandwich_sdk.cache.errors import CacheUnavailable, unavailable

_log = logging.getLogger(__name__)

Command = tuple[str | bytes | int, ...]

KEYS_MAX: Final = 5000
"""Most keys in one request."""


class _Packing:
    """Packs commands in C. With redis-py's own code, packing the keys of a hundred guilds takes half of the time."""

    def pack_command(self, *command: Any) -> list[bytes]:
        return [pack_command(command)]

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        return [b"".join(pack_command(tuple(command)) for command in commands)]


class _Tcp(_Packing, redis.Connection):
    pass


def _tls() -> type[redis.SSLConnection]:
    """Connections that read renewed files at the next connect: redis-py's own keep the content of the first ones.

    Files that cannot be used change nothing, once some could.
    """

    class Tls(_Packing, redis.SSLConnection):
        read: tuple[tuple[int, int, int], ...] | None = None
        kept: ssl.SSLContext | None = None

        def _connection_arguments(self) -> Mapping[str, Any]:
            tls = self.ssl_context
            files = [name for name in (tls.ca_certs, tls.certfile, tls.keyfile) if name]
            found = _stamp(files)
            if found != Tls.read or Tls.kept is None:
                tls.context = None
                try:
                    Tls.kept = tls.get()
                except OSError as error:
                    if Tls.kept is None:
                        raise
                    _log.error("the changed TLS files %s for Redis are not used: %s", ", ".join(files), error)
                Tls.read = found
            tls.context = Tls.kept
            arguments: Mapping[str, Any] = super()._connection_arguments()
            return arguments

    return Tls


def _stamp(names: Iterable[str]) -> tuple[tuple[int, int, int], ...]:
    try:
        files = [os.stat(name) for name in names]
    except OSError:
        return ()
    return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in files)


class _Unix(_Packing, redis.UnixDomainSocketConnection):
    pass


class Connection:
    """Sends requests to Redis. Safe for concurrent tasks: at most `connections` requests run at once, others wait.

    timeout  seconds for one request, including the wait
    """

    def __init__(
        self,
        url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        tls: Tls | None = None,
        timeout: float = 1.0,
        connections: int = 32,
    ) -> None:
        """Check the arguments; nothing is connected yet. Raises ValueError."""
        address = Address.parse(url)
        if tls is not None and not address.is_tls:
            raise ValueError("TLS needs a rediss:// URL")
        if timeout <= 0 or connections < 1:
            raise ValueError("timeout and connections must be positive")
        self.server = address.server
        self.timeout = timeout
        self._address = address
        self._options: dict[str, Any] = {
            "username": username or address.username,
            "password": password or address.password,
            # `ask` has one deadline for everything. redis-py's own is for each reply, and its retries last a minute.
            "socket_timeout": None,
            "socket_connect_timeout": timeout,
            "max_connections": connections,
            "protocol": 2,
            **(tls_arguments(tls or Tls()) if address.is_tls else {}),
        }
        # One retry, for a connection that was closed by a restart of the server.
        retry = Retry(NoBackoff(), 1, (redis.ConnectionError,))
        kind = _Unix if address.path else _tls() if address.is_tls else _Tcp
        options = {**address.arguments(), "db": address.db, "retry": retry, **self._options}
        self._single = redis.Redis.from_pool(redis.ConnectionPool(connection_class=kind, **options))
        self._client: Any = None
        self._choice_lock = asyncio.Lock()
        self._turns = asyncio.Semaphore(connections)

    async def ask(self, *commands: Command) -> list[Any]:
        """The replies to one request, in order; None for a value of another type. Raises CacheUnavailable."""
        if not commands:
            return []
        async with self._turn() as client:
            replies = await _send(client, commands)
        return [self._checked(command, reply) for command, reply in zip(commands, replies, strict=True)]

    async def get_each(self, keys: Sequence[str]) -> list[bytes | None]:
        """The strings at these keys. Raises CacheUnavailable."""
        found: list[bytes | None] = []
        is_cluster = await self._is_cluster()
        for page in _pages(keys):
            if is_cluster:
                found += await self.ask(*(("GET", key) for key in page))
            else:
                found += (await self.ask(("MGET", *page)))[0]
        return found

    async def exists_each(self, keys: Sequence[str]) -> list[bool]:
        """Whether these keys exist. Cheap when all of them do. Raises CacheUnavailable."""
        found: list[bool] = []
        is_cluster = await self._is_cluster()
        for page in _pages(keys):
            # A cluster accepts several keys in one command only if they are on one slot.
            if not is_cluster and (await self.ask(("EXISTS", *page)))[0] == len(page):
                found += [True] * len(page)
            else:
                found += map(bool, await self.ask(*(("EXISTS", key) for key in page)))
        return found

    async def close(self) -> None:
        """Close the connections. Another request opens new ones."""
        await self._single.aclose()
        if self._client is not None and self._client is not self._single:
            await self._client.aclose()

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """A deadline. Raises CacheUnavailable when it passes."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            raise unavailable(self.server, seconds, error) from None

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[Any]:
        """The client, within the deadline. Raises CacheUnavailable, also for errors raised inside."""
        try:
            async with self.within(self.timeout), self._turns:
                yield await self._choose() if self._client is None else self._client
        except (RedisError, RedisClusterException, OSError) as error:
            raise unavailable(self.server, self.timeout, error) from None

    def _checked(self, command: Command, reply: Any) -> Any:
        if not isinstance(reply, Exception):
            return reply
        if isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE"):
            corruption.report(str(command[1]), "a value of another type than in the contract")
            return None
        raise unavailable(self.server, self.timeout, reply) from None

    async def _is_cluster(self) -> bool:
        async with self._turn() as client:
            return client is not self._single

    async def _choose(self) -> Any:
        """The client for a single server or a cluster; the server is asked once which it is."""
        async with self._choice_lock:
            if self._client is None:
                self._client = self._cluster() if await _is_cluster(self._single) else self._single
        return self._client

    def _cluster(self) -> Any:
        if self._address.path or self._address.db:
            detail = "it is a Redis Cluster, which has no database numbers and no unix socket"
            raise CacheUnavailable(self.server, "refused", detail)
        # Unbounded here: before redis-py 8 failed connections of a cluster are never subtracted. `_turns` is the bound.
        options = {**self._options, "ssl": self._address.is_tls, "max_connections": 2**31}
        return RedisCluster(**self._address.arguments(), **options)


async def _send(client: Any, commands: Sequence[Command]) -> list[Any]:
    if len(commands) == 1:
        try:
            return [await client.execute_command(*commands[0])]
        except ResponseError as error:
            return [error]
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    return list(await pipeline.execute(raise_on_error=False))


async def _is_cluster(client: Any) -> bool:
    """Ask the server. HELLO needs no permission, INFO does. Raises InvalidResponse if it is not Redis."""
    try:
        reply = await client.execute_command("HELLO")
    except NoPermissionError:
        return False
    except ResponseError as error:
        if "unknown command" in str(error):
            # A proxy in front of Redis, which behaves as one server.
            return False
        raise
    if not isinstance(reply, list) or b"mode" not in reply[:-1]:
        raise InvalidResponse
    return bool(reply[reply.index(b"mode") + 1] == b"cluster")


def _pages(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[at : at + KEYS_MAX] for at in range(0, len(keys), KEYS_MAX))
