"""Operating shards: move one to a node, restart some, see and await the balance.

A command writes a wish (`pins/`, `restarts/`) and waits until the cluster has fulfilled it; the wish stays when the
command is interrupted.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sandwich_coordinator import rebalance
from sandwich_coordinator.cli.errors import CommandError, no_such
from sandwich_coordinator.groups import newest_groups, shard_ids
from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.ranges import format_ranges, parse_ranges
from sandwich_coordinator.store.base import Compare, Delete, Put, Store, StoreAmbiguous, StoreUnavailable
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import ClaimRecord, PinRecord, RestartRecord
from sandwich_coordinator.view import ClusterView

POLL_S = 0.2
WRITES_AT_ONCE = 50
ANYWHERE = "any"

Say = Callable[[str], None]


async def read_view(store: Store, keys: Keys) -> ClusterView:
    """Everything the cluster has stored, at one revision."""
    listing = await store.list(keys.prefix)
    return ClusterView.from_items(keys, {item.key: item for item in listing.items}, listing.revision)


def find_shards(view: ClusterView, app: str, ranges: str) -> list[ShardId]:
    """The shards of an application that `ranges` ("3", "0-7,12") names. Raises CommandError (1) naming what is not."""
    if app not in view.apps:
        raise no_such("application", app, view.apps)
    group = newest_groups(view).get(app)
    if group is None:
        raise CommandError(f"{app} has no shards yet: see sandwich cluster status for the reason", 1)
    present = shard_ids(view.groups[group].record)
    try:
        wanted = parse_ranges(ranges)
    except ValueError as error:
        raise CommandError(f"shards {ranges!r}: {error}", 1) from None
    missing = sorted(set(wanted) - set(present))
    if missing:
        raise CommandError(f"{app} has no shard {format_ranges(missing)}; it has {format_ranges(present) or 'none'}", 1)
    return [ShardId(*group, number) for number in wanted]


def check_target(view: ClusterView, node: str) -> None:
    """Raise CommandError (1) unless the node is there and takes shards."""
    entry = view.nodes.get(node)
    if entry is None:
        raise no_such("node", node, view.nodes)
    if entry.record.state != "ready":
        raise CommandError(f"node {node} is {entry.record.state} and takes no shards: uncordon it first", 1)


async def _write(store: Store, writes: Sequence[tuple[Compare, Put | Delete]]) -> None:
    for start in range(0, len(writes), WRITES_AT_ONCE):
        part = writes[start : start + WRITES_AT_ONCE]
        try:
            done = await store.txn([guard for guard, _ in part], [write for _, write in part])
        except StoreAmbiguous as error:
            raise CommandError(f"whether that was stored is unknown ({error}): look and try again") from None
        if not done.succeeded:
            raise CommandError("somebody else changed the same shards just now: look and try again", 1)


async def move_shards(
    store: Store, keys: Keys, app: str, ranges: str, node: str, *, timeout_s: float, say: Say
) -> list[ShardId]:
    """Pin shards to a node and wait until they are live there; "any" takes the pins away and does not wait.

    Raises CommandError (1): refused, or not there after `timeout_s`.
    """
    view = await read_view(store, keys)
    shards = find_shards(view, app, ranges)
    if node == ANYWHERE:
        pinned = [shard for shard in shards if shard in view.pins]
        await _write(store, [_unpin(view, shard) for shard in pinned])
        say(f"{app} shards {_numbers(shards)}: {len(pinned) or 'no'} pins taken away; the leader balances as it likes")
        return shards
    check_target(view, node)
    record = PinRecord(node=node, at=time.time()).encode()
    writes: list[tuple[Compare, Put | Delete]] = []
    for shard in shards:
        entry = view.pins.get(shard)
        if entry is None or entry.record.node != node:
            name = keys.pin(*shard)
            guard = Compare(name, "mod_revision", 0 if entry is None else entry.mod_revision)
            writes.append((guard, Put(name, record)))
    await _write(store, writes)
    say(f"{app} shards {_numbers(shards)} are pinned to {node}")

    def there(view: ClusterView, shard: ShardId) -> bool:
        check_target(view, node)
        claim = view.claims.get(shard)
        return claim is not None and claim.record.node == node and _is_live(shard, claim.record)

    await _await_all(store, keys, shards, there, f"live on {node}", timeout_s, say)
    return shards


def _unpin(view: ClusterView, shard: ShardId) -> tuple[Compare, Delete]:
    name = view.keys.pin(*shard)
    return Compare(name, "mod_revision", view.pins[shard].mod_revision), Delete(name)


async def restart_shards(
    store: Store, keys: Keys, app: str, ranges: str, *, timeout_s: float, say: Say
) -> list[ShardId]:
    """Let shards close and resume where they are, a failed one too; wait until they are live again.

    Raises CommandError (1): refused, or not live after `timeout_s`.
    """
    view = await read_view(store, keys)
    shards = find_shards(view, app, ranges)
    idle = [shard for shard in shards if shard not in view.claims]
    if idle:
        raise CommandError(f"{app} shards {_numbers(idle)} run nowhere: there is nothing to restart", 1)
    record = RestartRecord(at=time.time()).encode()
    before = {shard: view.claims[shard].create_revision for shard in shards}
    writes: list[tuple[Compare, Put | Delete]] = []
    for shard in shards:
        guard = Compare(keys.claim(*shard), "create_revision", before[shard])
        writes.append((guard, Put(keys.restart(*shard), record)))
    await _write(store, writes)
    say(f"{app} shards {_numbers(shards)} are told to restart")

    def back(view: ClusterView, shard: ShardId) -> bool:
        claim = view.claims.get(shard)
        return claim is not None and claim.create_revision > before[shard] and _is_live(shard, claim.record)

    await _await_all(store, keys, shards, back, "live again", timeout_s, say)
    return shards


async def balance(store: Store, keys: Keys, *, dry_run: bool, timeout_s: float, say: Say) -> list[dict[str, Any]]:
    """What is to move and why; unless `dry_run`, take all pins away first and wait until nothing is left to move."""
    view = await read_view(store, keys)
    if not dry_run and view.pins:
        await _write(store, [_unpin(view, shard) for shard in sorted(view.pins)])
        say(f"{len(view.pins)} pins are taken away")
        view = await read_view(store, keys)
    found = rebalance.moves(view)
    for line in move_lines(found):
        say(line)
    if not dry_run:
        await _until_balanced(store, keys, timeout_s, say)
    return [
        {
            "app": move.shard.app,
            "group": move.shard.group,
            "shard": move.shard.shard,
            "from": move.source or None,
            "to": move.target,
            "reason": move.reason,
        }
        for move in found
    ]


def move_lines(found: Sequence[rebalance.Move]) -> list[str]:
    """Moves in words, those of one kind together."""
    if not found:
        return ["nothing to move: every shard is where it should be"]
    together: dict[tuple[str, str, str, str], list[int]] = {}
    for move in found:
        together.setdefault((move.shard.app, move.source, move.target, move.reason), []).append(move.shard.shard)
    lines = [
        f"{app} shards {format_ranges(numbers)}: {source or '-'} -> {target} ({reason})"
        for (app, source, target, reason), numbers in sorted(together.items())
    ]
    count = len(found)
    return [*lines, f"{count} {'shard moves' if count == 1 else 'shards move'}, by RESUME: no session start is spent"]


async def _until_balanced(store: Store, keys: Keys, timeout_s: float, say: Say) -> None:
    clock = asyncio.get_running_loop().time
    ends_at = clock() + timeout_s
    told = -1
    while left := len(rebalance.moves(await read_view(store, keys))):
        if left != told:
            told = left
            say(f"{left} left")
        if clock() >= ends_at:
            raise CommandError(f"{left} shards are not moved after {timeout_s:g} s; the leader goes on", 1)
        await asyncio.sleep(POLL_S)
    say("balanced")


async def _await_all(
    store: Store,
    keys: Keys,
    shards: Iterable[ShardId],
    done: Callable[[ClusterView, ShardId], bool],
    what: str,
    timeout_s: float,
    say: Say,
) -> None:
    clock = asyncio.get_running_loop().time
    began = clock()
    left = list(shards)
    told = len(left)
    while True:
        try:
            view = await read_view(store, keys)
        except StoreUnavailable as error:
            say(f"the store does not answer, waiting ({error})")
        else:
            left = [shard for shard in left if not done(view, shard)]
        if not left:
            say(f"{what} after {clock() - began:.1f} s")
            return
        if len(left) != told:
            told = len(left)
            say(f"{told} left")
        if clock() - began >= timeout_s:
            raise CommandError(f"shards {_numbers(left)} are not {what} after {timeout_s:g} s; what was asked stays", 1)
        await asyncio.sleep(POLL_S)


def _is_live(shard: ShardId, claim: ClaimRecord) -> bool:
    """Raises CommandError (1) when it has failed where it was wanted."""
    if claim.state == "failed":
        raise CommandError(f"{shard.app} shard {shard.shard} failed: {claim.reason or 'no reason given'}", 1)
    return claim.state == "live"


def _numbers(shards: Iterable[ShardId]) -> str:
    return format_ranges(sorted(shard.shard for shard in shards))
