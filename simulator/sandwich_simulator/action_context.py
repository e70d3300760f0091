"""One guild at one moment, with what the actions need to tell their story."""

import random
from collections.abc import Callable, Iterator

from .entities import Json
from .events import Event
from .guild_state import GuildState
from .world import World


class ActionContext:
    """Where something is about to happen; `world` is that of the bot by whose clock it does."""

    def __init__(self, world: World, guild: GuildState, rng: random.Random, wall_ms: int) -> None:
        self.world = world
        self.guild = guild
        self.rng = rng
        self.wall_ms = wall_ms
        self.people = guild.people()

    def event(
        self, name: str, data: Json, *, only: str | None = None, unseen_by: frozenset[str] | None = None
    ) -> Event:
        """An event of this guild."""
        return Event(name, data, int(self.guild.id), only=only, unseen_by=unseen_by)

    def new_id(self) -> str:
        """A fresh id."""
        return self.world.new_id(self.wall_ms)

    def someone(self) -> str:
        """A member who is no bot (the bot when it is alone)."""
        return self.rng.choice(self.people) if self.people else str(self.world.me["id"])


Action = Callable[[ActionContext], Iterator[Event]]
"""Changes the guild and tells of it: the state has changed when the events have been taken."""
