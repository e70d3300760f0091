"""Answers requests about the cache from Redis, with the SDK's reader."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from sandwich_node.ipc import AppInfo
from sandwich_node.rpc.requests import read, snowflake
from sandwich_sdk.cache import Cache, CacheUnavailable
from sandwich_sdk.cache.objects import Entity
from sandwich_sdk.wire.rpc import INVALID, NOT_FOUND, REFUSED, UNAVAILABLE, RpcError

_ENTITIES = {
    "fetch_channel": ("channel", "channel_id"),
    "fetch_thread": ("thread", "thread_id"),
    "fetch_role": ("role", "role_id"),
    "fetch_member": ("member", "user_id"),
    "fetch_voice_state": ("voice_state", "user_id"),
}
_LISTS = {
    "fetch_channels": "channels",
    "fetch_threads": "threads",
    "fetch_roles": "roles",
    "fetch_emojis": "emojis",
    "fetch_stickers": "stickers",
    "fetch_voice_states": "voice_states",
    "fetch_scheduled_events": "scheduled_events",
    "fetch_stages": "stages",
    "fetch_sounds": "sounds",
}
VERBS = frozenset(
    {
        "where_is_guild",
        "mutual_guilds",
        "permissions",
        "fetch_guild",
        "fetch_user",
        "fetch_members",
        *_ENTITIES,
        *_LISTS,
    }
)


class _Ask(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    guild_id: str = ""
    channel_id: str = ""
    thread_id: str = ""
    role_id: str = ""
    user_id: str = ""
    user_ids: list[str] | None = None
    query: str | None = None
    limit: int = 100
    scope: str = "app"


class CacheQuestions:
    """Answers for every application; `apps` returns the present applications of the cluster."""

    def __init__(self, cache: Cache, apps: Callable[[], Mapping[str, AppInfo]]) -> None:
        self._cache = cache
        self._apps = apps

    async def answer(self, app: str, verb: str, body: bytes) -> bytes:
        """The result's JSON. Raises RpcError."""
        seen = self._apps()[app]
        if not seen.caches and verb != "mutual_guilds":
            raise RpcError(REFUSED, f"application {app} keeps no cache")
        ask = read(body, _Ask)  # type: ignore[type-var]
        try:
            return await self._answer(app, self._cache.in_namespace(seen.namespace), verb, ask)
        except CacheUnavailable as error:
            raise RpcError(UNAVAILABLE, str(error), 1.0) from None
        except ValueError as error:
            raise RpcError(INVALID, str(error)) from None

    async def _answer(self, app: str, cache: Cache, verb: str, ask: _Ask) -> bytes:
        if verb == "mutual_guilds":
            return msgspec.json.encode(await self._mutual(app, ask))
        if verb == "fetch_user":
            return _one(await cache.user(snowflake(ask.user_id, "user_id")), "user")
        guild = snowflake(ask.guild_id, "guild_id")
        if verb == "where_is_guild":
            at = await cache.where_is_guild(guild, app)
            if at is None:
                raise RpcError(NOT_FOUND, f"application {app} is not in this guild")
            return msgspec.json.encode({"group": at.group, "shard": at.shard, "bot": self._apps()[app].bot})
        if verb == "fetch_guild":
            return _one(await cache.guild(guild), "guild")
        if verb == "permissions":
            found = await cache.permissions(guild, snowflake(ask.user_id, "user_id"), ask.channel_id or None)
            if found is None:
                raise RpcError(NOT_FOUND, "the member, the channel or what decides about it is not known")
            return msgspec.json.encode({"permissions": str(int(found))})
        if verb == "fetch_members":
            page = await cache.members(guild, ids=ask.user_ids, query=ask.query, limit=ask.limit)
            made = {"members": [member.raw for member in page.members], "complete": page.complete}
            return msgspec.json.encode(made)
        if verb in _LISTS:
            ask_all: Callable[[str], Awaitable[list[Entity]]] = getattr(cache, _LISTS[verb])
            return msgspec.json.encode([item.raw for item in await ask_all(guild)])
        name, field = _ENTITIES[verb]
        ask_one: Callable[[str, str], Awaitable[Entity | None]] = getattr(cache, name)
        return _one(await ask_one(guild, snowflake(getattr(ask, field), field)), name)

    async def _mutual(self, app: str, ask: _Ask) -> dict[str, list[str]]:
        """Guild ids by application: of this one, of all in its namespace, or of all in the cluster."""
        user, seen = snowflake(ask.user_id, "user_id"), self._apps()
        match ask.scope:
            case "app":
                names = [app]
            case "namespace":
                names = [name for name, other in seen.items() if other.namespace == seen[app].namespace]
            case "all":
                names = list(seen)
            case _:
                raise RpcError(INVALID, "scope is app, namespace or all")
        return {
            name: await self._cache.in_namespace(seen[name].namespace).mutual_guilds(user, app=name)
            for name in sorted(names)
            if seen[name].caches
        }


def _one(entity: Any, what: str) -> bytes:
    if entity is None:
        raise RpcError(NOT_FOUND, f"this {what.replace('_', ' ')} is not in the cache")
    return msgspec.json.encode(entity.raw)
