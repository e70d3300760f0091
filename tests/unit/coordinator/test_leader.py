from collections.abc import Iterable, Sequence
from typing import Any, Self

import msgspec
import pytest

from sandwich_coordinator.gateway_state import GatewayState
from sandwich_coordinator.ids import GroupId, LeaderTerm
from sandwich_coordinator.leader import LeaderDecision, LookupWanted, reconcile
from sandwich_coordinator.plans import LeaderMemory
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.store.base import Compare, Delete, KeyValue, Put
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import (
    AppRecord,
    BudgetRecord,
    ClaimRecord,
    GroupRecord,
    GroupState,
    LeaderRecord,
    NodeRecord,
    PinRecord,
    PlanRecord,
    RestartRecord,
    SessionRecord,
    ShardsSpec,
)
from sandwich_coordinator.view import ClusterView

KEYS = Keys("t")
KEY = GroupId("bot", 0)
OF_SHARDS = [f"{prefix}bot/0/" for prefix in (KEYS.sessions, KEYS.pins, KEYS.restarts)]
LEADER = KeyValue(KEYS.leader, LeaderRecord(node="a", instance="a").encode(), 1, 1, 1, 1)


class Desk:
    """A cluster with nodes, one application of four shards and the leader's memory; each write has revision 10."""

    def __init__(self, nodes: str = "ab", **policy: Any) -> None:
        self.items, self.memory, self.policy = {KEYS.leader: LEADER}, LeaderMemory(), Policy(**policy)
        self.gateway: dict[str, GatewayState] = {}
        for node in nodes:
            self.node(node)

    def put(self, key: str, record: Any, revision: int = 10, lease: int = 0) -> Self:
        value = record if isinstance(record, bytes) else record.encode()
        self.items[key] = KeyValue(key, value, revision, revision, 1, lease)
        return self

    def node(self, node: str, state: Any = "ready") -> Self:
        record = NodeRecord(node=node, instance=node, address="", version="1", state=state)
        return self.put(KEYS.node(node), record, lease=50)

    def gone(self, *nodes: str) -> Self:
        for node in nodes:
            del self.items[KEYS.node(node)]
        return self

    def app(self, count: Any = 4, revision: int = 10, **more: Any) -> Self:
        record = AppRecord(app="bot", token="sealed", token_hash="h", intents=1, shards=ShardsSpec(count=count), **more)
        return self.put(KEYS.app("bot"), record, revision)

    def group(
        self,
        state: GroupState = "live",
        reason: str = "",
        count: int = 4,
        ids: str = "0-3",
        group: int = 0,
        **more: Any,
    ) -> Self:
        record = GroupRecord(
            app="bot",
            group=group,
            count=count,
            ids=ids,
            term=LeaderTerm(1),
            state=state,
            reason=reason,
            intents=1,
            token="sealed",
            token_hash="h",
            **more,
        )
        return self.put(KEYS.group("bot", group), record)

    def plan(self, group: int = 0, **nodes: str) -> Self:
        return self.put(KEYS.plan("bot", group), PlanRecord(app="bot", group=group, term=LeaderTerm(1), nodes=nodes))

    def claims(self, states: Sequence[Any], group: int = 0, sessions: bool = True, **owners: Iterable[int]) -> Self:
        by_shard = {shard: node for node, shards in owners.items() for shard in shards}
        for shard, state in enumerate(states):
            node = by_shard.get(shard, "a")
            record = ClaimRecord(
                app="bot", group=group, shard=shard, node=node, instance=node, worker=0, state=state, reason="4014"
            )
            self.put(KEYS.claim("bot", group, shard), record, lease=50)
        return self.sessions(range(len(states)), group) if sessions else self

    def sessions(self, shards: Iterable[int], group: int = 0) -> Self:
        record = SessionRecord(session_id="s", resume_url="u", intents=1, count=4, first_seq=1, token_hash="h")
        for shard in shards:
            self.put(KEYS.session("bot", group, shard), record)
        return self

    def budget(
        self, shards: int = 4, fetched_at: float = 0.0, remaining: int = 9, reset_at: float = 9e9, error: str = ""
    ) -> Self:
        return self.put(KEYS.budget("h"), answer(fetched_at, shards, remaining, reset_at, error))

    def lead(self, now: float = 0.0) -> LeaderDecision:
        view = ClusterView.from_items(KEYS, self.items)
        done = reconcile(view, self.gateway, self.memory, term=LeaderTerm(1), now=now, wall=now, policy=self.policy)
        assert all(write.compares[0] == Compare(KEYS.leader, "create_revision", 1) for write in done.writes)
        self.memory = done.memory
        return done

    def written(self, key: str, now: float = 0.0) -> Any:
        """The record the leader writes at `key`; None for a delete, "nothing" for no write."""
        for write in self.lead(now).writes:
            for change in write.writes:
                if change.key == key or (isinstance(change, Delete) and change.prefix and key.startswith(change.key)):
                    return msgspec.json.decode(change.value) if isinstance(change, Put) else None
        return "nothing"

    def state(self, now: float = 0.0) -> str | tuple[str, str]:
        """(state, reason) the leader records of the group; "nothing" when it stays."""
        record = self.written(KEYS.group(*KEY), now)
        return record if isinstance(record, str) else (record.get("state", "starting"), record.get("reason", ""))

    def planned(self, now: float = 0.0) -> Any:
        record = self.written(KEYS.plan(*KEY), now)
        return record["nodes"] if isinstance(record, dict) else record


