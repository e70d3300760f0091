"""Progress events of operations as lines of text. Pure."""

from collections.abc import Callable, Sequence
from typing import Any

from sandwich_coordinator.operations import progress as happened
from sandwich_coordinator.operations.nodes import next_steps
from sandwich_coordinator.operations.progress import NodeProgress, Progress, Report, ShardProgress
from sandwich_coordinator.ranges import format_ranges
from sandwich_coordinator.rebalance import Move


def shown(say: Callable[[str], None]) -> Report:
    """A receiver of progress events that hands each line to `say`."""

    def report(event: Progress) -> None:
        for line in progress_lines(event):
            say(line)

    return report


def progress_lines(event: Progress) -> list[str]:
    """What the command line prints for one progress event."""
    match event:
        case happened.StoreSilent(reason):
            return [f"the store does not answer, waiting ({reason})"]
        case happened.MovesPlanned(moves):
            return move_lines(moves)
        case _ if isinstance(event, NodeProgress):
            return [_node_line(event)]
        case _:
            return [_shard_line(event)]


def _node_line(event: NodeProgress) -> str:
    match event:
        case happened.NodeStateSet(node, before, after) if before == after:
            return f"node {node} is {after} already"
        case happened.NodeStateSet(node, before, after):
            return f"node {node} is {after} now (was {before})"
        case happened.OthersDraining(nodes):
            return f"draining too: {', '.join(nodes)}"
        case happened.NoOtherNodeReady():
            return "no other node is ready: shards stay where they are, and new ones wait for a ready node"
        case happened.ShardsToMove(node, by_app):
            apps = ", ".join(f"{app} {by_app[app]}" for app in sorted(by_app))
            return f"node {node}: {event.total} to move ({apps})"
        case happened.Drained(node):
            return f"node {node} is drained: it has no shards and can be stopped"
        case happened.DrainInterrupted(node):
            return f"node {node} stays draining: {next_steps(node)}"


def _shard_line(event: ShardProgress) -> str:
    match event:
        case happened.Pinned(app, shards, node):
            return f"{app} shards {format_ranges(shards)} are pinned to {node}"
        case happened.Unpinned(app, shards, pins):
            return (
                f"{app} shards {format_ranges(shards)}: {pins or 'no'} pins taken away; the leader balances them again"
            )
        case happened.AllUnpinned(pins):
            return f"{pins} pins are taken away"
        case happened.RestartRequested(app, shards):
            return f"{app} shards {format_ranges(shards)}: restart requested"
        case happened.Remaining(shards):
            return f"{shards} left"
        case happened.Reached(goal, took_s):
            return f"{goal} after {took_s:.1f} s"
        case happened.Balanced():
            return "balanced"


def move_lines(moves: Sequence[Move]) -> list[str]:
    """Moves in words, those of one kind together."""
    if not moves:
        return ["nothing to move: every shard is where it should be"]
    together: dict[tuple[str, str, str, str], list[int]] = {}
    for move in moves:
        together.setdefault((move.shard.app, move.source, move.target, move.reason), []).append(move.shard.shard)
    lines = [
        f"{app} shards {format_ranges(numbers)}: {source or '-'} -> {target} ({reason})"
        for (app, source, target, reason), numbers in sorted(together.items())
    ]
    count = len(moves)
    return [*lines, f"{count} {'shard moves' if count == 1 else 'shards move'}, by RESUME: no session start is spent"]


def move_row(move: Move) -> dict[str, Any]:
    """One move as JSON shows it."""
    return {
        "app": move.shard.app,
        "group": move.shard.group,
        "shard": move.shard.shard,
        "from": move.source or None,
        "to": move.target,
        "reason": move.reason,
    }
