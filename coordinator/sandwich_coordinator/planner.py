"""Which node should run which shard: a function from nodes, groups and the present assignment to a plan.

**Shares** (`shares.py`). A node's load is the sum of the weights of its shards. The nodes' shares are the one fairest
division: in proportion to capacity, as far as limits, placements and pins allow. They depend on what has to be placed
and not on where it is.

**Whole shards** (`_flow`). For each weight, counting all shards of at least that weight, a node gets its share of
them rounded down or up. So a load differs from its share by less than the heaviest shard. Among all such divisions a
minimum-cost flow finds one that keeps the most shards where they are.

**Limits and places.** A node is never given more shards than its limit. If there is not enough room, running shards
stay, then those that have run before get a place (failover), then those that leave a node, then new ones; each time the
lowest ids first. Others are missing from the result; those that still run on a draining or unfit node stay there.
A shard pinned to a node that accepts it goes there and stays there; the node's other shards make room.

Guarantees:

- every shard once, or not at all when no node that fits it has room;
- with equal weights: a load within one shard of its share, and no valid plan with fewer moves;
- with several weights: a load within the heaviest shard of its share; the fewest moves to such rounded shares. A limit
  comes before a share: a node that reaches its limit with light shards may be loaded less;
- deterministic, independent of input order, idempotent (without a limit on moves);
- no new shards for nodes that do not accept; contiguous ranges for a new group.
"""

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from sandwich_coordinator.flow import INFINITE, Network
from sandwich_coordinator.ids import GroupId, ShardId, shards_of
from sandwich_coordinator.placement import NO_LABELS, Placement, fits, placement_of
from sandwich_coordinator.shares import Fitting, Vessel, is_enough, shares

Assignment = Mapping[GroupId, Mapping[int, str]]

ROUNDING = 1e-6
"""A share this close to a whole number is that number."""
MIXING_ROUNDS = 100
MIXED_WITHIN = 1e-9


@dataclass(frozen=True, slots=True)
class NodeCapacity:
    """A node and its weight. One that does not accept keeps its shards; one that drains gives all away.

    `max_shards` 0: no limit. `labels` None: not known, so what it runs is taken to fit.
    """

    node: str
    capacity: int
    accepts_new: bool = True
    drains: bool = False
    max_shards: int = 0
    labels: Mapping[str, str] | None = field(default_factory=lambda: NO_LABELS)

    @property
    def accepts(self) -> bool:
        """Whether shards may be given to it."""
        return self.accepts_new and not self.drains and self.capacity > 0

    @property
    def room(self) -> float:
        """How many shards it may run."""
        return self.max_shards or INFINITE


@dataclass(frozen=True, slots=True)
class GroupShards:
    """The shards of a group that must run on a node that has the labels of `placement`. `weight`: of each shard."""

    app: str
    group: int
    shard_ids: Sequence[int]
    placement: Mapping[str, str] = field(default_factory=lambda: NO_LABELS)
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """How much may move in one step. `moves_max` None is no limit; without `rebalance` only draining nodes give."""

    moves_max: int | None = None
    rebalance: bool = True


UNLIMITED = PlanLimits()
PASSES_MAX = 4
NO_PINS: Mapping[ShardId, str] = {}


class _Kind(NamedTuple):
    """What distinguishes shards for the planner."""

    placement: Placement
    weight: float


@dataclass(slots=True)
class _Sorted:
    """The shards by what may become of them.

    shards    all of each group, ascending
    where     the node of each shard that is on a known node
    pinned    where the pins that are followed want their shards, by kind; `pins` counts them, `pinned_load` weighs them
    kept      on a node that may keep them, by kind and node
    leaving   on a node that drains or does not fit, by kind
    failover  on no node, and they ran before, by kind
    evicted   likewise, since their node was started again with a lower limit
    new       on no node, by kind
    """

    shards: dict[GroupId, list[ShardId]] = field(default_factory=dict)
    where: dict[ShardId, str] = field(default_factory=dict)
    pinned: dict[_Kind, dict[ShardId, str]] = field(default_factory=dict)
    pins: Counter[str] = field(default_factory=Counter)
    pinned_load: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    kept: dict[_Kind, defaultdict[str, list[ShardId]]] = field(default_factory=dict)
    leaving: dict[_Kind, list[ShardId]] = field(default_factory=dict)
    failover: dict[_Kind, list[ShardId]] = field(default_factory=dict)
    evicted: dict[_Kind, list[ShardId]] = field(default_factory=dict)
    new: dict[_Kind, list[ShardId]] = field(default_factory=dict)

    @property
    def waiting(self) -> tuple[dict[_Kind, list[ShardId]], ...]:
        """The parts that need a place, in the order in which they get one.

        Evicted shards come behind those that leave a node: these stay there when they get none, and keep its room.
        """
        return self.failover, self.leaving, self.evicted, self.new

    def coming(self, kind: _Kind) -> list[ShardId]:
        """The shards that get a node."""
        return [*self.leaving[kind], *self.failover[kind], *self.evicted[kind], *self.new[kind]]


