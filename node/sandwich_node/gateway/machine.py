"""The protocol of one shard: facts and time in, effects out. No I/O, no clock, no randomness of its own.

Decides where to connect, whether to RESUME or to IDENTIFY, when to beat, when a connection is dead, what a close means
for the session, how long to wait, and when a queued command may leave. What may happen in which state is TRANSITIONS;
whatever is not listed there is an error of the caller's (IllegalEvent).

States: see `State`. One connection at a time: CONNECTING -> GREETING -> RESUMING, or QUEUED -> IDENTIFYING -> LIVE;
every loss leads to WAITING and from there to CONNECTING; STOPPED and FAILED are ends.
Invariants (`check_invariants`): dispatches are taken only with a session, in RESUMING and LIVE; a connection that was
greeted has a heartbeat; a state that waits for something bounded has a timer.
It never closes with 1000 or 1001 while the session is worth keeping, never sends an IDENTIFY without a permit, and
never a RESUME that was refused for good.

Discord: https://discord.com/developers/docs/events/gateway
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sandwich_node.gateway import effects as fx
from sandwich_node.gateway import events as ev
from sandwich_node.gateway import opcodes, payloads
from sandwich_node.gateway.backoff import IDENTIFY_STABLE_S, GatewayBackoff
from sandwich_node.gateway.effects import Effect, State
from sandwich_node.gateway.envelope import ProtocolError
from sandwich_node.gateway.heartbeat import Heartbeat
from sandwich_node.gateway.opcodes import CloseAction
from sandwich_node.gateway.outbox import Outbox, SendLimiter
from sandwich_node.gateway.payloads import ShardConfig
from sandwich_node.gateway.reach import Reach
from sandwich_node.gateway.session import Session

CONNECT_TIMEOUT_S = 10.0
HELLO_TIMEOUT_S = 20.0
READY_TIMEOUT_S = 180.0
"""In an outage READY takes long; heartbeats go on meanwhile."""
QUEUED_S = 45.0
QUEUED_SPREAD_S = 10.0
"""A connection that waits for its turn to IDENTIFY is opened again after so long, spread by shard: shards that began
together do not all connect together. Discord documents no limit; the simulator closes one after 60 s (4009)."""
REPLAY_TIMEOUT_S = 60.0
"""A RESUME that brings no dispatch and no answer for so long is given up."""
INVALID_SESSION_WAIT_S = (1.0, 5.0)
RESUME_REFUSALS_MAX = 2
RESUME_DROPS_MAX = 6
SESSION_KEPT_S = 180.0
"""Discord keeps a session without a connection for a few minutes (Gateway, Resuming)."""

_GOLDEN = 0.618034
"""Multiples of it, modulo one, are far apart for numbers that are close."""

CONNECTED = frozenset({State.GREETING, State.QUEUED, State.IDENTIFYING, State.RESUMING, State.LIVE})
ENDED = frozenset({State.STOPPED, State.FAILED})


class IllegalEvent(Exception):
    """An event that cannot happen in this state: a mistake of the shell's."""


