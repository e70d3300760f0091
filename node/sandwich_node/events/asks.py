"""What may be attached to an event between its reading and its publication. Pure.

An event carries at most one of these (`Item.ask`). The intake attaches it; the enricher or the publisher answers it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec


class MessageAsk(msgspec.Struct, frozen=True, gc=False):
    """A message that is published only if it begins with a prefix of its guild."""

    guild: str
    content: str


class ObserverAsk(msgspec.Struct, frozen=True, gc=False):
    """An event that leaves with a field which the shard's observer adds; the observer knows it by `handle`."""

    handle: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """The meaning of a GUILD_CREATE or GUILD_DELETE. Both False: a real join, or a real leave.

    lazy         READY announced the guild, and this is its first GUILD_CREATE
    unavailable  GUILD_CREATE: the guild is back from an outage, or still in one; GUILD_DELETE: an outage began
    is_sure      False when the cache may know better whether the guild was announced
    """

    lazy: bool
    unavailable: bool
    is_sure: bool = field(default=False, compare=False)

    def fields(self) -> bytes:
        """The fields of a JSON object."""
        return b'"lazy":%b,"unavailable":%b' % (_TEXT[self.lazy], _TEXT[self.unavailable])

    def as_cached(self, *, lazy: bool, unavailable: bool) -> "Arrival":
        """With the announcement that the cache recorded, if this shard did not see READY itself."""
        return self if self.is_sure or not lazy else Arrival(True, unavailable)


_TEXT = {False: b"false", True: b"true"}


class StoredAsk(msgspec.Struct, frozen=True):
    """An own event whose sender waits until it is stored."""

    on_stored: Callable[[], None]


Ask: TypeAlias = MessageAsk | ObserverAsk | Arrival | StoredAsk
