"""A reader that applies the changes has what a snapshot would have given, whichever node it goes on at."""

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sandwich_coordinator.problems import Code, problem
from sandwich_coordinator.store.base import KeyValue, WatchBatch, WatchEvent
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import ClaimRecord, GroupRecord, LeaderRecord, NodeRecord, ProposalRecord, ShardState
from sandwich_coordinator.view import ClusterView
from sandwich_node.agent.recent_changes import RecentChanges
from sandwich_node.api.live.cluster_changes import (
    Change,
    Scope,
    app_of,
    differences,
    merged,
    object_of_key,
    problem_objects,
    resumed,
    stored_changes,
    stored_objects,
    within,
)

KEYS = Keys("c")
ALL = Scope()

STATES: tuple[ShardState, ...] = ("connecting", "live", "failed")


def record_of(key: str, number: int) -> bytes:
    """What a key may hold, different for each number."""
    kind, *parts = key.removeprefix(KEYS.prefix).split("/")
    match kind:
        case "claims":
            app, group, shard = parts
            return ClaimRecord(
                app=app,
                group=int(group),
                shard=int(shard),
                node="a",
                instance="i",
                worker=number % 2,
                state=STATES[number],
            ).encode()
        case "groups":
            return GroupRecord(app=parts[0], group=int(parts[1]), count=number + 1, ids="", term=1).encode()  # type: ignore[arg-type]
        case "nodes":
            return NodeRecord(node=parts[0], instance="i", address="h:1", version=str(number)).encode()
        case "proposals":
            return ProposalRecord(count=number + 1, reason="").encode()
        case _:
            return LeaderRecord(node=str(number), instance="i").encode()


PLACES = [
    KEYS.leader,
    KEYS.node("a"),
    KEYS.node("b"),
    KEYS.group("x", 0),
    KEYS.proposal("x"),
    *(KEYS.claim("x", 0, shard) for shard in range(3)),
    KEYS.claim("y", 0, 0),
]
Edit = tuple[str, int | None]
EDITS = st.lists(st.tuples(st.sampled_from(PLACES), st.none() | st.integers(0, 2)), min_size=1, max_size=25)


def events_of(edits: list[Edit]) -> list[WatchEvent]:
    """One revision for each edit, from 1."""
    return [
        WatchEvent("delete", KeyValue(key, b"", 0, revision, 0))
        if number is None
        else WatchEvent("put", KeyValue(key, record_of(key, number), revision, revision, 1, lease=7))
        for revision, (key, number) in enumerate(edits, 1)
    ]


def views_of(events: list[WatchEvent], cuts: set[int]) -> tuple[list[ClusterView], RecentChanges]:
    """What a node sees that takes the events in batches which end at these places."""
    views, recent, batch = [ClusterView(keys=KEYS)], RecentChanges(), []
    for place, event in enumerate(events, 1):
        batch.append(event)
        if place in cuts or place == len(events):
            taken = WatchBatch(tuple(batch), event.kv.mod_revision)
            views.append(views[-1].apply(taken))
            recent.note([taken])
            batch = []
    return views, recent


def applied(objects: dict[str, Any], changes: list[Change]) -> dict[str, Any]:
    """What a reader does with changes, as the guide says."""
    found = dict(objects)
    for value in (change.value() for change in changes):
        name = value["object"]
        if "set" in value:
            found[name] = dict(value["set"])
        elif "patch" in value:
            fields = {**found[name], **value["patch"]}
            found[name] = {key: field for key, field in fields.items() if field is not None}
        else:
            found.pop(name, None)
    return found


@given(EDITS, st.sets(st.integers(1, 25)))
def test_changes_lead_from_each_view_to_the_next(edits: list[Edit], cuts: set[int]) -> None:
    views, _ = views_of(events_of(edits), cuts)
    known: dict[str, Any] = {}
    for before, after in pairwise(views):
        known = applied(known, stored_changes(before, after))
        assert known == stored_objects(after, ALL)


@given(EDITS, st.sets(st.integers(1, 25)), st.sets(st.integers(1, 25)), st.data())
def test_a_reader_goes_on_at_a_node_that_saw_other_batches(
    edits: list[Edit], cuts: set[int], other_cuts: set[int], data: st.DataObject
) -> None:
    events = events_of(edits)
    first, _ = views_of(events, cuts)
    second, recent = views_of(events, other_cuts)
    left = data.draw(st.sampled_from(first))
    touched = recent.since(left.revision)
    assert touched is not None
    known = applied(dict(stored_objects(left, ALL)), resumed(second[-1], touched, ALL))
    assert known == stored_objects(second[-1], ALL)


def test_what_came_and_went_between_two_batches_is_removed_at_the_other_node() -> None:
    claim = KEYS.claim("x", 0, 0)
    events = events_of([(KEYS.node("a"), 0), (claim, 1), (claim, None)])
    first, _ = views_of(events, {1, 2})
    second, recent = views_of(events, {1})
    assert "shard/x/0/0" in stored_objects(first[2], ALL)
    touched = recent.since(2)
    assert touched is not None
    assert resumed(second[-1], touched, ALL) == [Change("shard/x/0/0", None)]


def test_an_id_that_is_too_old_is_not_resumed() -> None:
    recent = RecentChanges(kept_max=3)
    recent.note([WatchBatch(tuple(events_of([(KEYS.leader, 0)] * 5)), 5)])
    assert recent.since(1) is None
    assert recent.since(2) == frozenset({KEYS.leader})
    recent.restart(9)
    assert recent.since(8) is None
    assert recent.since(9) == frozenset()


def test_a_scope_sees_its_applications_and_nothing_of_the_cluster() -> None:
    scope = Scope(frozenset({"x"}))
    seen = [
        name for name in ("leader", "node/a", "app/x", "shard/x/0/1", "shard/y/0/1", "group/xx/0") if scope.sees(name)
    ]
    assert seen == ["app/x", "shard/x/0/1"]
    problems = problem_objects(
        [
            problem(Code.APP_PAUSED, "app/x", "x is paused"),
            problem(Code.SHARDS_FAILED, "app/y/shards/0-3", "y: failed"),
            problem(Code.NO_LEADER, "cluster", "no leader"),
        ]
    )
    assert [name for name in problems if scope.sees(name)] == ["problem/app-paused/app/x"]
    assert scope.tag != Scope(frozenset({"y"})).tag != ALL.tag
    assert within([Change("leader", None), Change("app/x", None)], scope) == [Change("app/x", None)]


def test_problems_come_go_and_change() -> None:
    before = problem_objects([problem(Code.APP_PAUSED, "app/x", "x is paused", since=1.0)])
    after = problem_objects([problem(Code.APP_PAUSED, "app/x", "x is paused", since=2.0)])
    assert differences({}, before)[0].value()["set"]["severity"] == "notice"
    assert differences(before, after) == [Change("problem/app-paused/app/x", {"since": 2.0}, part=True)]
    assert differences(before, {}) == [Change("problem/app-paused/app/x", None)]


def test_merged_names_fields_that_are_gone() -> None:
    assert merged({"a": 1, "b": 2}, {"a": 1, "c": 3}) == {"c": 3, "b": None}


def test_keys_without_an_object_are_passed_over() -> None:
    view = ClusterView(keys=KEYS)
    for key in (
        KEYS.config,
        KEYS.session("x", 0, 1),
        KEYS.claims + "x",
        KEYS.claims + "x/0/one",
        KEYS.apps,
        "/other/leader",
    ):
        assert object_of_key(view, key) is None
    assert app_of("node/a") is None
