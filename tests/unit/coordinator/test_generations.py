"""From one shard group to the next, as the leader decides it (docs/design/scaling.md)."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from sandwich_coordinator.groups import serving_groups, upcoming_groups
from sandwich_coordinator.ids import GroupId
from sandwich_coordinator.store.base import Compare, Delete, Put
from sandwich_coordinator.types import GroupNumberRecord, GroupRecord, RolloutRecord
from sandwich_coordinator.view import ClusterView
from tests.unit.coordinator.test_leader import KEYS, Desk, answer, running

OLD, NEW = GroupId("bot", 0), GroupId("bot", 1)


def scaling(phase: Any, states: list[Any], count: int = 2, old: str = "live", **more: Any) -> Desk:
    """Four shards serve; a group of two is in `phase`, its claims in `states`."""
    desk = running().app(count)
    ids = f"0-{count - 1}"
    desk.group("starting", count=count, ids=ids, group=1, phase=phase, replaces=0, **more)
    desk.plan(1, a="0", b="1").claims(states, group=1, sessions=False, a=(0,), b=(1,))
    return desk if old == "live" else desk.claims([old] * 4, a=(0, 1), b=(2, 3))


def phase_written(desk: Desk, group: GroupId = NEW) -> Any:
    record = desk.written(KEYS.group(*group))
    return record.get("phase", "active") if isinstance(record, dict) else record


def test_a_new_count_starts_a_group_beside_the_serving_one_with_a_canary() -> None:
    desk = running().app(2)
    (write,) = desk.lead().writes
    put, number = write.writes
    assert isinstance(put, Put)
    assert number == Put(KEYS.group_number("bot"), GroupNumberRecord(newest=1).encode())
    record = msgspec.json.decode(put.value, type=GroupRecord)
    assert (put.key, record.count, record.ids, record.phase, record.replaces) == (
        KEYS.group(*NEW),
        2,
        "0-1",
        "canary",
        0,
    )
    assert (record.intents, record.token, record.token_hash) == (1, "sealed", "h")
    assert Compare(KEYS.group(*OLD), "mod_revision", 10) in write.compares


@pytest.mark.parametrize(("given", "number"), [(None, 1), (0, 1), (1, 2), (41, 42)])
def test_a_number_is_not_given_twice_though_its_group_is_gone(given: int | None, number: int) -> None:
    """The chains of a group that was given up, or of an application that was removed, are still in the stream."""
    desk = running().app(2)
    if given is not None:
        desk.put(KEYS.group_number("bot"), GroupNumberRecord(newest=given))
    (write,) = desk.lead().writes
    assert [put.key for put in write.writes] == [KEYS.group("bot", number), KEYS.group_number("bot")]


def test_the_first_group_of_an_application_that_is_added_again_has_a_new_number() -> None:
    desk = Desk().app(2).budget()
    desk.put(KEYS.group_number("bot"), GroupNumberRecord(newest=3))
    (write,) = desk.lead().writes
    assert [put.key for put in write.writes] == [KEYS.group("bot", 4), KEYS.group_number("bot")]


def test_only_the_canary_is_planned_first_and_the_old_group_keeps_its_plan() -> None:
    desk = running().app(2).group("starting", count=2, ids="0-1", group=1, phase="canary", replaces=0)
    assert desk.written(KEYS.plan(*NEW))["nodes"] == {"a": "0"}
    assert desk.written(KEYS.plan(*OLD)) == "nothing"


@pytest.mark.parametrize(
    ("phase", "states", "following"),
    [
        ("canary", ["connecting"], "nothing"),
        ("canary", ["ready"], "preparing"),
        ("preparing", ["ready", "identifying"], "nothing"),
        ("preparing", ["ready", "ready"], "holding"),
        ("preparing", ["ready", "holding"], "holding"),
        ("holding", ["holding", "ready"], "nothing"),
        ("holding", ["holding", "holding"], "switching"),
        ("switching", ["live", "holding"], "nothing"),
    ],
)
def test_a_phase_is_over_when_every_shard_is_through(phase: str, states: list[str], following: str) -> None:
    assert phase_written(scaling(phase, states)) == following


def test_the_switch_closes_the_old_group_in_the_same_transaction() -> None:
    (write,) = [w for w in scaling("holding", ["holding"] * 2).lead().writes if len(w.writes) > 1]
    records = [msgspec.json.decode(put.value, type=GroupRecord) for put in write.writes if isinstance(put, Put)]
    assert [(record.group, record.phase) for record in records] == [(1, "switching"), (0, "closing")]
    assert {Compare(KEYS.group(*key), "mod_revision", 10) for key in (OLD, NEW)} <= set(write.compares)


@pytest.mark.parametrize("missing", ["a live old shard", "a new shard", "the cache"])
def test_the_old_group_stays_until_all_have_ended_all_are_live_and_the_cache_knows_the_new_one(missing: str) -> None:
    desk = scaling("switching", ["live", "live"], old="ended")
    desk.group("closing", phase="closing")
    if missing == "a live old shard":
        desk.claims(["ended"] * 3 + ["draining"])
    elif missing == "a new shard":
        desk.claims(["live", "resuming"], group=1, sessions=False)
    done = desk.lead()
    assert not [change for write in done.writes for change in write.writes if isinstance(change, Delete)]
    assert done.relocations == (((NEW, OLD),) if missing == "the cache" else ())


def test_a_finished_switch_deletes_the_old_group_and_leaves_an_ordinary_one() -> None:
    desk = scaling("switching", ["live", "live"], old="ended").group("closing", phase="closing")
    desk.memory = replace(desk.memory, relocated=frozenset({NEW}))
    (write,) = [w for w in desk.lead().writes if any(isinstance(change, Delete) for change in w.writes)]
    record = msgspec.json.decode(write.writes[0].value, type=GroupRecord)  # type: ignore[union-attr]
    assert (record.group, record.phase, record.replaces) == (1, "active", None)
    assert {KEYS.group(*OLD), KEYS.plan(*OLD)} <= {change.key for change in write.writes}


@pytest.mark.parametrize("phase", ["canary", "preparing", "holding"])
def test_a_configuration_that_is_taken_back_removes_the_upcoming_group_and_nothing_else(phase: Any) -> None:
    desk = scaling(phase, ["ready", "ready"]).app(4)
    changes = [change for write in desk.lead().writes for change in write.writes]
    assert Delete(KEYS.group(*NEW)) in changes
    assert {KEYS.group(*OLD), KEYS.plan(*OLD)}.isdisjoint(change.key for change in changes)


def test_another_count_in_the_middle_gives_the_upcoming_group_up() -> None:
    desk = scaling("preparing", ["ready", "connecting"]).app(6)
    assert desk.written(KEYS.group(*NEW)) is None


def test_a_switch_that_began_is_finished_before_another_count_is_looked_at() -> None:
    desk = scaling("switching", ["live", "holding"], old="draining").group("closing", phase="closing").app(6)
    changed = {change.key for write in desk.lead().writes for change in write.writes}
    assert not [key for key in changed if key.startswith(KEYS.groups)]


@pytest.mark.parametrize(("more", "field"), [({"restart": 1}, "restart"), ({}, "intents"), ({}, "token")])
def test_a_restart_new_intents_and_a_new_token_need_a_new_group(more: dict[str, Any], field: str) -> None:
    desk = running()
    if field == "restart":
        desk.put(KEYS.rollout("bot"), RolloutRecord(restart=1))
    else:
        app = msgspec.json.decode(desk.items[KEYS.app("bot")].value)
        app |= {"intents": 3} if field == "intents" else {"token": "new", "token_hash": "n"}
        desk.put(KEYS.app("bot"), msgspec.json.encode(app)).put(KEYS.budget("n"), answer())
    record = desk.written(KEYS.group(*NEW))
    assert (record["phase"], record["replaces"]) == ("canary", 0)
    assert record.get("restart", 0) == more.get("restart", 0)


def test_a_group_keeps_the_intents_and_token_that_it_was_made_with() -> None:
    """Until the switch, the budget of the old token is kept, too."""
    desk = running()
    app = msgspec.json.decode(desk.items[KEYS.app("bot")].value) | {"token": "new", "token_hash": "n"}
    desk.put(KEYS.app("bot"), msgspec.json.encode(app)).put(KEYS.budget("n"), answer())
    done = desk.lead()
    assert desk.written(KEYS.group(*OLD)) == "nothing"
    assert KEYS.budget("h") not in {change.key for write in done.writes for change in write.writes}


def test_a_hard_restart_replaces_the_group_at_once() -> None:
    desk = running().put(KEYS.rollout("bot"), RolloutRecord(restart=1, hard=True))
    assert desk.written(KEYS.group(*OLD)) is None
    assert phase_written(desk) == "active"


def test_a_token_of_another_bot_replaces_the_group_at_once() -> None:
    """Two bots see different events: there is nothing to compare."""
    desk = running()
    app = msgspec.json.decode(desk.items[KEYS.app("bot")].value) | {"token": "new", "token_hash": "n"}
    desk.put(KEYS.app("bot"), msgspec.json.encode(app))
    for name, bot in (("h", "7"), ("n", "8")):
        desk.put(KEYS.budget(name), msgspec.structs.replace(answer(), bot_id=bot))
    assert phase_written(desk) == "active"


@pytest.mark.parametrize(("remaining", "reserve", "begins"), [(9, 0, True), (1, 0, False), (4, 3, False), (5, 3, True)])
def test_a_group_begins_when_there_are_session_starts_for_all_of_it(remaining: int, reserve: int, begins: bool) -> None:
    desk = running(identify_reserve=reserve, identify_reserve_percent=0).app(2).budget(remaining=remaining)
    assert (desk.written(KEYS.group(*NEW)) != "nothing") is begins


def test_a_group_of_failed_shards_is_replaced_without_a_switch() -> None:
    desk = running().app(2).claims(["failed"] * 4)
    assert phase_written(desk) == "active"


def test_a_failed_shard_of_the_upcoming_group_leaves_the_serving_one_as_it_is() -> None:
    desk = scaling("preparing", ["ready", "failed"])
    record = desk.written(KEYS.group(*NEW))
    assert (record["state"], record["reason"]) == ("degraded", "shard 1: 4014")
    assert desk.written(KEYS.group(*OLD)) == "nothing"


def test_a_group_of_an_older_version_is_completed_and_not_replaced() -> None:
    desk = running()
    group = msgspec.json.decode(desk.items[KEYS.group(*OLD)].value)
    for name in ("intents", "token", "token_hash"):
        del group[name]
    desk.put(KEYS.group(*OLD), msgspec.json.encode(group))
    record = desk.written(KEYS.group(*OLD))
    assert (record["intents"], record["token"], record["token_hash"]) == (1, "sealed", "h")
    assert desk.written(KEYS.group(*NEW)) == "nothing"


@pytest.mark.parametrize(("phase", "serves"), [("canary", 0), ("preparing", 0), ("holding", 0), ("switching", 1)])
def test_requests_go_to_the_old_group_until_the_switch(phase: str, serves: int) -> None:
    desk = scaling(phase, ["ready"] * 2)
    if phase == "switching":
        desk.group("closing", phase="closing")
    view = ClusterView.from_items(KEYS, desk.items)
    assert serving_groups(view) == {"bot": GroupId("bot", serves)}
    assert upcoming_groups(view) == ({} if serves else {"bot": NEW})
