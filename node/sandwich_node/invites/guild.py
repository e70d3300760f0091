"""The tracker's state of one guild. Pure."""

from dataclasses import dataclass, field
from typing import NamedTuple

from sandwich_node.invites.attribution import Reason
from sandwich_node.invites.effects import FetchRequest
from sandwich_node.invites.invite_counts import NEVER, InviteCounts
from sandwich_node.invites.permissions import ManagePermission


class Moment(NamedTuple):
    """One moment on two clocks: `mono` in monotonic seconds, `wall` in seconds since 1970.

    `wall` is only for comparison with Discord's `expires_at`.
    """

    mono: float
    wall: float


@dataclass(slots=True)
class Guild:
    """One guild. `permission` None: not known, as after a RESUME; a request is tried then."""

    id: str
    permission: ManagePermission | None = None
    denied_until: float = -NEVER
    vanity: bool | None = None
    invite_counts: InviteCounts | None = None
    weight: int = 0
    asking: FetchRequest | None = None
    ask_at: float = -NEVER
    held_up_by: Reason = Reason.BURST
    opened_at: float = NEVER
    requests: int = 0
    failures: int = 0
    released: set[int] = field(default_factory=set)
    """Handles of the round whose joins do not wait any more."""
    is_persisted: bool = False
    """Whether the store may hold counts of this guild."""

    def may_ask(self, now: float) -> bool:
        """Whether Discord is expected to show the counts."""
        return now >= self.denied_until and (self.permission is None or self.permission.manages)

    def is_due(self, now: float) -> bool:
        """Whether another answer is needed, and a request may be sent now."""
        return (
            self.asking is None
            and self.invite_counts is not None
            and not self.invite_counts.is_covered
            and self.ask_at <= now
        )

    def is_stale(self, now: float) -> bool:
        """Whether another answer is wanted although no member joined, and a request may be sent now."""
        return (
            not self.is_busy
            and self.invite_counts is not None
            and max(self.invite_counts.refresh_at, self.ask_at) <= now
        )

    @property
    def is_blind(self) -> bool:
        """Whether its counts are not known."""
        return self.invite_counts is None or self.invite_counts.blind

    @property
    def is_busy(self) -> bool:
        """Whether its counts are in use at this moment."""
        return self.asking is not None or (self.invite_counts is not None and bool(self.invite_counts.joins))