def answer(
    fetched_at: float = 0.0, shards: int = 4, remaining: int = 9, reset_at: float = 9e9, error: str = ""
) -> BudgetRecord:
    return BudgetRecord(
        url="u",
        shards=shards,
        total=9,
        remaining=remaining,
        reset_at=reset_at,
        max_concurrency=1,
        fetched_at=fetched_at,
        error=error,
    )


def running(nodes: str = "ab", **policy: Any) -> Desk:
    """A live group, two shards on each of two nodes; a fixpoint."""
    desk = Desk(nodes, **policy).app().budget().group().plan(a="0-1", b="2-3")
    return desk.claims(["live"] * 4, a=(0, 1), b=(2, 3))


def test_a_group_that_is_as_it_should_be_is_left_alone() -> None:
    done = running().lead()
    assert (done.writes, done.lookups) == ((), ())


# --- states -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "claims", "after"),
    [
        ("starting", ["live"] * 3 + ["identifying"], "nothing"),
        ("starting", ["live"] * 4, ("live", "")),
        ("degraded", ["live"] * 4, ("live", "")),
        ("live", ["live"] * 3 + ["failed"], ("degraded", "shard 3: 4014")),
        ("live", ["live", "failed", "live", "failed"], ("degraded", "shard 1: 4014")),
        ("starting", ["failed"] * 4, ("failed", "shard 0: 4014")),
        ("failed", ["connecting"] * 4, ("starting", "")),
    ],
)
def test_the_state_of_a_group_follows_its_claims(
    before: GroupState, claims: list[str], after: str | tuple[str, str]
) -> None:
    assert Desk().app().budget().group(before).plan(a="0-1", b="2-3").claims(claims).state() == after


def test_a_live_group_is_called_degraded_only_after_a_while_so_that_a_move_writes_nothing() -> None:
    desk = running().claims(["live", "live", "live", "resuming"], a=(0, 1), b=(2, 3))
    done = desk.lead(100.0)
    assert (done.writes, done.wake_at) == ((), 110.0)
    assert desk.state(109.9) == "nothing"
    assert desk.state(110.0) == ("degraded", "some shards are not live")


def test_a_group_that_became_whole_in_between_starts_its_patience_again() -> None:
    desk = running().claims(["resuming"] + ["live"] * 3, a=(0, 1), b=(2, 3))
    desk.lead(100.0)
    desk.claims(["live"] * 4, a=(0, 1), b=(2, 3)).lead(105.0)
    desk.claims(["resuming"] + ["live"] * 3, a=(0, 1), b=(2, 3))
    assert desk.lead(112.0).writes == ()


