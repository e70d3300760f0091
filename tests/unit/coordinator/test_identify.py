from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandwich_coordinator.identify import (
    BucketsSeen,
    Effect,
    Grant,
    IdentifyQueue,
    Outcome,
    Refuse,
    ReleaseBucket,
    Requested,
    Sent,
    TakeBucket,
    TakeEnded,
    TakeRefused,
    TakeTxn,
    Withdrawn,
    take,
)
from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.store.base import Compare, KeyValue, Put
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import BudgetRecord, ClaimRecord, IdentifyRecord
from sandwich_coordinator.view import Bucket, ClusterView

ONE, TWO, BUCKET = ShardId("a", 0, 1), ShardId("a", 0, 2), Bucket("h", 0)


def attempting() -> IdentifyQueue:
    queue = IdentifyQueue(Policy())
    queue.handle(BucketsSeen(frozenset({BUCKET})), 0.0)
    for shard in (TWO, ONE):
        assert queue.handle(Requested(token_hash="h", shard=shard, bucket=0), 0.0) == []
    assert queue.handle(BucketsSeen(frozenset()), 1.0) == [TakeBucket(bucket=BUCKET, shard=ONE, failover=False)]
    return queue


def test_a_bucket_is_freed_only_after_the_spacing_and_then_the_next_shard_tries() -> None:
    queue = attempting()
    assert queue.handle(TakeEnded(bucket=BUCKET, outcome="granted"), 1.5) == [Grant(ONE, 1.0 + 4.3)]
    queue.handle(Sent(ONE), 2.0)
    assert queue.deadline() == 7.2
    assert queue.tick(7.2) == [ReleaseBucket(BUCKET), TakeBucket(bucket=BUCKET, shard=TWO, failover=False)]
    queue.check_invariants()


def test_a_spent_budget_parks_every_shard_of_the_token_until_its_reset() -> None:
    queue = attempting()
    ended = TakeEnded(bucket=BUCKET, outcome="exhausted", until=100.0, reason="none left")
    assert queue.handle(ended, 2.0) == [Refuse(ONE, 100.0, "none left"), Refuse(TWO, 100.0, "none left")]
    assert queue.deadline() == 100.0
    assert queue.tick(100.0) == [TakeBucket(bucket=BUCKET, shard=ONE, failover=False)]


def test_a_start_that_only_fills_the_cache_comes_last_and_its_refusal_delays_no_other() -> None:
    queue = IdentifyQueue(Policy())
    queue.handle(BucketsSeen(frozenset({BUCKET})), 0.0)
    queue.handle(Requested(token_hash="h", shard=ONE, bucket=0, spare=True), 0.0)
    queue.handle(Requested(token_hash="h", shard=TWO, bucket=0), 0.0)
    assert queue.handle(BucketsSeen(frozenset()), 1.0) == [TAKE_TWO]
    queue.handle(TakeEnded(bucket=BUCKET, outcome="granted"), 1.0)
    queue.handle(Sent(TWO), 1.0)
    spare = TakeBucket(bucket=BUCKET, shard=ONE, failover=False, spare=True)
    assert queue.tick(6.2) == [ReleaseBucket(BUCKET), spare]
    assert queue.handle(TakeEnded(bucket=BUCKET, outcome="exhausted", until=100.0), 6.3) == [Refuse(ONE, 100.0, "")]
    assert queue.handle(Requested(token_hash="h", shard=TWO, bucket=0), 7.0) == [TAKE_TWO]


TAKE_ONE = TakeBucket(bucket=BUCKET, shard=ONE, failover=False)
TAKE_TWO = TakeBucket(bucket=BUCKET, shard=TWO, failover=False)


def ended(outcome: Outcome, **more: Any) -> TakeEnded:
    return TakeEnded(bucket=BUCKET, outcome=outcome, **more)


def granted() -> IdentifyQueue:
    """Shard 1 has had the bucket since 1.0 and may use it until 5.3; shard 2 waits."""
    queue = attempting()
    queue.handle(ended("granted"), 1.5)
    return queue


def test_a_bucket_that_another_node_took_is_retried_soon_and_not_while_it_is_seen_taken() -> None:
    queue = attempting()
    assert queue.handle(ended("taken"), 2.0) == []
    assert queue.deadline() == 2.5
    assert queue.handle(BucketsSeen(frozenset({BUCKET})), 2.1) == []
    assert queue.tick(2.5) == []
    assert queue.handle(BucketsSeen(frozenset()), 9.0) == [TAKE_ONE]


def test_after_an_ambiguous_attempt_the_bucket_rests_for_as_long_as_its_lease_may_live() -> None:
    queue = attempting()
    assert queue.handle(ended("ambiguous"), 2.0) == []
    assert queue.tick(11.9) == []
    assert queue.deadline() == 12.0
    assert queue.tick(12.0) == [TAKE_ONE]


