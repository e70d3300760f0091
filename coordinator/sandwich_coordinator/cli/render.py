"""What an operator sees of the cluster: a snapshot in, text or JSON out. Pure; no boxes, colours only when asked for.

Reasons, addresses and names come from Discord, from nodes and from every writer to etcd: each is made plain here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sandwich_coordinator.cli.paint import PLAIN, Paint
from sandwich_coordinator.cli.progress import progress_line
from sandwich_coordinator.cli.recent import recent_text
from sandwich_coordinator.durations import duration
from sandwich_coordinator.operations.health import find_problems
from sandwich_coordinator.operations.rows import app_rows as app_rows
from sandwich_coordinator.operations.rows import consumer_rows, departed_rows, failover_rows, loss_rows, problem_rows
from sandwich_coordinator.operations.rows import node_rows as node_rows
from sandwich_coordinator.operations.rows import pin_rows as pin_rows
from sandwich_coordinator.operations.rows import shard_rows as shard_rows
from sandwich_coordinator.operations.rows import start_rows as start_rows
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.placement import labels_text
from sandwich_coordinator.problems import KINDS, Problem, Severity, degraded
from sandwich_coordinator.scale_plan import plan_next_group, scale_progress
from sandwich_coordinator.start_order import at_utc
from sandwich_coordinator.types import CAPACITY
from sandwich_coordinator.view import ClusterView
from sandwich_sdk.wire.plain_text import plain_lines, plain_text

_NO_APPS = "no applications yet: run sandwich cluster apply -f cluster.yml, or sandwich app add NAME"
_NO_NODES = "no nodes: start one with sandwich-node join --etcd URL"


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], paint: Paint = PLAIN) -> list[str]:
    """Columns separated by two spaces. Long names are never cut: what is cut cannot be pasted into a command."""
    cells = [[plain_text(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    head, *others = [[text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in cells]
    states = {number for number, name in enumerate(heads) if name == "STATE"} if paint.on else set()
    lines = [paint.bold("  ".join(head).rstrip())]
    for row in others:
        painted = [paint.state(text) if number in states else text for number, text in enumerate(row)]
        lines.append("  ".join(painted).rstrip())
    return lines


def problem_line(found: Problem, now: float, paint: Paint = PLAIN) -> str:
    """A problem on one line: who reports it, what is wrong, since when, what to do."""
    nodes = found.nodes
    who = f"{'node' if len(nodes) == 1 else 'nodes'} {', '.join(nodes)}: " if nodes else ""
    when = ""
    if found.since:
        length = duration(now - found.since)
        when = f" ({length} ago)" if KINDS[found.code].momentary else f" (for {length})"
    advice = f": {found.advice}" if found.advice else ""
    return f"{_mark(found.severity, paint)} {plain_text(f'{who}{found.summary}{when}{advice}')}"


def _mark(severity: Severity, paint: Paint) -> str:
    match severity:
        case Severity.CRITICAL:
            return paint.bad("!")
        case Severity.WARNING:
            return paint.warning("!")
        case Severity.NOTICE:
            return paint.faint("-")


def _change_lines(snapshot: Snapshot) -> list[str]:
    """A line for each change of shard groups that is under way or waits."""
    lines = []
    for name, entry in sorted(snapshot.view.apps.items()):
        found = scale_progress(snapshot.view, name, policy=snapshot.policy)
        if found is not None:
            lines.append(f"  {progress_line(found)}")
            continue
        plan = None if entry.record.paused else plan_next_group(snapshot.view, entry.record, policy=snapshot.policy)
        if plan is not None and not plan.enough and not plan.at_once:
            wait = "" if plan.reset_at is None else f", reset in {duration(plan.reset_at - snapshot.now)}"
            lines.append(f"  {name}: {', '.join(plan.reasons)} waits for {plan.starts} session starts{wait}")
    return lines


def to_json(snapshot: Snapshot) -> dict[str, Any]:
    """The whole status."""
    leader = snapshot.view.leader
    found = find_problems(snapshot)
    return {
        "cluster": snapshot.cluster,
        "healthy": not degraded(found),
        "problems": problem_rows(found),
        "leader": leader.record.node if leader else None,
        "etcd_version": snapshot.etcd_version,
        "nodes": node_rows(snapshot),
        "pins": pin_rows(snapshot.view),
        "apps": app_rows(snapshot),
        "starts": start_rows(snapshot),
        "departed": departed_rows(snapshot),
        "consumers": consumer_rows(snapshot),
        "failovers": failover_rows(snapshot.answers.values()),
        "losses": loss_rows(snapshot.answers.values()),
    }


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return " ".join(f"{count} {state}" for state, count in value.items()) or "-"
    return str(value) or "-"


def rows_text(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], empty: str, paint: Paint = PLAIN) -> str:
    """Rows as a table of `columns` (key -> heading), or the sentence that explains why there are none."""
    if not rows:
        return empty
    return "\n".join(table(list(columns.values()), [[_text(row[key]) for key in columns] for row in rows], paint))


NODE_COLUMNS = {
    "node": "NODE", "state": "STATE", "leader": "LEADER", "shards": "SHARDS", "events_per_s": "EVENTS/S",
    "workers": "WORKERS", "version": "VERSION", "address": "ADDRESS",
}  # fmt: skip
NODE_OPTION_COLUMNS = {"capacity": "CAPACITY", "max_shards": "MAX SHARDS", "pins": "PINS", "labels": "LABELS"}
"""Shown where a node has something else than the default."""
PIN_COLUMNS = {"app": "APP", "shard": "SHARD", "node": "NODE", "since": "SINCE", "unmet": "NOT FOLLOWED BECAUSE"}
APP_COLUMNS = {
    "app": "APP", "state": "STATE", "shards": "SHARDS LIVE", "guilds": "GUILDS", "events_per_s": "EVENTS/S",
    "cache": "CACHE",
}  # fmt: skip
CONSUMER_COLUMNS = {"app": "APP", "group": "GROUP", "lag_frames": "LAG/FRAMES"}
START_COLUMNS = {
    "app": "APP", "group": "GROUP", "have": "STARTED", "waiting": "WAITING", "per_minute": "PER MINUTE", "eta": "ETA",
}  # fmt: skip
SHARD_COLUMNS = {
    "app": "APP", "group": "GROUP", "shard": "SHARD", "state": "STATE", "node": "NODE", "worker": "WORKER",
    "latency_ms": "LATENCY/MS", "guilds": "GUILDS", "events_per_s": "EVENTS/S", "reason": "REASON",
}  # fmt: skip


def nodes_text(snapshot: Snapshot, paint: Paint = PLAIN) -> str:
    """The nodes as a table."""
    rows = node_rows(snapshot)
    for row in rows:
        row["labels"] = labels_text(row["labels"])
    usual = {"capacity": CAPACITY, "max_shards": 0, "pins": 0, "labels": ""}
    columns = NODE_COLUMNS | {
        key: head for key, head in NODE_OPTION_COLUMNS.items() if any(row[key] != usual[key] for row in rows)
    }
    gone = [
        dict.fromkeys(columns) | {"node": row["node"], "state": "gone"}
        for row in departed_rows(snapshot)
        if not row["left"]
    ]
    return rows_text([*rows, *gone], columns, _NO_NODES, paint)


def apps_text(snapshot: Snapshot, paint: Paint = PLAIN) -> str:
    """The applications as a table, session budget included."""
    rows = app_rows(snapshot)
    for row in rows:
        left, reset = row["session_starts_left"], row["session_starts_reset_at"]
        soon = f", reset in {duration(reset - snapshot.now)}" if reset and reset > snapshot.now else ""
        row["shards"] = _shards_text(row["shards"], row["shards_wanted"])
        row["problems"] = sum(row["problems"].values()) or None
        if row["state"] == "paused" and row["paused_at"]:
            row["state"] = f"paused for {duration(snapshot.now - row['paused_at'])}"
        row["budget"] = None if left is None else f"{left}/{row['session_starts_total']}{soon}"
    return rows_text(rows, APP_COLUMNS | {"budget": "SESSION STARTS", "problems": "PROBLEMS"}, _NO_APPS, paint)


def starts_text(snapshot: Snapshot, paint: Paint = PLAIN) -> str:
    """How far each start is, as a table; "" when nothing starts."""
    rows = start_rows(snapshot)
    for row in rows:
        row["have"] = f"{row['started']}/{row['wanted']}"
        row["eta"] = _eta(row)
    return rows_text(rows, START_COLUMNS, "", paint)


def _eta(row: Mapping[str, Any]) -> str | None:
    eta = None if row["eta_s"] is None else duration(row["eta_s"])
    if row["blocked_until"] is None:
        return eta
    left = row["starts_left"]
    starts = f"only {left} {'start' if left == 1 else 'starts'}" if left else "no starts"
    return f"{starts} left until {at_utc(row['blocked_until'])}" + (f"; {eta}" if eta else "")


def _shards_text(states: Mapping[str, int], wanted: int) -> str:
    """Live shards of those wanted, then what the others are."""
    others = [f"{count} {state}" for state, count in states.items() if state != "live"]
    return ", ".join([f"{states.get('live', 0)}/{wanted or '-'}", *others])


def shards_text(
    snapshot: Snapshot, app: str | None = None, paint: Paint = PLAIN, numbers: frozenset[int] | None = None
) -> str:
    """The shards as a table."""
    empty = (
        "no shard is claimed"
        + (f" for {plain_text(app)}" if app else "")
        + ": see sandwich cluster status for the reason"
    )
    rows = shard_rows(snapshot, app, numbers)
    pinned = {"pinned_to": "PINNED TO"} if any(row["pinned_to"] for row in rows) else {}
    return rows_text(rows, SHARD_COLUMNS | pinned, empty, paint)


def pins_text(view: ClusterView, now: float, app: str | None = None, paint: Paint = PLAIN) -> str:
    """The pins as a table, and how to remove one. `now`: Unix seconds."""
    rows = pin_rows(view, app)
    if not rows:
        return "no shard is pinned"
    for row in rows:
        row["since"] = f"{duration(now - row['at'])} ago"
    columns = {key: head for key, head in PIN_COLUMNS.items() if key != "unmet" or any(row[key] for row in rows)}
    return f"{rows_text(rows, columns, '', paint)}\nremove a pin: sandwich shard move APP SHARDS --to any"


def status_text(snapshot: Snapshot, paint: Paint = PLAIN) -> str:
    """Problems first, then nodes, then applications, then what happened lately."""
    found = find_problems(snapshot)
    health = paint.bad("degraded") if degraded(found) else paint.good("healthy")
    parts = [f"cluster {plain_text(snapshot.cluster)}: {health}"]
    if found:
        lines = [f"  {problem_line(one, snapshot.now, paint)}" for one in found]
        parts.append(paint.bold("problems") + "\n" + "\n".join(lines))
    parts.append(f"{paint.bold('nodes')}\n{nodes_text(snapshot, paint)}")
    parts.append(f"{paint.bold('applications')}\n{apps_text(snapshot, paint)}")
    if changes := _change_lines(snapshot):
        parts.append(paint.bold("changes of shard groups") + "\n" + plain_lines("\n".join(changes)))
    if starts := starts_text(snapshot, paint):
        parts.append(f"{paint.bold('session starts')}\n{starts}")
    if groups := consumer_rows(snapshot):
        parts.append(f"{paint.bold('consumer groups')}\n{rows_text(groups, CONSUMER_COLUMNS, '', paint)}")
    answers = snapshot.answers.values()
    if recent := recent_text(failover_rows(answers), loss_rows(answers)):
        parts.append(recent)
    return "\n\n".join(parts)