def test_a_group_without_any_accepting_node_waits_and_says_so() -> None:
    desk = Desk("").app().budget().group("starting").node("a", "cordoned")
    assert desk.state() == ("waiting", "no node accepts shards")


# --- counts and generations -------------------------------------------------------------------------------------


def test_an_automatic_count_waits_for_discord_and_then_takes_what_it_recommends() -> None:
    desk = Desk().app("auto")
    assert desk.state() == ("waiting", "asking Discord how many shards are needed")
    desk.group("waiting", "asking Discord how many shards are needed", count=0, ids="").budget(shards=16)
    record = desk.written(KEYS.group(*KEY))
    assert (record["count"], record["ids"], record.get("state", "starting")) == (16, "0-15", "starting")


def test_an_automatic_count_once_chosen_stays_when_discord_recommends_another() -> None:
    writes = running().app("auto").budget(shards=16).lead().writes
    assert [change.key for write in writes for change in write.writes] == [KEYS.proposal("bot")]


def test_the_reason_names_why_an_automatic_count_is_not_known() -> None:
    desk = Desk().app("auto")
    desk.gateway["h"] = GatewayState(ended_at=0.0, failures=1, error="no route")
    assert desk.state() == ("waiting", "Discord did not say how many shards are needed: no route")
    assert desk.budget(shards=0, error="401").state() == ("failed", "Discord refused the token: 401")


@pytest.mark.parametrize(("count", "ids"), [(0, None), (-1, None), (4, "3-9"), (4, "x")])
def test_a_shard_count_or_range_that_makes_no_sense_fails_the_group_and_plans_nothing(
    count: int, ids: str | None
) -> None:
    desk = Desk().budget()
    record = AppRecord(app="bot", token="s", token_hash="h", intents=1, shards=ShardsSpec(count=count, ids=ids))
    desk.put(KEYS.app("bot"), record)
    found = desk.state()
    assert isinstance(found, tuple)
    state, reason = found
    assert (state, reason != "") == ("failed", True)
    assert desk.planned() == "nothing"


def test_a_new_count_of_a_group_without_sessions_replaces_it_in_one_transaction() -> None:
    desk = Desk().app(8).budget().group("starting").plan(a="0-1", b="2-3").claims(["identifying"] * 4, sessions=False)
    (write,) = desk.lead().writes
    assert {type(change) for change in write.writes} == {Put, Delete}
    deleted = [change.key for change in write.writes if isinstance(change, Delete)]
    assert deleted == [KEYS.group(*KEY), KEYS.plan(*KEY), *OF_SHARDS]
    assert [change.key for change in write.writes if isinstance(change, Put)] == [
        KEYS.group("bot", 1),
        KEYS.group_number("bot"),
    ]


def test_a_new_generation_is_planned_only_after_the_claims_of_the_old_one_are_gone() -> None:
    desk = Desk().app(2).budget().group("starting", count=2, ids="0-1", group=1).claims(["live"] * 4, sessions=False)
    assert desk.written(KEYS.plan("bot", 1)) == "nothing"
    for shard in range(4):
        del desk.items[KEYS.claim("bot", 0, shard)]
    assert desk.written(KEYS.plan("bot", 1))["nodes"] == {"a": "0", "b": "1"}


def test_a_paused_application_loses_its_plan_and_keeps_its_group_and_sessions() -> None:
    done = running().app(paused=True).lead()
    changes = {change.key: change for write in done.writes for change in write.writes}
    assert changes.keys() == {KEYS.group(*KEY), KEYS.plan(*KEY)}
    assert changes[KEYS.plan(*KEY)] == Delete(KEYS.plan(*KEY))
    paused = changes[KEYS.group(*KEY)]
    assert isinstance(paused, Put)
    assert msgspec.json.decode(paused.value)["state"] == "paused"
    assert done.lookups == ()


