"""What the next shard group of an application costs, and how far it is. Pure.

Discord: Gateway, Session Start Limit Object; Sharding for Large Bots.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sandwich_coordinator.generations import WantedGroup, begins_at_once, has_starts_for, is_as_wanted, wanted_group
from sandwich_coordinator.groups import READY, claims_of, serving_groups, shard_ids, upcoming_groups, wanted_shape
from sandwich_coordinator.ids import GroupId
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.ranges import parse_ranges
from sandwich_coordinator.room import free_places, lacks_labels, no_node_has
from sandwich_coordinator.types import AppRecord, BudgetRecord, GroupPhase, GroupRecord, RolloutRecord
from sandwich_coordinator.view import ClusterView

SHARD_BYTES = 190 * 1024
"""Memory of a shard without traffic (docs/reference/benchmarks.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalePlan:
    """A shard group that is to replace the present one.

    reasons        what is different, for example "4 shards -> 8 shards"
    before, after  shards that run now, and then
    starts         session starts that it costs; `left` of `total` are there, `reserve` of them are kept for failover
    reset_at       when all starts are there again (Unix seconds)
    seconds        the least time that the starts take: one in each bucket in `spacing_s` seconds
    memory_bytes   what the new group's shards need beside the old group's, without traffic
    at_once        the present group ends first: there is nothing to keep, or that was asked for
    enough         whether the starts are there now; otherwise the group begins after the reset
    without_room   shards of the new group that no node has room for (--max-shards, placement); 0: all find a place
    room_advice    what would make room, or why there is none; "": there is room
    """

    app: str
    reasons: tuple[str, ...]
    before: int
    after: int
    starts: int
    left: int | None
    total: int | None
    reserve: int
    reset_at: float | None
    seconds: float
    memory_bytes: int
    at_once: bool
    enough: bool
    without_room: int = 0
    room_advice: str = ""


def plan_next_group(
    view: ClusterView, after: AppRecord, rollout: RolloutRecord | None = None, *, policy: Policy
) -> ScalePlan | None:
    """The group that the leader starts once the application is stored as `after`. None: no new group is needed.

    `rollout`: what is stored with it; None: what is stored now.
    """
    key = serving_groups(view).get(after.app)
    if key is None:
        return None
    group, stored = view.groups[key].record, view.rollouts.get(after.app)
    rollout = rollout or (stored.record if stored is not None else None)
    entry = view.budgets.get(after.token_hash)
    budget = entry.record if entry is not None else None
    wanted = wanted_group(after, wanted_shape(after, group, budget, "", rollout), rollout)
    if wanted is None or not group.count or is_as_wanted(group, wanted):
        return None
    starts = len(parse_ranges(wanted.ids))
    at_once = _is_hard(group, rollout) or begins_at_once(view, key, group, wanted)
    # An upcoming group that is not as wanted any more ends before the next one begins.
    ending = {key for key in (upcoming_groups(view).get(after.app), key if at_once else None) if key is not None}
    free = free_places(view, after.placement, ending=ending)
    without_room = 0 if free is None else max(0, starts - free)
    return ScalePlan(
        app=after.app,
        reasons=tuple(_differences(group, wanted)),
        before=len(parse_ranges(group.ids)),
        after=starts,
        starts=starts,
        left=budget.remaining if budget is not None else None,
        total=budget.total if budget is not None else None,
        reserve=policy.reserve_of(budget.total) if budget is not None else 0,
        reset_at=budget.reset_at if budget is not None else None,
        seconds=starts_take_s(starts, budget, policy),
        memory_bytes=starts * SHARD_BYTES,
        at_once=at_once,
        enough=has_starts_for(wanted, budget, policy),
        without_room=without_room,
        room_advice=_room_advice(view, after.placement) if without_room else "",
    )


def no_room(plan: ScalePlan) -> str:
    """What an operator has to know of a group without room; "" when there is room."""
    if not plan.without_room:
        return ""
    return f"no node has room for {plan.without_room} of the {plan.after} new shards: {plan.room_advice}"


def _room_advice(view: ClusterView, placement: Mapping[str, str]) -> str:
    if lacks_labels(view, placement):
        return no_node_has(placement)
    return "start more nodes, or start nodes with a higher --max-shards"


def added_group(view: ClusterView, after: AppRecord, *, policy: Policy) -> ScalePlan | None:
    """The group that storing `after` adds. None: none, or the one that what is stored now leads to already."""
    found, stored = plan_next_group(view, after, policy=policy), view.apps.get(after.app)
    if after.paused or found is None:
        return None
    coming = None
    if stored is not None and not stored.record.paused:
        coming = plan_next_group(view, stored.record, policy=policy)
    return None if found == coming else found


def _is_hard(group: GroupRecord, rollout: RolloutRecord | None) -> bool:
    return rollout is not None and rollout.hard and rollout.restart != group.restart


def _differences(group: GroupRecord, wanted: WantedGroup) -> list[str]:
    found = []
    if (group.count, group.ids) != (wanted.count, wanted.ids):
        found.append(f"{_shards(group.count, group.ids)} -> {_shards(wanted.count, wanted.ids)}")
    if group.token_hash and group.intents != wanted.intents:
        found.append("other intents")
    if group.token_hash and group.token_hash != wanted.token_hash:
        found.append("another token")
    if group.restart != wanted.restart:
        found.append("a restart was asked for")
    return found


def _shards(count: int, ids: str) -> str:
    everything = len(parse_ranges(ids)) == count
    return f"{count} {'shard' if count == 1 else 'shards'}" + ("" if everything else f" (here {ids})")


def starts_take_s(starts: int, budget: BudgetRecord | None, policy: Policy) -> float:
    """The least time that so many session starts take."""
    return math.ceil(starts / max(1, budget.max_concurrency if budget is not None else 1)) * policy.identify_spacing_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleProgress:
    """How far a change of an application's shard group is. `done`: shards that are through the phase, of `total`."""

    app: str
    group: int
    replaces: int
    phase: GroupPhase
    done: int
    total: int
    failed: tuple[int, ...]
    seconds_left: float | None


_THROUGH: dict[GroupPhase, frozenset[str]] = {
    "canary": READY,
    "preparing": READY,
    "holding": frozenset({"holding"}),
    "switching": frozenset({"live"}),
}


def scale_progress(view: ClusterView, app: str, *, policy: Policy) -> ScaleProgress | None:
    """The change that is under way; None when there is none."""
    key = upcoming_groups(view).get(app) or _switching(view, app)
    if key is None:
        return None
    group = view.groups[key].record
    claims = claims_of(view, key, group)
    states = Counter(claim.state if claim is not None else "" for claim in claims.values())
    done = sum(states[state] for state in _THROUGH[group.phase])
    entry = view.budgets.get(group.token_hash)
    waiting = len(claims) - sum(states[state] for state in (*READY, "live"))
    starting = group.phase in ("canary", "preparing")
    return ScaleProgress(
        app=app,
        group=key.group,
        replaces=group.replaces if group.replaces is not None else -1,
        phase=group.phase,
        done=done,
        total=len(claims),
        failed=tuple(shard for shard, claim in claims.items() if claim is not None and claim.state == "failed"),
        seconds_left=starts_take_s(waiting, entry.record if entry else None, policy) if starting else None,
    )


def _switching(view: ClusterView, app: str) -> GroupId | None:
    key = serving_groups(view).get(app)
    return key if key is not None and view.groups[key].record.phase == "switching" else None


def desired_shards(view: ClusterView) -> dict[str, int]:
    """By application, how many shards the cluster should have room for: both groups while one replaces the other.

    A proposed group counts too, so that machines can be added before it is accepted. A paused application counts none.
    """
    found = {name: 0 for name, entry in view.apps.items() if not entry.record.paused}
    for key, group in view.groups.items():
        if key.app in found and group.record.phase != "closing":
            found[key.app] += len(shard_ids(group.record))
    for name, proposal in view.proposals.items():
        if name in found and name not in upcoming_groups(view):
            found[name] += proposal.record.count
    return found
