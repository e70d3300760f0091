"""Whether nodes have room: which shards have no place and why, and which pins cannot be followed. Pure."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sandwich_coordinator.ids import GroupId, ShardId
from sandwich_coordinator.placement import fits, labels_text, placement_of
from sandwich_coordinator.ranges import parse_ranges, size_of_ranges
from sandwich_coordinator.types import NodeRecord
from sandwich_coordinator.view import ClusterView


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why shards of an application have no place. `is_placement`: no node that takes shards has the labels."""

    reason: str
    is_placement: bool


def planned_loads(view: ClusterView, *, without: Collection[GroupId] = ()) -> Counter[str]:
    """How many shards are planned for each node, those of some groups left out. Unreadable ranges count as none."""
    loads = Counter[str]()
    for key, entry in view.plans.items():
        if key in without:
            continue
        for node, ranges in entry.record.nodes.items():
            loads[node] += size_of_ranges(ranges)
    return loads


def accepts(node: NodeRecord) -> bool:
    """Whether the leader may give shards to a registered node."""
    return node.state == "ready" and node.capacity > 0


def takers(view: ClusterView, app: str) -> list[NodeRecord]:
    """The nodes that may be given shards of an application."""
    entry = view.apps.get(app)
    return _takers(view, entry.record.placement if entry is not None else {})


def free_places(view: ClusterView, placement: Mapping[str, str], *, ending: Collection[GroupId] = ()) -> int | None:
    """How many shards more the nodes that `placement` allows can take once these groups have ended.

    None: there is no limit, or no node takes shards now, so that nothing is known.
    """
    if not any(accepts(entry.record) for entry in view.nodes.values()):
        return None
    fitting, loads = _takers(view, placement), planned_loads(view, without=ending)
    if any(not node.max_shards for node in fitting):
        return None
    return sum(max(0, node.max_shards - loads[node.node]) for node in fitting)


def _takers(view: ClusterView, placement: Mapping[str, str]) -> list[NodeRecord]:
    required = placement_of(placement)
    records = (view.nodes[name].record for name in sorted(view.nodes))
    return [record for record in records if accepts(record) and fits(record.labels, required)]


def shortage(view: ClusterView, app: str, loads: Mapping[str, int] | None = None) -> Shortage | None:
    """Why no node could take one more shard of an application; None when one could, or when no node takes any."""
    if not any(accepts(entry.record) for entry in view.nodes.values()):
        return None
    fitting = takers(view, app)
    if not fitting:
        return Shortage(no_node_has(view.apps[app].record.placement if app in view.apps else {}), is_placement=True)
    loads = planned_loads(view) if loads is None else loads
    if any(not node.max_shards or loads.get(node.node, 0) < node.max_shards for node in fitting):
        return None
    return Shortage("every node that may run them is at its limit (--max-shards)", is_placement=False)


def no_node_has(placement: Mapping[str, str]) -> str:
    """In words, that shards with this placement have no place whatever nodes may take."""
    return f"no node that takes shards has the labels {labels_text(placement)}"


def lacks_labels(view: ClusterView, placement: Mapping[str, str]) -> bool:
    """Whether nodes take shards, and none of them has the labels."""
    return any(accepts(entry.record) for entry in view.nodes.values()) and not _takers(view, placement)


@dataclass(frozen=True, slots=True)
class Stuck:
    """Shards of a group that stay where they should not run; `why` names their node."""

    group: GroupId
    shards: tuple[int, ...]
    why: str


def stuck(view: ClusterView) -> list[Stuck]:
    """Shards that are planned for a node that drains or does not fit, because no other node could take them."""
    found: dict[tuple[GroupId, str], list[int]] = defaultdict(list)
    loads = planned_loads(view)
    for key, plan in sorted(view.plans.items()):
        app = view.apps.get(key.app)
        if app is None or (shortage(view, key.app, loads) is None and takers(view, key.app)):
            continue
        required = placement_of(app.record.placement)
        for name, ranges in sorted(plan.record.nodes.items()):
            node = view.nodes[name].record if name in view.nodes else None
            if node is None or (node.state != "draining" and fits(node.labels, required)):
                continue
            lacks = f"{name} lacks the labels {labels_text(app.record.placement)}"
            why = f"{name} drains" if node.state == "draining" else lacks
            found[key, why] += _readable(ranges)
    return [Stuck(key, tuple(shards), why) for (key, why), shards in found.items()]


def _readable(ranges: str) -> list[int]:
    try:
        return parse_ranges(ranges)
    except ValueError:
        return []


def unmet_pins(view: ClusterView) -> dict[ShardId, str]:
    """The pins that the leader cannot follow now, each with the reason."""
    unmet: dict[ShardId, str] = {}
    followed = Counter[str]()
    for shard, pin in sorted(view.pins.items()):
        name = pin.record.node
        entry, app = view.nodes.get(name), view.apps.get(shard.app)
        if entry is None:
            unmet[shard] = f"node {name} is not there"
        elif not accepts(entry.record):
            unmet[shard] = f"node {name} is {entry.record.state} and takes no shards"
        elif app is not None and not fits(entry.record.labels, placement_of(app.record.placement)):
            unmet[shard] = f"node {name} lacks the labels {labels_text(app.record.placement)}"
        elif entry.record.max_shards and followed[name] >= entry.record.max_shards:
            unmet[shard] = f"node {name} is at its limit of {entry.record.max_shards} shards"
        else:
            followed[name] += 1
    return unmet
