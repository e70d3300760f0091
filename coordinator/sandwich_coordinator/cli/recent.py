"""What happened lately, as an operator reads it: failovers of one event put together, and losses by name. Pure."""

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from sandwich_coordinator.status import LossStatus
from sandwich_sdk.wire.plain_text import plain_text

SHOWN_MAX = 10


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
