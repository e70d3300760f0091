from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandwich_coordinator.identify import (
    TAKEN_AT_ONCE,
    Effect,
    Grant,
    IdentifyQueue,
    Outcome,
    Refuse,
    ReleaseBucket,
    Requested,
    Seen,
    Sent,
    Take,
    TakeBucket,
    TakeEnded,
    Withdrawn,
    take,
)
from sandwich_coordinator.ids import GroupId, LeaderTerm, ShardId
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.start_order import Priority, Turn
from sandwich_coordinator.store.base import Compare, Put
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import (
    AppRecord,
    BudgetRecord,
    ClaimRecord,
    GroupRecord,
    IdentifyRecord,
    ShardState,
)
from sandwich_coordinator.view import Bucket, ClusterView, Entry

KEYS = Keys("t")
ONE, TWO, BUCKET = ShardId("a", 0, 1), ShardId("a", 0, 2), Bucket("h", 0)
APPS = {name: Entry(AppRecord(app=name, token="", token_hash="h", intents=1), 1, 1, 0) for name in "ab"}
APPS["x"] = Entry(AppRecord(app="x", token="", token_hash="x", intents=1), 1, 1, 0)
LIVE, STARTING = (
    {
        GroupId(app, 0): Entry(
            GroupRecord(app=app, group=0, count=9, ids="0-8", term=LeaderTerm(1), state=state), 1, 1, 0
        )
        for app in APPS
    }
    for state in ("live", "starting")
)


def budget(
    remaining: int = 900, total: int = 1000, reset_at: float = 0.0, error: str = "", mc: int = 1
) -> BudgetRecord:
    return BudgetRecord(
        url="u",
        shards=2,
        total=total,
        remaining=remaining,
        reset_at=reset_at,
        max_concurrency=mc,
        fetched_at=1.0,
        error=error,
    )


def view(*taken: Bucket, groups: Any = None, **fields: Any) -> ClusterView:
    """A view of two applications with token `h` and one with `x`, which start; the `taken` buckets are node z's."""
    holders = {one: Entry(IdentifyRecord(node="z", app="z", shard=9), 3, 3, 1) for one in taken}
    budgets = {"h": Entry(budget(), 4, 6, 0), "x": Entry(budget(), 4, 6, 0)}
    fields = {"apps": APPS, "groups": groups or STARTING, "budgets": budgets, "identifies": holders, **fields}
    return ClusterView(keys=KEYS, **fields)


def claim(shard: ShardId, node: str, state: ShardState = "identifying", at: int = 5, rereads: bool = False) -> Any:
    app, group, number = shard
    record = ClaimRecord(
        app=app, group=group, shard=number, node=node, instance="i", worker=0, state=state, rereads=rereads
    )
    return {shard: Entry(record, 5, at, 9)}


def left(remaining: int, **more: Any) -> dict[str, Entry[BudgetRecord]]:
    return {name: Entry(budget(remaining, **more), 4, 6, 0) for name in "hx"}


def request(shard: ShardId, bucket: int = 0, token_hash: str = "h", **more: Any) -> Requested:
    return Requested(token_hash=token_hash, shard=shard, bucket=bucket, **more)


def taking_of(shard: ShardId, bucket: Bucket = BUCKET, priority: Priority = Priority.SCALE_UP) -> TakeBucket:
    return TakeBucket(bucket, Turn(priority, shard.shard, shard))


TAKE_ONE, TAKE_TWO = taking_of(ONE), taking_of(TWO)


def attempting() -> IdentifyQueue:
    queue = IdentifyQueue("n", Policy(identify_spacing_s=5.2))
    queue.handle(Seen(view(BUCKET)), 0.0)
    for shard in (TWO, ONE):
        assert queue.handle(request(shard), 0.0) == []
    assert queue.handle(Seen(view()), 1.0) == [TAKE_ONE]
    return queue


def test_a_bucket_is_freed_only_after_the_spacing_and_then_the_next_shard_tries() -> None:
    queue = attempting()
    assert queue.handle(TakeEnded(bucket=BUCKET, outcome="granted"), 1.5) == [Grant(ONE, 1.0 + 4.3)]
    queue.handle(Sent(ONE), 2.0)
    assert queue.deadline() == 7.2
    assert queue.tick(7.2) == [ReleaseBucket(BUCKET), TAKE_TWO]
    queue.check_invariants()


def test_a_spent_budget_refuses_every_shard_of_the_token_once_and_until_the_store_shows_starts_again() -> None:
    queue = attempting()
    queue.handle(ended("taken"), 1.1)
    none = "no session starts left until 1970-01-01 00:16 UTC"
    spent = view(budgets=left(0, reset_at=1000.0))
    assert queue.handle(Seen(spent), 1.2) == [], "not before it would try again"
    assert queue.tick(1.6) == [Refuse(TWO, none), Refuse(ONE, none)]
    assert queue.handle(Seen(replace(spent, revision=9)), 3.0) == [], "said once"
    late = request(ShardId("a", 0, 3), bucket=3)
    assert queue.handle(late, 50.0) == [Refuse(late.shard, none)]
    assert queue.handle(Seen(view()), 100.0) == [TAKE_ONE, taking_of(late.shard, Bucket("h", 3))]


