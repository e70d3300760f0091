"""Facts that a shard machine receives. Past tense; a fact about a socket always means the current one."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Started:
    """The shard may connect now."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The socket asked for is open."""


@dataclass(frozen=True, slots=True)
class ConnectFailed:
    """The socket asked for could not be opened. `ours`: for want of something here; it says nothing of the address."""

    reason: str
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """A payload came. `data` is the JSON of `d`."""

    op: int
    data: bytes = field(default=b"null", repr=False)
    sequence: int | None = None
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Garbled:
    """A message came that cannot be inflated or read."""

    reason: str


@dataclass(frozen=True, slots=True)
class Closed:
    """The socket ended: with the server's close code, or None when there was no close frame."""

    code: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class IdentifyGranted:
    """The permit asked for with RequestIdentify came. Without a request open it is ignored."""


@dataclass(frozen=True, slots=True)
class GatewayMoved:
    """`GET /gateway/bot` names another address: the next connection goes there, unless to a session's own."""

    url: str


@dataclass(frozen=True, slots=True)
class CommandQueued:
    """A gateway command is requested: `op` one of opcodes.COMMANDS, `data` its `d`."""

    op: int
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReadingSuspended:
    """We stopped reading the socket, since what was read cannot be stored yet."""


@dataclass(frozen=True, slots=True)
class ReadingResumed:
    """We read the socket again."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The shard is to be released. `keep_session` False ends the session at Discord."""

    reason: str
    keep_session: bool = True


@dataclass(frozen=True, slots=True)
class BarrierRequested:
    """It is to be reported when everything is read that Discord had sent until now. Replaces an earlier request.

    `number` distinguishes the request from others.
    """

    number: int


Event = (
    Started
    | Connected
    | ConnectFailed
    | Received
    | Garbled
    | Closed
    | IdentifyGranted
    | GatewayMoved
    | CommandQueued
    | ReadingSuspended
    | ReadingResumed
    | StopRequested
    | BarrierRequested
)
