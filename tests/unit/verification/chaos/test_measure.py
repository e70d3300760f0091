"""Chaos: plan, measurement and verdict, without processes."""

from itertools import islice
from typing import Any

from verification.chaos.measure import after_death, owed_up_to_gaps, percentile, silences
from verification.chaos.plan import KINDS, faults
from verification.chaos.report import Result, table


def record(kind: str, ns: int, shard: int = 0, outcome: str = "ok") -> dict[str, Any]:
    return {"kind": kind, "ns": ns, "bot": "1", "shard": shard, "outcome": outcome}


def test_a_seed_decides_the_order_and_each_kind_comes_once_a_round() -> None:
    first = list(islice(faults(7, ("a", "b", "c")), 2 * len(KINDS)))
    assert first == list(islice(faults(7, ("a", "b", "c")), 2 * len(KINDS)))
    assert {fault.kind for fault in first[: len(KINDS)]} == set(KINDS)
    assert first != list(islice(faults(8, ("a", "b", "c")), 2 * len(KINDS)))


def test_a_shard_has_recovered_at_its_first_accepted_resume_after_the_fault() -> None:
    records = [
        record("resume", 900_000_000),
        record("resume", 1_500_000_000, outcome="overflowed"),
        record("identify", 2_250_000_000),
        record("resume", 9_000_000_000),
    ]
    assert after_death(records, [("1", 0), ("1", 5)], 1_000_000_000) == {("1", 0): 1.25, ("1", 5): None}


def test_silence_is_from_the_closed_socket_to_the_resume() -> None:
    records = [record("resume", 3_000_000_000), record("close", 2_900_000_000), record("close", 1, shard=4)]
    assert silences(records, 2_000_000_000) == [0.1]
    assert silences(records, 3_500_000_000) == []


def test_percentiles_are_measured_values() -> None:
    assert percentile([], 0.95) == 0.0
    assert percentile([3.0], 0.95) == 3.0
    assert percentile([float(n) for n in range(1, 101)], 0.95) == 95.0
    assert percentile([1.0, 2.0, 3.0], 0.5) == 2.0


def test_only_events_after_a_sessions_gap_are_not_owed() -> None:
    assert owed_up_to_gaps({"s": [1, 2, 3], "t": [1, 2]}, {"s": 2}) == {"s": [1, 2], "t": [1, 2]}


def test_a_result_is_correct_only_if_something_was_owed_and_nothing_went_wrong() -> None:
    assert not Result(1).correct
    assert Result(1, owed=10).correct
    for wrong in (
        {"lost": 1},
        {"doubled": 1},
        {"out_of_order": 1},
        {"group_missed": 1},
        {"identifies_extra": 1},
        {"violations": 1},
        {"unrecovered": ["x"]},
    ):
        assert not Result(1, owed=10, **wrong).correct


def test_the_table_shows_missed_targets() -> None:
    good = Result(1, seconds=60, owed=5, recoveries={"death": [0.5] * 20, "move": [0.1]}, faults={"worker killed": 2})
    bad = Result(2, seconds=60, owed=5, lost=3, recoveries={"death": [4.0] * 20}, unrecovered=["not settled"])
    text = table([good])
    assert "(target 2 s: met)" in text
    assert text.endswith("\ncorrect")
    text = table([good, bad])
    assert "lost / doubled / out of order   3 / 0 / 0" in text
    assert "(target 2 s: MISSED)" in text
    assert text.endswith("NOT CORRECT")
