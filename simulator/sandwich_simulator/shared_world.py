"""The part of a world that its bots share: guilds and users. Seeded, deterministic, no I/O.

A guild is built at its first use and then kept. `peek` builds a guild without keeping it, so that a backfill does not
hold thousands of guilds in memory. Each bot's `World` says which guilds the bot is in.
"""

import random
from collections import deque
from typing import TYPE_CHECKING

from . import entities
from .building import Builder
from .config import BotConfig
from .entities import Json
from .guild_state import GuildState
from .snowflakes import DISCORD_EPOCH_MS, LOW_BITS, snowflake

if TYPE_CHECKING:
    from .world import World

GUILD_EPOCH_MS = 1_700_000_000_000
PEOPLE_EPOCH_MS = 1_600_000_000_000
GUILDS_PER_PERSON = 4
JOINS_KEPT = 100_000


class SharedWorld:
    """Guilds and users, configured by the first bot of the world."""

    def __init__(self, config: BotConfig, seed: int) -> None:
        self.config = config
        self.seed = f"{seed if config.seed is None else config.seed}:{config.world or config.id}"
        self.rng = random.Random(self.seed)
        self.worlds: list[World] = []
        self.moment = 0
        """Counts the world's events; a "moment" is a value of this counter."""
        self.joins: deque[Json] = deque(maxlen=JOINS_KEPT)
        """How each user really joined, oldest first."""
        self.people_count = max(
            50, config.guilds * config.members_per_guild // GUILDS_PER_PERSON, config.members_per_guild * 2
        )
        self._offset_ms = self.rng.randrange(10_000_000)
        self._people: dict[int, Json] = {}
        self._numbers: dict[int, int] = {}
        self._known: dict[int, GuildState] = {}
        self._by_moment: dict[int, int] = {}
        self._next_low = 0
        self._next_number = 0
        self._unbuilt_guilds_of: dict[str, list[int]] | None = None

    def guild_ids(self, count: int) -> list[int]:
        """The ids of the first guilds."""
        while self._next_number < count:
            self.new_guild_id()
        return [guild_id for guild_id, number in self._numbers.items() if number < count]

    def new_guild_id(self) -> int:
        """The id of a new guild."""
        number = self._next_number
        guild_id = snowflake(GUILD_EPOCH_MS + self._offset_ms + number, number * 7919 + 4242)
        self._numbers[guild_id] = number
        self._by_moment[guild_id >> LOW_BITS] = guild_id
        self._next_number += 1
        return guild_id

    def person(self, number: int) -> Json:
        """A user of the pool that all guilds share; always the same object."""
        found = self._people.get(number)
        if found is None:
            rng = random.Random(f"{self.seed}:person:{number}")
            found = self._people[number] = entities.user(rng, self._person_id(number))
        return found

    def _person_id(self, number: int) -> str:
        return str(snowflake(PEOPLE_EPOCH_MS + self._offset_ms + number * 1000, number))

    def new_id(self, wall_ms: int) -> str:
        """A new id with this time."""
        self._next_low += 1
        return str(snowflake(wall_ms, self._next_low))

    def is_silent(self, guild_id: int) -> bool:
        """Whether READY lists the guild and no other event of it is ever sent."""
        share = self.config.silent_guilds
        return share > 0 and random.Random(f"{self.seed}:silent:{self._numbers[guild_id]}").random() < share

    def guild(self, guild_id: int) -> GuildState:
        """The guild; it is kept from now on."""
        found = self._known.get(guild_id)
        if found is None:
            found = self._known[guild_id] = self._build(guild_id)
        return found

    def peek(self, guild_id: int) -> GuildState:
        """The guild as it is now, read-only."""
        return self._known.get(guild_id) or self._build(guild_id)

    def known(self, guild_id: int) -> GuildState | None:
        """The guild, if it has been built and kept."""
        return self._known.get(guild_id)

    def known_guilds(self) -> list[GuildState]:
        """The guilds that have been built and kept."""
        return list(self._known.values())

    def forget(self, guild_id: int) -> None:
        """The last bot has left the guild."""
        self._known.pop(guild_id, None)

    def bots_in(self, guild_id: int) -> list[Json]:
        """The users of the bots that are in a guild."""
        return [world.me for world in self.worlds if world.has_guild(guild_id)]

    def guild_of_channel(self, channel_id: str) -> GuildState | None:
        """The guild of a channel or thread: by the id's time for channels created with the guild, else by a search."""
        if not channel_id.isdecimal():
            return None
        near = self._by_moment.get(int(channel_id) >> LOW_BITS)
        guilds = [self.guild(near)] if near is not None and self.bots_in(near) else []
        places = (g for g in (*guilds, *self._known.values()) if channel_id in g.channels or channel_id in g.threads)
        return next(places, None)

    def rename(self, user: Json) -> list[GuildState]:
        """Replaces a user by a changed one in all guilds; returns the guilds of the user."""
        user_id = user["id"]
        for guild_id in self._unbuilt_with(user_id):
            self.guild(guild_id)
        for number, person in self._people.items():
            if person["id"] == user_id:
                self._people[number] = user
                break
        guilds = [guild for guild in self._known.values() if user_id in guild.members]
        for guild in guilds:
            guild.members[user_id]["user"] = user
        return guilds

    def _unbuilt_with(self, user_id: str) -> list[int]:
        if self._unbuilt_guilds_of is None:
            self._unbuilt_guilds_of = {}
            for guild_id, number in self._numbers.items():
                if guild_id not in self._known:
                    for person in self._first_people(self._rng_of(number)):
                        self._unbuilt_guilds_of.setdefault(self._person_id(person), []).append(guild_id)
        found = self._unbuilt_guilds_of.get(user_id, ())
        return [guild_id for guild_id in found if guild_id not in self._known and self.bots_in(guild_id)]

    def _rng_of(self, number: int) -> random.Random:
        return random.Random(f"{self.seed}:guild:{number}")

    def _first_people(self, rng: random.Random) -> list[int]:
        return rng.sample(range(self.people_count), self.config.members_per_guild - 1)

    def _build(self, guild_id: int) -> GuildState:
        rng = self._rng_of(self._numbers[guild_id])
        people = [self.person(number) for number in self._first_people(rng)]
        made_ms = (guild_id >> LOW_BITS) + DISCORD_EPOCH_MS
        guild = Builder(rng, guild_id, made_ms, self.config).build(self.bots_in(guild_id), people)
        guild.unavailable = self.is_silent(guild_id)
        return guild
