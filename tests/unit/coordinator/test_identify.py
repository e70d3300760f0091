from sandwich_coordinator.identify import (
    BucketsSeen,
    Grant,
    IdentifyQueue,
    Refuse,
    ReleaseBucket,
    Requested,
    Sent,
    TakeBucket,
    TakeEnded,
)
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.view import Bucket, ShardKey

ONE, TWO, BUCKET = ShardKey("a", 0, 1), ShardKey("a", 0, 2), Bucket("h", 0)


def attempting():
    queue = IdentifyQueue(Policy())
    queue.handle(BucketsSeen(frozenset({BUCKET})), 0.0)
    for shard in (TWO, ONE):
        assert queue.handle(Requested(token_hash="h", shard=shard, bucket=0), 0.0) == []
    assert queue.handle(BucketsSeen(frozenset()), 1.0) == [TakeBucket(bucket=BUCKET, shard=ONE, failover=False)]
    return queue


def test_a_bucket_is_given_back_only_after_the_spacing_and_then_the_next_shard_tries():
    queue = attempting()
    assert queue.handle(TakeEnded(bucket=BUCKET, outcome="granted"), 1.5) == [Grant(ONE, 1.0 + 4.3)]
    queue.handle(Sent(ONE), 2.0)
    assert queue.deadline() == 7.2
    assert queue.tick(7.2) == [ReleaseBucket(BUCKET), TakeBucket(bucket=BUCKET, shard=TWO, failover=False)]
    queue.check_invariants()


def test_a_spent_budget_parks_every_shard_of_the_token_until_its_reset():
    queue = attempting()
    ended = TakeEnded(bucket=BUCKET, outcome="exhausted", until=100.0, reason="none left")
    assert queue.handle(ended, 2.0) == [Refuse(ONE, 100.0, "none left"), Refuse(TWO, 100.0, "none left")]
    assert queue.deadline() == 100.0
    assert queue.tick(100.0) == [TakeBucket(bucket=BUCKET, shard=ONE, failover=False)]
