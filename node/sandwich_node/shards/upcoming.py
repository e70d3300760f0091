"""A shard of an upcoming group: its output is withheld, held, and released at the switch (docs/design/scaling.md).

    WITHHELD   events are read; nothing is published or cached. A barrier ends this
    HOLDING    events are kept; the chain's marker says from where on
    RELEASING  what is kept leaves in order, without what the old group has published
    OPEN       the shard is as any other

A crash loses nothing: the marker that begins the hold is the chain's checkpoint until the release, and the marker that
begins the release has the decision. A next owner reads both from the chain (`own_chain.py`).
"""

import asyncio
import copy
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from itertools import count

import msgspec

from sandwich_coordinator.ranges import format_ranges, parse_ranges
from sandwich_coordinator.types import GroupPhase
from sandwich_node import ipc
from sandwich_node.events.asks import Arrival
from sandwich_node.events.guild_arrivals import ShardGuilds
from sandwich_node.gateway import effects as fx
from sandwich_node.gateway import events as ev
from sandwich_node.gateway.effects import State
from sandwich_node.publishing.log import LogError
from sandwich_node.publishing.old_chains import Follower, OldEnd, old_chains
from sandwich_node.publishing.publisher import ShardPublisher
from sandwich_node.shards.hold import (
    HeldEvent,
    HeldLoss,
    HeldStart,
    Hold,
    HoldNote,
    MarkerNote,
    ReleaseNote,
    release_note,
    twins_of,
)
from sandwich_node.shards.intake import ShardIntake
from sandwich_node.shards.own_chain import OwnChain
from sandwich_node.shards.resume import LostEvents
from sandwich_node.shards.services import WorkerServices
from sandwich_node.shards.twins import EventsBefore, mark_twins, published_identity
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.frame import session_hash
from sandwich_sdk.wire.headers import MARKER, SWITCH
from sandwich_sdk.wire.switch import Switch

_log = logging.getLogger(__name__)

READY_QUIET_S = 30.0
"""A shard is ready although guilds are missing, when none arrived for so long: they may be in an outage."""
RESUMED_QUIET_S = 5.0
"""The same for the next owner of a session: it does not know which guilds are still to come."""
RESUMED_MAX_S = 30.0
"""So long it waits at most: to it, a guild that is back from an outage or new is one that was still to come."""
SETTLE_S = 2.0
"""Before the stream's last sequence is read, and between that and the hold. What the old group stores behind it is then
among the events that the upcoming one remembers, and is long enough for repeated events to be distinguished."""
EVENTS_A_TURN = 128
"""After so many released events, the other shards of this process get their turn."""

WITHHELD_PHASES: frozenset[GroupPhase] = frozenset({"canary", "preparing", "holding", "switching"})
_SWITCHED = ("switching", "active")
_ABOUT_GUILDS = ("GUILD_CREATE", "GUILD_DELETE")


class Mode(Enum):
    """What becomes of an event."""

    WITHHELD = "withheld"
    HOLDING = "holding"
    RELEASING = "releasing"
    OPEN = "open"


