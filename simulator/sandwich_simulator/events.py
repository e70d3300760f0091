"""An event of a world, before it is decided which bots receive it."""

from dataclasses import dataclass

from .entities import Json


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `guild_id` None: it goes to shard 0 of its bot.

    A GUILD_CREATE has empty `data`, because each session receives its own; `joined` says that the bot joined the guild.
    `only` names the one bot that receives the event. `unseen_by` are the bots that do not receive it; None: the place
    that `data` names decides.
    """

    name: str
    data: Json
    guild_id: int | None
    joined: bool = False
    only: str | None = None
    unseen_by: frozenset[str] | None = None
