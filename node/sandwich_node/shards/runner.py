"""One shard in a worker, from its claim to its release.

    take_over.py        the stream, the chain, the fence frame
    resume.py           which session to resume; pure
    session_reports.py  state, sessions and gaps, to the agent
    command_port.py     gateway commands and own events, from requests
    features.py         the cache, guild prefixes and invite tracking
    intake.py           each event, from the connection to the publisher

The runner joins them to the connection and the publisher, and runs them until the shard is released, fenced or failed.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from sandwich_coordinator.ids import Fence
from sandwich_node import ipc
from sandwich_node.cache.handover_drain import LeftBehind
from sandwich_node.events.filters import EventFilter
from sandwich_node.events.unreadable import Unreadable
from sandwich_node.gateway import effects as fx
from sandwich_node.gateway import events as ev
from sandwich_node.gateway.effects import State
from sandwich_node.gateway.machine import ShardMachine
from sandwich_node.gateway.payloads import ShardConfig, connect_url
from sandwich_node.gateway.session import Session
from sandwich_node.publishing.chain import Chain, Checkpoint
from sandwich_node.publishing.frames import EventBuffer, ShardOrigin
from sandwich_node.publishing.log import Fenced
from sandwich_node.publishing.publisher import ShardPublisher
from sandwich_node.secret import Secret, bot_id_of
from sandwich_node.shards.command_port import CommandPort
from sandwich_node.shards.connection import ShardConnection
from sandwich_node.shards.features import ShardFeatures
from sandwich_node.shards.intake import ShardIntake
from sandwich_node.shards.resume import first_session, replay_events
from sandwich_node.shards.services import WorkerServices
from sandwich_node.shards.session_reports import STATE_NAMES, SessionReports
from sandwich_node.shards.take_over import TakeOver

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
            linger_s=services.linger_s,
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
            Unreadable(str(start.key)),
            bot=bot,
            guilds=start.session.guilds if start.session else 0,
        )
        self._take_over = TakeOver(start, services.log, self._chain, services.rng)
        self._reports = SessionReports(start, services, self._intake, self._publisher)
        self._features = ShardFeatures(start, services, self._intake, self._publisher, self._port.commands)
        self._connection: ShardConnection | None = None
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
            waiting=self._take_over.waiting or self._chain.waiting_reason,
        )

    # --- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> ipc.ShardStopped:
        """Run the shard until it is released, fenced or failed; returns which, and why."""
        try:
            checkpoint = await self._until_stopped(self._take_over.run())
            if checkpoint is None:
                return ipc.ShardStopped(self.key, self.number, "released", self._stop_reason)
            try:
                end = await self._hold(self._first_session(checkpoint), checkpoint)
            finally:
                await self._port.close()
            if isinstance(end, fx.Failed):
                reason = f"{end.code}: {end.reason}"
                return ipc.ShardStopped(self.key, self.number, "failed", reason, close_code=end.code)
            return ipc.ShardStopped(self.key, self.number, "released", self._stop_reason)
        except* Fenced as group:
            (fenced,) = group.exceptions
            assert isinstance(fenced, Fenced)
            reason, newer = str(fenced), fenced.newer
        return ipc.ShardStopped(self.key, self.number, "fenced", reason, newer)

    async def _until_stopped(self, work: Coroutine[None, None, Checkpoint]) -> Checkpoint | None:
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
        return session

    async def _hold(self, session: Session | None, checkpoint: Checkpoint) -> fx.Stopped | fx.Failed:
        """Hold the connection and publish until the shard ends; returns how."""
        services = self._services
        config = self._config()
        connection = ShardConnection(
            ShardMachine(config, session, services.rng),
            http=services.http,
            sink=self._intake,
            observer=self,
            clock=asyncio.get_running_loop().time,
            room=services.room,
        )
        async with asyncio.TaskGroup() as group:
            await self._features.open(config, checkpoint, group)
            publishing = group.create_task(self._publisher.run())
            running = group.create_task(connection.run())
            self._connection = connection
            if self._stopping.is_set():
                connection.post(ev.StopRequested(self._stop_reason))
            else:
                self._port.attach(connection)
            await self._port.open()
            end = await running
            self._connection = None
            self._port.detach()
            await self._finish()
            publishing.cancel()
        return end

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
        match report:
            case fx.StateChanged(state) if state in STATE_NAMES:
                self._ready_or_refused(state)
                self._features.state_changed(state)
            case fx.SessionStarted():
                self._port.commands.session_began()
            case fx.CommandRefused(_, reason):
                self._port.refused(reason)
        self._reports.observe(report)

    def _ready_or_refused(self, state: State) -> None:
        """The answer to an IDENTIFY came, or the wait for it ended: a stop that waited for it goes on."""
        waited, self._awaiting_ready = self._awaiting_ready, state is State.IDENTIFYING
        if waited and not self._awaiting_ready and self._stopping.is_set():
            # Not at once: what the machine asked for together with this report (the READY, its session) comes first.
            asyncio.get_running_loop().call_soon(self._post_stop)


def _marker_s(stream_max_age_s: float) -> float:
    """How often a quiet shard renews its checkpoint, before the stream's maximum age removes it."""
    return min(MARKER_MAX_S, stream_max_age_s / MARKERS_PER_AGE) if stream_max_age_s else MARKER_MAX_S
