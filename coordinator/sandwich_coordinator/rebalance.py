"""Which shards the leader is going to move, and why: the planner's result without limits. Pure."""

from dataclasses import dataclass

from sandwich_coordinator.groups import planned_nodes
from sandwich_coordinator.ids import GroupId, ShardId
from sandwich_coordinator.placement import fits, placement_of
from sandwich_coordinator.planner import plan
from sandwich_coordinator.plans import capacities, group_shards, pins, planned_groups
from sandwich_coordinator.view import ClusterView


@dataclass(frozen=True, slots=True)
class Move:
    """One shard to move. `source` is "" when it has no owner now."""

    shard: ShardId
    source: str
    target: str
    reason: str


def moves(view: ClusterView) -> list[Move]:
    """Every shard that should run on another node than its claim says, in order of shards."""
    nodes = capacities(view)
    known = {node.node: node for node in nodes}
    groups = [group_shards(view, key) for key in planned_groups(view)]
    owners: dict[GroupId, dict[int, str]] = {}
    for group in groups:
        key = GroupId(group.app, group.group)
        assigned = planned_nodes(view.plans.get(key))
        owners[key] = {}
        for number in group.shard_ids:
            claim = view.claims.get(ShardId(*key, number))
            owner = assigned.get(number) or (claim.record.node if claim is not None else "")
            if owner in known:
                owners[key][number] = owner
    pinned = pins(view)
    found = []
    for key, wanted in plan(nodes, groups, owners, pinned=pinned).items():
        for number, target in wanted.items():
            shard = ShardId(*key, number)
            claim = view.claims.get(shard)
            source = claim.record.node if claim is not None else ""
            if source == target:
                continue
            if pinned.get(shard) == target:
                reason = f"pinned to {target}"
            elif not source:
                reason = "runs nowhere"
            elif source not in known:
                reason = f"{source} is gone"
            elif known[source].drains:
                reason = f"{source} drains"
            elif not fits(known[source].labels, placement_of(view.apps[key.app].record.placement)):
                reason = f"{source} does not fit the placement of {key.app}"
            else:
                reason = f"{source} has more than its share"
            found.append(Move(shard, source, target, reason))
    return sorted(found, key=lambda move: move.shard)
