"""What an operator sees of the cluster: a snapshot in, text or JSON out. Pure; no boxes, colours only when asked for.

Reasons, addresses and names come from Discord, from nodes and from whoever writes to etcd: each is made plain here.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sandwich_coordinator.cli.paint import PLAIN, Paint
from sandwich_coordinator.cli.recent import failover_rows, loss_rows, recent_text
from sandwich_coordinator.ranges import format_ranges, parse_ranges
from sandwich_coordinator.status import CacheStatus, NodeStatus
from sandwich_coordinator.view import ClusterView
from sandwich_sdk.wire.plain_text import plain_text

BUDGET_LOW_FRACTION = 0.1
ETCD_MIN = (3, 5, 13)
"""Below it a member may lose consistency after a crash (etcd's advisories); accepted for development."""
_AT_REST = ("paused", "closing", "failed")
"""States of a group whose shards are not to run."""
_NO_APPS = "no applications yet: run sandwich cluster apply -f cluster.yml"
_NO_NODES = "no nodes: start one with sandwich-node join --etcd URL"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The cluster at `now` (Unix seconds). `answers`: each ready node's own status, or why it did not answer.

    `etcd_troubles`: why etcd does not do what it is needed for.
    """

    cluster: str
    view: ClusterView
    configured: bool
    now: float
    answers: Mapping[str, NodeStatus | str] = field(default_factory=dict)
    etcd_version: str = ""
    etcd_troubles: Sequence[str] = ()


def duration(seconds: float) -> str:
    """Two units at most: 59s, 12m, 3h 20m, 4d 2h."""
    left = max(0, int(seconds))
    if left < 60:
        return f"{left}s"
    if left < 3600:
        return f"{left // 60}m"
    if left < 86_400:
        return f"{left // 3600}h {left % 3600 // 60}m"
    return f"{left // 86_400}d {left % 86_400 // 3600}h"


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


def problems(snapshot: Snapshot) -> list[str]:
    """What is wrong, worst first, each with what to do."""
    view = snapshot.view
    found = list(snapshot.etcd_troubles)
    if not snapshot.configured:
        found.append("the cluster is not configured: run sandwich cluster apply -f cluster.yml")
    if not view.nodes:
        found.append(_NO_NODES)
    elif view.leader is None:
        found.append("no leader: nothing is decided; if this lasts over 10 s look at the nodes' logs and at etcd")
    for key, bad in view.bad.items():
        found.append(f"the record {key} cannot be used ({bad.reason}): it is ignored; apply again or delete it")
    found += _shard_problems(snapshot) + _budget_problems(snapshot)
    for node, answer in sorted(snapshot.answers.items()):
        if isinstance(answer, str):
            found.append(f"node {node} does not answer ({answer}): see that its address is reachable from here")
    found += _node_problems(snapshot)
    version = tuple(int(part) for part in snapshot.etcd_version.split(".")[:3] if part.isdecimal())
    if version and version < ETCD_MIN:
        wanted = ".".join(map(str, ETCD_MIN))
        found.append(f"etcd {snapshot.etcd_version} is older than {wanted}: fine for development, upgrade it otherwise")
    return [plain_text(text) for text in found]


def _node_problems(snapshot: Snapshot) -> list[str]:
    """What nodes say, once for all that say the same; not again what was seen from here."""
    nodes: dict[str, list[str]] = {}
    for node, answer in sorted(snapshot.answers.items()):
        if isinstance(answer, NodeStatus):
            for text in answer.problems:
                nodes.setdefault(text, []).append(node)
    return [
        f"{'node' if len(names) == 1 else 'nodes'} {', '.join(names)}: {text}"
        for text, names in nodes.items()
        if text not in snapshot.etcd_troubles
    ]


_ADVICE = {
    "4004": "Discord refused the token: put the right one in its source",
    "4010": "the shard count does not suit the application: set shards.count to auto or to a valid number",
    "4011": "a shard would have too many guilds: set shards.count to auto or to more shards",
    "4012": "Discord no longer takes this program's gateway version: upgrade Sandwich",
    "4013": "the intents contain one that Discord does not know: correct them",
    "4014": "enable the privileged intents in Discord's developer portal, or remove them",
}
_BY_WORD = {"token": "4004", "intent": "4014"}


def _advice(reason: str) -> str:
    lower = reason.lower()
    named = [code for code in _ADVICE if code in lower] + [code for word, code in _BY_WORD.items() if word in lower]
    what = _ADVICE[named[0]] if named else "correct the application's configuration"
    return f"{what}; then apply again"


def _retried(app: str, shards: Sequence[int]) -> str:
    return f" (sandwich cluster apply, or sandwich shard restart {app} {format_ranges(shards)})"


def _shard_problems(snapshot: Snapshot) -> list[str]:
    view = snapshot.view
    found = []
    for (app, number), group in sorted(view.groups.items()):
        failed: dict[str, list[int]] = {}
        claimed = set()
        for key, claim in view.claims.items():
            if (key.app, key.group) != (app, number):
                continue
            claimed.add(key.shard)
            if claim.record.state == "failed":
                failed.setdefault(claim.record.reason or "no reason given", []).append(key.shard)
        for reason, shards in failed.items():
            failure = f"{app}: shards {format_ranges(shards)} failed ({reason})"
            found.append(f"{failure}: {_advice(reason)}{_retried(app, sorted(shards))}")
        if group.record.state == "failed" and not failed:
            found.append(f"{app}: {group.record.reason or 'failed'}: {_advice(group.record.reason)}")
        missing = _wanted(group.record.ids, group.record.count) - claimed
        if missing and group.record.state not in _AT_REST:
            found.append(f"{app}: shards {format_ranges(missing)} run nowhere: they start when a node takes them")
    return found


def _wanted(ids: str, count: int) -> set[int]:
    try:
        return set(parse_ranges(ids)) if ids else set(range(count))
    except ValueError:
        return set(range(count))


def _budget_problems(snapshot: Snapshot) -> list[str]:
    found = []
    for name, app in sorted(snapshot.view.apps.items()):
        budget = snapshot.view.budgets.get(app.record.token_hash)
        if budget is None:
            continue
        record = budget.record
        if record.error:
            found.append(f"{name}: Discord could not be asked ({record.error}): {_advice(record.error)}")
        elif record.reset_at > snapshot.now and record.remaining <= record.total * BUDGET_LOW_FRACTION:
            found.append(
                f"{name}: {record.remaining} of {record.total} session starts left, "
                f"reset in {duration(record.reset_at - snapshot.now)}: avoid restarts that cannot resume until then"
            )
    return found


def node_rows(snapshot: Snapshot) -> list[dict[str, Any]]:
    """One row a node."""
    view = snapshot.view
    shards = Counter(claim.record.node for claim in view.claims.values())
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
                "events_per_s": round(sum(app.events_per_s for app in known.apps.values()), 1) if known else None,
                "rss_bytes": sum(worker.rss_bytes for worker in known.workers) if known else None,
                "answers": known is not None,
            }
        )
    return rows


def app_rows(snapshot: Snapshot) -> list[dict[str, Any]]:
    """One row an application."""
    view = snapshot.view
    rows = []
    for name, entry in sorted(view.apps.items()):
        groups = [group.record for key, group in view.groups.items() if key.app == name]
        states = Counter(claim.record.state for key, claim in view.claims.items() if key.app == name)
        budget = view.budgets.get(entry.record.token_hash)
        figures = [a.apps[name] for a in snapshot.answers.values() if isinstance(a, NodeStatus) and name in a.apps]
        rows.append(
            {
                "app": name,
                "state": "paused" if entry.record.paused else groups[-1].state if groups else "waiting",
                "reason": groups[-1].reason if groups else "",
                "shards_wanted": sum(len(_wanted(group.ids, group.count)) for group in groups),
                "shards": dict(sorted(states.items())),
                "guilds": sum(figure.guilds for figure in figures),
                "events_per_s": round(sum(figure.events_per_s for figure in figures), 1),
                "cache": _cache(
                    entry.record.cache.enabled,
                    [figure.cache for figure in figures if figure.cache],
                    sum(len(_wanted(group.ids, group.count)) for group in groups if group.state not in _AT_REST),
                ),
                "session_starts_left": budget.record.remaining if budget else None,
                "session_starts_total": budget.record.total if budget else None,
                "session_starts_reset_at": budget.record.reset_at if budget else None,
            }
        )
    return rows


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


def shard_rows(snapshot: Snapshot, app: str | None = None) -> list[dict[str, Any]]:
    """One row a claimed shard; figures where its node answered."""
    figures = {
        (shard.app, shard.group, shard.shard, name): shard
        for name, answer in snapshot.answers.items()
        if isinstance(answer, NodeStatus)
        for shard in answer.shards
    }
    rows = []
    for key, claim in sorted(snapshot.view.claims.items()):
        if app is not None and key.app != app:
            continue
        record, known = claim.record, figures.get((*key, claim.record.node))
        rows.append(
            {
                "app": key.app,
                "group": key.group,
                "shard": key.shard,
                "node": record.node,
                "worker": record.worker,
                "state": known.state if known else record.state,
                "reason": (known.reason if known else "") or record.reason,
                "latency_ms": known.latency_ms if known else None,
                "guilds": known.guilds if known else None,
                "events_per_s": round(known.events_per_s, 1) if known else None,
            }
        )
    return rows


def to_json(snapshot: Snapshot) -> dict[str, Any]:
    """The whole status."""
    leader = snapshot.view.leader
    return {
        "cluster": snapshot.cluster,
        "healthy": not serious(snapshot),
        "problems": problems(snapshot),
        "leader": leader.record.node if leader else None,
        "etcd_version": snapshot.etcd_version,
        "nodes": node_rows(snapshot),
        "apps": app_rows(snapshot),
        "failovers": failover_rows(snapshot.answers.values()),
        "losses": loss_rows(snapshot.answers.values()),
    }


def serious(snapshot: Snapshot) -> bool:
    """Whether the exit code should say degraded: any problem but an old etcd."""
    old = f"etcd {snapshot.etcd_version} is older than "
    return any(not text.startswith(old) for text in problems(snapshot))


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
APP_COLUMNS = {
    "app": "APP", "state": "STATE", "shards": "SHARDS", "guilds": "GUILDS", "events_per_s": "EVENTS/S",
    "cache": "CACHE",
}  # fmt: skip
SHARD_COLUMNS = {
    "app": "APP", "group": "GROUP", "shard": "SHARD", "state": "STATE", "node": "NODE", "worker": "WORKER",
    "latency_ms": "LATENCY/MS", "guilds": "GUILDS", "events_per_s": "EVENTS/S", "reason": "REASON",
}  # fmt: skip


def nodes_text(snapshot: Snapshot, paint: Paint = PLAIN) -> str:
    """The nodes as a table."""
    return rows_text(node_rows(snapshot), NODE_COLUMNS, _NO_NODES, paint)


def apps_text(snapshot: Snapshot, paint: Paint = PLAIN) -> str:
    """The applications as a table, session budget included."""
    rows = app_rows(snapshot)
    for row in rows:
        left, reset = row["session_starts_left"], row["session_starts_reset_at"]
        soon = f", reset in {duration(reset - snapshot.now)}" if reset and reset > snapshot.now else ""
        row["budget"] = None if left is None else f"{left}/{row['session_starts_total']}{soon}"
    return rows_text(rows, APP_COLUMNS | {"budget": "SESSION STARTS"}, _NO_APPS, paint)


def shards_text(snapshot: Snapshot, app: str | None = None, paint: Paint = PLAIN) -> str:
    """The shards as a table."""
    empty = (
        "no shard is claimed"
        + (f" for {plain_text(app)}" if app else "")
        + ": see sandwich cluster status for the reason"
    )
    return rows_text(shard_rows(snapshot, app), SHARD_COLUMNS, empty, paint)


def status_text(snapshot: Snapshot, paint: Paint = PLAIN) -> str:
    """Problems first, then nodes, then applications, then what happened lately."""
    found = problems(snapshot)
    health = paint.bad("degraded") if serious(snapshot) else paint.good("healthy")
    parts = [f"cluster {plain_text(snapshot.cluster)}: {health}"]
    if found:
        parts.append(paint.bold("problems") + "\n" + "\n".join(f"  {paint.bad('!')} {text}" for text in found))
    parts.append(f"{paint.bold('nodes')}\n{nodes_text(snapshot, paint)}")
    parts.append(f"{paint.bold('applications')}\n{apps_text(snapshot, paint)}")
    answers = snapshot.answers.values()
    if recent := recent_text(failover_rows(answers), loss_rows(answers)):
        parts.append(recent)
    return "\n\n".join(parts)
