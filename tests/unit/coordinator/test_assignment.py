from dataclasses import replace
from typing import Any, Self

import msgspec
import pytest

from sandwich_coordinator.assignment import (
    Abandon,
    Action,
    Claim,
    LocalNode,
    LocalShard,
    Release,
    Restart,
    ShardConfig,
    Start,
    Stop,
    outbid,
    pick_worker,
    reconcile_node,
)
from sandwich_coordinator.ids import Fence, LeaderTerm, ShardId
from sandwich_coordinator.store.base import Compare, Delete, KeyValue, Put
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import (
    AppRecord,
    ClaimRecord,
    GroupRecord,
    NodeRecord,
    PlanRecord,
    RestartRecord,
    SessionRecord,
    ShardsSpec,
)
from sandwich_coordinator.view import ClusterView

KEYS, LEASE, OTHER_LEASE, NOW = Keys("t"), 11, 22, 1000.0
SHARD = ShardId("bot", 0, 0)
CONFIG = ShardConfig("h", 1, 2, "zstd-stream", 50)
OWN = LocalNode(node="a", instance="a1", lease=LEASE, connected=True, loads={0: 0, 1: 0})
RUNNING = LocalShard(0, Fence(20), CONFIG)
SESSION = SessionRecord(session_id="s", resume_url="u", intents=1, count=2, first_seq=1, token_hash="h")
CLAIM = ClaimRecord(app="bot", group=0, shard=0, node="a", instance="a1", worker=0, since=NOW)


class Picture:
    """A cluster in which shard 0 of a bot with two shards is planned to node a."""

    def __init__(self, planned: str | None = "a", **app: Any) -> None:
        self.items: dict[str, KeyValue] = {}
        self.put(KEYS.node("a"), NodeRecord(node="a", instance="a1", address="", version="1"), 1, LEASE)
        record = AppRecord(app="bot", token="sealed", token_hash="h", intents=1, shards=ShardsSpec(count=2))
        self.put(KEYS.app("bot"), msgspec.structs.replace(record, **app), 2)
        self.put(KEYS.group("bot", 0), GroupRecord(app="bot", group=0, count=2, ids="0-1", term=LeaderTerm(1)), 3)
        if planned:
            self.put(KEYS.plan("bot", 0), PlanRecord(app="bot", group=0, term=LeaderTerm(1), nodes={planned: "0"}), 4)

    def put(self, key: str, record: Any, revision: int, lease: int = 0) -> Self:
        value = record if isinstance(record, bytes) else record.encode()
        self.items[key] = KeyValue(key, value, revision, revision, 1, lease)
        return self

    def claim(self, revision: int = 20, lease: int = LEASE, **changes: Any) -> Self:
        return self.put(KEYS.claim(*SHARD), msgspec.structs.replace(CLAIM, **changes), revision, lease)

    def session(self, **changes: Any) -> Self:
        return self.put(KEYS.session(*SHARD), msgspec.structs.replace(SESSION, **changes), 19)

    def decide(self, running: LocalShard | None = None, own: LocalNode = OWN) -> tuple[Action, ...]:
        local = {} if running is None else {SHARD: running}
        return reconcile_node(ClusterView.from_items(KEYS, self.items), own, local, NOW)


def claims(compare: Compare, fence: int = 0, worker: int = 0) -> tuple[Claim]:
    record = msgspec.structs.replace(CLAIM, fence=fence, worker=worker)
    return (Claim(SHARD, worker, (compare,), (Put(KEYS.claim(*SHARD), record.encode(), LEASE),)),)


def unchanged(revision: int) -> Compare:
    return Compare(KEYS.claim(*SHARD), "mod_revision", revision)


ABSENT = Compare(KEYS.claim(*SHARD), "create_revision", 0)
RELEASE = (Release(SHARD, (unchanged(20),), (Delete(KEYS.claim(*SHARD)),)),)


# --- claiming and starting --------------------------------------------------------------------------------------


def test_a_shard_planned_here_is_claimed_only_if_no_node_has_it() -> None:
    assert Picture().decide() == claims(ABSENT)


def test_a_shard_planned_here_that_another_node_still_holds_is_left_alone() -> None:
    assert Picture().claim(node="b", instance="b1", lease=OTHER_LEASE).decide() == ()


def test_a_claimed_shard_starts_under_the_revision_of_its_claim_and_resumes_its_session() -> None:
    assert Picture().claim().session().decide() == (Start(SHARD, 0, Fence(20), CONFIG, SESSION),)


def test_a_fence_written_into_the_claim_counts_more_than_the_revision_of_its_last_edit() -> None:
    assert Picture().claim(revision=30, fence=20).decide() == (Start(SHARD, 0, Fence(20), CONFIG, None),)


