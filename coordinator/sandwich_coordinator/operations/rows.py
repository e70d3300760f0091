"""Rows of JSON about a cluster, as the command line with `--json` and the HTTP API show them. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from sandwich_coordinator.groups import claims_by_group, serving_groups, upcoming_groups
from sandwich_coordinator.operations.health import find_problems, wanted_shards
from sandwich_coordinator.operations.shards import pins as pins_of
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.placement import shown_labels
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.problems import Problem
from sandwich_coordinator.ranges import format_ranges
from sandwich_coordinator.rebalance import Move
from sandwich_coordinator.scale_plan import ScalePlan, scale_progress
from sandwich_coordinator.start_progress import start_progress
from sandwich_coordinator.status import CacheStatus, FailoverStatus, NodeStatus
from sandwich_coordinator.types import GroupRecord
from sandwich_coordinator.view import ClusterView

_AT_REST = ("paused", "closing", "failed")
"""States of a group whose shards are not to run."""


def problem_rows(found: Sequence[Problem]) -> list[dict[str, Any]]:
    """The problems for JSON."""
    return [msgspec.to_builtins(one) for one in found]


def answer_of(snapshot: Snapshot, node: str) -> NodeStatus | None:
    """What a node says of itself; None when it does not answer."""
    answer = snapshot.answers.get(node)
    return answer if isinstance(answer, NodeStatus) else None


def node_rows(snapshot: Snapshot) -> list[dict[str, Any]]:
    """One row a node."""
    view = snapshot.view
    shards = Counter(claim.record.node for claim in view.claims.values())
    pins = Counter(pin.record.node for pin in view.pins.values())
    leader = view.leader.record.node if view.leader else ""
    rows = []
    for name, entry in sorted(view.nodes.items()):
        known = answer_of(snapshot, name)
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


def app_rows(snapshot: Snapshot, problems: Sequence[Problem] | None = None) -> list[dict[str, Any]]:
    """One row an application. `problems`: those of the snapshot, where they are known already."""
    view = snapshot.view
    problems = find_problems(snapshot) if problems is None else problems
    serving_all, upcoming, claims = serving_groups(view), upcoming_groups(view), claims_by_group(view)
    rows = []
    for name, entry in sorted(view.apps.items()):
        serving = serving_all.get(name)
        groups = [view.groups[serving].record] if serving is not None else []
        of_serving = claims.get(serving, {}) if serving is not None else {}
        states = Counter(claim.state for claim in of_serving.values())
        changes = name in upcoming or any(group.phase == "switching" for group in groups)
        budget = view.budgets.get(entry.record.token_hash)
        wrong = Counter(found.severity.value for found in problems if is_about(found, name))
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
                "change": change_row(view, name, snapshot.policy) if changes else None,
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


def is_about(found: Problem, app: str) -> bool:
    """Whether a problem concerns this application."""
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


TOGETHER_S = 10.0
"""Shards that came back from the same place for the same cause within this time belong to one failover."""


def failover_rows(answers: Iterable[object]) -> list[dict[str, Any]]:
    """One row a failover, newest first: when, which shards, from where to where, how long, how, events replayed."""
    found = sorted(
        (failover for answer in answers if isinstance(answer, NodeStatus) for failover in answer.failovers),
        key=lambda failover: failover.at,
    )
    groups: list[list[FailoverStatus]] = []
    for failover in found:
        for group in reversed(groups):
            if failover.at - group[0].at > TOGETHER_S:
                continue
            if _kind(group[0]) == _kind(failover):
                group.append(failover)
                break
        else:
            groups.append([failover])
    return [_row(group) for group in reversed(groups)]


def _kind(failover: FailoverStatus) -> tuple[str, int, str, str]:
    return failover.app, failover.group, failover.source, failover.cause


def _row(group: Sequence[FailoverStatus]) -> dict[str, Any]:
    first = group[0]
    silent = [failover.silent_s for failover in group if failover.silent_s is not None]
    return {
        "at": first.at,
        "app": first.app,
        "group": first.group,
        "shards": format_ranges(sorted({failover.shard for failover in group})),
        "count": len(group),
        "cause": first.cause,
        "source": first.source,
        "nodes": sorted({failover.node for failover in group}),
        "resumed": sum(failover.how == "resumed" for failover in group),
        "identified": sum(failover.how == "identified" for failover in group),
        "replayed": sum(failover.replayed for failover in group),
        "took_s": max(failover.took_s for failover in group),
        "silent_s": max(silent) if silent else None,
    }


def loss_rows(answers: Iterable[object]) -> list[dict[str, Any]]:
    """One row a session that could not be resumed, newest first."""
    found = [loss for answer in answers if isinstance(answer, NodeStatus) for loss in answer.losses]
    return [msgspec.structs.asdict(loss) for loss in sorted(found, key=lambda loss: -loss.at)]


def plan_row(plan: ScalePlan) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "app": plan.app,
        "reasons": list(plan.reasons),
        "shards_before": plan.before,
        "shards_after": plan.after,
        "session_starts": plan.starts,
        "session_starts_left": plan.left,
        "session_starts_total": plan.total,
        "session_starts_kept": plan.reserve,
        "session_starts_reset_at": plan.reset_at,
        "seconds": round(plan.seconds, 1),
        "memory_bytes": plan.memory_bytes,
        "at_once": plan.at_once,
        "shards_without_room": plan.without_room,
        "room_advice": plan.room_advice,
        "begins_now": plan.enough or plan.at_once,
    }


def plan_of_row(row: Mapping[str, Any]) -> ScalePlan:
    """The plan that `plan_row` gave."""
    return ScalePlan(
        app=row["app"],
        reasons=tuple(row["reasons"]),
        before=row["shards_before"],
        after=row["shards_after"],
        starts=row["session_starts"],
        left=row["session_starts_left"],
        total=row["session_starts_total"],
        reserve=row["session_starts_kept"],
        reset_at=row["session_starts_reset_at"],
        seconds=row["seconds"],
        memory_bytes=row["memory_bytes"],
        at_once=row["at_once"],
        enough=row["begins_now"],
        without_room=row["shards_without_room"],
        room_advice=row["room_advice"],
    )


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