def plan(
    nodes: Sequence[NodeCapacity],
    groups: Sequence[GroupShards],
    current: Assignment,
    limits: PlanLimits = UNLIMITED,
    pinned: Mapping[ShardId, str] = NO_PINS,
) -> dict[GroupId, dict[int, str]]:
    """Assign the shards of `groups` to nodes, keeping `current` where possible.

    A shard whose node is not among `nodes` is an orphan that ran before; one that `current` does not name is new.
    Placing either is not a move. When no node accepts, owned shards stay where they are and orphans are missing from
    the result. Without a limit on moves the result is final: a shard for which another one has to make room first gets
    it, too.
    """
    result = _planned(nodes, groups, current, limits, pinned)
    if limits == UNLIMITED and any(node.room != INFINITE for node in nodes):
        before: Assignment = current
        for _ in range(PASSES_MAX):
            if result == before:
                break
            before, result = result, _planned(nodes, groups, result, limits, pinned)
    return result


def _planned(
    nodes: Sequence[NodeCapacity],
    groups: Sequence[GroupShards],
    current: Assignment,
    limits: PlanLimits,
    pinned: Mapping[ShardId, str],
) -> dict[GroupId, dict[int, str]]:
    """One pass: room that a shard leaves is free only in the next one."""
    known = {node.node: node for node in sorted(nodes, key=lambda node: node.node)}
    takers = {name: node for name, node in known.items() if node.accepts}
    placements = {placement_of(group.placement) for group in groups}
    fitting = {one: frozenset(name for name, node in takers.items() if fits(node.labels, one)) for one in placements}
    found = _sort(groups, current, known, fitting, pinned)
    _evict(found, takers)
    _refuse(found, takers, fitting)
    targets = _rounded(found, takers, fitting)
    _assign(found, takers, fitting, targets, limits)
    where = found.where
    keys = [GroupId(group.app, group.group) for group in groups]
    return {key: {shard[2]: where[shard] for shard in found.shards[key] if shard in where} for key in keys}


# --- which shards need a place ----------------------------------------------------------------------------------


def _sort(
    groups: Sequence[GroupShards],
    current: Assignment,
    known: Mapping[str, NodeCapacity],
    fitting: Fitting,
    pinned: Mapping[ShardId, str],
) -> _Sorted:
    found = _Sorted()
    where = found.where
    unfit = {
        one: frozenset(name for name, node in known.items() if node.drains or not fits(node.labels, one))
        for one in fitting
    }
    for group in sorted(groups, key=lambda group: (group.app, group.group)):
        kind, key = _Kind(placement_of(group.placement), group.weight), GroupId(group.app, group.group)
        takers, owners = fitting[kind.placement], current.get(key, {})
        kept, pins = found.kept.setdefault(kind, defaultdict(list)), found.pinned.setdefault(kind, {})
        failover, leaving, _, new = (part.setdefault(kind, []) for part in found.waiting)
        shards = found.shards[key] = shards_of(key, sorted(set(group.shard_ids)))
        for shard in shards:
            owner = owners.get(shard[2])
            if owner is not None and owner in known:
                where[shard] = owner
            wanted = pinned.get(shard) if pinned else None
            if wanted in takers and found.pins[wanted] < known[wanted].room:
                pins[shard] = wanted
                found.pins[wanted] += 1
                found.pinned_load[wanted] += kind.weight
            elif owner in takers:
                kept[owner].append(shard)
            elif owner not in known:
                (new if owner is None else failover).append(shard)
            elif owner in unfit[kind.placement]:
                leaving.append(shard)
    return found


