"""Decodes the script's replies, and the extra fields of events in them. Pure."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from sandwich_node.gateway.nesting import nests_deeper

_FIELD = re.compile(rb"(\d+)([a-z])")
_validate = msgspec.json.Decoder(msgspec.Raw).decode
_NULL = b"null"


class Extra(msgspec.Struct, frozen=True):
    """The fields that are added to an event.

    before       JSON of the value that the event replaced or removed (a list for an event about a list), `null` when
                 the cache did not have it; None for an event that replaces nothing
    lazy         of GUILD_CREATE: READY announced the guild
    unavailable  of GUILD_CREATE: the guild is back from an outage
    """

    before: bytes | None = None
    lazy: bool | None = None
    unavailable: bool | None = None

    def fields(self) -> bytes:
        """The fields of a JSON object, without its braces."""
        parts = [] if self.before is None else [b'"before":' + self.before]
        for name, value in ((b"lazy", self.lazy), (b"unavailable", self.unavailable)):
            if value is not None:
                parts.append(b'"%b":%b' % (name, b"true" if value else b"false"))
        return b",".join(parts)


class Applied(msgspec.Struct):
    """The result of a batch. A Struct, as `Left`: each call makes one.

    extras     by sequence
    newer      fence of the owner that took the shard over; nothing of this owner is applied any more. 0: no newer owner
    stood      the sequence up to which the session had been applied before, -1 for none; None when it is unknown
    replayed   events that had been applied before
    is_first   the server had no record of this shard's session: it is new, or the server lost its data
    damaged    values of a foreign type or form, which were replaced
    failed     operations that the server refused
    """

    extras: dict[int, Extra] = msgspec.field(default_factory=dict)
    newer: int = 0
    stood: int | None = None
    replayed: int = 0
    is_first: bool = False
    damaged: int = 0
    failed: int = 0
    failure: str = ""


class Left(msgspec.Struct):
    """Follow-up work that the script returned, as (sequence, ids): the guild's id, then ids of users.

    For `stripping` the guild's id is followed by the role's id and the cursor of the scan.
    """

    evicted: list[tuple[int, list[str]]] = msgspec.field(default_factory=list)
    guilds: list[tuple[int, list[str]]] = msgspec.field(default_factory=list)
    draining: list[tuple[int, list[str]]] = msgspec.field(default_factory=list)
    drained: list[tuple[int, list[str]]] = msgspec.field(default_factory=list)
    stripping: list[tuple[int, list[str]]] = msgspec.field(default_factory=list)
    learned: set[tuple[int, str]] = msgspec.field(default_factory=set)

    @property
    def is_unfinished(self) -> bool:
        """Whether guilds have follow-up work."""
        return bool(self.guilds or self.draining or self.drained or self.stripping)


def read_reply(reply: Sequence[Any], applied: Applied, left: Left) -> int:
    """Add one reply to `applied` and `left`; returns the sequence of the record before, -1 without a record."""
    newer, stood, damaged, failed, failure, results = reply
    applied.newer = max(applied.newer, int(newer))
    applied.damaged += int(damaged)
    applied.failed += int(failed)
    applied.failure = applied.failure or failure.decode(errors="replace")
    extras = applied.extras
    for name, value in zip(results[::2], results[1::2], strict=True):
        found = _FIELD.match(name)
        if found is None:
            applied.damaged += 1
            continue
        seq, kind = int(found[1]), found[2]
        if kind == b"b":
            known = extras.get(seq)
            before = _valid(value, applied)
            extras[seq] = Extra(before) if known is None else Extra(before, known.lazy, known.unavailable)
        elif kind == b"a":
            known = extras.get(seq)
            extras[seq] = Extra(known.before if known else None, b"l" in value, b"u" in value)
        elif kind == b"p":
            left.learned.add((seq, value.decode(errors="replace")))
        else:
            ids = value.decode(errors="replace").split(",")
            {b"e": left.evicted, b"g": left.guilds, b"d": left.draining, b"s": left.stripping, b"k": left.drained}[
                kind
            ].append((seq, ids))
    return int(stood)


def _valid(value: bytes, applied: Applied) -> bytes:
    """The value as one line of valid JSON of bounded depth; `null` for a value that would damage the event."""
    if value == _NULL:
        return value
    try:
        if not value.isascii():
            value.decode()
        _validate(value)
        if nests_deeper(value):
            applied.damaged += 1
            return _NULL
        return msgspec.json.format(value, indent=-1) if b"\n" in value else value
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        applied.damaged += 1
        return _NULL
