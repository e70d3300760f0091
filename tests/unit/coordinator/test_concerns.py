"""Nodes act only on changes that concern them: what is passed over must change none of their decisions."""

from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sandwich_coordinator import election
from sandwich_coordinator.assignment import (
    Action,
    LocalNode,
    LocalShard,
    ShardConfig,
    Start,
    concerns,
    reconcile_node,
)
from sandwich_coordinator.election import Candidate
from sandwich_coordinator.groups import planned_here
from sandwich_coordinator.ids import Fence, GroupId, LeaderTerm, ShardId
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.store.base import KeyValue, WatchBatch, WatchEvent
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import (
    AppRecord,
    BudgetRecord,
    ClaimRecord,
    GroupRecord,
    IdentifyRecord,
    LeaderRecord,
    NodeRecord,
    PlanRecord,
    RestartRecord,
    SessionRecord,
    ShardsSpec,
)
from sandwich_coordinator.view import ClusterView

KEYS = Keys("t")
LEASES = {"a": 1, "b": 2, "c": 3}
APPS = st.sampled_from(["x", "y"])
NUMBERS = st.integers(0, 3)
NODES = st.sampled_from("abc")
OWN = LocalNode(node="a", instance="a1", lease=1, connected=True, loads={0: 1})


def node(name: str, state: Any = "ready") -> tuple[str, bytes, int]:
    record = NodeRecord(node=name, instance=f"{name}1", address="", version="1", state=state)
    return KEYS.node(name), record.encode(), LEASES[name]


def claim(app: str, number: int, owner: str, state: Any) -> tuple[str, bytes, int]:
    record = ClaimRecord(app=app, group=0, shard=number, node=owner, instance=f"{owner}1", worker=0, state=state)
    return KEYS.claim(app, 0, number), record.encode(), LEASES[owner]


def app_of(app: str, paused: bool) -> tuple[str, bytes, int]:
    record = AppRecord(
        app=app, token="t", token_hash=app, intents=1, shards=ShardsSpec(count=4), paused=paused, compression="none"
    )
    return KEYS.app(app), record.encode(), 0


def plan_of(app: str, owners: list[str]) -> tuple[str, bytes, int]:
    nodes = {name: ",".join(str(n) for n, owner in enumerate(owners) if owner == name) for name in set(owners)}
    return KEYS.plan(app, 0), PlanRecord(app=app, group=0, term=LeaderTerm(1), nodes=nodes).encode(), 0


def budget_of(app: str, left: int, url: str) -> tuple[str, bytes, int]:
    record = BudgetRecord(url=url, shards=4, total=9, remaining=left, reset_at=9.0, max_concurrency=1, fetched_at=1.0)
    return KEYS.budget(app), record.encode(), 0


def session_of(app: str, number: int, seq: int) -> tuple[str, bytes, int]:
    record = SessionRecord(session_id="s", resume_url="u", intents=1, count=4, first_seq=seq, token_hash=app)
    return KEYS.session(app, 0, number), record.encode(), 0


def identify_of(app: str, number: int, owner: str) -> tuple[str, bytes, int]:
    return KEYS.identify(app, number), IdentifyRecord(node=owner, app=app, group=0, shard=number).encode(), 44


PUTS = st.one_of(
    st.builds(node, NODES, st.sampled_from(["ready", "cordoned", "draining"])),
    st.builds(claim, APPS, NUMBERS, NODES, st.sampled_from(["claiming", "identifying", "live", "failed", "ended"])),
    st.builds(app_of, APPS, st.booleans()),
    st.builds(plan_of, APPS, st.lists(NODES, min_size=4, max_size=4)),
    st.builds(budget_of, APPS, st.integers(0, 3), st.sampled_from(["u", "v"])),
    st.builds(session_of, APPS, NUMBERS, st.integers(1, 3)),
    st.builds(identify_of, APPS, NUMBERS, NODES),
    st.builds(lambda app, number: (KEYS.restart(app, 0, number), RestartRecord().encode(), 0), APPS, NUMBERS),
    st.builds(lambda app, number: (KEYS.claim(app, 0, number), b"{", 9), APPS, NUMBERS),
)
DELETES = st.builds(lambda put: (put[0], None, 0), PUTS)
CHANGES = st.one_of(PUTS, DELETES)
LEADERS = st.builds(
    lambda name, gone: (
        KEYS.leader,
        None if gone else LeaderRecord(node=name, instance=f"{name}1").encode(),
        LEASES[name],
    ),
    NODES,
    st.booleans(),
)
CONFIG = ShardConfig("x", 1, 4, "none", 50)
LOCALS = st.dictionaries(
    st.builds(lambda number: ShardId("x", 0, number), NUMBERS),
    st.builds(
        lambda phase: LocalShard(0, Fence(1), CONFIG, phase),
        st.sampled_from(["running", "stopping", "stopped", "failed", "ended"]),
    ),
    max_size=3,
)


def start() -> ClusterView:
    groups = [
        (KEYS.group(app, 0), GroupRecord(app=app, group=0, count=4, ids="0-3", term=LeaderTerm(1)).encode(), 0)
        for app in "xy"
    ]
    first = [*(node(name) for name in "abc"), *(app_of(app, False) for app in "xy"), *groups]
    items = {key: KeyValue(key, value, 1, 1, 1, lease) for key, value, lease in first}
    return ClusterView.from_items(KEYS, items, 1)