class Upcoming:
    """Owned by the shard's runner; a `Gate` until the shard is open.

    own           what an earlier owner left of the hold, None for nothing
    post          passes an event to the shard's machine
    open_output   opens cache and invite tracking, behind the ends of the old chains
    publish_loss  puts a gap frame behind what was published
    lanes         the application's lanes now
    on_open       called once the shard is open
    """

    def __init__(
        self,
        start: ipc.StartShard,
        services: WorkerServices,
        intake: ShardIntake,
        publisher: ShardPublisher,
        *,
        own: OwnChain | None,
        post: Callable[[ev.Event], None],
        open_output: Callable[[Mapping[int, OldEnd]], Awaitable[None]],
        publish_loss: Callable[[LostEvents], None],
        lanes: Callable[[], tuple[str, ...]],
        on_open: Callable[[], None],
    ) -> None:
        self.mode = Mode.WITHHELD
        self.twins = 0
        self._key = start.key
        self._count = start.count
        self._phase: GroupPhase = start.phase
        self._services = services
        self._intake = intake
        self._publisher = publisher
        self._post = post
        self._open_output = open_output
        self._publish_loss = publish_loss
        self._lanes = lanes
        self._on_open = on_open
        self._previous = HoldNote()
        if start.previous is not None:
            old = start.previous
            self._previous = HoldNote(group=old.group, count=old.count, ids=old.ids)
        self._hold = Hold()
        self._hold_from = 0
        self._is_stored = False
        self._before = EventsBefore()
        self._guilds = intake.guilds
        self._last: tuple[str, int] = ("", 0)
        self._is_listed = False
        self._is_complete = False
        self._is_live = False
        self._reported = ""
        self._numbers = count(1)
        self._barrier: tuple[int, Callable[[], None], asyncio.Future[bool]] | None = None
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._filled = asyncio.Event()
        self._waits_for = ""
        self._follower: Follower | None = None
        if own is not None:
            self._go_on_with(own)

    def _go_on_with(self, own: OwnChain) -> None:
        """Hold from the first event on, as the last owner did."""
        self.mode = Mode.HOLDING
        # The intake looks at the events once more when they are released.
        self._guilds = copy.deepcopy(self._intake.guilds)
        self._hold_from = own.hold
        if own.note is not None:
            self._previous = own.note
            self._before = EventsBefore(own.before, own.note.recent)
            self._is_stored = self._is_listed = True

    # --- what the runner says ---------------------------------------------------------------------------------------

    def phase_changed(self, phase: GroupPhase) -> None:
        """The group's phase is another."""
        self._phase = phase
        self._pulse()

    def observe(self, report: fx.Report) -> None:
        """Take what the machine reports."""
        match report:
            case fx.StateChanged(state):
                self._is_live = state is State.LIVE
                if not self._is_live:
                    self._reported = ""
                self._pulse()
                self._report()
            case fx.BarrierPassed(number):
                self._barrier_over(number, passed=True)
            case fx.BarrierFailed(number):
                self._barrier_over(number, passed=False)

    def lost(self, events: LostEvents) -> None:
        """A session's further events will not come. While nothing is held, the old group publishes them."""
        if self.mode is not Mode.WITHHELD:
            self._hold.put(HeldLoss(events))

    @property
    def held(self) -> int:
        """How many events are kept now."""
        return self._hold.events_held

    @property
    def waiting(self) -> str:
        """What the shard waits for; "" for nothing."""
        if self.mode is Mode.OPEN:
            return ""
        if self._follower is not None and self._follower.open_chains:
            return f"waits for the end of old shards {format_ranges(self._follower.open_chains)}"
        if self._is_live and not self._is_complete:
            return f"waits for {self._tracker.awaited} guilds"
        return self._waits_for

    # --- events: `Gate` ---------------------------------------------------------------------------------------------

    def dispatch(self, raw: bytes, data: msgspec.Raw, type: str, seq: int, session_id: str, *, damaged: bool) -> bool:
        """See `Gate`."""
        if self.mode is Mode.WITHHELD:
            self._remember(type, data)
            room = self._intake.pass_over(data, type, seq, session_id)
            if type in _ABOUT_GUILDS:
                self._pulse()
            return room
        if self._last[0] == session_id and seq <= self._last[1]:
            return self._hold.has_room
        self._last = session_id, seq
        arrival = self._arrival(type, bytes(data)) if type in _ABOUT_GUILDS else None
        one, is_asked = published_identity(self._intake.rules, type, data, arrival)
        room = self._hold.put(HeldEvent(raw, data, type, seq, session_id, damaged, one, is_asked))
        if not room:
            self._room.clear()
            self._filled.set()
        return room

    def begin_guilds(self, guilds: ShardGuilds) -> None:
        """See `Gate`."""
        self._is_complete, self._is_listed = False, guilds.is_listed
        if self.mode is Mode.WITHHELD:
            self._intake.guilds = guilds
        else:
            self._guilds = copy.deepcopy(guilds)
            self._hold.put(HeldStart(guilds))
        self._pulse()

    async def drained(self) -> None:
        """See `Gate`."""
        if self.mode is Mode.WITHHELD:
            await self._publisher.drained()
        else:
            await self._room.wait()

    def _remember(self, type: str, data: msgspec.Raw) -> None:
        arrival = self._intake.guilds.look(type, bytes(data)) if type in _ABOUT_GUILDS else None
        if type == "GUILD_CREATE" and (arrival is None or not arrival.is_sure):
            # It may be the session's own announcement, which is not the old group's.
            return
        one, is_asked = published_identity(self._intake.rules, type, data, arrival)
        if one is not None:
            self._before.add(one, is_asked=is_asked)

    def _arrival(self, type: str, data: bytes) -> Arrival | None:
        try:
            arrival = self._guilds.take(type, data)
        except Exception:
            # As above.
            _log.debug("an event %s could not be read", type)
            return None
        self._pulse()
        return arrival

    # --- the way to the switch --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the phases until the shard is open."""
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch_guilds())
            if self.mode is Mode.WITHHELD:
                await self._until(lambda: self._phase in ("holding", *_SWITCHED))
                await self._until(lambda: self._is_complete or self._phase in _SWITCHED)
                await self._begin_hold()
            elif not self._is_stored:
                self._push_hold_marker()
            await self._until(lambda: self._phase in _SWITCHED)
            await self._release()
            watching.cancel()

    def _pulse(self) -> None:
        self._changed.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def _watch_guilds(self) -> None:
        """Report the shard ready or holding once all announced guilds are there, for each of its sessions."""
        while True:
            await self._until(lambda: self._is_live and not self._is_complete)
            await self._guilds_arrived()
            self._is_complete = True
            if self._phase not in _SWITCHED:
                # The old group has not ended: it published what the session before could not.
                for held in self._hold:
                    if isinstance(held, HeldLoss):
                        held.is_due = False
            self._pulse()
            self._report()

    @property
    def _tracker(self) -> ShardGuilds:
        return self._intake.guilds if self.mode is Mode.WITHHELD else self._guilds

    async def _guilds_arrived(self) -> None:
        clock = asyncio.get_running_loop().time
        until = clock() + RESUMED_MAX_S
        while self._tracker.awaited or not self._is_listed:
            if not self._is_live:
                await self._next_arrival()
                continue
            quiet_s = READY_QUIET_S if self._is_listed else max(0.0, min(RESUMED_QUIET_S, until - clock()))
            try:
                async with asyncio.timeout(quiet_s):
                    await self._next_arrival()
            except TimeoutError:
                if self._is_live:
                    return

    async def _next_arrival(self) -> None:
        """Wait for one of the session's guilds. Other guilds' events do not count; the session's begin and end do."""
        guilds, arrived, is_live = self._tracker, self._tracker.arrived, self._is_live
        await self._until(
            lambda: self._tracker is not guilds or guilds.arrived != arrived or self._is_live is not is_live
        )

    def _report(self) -> None:
        """Report the state that the leader waits for."""
        if not self._is_live or self.mode is Mode.OPEN:
            return
        holds = self.mode is Mode.RELEASING or (self.mode is Mode.HOLDING and self._is_stored)
        state = "holding" if holds and self._is_complete else "ready"
        if self._is_complete and state != self._reported:
            self._reported = state
            self._services.send(ipc.ShardChanged(self._key, state))

    async def _begin_hold(self) -> None:
        """Keep events from a barrier on that is requested behind a look at the stream's end."""
        stream = subjects.stream_name(self._key.app)
        while self.mode is Mode.WITHHELD:
            await asyncio.sleep(SETTLE_S)
            try:
                extent = await self._services.log.extent(stream)
            except LogError as error:
                self._waits_for = str(error)
                continue
            self._hold_from = extent.last
            self._before.stream_was_read()
            await asyncio.sleep(SETTLE_S)
            await self._pass_barrier(self._start_hold)

    def _start_hold(self) -> None:
        """The barrier is passed: what comes from now on is kept."""
        self.mode = Mode.HOLDING
        self._guilds = copy.deepcopy(self._intake.guilds)
        self._last = self._intake.session_id, self._publisher.buffer.last_seq
        self._push_hold_marker()

    def _push_hold_marker(self) -> None:
        note = self._before.note(self._previous)
        self._publisher.push_kind(
            MARKER, marker(hold=note), hold=self._hold_from, on_stored=lambda _: self._hold_stored()
        )

    def _hold_stored(self) -> None:
        self._is_stored = True
        self._report()

    async def _pass_barrier(self, on_passed: Callable[[], None]) -> bool:
        """Wait until everything is read that Discord had sent until now. `on_passed` is called before the next event.

        False: a new session began instead.
        """
        number = next(self._numbers)
        over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._barrier = number, on_passed, over
        self._waits_for = "waits for the acknowledgement of a heartbeat"
        self._post(ev.BarrierRequested(number))
        try:
            return await over
        finally:
            self._barrier, self._waits_for = None, ""

    def _barrier_over(self, number: int, *, passed: bool) -> None:
        if self._barrier is None or self._barrier[0] != number or self._barrier[2].done():
            return
        _, on_passed, over = self._barrier
        if passed:
            on_passed()
        over.set_result(passed)

    # --- the switch -------------------------------------------------------------------------------------------------

    async def _release(self) -> None:
        old = self._previous
        reader = self._services.previous.reader(self._key.app, old.group)
        chains = (
            old_chains(self._key.shard, self._count, old.count, parse_ranges(old.ids)) if old.count else frozenset()
        )
        follower = reader.follow(self._key.shard, self._count, max(1, old.count), chains, self._hold_from)
        self._follower = follower
        try:
            await reader.ended(follower)
            self._hold.widen()
            self._filled.clear()
            self._room.set()
            await self._open_output(follower.ends)
            await self._twins_received()
            self._decide(follower)
        finally:
            reader.leave(follower)
            self._follower = None
        await self._publish_held()

    async def _twins_received(self) -> None:
        """Wait until the shard has received whatever the old group had received before its end.

        A hold that is full before that is released all the same: reading could not go on.
        """
        barrier = asyncio.ensure_future(self._pass_barrier(lambda: None))
        full = asyncio.ensure_future(self._filled.wait())
        try:
            await asyncio.wait({barrier, full}, return_when=asyncio.FIRST_COMPLETED)
            if not barrier.done():
                _log.warning("shard %s releases a full hold: events at its end may be published twice", self._key)
        finally:
            for task in (barrier, full):
                task.cancel()
            await asyncio.gather(barrier, full, return_exceptions=True)

    def _decide(self, follower: Follower) -> None:
        """Find what the old group has published, and begin the release with that decision."""
        twins = mark_twins(self._hold, self._before, follower, self._previous.count)
        self.twins += twins
        if follower.trouble:
            _log.error("shard %s: %s", self._key, follower.trouble)
        events = self._hold.events
        note = release_note(events, follower.ends, self._lanes())
        self._publisher.push_kind(MARKER, marker(release=note))
        push_switch_frames(self._publisher, self._previous.group, note)
        self.mode = Mode.RELEASING
        _log.info(
            "shard %s releases %d events; the old group has published %d more of the hold",
            self._key,
            len(events) - twins,
            twins,
        )

    async def _publish_held(self) -> None:
        """Pass on what is kept, in order; also what comes meanwhile. Then the gate is open."""
        turn = 0
        while (held := self._hold.take()) is not None:
            if self._hold.has_room:
                self._room.set()
            if not self._pass_on(held):
                await self._publisher.drained()
            turn += 1
            if turn % EVENTS_A_TURN == 0:
                await asyncio.sleep(0)
        self.mode = Mode.OPEN
        self._intake.gate = None
        self._room.set()
        self._on_open()
        if self._is_live:
            self._services.send(ipc.ShardChanged(self._key, "live"))

    def _pass_on(self, held: HeldEvent | HeldLoss | HeldStart) -> bool:
        """False: the publisher has no room for the next."""
        match held:
            case HeldLoss(lost, is_due):
                if is_due:
                    self._publish_loss(lost)
            case HeldStart(guilds):
                self._intake.guilds = guilds
            case HeldEvent() if held.is_twin:
                return self._intake.pass_over(held.data, held.type, held.seq, held.session_id)
            case HeldEvent():
                return self._intake.take(
                    held.raw, held.data, held.type, held.seq, held.session_id, damaged=held.damaged
                )
        return True


