"""The server side of one gateway connection: it takes the client's messages and fills the outbox. Pure.

States: CONNECTED (HELLO sent or due) -> LIVE (identified or resumed) -> CLOSED; op 9 leads from LIVE back to CONNECTED.
It decides the close codes (docs/design/protocol.md, section 9), the send limits and the heartbeat timeout. It never
reads a clock, never waits and never uses a socket.
"""

from enum import Enum
from typing import Any

import msgspec

from . import commands
from .clock import Now
from .delays import ACK
from .gateway import Bot, Gateway
from .identify_rules import (
    ALREADY_AUTHENTICATED,
    AUTHENTICATION_FAILED,
    BAD_PAYLOAD,
    DECODE_ERROR,
    INVALID_API_VERSION,
    INVALID_SEQ,
    INVALIDATING,
    NOT_AUTHENTICATED,
    RATE_LIMITED,
    SESSION_ENDING,
    SESSION_TIMED_OUT,
    Rejected,
    SlidingWindow,
    bare_token,
    check_identify,
    is_integer,
    parse_identify,
)
from .outbox import Close, CompressPayloads, Outbox
from .sessions import ResumeOutcome, Session

PAYLOAD_BYTES_MAX = 4096
API_VERSIONS = frozenset({"9", "10"})
HEARTBEAT, IDENTIFY, RESUME = 1, 2, 6
_RECONNECT = b'{"t":null,"s":null,"op":7,"d":null}'
_BEAT = b'{"t":null,"s":null,"op":1,"d":null}'


class State(Enum):
    """The state of a connection."""

    CONNECTED = "connected"
    LIVE = "live"
    CLOSED = "closed"


