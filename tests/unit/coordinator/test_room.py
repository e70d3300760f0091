"""Too little room, placements that no node has and pins that rest: what the status, the tables and `shard move` say."""

from typing import Any

import msgspec
import pytest

from sandwich_coordinator.cli.render import node_rows, nodes_text, pin_rows, pins_text, shard_rows, shards_text, to_json
from sandwich_coordinator.config import AppConfig
from sandwich_coordinator.ids import LeaderTerm
from sandwich_coordinator.operations.errors import Refused
from sandwich_coordinator.operations.health import find_problems
from sandwich_coordinator.operations.shards import move_shards
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.placement import check_label, shown_labels
from sandwich_coordinator.problems import Code
from sandwich_coordinator.ranges import format_ranges, size_of_ranges
from sandwich_coordinator.store.base import Put
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import AppRecord, GroupPhase, GroupRecord, NodeRecord, PinRecord, PlanRecord
from tests.unit.coordinator.test_health import KEYS, NOW, claim, cluster, registered
from verification.simulation.loop import run_virtual


def node(name: str, host: str = "h1", **fields: Any) -> NodeRecord:
    record = registered(name, host=host)
    return msgspec.structs.replace(record, **{**fields, "labels": {**record.labels, **fields.get("labels", {})}})


def app(**fields: Any) -> AppRecord:
    return AppRecord(app="bot", token="t", token_hash="h", intents=1, **fields)


def planned(**nodes: str) -> PlanRecord:
    return PlanRecord(app="bot", group=1, term=LeaderTerm(1), nodes=nodes)


def problems(snapshot: Snapshot) -> dict[Code, tuple[str, str]]:
    return {found.code: (found.subject, found.summary) for found in find_problems(snapshot)}


BOTH_FULL = {KEYS.node("a"): node("a", max_shards=1), KEYS.node("b"): node("b", "h2", state="cordoned")}


def test_a_shard_without_room_is_a_problem_of_its_own_and_not_one_more_that_runs_nowhere() -> None:
    snapshot = cluster({**BOTH_FULL, KEYS.claim("bot", 1, 1): None, KEYS.plan("bot", 1): planned(a="0")})
    assert problems(snapshot) == {
        Code.CAPACITY_SHORT: (
            "app/bot/shards/1",
            "bot: shard 1 runs nowhere: every node that may run them is at its limit (--max-shards)",
        )
    }
    roomy = cluster({KEYS.claim("bot", 1, 1): None, KEYS.plan("bot", 1): planned(a="0")})
    assert problems(roomy).keys() == {Code.SHARDS_UNCLAIMED}


@pytest.mark.parametrize("phase", ["canary", "preparing", "holding"])
def test_shards_of_the_next_group_that_are_not_claimed_yet_are_no_problem_and_those_without_room_are(
    phase: GroupPhase,
) -> None:
    upcoming = GroupRecord(
        app="bot", group=2, count=3, ids="0-2", term=LeaderTerm(1), state="starting", phase=phase, replaces=1
    )
    changed = {KEYS.group("bot", 2): upcoming}
    planned_all = PlanRecord(app="bot", group=2, term=LeaderTerm(1), nodes={"a": "0-2"})
    assert problems(cluster({**changed, KEYS.plan("bot", 2): planned_all})) == {}
    full = {**BOTH_FULL, KEYS.plan("bot", 1): planned(a="0")}
    assert problems(cluster({**changed, **full})).keys() == {Code.CAPACITY_SHORT}


def test_a_placement_that_no_node_has_is_named_and_internal_labels_satisfy_none() -> None:
    for required in ({"region": "eu"}, {"host": "h1/boot/ns"}):
        none = cluster({KEYS.app("bot"): app(placement=required), KEYS.claim("bot", 1, 1): None})
        ((subject, summary),) = [problems(none)[Code.PLACEMENT_UNMET]]
        assert subject == "app/bot/shards/1"
        assert summary.endswith(f"has the labels {next(iter(required))}={next(iter(required.values()))}")


def test_shards_that_stay_although_their_node_drains_or_does_not_fit_are_shown() -> None:
    draining = {KEYS.node("a"): node("a", state="draining"), KEYS.node("b"): node("b", "h2", max_shards=1)}
    other = PlanRecord(app="other", group=0, term=LeaderTerm(1), nodes={"b": "0"})
    stuck = cluster({**draining, KEYS.plan("bot", 1): planned(a="0-1"), KEYS.plan("other", 0): other})
    assert problems(stuck) == {
        Code.SHARDS_STUCK: ("app/bot/shards/0-1", "bot: shards 0-1 stay in place although a drains")
    }
    moving = cluster({KEYS.node("a"): node("a", state="draining"), KEYS.plan("bot", 1): planned(a="0-1")})
    assert problems(moving) == {}
    unfit = cluster({KEYS.app("bot"): app(placement={"z": "1"}), KEYS.plan("bot", 1): planned(a="0-1")})
    assert "although a lacks the labels z=1" in problems(unfit)[Code.SHARDS_STUCK][1]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "node c is not there"),
        ({KEYS.node("c"): node("c", state="cordoned")}, "node c is cordoned and takes no shards"),
        (
            {
                KEYS.node("c"): node("c"),
                KEYS.node("b"): node("b", labels={"z": "1"}),
                KEYS.app("bot"): app(placement={"z": "1"}),
            },
            "node c lacks the labels z=1",
        ),
        (
            {KEYS.node("c"): node("c", max_shards=1), KEYS.pin("bot", 1, 0): PinRecord(node="c")},
            "node c is at its limit of 1 shards",
        ),
        ({KEYS.node("c"): node("c")}, ""),
    ],
)  # fmt: skip
def test_a_pin_that_is_not_followed_is_a_problem_with_its_reason(changes: dict[str, Any], why: str) -> None:
    snapshot = cluster({KEYS.pin("bot", 1, 1): PinRecord(node="c", at=NOW - 60), **changes})
    row = next(row for row in pin_rows(snapshot.view) if row["shard"] == 1)
    assert row["unmet"] == (why or None)
    assert (Code.PIN_UNMET in problems(snapshot)) == bool(why)
    if why:
        assert problems(snapshot)[Code.PIN_UNMET][1] == f"bot: the pin of shard 1 cannot be followed: {why}"


