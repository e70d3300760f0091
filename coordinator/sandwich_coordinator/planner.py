"""Which node should run which shard: a function from nodes, groups and the present assignment to a plan.

Sticky quota (docs/design/coordination.md): each accepting node's share is proportional to its capacity, rounded down
or up. A node keeps its shards up to its share. Shards above a share, and those without a node, go to the nodes
furthest below their share. Of the possible roundings the one with the fewest moves is used. A node's load is its
shards of all groups.

A shard pinned to a node that accepts goes there and stays there; the node's other shards make room.

Guarantees: every shard once; load within one shard of proportional; fewest moves; deterministic, idempotent (without a
limit on moves), independent of input order; no new shards for nodes that do not accept; contiguous ranges for a new
group.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandwich_coordinator.ids import GroupId, ShardId

Assignment = Mapping[GroupId, Mapping[int, str]]


@dataclass(frozen=True, slots=True)
class NodeCapacity:
    """A node and its weight. One that does not accept keeps its shards; one that drains gives all away."""

    node: str
    capacity: int
    accepts_new: bool = True
    drains: bool = False

    @property
    def accepts(self) -> bool:
        """Whether shards may be given to it."""
        return self.accepts_new and not self.drains and self.capacity > 0


@dataclass(frozen=True, slots=True)
class GroupShards:
    """The shards of a group that must run on a node."""

    app: str
    group: int
    shard_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """How much may move in one step. `moves_max` None is no limit; without `rebalance` only draining nodes give."""

    moves_max: int | None = None
    rebalance: bool = True


UNLIMITED = PlanLimits()
NO_PINS: Mapping[ShardId, str] = {}


def plan(
    nodes: Sequence[NodeCapacity],
    groups: Sequence[GroupShards],
    current: Assignment,
    limits: PlanLimits = UNLIMITED,
    pinned: Mapping[ShardId, str] = NO_PINS,
) -> dict[GroupId, dict[int, str]]:
    """Assign every shard of `groups` to a node, keeping `current` where possible.

    A shard whose node is not among `nodes` is an orphan: placing it is not a move. When no node accepts, owned shards
    stay where they are and orphans are missing from the result.
    """
    known = {node.node: node for node in nodes}
    held: dict[str, list[ShardId]] = {name: [] for name in sorted(known)}
    homeless: list[ShardId] = []
    for shard in _shards(groups):
        owner = current.get(shard.of, {}).get(shard.shard)
        (held[owner] if owner in known else homeless).append(shard)
    accepting = {name: known[name].capacity for name in held if known[name].accepts}
    if accepting:
        pinned = {shard: name for shard, name in pinned.items() if name in accepting}
        limits, homeless = _follow_pins(held, homeless, pinned, limits)
        share = _shares(accepting, known, held, pinned, orphans=len(homeless))
        homeless += _surplus(known, held, share, limits, pinned)
        homeless.sort()
        _place(homeless, held, share)
    result: dict[GroupId, dict[int, str]] = {GroupId(group.app, group.group): {} for group in groups}
    for shard, name in sorted((shard, name) for name, shards in held.items() for shard in shards):
        result[shard.of][shard.shard] = name
    return result


def _shards(groups: Sequence[GroupShards]) -> list[ShardId]:
    return sorted({ShardId(group.app, group.group, shard) for group in groups for shard in group.shard_ids})


def _shares(
    accepting: Mapping[str, int],
    known: Mapping[str, NodeCapacity],
    held: Mapping[str, list[ShardId]],
    pinned: Mapping[ShardId, str],
    *,
    orphans: int,
) -> dict[str, int]:
    """Each accepting node's share of all shards, except those that stay on nodes that do not accept.

    If a node has more pinned shards than its share, these are its share; the other nodes divide the rest.
    """
    total = orphans + sum(len(held[name]) for name in held if name in accepting or known[name].drains)
    stuck = {name: sum(pinned.get(shard) == name for shard in held[name]) if pinned else 0 for name in accepting}
    weights, fixed = dict(accepting), dict[str, int]()
    while True:
        shares = _apportion(total, weights, {name: len(held[name]) for name in weights})
        over = [name for name in weights if stuck[name] > shares[name]]
        if not over:
            return {name: fixed.get(name, shares.get(name, 0)) for name in accepting}
        for name in over:
            del weights[name]
            fixed[name] = stuck[name]
            total -= stuck[name]


def _apportion(total: int, weights: Mapping[str, int], have: Mapping[str, int]) -> dict[str, int]:
    """Split `total` by weight, each part rounded down or up; up first where a node then keeps its shards."""
    whole = sum(weights.values())
    parts = {name: total * weight // whole for name, weight in weights.items()}
    fractions = {name: total * weight % whole for name, weight in weights.items()}
    order = sorted(
        (name for name in weights if fractions[name]),
        key=lambda name: (have.get(name, 0) <= parts[name], -fractions[name], name),
    )
    for name in order[: total - sum(parts.values())]:
        parts[name] += 1
    return parts


def _follow_pins(
    held: dict[str, list[ShardId]], homeless: list[ShardId], pinned: Mapping[ShardId, str], limits: PlanLimits
) -> tuple[PlanLimits, list[ShardId]]:
    """Move pinned shards to their nodes, in order, up to the limit. Returns the rest of the shards and of the limit."""
    left = limits.moves_max
    for name in sorted(held):
        for shard in [shard for shard in held[name] if pinned.get(shard, name) != name]:
            if left is not None and left <= 0:
                break
            held[name].remove(shard)
            held[pinned[shard]].append(shard)
            left = None if left is None else left - 1
    for shard in homeless:
        if shard in pinned:
            held[pinned[shard]].append(shard)
    for shards in held.values():
        shards.sort()
    return PlanLimits(left, limits.rebalance), [shard for shard in homeless if shard not in pinned]


def _surplus(
    known: Mapping[str, NodeCapacity],
    held: dict[str, list[ShardId]],
    share: Mapping[str, int],
    limits: PlanLimits,
    pinned: Mapping[ShardId, str],
) -> list[ShardId]:
    """Take the shards that must move from `held`: all of draining nodes, then those above a share, highest ids first.

    Shards pinned to their node stay; others of the node move instead.
    """
    left = sum(map(len, held.values())) if limits.moves_max is None else limits.moves_max
    moved: list[ShardId] = []
    draining = [name for name in held if known[name].drains]
    over = sorted((name for name in share if len(held[name]) > share[name]), key=lambda n: (share[n] - len(held[n]), n))
    for name in [*draining, *(over if limits.rebalance else ())]:
        excess = min(len(held[name]) - share.get(name, 0), left - len(moved))
        if excess > 0:
            loose = [shard for shard in held[name] if pinned.get(shard) != name][-excess:]
            moved += loose
            going = set(loose)
            held[name] = [shard for shard in held[name] if shard not in going]
    return moved


def _place(homeless: Sequence[ShardId], held: dict[str, list[ShardId]], share: Mapping[str, int]) -> None:
    """Give each node below its share a contiguous range. If there are fewer shards than room, in proportion to room."""
    room = {name: share[name] - len(held[name]) for name in share if share[name] > len(held[name])}
    parts = room if sum(room.values()) <= len(homeless) else _apportion(len(homeless), room, {})
    start = 0
    for name, part in parts.items():
        held[name] += homeless[start : start + part]
        start += part
    assert start == len(homeless), "shares do not cover what has to be placed"
