"""The content of `__extra.invited_by`. Pure; a public contract, described in docs/guide/invites.md."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from sandwich_node.invites.wire import Invite

CANDIDATES_MAX = 25


class Reason(StrEnum):
    """Why the invite is not known."""

    BOT = "bot"
    """The new member is a bot. Adding a bot takes no invite."""
    NO_PERMISSION = "no_permission"
    """The bot may not manage the guild, so Discord does not show it the counts."""
    NO_BASELINE = "no_baseline"
    """The counts before this join are not known; they are being fetched."""
    NO_INVITE = "no_invite"
    """No count rose: the member came by discovery, a widget or a link of another kind."""
    INVITE_GONE = "invite_gone"
    """No count rose, but an invite that may have been used is gone."""
    AMBIGUOUS = "ambiguous"
    """Several joins and several invites at the same time, or more uses than joins."""
    BURST = "burst"
    """There were so many joins at once that a request for each would take too long."""
    RATE_LIMITED = "rate_limited"
    """The rate limits of Discord, or the share of them that is reserved for this, allowed no request in time."""
    UNAVAILABLE = "unavailable"
    """Discord returned no usable answer."""
    INTERRUPTED = "interrupted"
    """The shard moved, or its session or the guild was lost, before the invite was known."""
    TIMEOUT = "timeout"
    """Not known within the time that a join may wait; a later event of its own reports it."""


@dataclass(frozen=True, slots=True)
class ByInvite:
    """By an invite or the vanity URL. `last_use`: inferred from the deletion of the invite, not from its count."""

    invite: Invite
    vanity: bool = False
    last_use: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """Not known; `candidates` are the codes of the possible invites."""

    reason: Reason
    candidates: tuple[str, ...] = ()


Attribution = ByInvite | Unknown


def invited_by(attribution: Attribution, *, pending: bool = False) -> bytes:
    """The JSON that consumers see. `pending`: an event of its own will report the result."""
    shown: dict[str, Any]
    if isinstance(attribution, Unknown):
        shown = {"source": "unknown", "reason": attribution.reason.value}
        if attribution.candidates:
            shown["candidates"] = attribution.candidates[:CANDIDATES_MAX]
        if pending:
            shown["pending"] = True
    else:
        shown = {
            "source": "vanity" if attribution.vanity else "invite",
            "code": attribution.invite.code,
            "inviter": attribution.invite.inviter,
            "evidence": "last_use" if attribution.last_use else "uses",
        }
    return msgspec.json.encode(shown)
