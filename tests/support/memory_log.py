"""An event log in memory, with JetStream's guarded append and failures on demand."""

import asyncio
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import lru_cache

from sandwich_node.publishing.awaited_answers import AwaitedAnswers
from sandwich_node.publishing.log import (
    Append,
    Extent,
    Foreign,
    LogError,
    LogUnavailable,
    OnAnswer,
    Page,
    PayloadTooLarge,
    StoredFrame,
    StreamLimits,
    StreamMissing,
    Tail,
    WrongLast,
)
from sandwich_sdk.wire.headers import FrameHeaders

# Each request looks at every message.
_matches = lru_cache(maxsize=None)(fnmatchcase)


class MemoryLog:
    """Implements `sandwich_node.publishing.log.Log`. `fail_next` queues errors: (error, was it stored)."""

    def __init__(self, part_bytes: int = 1_000_000) -> None:
        self._part_bytes = part_bytes
        self.messages: list[tuple[int, str, bytes, FrameHeaders]] = []
        self.copied: set[int] = set()
        """Frames that were copied here from another stream, by sequence."""
        self.foreign: list[tuple[int, str]] = []
        """Messages of another client, added by `intrude`."""
        self.before: Callable[[], None] = lambda: None
        """Called before each request takes effect."""
        self.streams = {"SANDWICH_bot"}
        self.fail_next: list[tuple[LogError, bool]] = []
        self.limits: dict[str, StreamLimits] = {}
        self._next = 1
        self._awaited = AwaitedAnswers()
        self.delay_s = 0.0
        """The duration of an append."""
        self.forget_after: int | None = None
        """After this many further appends the log loses everything."""
        self.page_frames = 3
        self.away = False
        """No request is answered."""

    @property
    def part_bytes(self) -> int:
        return self._part_bytes

    def intrude(self, subject: str) -> None:
        """Add a message that no node wrote."""
        self.foreign.append((self._next, subject))
        self._next += 1

    def _all(self, chain: str) -> list[Tail | Foreign]:
        """The messages on the chain's subjects, in order."""
        frames = [Tail(seq, headers) for seq, subject, _, headers in self.messages if _matches(subject, chain)]
        ours = [Foreign(tail.stream_seq, tail) if tail.stream_seq in self.copied else tail for tail in frames]
        others = [Foreign(seq) for seq, subject in self.foreign if _matches(subject, chain)]
        return sorted([*ours, *others], key=lambda message: message.stream_seq)

    def _last(self, chain: str) -> int:
        """The sequence of the last message on the chain's subjects; 0: there is none."""
        frames = (seq for seq, subject, _, _ in reversed(self.messages) if _matches(subject, chain))
        others = (seq for seq, subject in reversed(self.foreign) if _matches(subject, chain))
        return max(next(frames, 0), next(others, 0))

    async def append(self, append: Append) -> int:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        self._answer()
        error, stored = self.fail_next.pop(0) if self.fail_next else (None, True)
        if error is not None and not stored:
            raise error
        if not self.streams:
            raise StreamMissing("no stream")
        if len(append.payload) > self._part_bytes:
            raise PayloadTooLarge(str(len(append.payload)))
        if self.forget_after is not None:
            self.forget_after -= 1
            if self.forget_after < 0:
                self.messages, self.forget_after = [], None
        self.before()
        if self._last(append.chain) != append.expected:
            raise WrongLast(f"expected {append.expected}")
        seq = self._next
        self._next += 1
        self.messages.append((seq, append.subject, append.payload, FrameHeaders.decode(append.headers)))
        if error is not None:
            raise error
        return seq

    def begin(self, append: Append, on_answer: OnAnswer) -> None:
        self._awaited.give(self.append(append), on_answer)

    async def tail(self, stream: str, chain: str) -> Tail | Foreign | None:
        self._answer()
        if stream not in self.streams:
            raise StreamMissing(stream)
        self.before()
        present = self._all(chain)
        return present[-1] if present else None

    async def following(self, stream: str, chain: str, seq: int) -> Tail | Foreign | None:
        self._answer()
        if stream not in self.streams:
            raise StreamMissing(stream)
        self.before()
        return next((message for message in self._all(chain) if message.stream_seq >= seq), None)

    async def extent(self, stream: str) -> Extent:
        self._answer()
        if stream not in self.streams:
            raise StreamMissing(stream)
        present = [seq for seq, *_ in self.messages] + [seq for seq, _ in self.foreign]
        return Extent(min(present, default=self._next), self._next - 1)

    async def read(self, stream: str, subjects: str, seq: int) -> Page:
        self._answer()
        if stream not in self.streams:
            raise StreamMissing(stream)
        found = [message for message in self.messages if message[0] >= seq and _matches(message[1], subjects)]
        frames = tuple(StoredFrame(at, subject, headers, body) for at, subject, body, headers in found)
        frames = frames[: self.page_frames]
        return Page(frames, frames[-1].stream_seq + 1 if frames else seq)

    def _answer(self) -> None:
        if self.away:
            raise LogUnavailable("no answer")

    def limit_stream(self, app: str, limits: StreamLimits) -> None:
        self.limits[app] = limits

    async def ensure_stream(self, app: str) -> None:
        if app == "unavailable":
            raise LogUnavailable("no")
        self.streams.add(f"SANDWICH_{app}")
