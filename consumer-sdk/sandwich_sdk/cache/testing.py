"""Test programs that use the cache without Redis: `FakeCache` is the real `Cache` with its values in dictionaries.

cache = FakeCache(namespace="music")
cache.put_guild({"id": "81384788765712384", "name": "Chess", "members": [{"user": {"id": "80351110224678912"}}]})
assert await cache.mutual_guilds("80351110224678912") == ["81384788765712384"]
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from sandwich_sdk.cache.connection import Command, Connection
from sandwich_sdk.cache.errors import CacheUnavailable
from sandwich_sdk.cache.reader import Cache
from sandwich_sdk.cache.snowflake import snowflake
from sandwich_sdk.wire import cache_keys

Json = Mapping[str, Any]
Layout = dict[str, bytes | set[bytes] | dict[bytes, bytes] | dict[bytes, int]]
"""Keys and their values: a string, a set, a hash or a sorted set."""

LISTS: Final[Mapping[str, str]] = {
    "channels": cache_keys.CHANNELS,
    "threads": cache_keys.THREADS,
    "roles": cache_keys.ROLES,
    "emojis": cache_keys.EMOJIS,
    "stickers": cache_keys.STICKERS,
    "members": cache_keys.MEMBERS,
    "voice_states": cache_keys.VOICE,
    "presences": cache_keys.PRESENCES,
    "guild_scheduled_events": cache_keys.EVENTS,
    "stage_instances": cache_keys.STAGES,
    "soundboard_sounds": cache_keys.SOUNDS,
}
"""Lists of a GUILD_CREATE, and the collections that they are cached in."""


def guild_layout(namespace: str, guild: Json, *, app: str, group: int = 1, shard: int = 0) -> Layout:
    """The cache's keys and values for the guild of a GUILD_CREATE, and for its members. Raises ValueError."""
    guild_id = snowflake(guild["id"], what="guild")
    made: Layout = {
        cache_keys.guild_key(namespace, guild_id): _json(
            {"unavailable": False} | {name: value for name, value in guild.items() if name not in LISTS}
        ),
        cache_keys.apps_key(namespace, guild_id): {app.encode()},
        cache_keys.locations_key(namespace, app): {guild_id.encode(): cache_keys.location(group, shard).encode()},
    }
    for name, collection in LISTS.items():
        items = dict(_stored(guild_id, collection, item) for item in guild.get(name, ()))
        if items:
            made[cache_keys.collection_key(namespace, guild_id, collection)] = items
    for member in guild.get("members", ()):
        user = member["user"]
        made[cache_keys.user_key(namespace, user["id"])] = _json(user)
        made[cache_keys.mutual_key(namespace, user["id"])] = {guild_id.encode()}
    return made


def message_layout(namespace: str, message: Json) -> Layout:
    """The cache's keys and values for a guild's message."""
    where = (namespace, message["guild_id"], message["channel_id"])
    message_id = snowflake(message["id"], what="message")
    return {
        cache_keys.messages_key(*where): {message_id.encode(): _json(message)},
        cache_keys.message_order_key(*where): {message_id.encode(): int(message_id) >> 22},
    }


class FakeCache(Cache):
    """A cache in memory. While `is_away` is True, every read raises CacheUnavailable, as when Redis is down."""

    def __init__(self, *, namespace: str = "app") -> None:
        super().__init__(namespace=namespace)
        self._connection: _Memory = _Memory()

    @property
    def is_away(self) -> bool:
        """Whether reads fail as if Redis were down."""
        return self._connection.is_away

    @is_away.setter
    def is_away(self, value: bool) -> None:
        self._connection.is_away = value

    def put_guild(self, guild: Json, *, app: str | None = None, group: int = 1, shard: int = 0) -> None:
        """Cache a guild for an application, as after GUILD_CREATE. `app` is by default the namespace's name."""
        layout = guild_layout(self.namespace, guild, app=app or self.namespace, group=group, shard=shard)
        apps_key = cache_keys.apps_key(self.namespace, guild["id"])
        others = self._connection.keys.get(apps_key, set())
        self._connection.forget(self.namespace, guild["id"])
        self._connection.put({**layout, apps_key: others | {(app or self.namespace).encode()}})

    def put_message(self, message: Json) -> None:
        """Cache a guild's message, as after MESSAGE_CREATE."""
        self._connection.put(message_layout(self.namespace, message))

    def remove_guild(self, guild: str | int, *, app: str | None = None) -> None:
        """The application leaves the guild; with the last one the guild is deleted."""
        guild_id, name = snowflake(guild, what="guild"), app or self.namespace
        keys = self._connection.keys
        keys.get(cache_keys.locations_key(self.namespace, name), {}).pop(guild_id.encode(), None)
        apps = keys.get(cache_keys.apps_key(self.namespace, guild_id), set())
        apps.discard(name.encode())
        if not apps:
            self._connection.forget(self.namespace, guild_id)


