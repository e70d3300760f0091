"""What a GUILD_CREATE or GUILD_DELETE means for a bot: it joined or left, or an outage began or ended. Pure.

Discord sends the same two events for all four. The cluster knows which guilds READY announced and which were
unavailable, and adds `lazy` and `unavailable` (docs/guide/consumers.md, "What the cluster adds"). The GUILD_CREATE of a
guild that READY announced is none of the four: only the session began.
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
"""Derived name: the event types that it is derived from."""


class _Guild(msgspec.Struct, gc=False):
    unavailable: Any = UNSET


class _Added(msgspec.Struct, gc=False):
    lazy: Any = UNSET
    unavailable: Any = UNSET


_decode_guild = msgspec.json.Decoder(_Guild).decode
_decode_added = msgspec.json.Decoder(_Added).decode


def derive(event_type: str, data: msgspec.Raw, extra: msgspec.Raw) -> str | None:
    """The derived name of an event, by the JSON of its `d` and its `__extra`; None for an event that has none."""
    if event_type not in (GUILD_CREATE, GUILD_DELETE):
        return None
    try:
        guild, added = _decode_guild(data), _decode_added(extra)
    except UNREADABLE:
        return None
    if event_type == GUILD_DELETE:
        return GUILD_UNAVAILABLE if added.unavailable is True or guild.unavailable is True else GUILD_LEAVE
    return _of_create(guild, added)


def _of_create(guild: _Guild, added: _Added) -> str | None:
    if guild.unavailable is True:
        # A stub: the guild is still unavailable.
        return GUILD_UNAVAILABLE
    if added.unavailable is True:
        # Even if `lazy` is set, too: the outage was already reported.
        return GUILD_AVAILABLE
    if added.lazy is True or guild.unavailable is not UNSET:
        # Discord omits the key only when the bot has joined.
        return None
    return GUILD_JOIN


def source_types(names: Iterable[str]) -> frozenset[str]:
    """The event types behind these names; a name that is not derived is its own type."""
    found = frozenset(names)
    return found.union(*(SOURCES[name] for name in found & SOURCES.keys()))
