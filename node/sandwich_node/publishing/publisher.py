"""A shard's publisher: takes what the shard read, and appends it to the chain, one append at a time.

Events that arrive while an append is in flight form the next frame (group commit), so that frames grow under load. The
shards of a busy worker publish at its ticks (`ticks.py`), all together. On a quiet worker an event leaves at once. What
is full enough for a frame when the append before it ends does not wait either.

An ordinary frame takes no task: the worker's tick calls `_publish`, the cache's answer `_append_lines`, and the
acknowledgement `_on_end`. What takes several steps (several frames, a failed append, a marker, an event that asks for
more than the cache) is left to the task of `run`. Nothing else is published until that is done.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import msgspec

from sandwich_node.cache.context import Op
from sandwich_node.events.asks import Ask, StoredAsk
from sandwich_node.publishing.chain import Chain
from sandwich_node.publishing.frames import HOLD_OVER, Batch, EventBuffer, Frame, frames_of
from sandwich_node.publishing.own_events import OwnEvent
from sandwich_node.publishing.ticks import Ticks
from sandwich_sdk.wire.headers import END, GAP, MARKER
from sandwich_sdk.wire.subjects import DEFAULT_LANE

ENOUGH_EVENTS = 64
"""A frame this full is not worth waiting for."""
REPLAY_EVENTS_MIN = 100
"""Discord replays at least this many events of a session after a RESUME (docs/design/protocol.md, section 7)."""
UNPUBLISHED_MAX_S = 10.0
"""For how long unpublished events may be missing from the checkpoint."""
MARKERS_PER_TTL = 4


@dataclass(slots=True)
class PublishCounters:
    """Totals since the shard started here."""

    events: int = 0
    frames: int = 0
    bytes: int = 0
    gaps: int = 0
    unpublished: int = 0


class Enricher(Protocol):
    """Adds to events before they leave, or keeps them from consumers."""

    @property
    def ttls(self) -> Mapping[str, float]:
        """For how long each lane with its own retention keeps its frames, in seconds."""

    @property
    def is_whole(self) -> bool:
        """Whether Redis has everything that was read. True if nothing is kept there."""

    def begin(self, batch: Batch, confirmed: int, on_lines: Callable[[Sequence[bytes]], None]) -> bool:
        """As `finish`, without a task. False: this batch needs one, call `finish`.

        `on_lines` is called once, maybe at once, and must not raise.
        """

    async def finish(self, batch: Batch, confirmed: int) -> Sequence[bytes]:
        """The lines as they leave, one for each item; b"" for an item that is not published.

        `confirmed`: the last sequence of the session that is in the stream. Takes a bounded time.
        """


class ShardPublisher:
    """Moves events from the buffer to the chain.

    `enricher` adds to events, or keeps them from consumers, before they leave. `replay_events`: how many events Discord
    replays at least. Before that many events are unpublished in a row, a marker brings the checkpoint up to date.
    """

    def __init__(
        self,
        buffer: EventBuffer,
        chain: Chain,
        *,
        enricher: Enricher | None = None,
        ticks: Ticks | None = None,
        marker_s: float = 3600.0,
        replay_events: Callable[[], int] = lambda: REPLAY_EVENTS_MIN,
    ) -> None:
        self.buffer = buffer
        self.chain = chain
        self.enricher = enricher
        self.counters = PublishCounters()
        self._ticks = ticks or Ticks()
        self._marker_s = marker_s
        self._replay_events = replay_events
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._flushing = False
        self._is_running = False
        self._is_called = False
        """The ticks will call `_publish`. They may do so once more: it finds nothing to do then."""
        self._is_busy = False
        """An append is in flight, or the task of `run` is at work."""
        self._in_flight: tuple[Batch, Frame] | None = None
        self._work: Callable[[], Awaitable[None]] | None = None
        self._fault: Exception | None = None
        self._wake = asyncio.Event()
        """For the task of `run`: there is work, or a fault."""
        self._unmarked: Batch | None = None
        self._unmarked_events = 0
        self._unmarked_since = 0.0
        self._mark_wanted = False
        self._last_ttl_s = 0.0
        self._marker_due = 0.0
        self._marker_timer: asyncio.TimerHandle | None = None
        # A marker behind an end frame would hide it: the next owner would go on with the shard.
        self._ends = False

    def push(
        self,
        raw: bytes,
        event_type: str,
        seq: int,
        lane: str = DEFAULT_LANE,
        ops: tuple[Op, ...] = (),
        size: int = 0,
        ask: Ask | None = None,
        apart: bool = False,
    ) -> bool:
        """Take one event, as `EventBuffer.push`. False: the buffer is full; await `drained` before reading on."""
        room = self.buffer.push(raw, event_type, seq, lane, ops, size, ask, apart)
        if not self._is_called and not self._is_busy:
            self._call()
        if not room:
            self._room.clear()
        return room

    def gap(self, *, session: str, last_seq: int, note: bytes) -> None:
        """Queue a gap frame, behind what was read."""
        self.buffer.push_gap(session=session, last_seq=last_seq, note=note)
        self._call()

    def push_kind(
        self,
        kind: str,
        note: bytes,
        *,
        lane: str = DEFAULT_LANE,
        hold: int | None = None,
        on_stored: Callable[[int], None] | None = None,
    ) -> None:
        """Queue a frame without events, as `EventBuffer.push_kind`."""
        if kind == END:
            self._ends, self._mark_wanted, self._unmarked = True, False, None
        self.buffer.push_kind(kind, note, lane=lane, hold=hold, on_stored=on_stored)
        self._call()

    def push_own(self, event: OwnEvent, name: str, *, lane: str, ask: Ask | None = None) -> str:
        """Queue an own event, behind what was read. Returns its id. Raises ValueError when it is not taken."""
        if not self.buffer.has_room:
            raise ValueError("the shard's buffer is full: NATS takes less than comes in")
        event_id = self.buffer.push_own(event, name, lane=lane, ask=ask)
        self._call()
        return event_id

    async def publish_own(self, event: OwnEvent, name: str, *, lane: str) -> str:
        """As `push_own`; returns once the event is stored."""
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_stored() -> None:
            if not stored.done():
                stored.set_result(None)

        event_id = self.push_own(event, name, lane=lane, ask=StoredAsk(on_stored))
        await stored
        return event_id

    def mark(self) -> None:
        """Append a marker once what was read before is stored, although no event comes. Not behind the chain's end."""
        if self._ends:
            return
        self._mark_wanted = True
        self._call()

    async def drained(self) -> None:
        """Wait until the buffer has room again."""
        await self._room.wait()

    async def flushed(self) -> None:
        """Wait until everything that was taken is in the stream. It does not wait for a tick."""
        self._flushing = True
        if self._is_running and not self._is_busy:
            self._go_on()
        while self._is_busy or self._is_called or self._is_marker_wanted or not self.buffer.empty:
            self._idle.clear()
            await self._idle.wait()

    async def run(self) -> None:
        """Append for ever. Raises Fenced when a newer owner took the chain over."""
        self._is_running = True
        self._call()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if self._fault is not None:
                    raise self._fault
                if self._work is not None:
                    work, self._work = self._work, None
                    await work()
                    self._is_busy = False
                    self._go_on()
        finally:
            self._is_running = False
            if self._marker_timer is not None:
                self._marker_timer.cancel()

    def _call(self) -> None:
        """Have the ticks call `_publish`, unless that will happen anyway."""
        if self._is_running and not self._is_called and not self._is_busy:
            self._is_called = True
            self._ticks.call(self._publish)

    def _publish(self) -> int:
        """Begin to append the next batch, if nothing is in flight. Returns how many events it has."""
        self._is_called = False
        if self._is_busy or not self._is_running:
            return 0
        try:
            return self._publish_next()
        except Exception as error:
            self._fail(error)
            return 0

    def _publish_next(self) -> int:
        batch = self.buffer.take()
        if batch is None:
            self._go_on()
            return 0
        self._is_busy = True
        enricher = self.enricher
        if batch.kind:
            self._leave_to_task(partial(self._publish_batch, batch))
        elif enricher is None:
            self._append_lines(batch, [item.line for item in batch.items])
        elif not enricher.begin(batch, self._confirmed(batch), partial(self._append_lines, batch)):
            self._leave_to_task(partial(self._publish_batch, batch))
        return len(batch.items)

    def _append_lines(self, batch: Batch, lines: Sequence[bytes]) -> None:
        """Begin to append the batch, of which `lines` are published."""
        if not self._is_running:
            return
        try:
            frames = self._frames_of(batch, lines)
            if len(frames) == 1 and self.chain.begin(frames[0], self._on_end):
                self._in_flight = batch, frames[0]
            elif frames:
                self._leave_to_task(partial(self._append, batch, frames))
            else:
                self._confirm(batch)
                self._is_busy = False
                self._go_on()
        except Exception as error:
            self._fail(error)

    def _frames_of(self, batch: Batch, lines: Sequence[bytes]) -> list[Frame]:
        ttls = self.enricher.ttls if self.enricher is not None else {}
        return self._accounted(batch, frames_of(batch, lines, ttls, behind=self._is_behind))

    def _confirmed(self, batch: Batch) -> int:
        """The last sequence of the batch's session that is in the stream."""
        stored = self.chain.checkpoint
        return stored.last_seq if stored.session == batch.session else 0

    def _on_end(self, failed: Exception | None) -> None:
        """The append in flight has ended."""
        if self._in_flight is None or not self._is_running:
            return
        (batch, frame), self._in_flight = self._in_flight, None
        if failed is not None:
            self._leave_to_task(partial(self._append, batch, (frame,), failed))
            return
        try:
            self._count(frame)
            self._confirm(batch)
            self._is_busy = False
            self._go_on()
        except Exception as error:
            self._fail(error)

    def _leave_to_task(self, work: Callable[[], Awaitable[None]]) -> None:
        self._is_busy = True
        self._work = work
        self._wake.set()

    def _fail(self, error: Exception) -> None:
        """An error of our own ends the task of `run`, not those who called."""
        self._is_busy = True
        self._fault = error
        self._wake.set()

    def _go_on(self) -> None:
        """Nothing is in flight: publish what waits, or be idle."""
        buffer = self.buffer
        if not buffer.empty:
            if buffer.events_held < ENOUGH_EVENTS and not self._flushing:
                self._call()
            else:
                self._ticks.took(self._publish(), asyncio.get_running_loop().time())
        elif self._is_marker_wanted:
            self._leave_to_task(self._append_marker)
        else:
            self._idle.set()
            self._await_marker()

    @property
    def _is_marker_wanted(self) -> bool:
        return self._mark_wanted or (self._flushing and self._unmarked is not None)

    async def _append_marker(self) -> None:
        self._mark_wanted = False
        await self.chain.append(self._marker())
        self.counters.frames += 1

    async def _publish_batch(self, batch: Batch) -> None:
        await self._append(batch, await self._frames(batch))

    async def _append(self, batch: Batch, frames: Sequence[Frame], failed: Exception | None = None) -> None:
        for frame in frames:
            if batch.hold is not None:
                self.chain.hold = batch.hold if batch.hold != HOLD_OVER else None
            stored_as = await self.chain.append(frame, failed)
            failed = None
            if batch.on_stored is not None:
                batch.on_stored(stored_as)
            self._count(frame)
        self._confirm(batch)

    def _count(self, frame: Frame) -> None:
        """The frame is stored."""
        self._last_ttl_s = frame.ttl_s
        counters = self.counters
        counters.frames += 1
        counters.events += len(frame.lines)
        counters.gaps += frame.kind == GAP

    def _confirm(self, batch: Batch) -> None:
        """All of the batch that is published is stored."""
        self.buffer.confirm(batch)
        unpublished = 0
        for item in batch.items:
            if item.is_own and isinstance(item.ask, StoredAsk):
                item.ask.on_stored()
            if not item.line:
                unpublished += 1
        self.counters.bytes += batch.size
        self.counters.unpublished += unpublished
        if not self._room.is_set() and self.buffer.has_room:
            self._room.set()

    async def _frames(self, batch: Batch) -> list[Frame]:
        if batch.kind:
            # Its checkpoint is not before what was read and not published.
            self._unmarked, self._unmarked_events = None, 0
            return [msgspec.structs.replace(batch.frame(), behind=self._is_behind)]
        enricher = self.enricher
        if enricher is None:
            lines: Sequence[bytes] = [item.line for item in batch.items]
        else:
            lines = await enricher.finish(batch, self._confirmed(batch))
        return self._frames_of(batch, lines)

    def _accounted(self, batch: Batch, frames: list[Frame]) -> list[Frame]:
        """The frames. A marker instead, when too many events in a row, up to this batch's end, are not published."""
        if frames:
            self._unmarked, self._unmarked_events = None, 0
            return frames
        if self._unmarked is None:
            # From the first one: events that come one by one must not put the marker off for ever.
            self._unmarked_since = asyncio.get_running_loop().time()
        self._unmarked = batch
        self._unmarked_events += len(batch.items)
        if self._unmarked_events * 2 < self._replay_events():
            return []
        return [self._marker()]

    def _marker(self) -> Frame:
        """How far the shard is *now*. With an older sequence, a next owner would store later events a second time."""
        stored, batch = self.chain.checkpoint, self._unmarked
        session, last_seq = (stored.session, stored.last_seq) if batch is None else (batch.session, batch.last_seq)
        self._unmarked, self._unmarked_events = None, 0
        return Frame(session, last_seq, last_seq, kind=MARKER, note=_marker_note(), behind=self._is_behind)

    @property
    def _is_behind(self) -> bool:
        return self.enricher is not None and not self.enricher.is_whole

    def _await_marker(self) -> None:
        """When no event comes for long, the checkpoint is renewed before it expires in the stream."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        wait_s = min(self._marker_s, self._last_ttl_s / MARKERS_PER_TTL) if self._last_ttl_s else self._marker_s
        self._marker_due = now + wait_s
        if self._unmarked is not None:
            self._marker_due = max(now, min(self._marker_due, self._unmarked_since + UNPUBLISHED_MAX_S))
        timer = self._marker_timer
        if timer is None or timer.when() > self._marker_due:
            if timer is not None:
                timer.cancel()
            self._marker_timer = loop.call_at(self._marker_due, self._check_marker)

    def _check_marker(self) -> None:
        """The timer is not set again for each event: it looks whether a marker is due, and when one will be."""
        self._marker_timer = None
        if self._is_busy or self._is_called or self._ends:
            # Not idle: the next time that it is, the timer is set.
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._marker_due:
            self._marker_timer = loop.call_at(self._marker_due, self._check_marker)
            return
        self._leave_to_task(self._append_marker)


def _marker_note() -> bytes:
    return b'{"at":%d}' % time.time()