def test_an_attempt_without_a_report_blocks_its_bucket_and_a_bucket_taken_too_late_is_freed() -> None:
    queue = attempting()
    assert queue.deadline() == 11.0
    assert queue.tick(11.0) == []
    assert queue.handle(ended("granted"), 11.5) == [ReleaseBucket(BUCKET)]
    assert queue.tick(21.0) == [TAKE_ONE]


def test_a_bucket_taken_so_slowly_that_its_lease_would_end_before_the_spacing_is_freed() -> None:
    queue = attempting()
    assert queue.handle(ended("granted"), 5.3) == [ReleaseBucket(BUCKET)]
    assert queue.tick(5.8) == [TAKE_ONE]


def test_a_shard_withdrawn_during_its_attempt_is_not_granted_and_the_next_one_tries() -> None:
    queue = attempting()
    assert queue.handle(Withdrawn(ONE), 1.1) == []
    assert queue.handle(ended("granted"), 1.5) == [ReleaseBucket(BUCKET)]
    assert queue.tick(2.0) == [TAKE_TWO]


def test_a_withdrawn_shard_that_was_only_waiting_never_tries() -> None:
    queue = attempting()
    queue.handle(Withdrawn(TWO), 1.1)
    queue.handle(ended("granted"), 1.5)
    queue.handle(Sent(ONE), 2.0)
    assert queue.tick(7.2) == [ReleaseBucket(BUCKET)]
    assert queue.deadline() is None


def test_a_grant_withdrawn_by_a_worker_that_died_keeps_the_spacing_because_it_may_have_sent() -> None:
    queue = granted()
    assert queue.handle(Withdrawn(ONE), 2.0) == []
    assert queue.tick(7.1) == []
    assert queue.tick(7.2) == [ReleaseBucket(BUCKET), TAKE_TWO]


def test_a_grant_not_used_in_time_is_refused_and_its_shard_tries_again_after_the_spacing() -> None:
    queue = granted()
    assert queue.tick(5.3) == [Refuse(ONE, 5.3, "the grant to identify was not used in time")]
    assert queue.tick(10.4) == []
    assert queue.tick(10.5) == [ReleaseBucket(BUCKET), TAKE_ONE]


def test_a_report_of_an_identify_after_the_grant_was_withdrawn_ends_the_request() -> None:
    queue = granted()
    queue.tick(5.3)
    assert queue.handle(Sent(ONE), 6.0) == []
    assert queue.tick(10.5) == []
    assert queue.tick(11.2) == [ReleaseBucket(BUCKET), TAKE_TWO]


def test_a_request_while_its_token_is_parked_is_answered_at_once_with_the_end() -> None:
    queue = attempting()
    queue.handle(ended("exhausted", until=100.0, reason="none left"), 2.0)
    late = Requested(token_hash="h", shard=ShardId("a", 0, 3), bucket=3)
    assert queue.handle(late, 50.0) == [Refuse(late.shard, 100.0, "none left")]


def test_a_parked_token_does_not_delay_another_one() -> None:
    queue = attempting()
    queue.handle(ended("exhausted", until=100.0, reason="none left"), 2.0)
    other = Requested(token_hash="x", shard=ShardId("b", 0, 0), bucket=0)
    assert queue.handle(other, 3.0) == [TakeBucket(bucket=Bucket("x", 0), shard=other.shard, failover=False)]


def test_buckets_are_tried_concurrently_in_order_of_shards() -> None:
    queue = IdentifyQueue(Policy())
    queue.handle(BucketsSeen(frozenset({Bucket("h", 0), Bucket("h", 1)})), 0.0)
    for shard in (3, 1, 2, 0):
        queue.handle(Requested(token_hash="h", shard=ShardId("a", 0, shard), bucket=shard % 2), 0.0)
    tried = queue.handle(BucketsSeen(frozenset()), 1.0)
    assert [effect.shard.shard for effect in tried if isinstance(effect, TakeBucket)] == [0, 1]
    assert len(tried) == 2


def test_inputs_about_unknown_buckets_and_shards_are_ignored() -> None:
    queue = IdentifyQueue(Policy())
    assert queue.handle(Sent(ONE), 1.0) == []
    assert queue.handle(Withdrawn(ONE), 1.0) == []
    assert queue.handle(ended("taken"), 1.0) == []
    assert queue.handle(ended("granted"), 1.0) == [ReleaseBucket(BUCKET)]
    assert queue.deadline() is None


STEP = st.tuples(
    st.sampled_from(["ask", "withdraw", "send", "tick", "granted", "taken", "ambiguous"]),
    st.integers(0, 3),
    st.floats(0.0, 4.0),
)


