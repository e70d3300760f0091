"""The cache as `sandwich guild` and `sandwich user` ask it: in Redis, or through a node's HTTP API."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from sandwich_coordinator.cli.cache import Lookup, load
from sandwich_coordinator.cli.connection import Connection
from sandwich_coordinator.cli.remote import Api, open_api
from sandwich_coordinator.operations import cached_guilds
from sandwich_coordinator.operations.cached_guilds import chosen


@dataclass(frozen=True, slots=True)
class Found:
    """Rows, and why there is none ("" when there are some)."""

    rows: list[dict[str, Any]]
    absence: str


@dataclass(frozen=True, slots=True)
class Shared:
    """The guilds that a user shares with these applications."""

    apps: list[str]
    rows: list[dict[str, Any]]


class GuildAccess(Protocol):
    """What commands ask of the cache. `only`: of one application. The methods raise OperationError, CommandError."""

    async def where(self, guild: str, only: str | None) -> Found:
        """See `cached_guilds.find_guild`."""

    async def show(self, guild: str, only: str | None, lists: Sequence[str]) -> Found:
        """See `cached_guilds.read_guild`."""

    async def mutual(self, user: str, only: str | None, namespace: str | None) -> Shared:
        """See `cached_guilds.read_mutual`."""


@asynccontextmanager
async def open_guilds(connection: Connection) -> AsyncIterator[GuildAccess]:
    """The cache while the context lasts. Raises CommandError, OperationError."""
    if connection.api is not None:
        async with open_api(connection.api) as api:
            yield GuildsThroughApi(api)
        return
    yield GuildsInRedis(await load(connection, connection.key_file))


@dataclass(frozen=True, slots=True)
class GuildsInRedis:
    """The operations themselves."""

    lookup: Lookup

    async def where(self, guild: str, only: str | None) -> Found:
        view, apps = self.lookup.view, chosen(self.lookup.namespaces, only)
        rows = await self.lookup.ask(lambda cache: cached_guilds.find_guild(view, cache, guild, apps))
        return Found(rows, "" if rows else cached_guilds.not_cached(view, guild, list(apps)))

    async def show(self, guild: str, only: str | None, lists: Sequence[str]) -> Found:
        view, apps = self.lookup.view, chosen(self.lookup.namespaces, only)
        rows = await self.lookup.ask(lambda cache: cached_guilds.read_guild(view, cache, guild, apps, lists))
        return Found(rows, "" if rows else cached_guilds.not_cached(view, guild, list(apps)))

    async def mutual(self, user: str, only: str | None, namespace: str | None) -> Shared:
        apps = chosen(self.lookup.namespaces, only, namespace)
        rows = await self.lookup.ask(lambda cache: cached_guilds.read_mutual(cache, user, apps))
        return Shared(list(apps), rows)


@dataclass(frozen=True, slots=True)
class GuildsThroughApi:
    """The same operations, carried out by the node that has the API."""

    api: Api

    async def where(self, guild: str, only: str | None) -> Found:
        found = await self.api.get(f"/cache/guilds/{guild}/shards", app=only)
        return Found(found["items"], found["absence"])

    async def show(self, guild: str, only: str | None, lists: Sequence[str]) -> Found:
        found = await self.api.get(f"/cache/guilds/{guild}", app=only, lists=",".join(lists) or None)
        # A collection that was not asked for is null.
        rows = [
            {name: value for name, value in row.items() if value is not None or name == "guild"}
            for row in found["items"]
        ]
        return Found(rows, found["absence"])

    async def mutual(self, user: str, only: str | None, namespace: str | None) -> Shared:
        found = await self.api.get(f"/cache/users/{user}/guilds", app=only, namespace=namespace)
        return Shared(found["apps"], found["items"])
