"""Dead letters, wire contract version 1: an event that a consumer group could not handle, stored for operators.

A dead letter is a frame of one event, with the headers and payload of any frame, so that a program that reads events
can read dead letters. `Sandwich-Dead-*` headers say what failed. Anything else (a frame that could not be read, a gap
that could not be handled) is stored unchanged. A dead letter that is too large for one message is split into parts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec
import zstandard

from sandwich_sdk.wire.headers import PART, FrameHeaders, WireError
from sandwich_sdk.wire.plain_text import plain_text

DEAD_KIND = "Sandwich-Dead-Kind"
DEAD_GROUP = "Sandwich-Dead-Group"
DEAD_ID = "Sandwich-Dead-Id"
DEAD_TYPE = "Sandwich-Dead-Type"
DEAD_SUBJECT = "Sandwich-Dead-Subject"
DEAD_SEQ = "Sandwich-Dead-Seq"
DEAD_TRIES = "Sandwich-Dead-Tries"
DEAD_ERROR = "Sandwich-Dead-Error"
DEAD_AT = "Sandwich-Dead-At"
MESSAGE_ID = "Nats-Msg-Id"

REPLAY_SUBJECT = "Sandwich-Replay-Subject"
"""On a replayed dead letter: the subject that its frame was published on."""

EVENT = "event"
CORRUPT = "corrupt"
GAP_LETTER = "gap"

ERROR_CHARACTERS_MAX = 500
AT_MAX = 253_402_300_800.0
"""The year 10000, which `datetime` cannot represent."""
_REMOVED_PREFIXES = ("nats-", "sandwich-dead-", "sandwich-replay-", "sandwich-part")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """The description of a dead letter, besides its frame.

    kind        "event"; "corrupt": the frame could not be read; "gap": the handler for gaps failed
    group       the consumer group that could not handle it
    id, type    the event's; "" unless the kind is "event"
    subject     subject of its frame: the last two tokens are shard group and shard
    stream_seq  its frame's sequence in the stream that the group read
    tries       how often it was tried
    error       the last error: type and text on one line, truncated
    at          when it was given up, Unix seconds
    """

    kind: str
    group: str
    id: str
    type: str
    subject: str
    stream_seq: int
    tries: int
    error: str
    at: float

    def encode(self) -> dict[str, str]:
        """The headers as published."""
        return {
            DEAD_KIND: self.kind,
            DEAD_GROUP: self.group,
            DEAD_ID: self.id,
            DEAD_TYPE: self.type,
            DEAD_SUBJECT: self.subject,
            DEAD_SEQ: str(self.stream_seq),
            DEAD_TRIES: str(self.tries),
            DEAD_ERROR: self.error,
            DEAD_AT: f"{self.at:.3f}",
        }

    @classmethod
    def decode(cls, headers: Mapping[str, str] | None) -> "DeadLetter":
        """Read a dead letter's headers. Raises WireError for a missing or malformed one."""
        found = headers or {}
        try:
            at = float(found[DEAD_AT])
            if not 0.0 <= at < AT_MAX:
                raise ValueError(f"{DEAD_AT} is not a time: {at}")
            return cls(
                kind=found[DEAD_KIND],
                group=found[DEAD_GROUP],
                id=found.get(DEAD_ID, ""),
                type=found.get(DEAD_TYPE, ""),
                subject=found[DEAD_SUBJECT],
                stream_seq=int(found[DEAD_SEQ]),
                tries=int(found[DEAD_TRIES]),
                error=found.get(DEAD_ERROR, ""),
                at=at,
            )
        except (KeyError, ValueError) as error:
            raise WireError(f"not a dead letter: {error}") from error


def error_text(error: BaseException) -> str:
    """An error's type and text on one line of printable ASCII, truncated to `ERROR_CHARACTERS_MAX`."""
    text = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
    return plain_text(text).encode("ascii", "backslashreplace").decode()[:ERROR_CHARACTERS_MAX]


def event_frame(line: bytes, seq: int, event_type: str, frame: FrameHeaders) -> tuple[dict[str, str], bytes]:
    """One event of a frame as a separate frame: headers and payload."""
    headers = msgspec.structs.replace(
        frame, first_seq=seq, last_seq=seq, count=1, types=frozenset((event_type,)), part=None
    )
    return headers.encode(), zstandard.ZstdCompressor().compress(line + b"\n")


def frame_of(headers: Mapping[str, str] | None) -> dict[str, str]:
    """The headers of a frame joined from parts: without those of a dead letter, of a part, and of NATS."""
    return {name: value for name, value in (headers or {}).items() if not name.lower().startswith(_REMOVED_PREFIXES)}


def pieces(headers: Mapping[str, str], payload: bytes, limit: int) -> Iterator[tuple[dict[str, str], bytes]]:
    """The messages of a dead letter, each with at most `limit` bytes of payload and its own message id."""
    total = max(1, -(-len(payload) // limit))
    for index in range(total):
        own = dict(headers)
        if total > 1:
            own[PART] = f"{index + 1}/{total}"
            own[MESSAGE_ID] = f"{headers[MESSAGE_ID]}/{index + 1}"
        yield own, payload[index * limit : (index + 1) * limit]
