"""One shard in a worker, from its claim to its release: chain, publisher, protocol machine and socket together."""

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import msgspec

from sandwich_coordinator.ids import Fence
from sandwich_coordinator.types import SessionRecord
from sandwich_node import ipc
from sandwich_node.cache.handover_drain import LeftBehind
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.cache.settings import CacheWriter
from sandwich_node.events.enrich import ShardEnricher
from sandwich_node.events.filters import EventFilter
from sandwich_node.events.guild_arrivals import ShardGuilds
from sandwich_node.events.prefixes import GuildPrefixes
from sandwich_node.events.unreadable import Unreadable
from sandwich_node.gateway import effects as fx
from sandwich_node.gateway import events as ev
from sandwich_node.gateway import opcodes
from sandwich_node.gateway.effects import State
from sandwich_node.gateway.machine import ShardMachine
from sandwich_node.gateway.payloads import ShardConfig, connect_url
from sandwich_node.gateway.session import Session
from sandwich_node.open_files import SocketRoom
from sandwich_node.publishing.chain import Chain, Checkpoint
from sandwich_node.publishing.frames import EventBuffer, ShardOrigin
from sandwich_node.publishing.log import Fenced, Log, LogError, StreamLimits
from sandwich_node.publishing.own_events import OwnEvent
from sandwich_node.publishing.publisher import ShardPublisher
from sandwich_node.rest.clients import RestClients
from sandwich_node.rpc.server import RpcServer
from sandwich_node.rpc.shard import ShardCommands
from sandwich_node.secret import Secret, bot_id_of
from sandwich_node.shards.caching import ShardCaching
from sandwich_node.shards.connection import ShardConnection
from sandwich_node.shards.failures import FailureLog
from sandwich_node.shards.intake import ShardIntake
from sandwich_node.shards.invite_tracking import ShardInviteTracking
from sandwich_node.shards.resume import replay_events, resume_point
from sandwich_sdk.wire.frame import session_hash
from sandwich_sdk.wire.rpc import TIMEOUT, UNAVAILABLE, RpcError
from sandwich_sdk.wire.subjects import DEFAULT_LANE

_log = logging.getLogger(__name__)

FLUSH_BUDGET_S = 5.0
STREAM_RETRY_S = 1.0
MARKERS_PER_AGE = 4
MARKER_MAX_S = 3600.0

READY_BUDGET_S = 5.0
CACHE_BUDGET_S = 1.0
"""A shard is silent meanwhile; what the cache still lacks then is written when the shard has moved on."""
OWN_TIMEOUT_S = 10.0
"""How long a consumer's own event may take into the stream."""

_SHOWN = {
    State.NEW: "connecting",
    State.CONNECTING: "connecting",
    State.GREETING: "connecting",
    State.WAITING: "connecting",
    State.QUEUED: "identifying",
    State.IDENTIFYING: "identifying",
    State.RESUMING: "resuming",
    State.LIVE: "live",
}


