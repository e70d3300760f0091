"""What is told of a join: `__extra.invited_by`. Pure; a public contract, described in docs/guide/invites.md."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from sandwich_node.invites.wire import Invite

CANDIDATES_MAX = 25


class Reason(StrEnum):
    """Why it is not known."""

    BOT = "bot"
    """A bot: it was added, which needs no invite."""
    NO_PERMISSION = "no_permission"
    """The bot may not manage the guild, so that Discord shows it no counts."""
    NO_BASELINE = "no_baseline"
    """The counts before this join are not known; they are being fetched."""
    NO_INVITE = "no_invite"
    """No count rose: discovery, a widget, a link of another kind."""
    INVITE_GONE = "invite_gone"
    """No count rose, but an invite vanished that may have been used."""
    AMBIGUOUS = "ambiguous"
    """Several joins and several invites at the same time, or more uses than joins."""
    BURST = "burst"
    """So many joins at once that asking for each would take too long."""
    RATE_LIMITED = "rate_limited"
    """Discord, or the share of its limits that is for this, allowed no request in time."""
    UNAVAILABLE = "unavailable"
    """Discord gave no usable answer."""
    INTERRUPTED = "interrupted"
    """The shard was given away, or its session or the guild was lost, before it was known."""
    TIMEOUT = "timeout"
    """Not known within the time that a join may wait; told later in an event of its own."""


@dataclass(frozen=True, slots=True)
class ByInvite:
    """By an invite or the vanity URL. `last_use`: inferred from the invite's deletion rather than counted."""

    invite: Invite
    vanity: bool = False
    last_use: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """Not known; `candidates` are the codes one of which it may have been."""

    reason: Reason
    candidates: tuple[str, ...] = ()


Attribution = ByInvite | Unknown


def invited_by(verdict: Attribution, *, pending: bool = False) -> bytes:
    """The JSON that consumers see. `pending`: an event of its own will tell how it ended."""
    shown: dict[str, Any]
    if isinstance(verdict, Unknown):
        shown = {"source": "unknown", "reason": verdict.reason.value}
        if verdict.candidates:
            shown["candidates"] = verdict.candidates[:CANDIDATES_MAX]
        if pending:
            shown["pending"] = True
    else:
        shown = {
            "source": "vanity" if verdict.vanity else "invite",
            "code": verdict.invite.code,
            "inviter": verdict.invite.inviter,
            "evidence": "last_use" if verdict.last_use else "uses",
        }
    return msgspec.json.encode(shown)