def _evict(found: _Sorted, takers: Mapping[str, NodeCapacity]) -> None:
    """Keep each node's limit: beside its pinned shards it keeps the lowest ids, and the others leave it.

    What is above the limit already does not run, because the node was started again with another one: such shards have
    no node, first those that do not fit it.
    """
    for name, node in takers.items():
        if node.room == INFINITE:
            continue
        kept = sorted(
            ((shard, kind) for kind, shards in found.kept.items() for shard in shards.get(name, ())),
            key=lambda item: _by_number(item[0]),
        )
        crowded = int(max(0, len(kept) + found.pins[name] - node.room))
        leaving = sorted(
            ((shard, kind) for kind, shards in found.leaving.items() for shard in shards if found.where[shard] == name),
            key=lambda item: _by_number(item[0]),
        )
        for shard, kind in kept[len(kept) - crowded :]:
            found.kept[kind][name].remove(shard)
            found.leaving[kind].append(shard)
        going = [*kept[len(kept) - crowded :], *leaving]
        pinned_here = [
            (shard, target)
            for pins in found.pinned.values()
            for shard, target in pins.items()
            if found.where.get(shard) == name
        ]
        excess = int(max(0, len(kept) + len(leaving) + len(pinned_here) - node.room))
        pinned_away = sorted((shard for shard, target in pinned_here if target != name), key=_by_number)
        for shard in pinned_away[len(pinned_away) - min(excess, len(pinned_away)) :]:
            # It has no node now, so it goes where its pin wants it at once.
            del found.where[shard]
            excess -= 1
        for shard, kind in going[len(going) - min(excess, len(going)) :]:
            found.leaving[kind].remove(shard)
            found.evicted[kind].append(shard)
            del found.where[shard]


def _by_number(shard: ShardId) -> tuple[int, ShardId]:
    """The order in which shards get a place: the lowest ids of each application before the next ones of any."""
    return shard.shard, shard


def _refuse(found: _Sorted, takers: Mapping[str, NodeCapacity], fitting: Fitting) -> None:
    """Take away the shards for which there is no room, the last ones in order.

    The sets of shards that fit together are a matroid: once a shard does not fit, no later one of its placement does.
    """
    for part in found.waiting:
        for kind in part:
            if not fitting[kind.placement]:
                part[kind] = []
    if all(node.room == INFINITE for node in takers.values()):
        return
    room = {name: node.room - found.pins[name] for name, node in takers.items()}
    counts = Counter[Placement]()
    for kind, kept in found.kept.items():
        counts[kind.placement] += sum(map(len, kept.values()))
    waiting: list[tuple[_Kind, ShardId]] = []
    for part in found.waiting:
        every = ((kind, shard) for kind, shards in part.items() for shard in shards)
        waiting += sorted(every, key=lambda item: _by_number(item[1]))
    refused: set[ShardId] = set()
    while waiting:
        order = [kind.placement for kind, _ in waiting]
        fit = _longest(order, counts, room, fitting)
        counts += Counter(order[:fit])
        closed = order[fit] if fit < len(order) else None
        refused.update(shard for kind, shard in waiting[fit:] if kind.placement == closed)
        waiting = [(kind, shard) for kind, shard in waiting[fit:] if kind.placement != closed]
    for part in found.waiting:
        for kind, shards in part.items():
            part[kind] = [shard for shard in shards if shard not in refused]


def _longest(
    order: Sequence[Placement], counts: Counter[Placement], room: Mapping[str, float], fitting: Fitting
) -> int:
    """How many of the shards with these placements, from the first one on, fit beside `counts`."""

    def is_too_many(first: int) -> bool:
        return not is_enough(counts + Counter(order[:first]), room, fitting)

    if not is_too_many(len(order)):
        return len(order)
    return bisect_left(range(1, len(order)), True, key=is_too_many)


# --- how many of each kind a node gets --------------------------------------------------------------------------


def _rounded(found: _Sorted, takers: Mapping[str, NodeCapacity], fitting: Fitting) -> dict[_Kind, dict[str, int]]:
    """How many shards of each kind each node should have: shares in whole shards, with the fewest moves."""
    counts = {kind: len(found.coming(kind)) + sum(map(len, found.kept[kind].values())) for kind in sorted(found.kept)}
    counts = {kind: count for kind, count in counts.items() if count}
    if not counts:
        return {}
    weights = sorted({kind.weight for kind in counts}, reverse=True)
    exact = _exact(found, counts, takers, fitting, weights)
    room = {name: min(node.room - found.pins[name], sum(counts.values())) for name, node in takers.items()}
    targets = _flow(found, counts, fitting, weights, exact, room, strict=True)
    return targets or _flow(found, counts, fitting, weights, exact, room, strict=False) or {}


