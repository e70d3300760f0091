"""The context of every translation, and the form of an operation. Pure."""

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
"""An operation of the script: its name, the id of its guild or user, its arguments."""

PUT_BYTES_MAX = 256 * 1024
"""The approximate size of one operation of a long list, so that calls can be split between operations."""

identified = msgspec.json.Decoder(pl.Identified).decode
_raws = msgspec.json.Decoder(list[Raw]).decode

UNREADABLE = (msgspec.MsgspecError, RecursionError, ValueError)
"""The errors raised when an event does not have the documented form."""

_Read = TypeVar("_Read")


class BadEvent(ValueError):
    """An event that cannot be cached: an invalid id, or a form that Discord does not document."""


def snowflake(value: str | UnsetType) -> str:
    """Return a guild's or user's id, which becomes part of a key. Raises BadEvent when it is anything but digits."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return value
    raise BadEvent("an id is not a Discord id")


@dataclass(frozen=True, slots=True)
class Context:
    """The cache settings and the bot. `learns`: members are taken from any event that contains them."""

    settings: CacheSpec
    bot: str
    learns: bool
    letters: frozenset[str] = field(init=False)
    lost: list[str] = field(default_factory=list, compare=False)
    """The unreadable parts of the current event: the name of the list, once for each item."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "letters", frozenset(letters_of(self.settings)))

    def listed(self, name: str, value: Raw | UnsetType) -> list[Raw] | None:
        """The items of a list in an event; None when it is absent, or lost because it is not a list."""
        if isinstance(value, UnsetType):
            return None
        try:
            return _raws(value)
        except msgspec.MsgspecError:
            self.lost.append(name)
            return None

    def readable(self, name: str, items: Iterable[Raw], read: Callable[[bytes], _Read]) -> list[_Read]:
        """The result of `read` for each item. Unreadable items are left out and noted in `lost`."""
        made = []
        for item in items:
            try:
                made.append(read(bytes(item)))
            except UNREADABLE:
                self.lost.append(name)
        return made

    @property
    def keeps_users(self) -> bool:
        """Whether users are stored apart, so that members contain only the user's id."""
        return self.settings.users and self.settings.members

    def split_user(self, member: bytes, user: bytes) -> tuple[str, bytes, bytes]:
        """(user id, member to store, user to store or b""). `user` must be a part of the text of `member`."""
        user_id = snowflake(identified(user).id)
        if not self.keeps_users:
            return user_id, member, b""
        return user_id, with_user_id(member, user, user_id), user


Translation = Callable[[Context, bytes], tuple[Op, ...]]
Stored = tuple[str, bytes]
"""The id of an entity, and its stored JSON."""


def by_id(item: bytes) -> Stored:
    """An object under its id. Raises an error of UNREADABLE."""
    return snowflake(identified(item).id), item


def puts(name: str, guild: str, letter: str, items: Iterable[Stored], *, replace: bool) -> list[Op]:
    """Operations that store a list in pieces. With `replace` the first one clears the collection, also for no items."""
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