class _Memory(Connection):
    """Answers the commands of `Cache` as Redis does."""

    def __init__(self) -> None:
        super().__init__("redis://memory")
        self.is_away = False
        self.keys: dict[str, Any] = {}

    def put(self, layout: Layout) -> None:
        """Merge into the existing values; a string is replaced."""
        for key, value in layout.items():
            known = self.keys.get(key)
            self.keys[key] = value if known is None or isinstance(value, bytes) else known | value

    def forget(self, namespace: str, guild: str) -> None:
        """Delete a guild and its collections."""
        prefix = cache_keys.guild_prefix(namespace, guild)
        mutual = cache_keys.mutual_key(namespace, 0).partition("{")[0]
        self.keys = {key: value for key, value in self.keys.items() if not key.startswith(prefix)}
        for key, value in self.keys.items():
            if key.startswith(mutual):
                value.discard(guild.encode())

    async def ask(self, *commands: Command) -> list[Any]:
        if self.is_away:
            raise CacheUnavailable(self.server, "no connection", "the server is away")
        return [_COMMANDS[str(name)](self.keys, *map(_text, arguments)) for name, *arguments in commands]

    async def _is_cluster(self) -> bool:
        return False


def _text(value: str | bytes | int) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _zrevrange(keys: dict[str, Any], key: str, start: str, stop: str) -> list[bytes]:
    order: dict[bytes, int] = keys.get(key, {})
    return sorted(order, key=order.__getitem__, reverse=True)[int(start) : int(stop) + 1]


_COMMANDS: Final[Mapping[str, Callable[..., Any]]] = {
    "GET": lambda keys, key: keys.get(key),
    "MGET": lambda keys, *names: [keys.get(key) for key in names],
    "EXISTS": lambda keys, *names: sum(key in keys for key in names),
    "HGET": lambda keys, key, field: keys.get(key, {}).get(field.encode()),
    "HMGET": lambda keys, key, *fields: [keys.get(key, {}).get(field.encode()) for field in fields],
    "HGETALL": lambda keys, key: dict(keys.get(key, {})),
    "HLEN": lambda keys, key: len(keys.get(key, {})),
    "HSCAN": lambda keys, key, *_: (0, dict(keys.get(key, {}))),
    "SMEMBERS": lambda keys, key: set(keys.get(key, ())),
    "ZREVRANGE": _zrevrange,
}


def _stored(guild: str, collection: str, item: Json) -> tuple[bytes, bytes]:
    """(field, value) of one item of a list."""
    if collection in (cache_keys.MEMBERS, cache_keys.PRESENCES):
        user = item["user"]["id"]
        return user.encode(), _json({**item, "user": {"id": user}})
    if collection == cache_keys.VOICE:
        state = {name: value for name, value in item.items() if name != "member"}
        return item["user_id"].encode(), _json({**state, "guild_id": guild})
    if collection in (cache_keys.CHANNELS, cache_keys.THREADS):
        return item["id"].encode(), _json({**item, "guild_id": guild})
    return item["sound_id" if collection == cache_keys.SOUNDS else "id"].encode(), _json(item)


def _json(value: Json) -> bytes:
    return msgspec.json.encode(value)