def _flow(
    found: _Sorted,
    counts: Mapping[_Kind, int],
    fitting: Fitting,
    weights: Sequence[float],
    exact: Mapping[str, Sequence[float]],
    room: Mapping[str, float],
    *,
    strict: bool,
) -> dict[_Kind, dict[str, int]] | None:
    """Round the shares `exact`: as a flow from the kinds to the nodes in which a shard that leaves its node costs 1.

    Each node is a chain with a link for each weight, heaviest first; a link carries the shards of at least its weight.
    It has to carry its share rounded down, and may carry its share rounded up. A load is a sum of links, each times the
    step down to the next weight, and these steps add up to the heaviest: so a load is less than that from its share.
    None when limits leave no such flow. Not `strict`, a link may carry more or less, which costs more than all moves.
    """
    names = sorted(room)
    total = sum(counts.values())
    outside = total + 1
    source, sink, filled, chains = len(counts), len(counts) + 1, len(counts) + 2, len(counts) + 3
    network = Network(chains + len(names) * len(weights))
    first = {name: chains + number * len(weights) for number, name in enumerate(names)}
    # The larger part of a shard is rounded up first, where that moves nothing.
    by_part = sorted(names, key=lambda name: (-(exact[name][-1] % 1.0), name))
    edges: dict[_Kind, dict[str, tuple[int, int]]] = {}
    for number, (kind, count) in enumerate(counts.items()):
        network.add(source, number, count)
        link, kept, edges[kind] = weights.index(kind.weight), found.kept[kind], {}
        for name in by_part:
            if name in fitting[kind.placement]:
                keep = network.add(number, first[name] + link, len(kept.get(name, ())))
                edges[kind][name] = keep, network.add(number, first[name] + link, count, cost=1)
    floors = 0.0
    for name in by_part:
        before = 0.0
        for link, share in enumerate(exact[name]):
            low = min(room[name], math.floor(share + ROUNDING))
            high = min(room[name], math.ceil(share - ROUNDING))
            start = first[name] + link
            target = sink if link == len(weights) - 1 else start + 1
            # What a link has to carry is taken out in front of it, and is there already behind it.
            network.add(start, filled, low - before)
            network.add(start, target, high - low)
            if not strict:
                network.add(start, target, room[name] - high, cost=outside)
                network.add(target, start, low, cost=outside)
            before = low
        floors += before
    network.add(sink, filled, total - floors)
    if network.run(source, filled) < total and strict:
        return None
    return {
        kind: {name: round(sum(map(network.carried, edges[kind][name]))) for name in sorted(edges[kind])}
        for kind in counts
    }


def _exact(
    found: _Sorted,
    counts: Mapping[_Kind, int],
    takers: Mapping[str, NodeCapacity],
    fitting: Fitting,
    weights: Sequence[float],
) -> dict[str, list[float]]:
    """For each node and weight, its share of the shards of at least this weight, as a fraction of shards."""
    demand: dict[Placement, float] = defaultdict(float)
    for kind, count in counts.items():
        demand[kind.placement] += kind.weight * count
    mean = sum(demand.values()) / sum(counts.values())
    vessels = {}
    for name, node in takers.items():
        low = found.pinned_load[name]
        vessels[name] = Vessel(node.capacity, low, low + (node.room - found.pins[name]) * mean)
    exact = {name: [0.0] * len(weights) for name in takers}
    for part in shares(demand, vessels, fitting):
        kinds = {kind: kind.weight * count for kind, count in counts.items() if kind.placement in part.placements}
        for kind, loads in _mixed(kinds, part.added, fitting).items():
            for name, load in loads.items():
                for link in range(weights.index(kind.weight), len(weights)):
                    exact[name][link] += load / kind.weight
    return exact


