"""Progress events of operations as lines of text. Pure."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from sandwich_coordinator.durations import duration
from sandwich_coordinator.operations import progress as happened
from sandwich_coordinator.operations.nodes import next_steps
from sandwich_coordinator.operations.progress import (
    AppProgress,
    GroupProgress,
    NodeProgress,
    Progress,
    Report,
    ShardProgress,
)
from sandwich_coordinator.ranges import format_ranges
from sandwich_coordinator.rebalance import Move
from sandwich_coordinator.scale_plan import ScalePlan, ScaleProgress, no_room


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
        case _ if isinstance(event, GroupProgress):
            return [_group_line(event)]
        case _ if isinstance(event, NodeProgress):
            return [_node_line(event)]
        case _ if isinstance(event, AppProgress):
            return _app_lines(event)
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


def _app_lines(event: AppProgress) -> list[str]:
    match event:
        case happened.AppPaused(app, since, is_new=False):
            return [f"{app} is paused already, since {clock_text(since)}: sandwich app resume {app} ends it"]
        case happened.AppPaused(app, _, running, sessions):
            return [
                f"{app} is paused: {counted(running, 'shard')} to close, {counted(sessions, 'session')} kept. Discord "
                "forgets a session after some minutes: then its shard needs a session start, and what happened "
                "meanwhile is lost",
                f"consumers keep what is in the stream, get no new events, and have no answer from {app}'s shards; "
                f"apply does not resume it: sandwich app resume {app}",
            ]
        case happened.AppRemoving(app, running, is_new):
            again = "" if is_new else ", as it was begun"
            return [f"{app} is being removed{again}: {counted(running, 'shard')} to close"]
        case happened.GuildsLeft(app, guilds):
            return [f"{counted(guilds, 'guild')} of {app} in the cache"]
        case happened.AppRemoved(app, kept_cache, deleted_stream):
            cache = "nothing is removed from the cache" if kept_cache else "its guilds have left the cache"
            stream = "its streams are deleted" if deleted_stream else "its stream stays until its messages are too old"
            return [f"{app} is removed: {cache}, {stream}"]
        case happened.AppResumed(app, is_new=False):
            return [f"{app} is not paused"]
        case happened.AppResumed(app, paused_s, sessions, starts_left):
            paused = f" after {duration(paused_s)}" if paused_s is not None else ""
            left = f" ({starts_left} are left)" if starts_left is not None else ""
            return [
                f"{app} is resumed{paused}: {counted(sessions, 'session')} to continue; for each that Discord has "
                f"forgotten a session start{left}"
            ]


def counted(number: int, what: str) -> str:
    """A number with its noun."""
    return f"{number} {what}{'s' * (number != 1)}"


def clock_text(at: float) -> str:
    """A time (Unix seconds) in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


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


_PHASES = {
    "canary": "the first shard of the new group is ready",
    "preparing": "shards are ready",
    "holding": "shards hold their events for the switch",
    "switching": "shards have taken over",
}


def progress_line(progress: ScaleProgress) -> str:
    """How far a change of an application's shard group is."""
    left = f", about {duration(progress.seconds_left)} left" if progress.seconds_left else ""
    failed = f"; shards {format_ranges(progress.failed)} failed" if progress.failed else ""
    done = f"{progress.done} of {1 if progress.phase == 'canary' else progress.total}"
    return (
        f"{progress.app}: group {progress.replaces} -> {progress.group}: {done} {_PHASES[progress.phase]}{left}{failed}"
    )


def _group_line(event: GroupProgress) -> str:
    match event:
        case happened.ScaleAdvanced(progress):
            return progress_line(progress)
        case happened.ScaleFailing(app, shards, advice):
            which = format_ranges(shards)
            return f"{app}: shards {which} of the new group failed; the old group serves as before; {advice}"
        case happened.ScaleDone(app, took_s):
            return f"{app}: done after {took_s:.1f} s"


def plan_lines(plan: ScalePlan, now: float) -> list[str]:
    """What a change of an application's shards costs; `now`: Unix seconds."""
    starts = f"{plan.starts} session {'start' if plan.starts == 1 else 'starts'}"
    lines = [f"{plan.app}: {', '.join(plan.reasons)}"]
    if plan.left is None:
        lines.append(f"  {starts}; Discord has not said yet how many are left")
    else:
        kept = f", {plan.reserve} are kept for failover" if plan.reserve else ""
        lines.append(f"  {starts} of the {plan.left} that are left of {plan.total}{kept}")
    if plan.at_once:
        lines.append(f"  the present shards end first; at least {duration(plan.seconds)} until all are back")
    else:
        lines.append(f"  at least {duration(plan.seconds)}; the present shards serve until the new ones are ready")
        lines.append(f"  about {plan.memory_bytes / 2**20:.0f} MiB of memory more until then, without traffic")
    if plan.without_room:
        lines.append(f"  {no_room(plan)}")
    if not plan.enough and not plan.at_once and plan.reset_at is not None:
        lines.append(f"  it begins when the session starts are reset, in {duration(max(0.0, plan.reset_at - now))}")
    return lines


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