@pytest.mark.parametrize("other", [{"intents": 3}, {"count": 4}, {"token_hash": "x"}], ids=str)
def test_a_session_of_another_configuration_is_not_resumed(other: dict[str, Any]) -> None:
    assert Picture().claim().session(**other).decide() == (Start(SHARD, 0, Fence(20), CONFIG, None),)


def test_the_claim_of_our_older_process_is_taken_over_with_a_new_fence_guarded_by_its_revision() -> None:
    picture = Picture().claim(instance="a0", lease=OTHER_LEASE, fence=15, state="live")
    assert picture.decide() == claims(unchanged(20))


def test_a_shard_whose_worker_died_is_claimed_again_for_a_live_worker() -> None:
    own = replace(OWN, loads={1: 3})
    assert Picture().claim(state="live", fence=15).decide(own=own) == claims(unchanged(20), worker=1)


def test_without_a_worker_nothing_is_claimed() -> None:
    assert Picture().decide(own=replace(OWN, loads={})) == ()


def test_shards_claimed_in_one_pass_are_spread_over_the_workers() -> None:
    picture = Picture()
    picture.put(KEYS.plan("bot", 0), PlanRecord(app="bot", group=0, term=LeaderTerm(1), nodes={"a": "0-1"}), 4)
    assert [action.worker if isinstance(action, Claim) else None for action in picture.decide()] == [0, 1]


def test_a_shard_returns_to_its_worker_unless_that_one_has_clearly_more_shards() -> None:
    assert pick_worker({0: 4, 1: 3}, previous=0) == 0
    assert pick_worker({0: 5, 1: 3}, previous=0) == 1
    assert pick_worker({0: 3, 1: 3}) == 0
    assert pick_worker({1: 3}, previous=0) == 1
    assert pick_worker({}) is None


def test_a_shard_whose_chain_has_ended_keeps_its_claim_and_claims_again_if_that_is_lost() -> None:
    ended = replace(RUNNING, phase="ended")
    assert Picture().claim(state="ended").decide(ended) == ()
    assert Picture().decide(ended) == claims(ABSENT, fence=20)
    (renewed,) = Picture().claim(lease=OTHER_LEASE, state="ended").decide(ended)
    assert isinstance(renewed, Claim)
    assert renewed.compares == (unchanged(20),)


# --- stopping and releasing -------------------------------------------------------------------------------------


def test_a_shard_planned_elsewhere_is_drained_and_its_claim_deleted_only_after_it_stopped() -> None:
    picture = Picture(planned="b").claim()
    assert picture.decide(RUNNING) == (Stop(SHARD, "no longer planned here"),)
    assert picture.decide(replace(RUNNING, phase="stopping")) == ()
    assert picture.decide(replace(RUNNING, phase="stopped")) == RELEASE


@pytest.mark.parametrize("picture", [Picture(paused=True), Picture(planned=None)], ids=["paused", "no plan"])
def test_an_unplanned_shard_stops_and_a_claim_left_of_it_is_released(picture: Picture) -> None:
    assert picture.claim().decide(RUNNING) == (Stop(SHARD, "no longer planned here"),)
    assert picture.decide() == RELEASE


def test_the_shards_of_a_removed_application_stop() -> None:
    picture = Picture().claim()
    del picture.items[KEYS.app("bot")]
    assert picture.decide(RUNNING) == (Stop(SHARD, "no longer planned here"),)


def test_a_stopped_shard_whose_claim_is_gone_is_dropped() -> None:
    forgotten = Abandon(SHARD, "stopped, and its claim is gone")
    assert Picture(planned="b").decide(replace(RUNNING, phase="stopped")) == (forgotten,)


@pytest.mark.parametrize("phase", ["running", "stopping", "stopped", "failed"])
def test_a_shard_that_another_node_claimed_is_abandoned_whatever_it_was_doing(phase: Any) -> None:
    picture = Picture().claim(node="b", instance="b1", lease=OTHER_LEASE)
    assert picture.decide(replace(RUNNING, phase=phase)) == (Abandon(SHARD, "claimed by node b"),)


def test_stops_and_releases_come_before_claims() -> None:
    picture = Picture(planned=None).claim()
    picture.put(KEYS.plan("bot", 0), PlanRecord(app="bot", group=0, term=LeaderTerm(1), nodes={"a": "1"}), 4)
    assert [type(action) for action in picture.decide(RUNNING)] == [Stop, Claim]


# --- a lost lease -----------------------------------------------------------------------------------------------