def test_everything_of_a_removed_application_goes_and_only_if_it_is_still_removed() -> None:
    desk = running()
    del desk.items[KEYS.app("bot")]
    group, budget = desk.lead().writes
    assert Compare(KEYS.app("bot"), "create_revision", 0) in group.compares
    assert [w.key for w in group.writes] == [KEYS.group(*KEY), KEYS.plan(*KEY), *OF_SHARDS]
    assert budget.writes == (Delete(KEYS.budget("h")),)


def test_a_session_written_after_its_group_was_removed_goes_too() -> None:
    assert Desk().sessions([2]).written(KEYS.session("bot", 0, 2)) is None


# --- look-ups ---------------------------------------------------------------------------------------------------


def test_a_failing_look_up_is_tried_again_after_twice_the_time_each_time_up_to_a_limit() -> None:
    desk = Desk().app("auto")
    assert desk.lead(100.0).lookups == (LookupWanted("h", "bot"),)
    for failures, wait in ((1, 2.0), (2, 4.0), (5, 32.0), (9, 300.0), (5000, 300.0)):
        desk.gateway["h"] = GatewayState(ended_at=100.0, failures=failures, error="no route")
        early = desk.lead(100.0 + wait - 0.1)
        assert (early.lookups, early.wake_at) == ((), 100.0 + wait)
        assert desk.lead(100.0 + wait).lookups == (LookupWanted("h", "bot"),)


def test_one_look_up_is_under_way_at_a_time() -> None:
    desk = Desk().app("auto")
    desk.gateway["h"] = GatewayState(in_flight=True)
    assert desk.lead(100.0).lookups == ()


def test_a_budget_is_looked_up_again_every_hour_and_when_its_reset_has_passed() -> None:
    assert running().lead(3599.0).lookups == ()
    assert running().lead(3600.0).lookups == (LookupWanted("h", "bot"),)
    assert running().budget(reset_at=60.0).lead(59.0).wake_at == 60.0
    assert running().budget(reset_at=60.0).lead(60.0).lookups == (LookupWanted("h", "bot"),)


def test_an_answer_within_the_same_window_never_raises_what_is_left() -> None:
    desk = running().budget(remaining=3)
    desk.gateway["h"] = GatewayState(ended_at=5.0, answer=answer(5.0, remaining=7))
    assert desk.written(KEYS.budget("h"), 5.0)["remaining"] == 3
    assert desk.budget(remaining=3, reset_at=4.0).written(KEYS.budget("h"), 5.0)["remaining"] == 7


def asked(before: BudgetRecord | None, remaining: int, under_way: int = 0, reset_at: float = 9e9) -> GatewayState:
    """An answer of 5.0, to a question that was asked while the record was `before`."""
    new = answer(5.0, remaining=remaining, reset_at=reset_at)
    return GatewayState(ended_at=5.0, answer=new, before=before, under_way=under_way)


@pytest.mark.parametrize("clock_s", [0.0, -3600.0, 3600.0])
def test_an_answer_counts_less_what_discord_may_not_have_counted_whatever_the_clock_of_the_leader_before(
    clock_s: float,
) -> None:
    """It had 9 left when the question was asked; two were reserved since, and three buckets were held."""
    before = answer(clock_s, remaining=9, reset_at=clock_s + 4.0)
    desk = running().put(KEYS.budget("h"), msgspec.structs.replace(before, remaining=7))
    desk.gateway["h"] = asked(before, remaining=1000, under_way=3, reset_at=80_000.0)
    assert desk.written(KEYS.budget("h"), 5.0)["remaining"] == 1000 - 2 - 3
    desk.gateway["h"] = asked(before, remaining=4, under_way=3)
    assert desk.written(KEYS.budget("h"), 5.0).get("remaining") == 0, "never below nothing"


