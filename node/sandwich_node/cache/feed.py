"""Feeds one shard's events to the cache in order, and delays the stream only briefly.

An event's frame waits for the cache for `WAIT_S` at most. While Redis is slow or unavailable, frames are published
without the extra fields, and the changes wait here in a bounded queue. When the queue is empty, the feed has caught up.
Changes that are dropped make the cache `incomplete` until a resync of the shard's guilds.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

import msgspec

from sandwich_coordinator.backoff import Backoff
from sandwich_node.cache.batch import Batch, EventOps
from sandwich_node.cache.completeness import Completeness
from sandwich_node.cache.context import BadEvent, Op
from sandwich_node.cache.damage_log import Shortfalls, left_out
from sandwich_node.cache.errors import CacheError, CacheFull, CacheReadOnly, CacheRefused
from sandwich_node.cache.operations import Translator
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.cache.replies import Applied, Extra
from sandwich_node.cache.settings import CacheWriter, changed_letters, kept_letters

_log = logging.getLogger(__name__)

WAIT_S = 0.25
BACKLOG_BYTES_MAX = 16 * 1024 * 1024
BACKLOG_EVENTS_MAX = 50_000
RETRY_FIRST_S = 0.2
RETRY_MAX_S = 1.0


@dataclass(slots=True)
class FeedCounters:
    """Totals since the shard started here."""

    applied: int = 0
    replayed: int = 0
    late: int = 0
    dropped: int = 0
    refused: int = 0
    malformed: int = 0
    lost: int = 0
    damaged: int = 0
    failed: int = 0


OnApplied = Callable[[Mapping[int, Extra] | None], None]
"""Takes the extras of a frame's events by sequence; None: the cache does not have the events yet."""


class _Job(msgspec.Struct, kw_only=True, eq=False):
    """One write. `on_applied` is called once, at the latest at `due` (loop time): then the frame waits no longer.

    `is_sent`: it was sent before `run` came to it, and its reply settles it.
    """

    work: Callable[[], Awaitable[Mapping[int, Extra]]]
    events: int = 0
    size: int = 0
    on_applied: OnApplied | None = None
    due: float = 0.0
    is_sent: bool = False
    is_refused: bool = False
    """Redis has answered, and refused it; it waits all the same."""


