"""What the leader plans: which nodes count, which groups get a plan, and what of the plans has to be written.

Part of `leader.reconcile`; see there. Pure.
"""

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sandwich_coordinator.groups import apps_with_stopping_groups, planned_here, planned_ids, planned_nodes
from sandwich_coordinator.ids import GroupId, LeaderTerm, ShardId, shards_of
from sandwich_coordinator.planner import GroupShards, NodeCapacity, PlanLimits, plan
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.ranges import format_ranges
from sandwich_coordinator.store.base import Compare, Delete, Put
from sandwich_coordinator.types import NodeRecord, PlanRecord
from sandwich_coordinator.view import ClusterView


@dataclass(frozen=True, slots=True)
class LeaderWrite:
    """One guarded transaction. `reason` is for the log; a guard that fails means the view was old: reconcile again."""

    compares: tuple[Compare, ...]
    writes: tuple[Put | Delete, ...]
    reason: str


SMALL = 20
PLANNED_PER_S = 200
"""Each node that gets shards writes their claims with each plan. Where more than `SMALL` nodes may get some, plans come
so far apart that nodes write about so often in a second, all together: many nodes may be lost one shortly after the
other. 100 nodes get a plan at most every 0.4 s, where the loss of a node is noticed after five."""
PACE_MAX_S = 1.0

TOGETHER_OPS_MAX = 100
"""Comparisons, and writes, in one transaction: etcd allows 128 (--max-txn-ops)."""
TOGETHER_BYTES_MAX = 500_000
"""etcd allows 1.5 MB (--max-request-bytes)."""


def together(writes: Iterable[LeaderWrite]) -> Iterator[list[LeaderWrite]]:
    """Neighbours that may share a transaction: a large cluster has many plans, and all nodes act on each that they see.

    One that deletes is alone, and one that is guarded by what an earlier one changes comes after it.
    """
    batch: list[LeaderWrite] = []
    names: set[str] = set()
    compares = size = 0
    for write in writes:
        puts = [one for one in write.writes if isinstance(one, Put)]
        own_names, own_size = {put.key for put in puts}, sum(len(put.key) + len(put.value) for put in puts)
        is_alone = len(puts) < len(write.writes)
        follows = not names.isdisjoint(own_names.union(compare.key for compare in write.compares))
        is_full = (
            compares + len(write.compares) > TOGETHER_OPS_MAX
            or len(names) + len(own_names) > TOGETHER_OPS_MAX
            or size + own_size > TOGETHER_BYTES_MAX
        )
        if batch and (is_alone or is_full or follows):
            yield batch
            batch, names, compares, size = [], set(), 0, 0
        if is_alone:
            yield [write]
            continue
        batch.append(write)
        names |= own_names
        compares += len(write.compares)
        size += own_size
    if batch:
        yield batch


_PLANNED_FROM = ("apps", "groups", "plans", "pins", "bad")


@dataclass(frozen=True, slots=True)
class PlanInputs:
    """What a plan is made from while every shard is planned: the nodes, whether they are settled, parts of the view.

    Claims and sessions matter only for shards without a place, or on their way.
    """

    nodes: Sequence[NodeCapacity]
    settled: bool
    parts: tuple[object, ...]

    def are(self, other: "PlanInputs") -> bool:
        """Whether a plan from `other` would be the same. A view shares the parts that have not changed."""
        same = (self.nodes, self.settled) == (other.nodes, other.settled)
        return same and all(map(operator.is_, self.parts, other.parts))


@dataclass(frozen=True, slots=True)
class Rest:
    """The inputs from which a plan left nothing to do, so that it is not made again before they change.

    moving_max  shards were on their way: until at most so many are; None: none was
    until       and when that does not come, until then (monotonic seconds)

    A plan of 10,000 shards takes 10 ms, so that one for each shard that has moved would keep the leader busy.
    """

    inputs: PlanInputs
    moving_max: int | None
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderMemory:
    """What a leader remembers between two calls. Times are monotonic seconds.

    `members` None: this leader has not looked yet. `departed`: nodes gone and not back, with when they went.
    `departures`: recent disappearances per node, to notice one that keeps coming and going. `relocated`: groups
    at which the cache locates all guilds of the groups that they replaced. `checked`: when each application's automatic
    shard count was looked at. `at_rest`: from what the last plan left nothing to do. `planned_at`: when
    a plan last changed something.
    """

    members: frozenset[str] | None = None
    departed: Mapping[str, float] = field(default_factory=dict)
    departures: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    changed_at: float | None = None
    hold_until: float | None = None
    not_live_since: Mapping[GroupId, float] = field(default_factory=dict)
    relocated: frozenset[GroupId] = frozenset()
    checked: Mapping[str, float] = field(default_factory=dict)
    at_rest: Rest | None = None
    planned_at: float | None = None


