"""Gateway opcodes, and what each close code means for the session.

Rules: https://discord.com/developers/docs/topics/opcodes-and-status-codes#gateway, merged with what staff said and
what established libraries do where that page is silent.
"""

from dataclasses import dataclass
from enum import Enum

from sandwich_coordinator.close_codes import STOP_CODES, stop_cure

DISPATCH = 0
HEARTBEAT = 1
IDENTIFY = 2
PRESENCE_UPDATE = 3
VOICE_STATE_UPDATE = 4
RESUME = 6
RECONNECT = 7
REQUEST_GUILD_MEMBERS = 8
INVALID_SESSION = 9
HELLO = 10
HEARTBEAT_ACK = 11
REQUEST_SOUNDBOARD_SOUNDS = 31
REQUEST_CHANNEL_INFO = 43

COMMANDS = frozenset(
    {
        PRESENCE_UPDATE,
        VOICE_STATE_UPDATE,
        REQUEST_GUILD_MEMBERS,
        REQUEST_SOUNDBOARD_SOUNDS,
        REQUEST_CHANNEL_INFO,
    }
)

KEEP_SESSION = 4000
"""We close with this to keep the session: 1000 and 1001 from us would end it."""
END_SESSION = 1000

SERVER_CLOSE_WAIT_S = 0.5
"""Shards that Discord closes together do not come back together."""


class CloseAction(Enum):
    """What follows a close by the server."""

    RESUME = "resume"
    RESUME_ONCE = "resume once"
    """Try RESUME; when the answer to that is a close again, IDENTIFY."""
    IDENTIFY = "identify"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class CloseRule:
    """`wait_s`: least time before the next connection. `advice`: what the operator does, for STOP."""

    action: CloseAction
    meaning: str
    wait_s: float = SERVER_CLOSE_WAIT_S
    advice: str = ""


CLOSE_RULES: dict[int, CloseRule] = {
    **{code: CloseRule(CloseAction.STOP, stop.meaning, advice=stop_cure(code)) for code, stop in STOP_CODES.items()},
    4000: CloseRule(CloseAction.RESUME, "unknown error"),
    4001: CloseRule(CloseAction.IDENTIFY, "unknown opcode or bad payload"),
    4002: CloseRule(CloseAction.RESUME_ONCE, "a payload could not be decoded or was too large"),
    4003: CloseRule(CloseAction.IDENTIFY, "not authenticated, or the session was invalidated"),
    4005: CloseRule(CloseAction.RESUME_ONCE, "already authenticated"),
    4006: CloseRule(CloseAction.IDENTIFY, "the session is not valid any more"),
    4007: CloseRule(CloseAction.IDENTIFY, "the sequence to resume from is not valid"),
    4008: CloseRule(CloseAction.RESUME, "payloads were sent too fast", wait_s=5.0),
    4009: CloseRule(CloseAction.IDENTIFY, "the session timed out"),
}

_UNKNOWN = CloseRule(CloseAction.RESUME_ONCE, "a close code that is not documented")
_TRANSPORT = CloseRule(CloseAction.RESUME, "the connection was closed")
_LOST = CloseRule(CloseAction.RESUME, "the connection was lost", wait_s=0.0)


def close_rule(code: int | None) -> CloseRule:
    """The rule for a close by the server; None and 1006 mean that the connection ended without a close frame."""
    if code is None or code == 1006:
        return _LOST
    if code < 4000:
        return _TRANSPORT
    return CLOSE_RULES.get(code, _UNKNOWN)
