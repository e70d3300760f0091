"""Operating shards: move some to a node, restart some, remove pins, restore the balance.

An operation writes what is wanted (`pins/`, `restarts/`) and waits until the cluster has done it. What was written
stays when the operation is interrupted.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sandwich_coordinator import rebalance
from sandwich_coordinator.groups import READY, serving_groups, shard_ids, upcoming_groups
from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.operations.errors import Conflict, Invalid, NotFound, NotReached, OutcomeUnknown, Refused
from sandwich_coordinator.operations.progress import (
    AllUnpinned,
    Balanced,
    MovesPlanned,
    Pinned,
    Reached,
    Remaining,
    Report,
    RestartRequested,
    Unpinned,
)
from sandwich_coordinator.operations.waiting import read_view, views
from sandwich_coordinator.placement import fits, labels_text, placement_of
from sandwich_coordinator.ranges import format_ranges, parse_ranges
from sandwich_coordinator.room import unmet_pins
from sandwich_coordinator.store.base import Compare, Delete, Put, Store, StoreAmbiguous
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import ClaimRecord, PinRecord, RestartRecord
from sandwich_coordinator.view import ClusterView

WRITES_AT_ONCE = 50
_SHOWN = 64


@dataclass(frozen=True, slots=True)
class Pin:
    """An operator wants this shard on `node`, since `at` (Unix seconds). `unmet`: why it cannot be followed now."""

    shard: ShardId
    node: str
    at: float
    unmet: str = ""


def find_shards(view: ClusterView, app: str, ranges: str) -> list[ShardId]:
    """The shards of an application that `ranges` ("3", "0-7,12") names. Raises NotFound and Invalid."""
    if app not in view.apps:
        raise NotFound("application", app, view.apps)
    group = serving_groups(view).get(app)
    if group is None:
        raise Refused(f"{app} has no shards yet: see sandwich cluster status for the reason")
    present = shard_ids(view.groups[group].record)
    try:
        wanted = parse_ranges(ranges, once=True)
    except ValueError as error:
        raise Invalid(f"shards {ranges[:_SHOWN]!r}: {error}") from None
    if not wanted:
        raise Invalid("no shards are named: write them as '3' or '0-7,12'")
    missing = sorted(set(wanted) - set(present))
    if missing:
        there, absent = format_ranges(present), format_ranges(missing)
        raise NotFound(
            "shard", absent, (there,) if there else (), f"{app} has no shard {absent}; it has {there or 'none'}"
        )
    return [ShardId(*group, number) for number in wanted]


def check_target(view: ClusterView, app: str, node: str) -> None:
    """Raise NotFound unless the node is there, Refused unless it takes shards of the application."""
    entry = view.nodes.get(node)
    if entry is None:
        raise NotFound("node", node, view.nodes)
    if entry.record.state != "ready":
        raise Refused(f"node {node} is {entry.record.state} and takes no shards: uncordon it first")
    required = view.apps[app].record.placement if app in view.apps else {}
    if not fits(entry.record.labels, placement_of(required)):
        raise Refused(f"node {node} lacks the labels that {app} requires: {labels_text(required)}")


def check_room(view: ClusterView, shards: Sequence[ShardId], node: str) -> None:
    """Raise Refused when the node's limit is below the shards that would be pinned to it."""
    most = view.nodes[node].record.max_shards
    pinned = {shard for shard, entry in view.pins.items() if entry.record.node == node}
    if most and len(pinned.union(shards)) > most:
        others = len(pinned.difference(shards))
        beside = f" beside the {others} that are pinned to it" if others else ""
        raise Refused(f"node {node} takes at most {most} shards (--max-shards): {len(shards)} more do not fit{beside}")


def pins(view: ClusterView) -> list[Pin]:
    """All pins, in the order of shards."""
    unmet = unmet_pins(view)
    return [
        Pin(shard, entry.record.node, entry.record.at, unmet.get(shard, ""))
        for shard, entry in sorted(view.pins.items())
    ]


async def move_shards(
    store: Store, keys: Keys, app: str, ranges: str, node: str, *, timeout_s: float, report: Report
) -> list[ShardId]:
    """Pin shards to a node and wait until they are live there.

    Raises NotFound, Invalid, Refused, Conflict; NotReached when they are not there after `timeout_s` or have failed.
    """
    view = await read_view(store, keys)
    shards = find_shards(view, app, ranges)
    check_target(view, app, node)
    check_room(view, shards, node)
    record = PinRecord(node=node, at=time.time()).encode()
    writes: list[tuple[Compare, Put | Delete]] = []
    for shard in shards:
        entry = view.pins.get(shard)
        if entry is None or entry.record.node != node:
            name = keys.pin(*shard)
            guard = Compare(name, "mod_revision", 0 if entry is None else entry.mod_revision)
            writes.append((guard, Put(name, record)))
    await _write(store, writes)
    report(Pinned(app, _ids(shards), node))

    def there(view: ClusterView, shard: ShardId) -> bool:
        check_target(view, app, node)
        claim = view.claims.get(shard)
        return claim is not None and claim.record.node == node and _is_live(shard, claim.record)

    await _await_all(store, keys, shards, there, f"live on {node}", timeout_s, report)
    return shards


async def unpin_shards(store: Store, keys: Keys, app: str, ranges: str, *, report: Report) -> list[ShardId]:
    """Remove the pins of these shards; the leader balances them again. Raises NotFound, Invalid, Conflict."""
    view = await read_view(store, keys)
    shards = find_shards(view, app, ranges)
    pinned = [shard for shard in shards if shard in view.pins]
    await _write(store, [_unpin(view, shard) for shard in pinned])
    report(Unpinned(app, _ids(shards), len(pinned)))
    return shards


