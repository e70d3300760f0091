"""Automatic shard counts: what is proposed, when, and who accepts it."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from sandwich_coordinator.autoscale import Window, may_act, parse_window
from sandwich_coordinator.types import NodeRecord, ProposalRecord, RolloutRecord, SessionRecord, ShardsSpec
from tests.unit.coordinator.test_leader import KEYS, Desk, answer, running

HOUR_S = 3600.0


def automatic(guilds: int, recommended: int = 4, concurrency: int = 1, **spec: Any) -> Desk:
    """Four live shards with so many guilds each, and an automatic count."""
    desk = running()
    app = msgspec.json.decode(desk.items[KEYS.app("bot")].value)
    app["shards"] = msgspec.to_builtins(ShardsSpec(count="auto", **spec))
    desk.put(KEYS.app("bot"), msgspec.json.encode(app))
    budget = msgspec.structs.replace(answer(), shards=recommended, max_concurrency=concurrency)
    desk.put(KEYS.budget("h"), budget)
    session = SessionRecord(
        session_id="s", resume_url="u", intents=1, count=4, first_seq=1, token_hash="h", guilds=guilds
    )
    for shard in range(4):
        desk.put(KEYS.session("bot", 0, shard), session)
    return desk


def proposed(desk: Desk, now: float = 0.0) -> Any:
    record = desk.written(KEYS.proposal("bot"), now)
    return record["count"] if isinstance(record, dict) else record


@pytest.mark.parametrize(
    ("guilds", "recommended", "count"),
    [
        (1000, 4, "nothing"),  # full, and not more than that
        (1001, 4, 6),  # 4004 guilds at 800 each
        (400, 4, "nothing"),  # 1600 guilds: not empty enough to be worth the session starts
        (399, 2, 2),
        (399, 4, "nothing"),  # never fewer than Discord recommends
        (10, 9, 9),
        (0, 1, 1),
    ],
)
def test_the_count_follows_the_guilds_with_a_distance_between_more_and_fewer(
    guilds: int, recommended: int, count: Any
) -> None:
    assert proposed(automatic(guilds, recommended)) == count


def test_a_proposal_that_is_carried_out_makes_no_other_one() -> None:
    """For any number of guilds: what was proposed is right for them."""
    for guilds in range(1, 20_000, 97):
        desk = automatic(guilds // 4, 1)
        count = proposed(desk)
        if count in ("nothing", None):
            continue
        desk = automatic(guilds // 4 * 4 // count if count else 0, 1).group(count=count, ids=f"0-{count - 1}")
        for shard in range(4, count):
            desk.sessions([shard])
        each = guilds // 4 * 4 / count
        assert 0.4 * 1000 <= each <= 1000 or count == 1, (guilds, count)


def test_a_large_bot_gets_a_multiple_and_no_more_than_the_maximum() -> None:
    assert proposed(automatic(1400, 4, 16)) == 16
    assert proposed(automatic(9000, 4, max=20)) == 20
    assert proposed(automatic(9000, 4, 16, max=40)) == 32
    assert proposed(automatic(9000, 4, max=4)) == "nothing"


def test_close_code_4011_proposes_at_once_although_shards_failed() -> None:
    desk = automatic(100)
    assert proposed(desk) == "nothing"
    for key in [key for key in desk.items if key.startswith(KEYS.claims)]:
        claim = msgspec.json.decode(desk.items[key].value) | {"state": "failed", "close_code": 4011}
        desk.put(key, msgspec.json.encode(claim), lease=50)
    desk.group("failed", "shard 0: 4014")
    record = desk.written(KEYS.proposal("bot"), 1.0)
    assert (record["count"], "4011" in record["reason"]) == (5, True)


def test_it_is_looked_at_again_after_its_interval_and_not_before() -> None:
    desk = automatic(500, check_every_s=8 * HOUR_S)
    desk.lead(0.0)
    grown = automatic(1500, check_every_s=8 * HOUR_S)
    grown.memory = desk.memory
    assert proposed(grown, 7.9 * HOUR_S) == "nothing"
    assert proposed(grown, 8.1 * HOUR_S) == 8


def test_a_failed_write_is_made_again() -> None:
    desk = automatic(1500)
    assert proposed(desk, 0.0) == 8
    assert proposed(desk, 1.0) == 8


def test_a_group_that_is_not_whole_is_not_judged() -> None:
    assert proposed(automatic(0, 1).group("degraded", "shard 1: 4014")) == "nothing"


@pytest.mark.parametrize(("count", "kept"), [(8, True), (4, False)])
def test_a_proposal_goes_when_it_is_what_runs(count: int, kept: bool) -> None:
    desk = automatic(1500).put(KEYS.proposal("bot"), ProposalRecord(count=count, reason="x"))
    desk.memory = replace(desk.memory, checked={"bot": 0.0})
    assert desk.written(KEYS.proposal("bot")) == ("nothing" if kept else None)


def test_a_fixed_count_removes_the_proposal_and_what_was_accepted() -> None:
    desk = running().put(KEYS.proposal("bot"), ProposalRecord(count=8, reason="x"))
    desk.put(KEYS.rollout("bot"), RolloutRecord(restart=0, auto_count=9))
    assert desk.written(KEYS.proposal("bot")) is None
    assert desk.written(KEYS.rollout("bot")).get("auto_count", 0) == 0


def test_an_accepted_count_starts_the_next_group() -> None:
    desk = automatic(1500).put(KEYS.rollout("bot"), RolloutRecord(auto_count=8))
    record = desk.written(KEYS.group("bot", 1))
    assert (record["count"], record["phase"]) == (8, "canary")


@pytest.mark.parametrize(
    ("spec", "wall", "accepts"),
    [
        ({"confirm": True}, 3 * HOUR_S, False),
        ({"confirm": False}, 3 * HOUR_S, True),
        ({"confirm": False, "window": "02:00-06:00 UTC"}, 3 * HOUR_S, True),
        ({"confirm": False, "window": "02:00-06:00 UTC"}, 6 * HOUR_S, False),
        ({"confirm": False, "window": "22:00-03:00"}, 2.9 * HOUR_S, True),
        ({"confirm": False, "window": "22:00-03:00"}, 21 * HOUR_S, False),
        ({"confirm": False, "window": "damaged"}, 3 * HOUR_S, False),
    ],
)
def test_the_leader_accepts_in_the_window_and_only_without_confirmation(
    spec: dict[str, Any], wall: float, accepts: bool
) -> None:
    desk = automatic(1500, **spec).put(KEYS.proposal("bot"), ProposalRecord(count=8, reason="x"))
    record = desk.written(KEYS.rollout("bot"), wall)
    assert (record != "nothing") is accepts
    assert may_act(ShardsSpec(count="auto", **spec), wall) is accepts


def test_without_room_a_proposal_waits_with_the_reason_and_is_accepted_once_there_is_room() -> None:
    why = "6000 guilds are more than 1000 for each of 4 shards"
    desk = automatic(1500, confirm=False).put(KEYS.proposal("bot"), ProposalRecord(count=8, reason=why))
    for name in "ab":
        node = NodeRecord(node=name, instance=name, address="", version="1", max_shards=5)
        desk.put(KEYS.node(name), node, lease=50)
    assert desk.written(KEYS.rollout("bot")) == "nothing"
    waiting = desk.written(KEYS.proposal("bot"))
    assert (waiting["count"], waiting["reason"]) == (8, why)
    assert waiting["waits"].startswith("no node has room for 2 of the 8 new shards")
    desk.put(KEYS.proposal("bot"), msgspec.convert(waiting, ProposalRecord))
    assert desk.written(KEYS.proposal("bot")) == "nothing", "said once"
    desk.node("c")
    assert desk.written(KEYS.rollout("bot"))["auto_count"] == 8


@pytest.mark.parametrize("text", ["", "2:00-6:00", "02:00", "24:00-01:00", "02:00-02:00", "02:00-06:00 CET"])
def test_a_window_that_is_no_time_of_the_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"UTC|same time"):
        parse_window(text)
    assert parse_window("23:30-00:15 UTC") == Window(1410, 15)
