"""Recovery times from the simulator's records. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Shard = tuple[str, int]
"""A shard in the simulator's terms: bot id and shard number."""


def percentile(values: Sequence[float], part: float) -> float:
    """The nearest-rank percentile; 0.0 without values."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, -(-len(ranked) * int(part * 100) // 100) - 1))] if ranked else 0.0


def after_death(records: Sequence[Mapping[str, Any]], shards: Iterable[Shard], at_ns: int) -> dict[Shard, float | None]:
    """Seconds from `at_ns` until each shard resumed or identified; None for a shard that has not."""
    found: dict[Shard, float | None] = dict.fromkeys(shards)
    for record in _back(records):
        shard = (record["bot"], record["shard"])
        if record["ns"] > at_ns and shard in found and found[shard] is None:
            found[shard] = (record["ns"] - at_ns) / 1e9
    return found


def silences(records: Sequence[Mapping[str, Any]], from_ns: int) -> list[float]:
    """Seconds from a shard's closed socket to its next RESUME or IDENTIFY, for those after `from_ns`."""
    closed: dict[Shard, int] = {}
    found = []
    for record in sorted(records, key=lambda record: record["ns"]):
        shard = (record["bot"], record["shard"])
        if record["kind"] == "close":
            closed[shard] = record["ns"]
        elif record in _back([record]) and record["ns"] > from_ns and shard in closed:
            found.append((record["ns"] - closed.pop(shard)) / 1e9)
    return found


def _back(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [record for record in records if record["kind"] in ("resume", "identify") and record["outcome"] == "ok"]


def owed_up_to_gaps(owed: Mapping[str, list[int]], ends: Mapping[str, int]) -> dict[str, list[int]]:
    """The owed events by session. A session that Discord forgot owes only events up to its gap's sequence."""
    return {
        session: [seq for seq in sequences if session not in ends or seq <= ends[session]]
        for session, sequences in owed.items()
    }