def test_pins_capacity_limits_and_labels_are_in_the_tables_and_internal_labels_are_not() -> None:
    pinned = {KEYS.pin("bot", 1, 1): PinRecord(node="a", at=NOW - 60)}
    snapshot = cluster({**pinned, KEYS.node("a"): node("a", capacity=200, max_shards=9, labels={"z": "1", "d": "2"})})
    assert [row["pinned_to"] for row in shard_rows(snapshot)] == [None, "a"]
    assert "PINNED TO" in shards_text(snapshot)
    first = node_rows(snapshot)[0]
    assert (first["capacity"], first["max_shards"], first["pins"], first["labels"]) == (200, 9, 1, {"d": "2", "z": "1"})
    text = nodes_text(snapshot)
    assert text.splitlines()[0].split("  ")[-1] == "LABELS"
    assert "d=2,z=1" in text
    assert "boot" not in text
    assert to_json(snapshot)["pins"] == pin_rows(snapshot.view)
    assert pins_text(snapshot.view, NOW) == (
        "APP  SHARD  NODE  SINCE\nbot  1      a     1m ago\nremove a pin: sandwich shard move APP SHARDS --to any"
    )
    plain = cluster()
    assert "PINNED" not in shards_text(plain)
    assert nodes_text(plain).splitlines()[0].split()[-1] == "ADDRESS"
    assert pins_text(plain.view, NOW) == "no shard is pinned"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (node("b", labels={}), "node b lacks the labels that bot requires: z=1"),
        (
            node("b", labels={"z": "1"}, max_shards=1),
            r"node b takes at most 1 shards \(--max-shards\): 2 more do not fit",
        ),
    ],
)
def test_shards_are_not_pinned_to_a_node_that_may_not_take_them(target: NodeRecord, words: str) -> None:
    async def main() -> None:
        store = MemoryStore()
        lease = await store.grant(1000)
        present = cluster({KEYS.app("bot"): app(placement={"z": "1"})})
        groups = [Put(KEYS.group(*key), entry.record.encode()) for key, entry in present.view.groups.items()]
        await store.txn([], [Put(KEYS.app("bot"), present.view.apps["bot"].record.encode()), *groups])
        await store.txn(
            [], [Put(KEYS.node("b"), target.encode(), lease), Put(KEYS.claim("bot", 1, 0), claim(0).encode(), lease)]
        )
        with pytest.raises(Refused, match=words):
            await move_shards(store, KEYS, "bot", "0-1", "b", timeout_s=1, report=lambda _: None)
        assert not (await store.list(KEYS.pins)).items

    run_virtual(main())


@pytest.mark.parametrize(
    ("name", "value"), [("host", "x"), ("pid", "1"), ("", "x"), ("a", ""), ("a b", "x"), ("a", "x" * 64), ("-a", "x")]
)
def test_a_label_that_cannot_be_used_is_refused_at_the_node_and_in_the_file(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="label"):
        check_label(name, value)
    with pytest.raises(ValueError, match="label"):
        AppConfig.model_validate({"token": {"env": "T"}, "intents": 1, "placement": {name: value}})


def test_labels_that_can_be_used_are_shown_in_order() -> None:
    for name, value in (("region", "eu-1"), ("example.com/disk", "ssd"), ("a", "1")):
        check_label(name, value)
    assert list(shown_labels({"z": "1", "host": "h", "pid": "7", "a": "2"})) == ["a", "z"]


@pytest.mark.parametrize("weight", [0, -1, 101, float("inf"), float("nan"), True, "2"])
def test_a_weight_that_makes_no_sense_is_refused(weight: Any) -> None:
    with pytest.raises(ValueError, match="weight"):
        AppConfig.model_validate({"token": {"env": "T"}, "intents": 1, "weight": weight})


@pytest.mark.parametrize("shards", [[], [3], [0, 1, 2, 7], [5, 9, 10, 11, 400]])
def test_the_size_of_ranges_is_the_number_of_shards(shards: list[int]) -> None:
    assert size_of_ranges(format_ranges(shards)) == len(shards)
    assert size_of_ranges("a-b") == 0