def test_what_is_kept_for_failover_is_used_by_a_shard_that_was_live_and_by_no_other() -> None:
    queue = IdentifyQueue("n", Policy())
    kept = "the last 200 session starts until 1970-01-01 00:16 UTC are kept for failover"
    reserved = view(budgets=left(200, reset_at=1000.0))
    queue.handle(Seen(reserved), 0.0)
    assert queue.handle(request(ONE), 0.0) == [Refuse(ONE, kept)]
    failover = taking_of(ONE, priority=Priority.FAILOVER)
    assert queue.handle(Seen(replace(reserved, groups=LIVE)), 1.0) == [failover], "its group came to serve meanwhile"


def test_a_start_that_only_fills_the_cache_comes_after_failover_and_before_a_first_start() -> None:
    queue = IdentifyQueue("n", Policy(identify_spacing_s=5.2))
    queue.handle(Seen(view(BUCKET)), 0.0)
    lost = ShardId("b", 0, 7)
    for one in (request(TWO, spare=True), request(ONE), request(lost)):
        queue.handle(one, 0.0)
    mixed = STARTING | {lost.of: LIVE[lost.of]}
    assert queue.handle(Seen(view(groups=mixed)), 1.0) == [taking_of(lost, priority=Priority.FAILOVER)]
    queue.handle(TakeEnded(bucket=BUCKET, outcome="granted"), 1.0)
    queue.handle(Sent(lost), 1.0)
    assert queue.tick(6.2) == [ReleaseBucket(BUCKET), taking_of(TWO, priority=Priority.REREAD)]
    queue.handle(TakeEnded(bucket=BUCKET, outcome="granted"), 6.3)
    queue.handle(Sent(TWO), 6.3)
    assert queue.tick(11.5) == [ReleaseBucket(BUCKET), TAKE_ONE]


def test_a_re_read_leaves_a_start_for_each_shard_of_its_group_and_its_refusal_delays_no_other() -> None:
    queue = IdentifyQueue("n", Policy(identify_reserve=2))
    queue.handle(Seen(view(budgets=left(9))), 0.0)
    (refused,) = queue.handle(request(ONE, spare=True), 0.0)
    assert isinstance(refused, Refuse)
    assert "the last 9 session starts" in refused.reason
    assert queue.handle(request(TWO), 1.0) == [TAKE_TWO]


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
    assert queue.handle(Seen(view(BUCKET)), 2.1) == []
    assert queue.tick(2.5) == []
    assert queue.handle(Seen(view()), 9.0) == [TAKE_ONE]


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
    assert queue.tick(5.3) == [Refuse(ONE, "the grant to identify was not used in time")]
    assert queue.tick(10.4) == []
    assert queue.tick(10.5) == [ReleaseBucket(BUCKET), TAKE_ONE]


def test_a_report_of_an_identify_after_the_grant_was_withdrawn_ends_the_request() -> None:
    queue = granted()
    queue.tick(5.3)
    assert queue.handle(Sent(ONE), 6.0) == []
    assert queue.tick(10.5) == []
    assert queue.tick(11.2) == [ReleaseBucket(BUCKET), TAKE_TWO]


def test_an_attempt_that_the_store_refused_says_why_and_waits_and_delays_no_other_token() -> None:
    queue = attempting()
    refused = ended("refused", until=4.0, reason="etcd: no answer")
    assert queue.handle(refused, 2.0) == [Refuse(ONE, "etcd: no answer")]
    other = request(ShardId("x", 0, 0), token_hash="x")
    assert queue.handle(other, 3.0) == [taking_of(other.shard, Bucket("x", 0))]
    assert queue.tick(3.9) == []
    assert queue.tick(4.0) == [TAKE_ONE]


def test_buckets_whose_spacing_ends_together_are_freed_together() -> None:
    queue = IdentifyQueue("n", Policy(identify_spacing_s=5.0))
    queue.handle(Seen(view()), 0.0)
    for shard in (0, 1):
        queue.handle(request(ShardId("a", 0, shard), bucket=shard), 0.0)
        queue.handle(TakeEnded(bucket=Bucket("h", shard), outcome="granted"), 0.0)
        queue.handle(Sent(ShardId("a", 0, shard)), 1.0 + shard * 0.008)
    assert queue.deadline() == 6.008
    assert queue.tick(6.008) == [ReleaseBucket(Bucket("h", 0)), ReleaseBucket(Bucket("h", 1))]