def changed(view: ClusterView, changes: list[tuple[str, bytes | None, int]]) -> ClusterView:
    events = []
    for position, (key, value, lease) in enumerate(changes):
        revision = view.revision + position + 1
        kv = KeyValue(key, value or b"", revision, revision, 1, lease)
        events.append(WatchEvent("delete" if value is None else "put", kv))
    return view.apply(WatchBatch(tuple(events), view.revision + len(changes)))


def decided(view: ClusterView, local: dict[ShardId, LocalShard]) -> list[Action]:
    """A session only says how a shard starts, not whether."""
    actions = reconcile_node(view, OWN, local, 0.0)
    return [replace(action, session=None) if isinstance(action, Start) else action for action in actions]


@given(st.lists(st.lists(CHANGES, min_size=1, max_size=3), min_size=1, max_size=12), LOCALS)
@settings(max_examples=300, deadline=None)
def test_a_change_that_does_not_concern_a_node_changes_none_of_its_decisions(
    steps: list[list[tuple[str, bytes | None, int]]], local: dict[ShardId, LocalShard]
) -> None:
    view = start()
    for changes in steps:
        after = changed(view, changes)
        # A node with a shard that another one has claimed sees that claim as its own matter.
        held = {shard: one for shard, one in local.items() if shard in view.claimed_by.get("a", frozenset())}
        if not concerns(view, after, "a"):
            assert decided(after, held) == decided(view, held)
        view = after


@given(st.lists(st.lists(st.one_of(CHANGES, LEADERS), min_size=1, max_size=3), min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_a_change_that_does_not_concern_a_candidate_changes_nothing_about_leadership(
    steps: list[list[tuple[str, bytes | None, int]]],
) -> None:
    view = start()
    terms = (None, LeaderTerm(2))
    own = [
        Candidate(node="a", instance="a1", lease=1, lease_valid_until=9.0, leads=leads, leaving=leaving)
        for leads in terms
        for leaving in (False, True)
    ]
    for changes in steps:
        after = changed(view, changes)
        if not election.concerns(view, after, "a"):
            for one in own:
                assert election.decide(after, one, 0.0, Policy()) == election.decide(view, one, 0.0, Policy())
        view = after


def test_what_other_nodes_do_with_their_shards_concerns_only_them() -> None:
    view = changed(start(), [plan_of("x", ["a", "a", "b", "c"]), plan_of("y", ["b"] * 4)])
    assert planned_here(view, GroupId("x", 0), "a") == (0, 1)
    for others in (
        claim("x", 2, "b", "live"),
        claim("y", 0, "b", "claiming"),
        session_of("x", 3, 1),
        node("b", "draining"),
    ):
        assert not concerns(view, changed(view, [others]), "a")
        assert concerns(view, changed(view, [others]), "b") == (others[0] != KEYS.session("x", 0, 3))
    ours = claim("x", 1, "b", "live")
    assert concerns(view, changed(view, [ours]), "a"), "it is planned here, and goes when the other node releases it"
    spent = changed(view, [budget_of("x", 3, "u")])
    assert not concerns(spent, changed(spent, [budget_of("x", 2, "u")]), "a")
    assert concerns(spent, changed(spent, [budget_of("x", 3, "v")]), "a")


@given(st.lists(st.lists(CHANGES, max_size=4), max_size=10))
@settings(max_examples=200, deadline=None)
def test_the_index_of_claims_finds_what_a_walk_over_all_claims_finds(
    steps: list[list[tuple[str, bytes | None, int]]],
) -> None:
    view = first = start()
    for changes in steps:
        after = changed(view, changes)
        walked = {name: {s for s, e in after.claims.items() if e.record.node == name} for name in "abc"}
        assert {name: set(shards) for name, shards in after.claimed_by.items()} == {
            n: s for n, s in walked.items() if s
        }
        queued = {s for s, e in after.claims.items() if e.record.state == "identifying"}
        assert {s for shards in after.queued.values() for s in shards} == queued
        assert all(shards and {s.of for s in shards} == {group} for group, shards in after.queued.items())
        states = Counter((shard.of, entry.record.state) for shard, entry in after.claims.items())
        assert {(of, state): n for of, found in after.claim_states.items() for state, n in found.items()} == states
        assert all(after.claim_states.values())
        assert after.with_sessions == {shard.of for shard in after.sessions}
        assert after.changed_identifies(view) >= {
            b for b in {*view.identifies, *after.identifies} if view.identifies.get(b) != after.identifies.get(b)
        }
        assert after.changed_identifies(after) == frozenset()
        assert after.changed_identifies(first) >= {
            b for b in {*first.identifies, *after.identifies} if first.identifies.get(b) != after.identifies.get(b)
        }
        differing = {s for s in {*view.claims, *after.claims} if view.claims.get(s) != after.claims.get(s)}
        assert differing <= after.changed_claims(view) <= {*view.claims, *after.claims} | after.changed_claims(view)
        assert {s for s in {*first.claims, *after.claims} if first.claims.get(s) != after.claims.get(s)} <= (
            after.changed_claims(first)
        )
        view = after
