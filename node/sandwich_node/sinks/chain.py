"""One shard's chain of frames, with one writer.

Each append asserts the stream sequence of the chain's last frame, over all lanes
(`Nats-Expected-Last-Subject-Sequence-Subject`). Taking over appends a fence frame first: from then on every older
writer's append is refused, whatever its clock or its lease say. An append whose outcome is unknown is settled by
reading the tail: ours -> it landed; a newer epoch -> we are fenced; unchanged -> send it again, and only one of the
two can land.

Invariants: at most one append is in flight; `_last` is only ever set from our own fence, our own acknowledged append,
or a tail that we recognised as our own append.
"""

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from sandwich_node.sinks.frames import Frame, ShardAddress, split_payload
from sandwich_node.sinks.log import (
    Fenced,
    Log,
    LogBusy,
    LogUnavailable,
    PayloadTooLarge,
    StreamMissing,
    Tail,
    WrongLast,
)
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.headers import FENCE, MESSAGE_TTL, FrameHeaders

_log = logging.getLogger(__name__)

RETRY_FIRST_S = 0.05
RETRY_MAX_S = 2.0
BUSY_RETRY_S = 0.005


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the chain stands: the session it was written from, and the last Discord sequence in it.

    `behind`: the cache did not have all of it. `stored_at`: when the frame was stored (Unix seconds), known of one that
    was read.
    """

    session: str
    last_seq: int
    behind: bool = False
    stored_at: float | None = field(default=None, compare=False)


def checkpoint_of(headers: FrameHeaders) -> Checkpoint:
    """What a frame says of the chain. The last of an incomplete run of parts does not count as stored."""
    if headers.part is not None and headers.part[0] < headers.part[1]:
        return Checkpoint(headers.session, headers.first_seq - 1, headers.behind)
    return Checkpoint(headers.session, headers.last_seq, headers.behind)


class Chain:
    """The writer of one shard's chain. `epoch` is the revision of our claim."""

    def __init__(
        self,
        log: Log,
        address: ShardAddress,
        *,
        epoch: int,
        pause: Callable[[float], Awaitable[None]],
        rng: random.Random,
    ) -> None:
        self._store = log
        self._epoch = epoch
        self._pause = pause
        self._rng = rng
        self._stream = subjects.stream_name(address.app)
        self._app = address.app
        self._filter = subjects.chain_filter(address.app, address.group, address.shard)
        self._address = address
        self._last = 0
        self.checkpoint = Checkpoint("", 0)
        self.retries = 0
        self.waiting_reason = ""

    async def take_over(self) -> Checkpoint:
        """Append our fence and return the checkpoint before it. Raises Fenced; waits while the log is away."""
        attempt = 0
        while True:
            try:
                tail = await self._store.tail(self._stream, self._filter)
                if tail is not None and tail.headers.epoch > self._epoch:
                    raise Fenced(self._epoch, tail.headers.epoch)
                stands = Checkpoint("", 0)
                if tail is not None:
                    stands = replace(checkpoint_of(tail.headers), stored_at=tail.stored_at)
                fence = FrameHeaders(
                    session=stands.session,
                    first_seq=stands.last_seq,
                    last_seq=stands.last_seq,
                    count=0,
                    epoch=self._epoch,
                    kind=FENCE,
                    behind=stands.behind,
                )
                expected = tail.stream_seq if tail else 0
                self._last = await self._store.append(
                    self._subject(subjects.DEFAULT_LANE),
                    b"",
                    fence.encode(),
                    chain=self._filter,
                    expected=expected,
                )
            except (WrongLast, LogBusy):
                await self._pause(BUSY_RETRY_S)
            except (LogUnavailable, StreamMissing) as error:
                attempt = await self._wait(attempt, error)
            else:
                self.waiting_reason = ""
                self.checkpoint = stands
                return stands

    def _subject(self, lane: str) -> str:
        return subjects.events_subject(self._app, lane, self._address.group, self._address.shard)

    async def append(self, frame: Frame) -> None:
        """Append one frame, in parts when it is too large. Raises Fenced; waits while the log is away."""
        payload = frame.payload()
        part_bytes = self._store.part_bytes
        if len(payload) <= part_bytes:
            try:
                await self._append(frame, payload, frame.headers(self._epoch))
            except PayloadTooLarge:
                # The server's limit was lowered since we connected: the connection knows the new one.
                part_bytes = min(self._store.part_bytes, len(payload) // 2 + 1)
                await self._append_parts(frame, payload, part_bytes)
        else:
            await self._append_parts(frame, payload, part_bytes)
        self.checkpoint = Checkpoint(frame.session, frame.last_seq, frame.behind)

    async def _append_parts(self, frame: Frame, payload: bytes, part_bytes: int) -> None:
        parts = split_payload(payload, part_bytes)
        for index, part in enumerate(parts, start=1):
            await self._append(frame, part, frame.headers(self._epoch, (index, len(parts))))

    async def _append(self, frame: Frame, payload: bytes, headers: FrameHeaders) -> None:
        attempt = 0
        encoded = headers.encode()
        if frame.ttl_s:
            encoded[MESSAGE_TTL] = f"{frame.ttl_s:.0f}s"
        subject = self._subject(frame.lane)
        while True:
            try:
                self._last = await self._store.append(
                    subject, payload, encoded, chain=self._filter, expected=self._last
                )
            except LogBusy:
                await self._pause(BUSY_RETRY_S)
            except (WrongLast, LogUnavailable, StreamMissing) as error:
                self.retries += 1
                if not isinstance(error, WrongLast):
                    attempt = await self._wait(attempt, error)
                if await self._settled(headers):
                    break
                if isinstance(error, WrongLast):
                    await self._pause(BUSY_RETRY_S)
            else:
                break
        self.waiting_reason = ""

    async def _settled(self, headers: FrameHeaders) -> bool:
        """After an append of unknown outcome: did it land? Raises Fenced."""
        attempt = 0
        while True:
            try:
                tail = await self._store.tail(self._stream, self._filter)
            except (LogUnavailable, StreamMissing) as error:
                attempt = await self._wait(attempt, error)
            else:
                return self._recognise(tail, headers)

    def _recognise(self, tail: Tail | None, headers: FrameHeaders) -> bool:
        if tail is None:
            # Aged out, or the stream was made anew: the chain starts again behind our own claim.
            _log.warning("chain is empty: its last frame is gone from the stream", extra={"chain": self._filter})
            self._last = 0
            return False
        if tail.headers.epoch > self._epoch:
            raise Fenced(self._epoch, tail.headers.epoch)
        if tail.headers == headers and tail.stream_seq != self._last:
            self._last = tail.stream_seq
            return True
        if tail.headers.epoch == self._epoch or tail.stream_seq < self._last:
            # Our own earlier frame, or what a restored stream still has of it: continue behind it.
            self._last = tail.stream_seq
        return False

    async def _wait(self, attempt: int, error: Exception) -> int:
        self.waiting_reason = str(error)
        if isinstance(error, StreamMissing):
            _log.error("the stream is missing and is made again: %s", self._stream, extra={"app": self._app})
            try:
                await self._store.ensure_stream(self._app)
            except LogUnavailable as failure:
                self.waiting_reason = str(failure)
        delay = min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** min(attempt, 10)) * self._rng.uniform(0.5, 1.0)
        await self._pause(delay)
        return attempt + 1
