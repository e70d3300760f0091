"""What an operator sees of the cluster: a snapshot in, text or JSON out. Pure; no boxes, colours only when asked for.

Reasons, addresses and names come from Discord, from nodes and from every writer to etcd: each is made plain here.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from sandwich_coordinator.cli.paint import PLAIN, Paint
from sandwich_coordinator.cli.progress import progress_line
from sandwich_coordinator.cli.recent import failover_rows, loss_rows, recent_text
from sandwich_coordinator.durations import duration
from sandwich_coordinator.groups import serving_groups
from sandwich_coordinator.operations.health import find_problems, wanted_shards
from sandwich_coordinator.operations.shards import pins as pins_of
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.placement import labels_text, shown_labels
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.problems import KINDS, Problem, Severity, degraded
from sandwich_coordinator.scale_plan import plan_next_group, scale_progress
from sandwich_coordinator.start_order import at_utc
from sandwich_coordinator.start_progress import start_progress
from sandwich_coordinator.status import CacheStatus, NodeStatus
from sandwich_coordinator.types import CAPACITY, GroupRecord
from sandwich_coordinator.view import ClusterView
from sandwich_sdk.wire.plain_text import plain_lines, plain_text

_AT_REST = ("paused", "closing", "failed")
"""States of a group whose shards are not to run."""
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


def problem_rows(found: Sequence[Problem]) -> list[dict[str, Any]]:
    """The problems for JSON."""
    return [msgspec.to_builtins(one) for one in found]


def node_rows(snapshot: Snapshot) -> list[dict[str, Any]]:
    """One row a node."""
    view = snapshot.view
    shards = Counter(claim.record.node for claim in view.claims.values())
    pins = Counter(pin.record.node for pin in view.pins.values())
    leader = view.leader.record.node if view.leader else ""
    rows = []
    for name, entry in sorted(view.nodes.items()):
        answer = snapshot.answers.get(name)
        known = answer if isinstance(answer, NodeStatus) else None
        rows.append(
            {
                "node": name,
                "address": entry.record.address,
                "version": entry.record.version,
                "state": entry.record.state,
                "leader": name == leader,
                "workers": entry.record.workers,
                "shards": shards[name],
                "capacity": entry.record.capacity,
                "max_shards": entry.record.max_shards,
                "pins": pins[name],
                "labels": shown_labels(entry.record.labels),
                "events_per_s": round(sum(app.events_per_s for app in known.apps.values()), 1) if known else None,
                "rss_bytes": sum(worker.rss_bytes for worker in known.workers) if known else None,
                "answers": known is not None,
            }
        )
    return rows


def app_rows(snapshot: Snapshot) -> list[dict[str, Any]]:
    """One row an application."""
    view = snapshot.view
    problems = find_problems(snapshot)
    rows = []
    for name, entry in sorted(view.apps.items()):
        serving = serving_groups(view).get(name)
        groups = [view.groups[serving].record] if serving is not None else []
        states = Counter(claim.record.state for key, claim in view.claims.items() if key.of == serving)
        budget = view.budgets.get(entry.record.token_hash)
        wrong = Counter(found.severity.value for found in problems if _is_about(found, name))
        figures = [a.apps[name] for a in snapshot.answers.values() if isinstance(a, NodeStatus) and name in a.apps]
        rows.append(
            {
                "app": name,
                "state": "removing"
                if name in view.removals
                else _app_state(entry.record.paused, groups, nodes=len(view.nodes)),
                "paused_at": entry.record.paused_at or None,
                "reason": groups[-1].reason if groups else "",
                "shards_wanted": sum(len(wanted_shards(group)) for group in groups),
                "shards": dict(sorted(states.items())),
                "change": change_row(view, name, snapshot.policy),
                "guilds": sum(figure.guilds for figure in figures),
                "events_per_s": round(sum(figure.events_per_s for figure in figures), 1),
                "cache": _cache(
                    entry.record.cache.enabled,
                    [figure.cache for figure in figures if figure.cache],
                    sum(len(wanted_shards(group)) for group in groups if group.state not in _AT_REST),
                ),
                "session_starts_left": budget.record.remaining if budget else None,
                "session_starts_total": budget.record.total if budget else None,
                "session_starts_reset_at": budget.record.reset_at if budget else None,
                "problems": dict(sorted(wrong.items())),
            }
        )
    return rows


def change_row(view: ClusterView, app: str, policy: Policy) -> dict[str, Any] | None:
    """How far a change of the application's shard group is; None when there is none."""
    found = scale_progress(view, app, policy=policy)
    if found is None:
        return None
    return {
        "from_group": found.replaces,
        "to_group": found.group,
        "phase": found.phase,
        "shards_done": found.done,
        "shards": found.total,
        "shards_failed": list(found.failed),
        "seconds_left": round(found.seconds_left) if found.seconds_left is not None else None,
    }


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


