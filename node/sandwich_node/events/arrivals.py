"""Which guilds a shard is in, and whether one that comes was announced, is back, or is new. Pure.

Discord tells the three apart by `unavailable`: false of one that READY announced or that is back from an outage,
missing of one that the bot just joined (gateway reference, section 6). Without READY's list (a resumed session) an
announced one that had not come before counts as back.
"""

from dataclasses import dataclass

import msgspec
from msgspec import UNSET, Struct, UnsetType


class _Guild(Struct):
    id: str
    unavailable: bool | UnsetType = UNSET


_decode = msgspec.json.Decoder(_Guild).decode


@dataclass(frozen=True, slots=True)
class Arrival:
    """Of GUILD_CREATE and GUILD_DELETE. Both False: a real join, or a real leave.

    lazy         READY announced the guild, and it had not come yet
    unavailable  of GUILD_CREATE: it is back from an outage, or still in one; of GUILD_DELETE: an outage began
    """

    lazy: bool
    unavailable: bool

    def fields(self) -> bytes:
        """As fields of a JSON object."""
        return b'"lazy":%b,"unavailable":%b' % (_TEXT[self.lazy], _TEXT[self.unavailable])


_TEXT = {False: b"false", True: b"true"}


class ShardGuilds:
    """A shard's guilds. `announced`: READY's list; `count`: how many there are, where that list is not known."""

    def __init__(self, count: int, *, announced: frozenset[str] = frozenset()) -> None:
        self.count = count
        self._known = set(announced)
        self._awaited = set(announced)

    @property
    def awaited(self) -> int:
        """How many announced guilds have not come yet."""
        return len(self._awaited)

    def take(self, event_type: str, data: bytes) -> Arrival | None:
        """Look at a GUILD_CREATE or GUILD_DELETE, by the JSON of its `d`. None when it cannot be read."""
        try:
            guild = _decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        lazy = guild.id in self._awaited
        if guild.unavailable is True:
            return Arrival(lazy, True)
        self._awaited.discard(guild.id)
        if event_type == "GUILD_DELETE":
            self.count = max(0, self.count - 1)
            self._known.discard(guild.id)
            return Arrival(False, False)
        is_join = guild.unavailable is UNSET and guild.id not in self._known
        if is_join:
            self.count += 1
            self._known.add(guild.id)
        return Arrival(lazy, not lazy and not is_join)
