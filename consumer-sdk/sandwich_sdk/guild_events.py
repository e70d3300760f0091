"""What a GUILD_CREATE or GUILD_DELETE means for a bot: it joined, it left, an outage began, an outage is over. Pure.

Discord tells only the two events; the cluster, which knows what READY announced and what was away, adds `lazy` and
`unavailable` (docs/guide/consumers.md, "What the cluster adds"). A guild that READY announced and that comes now is
none of these: nothing happened to it, the session began.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from sandwich_sdk.wire.headers import UNREADABLE

GUILD_CREATE = "GUILD_CREATE"
GUILD_DELETE = "GUILD_DELETE"

GUILD_JOIN = "GUILD_JOIN"
GUILD_LEAVE = "GUILD_LEAVE"
GUILD_AVAILABLE = "GUILD_AVAILABLE"
GUILD_UNAVAILABLE = "GUILD_UNAVAILABLE"

SOURCES: Mapping[str, frozenset[str]] = {
    GUILD_JOIN: frozenset({GUILD_CREATE}),
    GUILD_LEAVE: frozenset({GUILD_DELETE}),
    GUILD_AVAILABLE: frozenset({GUILD_CREATE}),
    GUILD_UNAVAILABLE: frozenset({GUILD_CREATE, GUILD_DELETE}),
}
"""Derived name: the types of the events that it is derived from."""


class _Guild(msgspec.Struct, gc=False):
    unavailable: Any = UNSET


class _Told(msgspec.Struct, gc=False):
    lazy: Any = UNSET
    unavailable: Any = UNSET


_decode_guild = msgspec.json.Decoder(_Guild).decode
_decode_told = msgspec.json.Decoder(_Told).decode


def derive(event_type: str, data: msgspec.Raw, extra: msgspec.Raw) -> str | None:
    """The derived name of an event, by the JSON of its `d` and its `__extra`; None for an event that has none."""
    if event_type not in (GUILD_CREATE, GUILD_DELETE):
        return None
    try:
        guild, told = _decode_guild(data), _decode_told(extra)
    except UNREADABLE:
        return None
    if event_type == GUILD_DELETE:
        return GUILD_UNAVAILABLE if told.unavailable is True or guild.unavailable is True else GUILD_LEAVE
    return _of_create(guild, told)


def _of_create(guild: _Guild, told: _Told) -> str | None:
    if guild.unavailable is True:
        # A stub: the guild is still away.
        return GUILD_UNAVAILABLE
    if told.unavailable is True:
        # Even if it is lazy, too: that it is away was told before.
        return GUILD_AVAILABLE
    if told.lazy is True or guild.unavailable is not UNSET:
        # Discord leaves the key out when the bot has joined, and only then.
        return None
    return GUILD_JOIN


def source_types(names: Iterable[str]) -> frozenset[str]:
    """The types that the frames of these events carry; a name that is not derived stands for itself."""
    found = frozenset(names)
    return found.union(*(SOURCES[name] for name in found & SOURCES.keys()))
