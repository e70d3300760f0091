"""Which guilds a shard is in, and whether one that comes was announced, is back, or is new. Pure.

Discord tells the three apart by `unavailable` (gateway reference, section 6): false of one that READY announced or that
is back from an outage, missing of one that the bot has just joined. So a join is a GUILD_CREATE without the key, of a
guild that READY did not announce and that is not there already. The cache has no say in that: it may have been emptied,
or be behind.

What a resumed session's new owner cannot know is which guilds READY had announced and had not come yet. The cache may
remember that one was announced; without it, one that comes with the key counts as back.
"""

from typing import Any

import msgspec
from msgspec import UNSET, Struct

from sandwich_node.events.asks import Arrival


class _Guild(Struct):
    id: str
    unavailable: Any = UNSET


_decode = msgspec.json.Decoder(_Guild).decode


class ShardGuilds:
    """A shard's guilds. `announced`: READY's list, None where another owner saw it; `count`: how many there are."""

    def __init__(self, count: int, *, announced: frozenset[str] | None = None) -> None:
        self.count = count
        self._is_listed = announced is not None
        self._known = set(announced or ())
        self._awaited = set(announced or ())
        self._down: set[str] = set()
        self._met: set[str] = set()
        """Guilds that came or went here: none of these is awaited any more."""

    @property
    def awaited(self) -> int:
        """How many announced guilds have not come yet."""
        return len(self._awaited)

    def take(self, event_type: str, data: bytes) -> Arrival | None:
        """Look at a GUILD_CREATE or GUILD_DELETE, by the JSON of its `d`. None when it names no guild."""
        try:
            guild = _decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        lazy, is_sure = guild.id in self._awaited, self._is_listed or guild.id in self._met
        if guild.unavailable is True:
            self._down.add(guild.id)
            if event_type == "GUILD_DELETE":
                # Only a guild that the bot is in has an outage; a stub may be the first of one that it has joined.
                self._known.add(guild.id)
            return Arrival(lazy, True, is_sure)
        was_down = guild.id in self._down
        self._awaited.discard(guild.id)
        self._down.discard(guild.id)
        self._met.add(guild.id)
        if event_type == "GUILD_DELETE":
            self.count = max(0, self.count - 1)
            self._known.discard(guild.id)
            return Arrival(False, False, True)
        is_join = guild.unavailable is UNSET and guild.id not in self._known
        self._known.add(guild.id)
        if is_join:
            self.count += 1
            return Arrival(False, False, is_sure)
        return Arrival(lazy, was_down or not lazy, is_sure)
