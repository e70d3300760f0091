"""Consumer groups as `sandwich group` shows them. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sandwich_coordinator.cli.render import table
from sandwich_coordinator.durations import duration
from sandwich_coordinator.operations.group_states import ConsumerGroup, frames


def group_row(found: ConsumerGroup) -> dict[str, Any]:
    """A group as JSON shows it."""
    return {
        "app": found.app,
        "group": found.group,
        "ordered": found.ordered,
        "partitions": found.partitions,
        "lane": found.lane,
        "lag_frames": found.lag,
        "in_hand": found.in_hand,
        "behind_since": found.behind_since,
        "reads": found.reads,
        "dead_letters": found.dead_letters,
        "replays": found.replays,
        "created_at": found.created_at,
    }


def groups_text(app: str, found: Sequence[ConsumerGroup], now: float) -> str:
    """The groups of an application as a table. `now`: Unix seconds."""
    if not found:
        return f"{app} has no consumer groups: a worker makes its own, or sandwich group create {app} GROUP"
    rows = [
        (
            one.group,
            "-" if one.lag is None else one.lag,
            "-" if one.behind_since is None else duration(now - one.behind_since),
            one.in_hand,
            "yes" if one.reads else "no",
            f"{one.partitions} partitions" if one.ordered else "no",
            one.lane or "-",
            one.dead_letters,
            "-" if one.created_at is None else f"{datetime.fromtimestamp(one.created_at, UTC):%Y-%m-%d %H:%M:%S}",
        )
        for one in found
    ]
    heads = ("GROUP", "LAG", "BEHIND", "IN HAND", "READS", "ORDERED", "LANE", "DEAD LETTERS", "CREATED")
    return "\n".join(table(heads, rows))


def removal_lines(found: ConsumerGroup) -> list[str]:
    """What goes with a group, before it does."""
    lines = [f"removing group {found.group} of {found.app}:"]
    if found.lag is not None:
        of = f" of {found.partitions} partitions" if found.partitions else ""
        hand = f", {found.in_hand} of them in hand" if found.in_hand else ""
        lines.append(f"  position      its place in the stream{of}; not acknowledged: {frames(found.lag)}{hand}")
    lines.append(f"  dead letters  {found.dead_letters}, and {found.replays} on their way back to it")
    lines.append("  The events stay in the stream. A new group of this name begins where its --start says.")
    return lines
