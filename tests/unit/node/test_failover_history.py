"""What a node remembers of failovers and losses."""

from dataclasses import replace

import pytest

from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.problems import Code
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import AppRecord, ClaimRecord, NodeRecord, SessionRecord, ShardState
from sandwich_coordinator.view import ClusterView, Entry
from sandwich_node.agent.failover_history import NODE_GONE, NODE_RESTARTED, WORKER_DIED, History

SHARD = ShardId("bot", 0, 3)


def view(
    owner: str | None, *, state: ShardState = "live", nodes: tuple[str, ...] = ("a", "b"), session: bool = True
) -> ClusterView:
    there = {name: Entry(NodeRecord(node=name, instance=name, address="", version="1"), 1, 1, 7) for name in nodes}
    record = SessionRecord(session_id="s", resume_url="", intents=1, count=4, first_seq=1, token_hash="h")
    sessions = {SHARD: Entry(record, 1, 1, 0)}
    found = ClusterView(keys=Keys(), nodes=there, sessions=sessions if session else {})
    if owner is None:
        return found
    claim = ClaimRecord(app="bot", group=0, shard=3, node=owner, instance=owner, worker=0, state=state)
    return replace(found, claims={SHARD: Entry(claim, 1, 1, 7)})


def test_a_released_shard_was_moved_and_an_unreleased_one_was_lost() -> None:
    kinds: tuple[tuple[ShardState, tuple[str, ...], str], ...]
    kinds = (("draining", ("a", "b"), "moved"), ("live", ("b",), NODE_GONE))
    for state, nodes, cause in kinds:
        history = History("b")
        history.claims_changed(view("a", state=state), view(None, nodes=nodes), [SHARD], 100.0)
        failover = history.back(SHARD, "resumed", replayed=4, stored_at=98.5, at=100.75)
        assert failover is not None
        assert (failover.source, failover.node, failover.cause) == ("a", "b", cause)
        assert (failover.took_s, failover.silent_s, failover.replayed) == (0.75, 2.25, 4)
        assert history.counts["bot", cause, "resumed"] == 1


@pytest.mark.parametrize("state", ["claiming", "identifying", "draining"])
def test_a_shard_that_moves_during_its_first_start_is_no_failover(state: ShardState) -> None:
    for nodes in (("a", "b"), ("b",)):
        history = History("b")
        history.claims_changed(view("a", state=state, session=False), view(None, nodes=nodes), [SHARD], 100.0)
        assert history.back(SHARD, "identified", replayed=0, stored_at=None, at=101.0) is None
        assert not history.counts
        # It has a session that it cannot use any more.
        history.claims_changed(view("a", state=state), view(None, nodes=nodes), [SHARD], 200.0)
        assert history.back(SHARD, "identified", replayed=0, stored_at=None, at=201.0) is not None


def test_a_pause_is_no_failover() -> None:
    app = AppRecord(app="bot", token="t", token_hash="h", intents=1, paused=True)
    paused = replace(view(None), apps={"bot": Entry(app, 1, 2, 0)})
    history = History("b")
    history.claims_changed(view("a", state="draining"), paused, [SHARD], 100.0)
    assert history.back(SHARD, "resumed", replayed=4, stored_at=98.5, at=900.0) is None
    assert not history.counts


def test_a_reconnect_and_a_first_start_are_no_failover() -> None:
    assert History("b").back(SHARD, "resumed", replayed=1, stored_at=1.0, at=2.0) is None


def test_messages_that_no_node_wrote_are_a_problem_for_ten_minutes_after_the_last() -> None:
    history = History("a")
    history.foreign("bot", 2, 100.0)
    history.foreign("bot", 2, 300.0)
    (problem,) = history.problems(160.0)
    assert (problem.code, problem.subject, problem.since) == (Code.FOREIGN_MESSAGES, "app/bot", 100.0)
    assert "bot: a client that is no node published into its stream (2 messages yet)" in problem.text
    assert history.problems(701.0) == []
    history.foreign("bot", 3, 800.0)
    assert len(history.problems(801.0)) == 1


def test_the_new_owner_alone_reports_a_failover() -> None:
    history = History("c")
    history.claims_changed(view("a"), view(None), [SHARD], 100.0)
    history.claims_changed(view(None), view("b"), [SHARD], 101.0)
    assert history.back(SHARD, "resumed", replayed=0, stored_at=None, at=200.0) is None


def test_what_was_seen_of_a_loss_is_kept_when_the_shard_starts_here() -> None:
    history = History("b")
    history.claims_changed(view("a"), view(None), [SHARD], 100.0)
    history.lost(SHARD, NODE_RESTARTED, 100.1)
    failover = history.back(SHARD, "identified", replayed=0, stored_at=None, at=101.0)
    assert failover is not None
    assert failover.cause == NODE_GONE
    assert failover.silent_s is None
    history.lost(SHARD, WORKER_DIED, 200.0)
    failover = history.back(SHARD, "resumed", replayed=0, stored_at=None, at=200.5)
    assert failover is not None
    assert (failover.source, failover.cause) == ("b", WORKER_DIED)


def test_a_stream_made_again_is_shown_for_ten_minutes() -> None:
    history = History("b")
    history.streams_remade["bot"] = 1000.0
    (problem,) = history.problems(1090.0)
    assert problem.summary == "bot: its stream was deleted and made again"
    assert (problem.code, problem.since) == (Code.STREAM_REMADE, 1000.0)
    assert history.problems(1600.0) == []


def test_losses_are_named_and_counted() -> None:
    history = History("b")
    loss = history.loss(SHARD, session="abc", last_seq=17, reason="op 9", at=5.0)
    assert list(history.losses) == [loss]
    assert history.losses_total["bot"] == 1
