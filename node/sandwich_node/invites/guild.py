"""What the tracker remembers of one guild. Pure."""

from dataclasses import dataclass, field
from typing import NamedTuple

from sandwich_node.invites.attribution import Reason
from sandwich_node.invites.effects import FetchRequest
from sandwich_node.invites.invite_counts import NEVER, InviteCounts
from sandwich_node.invites.permissions import ManagePermission


class Moment(NamedTuple):
    """Monotonic seconds, for all but one thing; and seconds since 1970, to compare with Discord's `expires_at`."""

    mono: float
    wall: float


@dataclass(slots=True)
class Guild:
    """One guild. `power` None: not told, as after a RESUME, so that asking is tried."""

    id: str
    power: ManagePermission | None = None
    denied_until: float = -NEVER
    vanity: bool | None = None
    account: InviteCounts | None = None
    weight: int = 0
    asking: FetchRequest | None = None
    ask_at: float = -NEVER
    held_up_by: Reason = Reason.BURST
    opened_at: float = NEVER
    requests: int = 0
    failures: int = 0
    told: set[int] = field(default_factory=set)
    """Handles of the round that nobody waits for any more."""
    is_kept: bool = False
    """Whether counts of it may be kept outside."""

    def may_ask(self, now: float) -> bool:
        """Whether Discord will show the counts."""
        return now >= self.denied_until and (self.power is None or self.power.manages)

    def is_due(self, now: float) -> bool:
        """Whether another answer is needed, and may be asked for now."""
        return self.asking is None and self.account is not None and not self.account.is_covered and self.ask_at <= now

    def is_stale(self, now: float) -> bool:
        """Whether another answer is wanted although nobody joined, and may be asked for now."""
        return not self.is_busy and self.account is not None and max(self.account.refresh_at, self.ask_at) <= now

    @property
    def is_blind(self) -> bool:
        """Whether its counts are not known."""
        return self.account is None or self.account.blind

    @property
    def is_busy(self) -> bool:
        """Whether its counts are needed just now."""
        return self.asking is not None or (self.account is not None and bool(self.account.joins))
