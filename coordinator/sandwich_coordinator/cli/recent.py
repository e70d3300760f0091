"""What happened lately, as an operator reads it: failovers of one event put together, and losses by name. Pure."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from sandwich_coordinator.ranges import format_ranges
from sandwich_coordinator.status import FailoverStatus, LossStatus, NodeStatus
from sandwich_sdk.wire.plain_text import plain_text

TOGETHER_S = 10.0
"""Shards that came back from the same place for the same cause within this time belong to one failover."""
SHOWN_MAX = 10


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


def recent_text(failovers: Sequence[dict[str, Any]], losses: Sequence[dict[str, Any]]) -> str:
    """Both lists in words, newest first; "" when nothing happened."""
    lines = [_failover_line(row) for row in failovers[:SHOWN_MAX]]
    if len(failovers) > SHOWN_MAX:
        lines.append(f"  and {len(failovers) - SHOWN_MAX} more: see --json")
    parts = ["recent failovers\n" + "\n".join(lines)] if lines else []
    lines = [_loss_line(msgspec.convert(row, LossStatus)) for row in losses[:SHOWN_MAX]]
    if len(losses) > SHOWN_MAX:
        lines.append(f"  and {len(losses) - SHOWN_MAX} more: see --json")
    if lines:
        parts.append("sessions that could not be resumed\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _failover_line(row: dict[str, Any]) -> str:
    ways = [f"{row[how]} {how}" for how in ("resumed", "identified") if row[how]]
    where = ", ".join(row["nodes"])
    path = f"on {where}" if row["nodes"] == [row["source"]] else f"{row['source']} -> {where}"
    return plain_text(
        f"  {_clock(row['at'])}  {row['app']} shards {row['shards']}: {row['cause']}, {path}, "
        f"{', '.join(ways)} in {row['took_s']:.1f} s, {row['replayed']} events replayed"
    )


def _loss_line(loss: LossStatus) -> str:
    return plain_text(
        f"  {_clock(loss.at)}  {loss.app} shard {loss.shard}: session {loss.session} ended after sequence "
        f"{loss.last_seq} ({loss.reason}); what Discord sent after it is lost, it does not say how much"
    )
