"""A shard's publisher: takes what the shard read, appends it to the chain, one append at a time.

Events that arrive while an append is in flight form the next frame (group commit): frames grow under load. A busy
shard's appends are `linger_s` apart, because each costs several times what an event does; a quiet shard's event leaves
at once, and nothing waits once enough of them are there.
"""

import asyncio
import time
from dataclasses import dataclass

from sandwich_node.sinks.chain import Chain
from sandwich_node.sinks.frames import Batch, EventBuffer
from sandwich_sdk.wire.headers import MARKER

ENOUGH_EVENTS = 64
"""A frame this full is not worth waiting for."""


@dataclass(slots=True)
class PublishCounters:
    """Totals since the shard started here."""

    events: int = 0
    frames: int = 0
    bytes: int = 0
    gaps: int = 0


class ShardPublisher:
    """Moves events from the buffer to the chain. Its `dispatch` and `drained` are the shard's sink."""

    def __init__(self, buffer: EventBuffer, chain: Chain, *, linger_s: float = 0.0, marker_s: float = 3600.0) -> None:
        self.buffer = buffer
        self.chain = chain
        self.counters = PublishCounters()
        self._linger_s = linger_s
        self._marker_s = marker_s
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._room.set()
        self._idle.set()
        self._flushing = False

    def dispatch(self, raw: bytes, event_type: str, seq: int) -> bool:
        """Take one event. False: the buffer is full; await `drained` before reading on."""
        room = self.buffer.push(raw, event_type, seq)
        if not self._wake.is_set():
            self._wake.set()
            self._idle.clear()
        if not room:
            self._room.clear()
        return room

    def control(self, kind: str, *, session: str, last_seq: int, note: bytes = b"") -> None:
        """Queue a gap or marker frame."""
        self.buffer.push_control(kind, session=session, last_seq=last_seq, note=note)
        self._idle.clear()
        self._wake.set()

    async def drained(self) -> None:
        """Wait until the buffer has room again."""
        await self._room.wait()

    async def flushed(self) -> None:
        """Wait until everything taken is in the stream; nothing lingers any more."""
        self._flushing = True
        await self._idle.wait()

    async def run(self) -> None:
        """Append for ever. Raises Fenced when somebody else took the chain over."""
        clock = asyncio.get_running_loop().time
        not_before = 0.0
        while True:
            if self.buffer.empty:
                self._idle.set()
                self._wake.clear()
                await self._next_or_marker()
            wait_s = not_before - clock()
            if wait_s > 0 and self.buffer.events_held < ENOUGH_EVENTS and not self._flushing:
                await asyncio.sleep(wait_s)
            not_before = clock() + self._linger_s
            batch = self.buffer.take()
            if batch is not None:
                await self.chain.append(batch)
                self._count(batch)

    async def _next_or_marker(self) -> None:
        """Wait for an event; when none comes for long, renew the checkpoint before it can age out of the stream."""
        try:
            async with asyncio.timeout(self._marker_s):
                await self._wake.wait()
        except TimeoutError:
            stands = self.chain.checkpoint
            self.control(MARKER, session=stands.session, last_seq=stands.last_seq, note=b'{"at":%d}' % time.time())

    def _count(self, batch: Batch) -> None:
        self.buffer.confirm(batch)
        counters = self.counters
        counters.events += len(batch.lines)
        counters.frames += 1
        counters.bytes += batch.size
        if batch.kind == "gap":
            counters.gaps += 1
        if not self._room.is_set() and self.buffer.has_room:
            self._room.set()