def test_buckets_are_tried_concurrently_in_order_of_shards() -> None:
    queue = IdentifyQueue("n", Policy())
    queue.handle(Seen(view(Bucket("h", 0), Bucket("h", 1))), 0.0)
    for shard in (3, 1, 2, 0):
        queue.handle(request(ShardId("a", 0, shard), bucket=shard % 2), 0.0)
    tried = queue.handle(Seen(view()), 1.0)
    assert [effect.shard.shard for effect in tried if isinstance(effect, TakeBucket)] == [0, 1]
    assert len(tried) == 2


# --- order over nodes -------------------------------------------------------------------------------------------

ZERO = ShardId("a", 0, 0)


def test_a_free_bucket_is_left_to_a_lower_shard_of_another_node_until_it_has_it() -> None:
    queue = IdentifyQueue("n", Policy())
    waits = claim(ZERO, "m")
    queue.handle(Seen(view(claims=waits)), 0.0)
    assert queue.handle(request(ONE), 0.0) == []
    assert queue.deadline() == 1.0
    holder = {BUCKET: Entry(IdentifyRecord(node="m", app="a", shard=0), 8, 8, 1)}
    assert queue.handle(Seen(view(claims=waits, identifies=holder)), 0.2) == []
    assert queue.deadline() is None
    assert queue.handle(Seen(view(claims=waits)), 5.5) == [TAKE_ONE], "its READY may take minutes: it does not wait"


def test_a_node_that_lets_its_turn_pass_is_passed_over_until_it_takes_a_bucket_and_for_half_a_minute_at_most() -> None:
    def free(now: float, *taken: Bucket) -> list[Effect]:
        """The next chance in bucket 0, after an IDENTIFY of ours in it."""
        queue.handle(TakeEnded(bucket=BUCKET, outcome="taken"), now - 0.5)
        holders = {one: Entry(IdentifyRecord(node="m", app="b", shard=7), 8, 8, 1) for one in taken}
        queue.handle(Seen(view(claims=waits, identifies=holders)), now)
        return queue.tick(now)

    queue, waits = IdentifyQueue("n", Policy()), claim(ZERO, "m")
    queue.handle(Seen(view(claims=waits)), 0.0)
    queue.handle(request(ONE), 0.0)
    assert queue.tick(0.9) == []
    assert queue.tick(1.0) == [TAKE_ONE]
    assert free(10.0) == [TAKE_ONE], "no second wait for it"
    assert free(30.9) == [TAKE_ONE]
    assert free(31.1) == []
    assert queue.tick(32.1) == [TAKE_ONE]
    queue.handle(TakeEnded(bucket=BUCKET, outcome="taken"), 32.2)
    assert free(33.0, Bucket("h", 7)) == [], "it works again"


def test_two_nodes_that_hang_cost_one_wait_each_and_the_second_is_not_passed_over_with_the_first() -> None:
    queue = IdentifyQueue("n", Policy())
    queue.handle(Seen(view(claims=claim(ZERO, "m") | claim(ONE, "o"))), 0.0)
    assert queue.handle(request(TWO), 0.0) == []
    assert queue.tick(1.0) == []
    assert queue.tick(1.9) == []
    assert queue.tick(2.0) == [TAKE_TWO]


@pytest.mark.parametrize(
    ("other", "its_claim", "goes_first"),
    [
        ("a higher shard of the same priority", claim(ShardId("a", 0, 5), "m"), False),
        ("a higher shard that was live", claim(ShardId("b", 0, 5), "m"), True),
        ("a live shard that reads its guilds again", claim(ShardId("a", 0, 5), "m", "live", rereads=True), True),
        ("a lower shard that does not wait", claim(ZERO, "m", "live"), False),
        ("a lower shard of another token", claim(ShardId("x", 0, 0), "m"), False),
        ("a lower shard of another application with this token", claim(ShardId("b", 0, 0), "m"), True),
        ("a shard of ours, which has a request of its own", claim(ZERO, "n"), False),
    ],
)
def test_a_free_bucket_is_left_to_what_comes_first_in_the_cluster(other: str, its_claim: Any, goes_first: bool) -> None:
    queue = IdentifyQueue("n", Policy())
    queue.handle(Seen(view(claims=its_claim, groups=STARTING | {GroupId("b", 0): LIVE[GroupId("b", 0)]})), 0.0)
    assert (queue.handle(request(ONE), 0.0) == []) is goes_first, other


def test_a_bucket_is_not_left_to_a_shard_that_the_budget_refuses() -> None:
    queue = IdentifyQueue("n", Policy())
    rereads = claim(ZERO, "m", "live", rereads=True)
    queue.handle(Seen(view(claims=rereads, budgets=left(8, total=9))), 0.0)
    assert queue.handle(request(ONE), 0.0) == [TAKE_ONE], "a re-read leaves one start for each of nine shards"


