"""Small random stories for the cache: few guilds, users and channels, one or two applications, with faults."""

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_coordinator.intents import ALL, INTENTS
from sandwich_coordinator.types import CacheSpec
from sandwich_node.cache import group_switch
from sandwich_node.cache.batch import Batch, EventOps
from sandwich_node.cache.group_switch import PreviousShard, PreviousShards
from sandwich_node.cache.handover_drain import Standing
from sandwich_node.cache.operations import Translator
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.cache.replies import Applied
from sandwich_node.cache.settings import CacheWriter
from tests.support.cache_model import CacheModel, in_order
from tests.support.cache_visibility import Json

GUILDS = ("100", "101")
USERS = ("1", "2", "3", "9007199254740993")
BOTS = {"a": "8", "b": "9"}
KEEP = 2
KINDS = (
    *("CHANNEL_CREATE", "CHANNEL_UPDATE", "CHANNEL_DELETE", "CHANNEL_PINS_UPDATE", "VOICE_CHANNEL_STATUS_UPDATE"),
    *("THREAD_CREATE", "THREAD_UPDATE", "THREAD_DELETE", "THREAD_LIST_SYNC", "THREAD_MEMBER_UPDATE"),
    *("THREAD_MEMBERS_UPDATE", "GUILD_ROLE_CREATE", "GUILD_ROLE_UPDATE", "GUILD_ROLE_DELETE", "GUILD_EMOJIS_UPDATE"),
    *("GUILD_STICKERS_UPDATE", "GUILD_SOUNDBOARD_SOUND_CREATE", "GUILD_SOUNDBOARD_SOUND_UPDATE"),
    *("GUILD_SOUNDBOARD_SOUND_DELETE", "STAGE_INSTANCE_CREATE", "STAGE_INSTANCE_UPDATE", "STAGE_INSTANCE_DELETE"),
    *("GUILD_SCHEDULED_EVENT_CREATE", "GUILD_SCHEDULED_EVENT_UPDATE", "GUILD_SCHEDULED_EVENT_DELETE"),
    *("GUILD_SCHEDULED_EVENT_USER_ADD", "GUILD_MEMBER_ADD", "GUILD_MEMBER_UPDATE", "GUILD_MEMBER_REMOVE"),
    *("GUILD_MEMBERS_CHUNK", "PRESENCE_UPDATE", "VOICE_STATE_UPDATE", "USER_UPDATE", "MESSAGE_CREATE"),
    *("MESSAGE_UPDATE", "MESSAGE_DELETE", "GUILD_CREATE", "GUILD_UPDATE", "GUILD_DELETE", "OUTAGE", "JOIN"),
)
_MEMBER_EVENTS = ("GUILD_MEMBER_ADD", "GUILD_MEMBER_UPDATE", "GUILD_MEMBER_REMOVE", "GUILD_MEMBERS_CHUNK")
_FIRST_MESSAGE_MS = int(time.time() * 1000) - 60_000 - 1_420_070_400_000


def user(user_id: str, v: int) -> Json:
    return {"username": f"u{v}", "id": user_id, "tags": [], "big": 12345678901234567890}


