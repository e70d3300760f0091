"""The authoritative state of one bot's guilds. Seeded, deterministic, no I/O.

A guild is built when first looked at and is then remembered; `World.peek` builds one without remembering it, so that a
backfill of thousands of guilds does not hold thousands of guilds. Collections are keyed by id and hold the very JSON
that the gateway sends, so a cache can be compared with them entity by entity.
"""

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from . import entities, intents
from .config import BotConfig
from .entities import Json
from .snowflakes import DISCORD_EPOCH_MS, LOW_BITS, shard_of, snowflake

GUILD_EPOCH_MS = 1_700_000_000_000
PEOPLE_EPOCH_MS = 1_600_000_000_000
LARGE_MEMBERS_MAX = 75_000  # above this GUILD_CREATE carries no member list at all
MESSAGES_KEPT = 32
GUILDS_PER_SHARD_MAX = 2500
GUILDS_PER_PERSON = 4


@dataclass(slots=True)
class GuildState:
    """One guild: `base` is the guild object without collections; the rest are maps from id to JSON."""

    base: Json
    roles: dict[str, Json] = field(default_factory=dict)
    emojis: dict[str, Json] = field(default_factory=dict)
    stickers: dict[str, Json] = field(default_factory=dict)
    channels: dict[str, Json] = field(default_factory=dict)
    threads: dict[str, Json] = field(default_factory=dict)
    members: dict[str, Json] = field(default_factory=dict)
    voice_states: dict[str, Json] = field(default_factory=dict)
    presences: dict[str, Json] = field(default_factory=dict)
    events: dict[str, Json] = field(default_factory=dict)
    stages: dict[str, Json] = field(default_factory=dict)
    sounds: dict[str, Json] = field(default_factory=dict)
    invites: dict[str, Json] = field(default_factory=dict)
    messages: deque[Json] = field(default_factory=lambda: deque(maxlen=MESSAGES_KEPT))
    unavailable: bool = False

    @property
    def id(self) -> str:
        """The guild's id."""
        return str(self.base["id"])

    def channels_of(self, *kinds: int) -> list[str]:
        """Ids of the channels of these types."""
        return [key for key, channel in self.channels.items() if channel["type"] in kinds]

    def as_json(self) -> Json:
        """The whole state, as the control API shows it."""
        names = "roles emojis stickers channels threads members voice_states presences events stages sounds invites"
        return {
            "guild": self.base,
            **{name: getattr(self, name) for name in names.split()},
            "messages": list(self.messages),
            "unavailable": self.unavailable,
        }


