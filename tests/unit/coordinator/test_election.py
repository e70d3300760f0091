from dataclasses import replace

import pytest

from sandwich_coordinator.election import Campaign, Candidate, Follow, Lead, Resign, StepDown, deadline, decide
from sandwich_coordinator.ids import LeaderTerm
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.store.base import Compare, Delete, KeyValue, Put
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import LeaderRecord, NodeRecord
from sandwich_coordinator.view import ClusterView

KEYS, POLICY = Keys("t"), Policy(lease_ttl_s=5.0, step_down_margin_s=1.0)
OWN = Candidate(node="a", instance="a1", lease=11, lease_valid_until=105.0)


def member(node: str = "a", instance: str = "a1", lease: int = 11, revision: int = 3) -> KeyValue:
    record = NodeRecord(node=node, instance=instance, address="", version="1")
    return KeyValue(KEYS.node(node), record.encode(), revision, revision, 1, lease)


def leads(node: str = "a", instance: str = "a1", lease: int = 11, revision: int = 7) -> KeyValue:
    return KeyValue(KEYS.leader, LeaderRecord(node=node, instance=instance).encode(), revision, revision, 1, lease)


def view(*items: KeyValue) -> ClusterView:
    return ClusterView.from_items(KEYS, {kv.key: kv for kv in items})


def test_a_registered_node_campaigns_for_a_missing_leader_key_under_its_own_lease() -> None:
    assert decide(view(member()), OWN, 100.0, POLICY) == Campaign(
        (Compare(KEYS.leader, "create_revision", 0), Compare(KEYS.node("a"), "mod_revision", 3)),
        (Put(KEYS.leader, LeaderRecord(node="a", instance="a1").encode(), 11),),
    )


@pytest.mark.parametrize(
    ("items", "own"),
    [
        ((), OWN),
        ((member(instance="a2"),), OWN),
        ((member(lease=12),), OWN),
        ((member(),), replace(OWN, lease=None)),
        ((member(),), replace(OWN, leaving=True)),
        ((member(),), replace(OWN, lease_valid_until=101.0)),
    ],
    ids=["unregistered", "namesake", "older lease", "no lease", "leaving", "lease about to run out"],
)
def test_a_node_that_may_not_lead_only_follows(items: tuple[KeyValue, ...], own: Candidate) -> None:
    assert decide(view(*items), own, 100.0, POLICY) == Follow(None)


def test_the_winner_leads_with_the_create_revision_of_its_key_even_if_it_got_no_answer() -> None:
    assert decide(view(member(), leads(revision=9)), OWN, 100.0, POLICY) == Lead(LeaderTerm(9))


def test_a_node_follows_whoever_else_leads_and_does_not_take_over_a_key_of_its_own_older_process() -> None:
    assert decide(view(member(), leads("b", "b1", 12)), OWN, 100.0, POLICY) == Follow("b")
    assert decide(view(member(), leads(instance="a0", lease=9)), OWN, 100.0, POLICY) == Follow("a")


def test_an_unreadable_leader_record_is_still_a_leader_and_no_node_campaigns_against_it() -> None:
    broken = KeyValue(KEYS.leader, b"{", 7, 7, 1, 12)
    assert decide(view(member(), broken), OWN, 100.0, POLICY) == Follow(None)


def test_a_leader_steps_down_before_its_lease_can_have_run_out_and_not_earlier() -> None:
    own, picture = replace(OWN, leads=LeaderTerm(7)), view(member(), leads())
    assert deadline(own, POLICY) == 104.0
    assert decide(picture, own, 103.9, POLICY) == Lead(LeaderTerm(7))
    assert isinstance(decide(picture, own, 104.0, POLICY), StepDown)
    assert isinstance(decide(picture, replace(own, lease=None), 100.0, POLICY), StepDown)


def test_a_follower_has_no_deadline() -> None:
    assert deadline(OWN, POLICY) is None


@pytest.mark.parametrize(
    "items", [(), (leads("b", "b1", 12, 9),), (leads(revision=9),)], ids=["gone", "other", "newer"]
)
def test_a_leader_whose_key_is_gone_or_of_another_term_steps_down_before_anything_else(
    items: tuple[KeyValue, ...],
) -> None:
    assert isinstance(decide(view(member(), *items), replace(OWN, leads=LeaderTerm(7)), 100.0, POLICY), StepDown)


def test_a_leader_that_leaves_gives_its_key_back_guarded_by_its_term() -> None:
    own = replace(OWN, leads=LeaderTerm(7), leaving=True)
    resign = Resign((Compare(KEYS.leader, "create_revision", 7),), (Delete(KEYS.leader),))
    assert decide(view(member(), leads()), own, 100.0, POLICY) == resign


def test_a_leader_key_under_our_previous_lease_is_given_back_rather_than_waited_for() -> None:
    assert isinstance(decide(view(member(), leads(lease=10)), OWN, 100.0, POLICY), Resign)


def test_an_election_has_one_winner_when_every_node_campaigns_from_the_same_picture() -> None:
    nodes = {name: member(name, name, lease) for name, lease in (("a", 1), ("b", 2), ("c", 3))}
    own = [Candidate(node=n, instance=n, lease=kv.lease, lease_valid_until=105.0) for n, kv in nodes.items()]
    items = {kv.key: kv for kv in nodes.values()}
    for candidate in own:
        step = decide(view(*nodes.values()), candidate, 100.0, POLICY)
        assert isinstance(step, Campaign)
        if all((getattr(items.get(c.key), c.field, 0)) == c.expected for c in step.compares):
            put = step.writes[0]
            items[put.key] = KeyValue(put.key, put.value, 8, 8, 1, put.lease)
    after = view(*items.values())
    assert [decide(after, candidate, 100.0, POLICY) for candidate in own] == [
        Lead(LeaderTerm(8)),
        Follow("a"),
        Follow("a"),
    ]
