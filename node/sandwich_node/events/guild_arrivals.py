"""Tracks a shard's guilds: whether a GUILD_CREATE is of an announced guild, of one that is back, or of a new one. Pure.

Discord distinguishes the three by `unavailable` (docs/design/protocol.md): it is false for a guild that READY announced
or that is back from an outage, and absent for a guild that the bot just joined. So a join is a GUILD_CREATE without the
key, of a guild that READY did not announce and that is not known yet. The cache does not decide this: it may have been
emptied, or be behind.

The new owner of a resumed session cannot know which announced guilds are still to come. The cache may have recorded an
announcement; without one, a guild with the key counts as back.
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
    """A shard's guilds. `announced`: READY's list, None if another owner received it; `count`: their number."""

    def __init__(self, count: int, *, announced: frozenset[str] | None = None) -> None:
        self.count = count
        self._is_listed = announced is not None
        self._known = set(announced or ())
        self._awaited = set(announced or ())
        self._down: set[str] = set()
        self._met: set[str] = set()
        """Guilds with a GUILD_CREATE or GUILD_DELETE here: they are not awaited any more."""

    @property
    def awaited(self) -> int:
        """The number of announced guilds without a GUILD_CREATE so far."""
        return len(self._awaited)

    @property
    def known(self) -> frozenset[str]:
        """The guilds that are known: all of them, if this owner received READY."""
        return frozenset(self._known)

    def take(self, event_type: str, data: bytes) -> Arrival | None:
        """Interpret a GUILD_CREATE or GUILD_DELETE, by the JSON of its `d`. None when it names no guild."""
        try:
            guild = _decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        lazy, is_sure = guild.id in self._awaited, self._is_listed or guild.id in self._met
        if guild.unavailable is True:
            self._down.add(guild.id)
            if event_type == "GUILD_DELETE":
                # GUILD_DELETE reports only outages of known guilds; a stub may be the first event of a new guild.
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
