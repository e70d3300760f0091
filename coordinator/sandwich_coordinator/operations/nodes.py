"""Operating nodes: cordon, uncordon and drain; forget one that is gone.

The first three edit `state` in the node's registration and nothing else: the leader plans by it, the node keeps it when
it registers again. Every edit is guarded, so that two operators cannot undo each other unnoticed.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass

import msgspec

from sandwich_coordinator.groups import planned_nodes
from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.operations.errors import Conflict, NotFound, NotReached, Refused
from sandwich_coordinator.operations.progress import (
    Drained,
    DrainInterrupted,
    NodeStateSet,
    NoOtherNodeReady,
    OthersDraining,
    Progress,
    Report,
    ShardsToMove,
    StoreSilent,
)
from sandwich_coordinator.room import accepts
from sandwich_coordinator.store.base import (
    Compare,
    LeaseLost,
    Listing,
    Put,
    Store,
    StoreAmbiguous,
    StoreUnavailable,
)
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import NodeRecord, NodeState
from sandwich_coordinator.view import ClusterView, Entry

POLL_S = 1.0
EDITS_MAX = 5


@dataclass(frozen=True, slots=True)
class NodeEdit:
    """A change of one node's state, to be written in one transaction. Without `writes` the state is right already."""

    instance: str
    compares: tuple[Compare, ...]
    writes: tuple[Put, ...]
    notes: tuple[Progress, ...]


def plan_edit(listing: Listing, keys: Keys, node: str, wanted: NodeState, *, force: bool = False) -> NodeEdit:
    """What makes `node`'s state `wanted`. Raises NotFound and Refused.

    A drain is guarded by one node that can take the shards too: of two operators who each drain the other's last
    resort, the later one is refused.
    """
    view = ClusterView.from_items(keys, {item.key: item for item in listing.items}, listing.revision)
    entry = _entry(view, node)
    record, key = entry.record, keys.node(node)
    notes = (NodeStateSet(node, record.state, wanted), *_others(view, node, wanted))
    if record.state == wanted:
        return NodeEdit(record.instance, (), (), notes)
    if wanted == "cordoned" and record.state == "draining":
        raise Refused(f"node {node} is draining, which gives it nothing new either: uncordon it first")
    takers = _takers(view, node)
    if wanted == "draining" and not takers and not force:
        raise Refused(_refusal(view, node))
    compares = [Compare(key, "mod_revision", entry.mod_revision)]
    if wanted == "draining" and takers:
        compares.append(Compare(keys.node(takers[0]), "mod_revision", view.nodes[takers[0]].mod_revision))
    (raw,) = (item.value for item in listing.items if item.key == key)
    # Edited as plain JSON: a newer node's registration may have fields this version does not know.
    value = msgspec.json.encode({**msgspec.json.decode(raw), "state": wanted})
    return NodeEdit(record.instance, tuple(compares), (Put(key, value, entry.lease),), notes)


def _entry(view: ClusterView, node: str) -> Entry[NodeRecord]:
    entry = view.nodes.get(node)
    if entry is not None:
        return entry
    bad = view.bad.get(view.keys.node(node))
    if bad is not None:
        raise Refused(f"the registration of node {node} cannot be used: {bad.reason}")
    raise NotFound("node", node, view.nodes)


def _takers(view: ClusterView, node: str) -> list[str]:
    """The other nodes that the leader may give shards to."""
    found = ((name, entry.record) for name, entry in sorted(view.nodes.items()) if name != node)
    return [name for name, record in found if accepts(record)]


def _refusal(view: ClusterView, node: str) -> str:
    states = [f"{name} is {view.nodes[name].record.state}" for name in sorted(view.nodes) if name != node]
    why = "it is the only node" if not states else f"no other node is ready ({', '.join(states)})"
    return (
        f"node {node} is not drained: {why}, so nothing could take its shards. Start or uncordon another node. "
        "With --force its shards stay on it until one is ready, and run nowhere if you stop it before that"
    )


def _others(view: ClusterView, node: str, wanted: NodeState) -> tuple[Progress, ...]:
    """What an operator should know about the other nodes."""
    draining = [name for name, entry in sorted(view.nodes.items()) if entry.record.state == "draining" and name != node]
    notes: list[Progress] = [OthersDraining(tuple(draining))] if draining else []
    if wanted != "ready" and not _takers(view, node):
        notes.append(NoOtherNodeReady())
    return tuple(notes)


