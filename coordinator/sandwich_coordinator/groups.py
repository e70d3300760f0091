"""What a shard group should be and what state it is in: its shape from the configuration, its state from the claims.

Pure functions of a `ClusterView`; the leader writes their results (docs/design/coordination.md). A reason contains no
numbers that change, so that a state is written only when it changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from sandwich_coordinator.ids import GroupId, ShardId
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.ranges import format_ranges, parse_ranges, size_of_ranges
from sandwich_coordinator.room import shortage
from sandwich_coordinator.types import (
    AppRecord,
    BudgetRecord,
    ClaimRecord,
    GroupPhase,
    GroupRecord,
    GroupState,
    PlanRecord,
    RolloutRecord,
)
from sandwich_coordinator.view import ClusterView, Entry

UPCOMING: frozenset[GroupPhase] = frozenset({"canary", "preparing", "holding"})
"""Phases of a group whose output is withheld: it may be removed and the serving group is untouched."""

RANGES_KEPT = 2500
"""A plan of 20 groups for 100 nodes has 2,000 ranges: of 10,000 shards some 8 bytes each, of the groups as many."""

GROUPS_KEPT = 64

READY: frozenset[str] = frozenset({"ready", "holding"})
"""States of a shard of an upcoming group that has its session and all its guilds."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What an application's group should be: its count (0: not known yet), shard ids, and why it cannot start."""

    count: int
    ids: str = ""
    state: GroupState = "starting"
    reason: str = ""


def serving_groups(view: ClusterView) -> dict[str, GroupId]:
    """The group of each application that takes requests and whose events consumers get.

    From `switching` on, that is the group that replaces the other one.
    """
    order = sorted(view.groups, key=lambda key: (view.groups[key].record.phase != "closing", key))
    return {key.app: key for key in order if view.groups[key].record.phase not in UPCOMING}


def upcoming_groups(view: ClusterView) -> dict[str, GroupId]:
    """The next generation of each application that has one: its output is withheld."""
    return {key.app: key for key in sorted(view.groups) if view.groups[key].record.phase in UPCOMING}


def wanted_shape(
    app: AppRecord,
    group: GroupRecord | None,
    budget: BudgetRecord | None,
    lookup_error: str,
    rollout: RolloutRecord | None = None,
) -> Shape:
    """What an application's group should be; `lookup_error` says why no count is known from Discord.

    An automatic count, once chosen, stays until `rollout` names another one: a change costs session starts.
    """
    count = app.shards.count
    if count == "auto":
        accepted = rollout.auto_count if rollout is not None else 0
        known = accepted or (group.count if group is not None else 0)
        if not known and budget is not None and not budget.error:
            # Discord's recommendation is valid as it is, for large bots too (Discord: Sharding for Large Bots).
            known = max(1, budget.shards)
        if not known:
            return _unknown_count(budget, lookup_error)
        count = known
    if count < 1:
        return Shape(0, state="failed", reason=f"a shard count of {count} makes no sense")
    try:
        return Shape(count, _wanted_ids(count, app.shards.ids))
    except ValueError as error:
        return Shape(0, state="failed", reason=str(error))


@lru_cache(maxsize=RANGES_KEPT)
def _wanted_ids(count: int, ids: str) -> str:
    """The shards that an application is to run, as ascending ranges. Raises ValueError."""
    return format_ranges(parse_ranges(ids, count=count) if ids else range(count))


def _unknown_count(budget: BudgetRecord | None, lookup_error: str) -> Shape:
    if budget is not None and budget.error:
        return Shape(0, state="failed", reason=f"Discord refused the token: {budget.error}")
    if lookup_error:
        return Shape(0, state="waiting", reason=f"Discord did not say how many shards are needed: {lookup_error}")
    return Shape(0, state="waiting", reason="asking Discord how many shards are needed")


def group_states(
    view: ClusterView, not_live_since: Mapping[GroupId, float], *, accepting: bool, now: float, policy: Policy
) -> tuple[dict[GroupId, tuple[GroupState, str]], dict[GroupId, float]]:
    """What the claims say about each group, and since when (monotonic) the live ones are not whole.

    `accepting`: some node takes shards.
    """
    states: dict[GroupId, tuple[GroupState, str]] = {}
    since: dict[GroupId, float] = {}
    stopping = apps_with_stopping_groups(view)
    for key, entry in sorted(view.groups.items()):
        record = entry.record
        if record.phase == "closing":
            states[key] = ("closing", "its successor takes over")
            continue
        if key.app in stopping and key not in view.plans:
            states[key] = ("waiting", "the previous generation is still stopping")
            continue
        state, reason, whole = _derive(view, key, record, accepting=accepting)
        if not whole and record.state in ("live", "degraded"):
            since[key] = not_live_since.get(key, now)
            patient = now - since[key] < policy.degraded_after_s
            if state == "starting":
                why = reason or "some shards are not live"
                state, reason = (record.state, record.reason) if patient else ("degraded", why)
        states[key] = (state, reason)
    return states, since


