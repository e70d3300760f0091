"""The context of an action: one guild at one moment, and what the action needs to change it."""

import random
from collections.abc import Callable, Iterator

from .entities import Json
from .events import Event
from .guild_state import GuildState
from .world import World


class ActionContext:
    """The guild and the moment of an action. `world` belongs to the bot whose traffic causes the action."""

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
        """A new id."""
        return self.world.new_id(self.wall_ms)

    def someone(self) -> str:
        """A random member that is not a bot; the bot itself if there is no other member."""
        return self.rng.choice(self.people) if self.people else str(self.world.me["id"])


Action = Callable[[ActionContext], Iterator[Event]]
"""Changes the guild and yields the events of the change. The change is complete when all events are consumed."""