class World:
    """All guilds of one bot."""

    def __init__(self, bot: BotConfig, seed: int) -> None:
        self._config = bot
        self._seed = f"{seed if bot.seed is None else bot.seed}:{bot.id}"
        self._people: dict[int, Json] = {}
        self._guilds: dict[int, GuildState] = {}
        self._next_low = 0
        rng = self.rng = random.Random(self._seed)
        self._offset_ms = rng.randrange(10_000_000)
        self.me: Json = entities.user(rng, bot.id) | {"username": bot.name, "global_name": None, "bot": True}
        self.people_count = max(50, bot.guilds * bot.members_per_guild // GUILDS_PER_PERSON, bot.members_per_guild * 2)
        self.guild_ids: dict[int, int] = {}
        """Guild id to the number its content is seeded with, in the order of joining."""
        for number in range(bot.guilds):
            self.guild_ids[self._guild_id(number)] = number
        self._by_moment = {guild_id >> LOW_BITS: guild_id for guild_id in self.guild_ids}
        self._next_number = bot.guilds

    def _guild_id(self, number: int) -> int:
        return snowflake(GUILD_EPOCH_MS + self._offset_ms + number, number * 7919 + 4242)

    def person(self, number: int) -> Json:
        """A user of the pool that all guilds share; the same object wherever it is seen."""
        found = self._people.get(number)
        if found is None:
            rng = random.Random(f"{self._seed}:person:{number}")
            user_id = str(snowflake(PEOPLE_EPOCH_MS + self._offset_ms + number * 1000, number))
            found = self._people[number] = entities.user(rng, user_id)
        return found

    def new_id(self, wall_ms: int) -> str:
        """A fresh id of this moment."""
        self._next_low += 1
        return str(snowflake(wall_ms, self._next_low))

    def has_guild(self, guild_id: int) -> bool:
        """Whether the bot is in this guild."""
        return guild_id in self.guild_ids

    def guild(self, guild_id: int) -> GuildState:
        """The guild, remembered from now on. KeyError when the bot is not in it."""
        found = self._guilds.get(guild_id)
        if found is None:
            found = self._guilds[guild_id] = self._build(guild_id)
        return found

    def peek(self, guild_id: int) -> GuildState:
        """The guild as it is now, for reading only. KeyError when the bot is not in it."""
        return self._guilds.get(guild_id) or self._build(guild_id)

    def is_unavailable(self, guild_id: int) -> bool:
        """Whether the guild is in an outage; cheap, builds nothing."""
        found = self._guilds.get(guild_id)
        return found is not None and found.unavailable

    def known_guilds(self) -> Iterator[GuildState]:
        """The guilds that somebody has looked at."""
        return iter(self._guilds.values())

    def guilds_of_shard(self, shard: int, count: int) -> list[int]:
        """Ids of the guilds whose events go to this shard."""
        return [guild_id for guild_id in self.guild_ids if shard_of(guild_id, count) == shard]

    def guild_state(self, guild_id: int) -> Json:
        """The guild's whole state as JSON, to compare a cache with. KeyError when the bot is not in it."""
        return self.peek(guild_id).as_json()

    def join_guild(self) -> GuildState:
        """The bot is added to a new guild."""
        guild_id = self._guild_id(self._next_number)
        self.guild_ids[guild_id] = self._next_number
        self._by_moment[guild_id >> LOW_BITS] = guild_id
        self._next_number += 1
        return self.guild(guild_id)

    def guild_of_channel(self, channel_id: str) -> GuildState | None:
        """The guild of a channel or thread. Channels made with a guild carry its moment; others are searched for."""
        if not channel_id.isdecimal():
            return None
        moment = int(channel_id) >> LOW_BITS
        near = self._by_moment.get(moment)
        guilds = [self.guild(near)] if near is not None and near in self.guild_ids else []
        places = (g for g in (*guilds, *self._guilds.values()) if channel_id in g.channels or channel_id in g.threads)
        return next(places, None)

    @property
    def has_surplus_guilds(self) -> bool:
        """Whether the bot is in more guilds than it was configured with."""
        return len(self.guild_ids) > self._config.guilds

    def leave_guild(self, guild_id: int) -> None:
        """The bot is removed from a guild."""
        del self.guild_ids[guild_id]
        self._guilds.pop(guild_id, None)

    def _build(self, guild_id: int) -> GuildState:
        number = self.guild_ids[guild_id]
        rng = random.Random(f"{self._seed}:guild:{number}")
        made_ms = (guild_id >> 22) + DISCORD_EPOCH_MS
        builder = _Builder(rng, guild_id, made_ms)
        chosen = rng.sample(range(self.people_count), self._config.members_per_guild - 1)
        return builder.build(self.me, [self.person(person) for person in chosen])


class _Builder:
    """Makes one guild from one seed."""

    def __init__(self, rng: random.Random, guild_id: int, made_ms: int) -> None:
        self._rng = rng
        self._id = str(guild_id)
        self._made_ms = made_ms
        self._low = guild_id & 0x3FFFFF

    def _new_id(self) -> str:
        self._low += 1
        return str(snowflake(self._made_ms, self._low))

    def build(self, me: Json, people: list[Json]) -> GuildState:
        """The guild with all its collections."""
        rng, gid = self._rng, self._id
        owner = people[0]["id"] if people else me["id"]
        guild = GuildState(base=entities.guild(rng, gid, owner, self._made_ms + 1000))
        self._roles(guild)
        self._channels(guild)
        role_ids = [key for key in guild.roles if key != gid][1:]
        guild.members[me["id"]] = entities.member(rng, me, [list(guild.roles)[1]], self._made_ms + 1000)
        for person in people:
            held = sorted(rng.sample(role_ids, rng.randrange(0, len(role_ids) + 1)))
            guild.members[person["id"]] = entities.member(rng, person, held, self._made_ms + 2000)
        guild.base["member_count"] = len(guild.members)
        guild.base["large"] = len(guild.members) > 250
        self._activity(guild, [person["id"] for person in people], owner)
        return guild

    def _roles(self, guild: GuildState) -> None:
        everyone = entities.role(self._rng, self._id, 0, name="@everyone")
        own = entities.role(self._rng, self._new_id(), 1, name="bot", managed=True, permissions=entities.ADMINISTRATOR)
        guild.roles = {everyone["id"]: everyone, own["id"]: own}
        for position in range(2, 6):
            made = entities.role(self._rng, self._new_id(), position)
            guild.roles[made["id"]] = made
        for _ in range(4):
            emoji = entities.emoji(self._rng, self._new_id())
            guild.emojis[emoji["id"]] = emoji
        for _ in range(2):
            sticker = entities.sticker(self._rng, self._new_id(), self._id)
            guild.stickers[sticker["id"]] = sticker
            sound = entities.sound(self._rng, self._new_id(), self._id)
            guild.sounds[sound["sound_id"]] = sound

    def _channels(self, guild: GuildState) -> None:
        kinds = (entities.TEXT, entities.TEXT, entities.TEXT, entities.VOICE, entities.VOICE, entities.STAGE)
        category = entities.channel(self._rng, self._new_id(), entities.CATEGORY, position=0, parent=None)
        guild.channels[category["id"]] = category
        for position, kind in enumerate((*kinds, entities.FORUM)):
            made = entities.channel(self._rng, self._new_id(), kind, position=position, parent=category["id"])
            guild.channels[made["id"]] = made

    def _activity(self, guild: GuildState, people: list[str], owner: str) -> None:
        rng = self._rng
        parents = guild.channels_of(entities.TEXT, entities.FORUM)
        for _ in range(2):
            made = entities.thread(rng, self._new_id(), self._id, rng.choice(parents), owner, self._made_ms + 3000)
            guild.threads[made["id"]] = made
        event = entities.scheduled_event(rng, self._new_id(), self._id, owner, self._made_ms + 10**11)
        guild.events[event["id"]] = event
        stage = guild.channels_of(entities.STAGE)[0]
        if rng.random() < 0.3:
            live = entities.stage_instance(rng, self._new_id(), self._id, stage)
            guild.stages[live["id"]] = live
        for user_id in people:
            if rng.random() < 0.4:
                guild.presences[user_id] = entities.presence(rng, user_id, self._made_ms + 4000)
            if rng.random() < 0.1:
                place = rng.choice(guild.channels_of(entities.VOICE))
                guild.voice_states[user_id] = entities.voice_state(rng, user_id, place)


def guild_create(guild: GuildState, *, bits: int, large_threshold: int, self_id: str, joined: bool) -> Json:
    """GUILD_CREATE as a session with these intents sees it (section 6); `joined` leaves `unavailable` out."""
    members, presences = _visible_people(guild, bits, large_threshold, self_id)
    made: dict[str, Any] = {
        **guild.base,
        "roles": list(guild.roles.values()),
        "emojis": list(guild.emojis.values()),
        "stickers": list(guild.stickers.values()),
        "channels": list(guild.channels.values()),
        "threads": list(guild.threads.values()),
        "members": members,
        "presences": presences,
        "voice_states": list(guild.voice_states.values()),
        "stage_instances": list(guild.stages.values()),
        "guild_scheduled_events": list(guild.events.values()),
        "soundboard_sounds": list(guild.sounds.values()),
    }
    if not joined:
        made["unavailable"] = False
    return made


def _visible_people(guild: GuildState, bits: int, threshold: int, self_id: str) -> tuple[list[Json], list[Json]]:
    count = guild.base["member_count"]
    if not bits & intents.GUILD_PRESENCES or count > LARGE_MEMBERS_MAX:
        return [m for key, m in guild.members.items() if key == self_id or key in guild.voice_states], []
    presences = list(guild.presences.values())
    if count <= threshold:
        return list(guild.members.values()), presences
    shown = [
        m
        for key, m in guild.members.items()
        if key in guild.presences or m["roles"] or m["nick"] or key in guild.voice_states or key == self_id
    ]
    return shown, presences
