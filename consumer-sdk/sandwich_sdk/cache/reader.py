"""`Cache`: guilds and users as the cluster cached them, read from Redis directly.

None means "not cached, or no longer". CacheUnavailable is raised when Redis does not answer. Objects of a guild are
returned only while an application is in that guild, even if Redis still contains some of them.
"""

import copy
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar

from sandwich_sdk.cache import corruption, values
from sandwich_sdk.cache.address import Tls
from sandwich_sdk.cache.connection import Command, Connection
from sandwich_sdk.cache.objects import (
    Channel,
    Emoji,
    Entity,
    Guild,
    Member,
    Message,
    Presence,
    Role,
    ScheduledEvent,
    Sound,
    Stage,
    Sticker,
    Thread,
    User,
    VoiceState,
)
from sandwich_sdk.cache.permission_reader import PermissionReader
from sandwich_sdk.cache.permissions import Permissions
from sandwich_sdk.cache.search import LIMIT_MAX, MemberPage, MemberSearch
from sandwich_sdk.cache.snowflake import snowflake, snowflakes
from sandwich_sdk.wire import cache_keys
from sandwich_sdk.wire.subjects import check_name

E = TypeVar("E", bound=Entity)
Id = str | int
SCAN_PAGE: Final = 1000


class Location(NamedTuple):
    """The shard group and shard that receive a guild's events."""

    group: int
    shard: int


