"""What can be used of a message that the strict reader refuses, so that no session ends because of one event. Pure.

Discord replays an event that was not taken after every RESUME: a shard that hangs up on it loses its session. Slow,
and only for such messages:

- Bytes that are not UTF-8 become U+FFFD, since a frame's line is JSON in UTF-8.
- Half of a surrogate pair (`\\ud83d` alone) is JSON, though no text: consumers get it as it came, we read U+FFFD.
- What nests too deep for the strict reader, and numbers and names that cannot be an op, s or t, are looked over here.
"""

import re
from typing import NamedTuple

import msgspec

from sandwich_node.gateway.envelope import Envelope, ProtocolError, read_envelope
from sandwich_sdk.wire.surrogates import without_lone_surrogates

SCAN_BYTES_MAX = 16 * 1024 * 1024
"""A longer message is not looked over: it would keep the other shards waiting for seconds."""
UNKNOWN_OP = -1
_SEQUENCE_MAX = 2**63 - 1

_TOKEN = re.compile(
    rb"[ \t\r\n]*+("
    rb'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"'
    rb"|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?"
    rb"|true|false|null|[{}\[\]:,])"
)
_OP = re.compile(rb"[0-9]{1,9}")
_SEQUENCE = re.compile(rb"[0-9]{1,19}")
_NAME = re.compile(rb'"[A-Z0-9_]{1,64}"')

_VALUE, _KEY, _COLON, _MORE = range(4)


class Salvaged(NamedTuple):
    """`line`: the message as it came, on one line, for consumers; `envelope`: what we read, its `d` as text."""

    line: bytes
    envelope: Envelope


def salvage(raw: bytes) -> Salvaged | None:
    """What can be used of a message that `read_envelope` refused; None when it is not a JSON object at all."""
    text = raw if raw.isascii() else raw.decode(errors="replace").encode()
    line = text.strip().replace(b"\n", b" ").replace(b"\r", b" ")
    readable = without_lone_surrogates(line)
    try:
        return Salvaged(line, read_envelope(readable))
    except ProtocolError:
        members = _members(readable) if len(readable) <= SCAN_BYTES_MAX else None
    if members is None:
        return None
    op, sequence, name = (members.get(key, b"") for key in (b'"op"', b'"s"', b'"t"'))
    number = int(sequence) if _SEQUENCE.fullmatch(sequence) else _SEQUENCE_MAX + 1
    return Salvaged(
        line,
        Envelope(
            op=int(op) if _OP.fullmatch(op) else UNKNOWN_OP,
            s=number if number <= _SEQUENCE_MAX else None,
            t=name[1:-1].decode() if _NAME.fullmatch(name) else None,
            d=msgspec.Raw(members.get(b'"d"', b"null")),
        ),
    )


class SeenAgain:
    """Whether a message that cannot be used at all came before at the same place of its session.

    What was damaged on its way is whole when it comes again after a RESUME. What is damaged then, too, would end every
    connection at the same place until the session is lost: it is passed over.
    """

    def __init__(self) -> None:
        self._last: tuple[str, int] | None = None

    def __call__(self, session_id: str, sequence: int) -> bool:
        """Take one, that came behind `sequence`."""
        before, self._last = self._last, (session_id, sequence)
        return before == self._last


def _members(text: bytes) -> dict[bytes, bytes] | None:
    """The values of the outermost object by their quoted keys, unchanged; None when it is not a JSON object."""
    found: dict[bytes, bytes] = {}
    closes = bytearray()
    """The brackets that are open, outermost first."""
    expects, may_close, is_first = _VALUE, False, True
    key, start, at = b"", 0, 0
    while (match := _TOKEN.match(text, at)) is not None:
        token, at = match[1], match.end()
        kind = token[0]
        if kind in b"}]":
            if not may_close or not closes or closes.pop() != kind:
                return None
            expects, may_close = _MORE, True
        elif expects == _KEY:
            if kind != 0x22:
                return None
            key = token if len(closes) == 1 else key
            expects, may_close = _COLON, False
        elif expects == _VALUE:
            if kind in b":,":
                return None
            start = match.start(1) if len(closes) == 1 else start
            if kind in b"{[":
                closes.append(0x7D if kind == 0x7B else 0x5D)
                expects, may_close = (_KEY if kind == 0x7B else _VALUE), True
            else:
                expects, may_close = _MORE, True
        elif kind != (0x3A if expects == _COLON else 0x2C):
            return None
        else:
            expects = _KEY if expects == _MORE and closes[-1] == 0x7D else _VALUE
            may_close = False
        if is_first and kind != 0x7B:
            return None
        is_first = False
        if expects == _MORE:
            if not closes:
                return found if not text[at:].strip() else None
            if len(closes) == 1:
                found[key] = text[start:at]
    return None
