"""What a shard needs of the event log, and how the log may answer.

`Log` carries everything that `shards/` and `Chain` use of the broker. Another broker that has a guarded append is a
second implementation of it; decision 0011 says which brokers can be one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from sandwich_coordinator.ids import Fence
from sandwich_coordinator.problems import Code
from sandwich_sdk.wire.headers import FrameHeaders


class LogError(Exception):
    """Base of the log's answers other than "stored"."""


class WrongLast(LogError):
    """The chain does not end where the writer assumed (JetStream 10071)."""


class LogBusy(LogError):
    """Another append of the same chain is in process (JetStream 10164): try again in a moment."""


class LogUnavailable(LogError):
    """No answer, or the log cannot store now. Whether an append was stored is unknown: read the tail.

    `code`: its problem, where that is known.
    """

    def __init__(self, message: str, code: Code = Code.NATS_UNREACHABLE) -> None:
        super().__init__(message)
        self.code = code


class StreamMissing(LogError):
    """The application's stream does not exist."""


class PayloadTooLarge(LogError):
    """One message may not hold this much."""


class Fenced(Exception):
    """An owner with a newer fence writes this chain: this writer has to stop."""

    def __init__(self, fence: Fence, newer: Fence) -> None:
        super().__init__(f"claim {fence} was superseded by claim {newer}")
        self.fence = fence
        self.newer = newer


class Append(msgspec.Struct, frozen=True):
    """One message for a chain. A Struct, since each frame makes one.

    It is stored only if the last message on `chain`'s subjects has stream sequence `expected` (0: there is none).
    """

    subject: str
    payload: bytes
    headers: Mapping[str, str]
    chain: str
    expected: int


OnAnswer = Callable[[int | Exception], None]
"""Takes what an append came to: the new sequence, or a LogError. Any other error is a fault of our own."""


@dataclass(frozen=True, slots=True)
class Tail:
    """A frame of a chain: its sequence in the stream, its headers, and when it was stored (Unix seconds)."""

    stream_seq: int
    headers: FrameHeaders
    stored_at: float | None = None


@dataclass(frozen=True, slots=True)
class Foreign:
    """A message on a chain's subjects that no node wrote there, and its sequence in the stream.

    `copied`: the frame that it is a copy of. NATS removes a frame's guard when it copies a stream into another.
    """

    stream_seq: int
    copied: Tail | None = None


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """A frame with its payload, as it is in the stream."""

    stream_seq: int
    subject: str
    headers: FrameHeaders
    payload: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Frames of a stream in order. Reading goes on at stream sequence `next_seq`.

    Messages that no node wrote are left out. Nothing more is stored yet when `next_seq` is where the page began.
    """

    frames: tuple[StoredFrame, ...]
    next_seq: int


@dataclass(frozen=True, slots=True)
class Extent:
    """The first and the last sequence that a stream has now. An empty stream has `last` + 1 as its first."""

    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """What one application's stream keeps. Age in seconds, size in bytes; 0 is no limit."""

    max_age_s: float = 24 * 3600.0
    max_bytes: int = 0
    replicas: int = 1


class Log(Protocol):
    """An append-only log with a compare-and-append on the end of a subject space."""

    @property
    def part_bytes(self) -> int:
        """The largest payload that one message may carry."""

    async def append(self, append: Append) -> int:
        """Append, and return the new sequence.

        Raises WrongLast, LogBusy, LogUnavailable, StreamMissing, PayloadTooLarge.
        """

    def begin(self, append: Append, on_answer: OnAnswer) -> None:
        """As `append`, for one of very many: nothing waits for it.

        `on_answer` is called once, with what `append` would return or raise, never before `begin` has returned. It may
        be called after the caller has lost interest, and it must not raise.
        """

    async def tail(self, stream: str, chain: str) -> Tail | Foreign | None:
        """The last message on the chain's subjects, read from the stream's leader.

        Raises LogUnavailable, StreamMissing.
        """

    async def following(self, stream: str, chain: str, seq: int) -> Tail | Foreign | None:
        """The first message on the chain's subjects at or behind stream sequence `seq`. Raises as `tail` does."""

    async def extent(self, stream: str) -> Extent:
        """What the stream has, from its leader. Raises LogUnavailable, StreamMissing."""

    async def read(self, stream: str, subjects: str, seq: int) -> Page:
        """The next frames on `subjects`, which may have wildcards, at or behind stream sequence `seq`. Bounded.

        It may be read from a replica that is not up to date: then the page ends early. Raises as `extent` does.
        """

    def limit_stream(self, app: str, limits: StreamLimits) -> None:
        """Set what the application's stream keeps. The next `ensure_stream` applies it."""

    async def ensure_stream(self, app: str) -> None:
        """Create the application's stream, or bring it in line with its limits. Raises LogUnavailable."""
