"""One bot's part of a world: its guilds and its own user. Bots of one world share a `SharedWorld`.

For a `World`, a guild that its bot is not in does not exist.
"""

import random
from collections.abc import Iterator

from . import entities
from .config import BotConfig
from .entities import Json
from .guild_state import GuildState
from .shared_world import SharedWorld
from .snowflakes import shard_of
from .visibility import guild_create, state_as_seen

__all__ = ["GuildState", "World", "guild_create"]

GUILDS_PER_SHARD_MAX = 2500


class World:
    """The guilds of one bot."""

    def __init__(self, bot: BotConfig, seed: int, shared: SharedWorld | None = None, *, is_late: bool = False) -> None:
        """`is_late`: the world exists already, and the bot joins its guilds later, one by one."""
        self._config = bot
        self.id = bot.id
        """The application id, which is also the bot's user id."""
        self.shared = shared or SharedWorld(bot, seed)
        self.rng = random.Random(f"{self.shared.seed}:bot:{bot.id}")
        self.me: Json = entities.user(self.rng, bot.id) | {"username": bot.name, "global_name": None, "bot": True}
        self.guild_ids: dict[int, None] = dict.fromkeys(() if is_late else self.shared.guild_ids(bot.guilds))
        """In the order of joining."""
        self.shared.worlds.append(self)

    @property
    def people_count(self) -> int:
        """The number of users in the pool."""
        return self.shared.people_count

    def person(self, number: int) -> Json:
        """A user of the pool that all guilds share."""
        return self.shared.person(number)

    def new_id(self, wall_ms: int) -> str:
        """A new id with this time."""
        return self.shared.new_id(wall_ms)

    def has_guild(self, guild_id: int) -> bool:
        """Whether the bot is in this guild."""
        return guild_id in self.guild_ids

    def _require(self, guild_id: int) -> None:
        if guild_id not in self.guild_ids:
            raise KeyError(guild_id)

    def guild(self, guild_id: int) -> GuildState:
        """The guild; it is kept from now on. KeyError when the bot is not in it."""
        self._require(guild_id)
        return self.shared.guild(guild_id)

    def peek(self, guild_id: int) -> GuildState:
        """The guild as it is now, read-only. KeyError when the bot is not in it."""
        self._require(guild_id)
        return self.shared.peek(guild_id)

    def is_unavailable(self, guild_id: int) -> bool:
        """Whether the guild is in an outage; does not build the guild."""
        found = self.shared.known(guild_id)
        return found.unavailable if found is not None else self.shared.is_silent(guild_id)

    def known_guilds(self) -> Iterator[GuildState]:
        """The bot's guilds that have been built and kept."""
        return (guild for guild in self.shared.known_guilds() if int(guild.id) in self.guild_ids)

    def guilds_of_shard(self, shard: int, count: int) -> list[int]:
        """Ids of the guilds of this shard."""
        return [guild_id for guild_id in self.guild_ids if shard_of(guild_id, count) == shard]

    def guild_state(self, guild_id: int, *, as_seen: bool = False) -> Json:
        """The guild's state as JSON: the whole, or the bot's view. KeyError when the bot is not in it."""
        guild = self.peek(guild_id)
        return state_as_seen(guild, self.id) if as_seen else guild.as_json()

    def join_guild(self) -> GuildState:
        """Adds the bot to a new guild."""
        guild_id = self.shared.new_guild_id()
        self.guild_ids[guild_id] = None
        return self.guild(guild_id)

    def guild_of_channel(self, channel_id: str) -> GuildState | None:
        """The guild of a channel or thread, if the bot is in it."""
        found = self.shared.guild_of_channel(channel_id)
        return found if found is not None and int(found.id) in self.guild_ids else None

    @property
    def has_surplus_guilds(self) -> bool:
        """Whether the bot is in more guilds than configured."""
        return len(self.guild_ids) > self._config.guilds

    def leave_guild(self, guild_id: int) -> None:
        """Removes the bot from a guild."""
        del self.guild_ids[guild_id]
        if not self.shared.bots_in(guild_id):
            self.shared.forget(guild_id)
