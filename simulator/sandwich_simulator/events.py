"""What happened in a world, before it is decided who is told of it."""

from dataclasses import dataclass

from .entities import Json


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `guild_id` None: shard 0 of the bot it concerns.

    `joined` tells the two GUILD_CREATEs apart, whose `data` is empty: every session is sent its own. `only` names the
    one bot that it is about. `unseen_by` are bots that are not told: None where the place that `data` names says it.
    """

    name: str
    data: Json
    guild_id: int | None
    joined: bool = False
    only: str | None = None
    unseen_by: frozenset[str] | None = None
