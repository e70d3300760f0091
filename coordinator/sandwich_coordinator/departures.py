"""What the leader keeps in etcd about nodes that are gone, so that an operator sees them. Pure.

Part of `leader.reconcile`; see there.
"""

from collections.abc import Iterator, Mapping

from sandwich_coordinator.plans import LeaderWrite, unreadable_nodes
from sandwich_coordinator.store.base import Compare, Delete, Put
from sandwich_coordinator.types import DepartedRecord
from sandwich_coordinator.view import ClusterView

KEPT_S = 3600.0
KEPT_MAX = 64
"""More departed nodes at once are not recorded."""


def departure_writes(
    view: ClusterView, departed: Mapping[str, float], *, now: float, wall: float
) -> Iterator[LeaderWrite]:
    """Record nodes that vanished, forget those that are back or long gone.

    `departed`: when (monotonic) each vanished. A node that leaves in order has written its own record before.
    """
    keys = view.keys
    present = set(view.nodes) | unreadable_nodes(view)
    room = KEPT_MAX - len(view.departed)
    missing = sorted(set(departed) - present - set(view.departed))
    for node in missing[: max(0, room)]:
        key = keys.departed_node(node)
        if key in view.bad:
            continue
        record = DepartedRecord(node=node, at=wall - max(0.0, now - departed[node]))
        guards = (Compare(key, "mod_revision", 0), Compare(keys.node(node), "mod_revision", 0))
        yield LeaderWrite(guards, (Put(key, record.encode()),), f"node {node} is gone")
    for node, entry in sorted(view.departed.items()):
        registered = view.nodes.get(node)
        # A node that leaves writes its record while it is still registered.
        back = registered is not None and registered.create_revision > entry.mod_revision
        # What just vanished would be recorded again, as killed.
        old = node not in departed and abs(wall - entry.record.at) > KEPT_S
        if back or old:
            key = keys.departed_node(node)
            guard = Compare(key, "mod_revision", entry.mod_revision)
            why = "is back" if back else "has been gone for long"
            yield LeaderWrite((guard,), (Delete(key),), f"node {node} {why}")


def expiry(view: ClusterView, *, now: float, wall: float) -> list[float]:
    """When (monotonic) the oldest record is to be forgotten."""
    return [now + max(0.0, entry.record.at + KEPT_S - wall) + 1.0 for entry in view.departed.values()]
