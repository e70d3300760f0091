"""What the script answers, and what of it is spliced into events. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sandwich_node.gateway.nesting import nests_deeper

_FIELD = re.compile(rb"(\d+)([a-z])")
_validate = msgspec.json.Decoder(msgspec.Raw).decode
_NULL = b"null"


@dataclass(frozen=True, slots=True)
class Extra:
    """What an event gets beside Discord's own fields.

    before       JSON of what it replaced or removed (a list where the event is about a list), `null` when that was not
                 in the cache; None for an event that replaces nothing
    lazy         of GUILD_CREATE: READY announced the guild
    unavailable  of GUILD_CREATE: the guild is back from an outage
    """

    before: bytes | None = None
    lazy: bool | None = None
    unavailable: bool | None = None

    def fields(self) -> bytes:
        """As the fields of a JSON object, without its braces."""
        parts = [] if self.before is None else [b'"before":' + self.before]
        for name, value in ((b"lazy", self.lazy), (b"unavailable", self.unavailable)):
            if value is not None:
                parts.append(b'"%b":%b' % (name, b"true" if value else b"false"))
        return b",".join(parts)


@dataclass(slots=True)
class Applied:
    """What became of a batch.

    extras     by sequence
    newer      fence of the owner that took the shard over, 0 while we are the owner: nothing more of ours is applied
    stood      the sequence up to which the session had been applied before, -1 for none; None where nobody knows
    replayed   events that had been applied before
    is_first   the server had no record of this shard's session: it is new, or the server lost its data
    damaged    values that were no longer ours, and were replaced
    failed     operations that the server refused
    """

    extras: dict[int, Extra] = field(default_factory=dict)
    newer: int = 0
    stood: int | None = None
    replayed: int = 0
    is_first: bool = False
    damaged: int = 0
    failed: int = 0
    failure: str = ""


@dataclass(slots=True)
class Left:
    """What the script left to do, as (sequence, ids): the first id is the guild's, others are users'.

    Of `stripping` they are a role's, and how far its members have been looked through.
    """

    evicted: list[tuple[int, list[str]]] = field(default_factory=list)
    guilds: list[tuple[int, list[str]]] = field(default_factory=list)
    draining: list[tuple[int, list[str]]] = field(default_factory=list)
    drained: list[tuple[int, list[str]]] = field(default_factory=list)
    stripping: list[tuple[int, list[str]]] = field(default_factory=list)
    learned: set[tuple[int, str]] = field(default_factory=set)


def read_reply(reply: Sequence[Any], applied: Applied, left: Left) -> int:
    """Add one reply to `applied` and `left`; returns the sequence the record stood at, -1 without one."""
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
            before = _sound(value, applied)
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


def _sound(value: bytes, applied: Applied) -> bytes:
    """The value as one line of valid JSON of a bounded depth; `null` instead of what would spoil the event's line."""
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