async def restart_shards(
    store: Store, keys: Keys, app: str, ranges: str, *, timeout_s: float, report: Report
) -> list[ShardId]:
    """Let shards close and resume where they are, a failed one too; wait until they are live again.

    Failed shards of the upcoming group with these ids come first: then the serving ones are left alone.

    Raises NotFound, Invalid, Refused, Conflict; NotReached when they are not live after `timeout_s`.
    """
    view = await read_view(store, keys)
    shards = _failed_upcoming(view, app, ranges) or find_shards(view, app, ranges)
    idle = [shard for shard in shards if shard not in view.claims]
    if idle:
        raise Refused(f"{app} shards {format_ranges(_ids(idle))} run nowhere: there is nothing to restart")
    record = RestartRecord(at=time.time()).encode()
    before = {shard: view.claims[shard].create_revision for shard in shards}
    writes: list[tuple[Compare, Put | Delete]] = []
    for shard in shards:
        guard = Compare(keys.claim(*shard), "create_revision", before[shard])
        writes.append((guard, Put(keys.restart(*shard), record)))
    await _write(store, writes)
    report(RestartRequested(app, _ids(shards)))

    def back(view: ClusterView, shard: ShardId) -> bool:
        claim = view.claims.get(shard)
        return claim is not None and claim.create_revision > before[shard] and _is_live(shard, claim.record)

    await _await_all(store, keys, shards, back, "live again", timeout_s, report)
    return shards


def _failed_upcoming(view: ClusterView, app: str, ranges: str) -> list[ShardId]:
    group = upcoming_groups(view).get(app)
    try:
        wanted = parse_ranges(ranges) if group is not None else []
    except ValueError:
        # `find_shards` says what is wrong with them.
        return []
    claims = ((ShardId(*group, number), view.claims.get(ShardId(*group, number))) for number in wanted) if group else ()
    return [shard for shard, claim in claims if claim is not None and claim.record.state == "failed"]


async def planned_moves(store: Store, keys: Keys, *, report: Report) -> list[rebalance.Move]:
    """What the leader is going to move, and why, as things are now."""
    found = rebalance.moves(await read_view(store, keys))
    report(MovesPlanned(tuple(found)))
    return found


async def restore_balance(store: Store, keys: Keys, *, timeout_s: float, report: Report) -> list[rebalance.Move]:
    """Remove all pins and wait until nothing is left to move. Raises Conflict, NotReached after `timeout_s`."""
    view = await read_view(store, keys)
    if view.pins:
        await _write(store, [_unpin(view, shard) for shard in sorted(view.pins)])
        report(AllUnpinned(len(view.pins)))
        view = await read_view(store, keys)
    found = rebalance.moves(view)
    report(MovesPlanned(tuple(found)))
    await _until_balanced(store, keys, timeout_s, report)
    return found


async def _write(store: Store, writes: Sequence[tuple[Compare, Put | Delete]]) -> None:
    for start in range(0, len(writes), WRITES_AT_ONCE):
        part = writes[start : start + WRITES_AT_ONCE]
        try:
            done = await store.txn([guard for guard, _ in part], [write for _, write in part])
        except StoreAmbiguous as error:
            raise OutcomeUnknown(f"whether that was stored is unknown ({error}): look and try again") from None
        if not done.succeeded:
            raise Conflict("another operator changed the same shards just now: look and try again")


def _unpin(view: ClusterView, shard: ShardId) -> tuple[Compare, Delete]:
    name = view.keys.pin(*shard)
    return Compare(name, "mod_revision", view.pins[shard].mod_revision), Delete(name)


async def _until_balanced(store: Store, keys: Keys, timeout_s: float, report: Report) -> None:
    left = reported = -1
    async for view in views(store, keys, timeout_s=timeout_s, report=report):
        left = len(rebalance.moves(view))
        if not left:
            report(Balanced())
            return
        if left != reported:
            reported = left
            report(Remaining(left))
    count = "an unknown number of" if left < 0 else str(left)
    raise NotReached(f"{count} shards are not moved after {timeout_s:g} s; the leader goes on")


async def _await_all(
    store: Store,
    keys: Keys,
    shards: Iterable[ShardId],
    done: Callable[[ClusterView, ShardId], bool],
    goal: str,
    timeout_s: float,
    report: Report,
) -> None:
    clock = asyncio.get_running_loop().time
    began = clock()
    left = list(shards)
    reported = len(left)
    async for view in views(store, keys, timeout_s=timeout_s, report=report):
        left = [shard for shard in left if not done(view, shard)]
        if not left:
            report(Reached(goal, clock() - began))
            return
        if len(left) != reported:
            reported = len(left)
            report(Remaining(reported))
    raise NotReached(
        f"shards {format_ranges(_ids(left))} are not {goal} after {timeout_s:g} s; the request stays stored"
    )


def _is_live(shard: ShardId, claim: ClaimRecord) -> bool:
    """Raises NotReached when it has failed where it was wanted."""
    if claim.state == "failed":
        raise NotReached(f"{shard.app} shard {shard.shard} failed: {claim.reason or 'no reason given'}")
    # A shard of an upcoming group is ready; the group goes live as a whole.
    return claim.state == "live" or claim.state in READY


def _ids(shards: Iterable[ShardId]) -> tuple[int, ...]:
    return tuple(sorted(shard.shard for shard in shards))
