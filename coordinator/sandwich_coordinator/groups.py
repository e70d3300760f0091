"""What a shard group should be and what state it is in: its shape from the configuration, its state from the claims.

Pure functions of a `ClusterView`; the leader writes their results (docs/design/coordination.md). A reason contains no
numbers that change, so that a state is written only when it changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sandwich_coordinator.ids import GroupId, ShardId
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.ranges import format_ranges, parse_ranges, size_of_ranges
from sandwich_coordinator.room import shortage
from sandwich_coordinator.types import AppRecord, BudgetRecord, GroupRecord, GroupState, PlanRecord
from sandwich_coordinator.view import ClusterView, Entry


@dataclass(frozen=True, slots=True)
class Shape:
    """What an application's group should be: its count (0: not known yet), shard ids, and why it cannot start."""

    count: int
    ids: str = ""
    state: GroupState = "starting"
    reason: str = ""


def newest_groups(view: ClusterView) -> dict[str, GroupId]:
    """The newest generation of each application."""
    return {key.app: key for key in sorted(view.groups)}


def wanted_shape(app: AppRecord, group: GroupRecord | None, budget: BudgetRecord | None, lookup_error: str) -> Shape:
    """What an application's group should be; `lookup_error` says why no count is known from Discord.

    An automatic count, once chosen, stays: a change costs session starts and needs an operator.
    """
    count = app.shards.count
    if count == "auto":
        known = group.count if group is not None else 0
        if not known and budget is not None and not budget.error:
            # Discord's recommendation is valid as it is, for large bots too (Discord: Sharding for Large Bots).
            known = max(1, budget.shards)
        if not known:
            return _unknown_count(budget, lookup_error)
        count = known
    if count < 1:
        return Shape(0, state="failed", reason=f"a shard count of {count} makes no sense")
    try:
        ids = parse_ranges(app.shards.ids, count=count) if app.shards.ids else range(count)
    except ValueError as error:
        return Shape(0, state="failed", reason=str(error))
    return Shape(count, format_ranges(ids))


def _unknown_count(budget: BudgetRecord | None, lookup_error: str) -> Shape:
    if budget is not None and budget.error:
        return Shape(0, state="failed", reason=f"Discord refused the token: {budget.error}")
    if lookup_error:
        return Shape(0, state="waiting", reason=f"Discord did not say how many shards are needed: {lookup_error}")
    return Shape(0, state="waiting", reason="asking Discord how many shards are needed")


def group_states(
    view: ClusterView, not_live_since: Mapping[GroupId, float], *, accepting: bool, now: float, policy: Policy
) -> tuple[dict[GroupId, tuple[GroupState, str]], dict[GroupId, float]]:
    """What the claims say about each newest group, and since when (monotonic) the live ones are not whole.

    `accepting`: some node takes shards.
    """
    states: dict[GroupId, tuple[GroupState, str]] = {}
    since: dict[GroupId, float] = {}
    busy = {claim.of for claim in view.claims}
    for key in newest_groups(view).values():
        record = view.groups[key].record
        if any(other.app == key.app and other != key for other in busy):
            states[key] = ("waiting", "the previous generation is still stopping")
            continue
        state, reason, whole = _derive(view, key, record, accepting=accepting)
        if not whole and record.state in ("live", "degraded"):
            since[key] = not_live_since.get(key, now)
            patient = now - since[key] < policy.degraded_after_s
            if state == "starting":
                state, reason = (
                    (record.state, record.reason)
                    if patient
                    else (
                        "degraded",
                        reason or "some shards are not live",
                    )
                )
        states[key] = (state, reason)
    return states, since


def _derive(view: ClusterView, key: GroupId, group: GroupRecord, *, accepting: bool) -> tuple[GroupState, str, bool]:
    """State, reason, and whether every shard is live or has failed for good. Reasons name no changing numbers."""
    live = failed = 0
    first_failure = ""
    shards = shard_ids(group)
    for shard in shards:
        entry = view.claims.get(ShardId(key.app, key.group, shard))
        if entry is None:
            continue
        if entry.record.state == "failed":
            failed += 1
            first_failure = first_failure or f"shard {shard}: {entry.record.reason or 'no reason given'}"
        live += entry.record.state == "live"
    whole = live + failed == len(shards)
    if failed:
        return ("failed" if failed == len(shards) else "degraded"), first_failure, whole
    if live == len(shards) and shards:
        return "live", "", True
    if not accepting and key not in view.plans:
        return "waiting", "no node accepts shards", whole
    planned = sum(map(size_of_ranges, view.plans[key].record.nodes.values())) if key in view.plans else 0
    short = shortage(view, key.app) if planned < len(shards) else None
    if short is not None:
        return "starting" if planned else "waiting", f"shards have no place: {short.reason}", whole
    return "starting", "", whole


def shard_ids(group: GroupRecord) -> list[int]:
    """The shards of a group. Only leaders write groups, so ranges that cannot be read count as none."""
    try:
        return parse_ranges(group.ids)
    except ValueError:
        return []


def planned_nodes(entry: Entry[PlanRecord] | None) -> dict[int, str]:
    """A plan as shard -> node; ranges that cannot be read count as none."""
    assigned: dict[int, str] = {}
    for node, ranges in sorted(entry.record.nodes.items()) if entry is not None else ():
        try:
            assigned |= dict.fromkeys(parse_ranges(ranges), node)
        except ValueError:
            continue
    return assigned
