"""The output of `cluster rebalance --dry-run`."""

from dataclasses import replace

import msgspec

from sandwich_coordinator.cli.progress import move_lines
from sandwich_coordinator.ids import LeaderTerm, ShardId
from sandwich_coordinator.rebalance import moves
from sandwich_coordinator.store.base import KeyValue
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import (
    AppRecord,
    ClaimRecord,
    GroupRecord,
    NodeRecord,
    NodeState,
    PinRecord,
    PlanRecord,
    Record,
    ShardsSpec,
)
from sandwich_coordinator.view import ClusterView

KEYS = Keys()


def view(plan: dict[str, str], pins: dict[int, str] | None = None, **nodes: NodeState) -> ClusterView:
    """Four shards of one bot, claimed as in `plan`, if the node is registered."""
    records: dict[str, Record] = {
        KEYS.app("bot"): AppRecord(app="bot", token="t", token_hash="h", intents=1, shards=ShardsSpec(count=4)),
        KEYS.group("bot", 0): GroupRecord(app="bot", group=0, count=4, ids="0-3", term=LeaderTerm(1)),
        KEYS.plan("bot", 0): PlanRecord(app="bot", group=0, term=LeaderTerm(1), nodes=plan),
    }
    for name, state in nodes.items():
        records[KEYS.node(name)] = NodeRecord(node=name, instance=name, address="", version="1", state=state)
    for shard, name in (pins or {}).items():
        records[KEYS.pin("bot", 0, shard)] = PinRecord(node=name)
    for name, shards in plan.items():
        for shard in range(int(shards[0]), int(shards[-1]) + 1):
            claim = ClaimRecord(app="bot", group=0, shard=shard, node=name, instance=name, worker=0, state="live")
            if name in nodes:
                records[KEYS.claim("bot", 0, shard)] = claim
    leased = (KEYS.nodes, KEYS.claims)
    items = {key: KeyValue(key, r.encode(), 5, 5, 1, 9 * key.startswith(leased)) for key, r in records.items()}
    return ClusterView.from_items(KEYS, items)


def test_a_balanced_cluster_moves_nothing() -> None:
    assert moves(view({"a": "0-1", "b": "2-3"}, a="ready", b="ready")) == []
    assert move_lines([]) == ["nothing to move: every shard is where it should be"]


def test_each_move_has_its_reason() -> None:
    joined = moves(view({"a": "0-3"}, a="ready", b="ready"))
    assert [(move.shard, move.target, move.reason) for move in joined] == [
        (ShardId("bot", 0, 2), "b", "a has more than its share"),
        (ShardId("bot", 0, 3), "b", "a has more than its share"),
    ]
    assert move_lines(joined) == [
        "bot shards 2-3: a -> b (a has more than its share)",
        "2 shards move, by RESUME: no session start is spent",
    ]
    drained = moves(view({"a": "0-1", "b": "2-3"}, a="draining", b="ready"))
    assert {move.reason for move in drained} == {"a drains"}
    gone = moves(view({"a": "0-1", "x": "2-3"}, a="ready", b="ready"))
    assert {(move.source, move.target, move.reason) for move in gone} == {("", "b", "runs nowhere")}
    pinned = moves(view({"a": "0-1", "b": "2-3"}, {3: "a"}, a="ready", b="ready"))
    assert {(move.shard.shard, move.reason) for move in pinned} == {
        (3, "pinned to a"),
        (1, "a has more than its share"),
    }


def test_a_node_that_does_not_fit_is_a_reason_to_move() -> None:
    before = view({"a": "0-1", "b": "2-3"}, a="ready", b="ready")
    apps = {
        "bot": replace(
            before.apps["bot"], record=msgspec.structs.replace(before.apps["bot"].record, placement={"z": "1"})
        )
    }
    nodes = {
        **before.nodes,
        "b": replace(before.nodes["b"], record=msgspec.structs.replace(before.nodes["b"].record, labels={"z": "1"})),
    }
    found = moves(replace(before, apps=apps, nodes=nodes))
    assert [(move.shard.shard, move.target, move.reason) for move in found] == [
        (0, "b", "a does not fit the placement of bot"),
        (1, "b", "a does not fit the placement of bot"),
    ]