class ShardMachine:
    """One shard from its first connection to its release.

    `streaming` is the session id while dispatches may be handed on, else "". For these the shell calls `dispatched`
    instead of `handle` (READY and RESUMED excepted): nothing else has to happen at an ordinary event.
    """

    def __init__(self, config: ShardConfig, session: Session | None, rng: random.Random) -> None:
        self.config = config
        self.state = State.NEW
        self.streaming = ""
        self._rng = rng
        self._session = session
        self._sequence = session.sequence if session else 0
        self._heart = Heartbeat()
        self._backoff = GatewayBackoff(rng)
        self._outbox = Outbox(config.commands_max)
        self._limiter = SendLimiter(payloads.HEARTBEAT_INTERVAL_MAX_S)
        self._presence = config.presence
        self._timer: float | None = None
        self._reach = Reach(config.gateway_url, config.refusal)
        self._identify_at = 0.0
        self._acks_awaited = 0
        self._session_since: float | None = None
        self._dispatches = 0
        self._replay_start = 0
        self._replay_seen = 0
        self._resume_refusals = 0
        self._resume_drops = 0
        self._live_since = 0.0
        self._away_since: float | None = None
        self._flushed_at = 0.0
        self._barrier: int | None = None
        self._barrier_acks: int | None = None
        """How many ACKs are still to come until the barrier is passed; None: its heartbeat was not sent yet."""
        self._out: list[Effect] = []

    @property
    def session(self) -> Session | None:
        """The session with its sequence as of now; None when there is none to resume."""
        return replace(self._session, sequence=self._sequence) if self._session else None

    @property
    def presence(self) -> dict[str, Any] | None:
        """What the next IDENTIFY will show."""
        return self._presence

    def dispatched(self, sequence: int) -> None:
        """A dispatch was handed on while `streaming`. The whole cost of an event in here."""
        self._sequence = sequence
        self._dispatches += 1
        self._heart.alive = True

    def received_part(self) -> None:
        """Part of a message came: a sign of life, no more."""
        self._heart.alive = True

    def handle(self, event: ev.Event, now: float) -> Sequence[Effect]:
        """Take one fact. Raises IllegalEvent for one that cannot happen in this state."""
        handler = TRANSITIONS.get((self.state, type(event)))
        if handler is None:
            raise IllegalEvent(f"{type(event).__name__} in state {self.state.value}")
        try:
            handler(self, event, now)
        except ProtocolError as error:
            self._drop(now, str(error))
        return self._taken()

    def tick(self, now: float) -> Sequence[Effect]:
        """Do what is due."""
        if self._timer is not None and now >= self._timer:
            self._timer = None
            _TIMEOUTS[self.state](self, now)
        if self._heart.due(now):
            self._beat(now)
        if self.state is State.LIVE:
            self._flush(now)
        return self._taken()

    def deadline(self) -> float | None:
        """When `tick` is wanted next; None = not before the next event."""
        times = [time for time in (self._timer, self._heart.next_at) if time is not None]
        if self.state is State.LIVE and len(self._outbox):
            at = self._outbox.next_at(self._flushed_at, self._limiter)
            if at is not None:
                times.append(at)
        return min(times, default=None)

    def check_invariants(self) -> None:
        """Assert what must hold between events."""
        assert bool(self.streaming) == (self.state in (State.RESUMING, State.LIVE))
        assert not self.streaming or (self._session is not None and self._session.id == self.streaming)
        greeted = self.state in CONNECTED and self.state is not State.GREETING
        assert (self._heart.next_at is not None) == greeted
        timed = {State.CONNECTING, State.GREETING, State.QUEUED, State.IDENTIFYING, State.RESUMING, State.WAITING}
        assert (self._timer is not None) == (self.state in timed)
        assert self._barrier_acks is None or (self._barrier is not None and self.state is State.LIVE)
        assert not self._out

    # Connecting

    def _connect(self, now: float) -> None:
        base = self._reach.next(self._session, now)
        self._enter(State.CONNECTING)
        self._timer = now + CONNECT_TIMEOUT_S
        self._emit(fx.Connect(payloads.connect_url(base, self.config.compression)))

    def _on_started(self, event: ev.Started, now: float) -> None:
        self._connect(now)

    def _on_connected(self, event: ev.Connected, now: float) -> None:
        self._enter(State.GREETING)
        self._timer = now + HELLO_TIMEOUT_S

    def _on_connect_failed(self, event: ev.ConnectFailed, now: float) -> None:
        reason = f"could not connect: {event.reason}"
        if event.ours:
            self._reach.not_tried()
            self._leave(now, reason)
        else:
            self._not_reached(now, reason)

    def _connect_timed_out(self, now: float) -> None:
        self._not_reached(now, f"no connection within {CONNECT_TIMEOUT_S:.0f} s", close=opcodes.KEEP_SESSION)

    def _hello_timed_out(self, now: float) -> None:
        self._not_reached(now, f"no HELLO within {HELLO_TIMEOUT_S:.0f} s", close=opcodes.KEEP_SESSION)

    def _not_reached(self, now: float, reason: str, close: int | None = None) -> None:
        """No HELLO came from where we tried to connect."""
        doubtful = self._reach.failed(now)
        self._leave(now, reason, close=close)
        if doubtful:
            self._emit(fx.GatewayUnreachable(self._reach.general, reason))

    def _on_gateway_moved(self, event: ev.GatewayMoved, now: float) -> None:
        try:
            self.config = replace(self.config, gateway_url=event.url)
        except ValueError:
            # What is no address is not better than the one there is.
            return
        trying = self._reach.at_general and self.state in (State.CONNECTING, State.GREETING)
        if self._reach.moved(event.url) and (trying or self.state is State.WAITING):
            self._backoff.fresh()
            close = opcodes.KEEP_SESSION if trying else None
            self._leave(now, "the gateway has another address", close=close)

    def _wait_over(self, now: float) -> None:
        self._connect(now)

    # What comes in

    def _on_received(self, event: ev.Received, now: float) -> None:
        self._heart.alive = True
        handler = _PAYLOADS.get(event.op)
        if handler is not None:
            handler(self, event, now)

    def _on_hello(self, event: ev.Received, now: float) -> None:
        interval = payloads.read_hello(event.data)
        self._heart.start(interval, now, self._rng)
        if self.state is not State.GREETING:
            return
        self._reach.greeted()
        self._limiter = SendLimiter(interval)
        session = self.session
        if session is None:
            self._timer = now + QUEUED_S + QUEUED_SPREAD_S * (self.config.shard * _GOLDEN % 1.0)
            self._enter(State.QUEUED)
            self._emit(fx.RequestIdentify())
            return
        self._enter(State.RESUMING)
        self.streaming = session.id
        self._replay_start = self._replay_seen = self._dispatches
        self._timer = now + REPLAY_TIMEOUT_S
        self._limiter.handshake(now)
        self._emit(fx.Send(opcodes.RESUME, payloads.resume(self.config.token, session)))

    def _on_heartbeat_asked(self, event: ev.Received, now: float) -> None:
        if self.state is not State.GREETING and self._limiter.heartbeat(now, requested=True):
            self._send_heartbeat(now)

    def _on_acknowledged(self, event: ev.Received, now: float) -> None:
        if self._acks_awaited == 1:
            self._identify_arrived()
        elif self._acks_awaited:
            self._acks_awaited -= 1
        latency = self._heart.acknowledged(now)
        if latency is not None:
            self._emit(fx.LatencyMeasured(latency))
        if self._barrier_acks is not None:
            self._barrier_acks -= 1
            if not self._barrier_acks:
                self._pass_barrier()

    def _on_reconnect(self, event: ev.Received, now: float) -> None:
        self._leave(now, "Discord asked for a new connection (op 7)", close=opcodes.KEEP_SESSION)

    def _on_invalid_session(self, event: ev.Received, now: float) -> None:
        wait = self._rng.uniform(*INVALID_SESSION_WAIT_S)
        if event.data not in (b"false", b"null") and self._session:
            # Also where `d` is damaged: a RESUME costs nothing, and after two refusals no more are sent.
            reason = "Discord asked to resume once more (op 9)"
            self._leave(now, reason, close=opcodes.KEEP_SESSION, wait=wait, refused=True)
        else:
            reason = "Discord refused the session (op 9)"
            self._leave(now, reason, close=opcodes.END_SESSION, wait=wait, lost=reason)

    def _on_dispatch(self, event: ev.Received, now: float) -> None:
        if event.type == "RESUMED" and self.state is State.RESUMING:
            self.dispatched(self._sequence if event.sequence is None else event.sequence)
            self._emit(fx.Resumed(self._dispatches - self._replay_start - 1))
            self._go_live(now)
            # RESUMED itself is no barrier: it may be that of an earlier connection, in the middle of the replay.
            self._beat_for_barrier(now)
        elif self.state is State.IDENTIFYING:
            self._on_answer(event, now)
        elif not self.streaming:
            raise ProtocolError(f"a dispatch came while {self.state.value}")
        elif event.sequence is None or event.type is None or event.type == "READY":
            self._pass_over(event)
        else:
            self.dispatched(event.sequence)

    def _pass_over(self, event: ev.Received) -> None:
        """A dispatch that has no place. Not an end: Discord would replay it to the next connection."""
        if event.sequence is not None and self.streaming:
            self.dispatched(event.sequence)
        self._emit(fx.Malformed(event.sequence or 0, f"it has no place while {self.state.value}"))

    def _on_answer(self, event: ev.Received, now: float) -> None:
        """What comes after IDENTIFY; to hang up would waste it."""
        if event.type != "READY":
            self._pass_over(event)
            return
        try:
            ready = payloads.read_ready(event.data)
        except ProtocolError as error:
            self._leave(now, str(error), close=opcodes.KEEP_SESSION, wait=self._backoff.damaged_ready())
            return
        self._on_ready(ready, 1 if event.sequence is None else event.sequence, now)

    def _on_ready(self, ready: payloads.Ready, sequence: int, now: float) -> None:
        if self._acks_awaited:
            self._identify_arrived()
        self._session = Session(ready.session_id, sequence, ready.resume_gateway_url)
        self._session_since = now
        self.streaming = ready.session_id
        self.dispatched(sequence)
        guilds = tuple(guild.id for guild in ready.guilds)
        user = ready.user
        self._emit(
            fx.SessionStarted(
                ready.session_id, ready.resume_gateway_url, sequence, user.id, user.username, guild_ids=guilds
            )
        )
        self._go_live(now)
        if self._barrier is not None:
            number, self._barrier = self._barrier, None
            self._emit(fx.BarrierFailed(number))

    def _go_live(self, now: float) -> None:
        self._timer = None
        self._live_since = now
        self._away_since = None
        self._reach.reset()
        self._resume_refusals = self._resume_drops = 0
        self._backoff.succeeded()
        self._enter(State.LIVE)
        self._flush(now)

    def _on_garbled(self, event: ev.Garbled, now: float) -> None:
        self._drop(now, event.reason)

    def _on_closed(self, event: ev.Closed, now: float) -> None:
        rule = opcodes.close_rule(event.code)
        said = f" ({event.reason})" if event.reason else ""
        reason = rule.meaning + said if event.code is None else f"closed with {event.code}: {rule.meaning}{said}"
        if rule.action is CloseAction.STOP:
            assert event.code is not None
            self._withdraw()
            self._disconnected()
            words = f"{reason}. {rule.advice[0].upper()}{rule.advice[1:]}."
            self._enter(State.FAILED, words)
            self._emit(fx.Failed(event.code, words))
            return
        once = rule.action is CloseAction.RESUME_ONCE and self.state is State.RESUMING
        lost = reason if once or rule.action is CloseAction.IDENTIFY else None
        if self.state is State.GREETING and event.code is None:
            self._not_reached(now, reason)
            return
        self._leave(now, reason, wait=rule.wait_s, lost=lost, refused=event.code is not None)

    # IdentifyLoop

    def _on_granted(self, event: ev.IdentifyGranted, now: float) -> None:
        self._enter(State.IDENTIFYING)
        self._timer = now + READY_TIMEOUT_S
        self._outbox.forget_presence()
        self._limiter.handshake(now)
        self._backoff.identified()
        self._identify_at = now + self._backoff.identify()
        self._emit(fx.Send(opcodes.IDENTIFY, payloads.identify(self.config, self._presence)))
        self._emit(fx.IdentifySent())
        # Its answer says that the IDENTIFY has arrived, long before READY comes.
        room = self._limiter.heartbeat(now, requested=True)
        if room:
            self._send_heartbeat(now)
        self._acks_awaited = self._heart.unanswered + (not room)

    def _identify_arrived(self) -> None:
        """Discord has the IDENTIFY, by now: its bucket's five seconds count from here."""
        self._acks_awaited = 0
        self._emit(fx.IdentifySent())

    def _queued_too_long(self, now: float) -> None:
        """Nothing failed: connect again at once, and ask for the turn again."""
        self._withdraw()
        self._emit(fx.CloseSocket(opcodes.KEEP_SESSION, "the connection waited long for its turn to IDENTIFY"))
        self._disconnected()
        self._connect(now)

    def _ready_timed_out(self, now: float) -> None:
        self._drop(now, f"no READY within {READY_TIMEOUT_S:.0f} s")

    def _replay_timed_out(self, now: float) -> None:
        if self._dispatches == self._replay_seen:
            self._drop(now, f"no answer to RESUME within {REPLAY_TIMEOUT_S:.0f} s")
        else:
            self._replay_seen = self._dispatches
            self._timer = now + REPLAY_TIMEOUT_S

    # Sending

    def _beat(self, now: float) -> None:
        if not self._heart.beat(now):
            self._drop(now, "no sign of life between two heartbeats")
        elif self._limiter.heartbeat(now, requested=False):
            self._send_heartbeat(now)

    def _send_heartbeat(self, now: float) -> None:
        self._heart.sent(now)
        if self._barrier is not None and self._barrier_acks is None and self.state is State.LIVE:
            self._barrier_acks = self._heart.unanswered
        sequence = self._sequence if self.streaming or self._session else None
        self._emit(fx.Send(opcodes.HEARTBEAT, payloads.heartbeat(sequence)))

    def _on_command(self, event: ev.CommandQueued, now: float) -> None:
        try:
            self._outbox.put(event.op, event.data)
        except ValueError as error:
            self._emit(fx.CommandRefused(event.op, str(error)))
            return
        if event.op == opcodes.PRESENCE_UPDATE:
            self._presence = event.data
        if self.state is State.LIVE:
            self._flush(now)

    def _refuse_command(self, event: ev.CommandQueued, now: float) -> None:
        self._emit(fx.CommandRefused(event.op, f"the shard is {self.state.value}"))

    def _flush(self, now: float) -> None:
        self._flushed_at = now
        while (command := self._outbox.take(now, self._limiter)) is not None:
            self._emit(fx.Send(*command))

    # Barriers

    def _on_barrier(self, event: ev.BarrierRequested, now: float) -> None:
        self._barrier, self._barrier_acks = event.number, None
        self._beat_for_barrier(now)

    def _beat_for_barrier(self, now: float) -> None:
        """Send the barrier's heartbeat. If it may not leave now, the next scheduled one counts."""
        is_due = self._barrier is not None and self.state is State.LIVE
        if is_due and self._limiter.heartbeat(now, requested=True):
            self._send_heartbeat(now)

    def _pass_barrier(self) -> None:
        if self._barrier is not None:
            number, self._barrier, self._barrier_acks = self._barrier, None, None
            self._emit(fx.BarrierPassed(number))

    # Reading suspended

    def _on_suspended(self, event: ev.ReadingSuspended, now: float) -> None:
        self._heart.suspend()

    def _on_resumed_reading(self, event: ev.ReadingResumed, now: float) -> None:
        self._heart.resume()

    # Leaving a connection

    def _drop(self, now: float, reason: str) -> None:
        self._leave(now, reason, close=opcodes.KEEP_SESSION)

    def _leave(
        self,
        now: float,
        reason: str,
        *,
        close: int | None = None,
        wait: float = 0.0,
        lost: str | None = None,
        refused: bool = False,
    ) -> None:
        """The one way from a connection to the next. `lost`: why the session is gone; `refused`: Discord said so."""
        if self.state is State.LIVE:
            self._backoff.lived(now - self._live_since)
        if lost is None and self.state is State.RESUMING:
            lost = self._resume_failed(reason, refused=refused)
        self._withdraw()
        if close is not None:
            self._emit(fx.CloseSocket(close, reason))
        self._disconnected()
        if lost is not None:
            self._lose_session(lost, now)
        if self._away_since is None:
            self._away_since = now
        hopeful = self._session is not None and now - self._away_since < SESSION_KEPT_S
        self._timer = now + self._backoff.reconnect(wait, hopeful=hopeful)
        if self._session is None:
            self._timer = max(self._timer, self._identify_at)
        self._enter(State.WAITING, reason)

    def _resume_failed(self, reason: str, *, refused: bool) -> str | None:
        """Count a RESUME that replayed nothing; the reason to give the session up when that happened too often."""
        if self._dispatches > self._replay_start:
            return None
        if refused:
            self._resume_refusals += 1
        else:
            self._resume_drops += 1
            self._reach.other()
        if self._resume_refusals >= RESUME_REFUSALS_MAX or self._resume_drops >= RESUME_DROPS_MAX:
            return f"resuming failed again and again, at last: {reason}"
        return None

    def _lose_session(self, reason: str, now: float) -> None:
        session, self._session = self.session, None
        self._resume_refusals = self._resume_drops = 0
        self._reach.reset()
        # What its connections had to wait for says nothing of a new session's.
        self._backoff.fresh()
        if self._session_since is not None and now - self._session_since >= IDENTIFY_STABLE_S:
            self._backoff.worth_it()
            self._identify_at = now
        self._session_since = None
        if session is not None:
            self._emit(fx.SessionLost(session, reason))

    def _withdraw(self) -> None:
        if self.state is State.QUEUED:
            self._emit(fx.IdentifyWithdrawn())

    def _disconnected(self) -> None:
        self.streaming = ""
        self._timer = None
        self._barrier_acks = None
        self._heart.stop()
        self._acks_awaited = 0

    def _on_stop(self, event: ev.StopRequested, now: float) -> None:
        self._withdraw()
        if self.state in CONNECTED or self.state is State.CONNECTING:
            code = opcodes.KEEP_SESSION if event.keep_session else opcodes.END_SESSION
            self._emit(fx.CloseSocket(code, event.reason))
        self._disconnected()
        session = self.session if event.keep_session else None
        self._enter(State.STOPPED, event.reason)
        self._emit(fx.Stopped(session))

    # The rest

    def _ignore(self, event: ev.Event, now: float) -> None:
        pass

    def _enter(self, state: State, reason: str = "") -> None:
        self.state = state
        self._emit(fx.StateChanged(state, reason))

    def _emit(self, effect: Effect) -> None:
        self._out.append(effect)

    def _taken(self) -> Sequence[Effect]:
        out, self._out = self._out, []
        return out