class Connection:
    """The state machine. `receive`, `tick` and `closed` take the time; it sends through `outbox`, in order."""

    def __init__(self, gateway: Gateway, *, version: str, host: str, compress: str) -> None:
        self._gateway = gateway
        self._version = version
        self._host = host
        self._compress = compress
        self.outbox = Outbox(gateway.config.outbox_bytes_max)
        self.state = State.CONNECTED
        self.bot: Bot | None = None
        self.session: Session | None = None
        self.acks = True
        self.stalled_until = 0.0
        self._sends = SlidingWindow(gateway.config.send_limit, gateway.config.send_window_s)
        self._presences = SlidingWindow(5, 20.0)
        self._hello_at: float | None = None
        self._beat_by: float | None = None
        self._identify_by: float | None = None

    def open(self, now: Now) -> None:
        """The WebSocket is open: sends HELLO now; with a fault later or never."""
        if self._version not in API_VERSIONS:
            self._reject(Rejected(INVALID_API_VERSION, "Invalid API version"), now)
        elif self._gateway.faults.skips_hello(now.mono):
            self.outbox.push(_RECONNECT)
        elif delay := self._gateway.faults.hello_delay_s(now.mono):
            self._hello_at = now.mono + delay
        else:
            self._hello(now)

    def _hello(self, now: Now) -> None:
        interval_ms = self._gateway.config.heartbeat_interval_ms
        hello = {"heartbeat_interval": interval_ms, "_trace": ['["gateway-simulator",{"micros":0}]']}
        self.outbox.push(b'{"t":null,"s":null,"op":10,"d":%s}' % msgspec.json.encode(hello))
        self._hello_at = None
        self._identify_by = now.mono + self._gateway.config.identify_timeout_s
        self._expect_beat(now)

    def _expect_beat(self, now: Now) -> None:
        config = self._gateway.config
        self._beat_by = now.mono + config.heartbeat_interval_ms / 1000 * config.heartbeat_tolerance

    def deadline(self) -> float | None:
        """When `tick` must be called next."""
        if self.state is State.CLOSED:
            return None
        identify_by = self._identify_by if self.state is State.CONNECTED else None
        return min((t for t in (self._hello_at, self._beat_by, identify_by) if t is not None), default=None)

    def tick(self, now: Now) -> None:
        """Does what is due: sends a late HELLO, closes a client without heartbeats."""
        if self.state is State.CLOSED:
            return
        if self._hello_at is not None and now.mono >= self._hello_at:
            self._hello(now)
        elif self._beat_by is not None and now.mono >= self._beat_by:
            self._violation("heartbeat_timeout", now)
            self._shut(self._gateway.config.heartbeat_timeout_code, "Heartbeat timeout", now)
        elif self.state is State.CONNECTED and self._identify_by is not None and now.mono >= self._identify_by:
            self._violation("identify_timeout", now)
            self._shut(SESSION_TIMED_OUT, "Session timed out.", now)

    def receive(self, data: bytes, now: Now) -> None:
        """Handles one message of the client, text or binary."""
        if self.state is State.CLOSED:
            return
        try:
            self._handle(data, now)
        except Rejected as rejected:
            self._reject(rejected, now)

    def _decode(self, data: bytes, now: Now) -> tuple[int, Any]:
        if not self._sends.try_take(now.mono):
            raise Rejected(RATE_LIMITED, "Rate limited.")
        if len(data) > PAYLOAD_BYTES_MAX:
            raise Rejected(DECODE_ERROR, "Payload too large")
        try:
            payload = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Rejected(DECODE_ERROR, "Error while decoding payload.") from error
        if not isinstance(payload, dict):
            raise Rejected(DECODE_ERROR, "Error while decoding payload.")
        op = payload.get("op")
        if not isinstance(op, int) or isinstance(op, bool):
            raise Rejected(BAD_PAYLOAD, "Unknown opcode.")
        return op, payload.get("d")

    def _handle(self, data: bytes, now: Now) -> None:
        op, d = self._decode(data, now)
        if op == HEARTBEAT:
            self._heartbeat(d, now)
        elif op == IDENTIFY:
            self._identify(d, now)
        elif op == RESUME:
            self._resume(d, now)
        elif op not in commands.COMMANDS:
            raise Rejected(BAD_PAYLOAD, "Unknown opcode.")
        elif self.bot is None or self.session is None:
            raise Rejected(NOT_AUTHENTICATED, "Not authenticated.")
        else:
            if op == commands.PRESENCE_UPDATE and not self._presences.try_take(now.mono):
                self._violation("presence_rate", now)
            commands.COMMANDS[op](commands.Context(self._gateway, self.bot, self.session, now), d)

    def _heartbeat(self, d: Any, now: Now) -> None:
        if d is not None and not is_integer(d):
            raise Rejected(BAD_PAYLOAD, "A heartbeat carries a sequence or null")
        self._expect_beat(now)
        if not self.acks:
            return
        if self.session is not None and self.session.delay is not None:
            self.session.delay.push_ack(self.outbox, now.mono)
        else:
            self.outbox.push(ACK)

    def _identify(self, d: Any, now: Now) -> None:
        if self.state is State.LIVE:
            raise Rejected(ALREADY_AUTHENTICATED, "Already authenticated.")
        identify, gateway = parse_identify(d), self._gateway
        bot = gateway.bot_of_token(identify.token)
        if bot is None:
            raise Rejected(AUTHENTICATION_FAILED, "Authentication failed.")
        self.bot = bot
        shard = (identify.shard, identify.count)
        guilds = gateway.guilds_on_shard(bot, *shard)
        try:
            check_identify(identify, bot.config, guilds_on_shard=guilds)
        except Rejected as rejected:
            gateway.note("identify", str(rejected.code), now=now, bot=bot, shard=shard, detail=self._host)
            raise
        if not self._may_identify(bot, shard, now):
            return
        if identify.compress and not self._compress:
            self.outbox.push(CompressPayloads())
        detail = self._host + gateway.others_of_shard(bot, shard, now)
        self.session = gateway.start_session(bot, identify, self.outbox, now)
        self.state = State.LIVE
        gateway.note("identify", "ok", now=now, bot=bot, shard=shard, session=self.session.id, detail=detail)

    def _may_identify(self, bot: Bot, shard: tuple[int, int], now: Now) -> bool:
        gateway = self._gateway
        invalid_by_fault = now.mono < gateway.faults.identify_invalid_until
        if invalid_by_fault or not bot.buckets.try_take(shard[0], bot.config.max_concurrency, now.mono):
            outcome = "invalid_by_fault" if invalid_by_fault else "rate_limited"
            gateway.note("identify", outcome, now=now, bot=bot, shard=shard, detail=self._host)
            if not invalid_by_fault:
                gateway.note("violation", "identify_rate", now=now, bot=bot, shard=shard)
            self.invalidate(resumable=False, now=now)
            return False
        if not bot.budget.try_spend(now.mono):
            gateway.note("identify", "budget_exhausted", now=now, bot=bot, shard=shard, detail=self._host)
            gateway.note("violation", "budget_exhausted", now=now, bot=bot, shard=shard)
            gateway.revoke_token(bot, now)
            raise Rejected(AUTHENTICATION_FAILED, "Authentication failed.")
        return True

    def _resume(self, d: Any, now: Now) -> None:
        if self.state is State.LIVE:
            raise Rejected(ALREADY_AUTHENTICATED, "Already authenticated.")
        if not isinstance(d, dict) or not isinstance(d.get("token"), str) or not isinstance(d.get("session_id"), str):
            raise Rejected(BAD_PAYLOAD, "RESUME needs token, session_id and seq")
        if not is_integer(d.get("seq")):
            raise Rejected(BAD_PAYLOAD, "RESUME needs token, session_id and seq")
        session_id, seq = d["session_id"], d["seq"]
        bot, outcome = self._gateway.judge_resume(bare_token(d["token"]), session_id, seq, now)
        session = bot.sessions.get(session_id) if bot else None
        shard = (session.shard, session.count) if session else (-1, 0)
        self.bot = bot
        invalid_by_fault = outcome is ResumeOutcome.OK and now.mono < self._gateway.faults.resume_invalid_until
        label = "invalid_by_fault" if invalid_by_fault else outcome.value
        detail = f"{self._host} seq={seq}"
        self._gateway.note("resume", label, now=now, bot=bot, shard=shard, session=session_id, detail=detail)
        if outcome is ResumeOutcome.WRONG_TOKEN:
            raise Rejected(AUTHENTICATION_FAILED, "Authentication failed.")
        if (
            bot is None
            or session is None
            or invalid_by_fault
            or outcome not in (ResumeOutcome.OK, ResumeOutcome.BAD_SEQ)
        ):
            if bot is not None and session is not None:
                self._gateway.end_session(bot, session, now)
            self.invalidate(resumable=False, now=now)
            return
        if outcome is ResumeOutcome.BAD_SEQ:
            self._gateway.end_session(bot, session, now)
            raise Rejected(INVALID_SEQ, "Invalid seq.")
        self.session, self.state = session, State.LIVE
        self._gateway.resume_session(bot, session, seq, self.outbox, now)

    def invalidate(self, *, resumable: bool, now: Now) -> None:
        """Sends op 9: the session no longer uses this socket, and ends unless `resumable`."""
        self.outbox.push(b'{"t":null,"s":null,"op":9,"d":%s}' % (b"true" if resumable else b"false"))
        self._release(keep=resumable, now=now)
        self.state = State.CONNECTED
        self._identify_by = now.mono + self._gateway.config.identify_timeout_s
        if self._gateway.config.close_after_invalid_session:
            self._shut(4000, "Invalid session", now)

    def ask_reconnect(self) -> None:
        """Sends op 7."""
        self.outbox.push(_RECONNECT)

    def ask_heartbeat(self) -> None:
        """Sends op 1: the client must send a heartbeat at once."""
        self.outbox.push(_BEAT)

    def close(self, code: int, reason: str, now: Now) -> None:
        """Closes the connection from the server side. The code decides whether the session ends."""
        self._shut(code, reason, now)

    def closed(self, code: int | None, now: Now) -> None:
        """The socket has ended. `code` is the client's close code; None without one or when the server closed first."""
        if self.state is not State.CLOSED:
            outcome = "none" if code is None else str(code)
            session = self.session.id if self.session else ""
            self._gateway.note("close", outcome, now=now, bot=self.bot, shard=self.shard, session=session)
            self._release(keep=code not in INVALIDATING, now=now)
        self.state = State.CLOSED

    @property
    def shard(self) -> tuple[int, int]:
        """Shard id and count, (-1, 0) before a session."""
        return (self.session.shard, self.session.count) if self.session else (-1, 0)

    def _reject(self, rejected: Rejected, now: Now) -> None:
        self._violation(str(rejected.code), now, rejected.reason)
        self._shut(rejected.code, rejected.reason, now)

    def _violation(self, kind: str, now: Now, detail: str = "") -> None:
        self._gateway.note("violation", kind, now=now, bot=self.bot, shard=self.shard, detail=detail)

    def _shut(self, code: int, reason: str, now: Now) -> None:
        self.outbox.push(Close(code, reason))
        self._release(keep=code not in SESSION_ENDING, now=now)
        self.state = State.CLOSED

    def _release(self, *, keep: bool, now: Now) -> None:
        session, bot = self.session, self.bot
        self.session = None
        if session is None or bot is None or session.outbox is not self.outbox:
            return
        session.detach(now.mono)
        if not keep:
            self._gateway.end_session(bot, session, now)
