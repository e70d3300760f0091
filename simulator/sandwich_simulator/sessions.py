"""Gateway sessions: numbering, replay buffer, life time. Pure.

A session outlives its sockets: what it is owed while nobody listens is numbered and kept like everything else, until
the buffer has lost something the client never got, or the resume window has passed (section 7).
Invariants: `seq` is that of the newest entry of the buffer; the buffer's numbers have no gap.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from .outbox import Outbox

REPLAY_MIN = 100
REPLAY_MAX = 3500
REPLAY_PER_GUILD = 75


def replay_capacity(guilds: int) -> int:
    """How many dispatches Discord keeps for a session of so many guilds (a staff member's formula, docs#24)."""
    return max(REPLAY_MIN, min(REPLAY_MAX, guilds * REPLAY_PER_GUILD))


@dataclass(slots=True, kw_only=True, eq=False)
class Session:
    """One session. `outbox` is the socket it speaks through, None while disconnected."""

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
    """Of its world, when it began."""
    outbox: Outbox | None = None
    disconnected_at: float | None = None
    seq: int = 0
    backfill: deque[int] = field(default_factory=deque)
    """Guilds whose GUILD_CREATE is still to come."""
    _replay: deque[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._replay = deque(maxlen=self.replay_events)

    def next_dispatch(self, name: str, data: bytes) -> bytes:
        """Numbers an event, keeps it for a replay and sends it to the socket if there is one; returns its JSON."""
        self.seq += 1
        payload = b'{"t":"%s","s":%d,"op":0,"d":%s}' % (name.encode(), self.seq, data)
        self._replay.append(payload)
        if self.outbox is not None:
            self.outbox.push(payload)
        return payload

    def keep_unsent(self, name: str, data: bytes) -> bytes:
        """Numbers an event and keeps it without sending it: the caller writes it to the socket in its own way."""
        outbox, self.outbox = self.outbox, None
        try:
            return self.next_dispatch(name, data)
        finally:
            self.outbox = outbox

    @property
    def oldest_seq(self) -> int:
        """The number of the oldest dispatch still kept."""
        return self.seq - len(self._replay) + 1

    def can_replay_from(self, seq: int) -> bool:
        """Whether all after `seq` is still kept."""
        return seq + 1 >= self.oldest_seq

    def replay(self, seq: int) -> Iterator[bytes]:
        """Everything after `seq`, in order."""
        skip = seq + 1 - self.oldest_seq
        return (payload for index, payload in enumerate(self._replay) if index >= skip)

    def detach(self, now: float) -> None:
        """The socket is gone; the resume window starts."""
        self.outbox = None
        self.disconnected_at = now

    def is_expired(self, now: float, window_s: float) -> bool:
        """Whether the resume window has passed."""
        return self.disconnected_at is not None and now - self.disconnected_at > window_s


class ResumeOutcome(Enum):
    """What becomes of a RESUME."""

    OK = "ok"
    UNKNOWN = "unknown_session"
    EXPIRED = "expired"
    OVERFLOWED = "overflowed"
    WRONG_TOKEN = "wrong_token"
    BAD_SEQ = "bad_seq"


class SessionStore:
    """The live sessions of one bot, found by id and by the shard they listen to."""

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
        """Takes in a new session."""
        self._by_id[session.id] = session
        self.by_count.setdefault(session.count, {}).setdefault(session.shard, []).append(session)

    def remove(self, session: Session) -> None:
        """Forgets a session; forgetting it twice does no harm."""
        if self._by_id.pop(session.id, None) is None:
            return
        shards = self.by_count[session.count]
        shards[session.shard].remove(session)
        if not shards[session.shard]:
            del shards[session.shard]
        if not shards:
            del self.by_count[session.count]

    def expire(self, now: float) -> list[Session]:
        """Removes and returns the sessions whose resume window has passed."""
        gone = [s for s in self._by_id.values() if s.is_expired(now, self._window_s)]
        for session in gone:
            self.remove(session)
        return gone

    def judge_resume(self, session_id: str, seq: int, now: float) -> ResumeOutcome:
        """Whether the session can go on after `seq`. Changes nothing."""
        session = self._by_id.get(session_id)
        if session is None:
            return ResumeOutcome.UNKNOWN
        if session.is_expired(now, self._window_s):
            return ResumeOutcome.EXPIRED
        if seq > session.seq or seq < 0:
            return ResumeOutcome.BAD_SEQ
        return ResumeOutcome.OK if session.can_replay_from(seq) else ResumeOutcome.OVERFLOWED