_Handler = Callable[[ShardMachine, Any, float], None]


def _transitions() -> Mapping[tuple[State, type], _Handler]:
    machine = ShardMachine
    table: dict[tuple[State, type], _Handler] = {}
    for state in State:
        ended = state in ENDED
        table[state, ev.StopRequested] = machine._ignore if ended else machine._on_stop
        table[state, ev.CommandQueued] = machine._refuse_command if ended else machine._on_command
        table[state, ev.IdentifyGranted] = machine._ignore
        table[state, ev.GatewayMoved] = machine._ignore if ended else machine._on_gateway_moved
        table[state, ev.ReadingSuspended] = machine._ignore
        table[state, ev.ReadingResumed] = machine._ignore
        table[state, ev.BarrierRequested] = machine._ignore if ended else machine._on_barrier
    for state in CONNECTED:
        table[state, ev.Received] = machine._on_received
        table[state, ev.Garbled] = machine._on_garbled
        table[state, ev.Closed] = machine._on_closed
        table[state, ev.ReadingSuspended] = machine._on_suspended
        table[state, ev.ReadingResumed] = machine._on_resumed_reading
    table[State.NEW, ev.Started] = machine._on_started
    table[State.CONNECTING, ev.Connected] = machine._on_connected
    table[State.CONNECTING, ev.ConnectFailed] = machine._on_connect_failed
    table[State.QUEUED, ev.IdentifyGranted] = machine._on_granted
    return table


TRANSITIONS = _transitions()

_PAYLOADS: Mapping[int, _Handler] = {
    opcodes.DISPATCH: ShardMachine._on_dispatch,
    opcodes.HEARTBEAT: ShardMachine._on_heartbeat_asked,
    opcodes.RECONNECT: ShardMachine._on_reconnect,
    opcodes.INVALID_SESSION: ShardMachine._on_invalid_session,
    opcodes.HELLO: ShardMachine._on_hello,
    opcodes.HEARTBEAT_ACK: ShardMachine._on_acknowledged,
}

_TIMEOUTS: Mapping[State, Callable[[ShardMachine, float], None]] = {
    State.CONNECTING: ShardMachine._connect_timed_out,
    State.GREETING: ShardMachine._hello_timed_out,
    State.QUEUED: ShardMachine._queued_too_long,
    State.IDENTIFYING: ShardMachine._ready_timed_out,
    State.RESUMING: ShardMachine._replay_timed_out,
    State.WAITING: ShardMachine._wait_over,
}