class CacheFeed:
    """Feeds one shard's events to the cache. `caught_up` is called when a delayed feed has written everything."""

    def __init__(
        self,
        writer: CacheWriter,
        cache: RedisCache,
        *,
        rng: random.Random,
        caught_up: Callable[[], None],
        incomplete: str = "",
        last_owner: Callable[[], Awaitable[bool]] | None = None,
        take_over: Callable[[CacheWriter], Awaitable[str]] | None = None,
        wait_s: float = WAIT_S,
    ) -> None:
        """`incomplete`: why the cache lacks earlier changes; "" if it is not known to lack any.

        `last_owner` waits until the shard's last owner has written everything. The cache is `incomplete` only if it
        returns False, or if there is no last owner to wait for. `take_over` writes before everything else, and returns
        why the cache lacks earlier changes; it is repeated after a CacheError. `lacking` is set while the cache lacks
        anything. `trouble`: the error of the last translation. `begun` is set after the first write.
        """
        self.writer = writer
        self.counters = FeedCounters()
        self.trouble: Exception | None = None
        self.lacking = asyncio.Event()
        self.begun = asyncio.Event()
        self.waiting = ""
        self._cache = cache
        self._rng = rng
        self._caught_up = caught_up
        self._take_over = take_over
        self._wait_s = wait_s
        self._translator = Translator(writer)
        self._shortfalls = Shortfalls()
        self._queue: deque[_Job] = deque()
        self._completeness = Completeness(self._completeness_changed)
        self._queued_events = 0
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_resting = False
        self._waits: _Job | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._was_late = False
        if last_owner is not None:
            self._was_late = True
            self._push(_Job(work=partial(self._wait_for, last_owner, incomplete)))
        elif incomplete:
            self.mark_incomplete(incomplete)
        self._push(_Job(work=self._begin))

    async def _wait_for(self, last_owner: Callable[[], Awaitable[bool]], incomplete: str) -> Mapping[int, Extra]:
        if not await last_owner():
            self.mark_incomplete(incomplete)
        return {}

    async def _begin(self) -> Mapping[int, Extra]:
        """First write: it fences off older owners, and removes entities that are not kept any more."""
        if self._take_over is not None and (lacks := await self._take_over(self.writer)):
            self.mark_incomplete(lacks)
        await self._write_afresh("", (), 0)
        await self._keep()
        self.begun.set()
        return {}

    async def _keep(self) -> Mapping[int, Extra]:
        writer, letters = self.writer, kept_letters(self.writer.settings)
        before = await self._cache.keep(writer, letters)
        if before is not None:
            gone, new = changed_letters(before, letters)
            if gone:
                await self._cache.forget(writer, gone)
            if new:
                self.mark_incomplete("more is kept than before")
        return {}

    @property
    def _shard(self) -> tuple[str, str]:
        return self.writer.shard.app, self.writer.location

    @property
    def incomplete(self) -> str:
        """Why the cache lacks something; "" while it is not known to lack anything."""
        return self._completeness.lacks

    @property
    def is_urgent(self) -> bool:
        """Whether it lacks more than unreadable events."""
        return self._completeness.is_urgent

    @property
    def backlog(self) -> int:
        """The number of events that wait for the cache."""
        return self._queued_events

    @property
    def is_behind(self) -> bool:
        """Whether something is still to be written, here or by the last owner: readers do not see it yet."""
        return self._was_late or bool(self._queue)

    @property
    def has_room(self) -> bool:
        """Whether `refill` may be called again without waiting for `drained`."""
        return self._queued_bytes * 4 < BACKLOG_BYTES_MAX

    @property
    def is_whole(self) -> bool:
        """Whether the cache has everything that Discord has sent to this shard."""
        return not self._was_late and not self.incomplete

    def translate(self, event_type: str, data: bytes) -> tuple[Op, ...]:
        """The operations of an event, by the JSON of its `d`. Unreadable parts are left out, counted and logged."""
        self.trouble = None
        try:
            ops = self._translator.translate(event_type, data)
        except Exception as error:
            # This includes bugs here: raised, the error would end the shard, and Discord would replay the event again.
            self.trouble = error
            why = str(error) if isinstance(error, BadEvent) else f"{event_type}: {type(error).__name__}"
            self._fell_short(event_type, f"{why}; it changes nothing")
            self._completeness.lost(f"an event {event_type} could not be read", is_urgent=False)
            return ()
        if lost := self._translator.lost:
            self.counters.lost += len(lost)
            self._fell_short(event_type, left_out(event_type, lost))
        return ops

    def _fell_short(self, event_type: str, what: str) -> None:
        self.counters.malformed += 1
        if line := self._shortfalls.note(event_type, what, asyncio.get_running_loop().time()):
            _log.warning("shard %s/%s: %s", *self._shard, line)

    def concerns(self, event_type: str) -> bool:
        """Whether an event of this type can change the cache."""
        return self._translator.concerns(event_type)

    def reports_before(self, event_type: str) -> bool:
        """Whether an event of this type is published with the value that it replaced."""
        return self._translator.reports_before(event_type)

    def begin(
        self,
        session: str,
        confirmed: int,
        events: tuple[EventOps, ...],
        *,
        starts_session: bool,
        on_applied: OnApplied,
    ) -> None:
        """Apply a frame's events. `on_applied` is called once, maybe at once; it must not raise."""
        if not events:
            on_applied({})
            return
        loop = asyncio.get_running_loop()
        batch = Batch(writer=self.writer, session=session, confirmed=confirmed, events=events)
        work = partial(self._write, batch, starts_session=starts_session)
        size = sum([event.size for event in events])
        job = _Job(work=work, events=len(events), size=size, due=loop.time() + self._wait_s)
        # Nothing waits before it: it needs no turn of `run`.
        may_send = self._is_resting and not self._queue and not self._was_late and not starts_session
        if may_send and self._cache.begin(batch, size, partial(self._replied, job, batch)):
            job.is_sent = True
        self._push(job)
        if self._was_late:
            self.counters.late += len(events)
            on_applied(None)
            return

        job.on_applied = on_applied
        self._waits = job
        if self._timer is None:
            self._timer = loop.call_at(job.due, self._look_for_late)

    def _answer(self, job: _Job, extras: Mapping[int, Extra] | None) -> None:
        on_applied, job.on_applied = job.on_applied, None
        if on_applied is None:
            return
        if extras is None:
            self._was_late = job in self._queue
            self.counters.late += job.events
        on_applied(extras)

    def _look_for_late(self) -> None:
        """The timer is not set for each frame: it looks whether the frame that waits now waits too long."""
        self._timer = None
        job = self._waits
        if job is None or job.on_applied is None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() < job.due:
            self._timer = loop.call_at(job.due, self._look_for_late)
        else:
            self._answer(job, None)

    def _replied(self, job: _Job, batch: Batch, found: Applied | CacheError) -> None:
        """The reply for a job that is first in the queue. After an error `run` tries again."""
        job.is_sent = False
        if isinstance(found, CacheError):
            self.waiting = str(found)
            self._answer(job, None)
            self._wake.set()
            return
        self.waiting = ""
        extras: Mapping[int, Extra] | None = None
        try:
            self._wrote(batch, found)
            extras = found.extras
        except Exception as error:
            self._made_nothing(error)
        self._remove_first()
        if self._queue:
            self._wake.set()
        else:
            self._in_step()
        self._answer(job, extras)

    def _remove_first(self) -> _Job:
        job = self._queue.popleft()
        self._queued_events -= job.events
        self._queued_bytes -= job.size
        return job

    def _push(self, job: _Job) -> None:
        if self._queued_events >= BACKLOG_EVENTS_MAX or self._queued_bytes >= BACKLOG_BYTES_MAX:
            self._give_up(f"Redis was unavailable for too long: {self.waiting or 'no answer'}")
        self._queue.append(job)
        self._queued_events += job.events
        self._queued_bytes += job.size
        self._idle.clear()
        if not job.is_sent:
            self._wake.set()

    def _give_up(self, reason: str) -> None:
        """Drop all waiting jobs but the one that is being written."""
        dropped = [self._queue.pop() for _ in range(len(self._queue) - 1)]
        for job in dropped:
            self._queued_events -= job.events
            self._queued_bytes -= job.size
        self.counters.dropped += sum(job.events for job in dropped)
        self._translator.forget()
        self._completeness.gave_up(reason)
        for job in dropped:
            self._answer(job, None)

    def mark_incomplete(self, reason: str) -> None:
        """The cache lacks changes of this shard's guilds, until a resync."""
        self._completeness.lost(reason)

    def _completeness_changed(self, lacks: str) -> None:
        if lacks:
            _log.warning("the cache of shard %s/%s is incomplete: %s", *self._shard, lacks)
            self.lacking.set()
        else:
            self.lacking.clear()

    async def run(self) -> None:
        """Write the waiting jobs, oldest first, until cancelled."""
        backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S, self._rng)
        while True:
            while not self._queue or self._queue[0].is_sent:
                await self._rest()
            job = self._queue[0]
            try:
                extras = await job.work()
            except CacheError as error:
                self.waiting = str(error)
                if isinstance(error, CacheFull | CacheReadOnly | CacheRefused) and not job.is_refused:
                    job.is_refused = True
                    self.counters.failed += 1
                self._answer(job, None)
                await asyncio.sleep(backoff.next_s())
            except Exception as error:
                # No second try: it would fail again, and an error raised here would end the shard.
                backoff.succeeded()
                self._made_nothing(error)
                self._answer(self._remove_first(), None)
            else:
                self.waiting = ""
                backoff.succeeded()
                self._answer(self._remove_first(), extras)

    def _made_nothing(self, error: Exception) -> None:
        _log.error("shard %s/%s: a change of the cache failed", *self._shard, exc_info=error)
        self.counters.failed += 1
        self._completeness.lost(f"a change could not be made ({type(error).__name__})", is_urgent=False)

    async def _rest(self) -> None:
        """Wait until a job is to be written here."""
        if not self._queue:
            self._in_step()
        self._wake.clear()
        self._is_resting = True
        try:
            await self._wake.wait()
        finally:
            self._is_resting = False

    def _in_step(self) -> None:
        self._idle.set()
        if self._was_late:
            self._was_late = False
            self._caught_up()

    async def drained(self) -> None:
        """Wait until no job waits."""
        await self._idle.wait()

    async def finish(self, then: Callable[[], Awaitable[None]]) -> None:
        """Write the waiting jobs in place of `run`; then call `then` if the cache has everything."""

        async def work() -> Mapping[int, Extra]:
            if not self.incomplete and not self.counters.refused:
                await then()
            return {}

        self._push(_Job(work=work))
        async with asyncio.TaskGroup() as group:
            running = group.create_task(self.run())
            await self.drained()
            running.cancel()

    async def _write(self, batch: Batch, *, starts_session: bool) -> Mapping[int, Extra]:
        applied = await self._cache.apply(batch)
        self._wrote(batch, applied, starts_session=starts_session)
        return applied.extras

    def _wrote(self, batch: Batch, applied: Applied, *, starts_session: bool = False) -> None:
        self._count(batch, applied)
        self._completeness.wrote(batch, applied, starts_session=starts_session)

    def _count(self, batch: Batch, applied: Applied) -> None:
        counters = self.counters
        counters.damaged += applied.damaged
        counters.failed += applied.failed
        counters.replayed += applied.replayed
        if applied.newer:
            if not counters.refused:
                _log.warning("shard %s/%s has a newer owner: its late changes of the cache are refused", *self._shard)
            counters.refused += len(batch.events)
        else:
            counters.applied += len(batch.events)
        if applied.failure and applied.failed == counters.failed:
            _log.error("the cache refused a change of %s: %s", self.writer.shard.app, applied.failure)

    # --- resync ---------------------------------------------------------------------------------------------------

    def begin_resync(self) -> None:
        """Record the operations on each guild from now on, to repeat them after the guild is written again."""
        self._completeness.begin_resync()

    @property
    def refilling(self) -> bool:
        """Whether a resync may continue. It must end when the record is too large or a new session began."""
        return self._completeness.is_recording

    def end_resync(self, *, complete: bool) -> None:
        """End the resync after all `refill` calls. If `complete`, the cache has everything that was readable."""

        async def work() -> Mapping[int, Extra]:
            if self._completeness.end_resync(complete=complete):
                self._was_late = True
            return {}

        self._push(_Job(work=work))

    def refill(self, event_type: str, data: bytes) -> None:
        """Apply READY or a GUILD_CREATE that another session of the same shard received."""
        ops = self.translate(event_type, data)
        if self.trouble is not None:
            self._completeness.could_not_read_guild()
        if event_type == "READY":
            ops = tuple(("listed", *op[1:]) for op in ops if op[0] == "ready")
        guild = str(ops[0][1]) if ops else ""

        async def work() -> Mapping[int, Extra]:
            return await self._write_afresh(guild, ops, len(data)) if self.refilling else {}

        self._push(_Job(work=work, size=len(data)))

    async def _write_afresh(self, guild: str, ops: tuple[Op, ...], size: int) -> Mapping[int, Extra]:
        """Write the guild, and then repeat the operations on it since the resync began."""
        since = self._completeness.since_resync(guild)
        await self._cache.apply_afresh(self.writer, (EventOps(0, ops, size), EventOps(0, since, 0)))
        return {}

    def follow(self, writer: CacheWriter) -> None:
        """The application's cache settings changed: remove the entities that it does not keep any more."""
        self.writer = writer
        self._translator = Translator(writer)
        self._push(_Job(work=self._keep))

    def release(self) -> None:
        """The application leaves this namespace."""
        writer = self.writer

        async def work() -> Mapping[int, Extra]:
            await self._cache.release(writer)
            return {}

        self._push(_Job(work=work))