def pace_s(nodes: int) -> float:
    """The least time between two plans that change something, for so many nodes: shards of a lost node wait for it."""
    return min(max(0, nodes - SMALL) / PLANNED_PER_S, PACE_MAX_S)


def unreadable_nodes(view: ClusterView) -> frozenset[str]:
    """Nodes whose record cannot be read although their lease lives: they are there and may be running shards."""
    prefix = view.keys.nodes
    bad = (name.removeprefix(prefix) for name, entry in view.bad.items() if entry.lease and name.startswith(prefix))
    return frozenset(node for node in bad if node and "/" not in node)


def apps_with_unreadable_groups(view: ClusterView) -> frozenset[str]:
    """Applications one of whose generations cannot be read: which is the newest is not known, so they stay as is."""
    prefix = view.keys.groups
    return frozenset(name.removeprefix(prefix).split("/")[0] for name in view.bad if name.startswith(prefix))


def capacities(view: ClusterView) -> list[NodeCapacity]:
    return [capacity(view.nodes[name].record) for name in sorted(view.nodes)]


def capacity(node: NodeRecord) -> NodeCapacity:
    """A registered node as the planner sees it."""
    return NodeCapacity(
        node.node, node.capacity, node.state == "ready", node.state == "draining", node.max_shards, node.labels
    )


def group_shards(view: ClusterView, key: GroupId) -> GroupShards:
    """A group as the planner sees it. Its application must be in the view."""
    app = view.apps[key.app].record
    return GroupShards(key.app, key.group, planned_ids(view.groups[key].record), app.placement, app.weight)


def plannable(view: ClusterView, memory: LeaderMemory, now: float, policy: Policy) -> list[NodeCapacity]:
    """The nodes to plan with: flapping ones get nothing new, absent ones within their grace period keep theirs."""
    present = capacities(view)
    flapping = {node for node, times in memory.departures.items() if len(times) >= policy.flaps_max}
    calm = [replace(node, accepts_new=False) if node.node in flapping else node for node in present]
    awaited = [node for node, at in sorted(memory.departed.items()) if now - at < policy.restart_grace_s]
    usable = calm if any(node.accepts for node in calm) else present
    staying = sorted({*awaited, *unreadable_nodes(view)})
    return [*usable, *(NodeCapacity(node, 1, accepts_new=False, labels=None) for node in staying)]


def planned_groups(view: ClusterView) -> list[GroupId]:
    """The groups that get a plan: of applications that are not paused. A first plan waits for the end of old shards."""
    unsure, stopping = apps_with_unreadable_groups(view), apps_with_stopping_groups(view)
    chosen: list[GroupId] = []
    for key, group in sorted(view.groups.items()):
        app = view.apps.get(key.app)
        if app is None or app.record.paused or key.app in unsure:
            continue
        # A group that has a plan is replanned all the same: its nodes may go meanwhile.
        if group.record.count and (key.app not in stopping or key in view.plans):
            chosen.append(key)
    return chosen


def pins(view: ClusterView) -> dict[ShardId, str]:
    """Which shards operators want where."""
    return {shard: entry.record.node for shard, entry in view.pins.items()}


def plan_writes(
    view: ClusterView, memory: LeaderMemory, *, term: LeaderTerm, now: float, policy: Policy
) -> tuple[list[LeaderWrite], LeaderMemory]:
    """What of the plans has to be written, and what to remember of it."""
    stopping = list(_paused_plans(view))
    if memory.hold_until is not None:
        return stopping, replace(memory, at_rest=None)
    if memory.planned_at is not None and now < memory.planned_at + pace_s(len(view.nodes)):
        return stopping, memory
    writes, rest = _changed_plans(view, memory, term=term, now=now, policy=policy)
    planned_at = now if writes else memory.planned_at
    return [*stopping, *writes], replace(memory, at_rest=None if stopping else rest, planned_at=planned_at)


