"""What the leader writes about automatic shard counts: proposals, and those that it accepts by itself.

Part of `leader.reconcile`; see there. What is proposed is decided in `autoscale`. Pure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import msgspec

from sandwich_coordinator.autoscale import SHARDING_REQUIRED, may_act, propose
from sandwich_coordinator.groups import claims_of, serving_groups, upcoming_groups
from sandwich_coordinator.ids import GroupId
from sandwich_coordinator.plans import LeaderMemory, LeaderWrite
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.scale_plan import no_room, plan_next_group
from sandwich_coordinator.store.base import Compare, Delete, Put
from sandwich_coordinator.types import AppRecord, ProposalRecord, RolloutRecord
from sandwich_coordinator.view import ClusterView, Entry

LOOK_EVERY_S = 60.0
"""How often it is looked whether the window of a waiting proposal is open."""


def proposal_writes(
    view: ClusterView, memory: LeaderMemory, *, now: float, wall: float, policy: Policy
) -> tuple[LeaderMemory, list[LeaderWrite], list[float]]:
    """What to remember and to write, and when (monotonic) to look again. `now`: monotonic; `wall`: Unix seconds."""
    checked = {app: at for app, at in memory.checked.items() if app in view.apps}
    writes: list[LeaderWrite] = []
    wakes: list[float] = []
    serving, upcoming = serving_groups(view), upcoming_groups(view)
    for name, app in sorted(view.apps.items()):
        key, spec = serving.get(name), app.record.shards
        if spec.count != "auto":
            checked.pop(name, None)
            writes += _forget_accepted(view, name)
            continue
        if key is None or app.record.paused or name in upcoming or view.groups[key].record.phase != "active":
            continue
        proposal = view.proposals.get(name)
        due = checked.get(name, now - spec.check_every_s) + spec.check_every_s
        if due <= now or _is_urgent(view, key, proposal):
            if view.groups[key].record.state != "live" and not _needs_sharding(view, key):
                continue
            budget = view.budgets.get(app.record.token_hash)
            found = propose(view, key, spec, budget.record if budget is not None else None, wall)
            change = list(_propose(view, app, found))
            writes += change
            if not change:
                # Only now: a write may fail its guard, and is then made again.
                checked[name] = now
            due = now + spec.check_every_s
        wakes.append(due)
        if proposal is not None and not spec.confirm:
            wakes.append(now + LOOK_EVERY_S)
            if may_act(spec, wall):
                writes += _accept(view, app, proposal, policy)
    writes += _obsolete(view, serving)
    return replace(memory, checked=checked), writes, wakes


def _needs_sharding(view: ClusterView, key: GroupId) -> bool:
    claims = claims_of(view, key, view.groups[key].record).values()
    return any(claim is not None and claim.close_code == SHARDING_REQUIRED for claim in claims)


def _is_urgent(view: ClusterView, key: GroupId, proposal: Entry[ProposalRecord] | None) -> bool:
    return proposal is None and _needs_sharding(view, key)


def _propose(view: ClusterView, app: Entry[AppRecord], found: ProposalRecord | None) -> Iterator[LeaderWrite]:
    name = app.record.app
    key, present = view.keys.proposal(name), view.proposals.get(name)
    if present is None and found is None:
        return
    guards = (
        Compare(view.keys.app(name), "mod_revision", app.mod_revision),
        Compare(key, "mod_revision", view.revision_of_bad(key) if present is None else present.mod_revision),
    )
    if found is None:
        yield LeaderWrite(guards, (Delete(key),), f"{name} has the right shard count")
    elif present is None or (present.record.count, present.record.reason) != (found.count, found.reason):
        said = f"proposed {found.count} shards for {name}: {found.reason}"
        yield LeaderWrite(guards, (Put(key, found.encode()),), said)


def _accept(
    view: ClusterView, app: Entry[AppRecord], proposal: Entry[ProposalRecord], policy: Policy
) -> Iterator[LeaderWrite]:
    """Take the proposal, or say in it why it waits: without room the next group would never be ready."""
    name = app.record.app
    key, stored = view.keys.rollout(name), view.rollouts.get(name)
    before = stored.record if stored is not None else RolloutRecord()
    after = msgspec.structs.replace(before, auto_count=proposal.record.count)
    guards = (
        Compare(view.keys.app(name), "mod_revision", app.mod_revision),
        Compare(view.keys.proposal(name), "mod_revision", proposal.mod_revision),
        Compare(key, "mod_revision", stored.mod_revision if stored is not None else view.revision_of_bad(key)),
    )
    plan = plan_next_group(view, app.record, after, policy=policy)
    waits = no_room(plan) if plan is not None else ""
    if not waits:
        writes = (Put(key, after.encode()), Delete(view.keys.proposal(name)))
        yield LeaderWrite(guards, writes, f"{name} gets {proposal.record.count} shards: {proposal.record.reason}")
    elif waits != proposal.record.waits:
        waiting = msgspec.structs.replace(proposal.record, waits=waits)
        said = f"{name} does not get the {proposal.record.count} shards that are proposed: {waits}"
        yield LeaderWrite(guards[:2], (Put(view.keys.proposal(name), waiting.encode()),), said)


def _forget_accepted(view: ClusterView, name: str) -> Iterator[LeaderWrite]:
    """A fixed count: what was accepted for an automatic one must not come back with the next automatic one."""
    stored = view.rollouts.get(name)
    if stored is not None and stored.record.auto_count:
        key = view.keys.rollout(name)
        after = msgspec.structs.replace(stored.record, auto_count=0)
        guard = Compare(key, "mod_revision", stored.mod_revision)
        yield LeaderWrite((guard,), (Put(key, after.encode()),), f"{name} has a fixed shard count")


def _obsolete(view: ClusterView, serving: Mapping[str, GroupId]) -> Iterator[LeaderWrite]:
    """Proposals of applications that are gone, have a fixed count, or have the proposed count already."""
    for name, proposal in sorted(view.proposals.items()):
        app, key = view.apps.get(name), serving.get(name)
        if view.revision_of_bad(view.keys.app(name)):
            continue
        count = view.groups[key].record.count if key is not None else 0
        if app is None or app.record.shards.count != "auto" or proposal.record.count == count:
            guard = Compare(view.keys.proposal(name), "mod_revision", proposal.mod_revision)
            yield LeaderWrite((guard,), (Delete(view.keys.proposal(name)),), f"the proposal for {name} is obsolete")
