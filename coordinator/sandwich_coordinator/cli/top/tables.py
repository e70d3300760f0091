"""What each table of `sandwich top` shows: a snapshot in, rows of text out. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sandwich_coordinator.durations import duration
from sandwich_coordinator.groups import serving_groups
from sandwich_coordinator.operations import rows
from sandwich_coordinator.operations.health import find_problems, wanted_shards
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.problems import degraded
from sandwich_sdk.wire.plain_text import plain_text

Table = Literal["problems", "nodes", "apps", "shards"]
TABLES: tuple[Table, ...] = ("problems", "nodes", "apps", "shards")
HEADS: Mapping[Table, tuple[str, ...]] = {
    "problems": ("", "SUBJECT", "SINCE", "PROBLEM", "WHAT TO DO"),
    "nodes": ("NODE", "STATE", "SHARDS", "EVENTS/S", "CPU %", "MEMORY", "WORKERS", "VERSION", "ADDRESS"),
    "apps": ("APP", "STATE", "SHARDS LIVE", "GUILDS", "EVENTS/S", "CACHE", "SESSION STARTS", "CHANGE"),
    "shards": ("APP", "GROUP", "SHARD", "STATE", "NODE", "LATENCY/MS", "GUILDS", "EVENTS/S", "REASON"),
}
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `key` names it from picture to picture; `fields`: the same as data, for details and commands."""

    key: str
    cells: tuple[str, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)

    def matches(self, text: str) -> bool:
        """Whether a cell has this text, in any case."""
        return not text or any(text.lower() in cell.lower() for cell in self.cells)


@dataclass(frozen=True, slots=True)
class Only:
    """Which shards are shown: those of one node or one application; "": all."""

    node: str = ""
    app: str = ""


def table_rows(snapshot: Snapshot, table: Table, only: Only, text: str) -> list[Row]:
    """The rows of a table that match `text`."""
    match table:
        case "problems":
            found = _problems(snapshot)
        case "nodes":
            found = _nodes(snapshot)
        case "apps":
            found = _apps(snapshot)
        case "shards":
            found = _shards(snapshot, only)
    return [row for row in found if row.matches(text)]


def headline(snapshot: Snapshot) -> str:
    """The cluster in one line."""
    view = snapshot.view
    wanted = sum(len(wanted_shards(view.groups[key].record)) for key in serving_groups(view).values())
    live = sum(1 for claim in view.claims.values() if claim.record.state == "live")
    nodes = rows.node_rows(snapshot)
    events = sum(row["events_per_s"] or 0.0 for row in nodes)
    leader = view.leader.record.node if view.leader else "none"
    health = "degraded" if degraded(find_problems(snapshot)) else "healthy"
    return plain_text(
        f"{snapshot.cluster}: {health}   nodes {len(nodes)}   leader {leader}   "
        f"shards {live}/{wanted} live   {events:,.0f} events/s"
    )


def is_degraded(snapshot: Snapshot) -> bool:
    """Whether something is wrong."""
    return degraded(find_problems(snapshot))


def details(row: Row) -> list[str]:
    """All that is known about a row, a line for each field."""
    width = max((len(name) for name in row.fields), default=0)
    return [f"{name.ljust(width)}  {plain_text(_shown(value))}" for name, value in row.fields.items()]


def _problems(snapshot: Snapshot) -> list[Row]:
    found = []
    for one in find_problems(snapshot):
        since = duration(snapshot.now - one.since) if one.since else ""
        cells = (one.severity.value, one.subject, since, one.summary, one.advice)
        fields = {
            "severity": one.severity.value,
            "code": one.code.value,
            "subject": one.subject,
            "since": since or "-",
            "problem": one.summary,
            "what to do": one.advice or "-",
            "reported by": ", ".join(one.nodes) or "-",
        }
        found.append(_row(f"{one.code.value} {one.subject}", cells, fields))
    return found


def _nodes(snapshot: Snapshot) -> list[Row]:
    found = []
    for row in rows.node_rows(snapshot):
        status = rows.answer_of(snapshot, row["node"])
        cpu = sum(worker.cpu_percent for worker in status.workers) if status is not None else None
        memory = f"{row['rss_bytes'] / _MIB:,.0f} MiB" if row["rss_bytes"] is not None else None
        state = row["state"] if row["answers"] else "silent"
        name = f"{row['node']}{' *' if row['leader'] else ''}"
        cells = (name, state, row["shards"], row["events_per_s"], _round(cpu), memory, row["workers"])
        fields = {**row, "cpu_percent": _round(cpu), "rss": memory}
        del fields["rss_bytes"]
        found.append(_row(row["node"], (*cells, row["version"], row["address"]), fields))
    return found


def _apps(snapshot: Snapshot) -> list[Row]:
    found = []
    for row in rows.app_rows(snapshot):
        left = row["session_starts_left"]
        starts = f"{left}/{row['session_starts_total']}" if left is not None else None
        change = row["change"]
        moving = f"{change['phase']} {change['shards_done']}/{change['shards']}" if change else ""
        live = f"{row['shards'].get('live', 0)}/{row['shards_wanted'] or '-'}"
        cells = (row["app"], row["state"], live, row["guilds"], row["events_per_s"], row["cache"], starts, moving)
        found.append(_row(row["app"], cells, row))
    return found


def _shards(snapshot: Snapshot, only: Only) -> list[Row]:
    found = []
    for row in rows.shard_rows(snapshot, only.app or None):
        if only.node and row["node"] != only.node:
            continue
        number = str(row["shard"])
        cells = (row["app"], str(row["group"]), number, row["state"], row["node"], _round(row["latency_ms"]))
        key = f"{row['app']}/{row['group']}/{row['shard']}"
        found.append(_row(key, (*cells, row["guilds"], row["events_per_s"], row["reason"]), row))
    return found


def _row(key: str, cells: Sequence[object], fields: Mapping[str, Any]) -> Row:
    return Row(key, tuple(plain_text(_shown(cell)) for cell in cells), fields)


def _shown(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:,.1f}"
        case int():
            return f"{value:,}"
        case dict():
            return ", ".join(f"{name} {_shown(one)}" for name, one in value.items()) or "-"
        case list() | tuple():
            return ", ".join(map(_shown, value)) or "-"
    return str(value)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