def token_hash_of(view: ClusterView, key: GroupId) -> str:
    """The token that a group's sessions are started with; "" when the application is not known."""
    app, group = view.apps.get(key.app), view.groups.get(key)
    if app is None:
        return ""
    return (group.record.token_hash if group is not None else "") or app.record.token_hash


def apps_with_stopping_groups(view: ClusterView) -> frozenset[str]:
    """Applications with shards of a group that is deleted: their next group waits until these have ended."""
    return frozenset(key.app for key in view.claim_states.keys() - view.groups.keys())


def claims_of(view: ClusterView, key: GroupId, group: GroupRecord) -> dict[int, ClaimRecord | None]:
    """The claim of each shard of a group; None for a shard that runs nowhere."""
    entries = {shard: view.claims.get(ShardId(key.app, key.group, shard)) for shard in shard_ids(group)}
    return {shard: None if entry is None else entry.record for shard, entry in entries.items()}


def claims_by_group(view: ClusterView) -> dict[GroupId, dict[int, ClaimRecord]]:
    """The claims of every group that has any, by shard number. One pass, for who looks at many groups."""
    found: dict[GroupId, dict[int, ClaimRecord]] = {}
    for shard, entry in view.claims.items():
        found.setdefault(shard.of, {})[shard.shard] = entry.record
    return found


def all_in(view: ClusterView, key: GroupId, group: GroupRecord, states: frozenset[str]) -> bool:
    """Whether every shard of a group is in one of these states."""
    shards, counts = shard_ids(group), view.claim_states.get(key, {})
    if sum(counts.get(state, 0) for state in states) < len(shards):
        return False
    entries = (view.claims.get(ShardId(key.app, key.group, shard)) for shard in shards)
    return all(entry is not None and entry.record.state in states for entry in entries)


def planned_ids(group: GroupRecord) -> list[int]:
    """The shards of a group that are to run now: in phase `canary` only the first one."""
    return shard_ids(group)[: 1 if group.phase == "canary" else None]


def _derive(view: ClusterView, key: GroupId, group: GroupRecord, *, accepting: bool) -> tuple[GroupState, str, bool]:
    """State, reason, and whether every shard is live or has failed for good. Reasons name no changing numbers."""
    live = failed = 0
    first_failure = ""
    shards, counts = shard_ids(group), view.claim_states.get(key, {})
    if counts == {"live": len(shards)} and _shards_of(key, group.ids) <= view.claims.keys():
        return "live", "", True
    is_certain = not counts.get("failed") and counts.get("live", 0) < len(shards)
    # Which claims these are matters only where all shards may be live, or some have failed.
    for shard in () if is_certain else shards:
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
    short = shortage(view, key.app) if planned < len(planned_ids(group)) else None
    if short is not None:
        return "starting" if planned else "waiting", f"shards have no place: {short.reason}", whole
    return "starting", "", whole


def shard_ids(group: GroupRecord) -> list[int]:
    """The shards of a group. Only leaders write groups, so ranges that cannot be read count as none."""
    return list(_numbers(group.ids))


@lru_cache(maxsize=RANGES_KEPT)
def _numbers(ranges: str) -> tuple[int, ...]:
    """The shards of ranges; none when they cannot be read. The same ranges are read again with each decision."""
    try:
        return tuple(parse_ranges(ranges))
    except ValueError:
        return ()


@lru_cache(maxsize=GROUPS_KEPT)
def _shards_of(key: GroupId, ranges: str) -> frozenset[ShardId]:
    return frozenset(ShardId(*key, number) for number in _numbers(ranges))


def planned_nodes(entry: Entry[PlanRecord] | None) -> dict[int, str]:
    """A plan as shard -> node; ranges that cannot be read count as none."""
    assigned: dict[int, str] = {}
    for node, ranges in sorted(entry.record.nodes.items()) if entry is not None else ():
        assigned |= dict.fromkeys(_numbers(ranges), node)
    return assigned


def planned_here(view: ClusterView, key: GroupId, node: str) -> tuple[int, ...]:
    """The shards of a group that are planned for a node; ranges that cannot be read count as none."""
    entry = view.plans.get(key)
    return _numbers(entry.record.nodes.get(node, "")) if entry is not None else ()
