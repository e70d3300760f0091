"""One shard's way into the cache: its events in order, and never longer in the way of the stream than a moment.

An event's frame waits for the cache for `WAIT_S` at most. While Redis is slow or away, frames leave without what it
would have added, and what has to be written waits here, with a bound; when it is through, the feed is in step again.
What is given up makes the cache `incomplete` until the shard's guilds are read anew.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sandwich_node.cache.batch import Batch, EventOps
from sandwich_node.cache.context import BadEvent, Op
from sandwich_node.cache.errors import CacheError
from sandwich_node.cache.operations import Translator
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.cache.replies import Applied, Extra
from sandwich_node.cache.settings import Writer

_log = logging.getLogger(__name__)

WAIT_S = 0.25
BACKLOG_BYTES_MAX = 16 * 1024 * 1024
BACKLOG_EVENTS_MAX = 50_000
RETRY_FIRST_S = 0.2
RETRY_MAX_S = 5.0


@dataclass(slots=True)
class FeedCounters:
    """Totals since the shard started here."""

    applied: int = 0
    replayed: int = 0
    late: int = 0
    dropped: int = 0
    refused: int = 0
    malformed: int = 0
    damaged: int = 0
    failed: int = 0


@dataclass(slots=True)
class _Waiting:
    """Events of one frame on their way; `done` gets their extras, or None when nobody waits any more."""

    session: str
    confirmed: int
    events: tuple[EventOps, ...]
    starts_session: bool
    done: asyncio.Future[Mapping[int, Extra]] = field(repr=False)

    @property
    def size(self) -> int:
        return sum(event.size for event in self.events)


class CacheFeed:
    """Feeds one shard's events to the cache. `caught_up` is called when the feed is in step again after a delay."""

    def __init__(
        self,
        writer: Writer,
        cache: RedisCache,
        *,
        rng: random.Random,
        caught_up: Callable[[], None],
        complete: bool,
        wait_s: float = WAIT_S,
    ) -> None:
        """`complete`: the cache has what happened before, as far as is known."""
        self.writer = writer
        self.counters = FeedCounters()
        self.incomplete = "" if complete else "its last owner ended before the cache had everything"
        self.waiting = ""
        self._cache = cache
        self._rng = rng
        self._caught_up = caught_up
        self._wait_s = wait_s
        self._translator = Translator(writer)
        self._queue: deque[_Waiting] = deque()
        self._queued_events = 0
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._was_late = False
        self._applied_to = 0

    @property
    def backlog(self) -> int:
        """Events that wait for the cache."""
        return self._queued_events

    @property
    def is_whole(self) -> bool:
        """Whether the cache has all that this shard was told."""
        return not self._queue and not self.incomplete

    def translate(self, event_type: str, data: bytes) -> tuple[Op, ...]:
        """What an event changes, by the JSON of its `d`; nothing when it has not the known shape."""
        try:
            return self._translator.translate(event_type, data)
        except BadEvent as error:
            self.counters.malformed += 1
            if self.counters.malformed == 1:
                _log.warning("shard %s/%s: %s; it changes nothing", self.writer.app, self.writer.location, error)
            return ()

    def concerns(self, event_type: str) -> bool:
        """Whether an event of this type can change the cache."""
        return self._translator.concerns(event_type)

    def tells_before(self, event_type: str) -> bool:
        """Whether an event of this type is told with what it replaced."""
        return self._translator.tells_before(event_type)

    async def apply(
        self, session: str, confirmed: int, events: tuple[EventOps, ...], *, starts_session: bool
    ) -> Mapping[int, Extra] | None:
        """Apply a frame's events; what they replaced, by sequence. None: the cache does not have them yet."""
        if not events:
            return {} if not self._queue else None
        is_behind = bool(self._queue)
        done: asyncio.Future[Mapping[int, Extra]] = asyncio.get_running_loop().create_future()
        self._push(_Waiting(session, confirmed, events, starts_session, done))
        if not is_behind:
            await asyncio.wait((done,), timeout=self._wait_s)
            if done.done() and not done.cancelled():
                return done.result()
        done.cancel()
        self._was_late = True
        self.counters.late += len(events)
        return None

    def _push(self, waiting: _Waiting) -> None:
        if self._queued_events >= BACKLOG_EVENTS_MAX or self._queued_bytes >= BACKLOG_BYTES_MAX:
            self._give_up(f"Redis was away for too long: {self.waiting or 'no answer'}")
        self._queue.append(waiting)
        self._queued_events += len(waiting.events)
        self._queued_bytes += waiting.size
        self._idle.clear()
        self._wake.set()

    def _give_up(self, reason: str) -> None:
        """Forget what waits; all but what is being written now."""
        dropped = [self._queue.pop() for _ in range(len(self._queue) - 1)]
        for waiting in dropped:
            self._settle(waiting)
        self.counters.dropped += sum(len(waiting.events) for waiting in dropped)
        self._translator.forget()
        self.mark_incomplete(reason)

    def _settle(self, waiting: _Waiting) -> None:
        self._queued_events -= len(waiting.events)
        self._queued_bytes -= waiting.size
        waiting.done.cancel()

    def mark_incomplete(self, reason: str) -> None:
        """The cache lacks something of this shard's guilds, until they are read anew."""
        if not self.incomplete:
            _log.warning("the cache of shard %s/%s is incomplete: %s", self.writer.app, self.writer.location, reason)
            self.incomplete = reason

    async def run(self) -> None:
        """Write what waits, oldest first, for ever."""
        attempt = 0
        while True:
            if not self._queue:
                self._in_step()
                self._wake.clear()
                await self._wake.wait()
            try:
                await self._write(self._queue[0])
            except CacheError as error:
                self.waiting = str(error)
                self._queue[0].done.cancel()
                delay = min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** min(attempt, 10))
                await asyncio.sleep(delay * self._rng.uniform(0.5, 1.0))
                attempt += 1
            else:
                self.waiting = ""
                attempt = 0
                self._settle(self._queue.popleft())

    def _in_step(self) -> None:
        self._idle.set()
        if self._was_late:
            self._was_late = False
            self._caught_up()

    async def drained(self) -> None:
        """Wait until nothing waits."""
        await self._idle.wait()

    async def _write(self, waiting: _Waiting) -> None:
        applied = await self._cache.apply(
            Batch(writer=self.writer, session=waiting.session, confirmed=waiting.confirmed, events=waiting.events)
        )
        self._count(waiting, applied)
        if waiting.starts_session:
            # READY: every guild follows.
            self.incomplete = ""
        elif applied.is_first and not applied.newer:
            self.mark_incomplete("Redis has no record of this session: it was emptied, or is new")
        elif applied.stood is not None and applied.stood < self._applied_to:
            self.mark_incomplete("Redis lost what was written last")
        self._applied_to = waiting.events[-1].seq
        if not waiting.done.done():
            waiting.done.set_result(applied.extras)

    def _count(self, waiting: _Waiting, applied: Applied) -> None:
        counters = self.counters
        counters.damaged += applied.damaged
        counters.failed += applied.failed
        counters.replayed += applied.replayed
        if applied.newer:
            counters.refused += len(waiting.events)
        else:
            counters.applied += len(waiting.events)
        if applied.failure and applied.failed == counters.failed:
            _log.error("the cache refused a change of %s: %s", self.writer.app, applied.failure)
