"""One shard's chain of frames, with one writer.

Each append asserts the stream sequence of the chain's last frame, over all lanes
(`Nats-Expected-Last-Subject-Sequence-Subject`). A new owner first appends a fence frame: from then on every append of
an older owner is refused, whatever its clock or its lease say.

An append whose outcome is unknown is settled by reading the tail. The tail is our append: it was stored. It has a newer
fence: we are fenced. It is unchanged: the append is sent again, and only one of the two can be stored. If the tail is
before what was acknowledged, the stream lost frames (deleted or purged by hand, restored, expired): a gap frame informs
consumers, and the chain goes on behind it. After a message that no node wrote, the chain goes on behind that message,
once it is certain that no newer owner wrote between our last frame and it (`Walk`).

Invariants: at most one append is in flight. `_last` is only set from our own fence frame, our own acknowledged append,
or an end of the chain before which no newer owner wrote. `_own` is the sequence of our last frame.
"""

import logging
import random
import time
from collections.abc import Awaitable, Callable

import msgspec

from sandwich_coordinator.backoff import Backoff
from sandwich_coordinator.ids import Fence
from sandwich_node.publishing.foreign_messages import ChainEnd, Search, Walk
from sandwich_node.publishing.frames import Frame, ShardOrigin, split_payload
from sandwich_node.publishing.log import (
    Append,
    Fenced,
    Foreign,
    Log,
    LogBusy,
    LogUnavailable,
    PayloadTooLarge,
    StreamMissing,
    Tail,
    WrongLast,
)
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.headers import END, FENCE, GAP, MARKER, MESSAGE_TTL, FrameHeaders

_log = logging.getLogger(__name__)

RETRY_FIRST_S = 0.05
RETRY_MAX_S = 2.0
BUSY_RETRY_S = 0.005


class Checkpoint(msgspec.Struct, frozen=True, eq=False):
    """How far the chain is: the session that it was written from, and the last Discord sequence in it.

    Two are equal when they are equally far. A Struct, since each append makes one.

    behind     Redis did not have all of its events
    marked     the frame is a marker: its owner ended in good order, with the cache behind
    fence      the fence of the frame's owner; 0 when no frame was read
    stored_at  when the frame was stored (Unix seconds); None when no frame was read
    hold       of a chain that began a hold: the stream's last sequence before it
    end        the stream sequence of the chain's last frame when that is an end frame; else 0
    """

    session: str
    last_seq: int
    behind: bool = False
    marked: bool = False
    fence: Fence = Fence(0)
    stored_at: float | None = None
    hold: int | None = None
    end: int = 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Checkpoint):
            return NotImplemented
        mine, theirs = (self.session, self.last_seq, self.behind), (other.session, other.last_seq, other.behind)
        return mine == theirs


def checkpoint_of(headers: FrameHeaders) -> Checkpoint:
    """The checkpoint that a frame holds. An event of which parts are missing does not count as stored."""
    if headers.part is not None and headers.part[0] < headers.part[1] and not headers.kind:
        return Checkpoint(headers.session, headers.first_seq - 1, headers.behind)
    return Checkpoint(headers.session, headers.last_seq, headers.behind)


class _EndLost(Exception):
    """The stream lost frames that it had acknowledged. `tail` is the chain's last frame now, `end` its last message."""

    def __init__(self, tail: Tail | None, end: int) -> None:
        super().__init__("the stream lost the end of a chain")
        self.tail = tail
        self.end = end


