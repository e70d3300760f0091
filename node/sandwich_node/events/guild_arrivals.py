"""Tracks a shard's guilds: whether a GUILD_CREATE is of an announced guild, of one that is back, or of a new one. Pure.

Discord distinguishes the three by `unavailable` (docs/design/protocol.md): it is false for a guild that READY announced
or that is back from an outage, and absent for a guild that the bot just joined. So a join is a GUILD_CREATE without the
key, of a guild that READY did not announce and that is not known yet. The cache does not decide this: it may have been
emptied, or be behind.

The new owner of a resumed session cannot know which announced guilds are still to come. If it gets all that followed
READY, the first event of a guild is the announced one, except a join. Otherwise the cache may have recorded an
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
    """A shard's guilds.

    count        their number
    is_listed    whether READY's list is known
    arrived      how many of the announced guilds have come; without the list, how many guilds
    announced    READY's list, None if another owner received it
    after_ready  all that Discord sent behind READY comes here
    """

    def __init__(self, count: int, *, announced: frozenset[str] | None = None, after_ready: bool = False) -> None:
        self.count = count
        self.arrived = 0
        self.is_listed = announced is not None
        self._after_ready = after_ready
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

    def look(self, event_type: str, data: bytes) -> Arrival | None:
        """What `take` would answer."""
        guild = _read(data)
        return self._arrival(event_type, guild) if guild is not None else None

    def take(self, event_type: str, data: bytes) -> Arrival | None:
        """Interpret a GUILD_CREATE or GUILD_DELETE, by the JSON of its `d`. None when it names no guild."""
        guild = _read(data)
        if guild is None:
            return None
        arrival = self._arrival(event_type, guild)
        if guild.unavailable is True:
            self._down.add(guild.id)
            if event_type == "GUILD_DELETE":
                # GUILD_DELETE reports only outages of known guilds; a stub may be the first event of a new guild.
                self._known.add(guild.id)
            return arrival
        self.arrived += guild.id in self._awaited if self.is_listed else guild.id not in self._met
        self._awaited.discard(guild.id)
        self._down.discard(guild.id)
        self._met.add(guild.id)
        if event_type == "GUILD_DELETE":
            self.count = max(0, self.count - 1)
            self._known.discard(guild.id)
            return arrival
        self._known.add(guild.id)
        self.count += not arrival.lazy and not arrival.unavailable
        return arrival

    def _arrival(self, event_type: str, guild: _Guild) -> Arrival:
        lazy, is_sure = self._is_lazy(guild), self.is_listed or guild.id in self._met
        if guild.unavailable is True:
            return Arrival(lazy, True, is_sure)
        if event_type == "GUILD_DELETE":
            return Arrival(False, False, True)
        if guild.unavailable is UNSET and guild.id not in self._known:
            return Arrival(False, False, is_sure)
        return Arrival(lazy, guild.id in self._down or not lazy, is_sure)

    def _is_lazy(self, guild: _Guild) -> bool:
        if self.is_listed or not self._after_ready:
            return guild.id in self._awaited
        return guild.id not in self._met and guild.unavailable is not UNSET


def _read(data: bytes) -> _Guild | None:
    try:
        return _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