def test_an_answer_that_another_leaders_overtook_raises_nothing_within_a_day() -> None:
    before = answer(1.0, remaining=9, reset_at=80_000.0)
    desk = running().put(KEYS.budget("h"), msgspec.structs.replace(before, fetched_at=2.0, remaining=6))
    desk.gateway["h"] = asked(before, remaining=8, reset_at=80_000.0 + 3600.0)
    assert desk.written(KEYS.budget("h"), 5.0)["remaining"] == 6
    desk.gateway["h"] = asked(before, remaining=1000, under_way=1, reset_at=80_000.0 + 86_400.0)
    assert desk.written(KEYS.budget("h"), 5.0)["remaining"] == 999


def test_a_leader_whose_clock_is_an_hour_behind_asks_and_records_like_any_other() -> None:
    desk = running().budget(fetched_at=7200.0, remaining=5, reset_at=90000.0)
    assert desk.lead(3600.0).lookups == (LookupWanted("h", "bot"),)
    desk.gateway["h"] = GatewayState(ended_at=3601.0, answer=answer(3601.0, remaining=4))
    assert desk.written(KEYS.budget("h"), 3601.0)["remaining"] == 4
    assert desk.budget(fetched_at=3601.0, remaining=4).lead(3602.0).lookups == ()


def test_discord_is_not_asked_before_the_time_that_its_rate_limit_names() -> None:
    desk = Desk().app("auto")
    desk.gateway["h"] = GatewayState(ended_at=100.0, failures=1, error="429", retry_at=160.0)
    early = desk.lead(159.9)
    assert (early.lookups, early.wake_at) == ((), 160.0)
    assert desk.lead(160.0).lookups == (LookupWanted("h", "bot"),)


def test_an_old_answer_does_not_fill_in_for_a_missing_budget_and_is_asked_for_again() -> None:
    desk = running()
    del desk.items[KEYS.budget("h")]
    desk.gateway["h"] = GatewayState(ended_at=5.0, answer=answer(5.0))
    fresh = desk.lead(20.0)
    assert ([write.writes[0].key for write in fresh.writes], fresh.lookups) == ([KEYS.budget("h")], ())
    stale = desk.lead(36.0)
    assert (stale.writes, stale.lookups) == ((), (LookupWanted("h", "bot"),))


# --- who is there -----------------------------------------------------------------------------------------------


def fleet(**policy: Any) -> Desk:
    """Four nodes with one shard each, seen by the leader at 0."""
    desk = Desk("abcd", **policy).app().budget().group().plan(a="0", b="1", c="2", d="3")
    desk.claims(["live"] * 4, a=(0,), b=(1,), c=(2,), d=(3,)).lead(0.0)
    return desk


def crash(desk: Desk, *nodes: str) -> Desk:
    for node in nodes:
        del desk.items[KEYS.claim("bot", 0, "abcd".index(node))]
    return desk.gone(*nodes)


def test_the_shards_of_one_crashed_node_move_at_once() -> None:
    assert crash(fleet(), "d").planned(10.0) == {"a": "0,3", "b": "1", "c": "2"}


def test_when_most_nodes_vanish_at_once_nothing_moves_for_one_more_ttl() -> None:
    desk = crash(fleet(), "b", "c", "d")
    done = desk.lead(10.0)
    assert [write.reason for write in done.writes] == [f"node {node} is gone" for node in "bcd"]
    assert done.memory.hold_until == 15.0
    assert desk.planned(14.9) == "nothing"
    assert desk.planned(15.0) == {"a": "0-3"}


def test_nodes_that_come_back_during_the_wait_keep_their_shards_without_a_move() -> None:
    desk = crash(fleet(), "b", "c", "d")
    desk.lead(10.0)
    for node in "bcd":
        desk.node(node)
    done = desk.lead(12.0)
    assert (done.writes, done.memory.hold_until) == ((), None)


def test_exactly_half_of_the_nodes_is_not_most_of_them() -> None:
    assert crash(fleet(), "c", "d").planned(10.0) == {"a": "0,2", "b": "1,3"}