class Cache:
    """Reads one namespace. Use `async with`, or call `close()`. Every method raises CacheUnavailable.

    url           redis://, rediss:// (TLS) or unix://, of one server or of any node of a Redis Cluster
    namespace     by default the application's name; several applications can share one
    username      a Redis ACL user; like the password it may be in the URL instead
    tls           certificates, if the system's do not fit
    timeout       seconds for one request
    scan_timeout  seconds for calls that scan many values in several requests
    connections   concurrent requests; others wait, within their timeout
    """

    def __init__(
        self,
        url: str = "redis://127.0.0.1:6379/0",
        *,
        namespace: str,
        username: str | None = None,
        password: str | None = None,
        tls: Tls | None = None,
        timeout: float = 1.0,
        scan_timeout: float = 30.0,
        connections: int = 32,
    ) -> None:
        """Check the arguments; nothing is connected yet. Raises ValueError."""
        self.namespace = cache_keys.check_namespace(namespace)
        if scan_timeout <= 0:
            raise ValueError("scan_timeout must be positive")
        self._scan_timeout = scan_timeout
        self._connection = Connection(
            url, username=username, password=password, tls=tls, timeout=timeout, connections=connections
        )

    def in_namespace(self, namespace: str) -> Self:
        """The same server's cache of another namespace, over the same connections. Raises ValueError."""
        other = copy.copy(self)
        other.namespace = cache_keys.check_namespace(namespace)
        return other

    async def close(self) -> None:
        """Close the connections, also those of other namespaces made from this one."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"Cache({self._connection.server}, namespace={self.namespace!r})"

    # Locations of guilds

    async def where_is_guild(self, guild: Id, app: str) -> Location | None:
        """The shard that receives a guild's events for an application; None when the application is not in it."""
        key = cache_keys.locations_key(self.namespace, app)
        (value,) = await self._connection.ask(("HGET", key, snowflake(guild, what="guild")))
        return _location(value, key)

    async def guild_ids(self, app: str) -> list[str]:
        """The guilds that an application is in, ordered by id."""
        key = cache_keys.locations_key(self.namespace, app)
        found: set[bytes] = set()
        async with self._connection.within(self._scan_timeout):
            async for page in self._scan(key):
                found.update(page)
        return sorted(snowflakes(found), key=int)

    async def guild_count(self, app: str) -> int:
        """How many guilds an application is in."""
        (count,) = await self._connection.ask(("HLEN", cache_keys.locations_key(self.namespace, app)))
        return int(count or 0)

    async def mutual_guilds(
        self, user: Id, *, app: str | None = None, namespaces: Iterable[str] | None = None
    ) -> list[str]:
        """The ids of the guilds that a user shares with the applications of this namespace, ordered (two requests).

        app         only with this application
        namespaces  with the applications of these namespaces instead
        """
        user_id = snowflake(user, what="user")
        if app is not None:
            check_name(app, what="application")
        names = [self.namespace] if namespaces is None else list(dict.fromkeys(namespaces))
        keys = [cache_keys.mutual_key(name, user_id) for name in names]
        async with self._connection.within(self._scan_timeout):
            replies = await self._connection.ask(*(("SMEMBERS", key) for key in keys))
            shared = {name: snowflakes(reply) for name, reply in zip(names, replies, strict=True)}
            found = await (self._with_any_app(shared) if app is None else self._with_app(shared, app))
        return sorted(found, key=int)

    async def _with_any_app(self, shared: Mapping[str, list[str]]) -> set[str]:
        """Only guilds that an application is in: after the last one left, members are deleted one by one."""
        pairs = [(name, guild) for name, guilds in shared.items() for guild in guilds]
        present = await self._connection.exists_each([cache_keys.apps_key(name, guild) for name, guild in pairs])
        return {guild for (_, guild), is_present in zip(pairs, present, strict=True) if is_present}

    async def _with_app(self, shared: Mapping[str, list[str]], app: str) -> set[str]:
        asked = {cache_keys.locations_key(name, app): guilds for name, guilds in shared.items() if guilds}
        replies = await self._connection.ask(*(("HMGET", key, *guilds) for key, guilds in asked.items()))
        pairs = zip(asked.values(), replies, strict=True)
        return {guild for guilds, reply in pairs for guild, at in zip(guilds, reply or (), strict=False) if at}

    # A guild and its collections

    async def guild(self, guild: Id) -> Guild | None:
        """The guild without its collections."""
        key = cache_keys.guild_key(self.namespace, snowflake(guild, what="guild"))
        replies = await self._of_guild(guild, ("GET", key))
        return values.entity(Guild, replies[0], key=key) if replies else None

    async def guilds(self, ids: Iterable[Id]) -> list[Guild]:
        """Those of these guilds that are cached, in the order of `ids`; at most 1000."""
        wanted = _check_ids(ids, what="guild")
        keys = [cache_keys.guild_key(self.namespace, guild) for guild in wanted]
        found = await self._connection.get_each(keys)
        present = await self._connection.exists_each([cache_keys.apps_key(self.namespace, guild) for guild in wanted])
        built = (values.entity(Guild, value, key=key) for key, value in zip(keys, found, strict=True))
        return [one for one, is_present in zip(built, present, strict=True) if one is not None and is_present]

    async def guild_apps(self, guild: Id) -> frozenset[str]:
        """The applications of this namespace that are in a guild; empty when none is."""
        key = cache_keys.apps_key(self.namespace, snowflake(guild, what="guild"))
        (apps,) = await self._connection.ask(("SMEMBERS", key))
        return frozenset(app.decode("ascii", "replace") for app in apps or ())

    async def sizes(self, guild: Id) -> dict[str, int] | None:
        """How many channels, roles, members ... of a guild are cached, by the collection's name in the cache."""
        keys = [self._collection_key(guild, name) for name in cache_keys.COLLECTIONS]
        replies = await self._of_guild(guild, *(("HLEN", key) for key in keys))
        return dict(zip(cache_keys.COLLECTIONS, (int(n or 0) for n in replies), strict=False)) if replies else None

    async def channel(self, guild: Id, channel: Id) -> Channel | None:
        """A channel or category; for threads use `thread`."""
        return await self._one(Channel, guild, cache_keys.CHANNELS, channel)

    async def channels(self, guild: Id) -> list[Channel]:
        """The channels and categories, in the order of their positions."""
        return sorted(await self._all(Channel, guild, cache_keys.CHANNELS), key=lambda one: one.position)

    async def thread(self, guild: Id, thread: Id) -> Thread | None:
        """An active thread."""
        return await self._one(Thread, guild, cache_keys.THREADS, thread)

    async def threads(self, guild: Id) -> list[Thread]:
        """The active threads that the bot can see."""
        return await self._all(Thread, guild, cache_keys.THREADS)

    async def role(self, guild: Id, role: Id) -> Role | None:
        """A role; @everyone has the guild's id."""
        return await self._one(Role, guild, cache_keys.ROLES, role)

    async def roles(self, guild: Id) -> list[Role]:
        """The roles, @everyone first."""
        return sorted(await self._all(Role, guild, cache_keys.ROLES), key=lambda one: one.position)

    async def emoji(self, guild: Id, emoji: Id) -> Emoji | None:
        """A guild's own emoji."""
        return await self._one(Emoji, guild, cache_keys.EMOJIS, emoji)

    async def emojis(self, guild: Id) -> list[Emoji]:
        """A guild's own emojis."""
        return await self._all(Emoji, guild, cache_keys.EMOJIS)

    async def sticker(self, guild: Id, sticker: Id) -> Sticker | None:
        """A guild's own sticker."""
        return await self._one(Sticker, guild, cache_keys.STICKERS, sticker)

    async def stickers(self, guild: Id) -> list[Sticker]:
        """A guild's own stickers."""
        return await self._all(Sticker, guild, cache_keys.STICKERS)

    async def voice_state(self, guild: Id, user: Id) -> VoiceState | None:
        """A member's voice state; None when in no voice channel."""
        return await self._one(VoiceState, guild, cache_keys.VOICE, user)

    async def voice_states(self, guild: Id) -> list[VoiceState]:
        """The voice states of all users in a voice or stage channel."""
        return await self._all(VoiceState, guild, cache_keys.VOICE)

    async def presence(self, guild: Id, user: Id) -> Presence | None:
        """A member's presence; None when offline, or when presences are not cached."""
        return await self._one(Presence, guild, cache_keys.PRESENCES, user)

    async def scheduled_event(self, guild: Id, event: Id) -> ScheduledEvent | None:
        """A scheduled event."""
        return await self._one(ScheduledEvent, guild, cache_keys.EVENTS, event)

    async def scheduled_events(self, guild: Id) -> list[ScheduledEvent]:
        """The scheduled events."""
        return await self._all(ScheduledEvent, guild, cache_keys.EVENTS)

    async def stages(self, guild: Id) -> list[Stage]:
        """The stages that are live."""
        return await self._all(Stage, guild, cache_keys.STAGES)

    async def sounds(self, guild: Id) -> list[Sound]:
        """The sounds of the guild's soundboard."""
        return await self._all(Sound, guild, cache_keys.SOUNDS)

    async def message(self, guild: Id, channel: Id, message: Id) -> Message | None:
        """A message of a channel or thread; None also when it has expired."""
        key = cache_keys.messages_key(
            self.namespace, snowflake(guild, what="guild"), snowflake(channel, what="channel")
        )
        replies = await self._of_guild(guild, ("HGET", key, snowflake(message, what="message")))
        return values.entity(Message, replies[0], key=key) if replies else None

    async def messages(self, guild: Id, channel: Id, *, limit: int = 50) -> list[Message]:
        """The latest messages of a channel or thread, newest first; at most 1000."""
        where = (self.namespace, snowflake(guild, what="guild"), snowflake(channel, what="channel"))
        _check_limit(limit)
        order, key = cache_keys.message_order_key(*where), cache_keys.messages_key(*where)
        replies = await self._of_guild(guild, ("ZREVRANGE", order, 0, limit - 1))
        if not replies or not replies[0]:
            return []
        replies = await self._of_guild(guild, ("HMGET", key, *replies[0]))
        found = (values.entity(Message, value, key=key) for value in (replies and replies[0]) or ())
        return [message for message in found if message is not None]

    # Users and members

    async def user(self, user: Id) -> User | None:
        """A user who shares a guild with an application of the namespace."""
        key = cache_keys.user_key(self.namespace, snowflake(user, what="user"))
        (value,) = await self._connection.ask(("GET", key))
        return values.entity(User, value, key=key)

    async def member(self, guild: Id, user: Id) -> Member | None:
        """A member, with the user."""
        user_id = snowflake(user, what="user")
        key, user_key = self._collection_key(guild, cache_keys.MEMBERS), cache_keys.user_key(self.namespace, user_id)
        replies = await self._of_guild(guild, ("HGET", key, user_id), ("GET", user_key))
        found = values.member(snowflake(guild), user_id, replies[0], key=key) if replies else None
        return values.with_user(found, replies[1], key=user_key) if replies and found is not None else None

    async def members(
        self, guild: Id, *, ids: Iterable[Id] | None = None, query: str | None = None, limit: int = 100
    ) -> MemberPage:
        """Members by ids (at most 1000), or up to `limit` (1 to 1000), all or those whose name begins with `query`.

        A query scans at most 50,000 members; `complete` is False if that, or the limit, was reached.
        """
        search = MemberSearch(self._connection, self.namespace, snowflake(guild, what="guild"))
        if ids is not None and query is not None:
            raise ValueError("give either ids or query")
        _check_limit(limit)
        wanted = None if ids is None else _check_ids(ids, what="user")
        async with self._connection.within(self._scan_timeout):
            return await (search.by_name(query or "", limit) if wanted is None else search.by_ids(wanted))

    async def permissions(
        self, guild: Id, user: Id, channel: Id | None = None, *, now: datetime | None = None
    ) -> Permissions | None:
        """A member's permissions in a guild, or in a channel or thread of it, as Discord documents it.

        None when they are unknown: the guild, the member, the channel, a thread's parent or the @everyone role is not
        cached, or Discord hid the channel's overwrites from the bot. A role that is not cached adds no permissions.
        Invitations to private threads are not considered. `now` is compared with the end of time-outs.
        """
        reader = PermissionReader(self._connection, self.namespace, snowflake(guild, what="guild"))
        channel_id = None if channel is None else snowflake(channel, what="channel")
        return await reader.of(snowflake(user, what="user"), channel_id, now or datetime.now(UTC))

    # Requests

    def _collection_key(self, guild: Id, collection: str) -> str:
        return cache_keys.collection_key(self.namespace, snowflake(guild, what="guild"), collection)

    async def _of_guild(self, guild: Id, *commands: Command) -> list[Any] | None:
        """The replies; None when no application is in the guild. That is read last, so it covers the other replies."""
        apps = cache_keys.apps_key(self.namespace, snowflake(guild, what="guild"))
        replies = await self._connection.ask(*commands, ("EXISTS", apps))
        return replies[:-1] if replies[-1] else None

    async def _one(self, kind: type[E], guild: Id, collection: str, wanted: Id) -> E | None:
        key = self._collection_key(guild, collection)
        replies = await self._of_guild(guild, ("HGET", key, snowflake(wanted)))
        return values.entity(kind, replies[0], key=key) if replies else None

    async def _all(self, kind: type[E], guild: Id, collection: str) -> list[E]:
        key = self._collection_key(guild, collection)
        replies = await self._of_guild(guild, ("HGETALL", key))
        return values.entities(kind, replies[0], key=key) if replies else []

    async def _scan(self, key: str) -> AsyncIterator[dict[bytes, bytes]]:
        """The pages of a hash. A field that exists during the whole scan is returned at least once."""
        cursor = 0
        while True:
            (reply,) = await self._connection.ask(("HSCAN", key, cursor, "COUNT", SCAN_PAGE))
            if reply is None:
                return
            cursor = int(reply[0])
            yield reply[1]
            if not cursor:
                return


def _location(value: bytes | None, key: str) -> Location | None:
    try:
        return Location(*cache_keys.parse_location(value)) if value is not None else None
    except ValueError:
        corruption.report(key, "a value that is not <group>:<shard>")
        return None


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= LIMIT_MAX:
        raise ValueError(f"limit must be 1 to {LIMIT_MAX}")


def _check_ids(ids: Iterable[Id], *, what: str) -> list[str]:
    wanted = list(dict.fromkeys(snowflake(one, what=what) for one in ids))
    if len(wanted) > LIMIT_MAX:
        raise ValueError(f"at most {LIMIT_MAX} ids")
    return wanted
