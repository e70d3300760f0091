"""What every translation of an event needs, and the form of what it makes. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
from msgspec import Raw, UnsetType

from sandwich_coordinator.types import CacheSpec
from sandwich_node.cache import payloads as pl
from sandwich_node.cache.json_patch import with_user_id
from sandwich_node.cache.settings import letters_of

Op = tuple[str | bytes, ...]
"""An operation of script.lua: its name, the guild or user it is about, its arguments."""

PUT_BYTES_MAX = 256 * 1024
"""About how much one operation of a long list carries, so that a call can be cut between operations."""

identified = msgspec.json.Decoder(pl.Identified).decode
_raws = msgspec.json.Decoder(list[Raw]).decode

UNREADABLE = (msgspec.MsgspecError, RecursionError, ValueError)
"""What is raised where an event has not the known shape."""

_Read = TypeVar("_Read")


class BadEvent(ValueError):
    """An event that cannot be cached: an id that is not one, or a shape Discord does not document."""


def snowflake(value: str | UnsetType) -> str:
    """Return a guild's or user's id, which becomes part of a key. Raises BadEvent when it is anything but digits."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return value
    raise BadEvent("an id is not a Discord id")


@dataclass(frozen=True, slots=True)
class Context:
    """What is cached, for which bot. `learns`: members are taken from wherever they are seen."""

    settings: CacheSpec
    bot: str
    learns: bool
    letters: frozenset[str] = field(init=False)
    lost: list[str] = field(default_factory=list, compare=False)
    """What of the event at hand could not be read: the name of its list, once for each item."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "letters", frozenset(letters_of(self.settings)))

    def listed(self, name: str, value: Raw | UnsetType) -> list[Raw] | None:
        """The items of a list that an event has; None where it is absent, or lost because it is no list."""
        if isinstance(value, UnsetType):
            return None
        try:
            return _raws(value)
        except msgspec.MsgspecError:
            self.lost.append(name)
            return None

    def readable(self, name: str, items: Iterable[Raw], read: Callable[[bytes], _Read]) -> list[_Read]:
        """What `read` makes of each item. Those that it cannot read are left out: they are lost, the rest is not."""
        made = []
        for item in items:
            try:
                made.append(read(bytes(item)))
            except UNREADABLE:
                self.lost.append(name)
        return made

    @property
    def keeps_users(self) -> bool:
        """Whether users are kept for themselves, so that members have only their ids."""
        return self.settings.users and self.settings.members

    def split_user(self, member: bytes, user: bytes) -> tuple[str, bytes, bytes]:
        """(user id, member to store, user to store or b"") of a member and its user, which is part of its text."""
        user_id = snowflake(identified(user).id)
        if not self.keeps_users:
            return user_id, member, b""
        return user_id, with_user_id(member, user, user_id), user


Translation = Callable[[Context, bytes], tuple[Op, ...]]
Stored = tuple[str, bytes]
"""The id of an entity, and its JSON as it is stored."""


def by_id(item: bytes) -> Stored:
    """An object under its id. Raises an error of UNREADABLE."""
    return snowflake(identified(item).id), item


def puts(name: str, guild: str, letter: str, items: Iterable[Stored], *, replace: bool) -> list[Op]:
    """Operations that store a list, in pieces. The first one replaces the collection, also by nothing."""
    made: list[Op] = []
    piece: list[str | bytes] = []
    size = 0
    for item in items:
        piece += item
        size += len(item[1])
        if size > PUT_BYTES_MAX:
            made.append((name, guild, letter, "1" if replace and not made else "0", *piece))
            piece, size = [], 0
    if piece or (replace and not made):
        made.append((name, guild, letter, "1" if replace and not made else "0", *piece))
    return made