def test_a_new_leader_counts_the_nodes_its_plans_name_among_the_vanished() -> None:
    desk = crash(fleet(), "b", "c", "d")
    desk.memory = LeaderMemory()
    assert desk.lead(10.0).memory.hold_until == 15.0


def test_within_its_grace_period_a_restarting_node_keeps_its_shards_and_after_it_they_move() -> None:
    desk = crash(fleet(restart_grace_s=20.0), "d")
    done = desk.lead(10.0)
    assert [write for write in done.writes if "planned" in write.reason] == []
    assert desk.planned(29.9) == "nothing"
    assert desk.planned(30.0) == {"a": "0,3", "b": "1", "c": "2"}


def test_a_node_back_within_its_grace_period_finds_its_plan_unchanged() -> None:
    desk = crash(fleet(restart_grace_s=20.0), "d")
    desk.lead(10.0)
    desk.node("d")
    assert desk.planned(12.0) == "nothing"
    assert desk.planned(60.0) == "nothing"


def test_a_node_that_came_and_went_three_times_gets_nothing_new_until_it_was_quiet() -> None:
    desk = Desk("ab").app().budget().group().plan(a="0-3").claims(["live"] * 4)
    desk.lead(0.0)
    for at in (10.0, 20.0, 30.0):
        desk.gone("b").lead(at)
        desk.node("b").lead(at + 1.0)
    assert desk.planned(60.0) == "nothing"
    assert desk.lead(60.0).wake_at == 130.0
    assert desk.planned(130.0) == {"a": "0-1", "b": "2-3"}


def test_a_flapping_node_still_serves_when_there_is_no_other() -> None:
    desk = Desk("a").app().budget().group("starting")
    desk.memory = LeaderMemory(members=frozenset("a"), departures={"a": (1.0, 2.0, 3.0)})
    assert desk.planned(10.0) == {"a": "0-3"}


def test_a_new_node_gets_shards_once_membership_has_settled() -> None:
    desk = Desk("a").app().budget().group().plan(a="0-3").claims(["live"] * 4)
    desk.lead(0.0)
    desk.node("b")
    done = desk.lead(10.0)
    assert (done.writes, done.wake_at) == ((), 13.0)
    assert desk.planned(13.0) == {"a": "0-1", "b": "2-3"}


# --- moves ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["claiming", "connecting", "resuming", "identifying", "failed"])
def test_shards_stuck_at_their_owner_do_not_stop_a_node_from_draining(state: str) -> None:
    desk = running(moves_in_flight_max=2).claims([state] * 4, a=(0, 1), b=(2, 3)).node("a", "draining")
    assert desk.planned() == {"b": "0-3"}


def test_shards_between_two_owners_count_against_the_limit_until_the_new_owner_has_them() -> None:
    desk = running(moves_in_flight_max=1).node("a", "draining")
    assert desk.planned() == {"a": "0", "b": "1-3"}
    desk.plan(a="0", b="1-3")
    assert desk.planned() == "nothing"
    claim = desk.items.pop(KEYS.claim("bot", 0, 1))
    assert desk.planned() == "nothing"
    desk.items[claim.key] = claim
    desk.claims(["live", "resuming", "live", "live"], a=(0,), b=(1, 2, 3))
    assert desk.planned() == {"b": "0-3"}


def test_orphans_are_placed_whatever_the_limit_on_moves() -> None:
    assert crash(fleet(moves_in_flight_max=0), "d").planned(10.0) == {"a": "0,3", "b": "1", "c": "2"}


# --- damaged records --------------------------------------------------------------------------------------------


def test_a_node_whose_record_cannot_be_read_is_not_absent_while_its_lease_lives_but_gets_nothing_new() -> None:
    desk = fleet().put(KEYS.node("d"), b"{", lease=50)
    done = desk.lead(60.0)
    assert (done.writes, done.memory.departed) == ((), {})
    desk.app(8).group(count=8, ids="0-7")
    assert desk.planned(60.0)["d"] == "3"