def test_a_shard_that_outlived_its_claim_is_claimed_again_under_its_old_fence() -> None:
    assert Picture().decide(replace(RUNNING, worker=1)) == claims(ABSENT, fence=20, worker=1)


def test_a_shard_without_a_session_that_outlived_its_claim_is_stopped_and_then_claimed_under_a_new_fence() -> None:
    """Another node may have had it meanwhile, and begun a session that can be resumed."""
    running = replace(RUNNING, has_session=False)
    picture = Picture().session()
    assert picture.decide(running) == (Stop(SHARD, "its claim is gone before it has a session"),)
    assert picture.decide(replace(running, phase="stopping")) == ()
    assert picture.decide(replace(running, phase="stopped")) == (Abandon(SHARD, "stopped, and its claim is gone"),)
    assert picture.decide() == claims(ABSENT)
    assert picture.claim().decide() == (Start(SHARD, 0, Fence(20), CONFIG, SESSION),)


def test_a_claim_under_our_previous_lease_is_moved_to_the_present_one_and_keeps_its_fence() -> None:
    picture = Picture().claim(lease=OTHER_LEASE)
    assert picture.decide(RUNNING) == claims(unchanged(20), fence=20)


@pytest.mark.parametrize(
    "own",
    [replace(OWN, connected=False), replace(OWN, lease=None), replace(OWN, lease=99), replace(OWN, instance="a2")],
    ids=["cluster unreachable", "no lease", "registered under another lease", "a namesake is registered"],
)
def test_a_node_whose_membership_is_uncertain_changes_nothing(own: LocalNode) -> None:
    assert Picture(planned="b").claim().decide(RUNNING, own) == ()
    assert Picture().decide(own=own) == ()


# --- configuration and failure ----------------------------------------------------------------------------------


def test_a_shard_running_as_configured_needs_nothing() -> None:
    assert Picture().claim(state="live").decide(RUNNING) == ()


@pytest.mark.parametrize(
    ("changes", "resume"),
    [({"compression": "none"}, True), ({"large_threshold": 90}, True), ({"intents": 3}, False)],
    ids=str,
)
def test_a_changed_configuration_restarts_in_place_and_resumes_where_discord_allows_it(
    changes: dict[str, Any], resume: bool
) -> None:
    (action,) = Picture(**changes).claim(state="live").decide(RUNNING)
    assert isinstance(action, Restart)
    assert (action.resume, action.fence) == (resume, 20)
    assert action.config == replace(CONFIG, **changes)


def test_a_stopped_shard_that_is_still_wanted_starts_again_in_its_worker() -> None:
    picture = Picture().claim().session()
    stopped = LocalShard(1, Fence(20), CONFIG, "stopped")
    assert picture.decide(stopped) == (Start(SHARD, 1, Fence(20), CONFIG, SESSION),)


def test_a_changed_presence_or_route_does_not_restart_a_shard() -> None:
    assert Picture(route="x", presence={"status": "idle"}).claim(state="live").decide(RUNNING) == ()


def test_a_failed_shard_keeps_its_claim_and_waits_until_the_configuration_changes() -> None:
    failed = replace(RUNNING, phase="failed")
    assert Picture().claim(state="failed").decide(failed) == ()
    (action,) = Picture(intents=3).claim(state="failed").decide(failed)
    assert isinstance(action, Restart)
    assert not action.resume


def test_a_failed_shard_is_tried_once_more_after_any_change_of_its_application() -> None:
    failed = replace(RUNNING, phase="failed", failed_under=2)
    picture = Picture().claim(state="failed")
    assert picture.decide(failed) == ()
    changed = picture.put(KEYS.app("bot"), picture.items[KEYS.app("bot")].value, 21)
    assert changed.decide(failed) == (
        Restart(SHARD, Fence(20), CONFIG, False, "the application was changed after it had failed"),
    )
    assert changed.decide(replace(failed, failed_under=21)) == ()
    assert changed.decide(replace(RUNNING, failed_under=2)) == ()


def test_a_failed_claim_without_a_local_shard_is_tried_again_only_after_its_application_was_edited() -> None:
    picture = Picture().claim(state="failed")
    assert picture.decide() == ()
    picture.put(KEYS.app("bot"), picture.items[KEYS.app("bot")].value, 21)
    assert picture.decide() == claims(unchanged(20))


