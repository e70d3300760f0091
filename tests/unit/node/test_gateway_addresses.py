"""What a node does about a gateway that its shards cannot reach, and about a new address."""

import logging
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from sandwich_coordinator.assignment import LocalShard, ShardConfig
from sandwich_coordinator.ids import Fence, GroupId, ShardId
from sandwich_coordinator.store.base import Compare, Delete, KeyValue, Put, StoreUnavailable, TxnResult
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import AppRecord, BudgetRecord
from sandwich_coordinator.view import ClusterView
from sandwich_node import ipc
from sandwich_node.agent.gateway_addresses import ShardGateways, doubt
from sandwich_node.shards.failures import LINES_MAX, WINDOW_S, FailureLog

KEYS = Keys()
SHARD = ShardId("bot", 0, 3)
CONFIG = ShardConfig("h", 1, 4, "none", 50)
OLD, NEW = "wss://old.example", "wss://new.example"


def budget(url: str = OLD, unreachable: str = "") -> BudgetRecord:
    return BudgetRecord(
        url=url,
        shards=4,
        total=9,
        remaining=7,
        reset_at=9e9,
        max_concurrency=1,
        fetched_at=5.0,
        unreachable=unreachable,
    )


def view_of(record: BudgetRecord) -> ClusterView:
    app = AppRecord(app="bot", token="sealed", token_hash="h", intents=1)
    items = {
        KEYS.app("bot"): KeyValue(KEYS.app("bot"), app.encode(), 1, 1, 1, 0),
        KEYS.budget("h"): KeyValue(KEYS.budget("h"), record.encode(), 1, 7, 1, 0),
    }
    return ClusterView.from_items(KEYS, items)


def test_the_doubt_is_written_beside_the_address_and_leaves_everything_else() -> None:
    wanted = doubt(view_of(budget()), GroupId("bot", 0), OLD, "refused")
    assert wanted is not None
    (write,) = wanted.writes
    assert msgspec.json.decode(write.value, type=BudgetRecord) == budget(unreachable="refused")
    assert wanted.compares == (Compare(KEYS.budget("h"), "mod_revision", 7),)


@pytest.mark.parametrize(
    ("record", "app"), [(budget(NEW), "bot"), (budget(unreachable="refused"), "bot"), (budget(), "another")]
)
def test_an_old_address_and_what_the_leader_knows_are_not_doubted(record: BudgetRecord, app: str) -> None:
    assert doubt(view_of(record), GroupId(app, 0), OLD, "refused") is None


class Node:
    def __init__(self, record: BudgetRecord, store: MemoryStore | None = None) -> None:
        self.view = view_of(record)
        self.sent: list[Any] = []
        store = store or MemoryStore()
        self.gateways = ShardGateways(store, view=lambda: self.view, send=lambda *what: self.sent.append(what))

    def follow(self, record: BudgetRecord, phase: Any = "running") -> list[Any]:
        self.gateways.follow(view_of(record), {SHARD: LocalShard(1, Fence(10), CONFIG, phase)})
        sent, self.sent = self.sent, []
        return sent


def test_a_running_shard_gets_a_new_address_once() -> None:
    node = Node(budget())
    node.gateways.started(SHARD, OLD)
    assert node.follow(budget(OLD)) == []
    assert node.follow(budget(NEW)) == [(1, ipc.GatewayMoved(SHARD, NEW))]
    assert node.follow(budget(NEW)) == []
    assert node.follow(budget("")) == [], "a refusal names no address"
    assert node.follow(budget(OLD), phase="stopping") == []
    node.gateways.forget(SHARD)
    assert node.follow(budget(OLD)) == []


async def test_many_shards_that_fail_at_once_write_one_doubt() -> None:
    store = MemoryStore()
    await store.txn([], [Put(KEYS.budget("h"), budget().encode())])
    node = Node(budget(), store)
    found = await store.get(KEYS.budget("h"))
    assert found is not None
    node.view = ClusterView.from_items(KEYS, {**_apps(), found.key: found})
    for _ in range(20):
        await node.gateways.unreachable(SHARD, OLD, "refused")
    after = await store.get(KEYS.budget("h"))
    assert after is not None
    assert after.version == found.version + 1
    assert msgspec.json.decode(after.value, type=BudgetRecord).unreachable == "refused"


def _apps() -> dict[str, KeyValue]:
    app = AppRecord(app="bot", token="sealed", token_hash="h", intents=1)
    return {KEYS.app("bot"): KeyValue(KEYS.app("bot"), app.encode(), 1, 1, 1, 0)}


async def test_a_doubt_that_cannot_be_written_is_left_to_the_next_failure() -> None:
    class Away(MemoryStore):
        async def txn(self, compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> TxnResult:
            raise StoreUnavailable("etcd is away")

    node = Node(budget(), Away())
    await node.gateways.unreachable(SHARD, OLD, "refused")
    await node.gateways.unreachable(SHARD, OLD, "refused")


def test_of_hundreds_of_shards_that_fail_some_lines_are_logged_and_the_rest_counted() -> None:
    log = FailureLog()
    lines = [log.note(logging.INFO, f"shard {n} failed", now=n * 0.01) for n in range(500)]
    assert [line for line in lines if line is not None] == [f"shard {n} failed" for n in range(LINES_MAX)]
    assert log.note(logging.WARNING, "shard 6 is unreachable", now=5.0) == "shard 6 is unreachable"
    again = WINDOW_S + 1
    assert log.note(logging.INFO, "shard 7 failed", now=again) == "shard 7 failed (490 more such lines left out before)"
    assert log.note(logging.INFO, "shard 8 failed", now=again) == "shard 8 failed"