class LeavingOut:
    """A `Gate` of the next owner of a shard whose release had begun: twins of the hold are left out here, too."""

    def __init__(
        self, intake: ShardIntake, publisher: ShardPublisher, note: ReleaseNote, *, on_open: Callable[[], None]
    ) -> None:
        self._intake = intake
        self._publisher = publisher
        self._on_open = on_open
        self._note = note
        self._session = ""
        self._twins: frozenset[int] = frozenset()
        self._through = 0

    def dispatch(self, raw: bytes, data: msgspec.Raw, type: str, seq: int, session_id: str, *, damaged: bool) -> bool:
        """See `Gate`."""
        if session_id != self._session:
            self._session = session_id
            self._twins = twins_of(self._note, session_hash(session_id))
            self._through = max(self._twins, default=0)
        if seq in self._twins:
            return self._intake.pass_over(data, type, seq, session_id)
        if seq > self._through:
            self._intake.gate = None
            self._on_open()
        return self._intake.take(raw, data, type, seq, session_id, damaged=damaged)

    def begin_guilds(self, guilds: ShardGuilds) -> None:
        """See `Gate`."""
        self._intake.guilds = guilds

    async def drained(self) -> None:
        """See `Gate`."""
        await self._publisher.drained()


def push_switch_frames(
    publisher: ShardPublisher, old_group: int, note: ReleaseNote, switched: frozenset[str] = frozenset()
) -> None:
    """Queue the switch frames of the lanes that have none yet."""
    switch = Switch(old_group=old_group, after={chain: end.stream_seq for chain, end in sorted(note.ends.items())})
    for lane in note.lanes:
        if lane not in switched:
            publisher.push_kind(SWITCH, switch.encode(), lane=lane)


def marker(hold: HoldNote | None = None, release: ReleaseNote | None = None) -> bytes:
    """The note of a marker, written now."""
    return msgspec.json.encode(MarkerNote(at=int(time.time()), hold=hold, release=release))
