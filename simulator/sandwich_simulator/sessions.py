"""Gateway sessions: sequence numbers, replay buffer, lifetime. Pure.

A session outlives its sockets: dispatches without a socket are numbered and kept like all others. It can be resumed
until the buffer has dropped a dispatch that the client lacks, or the resume window has passed (docs/design/protocol.md,
section 7). Invariants: `seq` is that of the newest entry of the buffer; the buffer's numbers have no gap.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from .delays import Delay, Omission
from .outbox import Outbox

REPLAY_MIN = 100
REPLAY_MAX = 3500
REPLAY_PER_GUILD = 75


def replay_capacity(guilds: int) -> int:
    """How many dispatches Discord keeps for a session with this many guilds (docs/design/protocol.md, section 7)."""
    return max(REPLAY_MIN, min(REPLAY_MAX, guilds * REPLAY_PER_GUILD))


@dataclass(slots=True, kw_only=True, eq=False)
class Session:
    """One session. `outbox` belongs to its socket; None while disconnected."""

    id: str
    bot: str
    shard: int
    count: int
    intents: int
    large_threshold: int
    journal_number: int
    replay_events: int
    created_at: float
    moment: int = 0
    """The moment of its world when it began."""
    outbox: Outbox | None = None
    disconnected_at: float | None = None
    seq: int = 0
    backfill: deque[int] = field(default_factory=deque)
    """Guilds whose GUILD_CREATE is not sent yet."""
    delay: Delay | None = None
    omission: Omission | None = None
    _replay: deque[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._replay = deque(maxlen=self.replay_events)

    def next_dispatch(self, name: str, data: bytes) -> bytes:
        """Numbers an event, keeps it for replay and sends it if there is a socket; returns its JSON."""
        self.seq += 1
        payload = b'{"t":"%s","s":%d,"op":0,"d":%s}' % (name.encode(), self.seq, data)
        self._replay.append(payload)
        if self.outbox is not None:
            self.outbox.push(payload)
        return payload

    def keep_unsent(self, name: str, data: bytes) -> bytes:
        """Numbers an event and keeps it for replay without sending it; the caller sends it."""
        outbox, self.outbox = self.outbox, None
        try:
            return self.next_dispatch(name, data)
        finally:
            self.outbox = outbox

    @property
    def oldest_seq(self) -> int:
        """The sequence of the oldest dispatch that is kept."""
        return self.seq - len(self._replay) + 1

    def can_replay_from(self, seq: int) -> bool:
        """Whether all dispatches after `seq` are kept."""
        return seq + 1 >= self.oldest_seq

    def replay(self, seq: int) -> Iterator[bytes]:
        """The dispatches after `seq`, in order."""
        skip = seq + 1 - self.oldest_seq
        return (payload for index, payload in enumerate(self._replay) if index >= skip)

    def detach(self, now: float) -> None:
        """The socket has ended; the resume window starts."""
        self.outbox = None
        self.disconnected_at = now

    def is_expired(self, now: float, window_s: float) -> bool:
        """Whether the resume window has passed."""
        return self.disconnected_at is not None and now - self.disconnected_at > window_s


class ResumeOutcome(Enum):
    """The result of a RESUME."""

    OK = "ok"
    UNKNOWN = "unknown_session"
    EXPIRED = "expired"
    OVERFLOWED = "overflowed"
    WRONG_TOKEN = "wrong_token"
    BAD_SEQ = "bad_seq"


class SessionStore:
    """The live sessions of one bot, by id and by shard."""

    def __init__(self, *, window_s: float) -> None:
        self._window_s = window_s
        self._by_id: dict[str, Session] = {}
        self.by_count: dict[int, dict[int, list[Session]]] = {}

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, session_id: str) -> Session | None:
        """The session of this id, expired or not."""
        return self._by_id.get(session_id)

    def add(self, session: Session) -> None:
        """Adds a session."""
        self._by_id[session.id] = session
        self.by_count.setdefault(session.count, {}).setdefault(session.shard, []).append(session)

    def remove(self, session: Session) -> None:
        """Removes a session, if it is there."""
        if self._by_id.pop(session.id, None) is None:
            return
        shards = self.by_count[session.count]
        shards[session.shard].remove(session)
        if not shards[session.shard]:
            del shards[session.shard]
        if not shards:
            del self.by_count[session.count]

    def expired(self, now: float) -> list[Session]:
        """The sessions whose resume window has passed."""
        return [s for s in self._by_id.values() if s.is_expired(now, self._window_s)]

    def judge_resume(self, session_id: str, seq: int, now: float) -> ResumeOutcome:
        """Whether the session can continue after `seq`. Changes nothing."""
        session = self._by_id.get(session_id)
        if session is None:
            return ResumeOutcome.UNKNOWN
        if session.is_expired(now, self._window_s):
            return ResumeOutcome.EXPIRED
        if seq > session.seq or seq < 0:
            return ResumeOutcome.BAD_SEQ
        return ResumeOutcome.OK if session.can_replay_from(seq) else ResumeOutcome.OVERFLOWED
