"""Of the shards that wait for a session start, the next ones of each bucket connect; the others wait unconnected."""

from dataclasses import replace

from sandwich_coordinator.ids import GroupId, LeaderTerm, ShardId
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import AppRecord, BudgetRecord, GroupRecord
from sandwich_coordinator.view import ClusterView, Entry
from sandwich_node.agent.near_turns import CONNECT_S, NearTurns

BUDGET = BudgetRecord(
    url="wss://g", shards=8, total=1000, remaining=1000, reset_at=0.0, max_concurrency=2, fetched_at=0.0, bot_id="1"
)
VIEW = replace(
    ClusterView(keys=Keys()),
    apps={"bot": Entry(AppRecord(app="bot", token="t", token_hash="h", intents=1), 1, 1, 0)},
    groups={GroupId("bot", 0): Entry(GroupRecord("bot", 0, 8, "0-7", term=LeaderTerm(1)), 2, 2, 0)},
    budgets={"h": Entry(BUDGET, 3, 3, 0)},
)


def shard(number: int) -> ShardId:
    return ShardId("bot", 0, number)


class Bucket:
    """The shards of a node at `now`; those in `waiting` are connected and wait for their turn."""

    def __init__(self) -> None:
        self.waiting: set[ShardId] = set()
        self.near = NearTurns(self.waiting.__contains__)
        self.now = 100.0

    def ahead(self, number: int, view: ClusterView = VIEW) -> list[int]:
        return [one.shard for one in self.near.admit(view, shard(number), self.now)]


def test_two_shards_of_a_bucket_connect_and_the_third_waits_for_them() -> None:
    bucket = Bucket()
    assert (bucket.ahead(0), bucket.ahead(2)) == ([], [])
    assert bucket.ahead(4) == [0, 2]
    assert bucket.ahead(1) == [], "it is of the other bucket"
    bucket.near.passed(shard(0))
    assert bucket.ahead(4) == []


def test_a_shard_that_comes_later_in_the_order_keeps_no_earlier_one_back() -> None:
    bucket = Bucket()
    assert (bucket.ahead(4), bucket.ahead(6)) == ([], [])
    assert bucket.ahead(2) == []


def test_a_shard_that_does_not_get_connected_keeps_others_back_for_ten_seconds() -> None:
    bucket = Bucket()
    bucket.ahead(0)
    bucket.ahead(2)
    bucket.now += CONNECT_S - 0.5
    assert bucket.ahead(4) == [0, 2]
    bucket.waiting.add(shard(2))
    bucket.now += 0.5
    assert bucket.ahead(4) == [], "one of the two places is free"
    assert bucket.ahead(6) == [2, 4]


def test_a_shard_that_leaves_twice_frees_one_place() -> None:
    bucket = Bucket()
    bucket.ahead(0)
    bucket.ahead(2)
    bucket.near.passed(shard(0))
    bucket.near.passed(shard(0))
    assert bucket.ahead(4) == []
    assert bucket.ahead(6) == [2, 4]


def test_without_the_limits_of_the_token_nothing_is_kept_back() -> None:
    bucket = Bucket()
    unknown = replace(VIEW, budgets={})
    assert [bucket.ahead(number, unknown) for number in (0, 2, 4, 6)] == [[], [], [], []]
