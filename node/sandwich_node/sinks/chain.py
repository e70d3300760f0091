"""One shard's chain of frames, with one writer.

Each append asserts the stream sequence of the chain's last frame, over all lanes
(`Nats-Expected-Last-Subject-Sequence-Subject`). Taking over appends a fence frame first: from then on every older
writer's append is refused, whatever its clock or its lease say. An append whose outcome is unknown is settled by
reading the tail: ours -> it landed; a newer epoch -> we are fenced; unchanged -> send it again, and only one of the
two can land. A tail that ends before what was acknowledged means that the stream lost it (deleted or purged by hand,
restored, out of age): a gap frame tells consumers, and the chain goes on behind it.

Invariants: at most one append is in flight; `_last` is only ever set from our own fence, our own acknowledged append,
or a tail that no newer owner wrote.
"""

import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import msgspec

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
from sandwich_sdk.wire.headers import FENCE, GAP, MARKER, MESSAGE_TTL, FrameHeaders

_log = logging.getLogger(__name__)

RETRY_FIRST_S = 0.05
RETRY_MAX_S = 2.0
BUSY_RETRY_S = 0.005


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the chain stands: the session it was written from, and the last Discord sequence in it.

    `behind`: what is kept in Redis did not have all of it. Known of a frame that was read: `epoch`, its writer's,
    `stored_at`, when it was stored (Unix seconds), and `marked`: it is a marker, as an owner leaves it who ends in
    good order with the cache behind.
    """

    session: str
    last_seq: int
    behind: bool = False
    marked: bool = field(default=False, compare=False)
    epoch: int = field(default=0, compare=False)
    stored_at: float | None = field(default=None, compare=False)


def checkpoint_of(headers: FrameHeaders) -> Checkpoint:
    """What a frame says of the chain. The last of an incomplete run of parts does not count as stored."""
    if headers.part is not None and headers.part[0] < headers.part[1]:
        return Checkpoint(headers.session, headers.first_seq - 1, headers.behind)
    return Checkpoint(headers.session, headers.last_seq, headers.behind)


class _EndLost(Exception):
    """The chain ends before what the stream had acknowledged; `tail` is what is left of it."""

    def __init__(self, tail: Tail | None) -> None:
        super().__init__("the stream lost the end of a chain")
        self.tail = tail


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
        attempt = writer = 0
        while True:
            try:
                tail = await self._store.tail(self._stream, self._filter)
                if tail is not None and tail.headers.epoch > self._epoch:
                    raise Fenced(self._epoch, tail.headers.epoch)
                stands = Checkpoint("", 0)
                if tail is not None:
                    # Our own epoch: a fence of ours had landed after all.
                    writer = tail.headers.epoch if tail.headers.epoch < self._epoch else writer
                    stands = replace(
                        checkpoint_of(tail.headers),
                        epoch=writer,
                        stored_at=tail.stored_at,
                        marked=tail.headers.kind == MARKER,
                    )
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
        lost: _EndLost | None = None
        while True:
            try:
                if lost is not None:
                    await self._go_on_behind(lost.tail)
                await self._append_whole(frame, payload)
            except _EndLost as found:
                # Parts that were stored may be gone with the rest: the whole frame again.
                lost = found
            else:
                break
        self.checkpoint = Checkpoint(frame.session, frame.last_seq, frame.behind)

    async def _append_whole(self, frame: Frame, payload: bytes) -> None:
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

    async def _go_on_behind(self, tail: Tail | None) -> None:
        """Continue behind what is left of the chain, and say there what is missing."""
        self._last = tail.stream_seq if tail is not None else 0
        stands, stood = self.checkpoint if tail is None else checkpoint_of(tail.headers), self.checkpoint
        reason = "nothing is left of it in the stream (deleted, emptied, or out of age): what nobody had read is lost"
        if tail is not None:
            reason = f"the stream lost its end: what it held up to {stood.last_seq} of session {stood.session} is lost"
        _log.error("chain %s: %s", self._filter, reason)
        if stands.session:
            note = {"session": stands.session, "last_seq": stands.last_seq, "at": time.time(), "reason": reason}
            encoded = msgspec.json.encode(note)
            gap = Frame(stands.session, stands.last_seq, stands.last_seq, kind=GAP, note=encoded, behind=stands.behind)
            await self._append(gap, gap.payload(), gap.headers(self._epoch))

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
        """Whether the tail is the append that `headers` belong to. Raises Fenced, _EndLost."""
        if tail is not None and tail.headers.epoch > self._epoch:
            raise Fenced(self._epoch, tail.headers.epoch)
        if tail is not None and tail.headers == headers and tail.stream_seq != self._last:
            self._last = tail.stream_seq
            return True
        end = tail.stream_seq if tail is not None else 0
        if end < self._last or (tail is not None and tail.headers.epoch < self._epoch):
            # Our fence at least was stored, and is not there any more.
            raise _EndLost(tail)
        self._last = end
        return False

    async def _wait(self, attempt: int, error: Exception) -> int:
        self.waiting_reason = str(error)
        if isinstance(error, StreamMissing):
            try:
                await self._store.ensure_stream(self._app)
            except LogUnavailable as failure:
                self.waiting_reason = str(failure)
        delay = min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** min(attempt, 10)) * self._rng.uniform(0.5, 1.0)
        await self._pause(delay)
        return attempt + 1
