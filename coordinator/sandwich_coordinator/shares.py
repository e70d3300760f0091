"""The fairest division of a load over nodes of which not all may take all of it. Pure.

Think of vessels: each node is as wide as its capacity, starts filled with what is pinned to it, and ends at its limit.
The load of each placement is poured into the vessels that fit it, and finds one level where it can. This division is
unique: among all possible ones it makes the fullest vessel least full, then the next one, and so on.

It is found from the top. All that is left would have one level. If a maximum flow shows that some placements do not fit
below it, those (one side of a minimum cut) and their vessels are looked at alone, at a higher level, until they fit.
They are settled then, and the rest is looked at without them. (Newton's method for the densest part.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandwich_coordinator.flow import EPSILON, INFINITE, Network
from sandwich_coordinator.placement import Placement

Fitting = Mapping[Placement, frozenset[str]]
"""The nodes that fit each placement."""


@dataclass(frozen=True, slots=True)
class Vessel:
    """A node: its capacity (a weight), and the loads it has at least (pinned) and at most (its limit)."""

    capacity: int
    low: float
    high: float

    def added(self, level: float) -> float:
        """The load above `low` at this level (load by capacity)."""
        return max(0.0, min(level * self.capacity if level < INFINITE else INFINITE, self.high) - self.low)


@dataclass(frozen=True, slots=True)
class Part:
    """Placements that share their nodes at one level, and the load that each of these nodes gets of them."""

    placements: frozenset[Placement]
    added: Mapping[str, float]


def shares(demand: Mapping[Placement, float], vessels: Mapping[str, Vessel], fitting: Fitting) -> list[Part]:
    """Divide the load of each placement (above 0) over the nodes that fit it; the fullest part comes first.

    Where the nodes of a part have too little room, each is full.
    """
    left, open_nodes = set(demand), set(vessels)
    parts: list[Part] = []
    while left:
        inner = set(left)
        while True:
            names = sorted(open_nodes.intersection(frozenset[str]().union(*(fitting[one] for one in inner))))
            level = _level([vessels[name] for name in names], sum(demand[one] for one in sorted(inner)))
            added = {name: vessels[name].added(level) for name in names}
            short = _short({one: demand[one] for one in inner}, added, fitting)
            if not short or short == inner:
                break
            inner = short
        parts.append(Part(frozenset(inner), added))
        left -= inner
        open_nodes.difference_update(names)
    return parts


def is_enough(counts: Mapping[Placement, int], room: Mapping[str, float], fitting: Fitting) -> bool:
    """Whether so many shards of each placement fit into the room (in shards) of the nodes that fit them."""
    wanted = {one: float(count) for one, count in counts.items() if count}
    return not _short(wanted, {name: min(free, sum(wanted.values())) for name, free in room.items()}, fitting)


def _level(vessels: Sequence[Vessel], amount: float) -> float:
    """The level at which the vessels hold `amount` above their lows; infinite when they cannot."""
    events = [(vessel.low / vessel.capacity, vessel.capacity) for vessel in vessels]
    events += [(vessel.high / vessel.capacity, -vessel.capacity) for vessel in vessels if vessel.high < INFINITE]
    level, width, held = 0.0, 0, 0.0
    for at, change in sorted(events):
        more = width * (at - level)
        if width and held + more >= amount:
            break
        level, width, held = at, width + change, held + more
    return level + (amount - held) / width if width else INFINITE


def _short(demand: Mapping[Placement, float], room: Mapping[str, float], fitting: Fitting) -> set[Placement]:
    """The placements on the source's side of a minimum cut; none when all of the demand flows into the room."""
    order = sorted(demand)
    sites: dict[tuple[int, ...], float] = {}
    for name, free in room.items():
        site = tuple(number for number, one in enumerate(order) if name in fitting[one])
        sites[site] = sites.get(site, 0.0) + free
    if len(order) == 1 and sites.get((0,), 0.0) >= demand[order[0]] - EPSILON:
        return set()
    source, sink, first_site = len(order), len(order) + 1, len(order) + 2
    network = Network(first_site + len(sites))
    for number, one in enumerate(order):
        network.add(source, number, demand[one])
    for position, (site, free) in enumerate(sorted(sites.items()), start=first_site):
        network.add(position, sink, free)
        for number in site:
            network.add(number, position, INFINITE)
    total = sum(demand.values())
    if network.run(source, sink) >= total - EPSILON * max(1.0, total):
        return set()
    side = network.reachable(source)
    return {one for number, one in enumerate(order) if number in side}
