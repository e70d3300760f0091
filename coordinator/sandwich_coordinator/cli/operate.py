"""Operating nodes: cordon, uncordon and drain.

A command edits `state` in the node's registration and nothing else: the leader plans by it, the node keeps it when it
registers again. Every edit is guarded, so two operators cannot undo each other without being told.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from sandwich_coordinator.cli.errors import CommandError, no_such
from sandwich_coordinator.groups import planned_nodes
from sandwich_coordinator.ids import ShardId
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

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of one node's state, to be written in one transaction. No `writes`: it is so already."""

    instance: str
    compares: tuple[Compare, ...]
    writes: tuple[Put, ...]
    notes: tuple[str, ...]


def plan_edit(listing: Listing, keys: Keys, node: str, wanted: NodeState, *, force: bool = False) -> Edit:
    """What makes `node`'s state `wanted`. Raises CommandError (1) with the reason when that is refused.

    A drain is guarded by one node that can take the shards too: of two operators who each drain the other's last
    resort, the later one is refused.
    """
    view = ClusterView.from_items(keys, {item.key: item for item in listing.items}, listing.revision)
    entry = _entry(view, node)
    record, key = entry.record, keys.node(node)
    if record.state == wanted:
        return Edit(record.instance, (), (), (f"node {node} is {wanted} already", *_others(view, node, wanted)))
    if wanted == "cordoned" and record.state == "draining":
        raise CommandError(f"node {node} is draining, which gives it nothing new either: uncordon it first", 1)
    takers = _takers(view, node)
    if wanted == "draining" and not takers and not force:
        raise CommandError(_refusal(view, node), 1)
    compares = [Compare(key, "mod_revision", entry.mod_revision)]
    if wanted == "draining" and takers:
        compares.append(Compare(keys.node(takers[0]), "mod_revision", view.nodes[takers[0]].mod_revision))
    (raw,) = (item.value for item in listing.items if item.key == key)
    # Edited as plain JSON: a newer node's registration may have fields this version does not know.
    value = msgspec.json.encode({**msgspec.json.decode(raw), "state": wanted})
    return Edit(
        record.instance,
        tuple(compares),
        (Put(key, value, entry.lease),),
        (f"node {node} is {wanted} now (was {record.state})", *_others(view, node, wanted)),
    )


def _entry(view: ClusterView, node: str) -> Entry[NodeRecord]:
    entry = view.nodes.get(node)
    if entry is not None:
        return entry
    bad = view.bad.get(view.keys.node(node))
    if bad is not None:
        raise CommandError(f"the registration of node {node} cannot be used: {bad.reason}", 1)
    raise no_such("node", node, view.nodes)


def _takers(view: ClusterView, node: str) -> list[str]:
    """The other nodes that the leader may give shards to."""
    found = ((name, entry.record) for name, entry in sorted(view.nodes.items()) if name != node)
    return [name for name, record in found if record.state == "ready" and record.capacity > 0]


def _refusal(view: ClusterView, node: str) -> str:
    states = [f"{name} is {view.nodes[name].record.state}" for name in sorted(view.nodes) if name != node]
    why = "it is the only node" if not states else f"no other node is ready ({', '.join(states)})"
    return (
        f"node {node} is not drained: {why}, so nothing could take its shards. Start or uncordon another node. "
        "With --force its shards stay on it until one is ready, and run nowhere if you stop it before that"
    )


def _others(view: ClusterView, node: str, wanted: NodeState) -> tuple[str, ...]:
    """What an operator should know about the other nodes."""
    draining = [name for name, entry in sorted(view.nodes.items()) if entry.record.state == "draining" and name != node]
    notes = [f"draining too: {', '.join(draining)}"] if draining else []
    if wanted != "ready" and not _takers(view, node):
        notes.append("no other node is ready: shards stay where they are, and new ones wait for a ready node")
    return tuple(notes)


async def change_state(store: Store, keys: Keys, node: str, wanted: NodeState, *, force: bool = False) -> Edit:
    """Make `node`'s state `wanted`. Raises CommandError when refused or when others keep changing it; StoreError."""
    for _ in range(EDITS_MAX):
        edit = plan_edit(await store.list(keys.nodes), keys, node, wanted, force=force)
        if not edit.writes:
            return edit
        try:
            if (await store.txn(edit.compares, edit.writes)).succeeded:
                return edit
        except (LeaseLost, StoreAmbiguous):
            # Whether the node went or the write was applied is what the next reading tells.
            continue
    raise CommandError(f"the registration of node {node} keeps changing: somebody else edits it; look and try again", 1)


def shards_left(view: ClusterView, node: str, instance: str) -> frozenset[ShardId]:
    """The shards a draining node still has or is still to get. Raises CommandError (1) when it drains no longer."""
    entry = view.nodes.get(node)
    if entry is None:
        raise CommandError(f"node {node} left the cluster before it was drained: what it held goes to other nodes", 1)
    if entry.record.instance != instance:
        raise CommandError(f"node {node} was restarted, and a new process begins as ready: drain it again", 1)
    if entry.record.state != "draining":
        raise CommandError(f"node {node} drains no longer: another operator made it {entry.record.state}", 1)
    claimed = {shard for shard, claim in view.claims.items() if claim.record.node == node}
    planned = {
        ShardId(group.app, group.group, shard)
        for group, plan in view.plans.items()
        for shard, owner in planned_nodes(plan).items()
        if owner == node
    }
    return frozenset(claimed | planned)


def progress_line(node: str, left: frozenset[ShardId]) -> str:
    """How many shards a draining node still has, by application."""
    by_app = Counter(shard.app for shard in left)
    return f"node {node}: {len(left)} to move ({', '.join(f'{app} {by_app[app]}' for app in sorted(by_app))})"


async def drain(store: Store, keys: Keys, node: str, *, force: bool, timeout_s: float, say: Say) -> None:
    """Make a node draining and wait until it has no shards; `say` takes progress lines.

    Raises CommandError (1): refused, not empty after `timeout_s`, or no longer draining. Cancelled, it says that the
    node stays draining.
    """
    edit = await change_state(store, keys, node, "draining", force=force)
    for note in edit.notes:
        say(note)
    try:
        await _until_empty(store, keys, node, edit.instance, timeout_s, say)
    except asyncio.CancelledError:
        say(f"node {node} stays draining: {_next_steps(node)}")
        raise


async def _until_empty(store: Store, keys: Keys, node: str, instance: str, timeout_s: float, say: Say) -> None:
    now = asyncio.get_running_loop().time
    ends_at = now() + timeout_s
    told = ""
    while True:
        try:
            left = shards_left(await _read(store, keys), node, instance)
        except StoreUnavailable as error:
            line = f"the store does not answer, waiting ({error})"
        else:
            if not left:
                say(f"node {node} is drained: it has no shards and can be stopped")
                return
            line = progress_line(node, left)
        if line != told:
            told = line
            say(line)
        if now() >= ends_at:
            raise CommandError(f"not drained in {timeout_s:g} s, {told}; it stays draining: {_next_steps(node)}", 1)
        await asyncio.sleep(min(POLL_S, ends_at - now()))


async def _read(store: Store, keys: Keys) -> ClusterView:
    """Plans before claims: a shard that one has and the other lost is seen in at least one of them."""
    listings = [await store.list(prefix) for prefix in (keys.nodes, keys.plans, keys.claims)]
    return ClusterView.from_items(keys, {item.key: item for listing in listings for item in listing.items})


def _next_steps(node: str) -> str:
    return f"sandwich node drain {node} waits again, sandwich node uncordon {node} ends it"
