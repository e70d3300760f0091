"""What the tracker wants done: imperatives."""

from dataclasses import dataclass

from sandwich_node.invites.attribution import Attribution
from sandwich_node.invites.invite_counts import InviteCounts


@dataclass(frozen=True, slots=True)
class Report:
    """This is how somebody joined. Not `final`: nobody shall wait any longer, but a better answer may follow."""

    handle: int
    guild: str
    user: str
    verdict: Attribution
    final: bool = True


@dataclass(frozen=True, slots=True)
class PersistCounts:
    """PersistCounts this of the guild for the shard's next owner, None for nothing.

    `urgent`: what is kept is true no longer, and must be gone before the event that says so can count as done.
    """

    guild: str
    state: bytes | None
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class DropCounts:
    """What is kept of all guilds is true no longer."""


Effect = Report | PersistCounts | DropCounts


@dataclass(frozen=True, slots=True, eq=False)
class FetchRequest:
    """Ask Discord for a guild's invites, and its vanity URL; report with `sent`, then `told` or `failed`."""

    guild: str
    vanity: bool
    account: InviteCounts