def test_a_failed_shard_of_a_closing_group_starts_again_to_end_its_chain() -> None:
    failed, record = replace(RUNNING, phase="failed", failed_under=2), Picture().items[KEYS.group("bot", 0)].value
    group = msgspec.structs.replace(msgspec.json.decode(record, type=GroupRecord), phase="closing")
    picture = Picture().claim(state="failed").put(KEYS.group("bot", 0), group, 21)
    assert picture.decide(failed) == (
        Restart(SHARD, Fence(20), CONFIG, False, "its group is closing: its chain has to end"),
    )
    assert picture.decide(replace(failed, phase="stopped")) == (Start(SHARD, 0, Fence(20), CONFIG, None),)
    assert picture.decide(replace(failed, phase="ended")) == ()
    # Its worker has gone since.
    assert picture.decide() == claims(unchanged(20))


def test_a_failed_shard_planned_elsewhere_releases_its_claim() -> None:
    assert Picture(planned="b").claim(state="failed").decide(replace(RUNNING, phase="failed")) == RELEASE


# --- corrupt records --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [KEYS.app("bot"), KEYS.group("bot", 0), KEYS.plan("bot", 0)])
def test_a_record_that_cannot_be_read_neither_stops_nor_releases_nor_claims(key: str) -> None:
    picture = Picture().claim().put(key, b"{", 9)
    assert picture.decide(RUNNING) == ()
    assert picture.decide() == ()


def test_an_unreadable_claim_of_another_node_is_not_contested() -> None:
    picture = Picture().put(KEYS.claim(*SHARD), b"{", 20, OTHER_LEASE)
    assert picture.decide() == ()
    assert picture.decide(RUNNING) == ()


def test_an_unreadable_claim_under_our_own_lease_is_repaired_or_released() -> None:
    picture = Picture().put(KEYS.claim(*SHARD), b"{", 20, LEASE)
    assert picture.decide() == claims(unchanged(20))
    assert picture.decide(RUNNING) == claims(unchanged(20), fence=20)
    elsewhere = Picture(planned="b").put(KEYS.claim(*SHARD), b"{", 20, LEASE)
    assert elsewhere.decide(replace(RUNNING, phase="stopped")) == RELEASE


# --- an operator's restart, and a store restored from a backup --------------------------------------------------


def test_a_restart_stops_the_shard_releases_its_claim_and_is_complete_with_the_next_claim() -> None:
    asked = Picture().claim(state="live").put(KEYS.restart(*SHARD), RestartRecord(), 25)
    assert asked.decide(RUNNING) == (Stop(SHARD, "an operator asked for a restart"),)
    assert asked.decide(replace(RUNNING, phase="stopped")) == RELEASE
    assert asked.decide(replace(RUNNING, phase="failed")) == RELEASE
    reclaimed = Picture().claim(revision=26).put(KEYS.restart(*SHARD), RestartRecord(), 25)
    assert reclaimed.decide() == (Start(SHARD, 0, Fence(26), CONFIG, None),)
    assert reclaimed.decide(replace(RUNNING, fence=Fence(26))) == ()


def test_a_chain_fenced_by_a_claim_lost_from_the_store_gets_a_higher_fence_and_a_real_owners_does_not() -> None:
    view = ClusterView.from_items(KEYS, Picture().claim(state="connecting").items)
    bid = outbid(view, OWN, SHARD, Fence(20), 700)
    assert bid is not None
    assert bid.compares == (unchanged(20),)
    (write,) = bid.writes
    record = msgspec.json.decode(write.value, type=ClaimRecord)
    assert (record.fence, record.state, write.lease) == (701, "claiming", LEASE)
    assert outbid(view, OWN, SHARD, Fence(19), 700) is None, "the claim is not the one that was fenced"
    assert outbid(view, OWN, SHARD, Fence(20), 12) is None, "an older fence refuses no writer"
    theirs = ClusterView.from_items(KEYS, Picture().claim(node="b", instance="b1", lease=OTHER_LEASE).items)
    assert outbid(theirs, OWN, SHARD, Fence(20), 700) is None


def test_a_claim_that_is_older_than_the_running_shard_is_of_a_backup_and_is_claimed_back() -> None:
    theirs = Picture().claim(revision=12, node="b", instance="b1", lease=OTHER_LEASE, state="live")
    assert theirs.decide(RUNNING) == claims(unchanged(12), fence=20)
    assert theirs.decide(replace(RUNNING, has_session=False)) == (Abandon(SHARD, "claimed by node b"),)
    newer = Picture().claim(revision=21, node="b", instance="b1", lease=OTHER_LEASE)
    assert newer.decide(RUNNING) == (Abandon(SHARD, "claimed by node b"),)
    above = Picture().claim(revision=12, node="b", instance="b1", lease=OTHER_LEASE, fence=Fence(21))
    assert above.decide(RUNNING) == (Abandon(SHARD, "claimed by node b"),), "it has been claimed above the chain's end"