async def change_state(store: Store, keys: Keys, node: str, wanted: NodeState, *, force: bool = False) -> NodeEdit:
    """Make `node`'s state `wanted`. Raises NotFound, Refused, Conflict when others keep changing it; StoreError."""
    for _ in range(EDITS_MAX):
        edit = plan_edit(await store.list(keys.nodes), keys, node, wanted, force=force)
        if not edit.writes:
            return edit
        try:
            if (await store.txn(edit.compares, edit.writes)).succeeded:
                return edit
        except (LeaseLost, StoreAmbiguous):
            # The next reading shows whether the node is gone or the write was applied.
            continue
    raise Conflict(f"the registration of node {node} keeps changing: another operator edits it; look and try again")


async def forget(store: Store, keys: Keys, node: str) -> None:
    """Stop showing a node that is gone for good. Raises NotFound; Refused while it is registered; Conflict; StoreError.

    Its record stays as that of a node that left, for its hour: if it were deleted while the leader still waits for the
    node (`policy.restart_grace`), the leader would write it again.
    """
    for _ in range(EDITS_MAX):
        listings = [await store.list(prefix) for prefix in (keys.departed, keys.nodes)]
        view = ClusterView.from_items(keys, {item.key: item for listing in listings for item in listing.items})
        if node in view.nodes or keys.node(node) in view.bad:
            raise Refused(f"node {node} is registered: stop it first (sandwich node drain {node} empties it)")
        entry = view.departed.get(node)
        if entry is None:
            raise NotFound("node that is gone", node, view.departed)
        if entry.record.left:
            return
        key = keys.departed_node(node)
        guards = (Compare(key, "mod_revision", entry.mod_revision), Compare(keys.node(node), "mod_revision", 0))
        write = Put(key, msgspec.structs.replace(entry.record, left=True).encode())
        try:
            if (await store.txn(guards, (write,))).succeeded:
                return
        except StoreAmbiguous:
            continue
    raise Conflict(f"the record of node {node} keeps changing; look and try again")


def shards_left(view: ClusterView, node: str, instance: str) -> frozenset[ShardId]:
    """The shards a draining node still has or is still to get. Raises NotReached when it drains no longer."""
    entry = view.nodes.get(node)
    if entry is None:
        raise NotReached(f"node {node} left the cluster before it was drained: its shards go to other nodes")
    if entry.record.instance != instance:
        raise NotReached(f"node {node} was restarted, and a new process begins as ready: drain it again")
    if entry.record.state != "draining":
        raise NotReached(f"node {node} drains no longer: another operator made it {entry.record.state}")
    claimed = {shard for shard, claim in view.claims.items() if claim.record.node == node}
    planned = {
        ShardId(group.app, group.group, shard)
        for group, plan in view.plans.items()
        for shard, owner in planned_nodes(plan).items()
        if owner == node
    }
    return frozenset(claimed | planned)


async def drain(store: Store, keys: Keys, node: str, *, force: bool, timeout_s: float, report: Report) -> None:
    """Make a node draining and wait until it has no shards.

    Raises NotFound and Refused; NotReached when shards are left after `timeout_s`, or the node drains no longer.
    Cancelled, it reports that the node stays draining.
    """
    edit = await change_state(store, keys, node, "draining", force=force)
    for note in edit.notes:
        report(note)
    try:
        await _until_empty(store, keys, node, edit.instance, timeout_s, report)
    except asyncio.CancelledError:
        report(DrainInterrupted(node))
        raise


async def _until_empty(store: Store, keys: Keys, node: str, instance: str, timeout_s: float, report: Report) -> None:
    now = asyncio.get_running_loop().time
    ends_at = now() + timeout_s
    reported: Progress | None = None
    left: frozenset[ShardId] = frozenset()
    while True:
        current: Progress
        try:
            left = shards_left(await _read(store, keys), node, instance)
        except StoreUnavailable as error:
            current = StoreSilent(str(error))
        else:
            if not left:
                report(Drained(node))
                return
            current = ShardsToMove(node, Counter(shard.app for shard in left))
        if current != reported:
            reported = current
            report(current)
        if now() >= ends_at:
            raise NotReached(
                f"not drained in {timeout_s:g} s, {len(left) or 'an unknown number of'} shards are left; it stays "
                f"draining: {next_steps(node)}"
            )
        await asyncio.sleep(min(POLL_S, ends_at - now()))


async def _read(store: Store, keys: Keys) -> ClusterView:
    """Plans before claims: a shard that one has and the other lost is seen in at least one of them."""
    listings = [await store.list(prefix) for prefix in (keys.nodes, keys.plans, keys.claims)]
    return ClusterView.from_items(keys, {item.key: item for listing in listings for item in listing.items})


def next_steps(node: str) -> str:
    """What an operator can do about a node that stays draining."""
    return f"sandwich node drain {node} waits again, sandwich node uncordon {node} ends it"