def test_unreadable_node_records_are_no_mass_loss_and_one_without_a_lease_is_absent() -> None:
    desk = fleet()
    for node in "bcd":
        desk.put(KEYS.node(node), b"{", lease=50)
    assert desk.lead(60.0).memory.hold_until is None
    desk = crash(fleet(), "d").put(KEYS.node("d"), b"{", lease=0)
    assert desk.planned(60.0) == {"a": "0,3", "b": "1", "c": "2"}


def test_an_unreadable_group_is_neither_created_again_nor_removed_nor_planned() -> None:
    assert running().put(KEYS.group(*KEY), b"{").lead().writes == ()


def test_an_unreadable_plan_or_budget_is_replaced_under_the_guard_of_its_revision() -> None:
    desk = running().put(KEYS.plan(*KEY), b"{", 12)
    (write,) = desk.lead().writes
    assert Compare(KEYS.plan(*KEY), "mod_revision", 12) in write.compares
    assert desk.planned() == {"a": "0-1", "b": "2-3"}
    desk = running().put(KEYS.budget("h"), b"{", 12)
    desk.gateway["h"] = GatewayState(ended_at=5.0, answer=answer(5.0))
    (write,) = desk.lead(5.0).writes
    assert Compare(KEYS.budget("h"), "mod_revision", 12) in write.compares


def test_the_application_record_being_unreadable_removes_nothing() -> None:
    assert running().put(KEYS.app("bot"), b"{").lead().writes == ()


def test_an_application_whose_newest_generation_cannot_be_read_is_not_planned_by_an_older_one() -> None:
    desk = Desk().app().budget().group("starting").put(KEYS.group("bot", 1), b"{")
    assert desk.planned() == "nothing"


# --- what operators ask for -------------------------------------------------------------------------------------


def test_a_pinned_shard_goes_to_its_node_and_another_makes_room() -> None:
    desk = running().put(KEYS.pin("bot", 0, 3), PinRecord(node="a"))
    assert desk.written(KEYS.plan(*KEY))["nodes"] == {"a": "0,3", "b": "1-2"}


def test_a_pin_to_a_node_that_takes_nothing_rests() -> None:
    desk = running().node("a", "cordoned").put(KEYS.pin("bot", 0, 3), PinRecord(node="a"))
    assert desk.lead().writes == ()


def test_a_restart_request_goes_once_the_shard_was_claimed_again() -> None:
    desk = running().put(KEYS.restart("bot", 0, 2), RestartRecord(), revision=10)
    assert desk.lead().writes == ()
    desk.put(KEYS.restart("bot", 0, 2), RestartRecord(), revision=9)
    (write,) = desk.lead().writes
    assert write.writes == (Delete(KEYS.restart("bot", 0, 2)),)
    assert Compare(KEYS.restart("bot", 0, 2), "mod_revision", 9) in write.compares


# --- a doubted address ------------------------------------------------------------------------------------------


def doubted(desk: Desk, confirmed: int = 0, fetched_at: float = 100.0, url: str = "u") -> Desk:
    record = answer(fetched_at)
    record = msgspec.structs.replace(record, url=url, unreachable="connection refused", confirmed=confirmed)
    return desk.put(KEYS.budget("h"), record)


def test_an_address_that_shards_cannot_reach_is_asked_for_again_within_seconds_then_less_and_less_often() -> None:
    for confirmed, wait in ((0, 5.0), (1, 10.0), (2, 20.0), (3, 40.0), (4, 60.0), (5000, 60.0)):
        desk = doubted(running(), confirmed)
        early = desk.lead(100.0 + wait - 0.1)
        assert (early.lookups, early.wake_at) == ((), 100.0 + wait)
        assert desk.lead(100.0 + wait).lookups == (LookupWanted("h", "bot"),)


