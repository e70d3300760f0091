"""What a shard machine asks for (for the socket) and reports (for all others)."""

from dataclasses import dataclass, field
from enum import Enum

from sandwich_node.gateway.session import Session


class State(Enum):
    """What a shard is doing."""

    NEW = "new"
    CONNECTING = "connecting"
    GREETING = "greeting"
    """Connected; HELLO is awaited."""
    QUEUED = "queued"
    """Heartbeating; the permit to IDENTIFY is awaited."""
    IDENTIFYING = "identifying"
    RESUMING = "resuming"
    LIVE = "live"
    WAITING = "waiting"
    """Not connected; the next attempt comes when the wait is over."""
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a socket to `url` and answer with Connected or ConnectFailed."""

    url: str


@dataclass(frozen=True, slots=True)
class Send:
    """Send this as one text message. The payload may hold the token: it has no place in a repr."""

    op: int
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CloseSocket:
    """Close the socket, or give up opening it. Nothing of it is reported any more."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class StateChanged:
    """`reason` says why in words for the operator; "" where the state says it all."""

    state: State
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RequestIdentify:
    """Ask for a permit to IDENTIFY; the answer is IdentifyGranted."""


@dataclass(frozen=True, slots=True)
class IdentifyWithdrawn:
    """The permit asked for is no longer wanted."""


@dataclass(frozen=True, slots=True)
class IdentifySent:
    """The IDENTIFY left, or has arrived by now: its bucket's five seconds begin, or begin again."""


@dataclass(frozen=True, slots=True)
class SessionStarted:
    """READY came. `first_seq` is READY's own sequence; the payload itself follows as a dispatch."""

    session_id: str
    resume_url: str
    first_seq: int
    user_id: str
    user_name: str
    guild_ids: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SessionLost:
    """The session cannot be resumed: events after its sequence are lost. Comes before any request to IDENTIFY."""

    session: Session
    reason: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """RESUMED came after `replayed` missed dispatches."""

    replayed: int


@dataclass(frozen=True, slots=True)
class LatencyMeasured:
    """Time between a heartbeat and its ACK."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GatewayUnreachable:
    """The general address has not answered for some seconds: it may be an old one. Repeated while that goes on."""

    url: str
    reason: str


@dataclass(frozen=True, slots=True)
class CommandRefused:
    """A command was not taken; the shard goes on."""

    op: int
    reason: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """A dispatch was passed over, and why: consumers do not get it. Its `sequence`, if it has one, counts as taken."""

    sequence: int
    reason: str = "its name cannot be used"


@dataclass(frozen=True, slots=True)
class BarrierPassed:
    """What Discord had sent the session when the barrier was requested, was handed on before this report."""

    number: int


@dataclass(frozen=True, slots=True)
class BarrierFailed:
    """A new session began, which says nothing of what the last one had still to send."""

    number: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Discord will not have this shard until an operator acts: `reason` says what happened and what to do."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The shard was released; `session` is what the next owner may resume."""

    session: Session | None


Report = (
    StateChanged
    | RequestIdentify
    | IdentifyWithdrawn
    | IdentifySent
    | SessionStarted
    | SessionLost
    | Resumed
    | LatencyMeasured
    | GatewayUnreachable
    | CommandRefused
    | Malformed
    | BarrierPassed
    | BarrierFailed
    | Failed
    | Stopped
)
Effect = Connect | Send | CloseSocket | Report