class Maker:
    """Makes the `d` of an event from small numbers; equal numbers make equal events."""

    def __init__(self, bot: str) -> None:
        self.bot = bot
        self.serial = 0

    def member(self, user_id: str, v: int) -> Json:
        return {
            "roles": [[], ["40"], ["41", "40", "42"]][v],
            "user": user(user_id, v),
            "nick": None if v else 'a"}{\\',
            "flags": v,
        }

    def channel(self, n: int, v: int) -> Json:
        made: Json = {"id": f"2{n % 3}", "type": (0, 2, 15)[n % 3], "topic": f'ü{{"{v}', "permission_overwrites": []}
        if (n + v) % 4 == 3:
            # This bot may not view it.
            return made | {"topic": None, "flags": 1 << 17 | 16}
        return made | ({"last_message_id": None} if v == 2 else {"flags": 16})

    def thread(self, n: int, v: int) -> Json:
        archived = {"archived": False, "x": 1.50}
        kind, parent = (11, 12, 11)[n % 3], f"2{(n + v) % 3}"
        made: Json = {"id": f"3{n % 3}", "type": kind, "parent_id": parent, "thread_metadata": archived}
        return made | ({"message_count": v, "total_message_sent": v, "member_count": n} if v else {})

    def item(self, prefix: str, n: int, v: int) -> Json:
        return {"id": f"{prefix}{n % 3}", "name": f"n{v}"}

    def scheduled(self, n: int, v: int) -> Json:
        """A scheduled event: in a voice channel or elsewhere, planned or sometimes ended."""
        where = {"channel_id": ("21", None)[n % 2], "status": (1, 2, 1, 2, 3, 1, 4)[(n + v) % 7]}
        return self.item("80", n, v) | where

    def guild(self, guild: str, n: int, v: int) -> Json:
        """GUILD_CREATE."""
        people = USERS[: 1 + n % 4]
        lists: Json = {
            "roles": [self.item("4", m, v) for m in range(n % 3)],
            "emojis": [self.item("5", m, v) for m in range(v)],
            "stickers": [self.item("6", m, v) for m in range(n % 2)],
            "channels": [self.channel(m, v) for m in range(n % 4)],
            "threads": [self.thread(m, v) for m in range(v)],
            "members": [self.member(person, v) for person in (*people, self.bot)],
            "presences": [{"user": {"id": person}, "status": ("online", "offline")[v % 2]} for person in people],
            "voice_states": [{"user_id": person, "channel_id": None if n % 4 == 3 else "21"} for person in people[:v]],
            "stage_instances": [self.item("70", m, v) | {"channel_id": "21"} for m in range(v % 2)],
            "guild_scheduled_events": [self.scheduled(m, n) | {"user_count": 0} for m in range(v)],
            "soundboard_sounds": [{"sound_id": f"90{m}", "guild_id": guild} for m in range(v)],
        }
        return {"id": guild, "name": f"g{v}", "features": [], "member_count": 10 + n} | lists

    def make(self, kind: str, guild: str, n: int, v: int) -> Json:
        """The event's `d`. `kind` may also be OUTAGE (a GUILD_DELETE) or JOIN (a GUILD_CREATE)."""
        who, at = USERS[n % 4], {"guild_id": guild}
        thread, channel, place = self.thread(n, v) | at, self.channel(n, v) | at, f"{2 + n % 2}{n % 3}"
        self.serial += 1
        seen = {"nick": f"seen {self.serial}", "roles": []}
        match kind:
            case "CHANNEL_CREATE" | "CHANNEL_UPDATE" | "CHANNEL_DELETE":
                return channel
            case "CHANNEL_PINS_UPDATE":
                return {"channel_id": place, "last_pin_timestamp": None if v else "t"} | at
            case "VOICE_CHANNEL_STATUS_UPDATE":
                return {"id": "21", "status": f"s{v}"} | at
            case "THREAD_CREATE":
                return ({"newly_created": True} if v else {}) | thread
            case "THREAD_UPDATE":
                return thread | {"thread_metadata": {"archived": n > 8}}
            case "THREAD_DELETE":
                return {"id": thread["id"], "parent_id": thread["parent_id"], "type": thread["type"]} | at
            case "THREAD_LIST_SYNC":
                named = {"channel_ids": [f"2{n % 3}"]} if v else {}
                mine = [{"id": "30", "user_id": self.bot, "flags": v}]
                return {"threads": [self.thread(m, v) | at for m in range(v)], "members": mine} | named | at
            case "THREAD_MEMBER_UPDATE":
                return {"id": thread["id"], "user_id": self.bot, "flags": v} | at
            case "THREAD_MEMBERS_UPDATE":
                moved = {"added_members": [{"user_id": self.bot, "flags": v}]} if n % 2 else {}
                return {"id": thread["id"], "member_count": v, "removed_member_ids": [self.bot] * v} | moved | at
            case "GUILD_ROLE_CREATE" | "GUILD_ROLE_UPDATE":
                return {"role": self.item("4", n, v)} | at
            case "GUILD_ROLE_DELETE":
                return {"role_id": f"4{n % 3}"} | at
            case "GUILD_EMOJIS_UPDATE":
                return {"emojis": [self.item("5", m, v) for m in range(n % 3)]} | at
            case "GUILD_STICKERS_UPDATE":
                return {"stickers": [self.item("6", m, v) for m in range(n % 3)]} | at
            case "STAGE_INSTANCE_CREATE" | "STAGE_INSTANCE_UPDATE" | "STAGE_INSTANCE_DELETE":
                return self.item("70", n, v) | {"channel_id": "21"} | at
            case "GUILD_MEMBER_ADD" | "GUILD_MEMBER_UPDATE":
                return self.member(who, v) | at
            case "GUILD_MEMBER_REMOVE":
                return {"user": user(who, v)} | at
            case "GUILD_MEMBERS_CHUNK":
                return {"members": [self.member(person, v) for person in USERS[n % 4 :]]} | at
            case "PRESENCE_UPDATE":
                full: Json = {"status": ("online", "idle", "offline")[v], "activities": [], "client_status": {}}
                renamed = {"username": f"p{n}"} if n > 6 else {}
                shown = full if n % 2 else {"status": "dnd"}
                return {"user": {"id": who} | renamed} | shown | at
            case "VOICE_STATE_UPDATE":
                member = {"member": {"user": user(who, v)} | seen}
                return {"user_id": who, "channel_id": "21" if v else None, "mute": n > 5} | member | at
            case "USER_UPDATE":
                return user(self.bot, v)
            case "MESSAGE_CREATE" | "MESSAGE_UPDATE" | "MESSAGE_DELETE":
                made = {"id": str((_FIRST_MESSAGE_MS + n) << 22), "channel_id": place} | at
                if kind == "MESSAGE_DELETE":
                    # A post's first message has the thread's id.
                    return made | ({"id": place} if v == 2 else {})
                if kind == "MESSAGE_UPDATE" and v == 2:
                    return made | {"embeds": [{"n": n}]}
                return made | {"content": f"c{v}", "author": user(who, v), "member": seen}
            case "GUILD_CREATE":
                return (
                    {"id": guild, "unavailable": True} if n == 9 else self.guild(guild, n, v) | {"unavailable": False}
                )
            case "JOIN":
                return self.guild(guild, n, v)
            case "GUILD_UPDATE":
                lists = {"roles": [self.item("4", n, v)], "emojis": [], "stickers": []}
                return {"id": guild, "name": f"u{v}", "features": []} | lists
            case "GUILD_DELETE":
                return {"id": guild}
            case "OUTAGE":
                return {"id": guild, "unavailable": True}
        if "SOUND" in kind:
            return {"sound_id": f"90{n % 3}", "name": f"n{v}"} | at
        if kind.endswith("USER_ADD"):
            return {"guild_scheduled_event_id": f"80{n % 3}", "user_id": who} | at
        return self.scheduled(n, v) | ({"user_count": v} if v else {}) | at


