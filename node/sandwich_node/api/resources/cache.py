"""What Redis has of guilds and users, read by this node itself: also while no shard of an application runs."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from sandwich_coordinator.access.roles import Role
from sandwich_coordinator.operations import cached_guilds
from sandwich_coordinator.operations.cached_guilds import LISTS, chosen, namespaces_of
from sandwich_node.api.models import Model
from sandwich_node.api.resources.lookups import checked
from sandwich_node.api.routing import Call, Route

TAG = "cache"


class CacheQuery(Model):
    """Of which application; null: of all."""

    app: str | None = Field(default=None, max_length=64)


class CachedGuildQuery(CacheQuery):
    """With which collections, separated by commas."""

    lists: str | None = Field(default=None, pattern=r"^(channels|roles|members)(,(channels|roles|members)){0,2}$")


class CachedUserQuery(CacheQuery):
    """Of which application or cache namespace; null: of all."""

    namespace: str | None = Field(default=None, max_length=64)


class CachedShard(Model):
    """The shard of a guild for one application, and the node that runs it now; null: no node."""

    app: str
    namespace: str
    group: int
    shard: int
    node: str | None
    state: str


class CachedShards(Model):
    """The applications that are in a guild. `absence`: why there is none; "" when there is one."""

    items: list[CachedShard]
    absence: str


class CachedGuild(Model):
    """A guild in one cache namespace.

    guild     as Discord describes it, without its collections; null: its own data is not cached
    cached    how much there is of each collection
    channels, roles, members  where they were asked for, else null; at most 100 members
    """

    id: str
    namespace: str
    guild: dict[str, Any] | None
    where: list[CachedShard]
    cached: dict[str, int]
    channels: list[dict[str, Any]] | None = None
    roles: list[dict[str, Any]] | None = None
    members: list[dict[str, Any]] | None = None


class CachedGuilds(Model):
    """The guild in each namespace that has it. `absence`: why there is none; "" when there is one."""

    items: list[CachedGuild]
    absence: str


class SharedGuild(Model):
    """A guild that a user shares with applications of one namespace. `name`: null when it is not cached."""

    guild: str
    name: str | None
    namespace: str
    apps: list[str]


class SharedGuilds(Model):
    """The guilds that a user shares with these applications."""

    apps: list[str]
    items: list[SharedGuild]


def _apps(call: Call, namespace: str | None = None) -> Mapping[str, str]:
    """The applications to look at. Raises NotFound and Refused."""
    seen = {app: name for app, name in namespaces_of(call.cluster.view()).items() if call.identity.sees(app)}
    return chosen(seen, call.query.app, namespace)


async def _where(call: Call) -> CachedShards:
    guild, apps, view = str(int(checked(call, "guild_id"))), _apps(call), call.cluster.view()
    async with call.cluster.messaging.cache() as cache:
        rows = await cached_guilds.find_guild(view, cache, guild, apps)
    absence = "" if rows else cached_guilds.not_cached(view, guild, list(apps))
    return CachedShards(items=[CachedShard.model_validate(row) for row in rows], absence=absence)


async def _show(call: Call) -> CachedGuilds:
    guild, apps, view = str(int(checked(call, "guild_id"))), _apps(call), call.cluster.view()
    wanted = (call.query.lists or "").split(",")
    lists = [name for name in LISTS if name in wanted]
    async with call.cluster.messaging.cache() as cache:
        rows = await cached_guilds.read_guild(view, cache, guild, apps, lists)
    absence = "" if rows else cached_guilds.not_cached(view, guild, list(apps))
    return CachedGuilds(items=[CachedGuild.model_validate(row) for row in rows], absence=absence)


async def _mutual(call: Call) -> SharedGuilds:
    user, apps = str(int(checked(call, "user_id"))), _apps(call, call.query.namespace)
    async with call.cluster.messaging.cache() as cache:
        rows = await cached_guilds.read_mutual(cache, user, apps)
    return SharedGuilds(apps=list(apps), items=[SharedGuild.model_validate(row) for row in rows])


def _route(path: str, summary: str, handler: Any, query: type[Model], result: type[Model]) -> Route:
    return Route(
        method="GET",
        path=path,
        summary=summary,
        description="Read from Redis by the node that is asked, of all applications that the identity may see.",
        role=Role.VIEWER,
        handler=handler,
        tag=TAG,
        query=query,
        result=result,
        errors=("not-found", "refused", "unavailable"),
    )


ROUTES = (
    _route(
        "/cache/guilds/{guild_id}", "A guild in the cache, in each namespace", _show, CachedGuildQuery, CachedGuilds
    ),
    _route("/cache/guilds/{guild_id}/shards", "The shards that have a guild", _where, CacheQuery, CachedShards),
    _route(
        "/cache/users/{user_id}/guilds",
        "The guilds that a user shares with applications, with names",
        _mutual,
        CachedUserQuery,
        SharedGuilds,
    ),
)