def test_inputs_about_unknown_buckets_and_shards_are_ignored() -> None:
    queue = IdentifyQueue("n", Policy())
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
    queue, now = IdentifyQueue("n", Policy()), 0.0
    queue.handle(Seen(view()), now)
    asked, granted_to, last_use = set[ShardId](), dict[ShardId, float](), dict[Bucket, float]()

    def note(effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Grant):
                bucket = Bucket("h", effect.shard.shard % 2)
                assert now - last_use.get(bucket, -9.0) > Policy().identify_spacing_s - 1e-6
                granted_to[effect.shard] = effect.until
        queue.check_invariants()

    for kind, number, wait in steps:
        now += wait
        note(queue.tick(now))
        shard, bucket = ShardId("a", 0, number), Bucket("h", number % 2)
        if kind == "ask":
            asked.add(shard)
            note(queue.handle(request(shard, bucket.bucket), now))
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


def taking(budgets: Any, *wanted: TakeBucket, claims: Any = None, groups: Any = None, **policy: Any) -> Take:
    claims = claims if claims is not None else claim(ONE, "n") | claim(TWO, "n")
    seen = view(claims=claims, budgets=budgets, groups=groups)
    return take(seen, wanted or (TAKE_ONE,), node="n", lease=77, policy=Policy(**policy))


def reason(done: Take) -> str:
    assert (done.granted, done.writes) == ((), ())
    ((_, outcome, why),) = done.others
    assert outcome == "refused"
    return why


def test_taking_buckets_creates_them_under_one_lease_and_spends_a_start_each_in_the_same_transaction() -> None:
    other = taking_of(TWO, Bucket("h", 2))
    assert taking(left(903), other, TAKE_ONE) == Take(
        (
            Compare(KEYS.identify("h", 0), "create_revision", 0),
            Compare(KEYS.claim(*ONE), "create_revision", 5),
            Compare(KEYS.identify("h", 2), "create_revision", 0),
            Compare(KEYS.claim(*TWO), "create_revision", 5),
            Compare(KEYS.budget("h"), "mod_revision", 6),
        ),
        (
            Put(KEYS.identify("h", 0), IdentifyRecord(node="n", app="a", shard=1).encode(), 77),
            Put(KEYS.identify("h", 2), IdentifyRecord(node="n", app="a", shard=2).encode(), 77),
            Put(KEYS.budget("h"), budget(901).encode()),
        ),
        (TAKE_ONE, other),
        (),
    )


def test_a_transaction_is_never_larger_than_etcd_allows() -> None:
    wanted = [taking_of(ShardId("a", 0, number), Bucket("h", number)) for number in range(200)]
    claims = {one.shard: entry for one in wanted for entry in claim(one.shard, "n").values()}
    done = taking(left(900), *wanted, claims=claims)
    assert done.granted == tuple(wanted[:TAKEN_AT_ONCE])
    assert max(len(done.compares), len(done.writes)) <= 128


def test_a_node_that_was_cut_off_does_not_identify_a_shard_that_another_node_now_has() -> None:
    assert taking(left(903), claims=claim(ONE, "m")).others == ((TAKE_ONE, "taken", ""),)
    assert taking(left(903), claims={}).granted == ()


def test_the_last_starts_go_to_what_comes_first() -> None:
    other = taking_of(ONE, Bucket("h", 1), Priority.FAILOVER)
    done = taking(left(1), TAKE_TWO, other)
    assert done.granted == (other,)
    assert [one for one, _, _ in done.others] == [TAKE_TWO]


def test_without_starts_left_taking_is_refused_and_the_reset_is_named() -> None:
    failover = taking_of(ONE, priority=Priority.FAILOVER)
    refused = taking(left(0, reset_at=1_800_000_040.0), failover)
    assert reason(refused) == "no session starts left until 2027-01-15 08:00 UTC"


def test_the_reserve_is_for_failover_only() -> None:
    failover = taking_of(ONE, priority=Priority.FAILOVER)
    assert "the last 200 session starts" in reason(taking(left(200))), "20 % of 1,000"
    assert "the last 2 session starts" in reason(taking(left(2), identify_reserve=2))
    assert "the last 350 session starts" in reason(taking(left(350), identify_reserve_percent=35.0))
    assert taking(left(1), failover).granted == (failover,)
    assert taking(left(3), identify_reserve=2).granted == (TAKE_ONE,)
    assert taking(left(1), identify_reserve_percent=0.0).granted == (TAKE_ONE,)


def test_a_budget_that_is_missing_or_refused_by_discord_is_never_spent() -> None:
    assert reason(taking({})) == "the session start budget is not known yet"
    assert reason(taking(left(3, error="401"))) == "Discord refused the token: 401"