class ShardRunner:
    """Runs one claimed shard. `tell` passes messages to the agent and must not wait."""

    def __init__(
        self,
        start: ipc.StartShard,
        log: Log,
        http: aiohttp.ClientSession,
        *,
        tell: Callable[[ipc.ToAgent], None],
        rng: random.Random,
        rests: RestClients | None = None,
        cache: RedisCache | None = None,
        rpc: RpcServer | None = None,
        linger_s: float = 0.0,
        failures: FailureLog | None = None,
        room: SocketRoom | None = None,
    ) -> None:
        self.key = start.key
        self.number = start.run
        self._start = start
        self._gateway_url = start.gateway_url
        self._store = log
        self._http = http
        self._tell = tell
        self._rng = rng
        self._bot = start.bot or bot_id_of(start.token)
        origin = ShardOrigin(shard=start.key, count=start.count, route=start.route, bot=self._bot)
        self._buffer = EventBuffer(origin)
        self._chain = Chain(log, origin, fence=Fence(start.fence), pause=asyncio.sleep, rng=rng)
        age = start.stream_max_age_s
        marker_s = min(MARKER_MAX_S, age / MARKERS_PER_AGE) if age else MARKER_MAX_S
        self._rests = rests
        self._cache = cache
        self._rpc = rpc
        self._failures = failures or FailureLog()
        self._room = room
        self._refusal = ""
        self._options = start.options
        self._commands = ShardCommands(
            app=start.key.app,
            namespace=start.options.cache.namespace_of(start.key.app),
            intents=start.intents,
            bot=lambda: self._bot,
            send=self._send_command,
            relay=self._publish_own,
            cache=cache,
            rng=rng,
            clock=time.monotonic,
        )
        self._caching: ShardCaching | None = None
        self._inviting: ShardInviteTracking | None = None
        self._taken_over = Checkpoint("", 0)
        self._publisher = ShardPublisher(
            self._buffer,
            self._chain,
            linger_s=linger_s,
            marker_s=marker_s,
            replay_events=lambda: replay_events(self._intake.guilds.count),
        )
        self._connection: ShardConnection | None = None
        self._stopping = asyncio.Event()
        self._stop_reason = ""
        self._awaiting_ready = False
        self._waiting = ""
        self._replayed = 0
        guilds = start.session.guilds if start.session else 0
        rules = EventFilter(start.options.events, self._bot)
        unreadable = Unreadable(str(start.key))
        self._intake = ShardIntake(self._publisher, self._commands, rules, unreadable, bot=self._bot, guilds=guilds)
        self._record = start.session
        self.left_behind: LeftBehind | None = None
        self._latency_ms: float | None = None
        self._stored_at: float | None = None

    # --- what the worker asks -----------------------------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """Begin the release; `run` returns when it is done."""
        self._stop_reason = reason
        if not self._stopping.is_set():
            self._stopping.set()
            self._save_guilds()
            if self._awaiting_ready:
                # An IDENTIFY is spent once it is sent: leaving before READY would throw the session away.
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
        if self._caching is not None:
            self._caching.gateway_moved(url)
        if self._connection is not None:
            self._connection.post(ev.GatewayMoved(url))

    def identify_granted(self) -> None:
        """The shard's turn to IDENTIFY came."""
        if self._caching is not None and self._caching.identify_granted():
            return
        if self._connection is not None and not self._stopping.is_set():
            self._connection.post(ev.IdentifyGranted())

    def show_presence(self, presence: dict[str, Any]) -> None:
        """Send the presence once the shard is live; the machine remembers it for every later IDENTIFY."""
        if self._connection is not None and not self._stopping.is_set():
            self._connection.post(ev.CommandQueued(opcodes.PRESENCE_UPDATE, presence))

    def set_options(self, options: ipc.ShardOptions) -> None:
        """Follow a changed configuration from the next event on."""
        self._options = options
        self._intake.rules = EventFilter(options.events, self._bot)
        if self._caching is not None:
            self._caching.follow(options.cache)
        if self._inviting is not None:
            self._inviting.follow(options.invites)
        if self._publisher.enricher is not None:
            self._publisher.enricher = self._enricher()

    def _send_command(self, op: int, data: dict[str, Any]) -> None:
        """Queue a gateway command. Raises ValueError with the reason when it is not taken."""
        if self._connection is None or self._stopping.is_set():
            raise ValueError("the shard moves to another node at this moment")
        self._refusal = ""
        self._connection.post(ev.CommandQueued(op, data))
        if self._refusal:
            raise ValueError(self._refusal)

    async def _publish_own(self, event: OwnEvent) -> str:
        lane = self._intake.rules.lane(event.type) or DEFAULT_LANE
        try:
            async with asyncio.timeout(OWN_TIMEOUT_S):
                return await self._publisher.publish_own(event, uuid.uuid4().hex, lane=lane)
        except ValueError as error:
            raise RpcError(UNAVAILABLE, str(error), 1.0) from None
        except TimeoutError:
            raise RpcError(TIMEOUT, f"not stored within {OWN_TIMEOUT_S:.0f} s: it may still be") from None

    def numbers(self) -> ipc.ShardNumbers:
        """Figures as of now."""
        counters = self._publisher.counters
        return ipc.ShardNumbers(
            key=self.key,
            events=counters.events,
            frames=counters.frames,
            bytes=counters.bytes,
            gaps=counters.gaps,
            replayed=self._replayed,
            repeated=self._buffer.repeated,
            retries=self._chain.retries,
            foreign=self._chain.foreign,
            backlog_events=self._buffer.events_held,
            backlog_bytes=self._buffer.bytes_held,
            guilds=self._intake.guilds.count,
            awaited=self._intake.guilds.awaited,
            unpublished=counters.unpublished,
            unreadable=dict(self._intake.unreadable.totals),
            passed_over=self._intake.unreadable.passed_over,
            cache=self._caching.numbers() if self._caching is not None else None,
            invites=self._inviting.numbers() if self._inviting is not None else None,
            latency_ms=self._latency_ms,
            waiting=self._waiting or self._chain.waiting_reason,
        )

    # --- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> ipc.ShardStopped:
        """Carry the shard until it is released, fenced or failed; returns which, and why."""
        try:
            checkpoint = await self._until_stopped(self._take_over())
            if checkpoint is None:
                return ipc.ShardStopped(self.key, self.number, "released", self._stop_reason)
            self._taken_over = checkpoint
            try:
                how, reason = await self._carry(self._first_session(checkpoint))
            finally:
                if self._rpc is not None:
                    await self._rpc.remove_shard(self.key)
                await self._commands.close()
            return ipc.ShardStopped(self.key, self.number, how, reason)
        except* Fenced as group:
            (fenced,) = group.exceptions
            assert isinstance(fenced, Fenced)
            reason, newer = str(fenced), fenced.newer
        return ipc.ShardStopped(self.key, self.number, "fenced", reason, newer)

    def _open_cache(self, config: ShardConfig, group: asyncio.TaskGroup) -> None:
        if self._cache is not None:
            key = self.key
            writer = CacheWriter(
                shard=key,
                fence=Fence(self._start.fence),
                bot=self._bot,
                intents=self._start.intents,
                settings=self._options.cache,
            )
            self._caching = self._intake.caching = ShardCaching(
                writer,
                self._cache,
                config,
                self._http,
                group,
                key=key,
                commands=self._commands,
                tell=self._tell,
                rng=self._rng,
                caught_up=self._publisher.mark,
                taken_over=self._taken_over,
                room=self._room,
            )

    @property
    def _parts(self) -> list[ShardCaching | ShardInviteTracking]:
        return [part for part in (self._caching, self._inviting) if part is not None]

    async def _open_invites(self, group: asyncio.TaskGroup) -> None:
        if self._rests is None:
            return
        inviting = ShardInviteTracking(self._start, self._rests, self._cache, self._intake, self._publisher, group)
        await inviting.open(self._options.invites, self._taken_over)
        # The configuration may have changed meanwhile.
        inviting.follow(self._options.invites)
        self._inviting = inviting

    def _enricher(self) -> ShardEnricher:
        prefixes = None
        if self._cache is not None and self._intake.rules.prefixes is not None:
            namespace = self._options.cache.namespace_of(self.key.app)
            prefixes = GuildPrefixes(self._cache, namespace, clock=asyncio.get_running_loop().time)
        feed = self._caching.feed if self._caching is not None else None
        return ShardEnricher(
            self._intake.rules, feed, prefixes, self._inviting.lookup if self._inviting is not None else None
        )

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

    async def _take_over(self) -> Checkpoint:
        start = self._start
        self._store.limit_stream(
            start.key.app,
            StreamLimits(
                max_age_s=start.stream_max_age_s, max_bytes=start.stream_max_bytes, replicas=start.stream_replicas
            ),
        )
        while True:
            try:
                await self._store.ensure_stream(start.key.app)
            except LogError as error:
                self._waiting = str(error)
                await asyncio.sleep(STREAM_RETRY_S * self._rng.uniform(0.5, 1.0))
            else:
                self._waiting = ""
                return await self._chain.take_over()

    def _first_session(self, checkpoint: Checkpoint) -> Session | None:
        """The session to resume. When the chain's last session cannot be, consumers are told of the gap."""
        start = self._start
        self._stored_at = checkpoint.stored_at
        point = resume_point(
            start.session, checkpoint, intents=start.intents, count=start.count, token_hash=start.token_hash
        )
        if not point.session_id:
            if checkpoint.session:
                self._gap(checkpoint.session, checkpoint.last_seq, point.reason)
            return None
        name = session_hash(point.session_id)
        if checkpoint.session != name:
            # Its last owner ended between READY and the stream: etcd knows the session, the stream nothing of it.
            if checkpoint.session:
                self._gap(checkpoint.session, checkpoint.last_seq, "the session ended and its end was not stored")
            self._gap(name, point.seq - 1, "the session's READY was not stored")
        self._intake.begin_session(point.session_id, point.seq)
        return Session(id=point.session_id, sequence=point.seq, resume_url=point.url)

    def _gap(self, session: str, last_seq: int, reason: str) -> None:
        note = {"session": session, "last_seq": last_seq, "at": time.time(), "reason": reason}
        self._publisher.gap(session=session, last_seq=last_seq, note=msgspec.json.encode(note))
        self._tell(ipc.EventsLost(key=self.key, session=session, last_seq=last_seq, reason=reason))

    async def _carry(self, session: Session | None) -> tuple[str, str]:
        start = self._start
        config = ShardConfig(
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
        clock = asyncio.get_running_loop().time
        connection = ShardConnection(
            ShardMachine(config, session, self._rng),
            http=self._http,
            sink=self._intake,
            observer=self,
            clock=clock,
            room=self._room,
        )
        async with asyncio.TaskGroup() as group:
            self._open_cache(config, group)
            await self._open_invites(group)
            self._publisher.enricher = self._enricher()
            publishing = group.create_task(self._publisher.run())
            running = group.create_task(connection.run())
            self._connection = connection
            if self._stopping.is_set():
                connection.post(ev.StopRequested(self._stop_reason))
            if self._rpc is not None:
                await self._rpc.add_shard(self.key, self._commands)
            end = await running
            self._connection = None
            await self._finish()
            publishing.cancel()
        if isinstance(end, fx.Failed):
            return "failed", f"{end.code}: {end.reason}"
        return "released", self._stop_reason

    async def _finish(self) -> None:
        """Nothing more is read: store what was, and what the next owner needs."""
        parts = self._parts
        if self._inviting is not None:
            self._inviting.part()
        try:
            async with asyncio.timeout(FLUSH_BUDGET_S):
                await self._publisher.flushed()
            async with asyncio.timeout(CACHE_BUDGET_S):
                for part in parts:
                    await part.drained()
        except TimeoutError:
            # What is not in the stream yet is replayed to the next owner: the checkpoint is behind it.
            # Nor is what the cache lacks lost: the chain's last frame says that it is behind.
            _log.warning("shard %s ends with %d events not stored", self.key, self._buffer.events_held)
        for part in parts:
            part.stop()
        if self._caching is not None:
            self.left_behind = await self._caching.leave(self._publisher)

    # --- the connection's observer ---------------------------------------------------------------------

    def observe(self, report: fx.Report) -> None:
        """Pass on what the machine reports."""
        match report:
            case fx.StateChanged(state, reason) if state in _SHOWN:
                self._ready_or_refused(state)
                for part in self._parts:
                    part.state_changed(state)
                self._tell(ipc.ShardChanged(self.key, _SHOWN[state], reason))
                if state is State.WAITING:
                    self._log_failure(logging.INFO, f"connects again: {reason}")
            case fx.SessionStarted():
                self._session_started(report)
            case fx.SessionLost(session, reason):
                _log.warning("shard %s lost its session: %s", self.key, reason)
                self._gap(session_hash(session.id), session.sequence, reason)
                self._tell(ipc.SessionDropped(self.key, reason))
            case fx.Resumed(replayed):
                self._replayed += replayed
                _log.info("shard %s resumed, %d events replayed", self.key, replayed)
                self._tell_back("resumed", replayed)
            case fx.RequestIdentify():
                self._tell(ipc.IdentifyWanted(self.key))
            case fx.IdentifyWithdrawn():
                self._tell(ipc.IdentifyWithdrawn(self.key))
            case fx.IdentifySent():
                self._tell(ipc.IdentifySent(self.key))
            case fx.GatewayUnreachable(url, why):
                self._log_failure(logging.WARNING, f"cannot reach the gateway at {url}: {why}")
                self._tell(ipc.GatewayUnreachable(self.key, url, why))
            case fx.LatencyMeasured(seconds):
                self._latency_ms = round(seconds * 1000, 1)
            case fx.Malformed(sequence, reason):
                self._intake.unreadable.pass_over(sequence, reason)
            case fx.CommandRefused(op, reason):
                self._refusal = reason
                _log.warning("shard %s: command %d was not sent: %s", self.key, op, reason)

    def _log_failure(self, level: int, text: str) -> None:
        line = self._failures.note(f"shard {self.key} {text}", time.monotonic())
        if line is not None:
            _log.log(level, "%s", line)

    def _ready_or_refused(self, state: State) -> None:
        """The answer to an IDENTIFY came, or the wait for it ended: a stop that waited for it goes on."""
        waited, self._awaiting_ready = self._awaiting_ready, state is State.IDENTIFYING
        if waited and not self._awaiting_ready and self._stopping.is_set():
            # Not at once: what the machine asked for together with this report (the READY, its session) comes first.
            asyncio.get_running_loop().call_soon(self._post_stop)

    def _session_started(self, started: fx.SessionStarted) -> None:
        self._bot = self._intake.bot = started.user_id or self._bot
        self._commands.session_began()
        self._intake.guilds = ShardGuilds(len(started.guild_ids), announced=frozenset(started.guild_ids))
        self._record = SessionRecord(
            session_id=started.session_id,
            resume_url=started.resume_url,
            intents=self._start.intents,
            count=self._start.count,
            first_seq=started.first_seq,
            token_hash=self._start.token_hash,
            guilds=self._intake.guilds.count,
        )
        self._tell(ipc.SessionSaved(self.key, self._record, self._bot, started.user_name))
        self._tell_back("identified", 0)

    def _tell_back(self, how: str, replayed: int) -> None:
        stored_at, self._stored_at = self._stored_at, None
        self._tell(ipc.ShardBack(key=self.key, how=how, replayed=replayed, stored_at=stored_at))

    def _save_guilds(self) -> None:
        """Let the next owner know how many guilds the shard is in."""
        record = self._record
        if (
            record is not None
            and record.session_id == self._intake.session_id
            and record.guilds != self._intake.guilds.count
        ):
            self._record = msgspec.structs.replace(record, guilds=self._intake.guilds.count)
            self._tell(ipc.SessionSaved(self.key, self._record, self._bot, ""))
