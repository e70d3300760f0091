"""What the status shows of failovers and losses."""

from sandwich_coordinator.cli.recent import recent_text
from sandwich_coordinator.operations.rows import failover_rows, loss_rows
from sandwich_coordinator.status import FailoverStatus, LossStatus, NodeStatus


def failover(
    shard: int, at: float, *, node: str = "b", cause: str = "node gone", how: str = "resumed"
) -> FailoverStatus:
    return FailoverStatus(
        at=at, app="bot", group=0, shard=shard, source="a", node=node, cause=cause, how=how, replayed=2, took_s=0.5
    )


def node(name: str, *failovers: FailoverStatus, losses: tuple[LossStatus, ...] = ()) -> NodeStatus:
    return NodeStatus(
        node=name, instance=name, version="1", uptime_s=1.0, failovers=list(failovers), losses=list(losses)
    )


def test_shards_of_one_failover_are_one_row_over_all_nodes() -> None:
    answers = [
        node("b", failover(0, 100.0), failover(1, 100.5), failover(4, 500.0, cause="moved")),
        node("c", failover(2, 101.0, node="c", how="identified")),
        "no answer",
    ]
    later, first = failover_rows(answers)
    assert (later["shards"], later["cause"]) == ("4", "moved")
    assert (first["shards"], first["nodes"], first["count"]) == ("0-2", ["b", "c"], 3)
    assert (first["resumed"], first["identified"], first["replayed"]) == (2, 1, 6)
    text = recent_text([later, first], [])
    assert "bot shards 0-2: node gone, a -> b, c, 2 resumed, 1 identified in 0.5 s, 6 events replayed" in text


def test_a_loss_names_session_and_sequence_and_quiet_times_say_nothing() -> None:
    loss = LossStatus(at=1.0, app="bot", group=0, shard=7, node="b", session="abc", last_seq=99, reason="op 9")
    text = recent_text([], loss_rows([node("b", losses=(loss,))]))
    assert "bot shard 7: session abc ended after sequence 99 (op 9)" in text
    assert recent_text(failover_rows([node("b")]), loss_rows([node("b")])) == ""


def test_a_long_list_is_cut_and_says_so() -> None:
    rows = failover_rows([node("b", *(failover(n, 100.0 * n) for n in range(15)))])
    assert len(rows) == 15
    assert "and 5 more" in recent_text(rows, [])