class Chain:
    """The writer of one shard's chain, under the owner's fence."""

    def __init__(
        self,
        log: Log,
        origin: ShardOrigin,
        *,
        fence: Fence,
        pause: Callable[[float], Awaitable[None]],
        rng: random.Random,
    ) -> None:
        self._store = log
        self._fence = fence
        self._pause = pause
        self._rng = rng
        self._shard = origin.shard
        self._stream = subjects.stream_name(origin.shard.app)
        self._filter = subjects.chain_filter(*origin.shard)
        self._subjects: dict[str, str] = {}
        self._last = self._own = 0
        self._owes_notice = False
        self.checkpoint = Checkpoint("", 0)
        self.hold: int | None = None
        """Where the chain's hold began: in each frame from the hold's marker on, until the switch is over."""
        self.retries = 0
        self.foreign = 0
        """Messages that no node wrote, found on the chain's subjects."""
        self.waiting_reason = ""

    @property
    def end(self) -> int:
        """The stream sequence of our last frame."""
        return self._own

    async def take_over(self) -> Checkpoint:
        """Append our fence frame and return the checkpoint before it. Raises Fenced. Waits while the log is away.

        Nothing is appended to a chain that has ended.
        """
        writer = foreign = 0
        backoff = self._backoff()
        found: ChainEnd | None = None
        while True:
            try:
                found = await self._find_end(found)
                tail, foreign = found.tail, max(foreign, found.foreign)
                if tail is not None and tail.headers.epoch > self._fence:
                    raise Fenced(self._fence, Fence(tail.headers.epoch))
                before = Checkpoint("", 0)
                if tail is not None:
                    # With our own fence: an earlier attempt was stored after all.
                    writer = tail.headers.epoch if tail.headers.epoch < self._fence else writer
                    before = msgspec.structs.replace(
                        checkpoint_of(tail.headers),
                        fence=Fence(writer),
                        stored_at=tail.stored_at,
                        marked=tail.headers.kind == MARKER,
                        hold=tail.headers.hold,
                        end=tail.stream_seq if tail.headers.kind == END else 0,
                    )
                    self.hold = tail.headers.hold
                if before.end:
                    self._last, self._own, self.checkpoint = found.end, before.end, before
                    self.waiting_reason = ""
                    return before
                self._last = self._own = await self._append_fence(before, found.end)
            except (WrongLast, LogBusy):
                await self._pause(BUSY_RETRY_S)
            except (LogUnavailable, StreamMissing) as error:
                await self._wait(backoff, error)
            else:
                self.waiting_reason = ""
                self.checkpoint = before
                self._passed(foreign)
                await self._append_notice()
                return before

    async def _append_fence(self, at: Checkpoint, expected: int) -> int:
        fence = FrameHeaders(
            session=at.session,
            first_seq=at.last_seq,
            last_seq=at.last_seq,
            count=0,
            epoch=self._fence,
            kind=FENCE,
            behind=at.behind,
            hold=at.hold,
        )
        subject = self._subject(subjects.DEFAULT_LANE)
        return await self._store.append(Append(subject, b"", fence.encode(), self._filter, expected))

    async def _find_end(self, known: ChainEnd | None = None) -> ChainEnd:
        """Where the chain ends. `known` is not read again: more foreign messages may come meanwhile."""
        end = await self._store.tail(self._stream, self._filter)
        if not isinstance(end, Foreign):
            return ChainEnd(end, end.stream_seq if end is not None else 0)
        if known is None or known.end > end.stream_seq:
            known = await self._search(end)
        while known.end < end.stream_seq:
            message = await self._store.following(self._stream, self._filter, known.end + 1)
            if message is None:
                break
            known = known.then(message)
        return known

    async def _search(self, end: Foreign) -> ChainEnd:
        first = await self._store.following(self._stream, self._filter, 1)
        search = Search(end.stream_seq, may_be_copy=isinstance(first, Foreign) and first.copied is not None)
        while True:
            at = search.start
            while at:
                at = search.see(await self._store.following(self._stream, self._filter, at))
            if search.is_over:
                return search.chain_end
            search.widen()

    def _passed(self, foreign: int) -> None:
        """The chain goes on behind messages that no node wrote."""
        if foreign:
            self.foreign += foreign
            self._owes_notice = True
            _log.error(
                "chain %s: %d messages that no node wrote are on it; it goes on behind them", self._filter, foreign
            )

    async def _append_notice(self) -> None:
        """Report foreign messages in the chain. Those that come meanwhile are reported after the next frame."""
        owed, self._owes_notice = self._owes_notice, False
        if owed:
            await self._append_gap(
                self.checkpoint, "a message that no node wrote was on the chain: nothing is lost by it"
            )

    def _subject(self, lane: str) -> str:
        subject = self._subjects.get(lane)
        if subject is None:
            app, group, shard = self._shard
            subject = self._subjects[lane] = subjects.events_subject(app, lane, group, shard)
        return subject

    def begin(self, frame: Frame, on_end: Callable[[Exception | None], None]) -> bool:
        """Begin the first try to append a frame. False: more than one message is owed, call `append`.

        `on_end` is called once, later: with None when the frame is stored, or with the error. Then the frame must be
        given to `append` together with the error. One append at a time, also with `append`.
        """
        if self._owes_notice or len(payload := frame.payload()) > self._store.part_bytes:
            return False

        def on_answer(answer: int | Exception) -> None:
            if isinstance(answer, Exception):
                on_end(answer)
                return
            self._last = self._own = answer
            self.checkpoint = Checkpoint(frame.session, frame.last_seq, frame.behind)
            self.waiting_reason = ""
            on_end(None)

        headers = _encoded(frame, frame.headers(self._fence, hold=self.hold))
        self._store.begin(Append(self._subject(frame.lane), payload, headers, self._filter, self._last), on_answer)
        return True

    async def append(self, frame: Frame, failed: Exception | None = None) -> int:
        """Append one frame, in parts when it is too large; returns the stream sequence of its last part.

        `failed`: what came of a first try that `begin` made. Raises Fenced. Waits while the log is away.
        """
        payload = frame.payload()
        lost: _EndLost | None = None
        while True:
            try:
                if lost is not None:
                    await self._go_on_behind(lost)
                await self._append_whole(frame, payload, failed)
            except _EndLost as found:
                # Parts that were stored may be lost with the rest: send the whole frame again.
                lost, failed = found, None
            else:
                break
        self.checkpoint = Checkpoint(frame.session, frame.last_seq, frame.behind)
        stored_as = self._own
        if frame.kind != END:
            # Not before the frame: nothing may come between its parts.
            await self._append_notice()
        return stored_as

    async def _append_whole(self, frame: Frame, payload: bytes, failed: Exception | None) -> None:
        part_bytes = self._store.part_bytes
        if failed is not None or len(payload) <= part_bytes:
            # A first try is settled before anything else is appended, whatever the limit is now.
            try:
                await self._append(frame, payload, frame.headers(self._fence, hold=self.hold), failed)
            except PayloadTooLarge:
                # The server's limit was lowered since we connected: the connection knows the new one.
                part_bytes = min(self._store.part_bytes, len(payload) // 2 + 1)
                await self._append_parts(frame, payload, part_bytes)
        else:
            await self._append_parts(frame, payload, part_bytes)

    async def _go_on_behind(self, lost: _EndLost) -> None:
        """Continue behind what is left of the chain, with a gap frame that names what is missing."""
        tail = lost.tail
        self._last = self._own = lost.end
        stored = self.checkpoint
        left = stored if tail is None else checkpoint_of(tail.headers)
        reason = (
            "nothing is left of it in the stream (deleted, emptied, or out of age): what no consumer had read is lost"
        )
        if tail is not None:
            reason = (
                f"the stream lost its end: what it held up to {stored.last_seq} of session {stored.session} is lost"
            )
        _log.error("chain %s: %s", self._filter, reason)
        await self._append_gap(left, reason)

    async def _append_gap(self, at: Checkpoint, reason: str) -> None:
        if at.session:
            note = {"session": at.session, "last_seq": at.last_seq, "at": time.time(), "reason": reason}
            encoded = msgspec.json.encode(note)
            gap = Frame(at.session, at.last_seq, at.last_seq, kind=GAP, note=encoded, behind=at.behind)
            await self._append(gap, gap.payload(), gap.headers(self._fence, hold=self.hold))

    async def _append_parts(self, frame: Frame, payload: bytes, part_bytes: int) -> None:
        parts = split_payload(payload, part_bytes)
        for index, part in enumerate(parts, start=1):
            await self._append(frame, part, frame.headers(self._fence, (index, len(parts)), hold=self.hold))

    async def _append(
        self, frame: Frame, payload: bytes, headers: FrameHeaders, failed: Exception | None = None
    ) -> None:
        backoff: Backoff | None = None
        encoded = _encoded(frame, headers)
        subject = self._subject(frame.lane)
        while True:
            try:
                if failed is not None:
                    first, failed = failed, None
                    raise first
                append = Append(subject, payload, encoded, self._filter, self._last)
                self._last = self._own = await self._store.append(append)
            except LogBusy:
                await self._pause(BUSY_RETRY_S)
            except (WrongLast, LogUnavailable, StreamMissing) as error:
                self.retries += 1
                if not isinstance(error, WrongLast):
                    backoff = backoff or self._backoff()
                    await self._wait(backoff, error)
                if await self._settled(headers):
                    break
                if isinstance(error, WrongLast):
                    await self._pause(BUSY_RETRY_S)
            else:
                break
        self.waiting_reason = ""

    async def _settled(self, headers: FrameHeaders) -> bool:
        """Whether an append of unknown outcome was stored. Raises Fenced, _EndLost."""
        backoff = self._backoff()
        while True:
            try:
                end = await self._store.tail(self._stream, self._filter)
                if isinstance(end, Foreign):
                    return await self._settled_before(end, headers)
            except (LogUnavailable, StreamMissing) as error:
                await self._wait(backoff, error)
            else:
                return self._recognise(end, headers)

    def _recognise(self, tail: Tail | None, headers: FrameHeaders) -> bool:
        """Whether the tail is the append that `headers` belong to. Raises Fenced, _EndLost."""
        if tail is not None and tail.headers.epoch > self._fence:
            raise Fenced(self._fence, Fence(tail.headers.epoch))
        if tail is not None and tail.headers == headers and tail.stream_seq > self._last:
            self._last = self._own = tail.stream_seq
            return True
        end = tail.stream_seq if tail is not None else 0
        if end < self._own or (tail is not None and tail.headers.epoch < self._fence):
            # At least our fence frame was stored, and it is gone.
            raise _EndLost(tail, end)
        # Before `_last`: foreign messages behind our last frame are gone.
        self._last = end
        return False

    async def _settled_before(self, end: Foreign, headers: FrameHeaders) -> bool:
        """As `_recognise`, for a chain that ends with a foreign message. Raises also what reading raises."""
        kept = await self._store.following(self._stream, self._filter, self._own) if self._own else None
        if self._own and (not isinstance(kept, Tail) or kept.stream_seq != self._own):
            found = await self._find_end()
            self._passed(found.foreign)
            if found.tail is None or not self._recognise(found.tail, headers):
                raise _EndLost(found.tail, found.end)
            self._last = found.end
            return True
        walk, at = Walk(self._fence, headers), self._last + 1
        while at <= end.stream_seq:
            message = await self._store.following(self._stream, self._filter, at)
            if message is None:
                break
            walk.see(message)
            at = message.stream_seq + 1
        self._passed(walk.foreign)
        if walk.left is not None:
            raise _EndLost(walk.left, at - 1)
        self._last = at - 1
        self._own = walk.landed or self._own
        return walk.landed > 0

    def _backoff(self) -> Backoff:
        return Backoff(RETRY_FIRST_S, RETRY_MAX_S, self._rng)

    async def _wait(self, backoff: Backoff, error: Exception) -> None:
        self.waiting_reason = str(error)
        if isinstance(error, StreamMissing):
            try:
                await self._store.ensure_stream(self._shard.app)
            except LogUnavailable as failure:
                self.waiting_reason = str(failure)
        await self._pause(backoff.next_s())


def _encoded(frame: Frame, headers: FrameHeaders) -> dict[str, str]:
    encoded = headers.encode()
    if frame.ttl_s:
        encoded[MESSAGE_TTL] = f"{frame.ttl_s:.0f}s"
    return encoded