def test_the_answer_takes_the_doubt_away_and_counts_how_often_it_named_the_same_address() -> None:
    desk = doubted(running(), confirmed=2)
    desk.gateway["h"] = GatewayState(ended_at=120.0, answer=answer(120.0))
    written = desk.written(KEYS.budget("h"), 120.0)
    assert (written["url"], written.get("unreachable", ""), written["confirmed"]) == ("u", "", 3)
    other = msgspec.structs.replace(answer(120.0), url="another")
    desk.gateway["h"] = GatewayState(ended_at=120.0, answer=other)
    written = desk.written(KEYS.budget("h"), 120.0)
    assert (written["url"], written.get("unreachable", ""), written.get("confirmed", 0)) == ("another", "", 0)


def test_an_address_that_was_confirmed_long_ago_is_asked_for_quickly_when_it_fails_again() -> None:
    desk = doubted(running(), confirmed=4, fetched_at=100.0)
    desk.gateway["h"] = GatewayState(ended_at=3700.0, answer=answer(3700.0))
    assert desk.written(KEYS.budget("h"), 3700.0).get("confirmed", 0) == 0


def test_a_doubted_address_that_discord_is_not_there_to_name_is_asked_for_once_a_minute() -> None:
    desk = doubted(running())
    for failures, wait in ((1, 5.0), (4, 16.0), (9, 60.0)):
        desk.gateway["h"] = GatewayState(ended_at=100.0, failures=failures, error="no route")
        assert desk.lead(100.0 + wait - 0.1).lookups == ()
        assert desk.lead(100.0 + wait).lookups == (LookupWanted("h", "bot"),)


def test_a_doubted_address_is_not_asked_for_before_the_time_that_a_rate_limit_names() -> None:
    desk = doubted(running())
    desk.gateway["h"] = GatewayState(ended_at=101.0, failures=1, error="429", retry_at=900.0)
    assert desk.lead(899.0).lookups == ()


# --- capacity -------------------------------------------------------------------------------------------------------


def labelled(desk: Desk, node: str, max_shards: int = 0, state: Any = "ready", **labels: str) -> Desk:
    record = NodeRecord(
        node=node, instance=node, address="", version="1", state=state, max_shards=max_shards, labels=labels
    )
    return desk.put(KEYS.node(node), record, lease=50)


def test_a_group_is_planned_on_the_nodes_that_its_placement_names_and_follows_new_labels() -> None:
    desk = labelled(labelled(Desk(""), "a", region="eu"), "b", region="us")
    desk.app(placement={"region": "eu"}).budget().group("starting")
    assert desk.planned() == {"a": "0-3"}
    labelled(labelled(desk, "a", region="us"), "b", region="eu").plan(a="0-3")
    assert desk.claims(["live"] * 4, a=(0, 1, 2, 3)).planned() == {"b": "0-3"}


def test_a_group_whose_placement_no_node_has_waits_and_says_so() -> None:
    desk = Desk("").app(placement={"region": "eu", "host": "x"}).budget().group("starting")
    assert labelled(desk, "a", host="x").planned() == "nothing"
    assert desk.state() == (
        "waiting",
        "shards have no place: no node that takes shards has the labels host=x,region=eu",
    )


def test_shards_beyond_every_limit_have_no_node_and_the_group_says_so() -> None:
    desk = labelled(Desk(""), "a", max_shards=3).app().budget().group("starting")
    assert desk.planned() == {"a": "0-2"}
    desk.plan(a="0-2").claims(["live"] * 3, a=(0, 1, 2))
    assert desk.state() == (
        "starting",
        "shards have no place: every node that may run them is at its limit (--max-shards)",
    )


def test_a_shard_that_has_a_session_gets_a_place_before_one_that_never_ran() -> None:
    desk = labelled(Desk(""), "a", max_shards=2).app().budget().group("degraded")
    session = SessionRecord(session_id="s", resume_url="u", intents=1, count=4, first_seq=1, token_hash="h")
    desk.put(KEYS.session("bot", 0, 3), session)
    assert desk.planned() == {"a": "0,3"}