def _mixed(kinds: Mapping[_Kind, float], added: Mapping[str, float], fitting: Fitting) -> dict[_Kind, dict[str, float]]:
    """Divide each kind over the nodes of its part so that each node gets what it should.

    Of the many ways this is the most even mixture (of maximal entropy), found by fitting rows and columns in turn. A
    small change of the input changes it little. Nodes that fit the same placements are one column.
    """
    if len(kinds) == 1 or len({kind.weight for kind in kinds}) == 1:
        # Which kind a node gets makes no difference to its shares.
        one = next(iter(kinds))
        return {one: dict(added)}
    columns: dict[tuple[bool, ...], list[str]] = defaultdict(list)
    for name in added:
        columns[tuple(name in fitting[kind.placement] for kind in kinds)].append(name)
    wanted = [sum(added[name] for name in names) for names in columns.values()]
    rows = [[total * may for total, may in zip(wanted, mays, strict=True)] for mays in zip(*columns, strict=True)]
    for _ in range(MIXING_ROUNDS):
        for row, load in zip(rows, kinds.values(), strict=True):
            scale = load / (sum(row) or 1.0)
            row[:] = [value * scale for value in row]
        scales = [total / (sum(values) or 1.0) for total, values in zip(wanted, zip(*rows, strict=True), strict=True)]
        rows = [[value * scale for value, scale in zip(row, scales, strict=True)] for row in rows]
        if all(abs(scale - 1.0) < MIXED_WITHIN for scale, total in zip(scales, wanted, strict=True) if total):
            break
    return {
        kind: {
            name: value * added[name] / total
            for value, total, names in zip(row, wanted, columns.values(), strict=True)
            if total
            for name in names
        }
        for kind, row in zip(kinds, rows, strict=True)
    }


# --- which shards these are -------------------------------------------------------------------------------------


class _Move(NamedTuple):
    shard: ShardId
    source: str
    target: str


def _assign(
    found: _Sorted,
    takers: Mapping[str, NodeCapacity],
    fitting: Fitting,
    targets: Mapping[_Kind, Mapping[str, int]],
    limits: PlanLimits,
) -> None:
    """Bring `found.where` to the targets: orphans at once, moves up to the limit; what has no room yet comes later."""
    where = found.where
    pins: list[_Move] = []
    orphans: list[tuple[ShardId, str, _Kind]] = []
    for kind, pinned in found.pinned.items():
        pins += [_Move(shard, where[shard], name) for shard, name in pinned.items() if where.get(shard, name) != name]
        orphans += [(shard, name, kind) for shard, name in pinned.items() if shard not in where]
    forced: list[_Move] = []
    balancing: list[_Move] = []
    for kind, wanted in targets.items():
        given = {shard for name, shards in found.kept[kind].items() for shard in shards[wanted.get(name, 0) :]}
        coming = iter(sorted([*found.coming(kind), *given]))
        for name in sorted(wanted):
            for shard in islice(coming, max(0, wanted[name] - len(found.kept[kind].get(name, ())))):
                if shard not in where:
                    orphans.append((shard, name, kind))
                else:
                    (balancing if shard in given else forced).append(_Move(shard, where[shard], name))
    load = Counter(where.values())
    room = {name: node.room for name, node in takers.items()}
    late = []
    for shard, name, kind in orphans:
        if load[name] < room[name]:
            where[shard] = name
            load[name] += 1
        else:
            late.append((shard, kind))
    _move(
        where,
        load,
        takers,
        [*sorted(pins), *sorted(forced, reverse=True), *(_fullest_first(balancing) if limits.rebalance else ())],
        limits,
    )
    for shard, kind in late:
        # Its place is still taken by a shard that has to move first.
        free = [name for name in sorted(fitting[kind.placement]) if load[name] < room[name]]
        if free:
            name = min(free, key=lambda name: load[name] / takers[name].capacity)
            where[shard] = name
            load[name] += 1


def _fullest_first(moves: Sequence[_Move]) -> list[_Move]:
    """From the nodes that give most; of each the highest ids."""
    gives = Counter(move.source for move in moves)
    return sorted(sorted(moves, reverse=True), key=lambda move: (-gives[move.source], move.source))


def _move(
    where: dict[ShardId, str],
    load: Counter[str],
    takers: Mapping[str, NodeCapacity],
    moves: Sequence[_Move],
    limits: PlanLimits,
) -> None:
    """Carry out moves in order. A node at its limit first gives away what it is to give."""
    left = len(moves) if limits.moves_max is None else limits.moves_max
    pending = dict.fromkeys(moves)
    for move in moves:
        chain: list[_Move] = []
        following: _Move | None = move if move in pending else None
        while following is not None and len(chain) < left:
            chain.append(following)
            target = following.target
            if load[target] < takers[target].room or target == move.source:
                for one in chain:
                    where[one.shard] = one.target
                    load[one.source] -= 1
                    load[one.target] += 1
                    del pending[one]
                left -= len(chain)
                break
            following = next((one for one in pending if one.source == target and one not in chain), None)
