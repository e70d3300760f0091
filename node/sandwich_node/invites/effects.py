"""The effects of the tracker: imperatives that the shell carries out."""

from dataclasses import dataclass

from sandwich_node.invites.attribution import Attribution
from sandwich_node.invites.invite_counts import InviteCounts


@dataclass(frozen=True, slots=True)
class Report:
    """Report how a user joined. Not `final`: the join must not wait longer, but a better answer may follow."""

    handle: int
    guild: str
    user: str
    attribution: Attribution
    final: bool = True


@dataclass(frozen=True, slots=True)
class PersistCounts:
    """Save this state of the guild for the shard's next owner; None removes it.

    `urgent`: the saved state is outdated. It must be gone before the event that outdates it counts as handled.
    """

    guild: str
    state: bytes | None
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class DropCounts:
    """Remove the saved state of all guilds: it is outdated."""


Effect = Report | PersistCounts | DropCounts


@dataclass(frozen=True, slots=True, eq=False)
class FetchRequest:
    """Fetch a guild's invites, and with `vanity` its vanity URL. Report with `sent`, then `answered` or `failed`."""

    guild: str
    vanity: bool
    invite_counts: InviteCounts
