"""Which shard of the cluster starts first, from the view alone."""

from typing import Any

import pytest

from sandwich_coordinator.groups import token_hash_of
from sandwich_coordinator.ids import GroupId, LeaderTerm, ShardId
from sandwich_coordinator.start_order import Priority, Waiting, bucket_of, priority_of, waiting
from sandwich_coordinator.types import AppRecord, GroupRecord, IdentifyRecord
from sandwich_coordinator.view import Bucket, ClusterView, Entry
from tests.unit.coordinator.test_identify import KEYS, claim, left

SHARD = ShardId("bot", 1, 3)


def group(number: int = 1, **fields: Any) -> dict[GroupId, Entry[GroupRecord]]:
    fields = {"count": 4, "ids": "0-3", "term": LeaderTerm(1), **fields}
    return {GroupId("bot", number): Entry(GroupRecord(app="bot", group=number, **fields), 1, 1, 0)}


def view(*groups: dict[GroupId, Entry[GroupRecord]], **fields: Any) -> ClusterView:
    app = {"bot": Entry(AppRecord(app="bot", token="", token_hash="h", intents=5), 1, 1, 0)}
    found: dict[GroupId, Entry[GroupRecord]] = {}
    for one in groups:
        found |= one
    return ClusterView(keys=KEYS, apps=app, groups=found, **{"budgets": left(900, mc=2), **fields})


OLD = group(0, state="live", phase="closing")


@pytest.mark.parametrize(
    ("seen", "priority"),
    [
        (view(group(state="live")), Priority.FAILOVER),
        (view(group(state="degraded")), Priority.FAILOVER),
        (view(group(state="starting")), Priority.SCALE_UP),
        (view(group(state="waiting")), Priority.SCALE_UP),
        (view(OLD, group(phase="canary", replaces=0)), Priority.RESTART),
        (view(OLD, group(phase="preparing", replaces=0, intents=5)), Priority.RESTART),
        (view(OLD, group(phase="holding", replaces=0, count=8)), Priority.SCALE_UP),
        (view(OLD, group(phase="preparing", replaces=0, intents=7)), Priority.SCALE_UP),
        (view(group(phase="preparing", replaces=0)), Priority.SCALE_UP),
        (view(group(phase="preparing")), Priority.SCALE_UP),
        (view(OLD, group(phase="switching", replaces=0)), Priority.FAILOVER),
        (view(group(phase="closing")), Priority.FAILOVER),
        (view(), Priority.SCALE_UP),
    ],
)
def test_a_groups_phase_state_and_what_it_replaces_decide_its_priority(seen: ClusterView, priority: Priority) -> None:
    assert priority_of(seen, SHARD, spare=False) is priority
    assert priority_of(seen, SHARD, spare=True) is Priority.REREAD


def test_priorities_are_in_this_order() -> None:
    assert sorted(Priority) == [Priority.FAILOVER, Priority.REREAD, Priority.RESTART, Priority.SCALE_UP]


def test_a_group_with_a_token_of_its_own_has_that_tokens_buckets() -> None:
    assert token_hash_of(view(group()), SHARD.of) == "h"
    assert token_hash_of(view(group(token_hash="x")), SHARD.of) == "x"
    assert bucket_of(view(group(token_hash="x")), SHARD) == Bucket("x", 1)
    assert bucket_of(view(group(token_hash="unknown")), SHARD) is None
    assert bucket_of(view(), ShardId("gone", 0, 0)) is None


def all_waiting(seen: ClusterView) -> list[Waiting]:
    return [one for number in (0, 1) for one in waiting(seen, Bucket("h", number))]


def test_those_wait_that_identify_or_read_their_guilds_again_and_have_no_bucket() -> None:
    numbers = {0: "identifying", 1: "live", 2: "connecting", 3: "identifying"}
    claims: Any = {}
    for number, state in numbers.items():
        claims |= claim(ShardId("bot", 1, number), "n", state, rereads=number == 1)  # type: ignore[arg-type]
    seen = view(group(state="live"), claims=claims)
    assert {(one.turn.number, one.turn.priority, one.bucket.bucket) for one in all_waiting(seen)} == {
        (0, Priority.FAILOVER, 0),
        (1, Priority.REREAD, 1),
        (3, Priority.FAILOVER, 1),
    }
    holder = IdentifyRecord(node="n", app="bot", group=1, shard=3)
    held = view(group(state="live"), claims=claims, identifies={Bucket("h", 1): Entry(holder, 9, 9, 1)})
    assert {one.turn.number for one in all_waiting(held)} == {0, 1}
    other = IdentifyRecord(node="n", app="bot", group=0, shard=3)
    not_held = view(group(state="live"), claims=claims, identifies={Bucket("h", 1): Entry(other, 9, 9, 1)})
    assert {one.turn.number for one in all_waiting(not_held)} == {0, 1, 3}, "that is the same number of another group"