@given(st.lists(STEP, max_size=40))
@settings(max_examples=100, deadline=None)
def test_in_every_history_a_bucket_is_held_long_enough_after_each_use_and_no_request_is_lost(
    steps: list[tuple[Any, int, float]],
) -> None:
    queue, now = IdentifyQueue(Policy()), 0.0
    asked, granted_to, last_use = set[ShardId](), dict[ShardId, float](), dict[Bucket, float]()

    def note(effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Grant):
                bucket = Bucket("h", effect.shard.shard % 2)
                assert now - last_use.get(bucket, -9.0) > 5.2 - 1e-6
                granted_to[effect.shard] = effect.until
        queue.check_invariants()

    for kind, number, wait in steps:
        now += wait
        note(queue.tick(now))
        shard, bucket = ShardId("a", 0, number), Bucket("h", number % 2)
        if kind == "ask":
            asked.add(shard)
            note(queue.handle(Requested(token_hash="h", shard=shard, bucket=bucket.bucket), now))
        elif kind == "withdraw":
            asked.discard(shard)
            granted_to.pop(shard, None)
            note(queue.handle(Withdrawn(shard), now))
        elif kind == "send" and granted_to.pop(shard, 0.0) > now:
            asked.discard(shard)
            last_use[bucket] = now
            note(queue.handle(Sent(shard), now))
        elif kind in ("granted", "taken", "ambiguous"):
            note(queue.handle(TakeEnded(bucket=bucket, outcome=kind), now))
    for _ in range(60):
        now = max(now, queue.deadline() or now)
        note(queue.tick(now))
        for bucket in (Bucket("h", 0), Bucket("h", 1)):
            note(queue.handle(TakeEnded(bucket=bucket, outcome="granted"), now))
        for shard in [shard for shard, until in granted_to.items() if until > now]:
            del granted_to[shard]
            asked.discard(shard)
            last_use[Bucket("h", shard.shard % 2)] = now
            note(queue.handle(Sent(shard), now))
    assert asked == set()
    assert queue.deadline() is None


# --- the transaction --------------------------------------------------------------------------------------------

KEYS = Keys("t")


def taking(
    budget: BudgetRecord | bytes | None, failover: bool = False, claimed_by: str = "n", **policy: Any
) -> TakeTxn | TakeRefused | None:
    value = budget if isinstance(budget, bytes) else budget.encode() if budget else None
    claim = KEYS.claim(*ONE)
    record = ClaimRecord(app="a", group=0, shard=1, node=claimed_by, instance="i", worker=0)
    items = {claim: KeyValue(claim, record.encode(), 5, 8, 2, lease=9)}
    if value is not None:
        items[KEYS.budget("h")] = KeyValue(KEYS.budget("h"), value, 4, 6, 2)
    wanted = TakeBucket(bucket=BUCKET, shard=ONE, failover=failover)
    view = ClusterView.from_items(KEYS, items)
    return take(view, wanted, node="n", lease=77, wall=1000.0, policy=Policy(**policy))


def budget(remaining: int, reset_at: float = 5000.0, error: str = "") -> BudgetRecord:
    return BudgetRecord(
        url="u",
        shards=2,
        total=9,
        remaining=remaining,
        reset_at=reset_at,
        max_concurrency=1,
        fetched_at=1.0,
        error=error,
    )


def test_taking_a_bucket_creates_it_under_its_lease_and_spends_one_start_in_the_same_transaction() -> None:
    assert taking(budget(3)) == TakeTxn(
        (
            Compare(KEYS.identify("h", 0), "create_revision", 0),
            Compare(KEYS.budget("h"), "mod_revision", 6),
            Compare(KEYS.claim(*ONE), "create_revision", 5),
        ),
        (
            Put(KEYS.identify("h", 0), IdentifyRecord(node="n", app="a", shard=1).encode(), 77),
            Put(KEYS.budget("h"), budget(2).encode()),
        ),
    )


def test_a_node_that_was_cut_off_does_not_identify_a_shard_that_another_node_now_has() -> None:
    assert taking(budget(3), claimed_by="m") is None


def test_without_starts_left_taking_is_refused_until_the_reset() -> None:
    assert taking(budget(0, reset_at=1040.0)) == TakeRefused(1040.0, "no session starts left")


@pytest.mark.parametrize("behind_s", [0.0, 3600.0])
def test_a_spent_budget_is_checked_every_minute_even_by_a_node_whose_clock_is_an_hour_behind(
    behind_s: float,
) -> None:
    refused = taking(budget(0, reset_at=1000.0 + behind_s + 1800.0))
    assert refused == TakeRefused(1060.0, "no session starts left")


def test_a_reset_that_has_passed_without_a_new_answer_is_waited_for_in_short_steps() -> None:
    assert taking(budget(0, reset_at=900.0)) == TakeRefused(1005.0, "no session starts left")


def test_the_reserve_is_for_failover_only() -> None:
    refused = TakeRefused(1040.0, "no session starts left (2 are kept for failover)")
    assert taking(budget(2, reset_at=1040.0), identify_reserve=2) == refused
    assert isinstance(taking(budget(2), failover=True, identify_reserve=2), TakeTxn)
    assert isinstance(taking(budget(3), identify_reserve=2), TakeTxn)


def test_a_budget_that_is_missing_unreadable_or_refused_by_discord_is_never_spent() -> None:
    assert taking(None) == TakeRefused(1005.0, "the session start budget is not known yet")
    assert taking(b"{") == TakeRefused(1005.0, "the session start budget is not known yet")
    assert taking(budget(3, error="401")) == TakeRefused(1005.0, "Discord refused the token: 401")
