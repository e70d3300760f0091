"""One shard in a worker, from its claim to its release.

    take_over.py        the stream, the chain, the fence frame
    resume.py           which session to resume; pure
    session_reports.py  state, sessions and gaps, to the agent
    command_port.py     gateway commands and own events, from requests
    features.py         the cache, guild prefixes and invite tracking
    intake.py           each event, from the connection to the publisher
    upcoming.py         the shard of an upcoming group: withheld, held, released
    closing.py          the shard of a closing group: read up to a barrier, its chain ended

The runner joins them to the connection and the publisher, and runs them until the shard is released, fenced or failed.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from sandwich_coordinator.ids import Fence
from sandwich_coordinator.types import GroupPhase
from sandwich_node import ipc
from sandwich_node.cache.group_switch import PreviousShards
from sandwich_node.cache.handover_drain import LeftBehind
from sandwich_node.events.filters import EventFilter
from sandwich_node.events.guild_arrivals import ShardGuilds
from sandwich_node.events.unreadable import Unreadable
from sandwich_node.gateway import effects as fx
from sandwich_node.gateway import events as ev
from sandwich_node.gateway.effects import State
from sandwich_node.gateway.machine import ShardMachine
from sandwich_node.gateway.payloads import ShardConfig, connect_url
from sandwich_node.gateway.session import Session
from sandwich_node.publishing.chain import Chain, Checkpoint
from sandwich_node.publishing.frames import HOLD_OVER, EventBuffer, ShardOrigin
from sandwich_node.publishing.log import Fenced
from sandwich_node.publishing.old_chains import OldEnd
from sandwich_node.publishing.publisher import ShardPublisher
from sandwich_node.secret import Secret, bot_id_of
from sandwich_node.shards.caching import group_before
from sandwich_node.shards.closing import ENDED, Closing, end_chain, lanes_left
from sandwich_node.shards.command_port import CommandPort
from sandwich_node.shards.connection import ShardConnection
from sandwich_node.shards.features import ShardFeatures
from sandwich_node.shards.intake import ShardIntake
from sandwich_node.shards.own_chain import OwnChain, Patience, read_own_chain
from sandwich_node.shards.resume import first_session, replay_events
from sandwich_node.shards.services import WorkerServices
from sandwich_node.shards.session_reports import STATE_NAMES, SessionReports
from sandwich_node.shards.take_over import TakeOver
from sandwich_node.shards.upcoming import WITHHELD_PHASES, LeavingOut, Upcoming, marker, push_switch_frames
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.headers import MARKER
from sandwich_sdk.wire.subjects import DEFAULT_LANE

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

FLUSH_BUDGET_S = 5.0
MARKERS_PER_AGE = 4
MARKER_MAX_S = 3600.0

READY_BUDGET_S = 5.0
CACHE_BUDGET_S = 1.0
"""The shard has no owner meanwhile; what the cache still lacks then is written after the shard has moved on."""


class ShardRunner:
    """Runs one claimed shard. `left_behind`: what is still to be written to the cache once `run` has returned."""

    def __init__(self, start: ipc.StartShard, services: WorkerServices) -> None:
        self.key = start.key
        self.number = start.run
        self.left_behind: LeftBehind | None = None
        self._start = start
        self._services = services
        self._gateway_url = start.gateway_url
        bot = start.bot or bot_id_of(start.token)
        origin = ShardOrigin(shard=start.key, count=start.count, route=start.route, bot=bot)
        self._chain = Chain(services.log, origin, fence=Fence(start.fence), pause=asyncio.sleep, rng=services.rng)
        self._publisher = ShardPublisher(
            EventBuffer(origin),
            self._chain,
            ticks=services.ticks,
            marker_s=_marker_s(start.stream_max_age_s),
            replay_events=lambda: replay_events(self._intake.guilds.count),
        )
        self._port = CommandPort(
            start,
            services,
            self._publisher,
            bot=lambda: self._intake.bot,
            lane=lambda event_type: self._intake.rules.lane(event_type),
        )
        self._intake = ShardIntake(
            self._publisher,
            self._port.commands,
            EventFilter(start.options.events, bot),
            Unreadable(str(start.key), clock=services.clock),
            bot=bot,
            guilds=start.session.guilds if start.session else 0,
        )
        self._take_over = TakeOver(start, services.log, self._chain, services.rng)
        self._reports = SessionReports(start, services, self._intake, self._publisher)
        self._features = ShardFeatures(start, services, self._intake, self._publisher, self._port.commands)
        self._machine: ShardMachine | None = None
        self._connection: ShardConnection | None = None
        self._phase = start.phase
        self._upcoming: Upcoming | None = None
        self._closing: Closing | None = None
        self._closes = asyncio.Event()
        self._has_hold = False
        self._patience = Patience(services.rng)
        self._stopping = asyncio.Event()
        self._stop_reason = ""
        self._awaiting_ready = False

    # --- what the worker asks -----------------------------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """Begin the release; `run` returns when it is done."""
        self._stop_reason = reason
        if not self._stopping.is_set():
            self._stopping.set()
            self._port.detach()
            self._reports.save_guilds()
            if self._awaiting_ready:
                # An IDENTIFY is spent once it is sent: to leave before READY would waste the session.
                asyncio.get_running_loop().call_later(READY_BUDGET_S, self._post_stop)
            else:
                self._post_stop()

    def _post_stop(self) -> None:
        if self._connection is not None:
            self._connection.post(ev.StopRequested(self._stop_reason))

    def gateway_moved(self, url: str) -> None:
        """The gateway has another address from now on."""
        try:
            connect_url(url, self._start.compression)
        except ValueError as error:
            _log.warning("shard %s keeps its gateway address: %s", self.key, error)
            return
        self._gateway_url = url
        self._features.gateway_moved(url)
        if self._connection is not None:
            self._connection.post(ev.GatewayMoved(url))

    def identify_granted(self) -> None:
        """The shard's turn to IDENTIFY came."""
        if self._features.identify_granted():
            return
        if self._connection is not None and not self._stopping.is_set():
            self._connection.post(ev.IdentifyGranted())

    def show_presence(self, presence: dict[str, Any]) -> None:
        """Show this presence from now on."""
        self._port.show_presence(presence)

    def set_phase(self, phase: GroupPhase) -> None:
        """The phase of the shard's group changed."""
        self._phase = phase
        if phase == "closing":
            self._begin_closing()
        elif self._upcoming is not None:
            self._upcoming.phase_changed(phase)
        self._forget_hold()

    def set_options(self, options: ipc.ShardOptions) -> None:
        """Follow a changed configuration from the next event on."""
        self._features.follow(options)

    def numbers(self) -> ipc.ShardNumbers:
        """Figures as of now."""
        counters, buffer, intake = self._publisher.counters, self._publisher.buffer, self._intake
        return ipc.ShardNumbers(
            key=self.key,
            events=counters.events,
            frames=counters.frames,
            bytes=counters.bytes,
            gaps=counters.gaps,
            replayed=self._reports.replayed,
            repeated=buffer.repeated,
            retries=self._chain.retries,
            foreign=self._chain.foreign,
            backlog_events=buffer.events_held,
            backlog_bytes=buffer.bytes_held,
            guilds=intake.guilds.count,
            awaited=intake.guilds.awaited,
            unpublished=counters.unpublished,
            unreadable=dict(intake.unreadable.totals),
            passed_over=intake.unreadable.passed_over,
            cache=self._features.cache_numbers(),
            invites=self._features.invite_numbers(),
            latency_ms=self._reports.latency_ms,
            waiting=self._waiting,
            held=self._upcoming.held if self._upcoming is not None else 0,
            twins=self._upcoming.twins if self._upcoming is not None else 0,
        )

    @property
    def _waiting(self) -> str:
        upcoming = self._upcoming.waiting if self._upcoming is not None else ""
        return self._take_over.waiting or self._chain.waiting_reason or self._patience.waiting or upcoming

    # --- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> ipc.ShardStopped:
        """Run the shard until it is released, fenced or failed, or its chain has ended; returns which, and why."""
        try:
            taken_over = await self._until_stopped(self._taken_over())
            if taken_over is None:
                return self._stopped("released", self._stop_reason)
            try:
                end = await self._hold(*taken_over)
            finally:
                await self._port.close()
            if end is None:
                self._services.send(ipc.SessionDropped(self.key, ENDED))
                return self._stopped("ended", ENDED)
            if isinstance(end, fx.Failed):
                reason = f"{end.code}: {end.reason}"
                return ipc.ShardStopped(self.key, self.number, "failed", reason, close_code=end.code)
            return self._stopped("released", self._stop_reason)
        except* Fenced as group:
            (fenced,) = group.exceptions
            assert isinstance(fenced, Fenced)
            reason, newer = str(fenced), fenced.newer
        return ipc.ShardStopped(self.key, self.number, "fenced", reason, newer)

    def _stopped(self, how: str, reason: str) -> ipc.ShardStopped:
        return ipc.ShardStopped(self.key, self.number, how, reason)

    async def _taken_over(self) -> tuple[Checkpoint, OwnChain | None]:
        """The checkpoint, and what the chain has of a hold."""
        checkpoint = await self._take_over.run()
        if checkpoint.end or self._phase == "closing":
            return checkpoint, None
        hold = checkpoint.hold
        if hold is not None:
            end = self._chain.end
            return checkpoint, await self._patience.of(lambda: read_own_chain(self._services.log, self.key, hold, end))
        if self._phase == "switching":
            # The hold is not in the chain any more: whatever came since the chain began may be in it.
            return checkpoint, OwnChain(await self._patience.of(self._first_of_chain) - 1)
        return checkpoint, None

    async def _first_of_chain(self) -> int:
        stream, chain = subjects.stream_name(self.key.app), subjects.chain_filter(*self.key)
        first = await self._services.log.following(stream, chain, 1)
        return first.stream_seq if first is not None else self._chain.end

    async def _until_stopped(self, work: Coroutine[None, None, _T]) -> _T | None:
        """Await `work`, or None once the shard is to stop."""
        task = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for pending in (task, stopping):
                pending.cancel()
            await asyncio.gather(task, stopping, return_exceptions=True)

    def _first_session(self, checkpoint: Checkpoint) -> Session | None:
        """The session to resume. Events that are lost with the last one are reported."""
        start = self._start
        self._reports.taken_over(checkpoint)
        session, lost = first_session(
            start.session, checkpoint, intents=start.intents, count=start.count, token_hash=start.token_hash
        )
        for events in lost:
            self._reports.lost(events)
        if session is not None:
            self._intake.begin_session(session.id, session.sequence)
            if start.session is not None and session.sequence == start.session.first_seq:
                self._intake.begin_guilds(ShardGuilds(start.session.guilds, after_ready=True))
        return session

    async def _hold(self, checkpoint: Checkpoint, own: OwnChain | None) -> fx.Stopped | fx.Failed | None:
        """Hold the connection and publish until the shard ends; returns how. None: its chain has ended."""
        if checkpoint.end:
            return None if await self._until_stopped(self._complete_end(checkpoint)) else fx.Stopped(None)
        services = self._services
        config = self._config()
        if self._phase in WITHHELD_PHASES:
            config = replace(config, presence=await self._port.first_presence())
        async with asyncio.TaskGroup() as group:
            self._prepare_switch(config, checkpoint, own, group)
            session = self._first_session(checkpoint)
            if self._upcoming is None:
                before = self._group_before(own.release.ends) if own is not None and own.release is not None else None
                await self._features.open(config, checkpoint, group, before=before)
            publishing = group.create_task(self._publisher.run())
            if session is None and self._phase == "closing":
                has_ended = await self._until_stopped(self._end_chain())
                self._features.stop()
                publishing.cancel()
                return None if has_ended else fx.Stopped(None)
            self._machine = ShardMachine(config, session, services.rng)
            connection = ShardConnection(
                self._machine,
                http=services.http,
                sink=self._intake,
                observer=self,
                clock=asyncio.get_running_loop().time,
                room=services.room,
            )
            running = group.create_task(connection.run())
            self._connection = connection
            upcoming = group.create_task(self._upcoming.run()) if self._upcoming is not None else None
            if self._stopping.is_set():
                connection.post(ev.StopRequested(self._stop_reason))
            else:
                self._port.attach(connection)
            await self._port.open(withheld=self._upcoming is not None)
            if self._phase == "closing":
                self._begin_closing()
            ending = group.create_task(self._end_when_read(connection))
            end: fx.Stopped | fx.Failed | None = await running
            self._connection = None
            self._port.detach()
            await _cancelled(upcoming)
            if self._closing is None:
                await _cancelled(ending)
                await self._finish()
            elif await self._finish_closing(self._closing, ending):
                end = None
            publishing.cancel()
        return end

    # --- the switch between shard groups ------------------------------------------------------------------------

    def _prepare_switch(
        self, config: ShardConfig, checkpoint: Checkpoint, own: OwnChain | None, group: asyncio.TaskGroup
    ) -> None:
        """Withhold the output of an upcoming group's shard, or go on with its release."""
        self._has_hold = own is not None or self._phase in WITHHELD_PHASES
        if own is not None and own.release is not None:
            old_group = own.note.group if own.note is not None else 0
            push_switch_frames(self._publisher, old_group, own.release, frozenset(own.switched))
            self._intake.gate = LeavingOut(self._intake, self._publisher, own.release, on_open=self._forget_hold)
            return
        if own is None and self._phase not in WITHHELD_PHASES:
            return

        async def open_output(ends: Mapping[int, OldEnd]) -> None:
            before = self._group_before(ends)
            await self._features.open(config, checkpoint, group, before=before, was_withheld=True)

        self._upcoming = self._intake.gate = Upcoming(
            self._start,
            self._services,
            self._intake,
            self._publisher,
            own=own,
            post=self._post,
            open_output=open_output,
            publish_loss=self._reports.publish_loss,
            lanes=lambda: self._lanes,
            on_open=self._opened,
        )
        self._upcoming.phase_changed(self._phase)
        self._reports.withheld = self._upcoming.lost

    def _group_before(self, ends: Mapping[int, OldEnd]) -> PreviousShards | None:
        """What the cache has to know of the group that is replaced."""
        checkpoints = {chain: end.checkpoint for chain, end in ends.items()}
        buffer, guilds = self._publisher.buffer, self._intake.guilds.known
        return group_before(self._start, checkpoints, session=buffer.session, seq=buffer.last_seq, guilds=guilds)

    @property
    def _lanes(self) -> tuple[str, ...]:
        return DEFAULT_LANE, *(lane for lane in self._intake.rules.spec.lanes if lane != DEFAULT_LANE)

    def _post(self, event: ev.Event) -> None:
        if self._connection is not None:
            self._connection.post(event)

    def _opened(self) -> None:
        """The shard is as any other from now on. An own event before its first frames would overtake the old group."""
        self._port.release()
        self._reports.withheld = None
        self._forget_hold()

    def _forget_hold(self) -> None:
        """A next owner needs to know of the hold until all of it is stored, and the switch is over for all shards."""
        if self._phase == "active" and self._intake.gate is None and self._has_hold:
            self._has_hold = False
            self._publisher.push_kind(MARKER, marker(), hold=HOLD_OVER)

    def _begin_closing(self) -> None:
        """The shard's group is replaced: end the chain behind what Discord has sent until now."""
        if self._closing is not None or self._connection is None:
            return
        self._closing = Closing(self._intake, self._connection.post)
        self._closes.set()
        self._closing.begin(has_session=self._machine is not None and self._machine.session is not None)

    async def _finish_closing(self, closing: Closing, ending: asyncio.Task[None]) -> bool:
        """The connection has ended; True once the chain has, too. False: the shard is released before that."""
        if closing.read_all.is_set():
            stopping = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait((ending, stopping), return_when=asyncio.FIRST_COMPLETED)
            await _cancelled(stopping)
            await asyncio.wait((ending,), timeout=FLUSH_BUDGET_S)
            has_ended = ending.done()
            await _cancelled(ending)
            self._features.stop()
            return has_ended
        await _cancelled(ending)
        if not self._stopping.is_set() and await self._until_stopped(self._end_chain()):
            return True
        await self._finish()
        return False

    async def _end_when_read(self, connection: ShardConnection) -> None:
        """End the chain once everything is read, while the session is kept; then end the session as well."""
        await self._closes.wait()
        assert self._closing is not None
        await self._closing.read_all.wait()
        await self._end_chain()
        connection.post(ev.StopRequested(ENDED, keep_session=False))

    async def _end_chain(self) -> bool:
        """Nothing more is read: store what was, and the end frames. Returns True."""
        self._port.detach()
        await self._port.close()
        self._features.reading_ended()
        await self._publisher.flushed()
        try:
            async with asyncio.timeout(CACHE_BUDGET_S):
                await self._features.drained()
        except TimeoutError:
            _log.warning("the cache of shard %s lacks events at the end of its chain", self.key)
        self._features.stop()
        await end_chain(self._publisher, self._lanes)
        self.left_behind = self._features.left_at(self._chain.checkpoint)
        return True

    async def _complete_end(self, checkpoint: Checkpoint) -> bool:
        """The chain has ended. Append the end frames that its last owner did not come to. Returns True."""
        lanes, left = await self._patience.of(lambda: lanes_left(self._services.log, self.key, checkpoint.end))
        self._publisher.buffer.start_session(checkpoint.session, checkpoint.last_seq)
        async with asyncio.TaskGroup() as group:
            publishing = group.create_task(self._publisher.run())
            await end_chain(self._publisher, lanes, left)
            publishing.cancel()
        return True

    def _config(self) -> ShardConfig:
        start = self._start
        return ShardConfig(
            token=Secret(start.token),
            shard=start.key.shard,
            count=start.count,
            intents=start.intents,
            gateway_url=self._gateway_url,
            api_url=start.api_url,
            compression=start.compression,
            large_threshold=start.large_threshold,
            presence=start.presence,
        )

    async def _finish(self) -> None:
        """Nothing more is read: store what was, and what the next owner needs."""
        self._features.reading_ended()
        try:
            async with asyncio.timeout(FLUSH_BUDGET_S):
                await self._publisher.flushed()
            async with asyncio.timeout(CACHE_BUDGET_S):
                await self._features.drained()
        except TimeoutError:
            # Discord replays what is not in the stream yet to the next owner: the checkpoint is before it.
            # What the cache lacks is not lost either: the chain's last frame says that it is behind.
            _log.warning("shard %s ends with %d events not stored", self.key, self._publisher.buffer.events_held)
        self._features.stop()
        self.left_behind = await self._features.leave()

    # --- the connection's observer ------------------------------------------------------------------------------

    def observe(self, report: fx.Report) -> None:
        """Do what a report of the machine means here, and pass it on."""
        if self._closing is not None and not self._closing.observe(report):
            return
        match report:
            case fx.StateChanged(state) if state in STATE_NAMES:
                self._ready_or_refused(state)
                self._features.state_changed(state)
            case fx.SessionStarted():
                self._port.commands.session_began()
            case fx.CommandRefused(_, reason):
                self._port.refused(reason)
        self._reports.observe(report)
        if self._upcoming is not None:
            self._upcoming.observe(report)

    def _ready_or_refused(self, state: State) -> None:
        """The answer to an IDENTIFY came, or the wait for it ended: a stop that waited for it goes on."""
        waited, self._awaiting_ready = self._awaiting_ready, state is State.IDENTIFYING
        if waited and not self._awaiting_ready and self._stopping.is_set():
            # Not at once: what the machine asked for together with this report (the READY, its session) comes first.
            asyncio.get_running_loop().call_soon(self._post_stop)


async def _cancelled(task: asyncio.Task[Any] | None) -> None:
    """Cancel the task and wait until it has ended."""
    if task is not None and not task.done():
        task.cancel()
        await asyncio.wait({task})


def _marker_s(stream_max_age_s: float) -> float:
    """How often a quiet shard renews its checkpoint, before the stream's maximum age removes it."""
    return min(MARKER_MAX_S, stream_max_age_s / MARKERS_PER_AGE) if stream_max_age_s else MARKER_MAX_S