@dataclass
class Application:
    """One application with its shard's events for cache and model."""

    writer: CacheWriter
    maker: Maker
    session: str = "s0"
    sessions: int = 0
    seq: int = 0
    confirmed: int = 0
    replaced: CacheWriter | None = None
    queue: list[tuple[int, str, Json]] = field(default_factory=list)
    applied: list[tuple[int, str, Json]] = field(default_factory=list)
    translator: Translator = field(init=False)

    def __post_init__(self) -> None:
        self.translator = Translator(self.writer)


class Story:
    """Sends the same events to the cache and to the model, and compares their answers."""

    def __init__(self, cache: RedisCache, *, namespace: str, b_knows_members: bool = True) -> None:
        self.cache = cache
        self.model = CacheModel()
        settings = CacheSpec(namespace=namespace, presences=True, messages_per_channel=KEEP)
        intents = {"a": ALL, "b": ALL}
        if not b_knows_members:
            intents["b"] &= ~(INTENTS["GUILD_MEMBERS"] | INTENTS["GUILD_PRESENCES"])
        self.applications = {
            app: Application(
                CacheWriter(shard=ShardId(app, 0, 0), fence=Fence(1), bot=bot, intents=intents[app], settings=settings),
                Maker(bot),
            )
            for app, bot in BOTS.items()
        }

    def act(self, app: str, kind: str, guild: int, n: int, v: int) -> None:
        """An action with an event for this application."""
        application = self.applications[app]
        if kind in _MEMBER_EVENTS and not application.writer.receives_members:
            return
        if kind == "PRESENCE_UPDATE" and not application.writer.intents & INTENTS["GUILD_PRESENCES"]:
            return
        data = application.maker.make(kind, GUILDS[guild], n, v)
        name = {"OUTAGE": "GUILD_DELETE", "JOIN": "GUILD_CREATE"}.get(kind, kind)
        self.send(app, name, data)

    def send(self, app: str, name: str, data: Json) -> None:
        """An event of this application's session."""
        application = self.applications[app]
        application.seq += 1
        application.queue.append((application.seq, name, data))

    async def new_session(self, app: str, guilds: list[int]) -> None:
        """IDENTIFY and READY, after all events of the old session."""
        await self.flush(app, 10_000)
        application = self.applications[app]
        application.sessions += 1
        application.session, application.seq, application.confirmed = f"s{application.sessions}", 0, 0
        application.applied.clear()
        listed = [{"id": GUILDS[guild], "unavailable": True} for guild in sorted(set(guilds))]
        self.send(app, "READY", {"user": user(application.writer.bot, 0), "guilds": listed})
        for guild in sorted(set(guilds)):
            data = application.maker.guild(GUILDS[guild], application.sessions, guild)
            self.send(app, "GUILD_CREATE", data | {"unavailable": False})

    def crash(self, app: str) -> None:
        """The owner dies; another one resumes from the last confirmed event."""
        application = self.applications[app]
        application.writer = replace(application.writer, fence=Fence(application.writer.fence + 1))
        application.translator = Translator(application.writer)
        application.queue = application.applied + application.queue
        application.applied = []

    def confirm(self, app: str) -> None:
        """The frames of all applied events are in the stream."""
        application = self.applications[app]
        if application.applied:
            application.confirmed = application.applied[-1][0]
            application.applied = []

    async def flush(self, app: str, count: int) -> None:
        """Apply the next events to cache and model, and compare."""
        application = self.applications[app]
        events, application.queue = application.queue[:count], application.queue[count:]
        application.applied += events
        await self._apply(application, application.writer, application.translator, events)

    async def flush_together(self, first: str, count: int) -> None:
        """As `flush` for both applications: on a single server in one call, whose parts do not depend on each other."""
        apps = sorted(self.applications, key=lambda app: app != first)
        if self.cache.is_cluster:
            for app in apps:
                await self.flush(app, count)
        else:
            await asyncio.gather(*(self.flush(app, count) for app in apps))

    async def old_owner_writes(self, app: str) -> None:
        """An old owner that was replaced applies the next event."""
        application = self.applications[app]
        if application.writer.fence > 1 and application.queue:
            old = replace(application.writer, fence=Fence(application.writer.fence - 1))
            await self._apply(application, old, Translator(old), application.queue[:1])

    async def switch(self, app: str) -> None:
        """The application's next group takes over, in the middle of a session of its own."""
        await self.flush(app, 10_000)
        application = self.applications[app]
        old = application.replaced = application.writer
        shard = ShardId(app, old.shard.group + 1, 0)
        application.writer = replace(old, shard=shard, fence=Fence(old.fence + 1))
        application.translator = Translator(application.writer)
        application.sessions += 1
        application.session, application.seq, application.confirmed = f"s{application.sessions}", 500, 500
        application.applied.clear()
        before = PreviousShards(
            group=old.shard.group,
            count=1,
            own_count=1,
            shards=(PreviousShard(shard=0, end=Standing("", 0), behind=False, fence=old.fence),),
            session=application.session,
            seq=500,
            guilds=frozenset(GUILDS),
        )
        await group_switch.take_over(self.cache, before, application.writer)
        self.model.switch(old, application.writer, application.session, 500)

    async def replaced_group_writes(self, app: str) -> None:
        """The owner of the group before applies the next event."""
        application = self.applications[app]
        old = application.replaced
        if old is not None and application.queue:
            await self._apply(application, old, Translator(old), application.queue[:1])

    async def release(self, app: str) -> None:
        """Remove the shard's group."""
        await self.flush(app, 10_000)
        writer = self.applications[app].writer
        await self.cache.release(writer)
        self.model.release(writer)
        self.confirm(app)

    async def _apply(
        self, application: Application, writer: CacheWriter, translator: Translator, events: list[tuple[int, str, Json]]
    ) -> None:
        translated = [(event, translator.translate(event[1], msgspec.json.encode(event[2]))) for event in events]
        sent = [event for event, ops in translated if ops]
        if not sent:
            return
        made = tuple(EventOps(event[0], ops, 100) for event, ops in translated if ops)
        batch = Batch(writer=writer, session=application.session, confirmed=application.confirmed, events=made)
        applied = await self.cache.apply(batch)
        wanted = self.model.apply(writer, application.session, sent)
        assert (applied.failed, applied.failure, applied.damaged) == (0, "", 0)
        assert (applied.newer > 0) == (wanted is None)
        if wanted is not None:
            assert shown(applied) == {seq: plain(extra) for seq, extra in wanted.items()}


def shown(applied: Applied) -> dict[int, Any]:
    """The cache's answers as objects."""
    found = {}
    for seq, extra in applied.extras.items():
        found[seq] = plain(msgspec.json.decode(b"{%b}" % extra.fields()))
    return found


def plain(extra: Json) -> Json:
    """Lists sorted, numbers as decoded from JSON."""
    made: Json = msgspec.json.decode(msgspec.json.encode(extra))
    if isinstance(made.get("before"), list):
        made["before"] = in_order(made["before"])
    return made
