"""Headers of a frame, wire contract version 1."""

import re
from collections.abc import Mapping

import msgspec

WIRE_VERSION = 1
_VERSION = re.compile(r"[0-9]{1,9}")

VERSION = "Sandwich-Version"
SESSION = "Sandwich-Session"
FIRST_SEQ = "Sandwich-First-Seq"
LAST_SEQ = "Sandwich-Last-Seq"
COUNT = "Sandwich-Count"
EPOCH = "Sandwich-Epoch"
TYPES = "Sandwich-Types"
KIND = "Sandwich-Kind"
PART = "Sandwich-Part"
CACHE = "Sandwich-Cache"
HOLD = "Sandwich-Hold"
CONTENT_ENCODING = "Content-Encoding"
CONTENT_TYPE = "Content-Type"

EXPECTED_LAST_SEQ = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_LAST_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"
MESSAGE_TTL = "Nats-TTL"

FENCE = "fence"
MARKER = "marker"
GAP = "gap"
END = "end"
"""No frame follows on this chain: its shard group was replaced."""
SWITCH = "switch"
"""The first frame of a chain that goes on behind the chains of the group that it replaces."""
BEHIND = "behind"


UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError, MemoryError)
"""What decoders raise for untrusted bytes. The errors of json and UTF-8 are ValueErrors. Deeply nested JSON raises a
RecursionError, at a depth that depends on the caller's stack."""


class WireError(ValueError):
    """A frame that does not follow the wire contract."""


class NewerVersion(WireError):
    """A frame of a later version of the wire contract."""


class FrameHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """The metadata of a frame. A Struct: each frame has one, and a frozen dataclass takes several times as long.

    session    hash of the Discord session (`frame.session_hash`), "" before the shard's first session
    first_seq  Discord sequence of the first event in the frame
    last_seq   Discord sequence of the chain after this frame: the checkpoint
    count      events in the frame; 0 when it has a kind
    epoch      the writer's fence: the revision of its claim. The wire keeps this older name for it
    kind       "" for events, else "fence", "marker", "gap", "end" or "switch"
    types      event types in the frame, each once
    part       (i, n) for part i of an event that is split into n messages, 1 <= i <= n
    behind     the cache did not contain the frame's events yet when the frame was stored
    hold       for nodes: the stream's last sequence when the chain's hold began (docs/design/scaling.md); None: no hold
    """

    session: str
    first_seq: int
    last_seq: int
    count: int
    epoch: int
    kind: str = ""
    types: frozenset[str] = frozenset()
    part: tuple[int, int] | None = None
    behind: bool = False
    hold: int | None = None

    def encode(self) -> dict[str, str]:
        """The headers as published."""
        headers = {
            VERSION: str(WIRE_VERSION),
            SESSION: self.session,
            FIRST_SEQ: str(self.first_seq),
            LAST_SEQ: str(self.last_seq),
            COUNT: str(self.count),
            EPOCH: str(self.epoch),
        }
        if self.types:
            headers[TYPES] = ",".join(sorted(self.types))
        if self.kind:
            headers[KIND] = self.kind
        else:
            headers[CONTENT_ENCODING] = "zstd"
            headers[CONTENT_TYPE] = "application/x-ndjson"
        if self.part is not None:
            headers[PART] = f"{self.part[0]}/{self.part[1]}"
        if self.behind:
            headers[CACHE] = BEHIND
        if self.hold is not None:
            headers[HOLD] = str(self.hold)
        return headers

    @classmethod
    def decode(cls, headers: Mapping[str, str] | None) -> "FrameHeaders":
        """Read a frame's headers. Raises WireError for a newer version or a missing or malformed header."""
        if not headers or VERSION not in headers:
            raise WireError("not a Sandwich frame: it has no Sandwich-Version header")
        if _VERSION.fullmatch(headers[VERSION]) is None:
            raise WireError(f"{VERSION} is not a number: {headers[VERSION][:40]!r}")
        version = int(headers[VERSION])
        if version != WIRE_VERSION:
            kind = NewerVersion if version > WIRE_VERSION else WireError
            raise kind(f"frame of wire version {version}; this reader knows version {WIRE_VERSION}")
        try:
            part = headers.get(PART)
            types = headers.get(TYPES)
            hold = headers.get(HOLD)
            return cls(
                session=headers[SESSION],
                first_seq=int(headers[FIRST_SEQ]),
                last_seq=int(headers[LAST_SEQ]),
                count=int(headers[COUNT]),
                epoch=int(headers[EPOCH]),
                kind=headers.get(KIND, ""),
                types=frozenset(types.split(",")) if types else frozenset(),
                part=_part(part) if part else None,
                behind=headers.get(CACHE) == BEHIND,
                hold=int(hold) if hold else None,
            )
        except (KeyError, ValueError) as error:
            raise WireError(f"bad frame header: {error}") from error


def _part(text: str) -> tuple[int, int]:
    index, _, total = text.partition("/")
    part = int(index), int(total)
    if not 1 <= part[0] <= part[1]:
        raise ValueError(f"part {text} is out of range")
    return part