def _changed_plans(
    view: ClusterView, memory: LeaderMemory, *, term: LeaderTerm, now: float, policy: Policy
) -> tuple[list[LeaderWrite], Rest | None]:
    """The plans to write, and from what there are none."""
    settled = memory.changed_at is None or now - memory.changed_at >= policy.settle_s
    nodes = plannable(view, memory, now, policy)
    inputs = PlanInputs(nodes, settled, tuple(getattr(view, name) for name in _PLANNED_FROM))
    rest = memory.at_rest if memory.at_rest is not None and memory.at_rest.inputs.are(inputs) else None
    if rest is not None and rest.moving_max is None:
        return [], rest
    known = {node.node for node in nodes}
    groups = [group_shards(view, key) for key in planned_groups(view)]
    current: dict[GroupId, dict[int, str]] = {}
    moving = 0
    for group in groups:
        key = GroupId(group.app, group.group)
        current[key], in_flight = _present(view, key, group, known)
        moving += in_flight
    if rest is not None and rest.moving_max is not None and moving > rest.moving_max and now < rest.until:
        return [], rest
    limits = PlanLimits(max(0, policy.moves_in_flight_max - moving), rebalance=settled)
    planned = plan(nodes, groups, current, limits, pins(view))
    changes = [_plan_write(view, key, assigned, term) for key, assigned in planned.items()]
    writes = [write for write in changes if write is not None]
    is_complete = all(len(planned[GroupId(group.app, group.group)]) == len(group.shard_ids) for group in groups)
    if writes or not is_complete:
        return writes, None
    # Others may move once half of those that are on their way have arrived. Some may never do.
    half = min(moving, policy.moves_in_flight_max) // 2
    return writes, Rest(inputs, half if moving else None, now + policy.settle_s)


def _present(view: ClusterView, key: GroupId, group: GroupShards, known: set[str]) -> tuple[dict[int, str], int]:
    """Who should have each shard now (the plan, else the claim), and how many shards are between two owners.

    A shard without an owner that has run before has "": it comes before new ones.
    """
    assigned = planned_nodes(view.plans.get(key))
    owners: dict[int, str] = {}
    moving = 0
    for number, shard in zip(group.shard_ids, shards_of(key, group.shard_ids), strict=True):
        claim = view.claims.get(shard)
        planned = assigned.get(number)
        owner = planned if planned in known else claim.record.node if claim is not None else None
        if owner is None and shard in view.sessions:
            owner = ""
        if owner is not None:
            owners[number] = owner
        if planned is None:
            continue
        # What its owner does with the shard is no move: when Discord is down, draining must go on.
        if claim is not None:
            moving += claim.record.node != planned
        elif shard in view.sessions and planned in known:
            moving += view.keys.claim(*shard) not in view.bad
    return owners, moving


def _plan_write(view: ClusterView, key: GroupId, assigned: Mapping[int, str], term: LeaderTerm) -> LeaderWrite | None:
    entry = view.plans.get(key)
    if entry is not None and planned_nodes(entry) == assigned:
        given = [planned_here(view, key, node) for node in entry.record.nodes]
        # Without a node for nothing, and without a shard that two have.
        if all(given) and sum(map(len, given)) == len(assigned):
            return None
    by_node: dict[str, list[int]] = {}
    for shard, node in assigned.items():
        by_node.setdefault(node, []).append(shard)
    nodes = {node: format_ranges(by_node[node]) for node in sorted(by_node)}
    if nodes == (entry.record.nodes if entry is not None else {}):
        return None
    record = PlanRecord(app=key.app, group=key.group, term=term, nodes=nodes)
    name, group = view.keys.plan(*key), view.keys.group(*key)
    guards = (
        Compare(name, "mod_revision", view.revision_of_bad(name) if entry is None else entry.mod_revision),
        Compare(group, "create_revision", view.groups[key].create_revision),
    )
    return LeaderWrite(guards, (Put(name, record.encode()),), f"planned group {key.app}/{key.group}")


def _paused_plans(view: ClusterView) -> Iterator[LeaderWrite]:
    for key in sorted(view.plans):
        app = view.apps.get(key.app)
        if app is not None and app.record.paused:
            name = view.keys.plan(*key)
            guards = (
                Compare(name, "mod_revision", view.plans[key].mod_revision),
                Compare(view.keys.app(key.app), "mod_revision", app.mod_revision),
            )
            yield LeaderWrite(guards, (Delete(name),), f"application {key.app} is paused")