def _is_about(found: Problem, app: str) -> bool:
    return found.subject == f"app/{app}" or found.subject.startswith(f"app/{app}/")


def _app_state(paused: bool, groups: Sequence[GroupRecord], *, nodes: int) -> str:
    """What the leader wrote; without a node no leader writes, and nothing runs."""
    if paused or not groups:
        return "paused" if paused else "waiting"
    return groups[-1].state if nodes else "down"


def start_rows(snapshot: Snapshot) -> list[dict[str, Any]]:
    """One row a shard group that starts, or whose shards wait for a session start."""
    return [asdict(progress) for progress in start_progress(snapshot.view, snapshot.policy, snapshot.now)]


def departed_rows(snapshot: Snapshot) -> list[dict[str, Any]]:
    """One row a node that is gone. `left`: it left in order, or is forgotten."""
    view = snapshot.view
    return [
        {"node": name, "at": entry.record.at, "left": entry.record.left}
        for name, entry in sorted(view.departed.items())
        if name not in view.nodes
    ]


def consumer_rows(snapshot: Snapshot) -> list[dict[str, Any]]:
    """One row a consumer group, as the leader reports them."""
    answers = [answer for answer in snapshot.answers.values() if isinstance(answer, NodeStatus) and answer.leader]
    return [
        {"app": group.app, "group": group.group, "lag_frames": group.lag} for one in answers for group in one.consumers
    ]


def _cache(enabled: bool, parts: Sequence[CacheStatus], wanted: int) -> str:
    """How complete an application's cache is, in a few words. `wanted`: of how many shards it is to have everything."""
    if not enabled:
        return "off"
    shards = sum(part.shards for part in parts)
    backlog = sum(part.backlog for part in parts)
    incomplete = sum(part.incomplete for part in parts)
    awaited = sum(part.awaited for part in parts)
    if incomplete:
        return f"{incomplete} of {shards} shards incomplete"
    if backlog:
        return f"{backlog} events behind"
    if behind := sum(part.behind for part in parts):
        return f"{behind} of {shards} shards behind"
    if 0 < shards < wanted:
        # They run nowhere, or began a moment ago, or their node does not answer.
        return f"not known of {wanted - shards} of {wanted} shards"
    if awaited:
        return f"{awaited} guilds to come"
    if to_chunk := sum(part.to_chunk for part in parts):
        return f"members of {to_chunk} guilds to come"
    if unreadable := sum(part.malformed_total for part in parts):
        return f"complete, but for {unreadable} events that could not be read whole"
    return "complete" if parts else "-"


def shard_rows(
    snapshot: Snapshot, app: str | None = None, numbers: frozenset[int] | None = None
) -> list[dict[str, Any]]:
    """One row a claimed shard, of one application, or only these numbers of it; figures where its node answered."""
    figures = {
        (shard.app, shard.group, shard.shard, name): shard
        for name, answer in snapshot.answers.items()
        if isinstance(answer, NodeStatus)
        for shard in answer.shards
    }
    rows = []
    for key, claim in sorted(snapshot.view.claims.items()):
        if (app is not None and key.app != app) or (numbers is not None and key.shard not in numbers):
            continue
        record, known, pin = claim.record, figures.get((*key, claim.record.node)), snapshot.view.pins.get(key)
        rows.append(
            {
                "app": key.app,
                "group": key.group,
                "shard": key.shard,
                "node": record.node,
                "worker": record.worker,
                "state": known.state if known else record.state,
                "reason": (known.reason if known else "") or record.reason,
                "pinned_to": pin.record.node if pin is not None else None,
                "latency_ms": known.latency_ms if known else None,
                "guilds": known.guilds if known else None,
                "events_per_s": round(known.events_per_s, 1) if known else None,
            }
        )
    return rows


def pin_rows(view: ClusterView, app: str | None = None) -> list[dict[str, Any]]:
    """One row a pin. `unmet`: why it cannot be followed now, null when it is."""
    return [
        {
            "app": pin.shard.app,
            "group": pin.shard.group,
            "shard": pin.shard.shard,
            "node": pin.node,
            "at": pin.at,
            "unmet": pin.unmet or None,
        }
        for pin in pins_of(view)
        if app is None or pin.shard.app == app
    ]


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
