"""From one shard group of an application to the next: when a new one begins, and when its phase is over. Pure.

The phases, and why nothing is lost or doubled between two groups: docs/design/scaling.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sandwich_coordinator.groups import READY, Shape, all_in, claims_of, planned_ids
from sandwich_coordinator.ids import GroupId
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.ranges import parse_ranges
from sandwich_coordinator.types import AppRecord, BudgetRecord, GroupPhase, GroupRecord, RolloutRecord
from sandwich_coordinator.view import ClusterView

_LIVE = frozenset({"live"})
_HOLDING = frozenset({"holding"})
_ENDED = frozenset({"ended"})


@dataclass(frozen=True, slots=True)
class WantedGroup:
    """What distinguishes one group from the next: a difference needs new sessions."""

    count: int
    ids: str
    intents: int
    token_hash: str
    restart: int


def wanted_group(app: AppRecord, shape: Shape, rollout: RolloutRecord | None) -> WantedGroup | None:
    """The group that the configuration asks for; None while that is not known, or the application is paused."""
    if shape.state != "starting" or not shape.count:
        return None
    restart = rollout.restart if rollout is not None else 0
    return WantedGroup(shape.count, shape.ids, app.intents, app.token_hash, restart)


def is_as_wanted(group: GroupRecord, wanted: WantedGroup) -> bool:
    """Whether a group needs no successor. One that an older version made does not name its intents and token."""
    if not group.token_hash:
        return (group.count, group.ids) == (wanted.count, wanted.ids)
    return WantedGroup(group.count, group.ids, group.intents, group.token_hash, group.restart) == wanted


def newest_number(view: ClusterView, app: str) -> int:
    """The highest number that a group of the application had; -1 when it never had any.

    The stream still has the chains of groups that are gone: their holds, and their end frames, which nothing follows.
    """
    given = view.group_numbers.get(app)
    present = max((key.group for key in view.groups if key.app == app), default=-1)
    return present if given is None else max(present, given.record.newest)


def has_ended(view: ClusterView, key: GroupId, group: GroupRecord) -> bool:
    """Whether an earlier group of this number ended its chains: etcd was lost, or restored from before a switch.

    Only groups that are replaced end theirs. Nothing may follow an end frame: the group needs another number.
    """
    return group.phase == "active" and "ended" in view.claim_states.get(key, {})


def begins_at_once(view: ClusterView, serving: GroupId, group: GroupRecord, wanted: WantedGroup) -> bool:
    """Whether the next group replaces the serving one without a switch: there is nothing to keep, or it was asked for.

    Nothing is to keep when no shard has a session, when all shards failed for good, or when the token is another bot's.
    """
    rollout = view.rollouts.get(serving.app)
    if rollout is not None and rollout.record.hard and rollout.record.restart != group.restart:
        return True
    if _bot(view, group.token_hash) != _bot(view, wanted.token_hash) and group.token_hash:
        return "" not in (_bot(view, group.token_hash), _bot(view, wanted.token_hash))
    states = {claim.state for claim in claims_of(view, serving, group).values() if claim is not None}
    return states == {"failed"} or not (serving in view.with_sessions or "live" in states)


def _bot(view: ClusterView, token_hash: str) -> str:
    budget = view.budgets.get(token_hash)
    return budget.record.bot_id if budget is not None else ""


def has_starts_for(wanted: WantedGroup, budget: BudgetRecord | None, policy: Policy) -> bool:
    """Whether the token has enough session starts for the whole group, above the reserve for failover.

    More than Discord ever grants cannot be waited for: a group that is larger starts with all that there are.
    """
    if budget is None or budget.error:
        return False
    reserve = policy.reserve_of(budget.total)
    needed = min(len(parse_ranges(wanted.ids)), budget.total - reserve)
    return budget.remaining - reserve >= needed


def next_phase(view: ClusterView, key: GroupId, group: GroupRecord) -> GroupPhase | None:
    """The phase after the one that an upcoming group is in, once its shards are through; None before."""
    match group.phase:
        case "canary":
            claims = claims_of(view, key, group)
            first = (claims[shard] for shard in planned_ids(group))
            return "preparing" if all(claim is not None and claim.state in READY for claim in first) else None
        case "preparing":
            return "holding" if all_in(view, key, group, READY) else None
        case "holding":
            return "switching" if all_in(view, key, group, _HOLDING) else None
        case _:
            return None


def finished_switches(view: ClusterView) -> Iterator[tuple[GroupId, GroupId]]:
    """The groups that serve alone, each with the one that it replaced: all are live, and all chains have ended."""
    for key, entry in sorted(view.groups.items()):
        if entry.record.phase != "switching":
            continue
        old = GroupId(key.app, entry.record.replaces if entry.record.replaces is not None else -1)
        before = view.groups.get(old)
        if all_in(view, key, entry.record, _LIVE) and (before is None or all_in(view, old, before.record, _ENDED)):
            yield key, old


def needs_relocation(view: ClusterView, key: GroupId) -> bool:
    """Whether the cache has to learn at which shard of the new group each guild is."""
    app = view.apps.get(key.app)
    return app is not None and app.record.cache.enabled
