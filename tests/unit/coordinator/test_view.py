from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandwich_coordinator.ids import Fence, GroupId, LeaderTerm, ShardId
from sandwich_coordinator.store.base import KeyValue, WatchBatch, WatchEvent
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import ClaimRecord, GroupRecord, LeaderRecord, NodeRecord, PlanRecord
from sandwich_coordinator.view import ClusterView

KEYS = Keys("t")
CLAIM = ClaimRecord(app="bot", group=0, shard=1, node="a", instance="a1", worker=0)
SHARD = ShardId("bot", 0, 1)


def kv(key: str, value: bytes, revision: int = 5, lease: int = 0, created: int | None = None) -> KeyValue:
    return KeyValue(key, value, revision if created is None else created, revision, 1, lease)


def view(*items: KeyValue, revision: int = 0) -> ClusterView:
    return ClusterView.from_items(KEYS, {item.key: item for item in items}, revision)


def put(*args: Any, **more: Any) -> WatchEvent:
    return WatchEvent("put", kv(*args, **more))


def delete(key: str, revision: int) -> WatchEvent:
    return WatchEvent("delete", KeyValue(key, b"", 0, revision, 0))


def test_a_claim_needs_a_lease_and_its_fence_is_its_revision_until_one_is_recorded() -> None:
    name = KEYS.claim(*SHARD)
    assert view(kv(name, CLAIM.encode(), lease=9)).fence(SHARD) == 5
    written = ClaimRecord(app="bot", group=0, shard=1, node="a", instance="a1", worker=0, fence=Fence(3))
    assert view(kv(name, written.encode(), lease=9)).fence(SHARD) == 3
    assert view().fence(SHARD) is None


@pytest.mark.parametrize(
    ("key", "value", "lease", "reason"),
    [
        (KEYS.claim(*SHARD), CLAIM.encode(), 0, "no lease"),
        (KEYS.claim("bot", 0, 2), CLAIM.encode(), 9, "another shard"),
        (KEYS.claims + "bot/0", CLAIM.encode(), 9, "number of parts"),
        (KEYS.claims + "bot/0/01", CLAIM.encode(), 9, "not a number"),
        (KEYS.claims + "bot//1", CLAIM.encode(), 9, "number of parts"),
        (KEYS.claims + "bot/0/" + "9" * 5000, CLAIM.encode(), 9, ""),
        (KEYS.node("a"), b"{", 9, ""),
        (KEYS.node("a"), b'{"node":"\xff"}', 9, ""),
        (KEYS.node("a"), b'{"node":"a"}', 9, "instance"),
        (KEYS.node("b"), NodeRecord(node="a", instance="i", address="", version="1").encode(), 9, "another node"),
        (KEYS.plan("bot", 0), b"[]", 0, "object"),
    ],
)
def test_a_corrupt_entry_is_collected_with_its_reason_and_never_raised(
    key: str, value: bytes, lease: int, reason: str
) -> None:
    picture = view(kv(key, value, lease=lease), kv(KEYS.leader, LeaderRecord(node="a", instance="i").encode(), lease=1))
    assert picture.bad.keys() == {key}
    assert reason in picture.bad[key].reason
    assert (picture.revision_of_bad(key), picture.bad[key].lease) == (5, lease)
    assert (picture.claims, picture.nodes, picture.plans) == ({}, {}, {})
    assert picture.leader is not None


def test_a_corrupt_entry_that_is_repaired_or_deleted_is_no_longer_bad() -> None:
    name = KEYS.claim(*SHARD)
    broken = view(kv(name, b"{", lease=9))
    repaired = broken.apply(WatchBatch((put(name, CLAIM.encode(), 6, 9, created=5),), 6))
    assert (repaired.bad, repaired.claims[SHARD].create_revision) == ({}, 5)
    assert broken.apply(WatchBatch((delete(name, 6),), 6)).bad == {}
    again = repaired.apply(WatchBatch((put(name, b"{", 7, 9),), 7))
    assert (again.claims, again.revision_of_bad(name)) == ({}, 7)


@pytest.mark.parametrize("key", [KEYS.app("bot"), KEYS.group("bot", 0), KEYS.plan("bot", 0)])
def test_a_group_is_unreadable_when_its_application_group_or_plan_is(key: str) -> None:
    picture = view(kv(key, b"{"))
    assert picture.unreadable(GroupId("bot", 0))
    assert not picture.unreadable(GroupId("other", 0))


def test_an_unreadable_leader_still_has_a_leader_term() -> None:
    picture = view(kv(KEYS.leader, b"{", 5, 1))
    assert picture.leader is not None
    assert picture.leader.create_revision == 5
    assert KEYS.leader in picture.bad
    assert picture.apply(WatchBatch((delete(KEYS.leader, 6),), 6)).leader is None


def test_a_change_shares_unchanged_parts_and_leaves_the_old_view_unchanged() -> None:
    node = kv(KEYS.node("a"), NodeRecord(node="a", instance="i", address="", version="1").encode(), lease=1)
    before = view(node)
    after = before.apply(WatchBatch((put(KEYS.claim(*SHARD), CLAIM.encode(), 6, 9),), 6))
    assert after.nodes is before.nodes
    assert (before.claims, list(after.claims)) == ({}, [SHARD])


def test_a_progress_notification_only_advances_the_revision_and_never_sets_it_back() -> None:
    before = view(kv(KEYS.claim(*SHARD), CLAIM.encode(), lease=9), revision=40)
    assert before.apply(WatchBatch((), 50)).revision == 50
    assert before.apply(WatchBatch((), 30)).revision == 40


def test_events_of_a_store_that_was_restored_from_a_backup_set_the_revision_back() -> None:
    before = view(revision=110)
    listed = WatchBatch((put(KEYS.claim(*SHARD), CLAIM.encode(), 58, 9),), 58)
    assert before.apply(listed).revision == 58
    assert before.apply(listed, WatchBatch((), 59)).revision == 59


def test_unknown_keys_are_ignored() -> None:
    picture = view(kv(KEYS.prefix + "future/thing", b"{"))
    assert (picture.bad, picture.revision) == ({}, 5)


def test_the_configuration_is_kept_as_it_is_stored() -> None:
    stored = kv(KEYS.config, b"{")
    picture = view(stored)
    assert (picture.bad, picture.config) == ({}, stored)
    changed = kv(KEYS.config, b"[")
    assert picture.apply(WatchBatch((WatchEvent("put", changed),), 6)).config == changed
    assert picture.apply(WatchBatch((WatchEvent("delete", changed),), 6)).config is None


EVENT = st.tuples(st.integers(0, 3), st.sampled_from(["good", "bad", "leaseless", "delete"]))


@given(st.lists(st.lists(EVENT, max_size=4), max_size=8))
@settings(max_examples=100, deadline=None)
def test_applying_changes_batch_by_batch_gives_the_same_view_as_a_listing(
    batches: list[list[tuple[int, str]]],
) -> None:
    items: dict[str, KeyValue] = {}
    picture, revision = view(), 0
    for batch in batches:
        events = []
        for shard, kind in batch:
            revision += 1
            name = KEYS.claim("bot", 0, shard)
            record = ClaimRecord(app="bot", group=0, shard=shard, node="a", instance="a1", worker=revision)
            if kind == "delete":
                items.pop(name, None)
                events.append(delete(name, revision))
            else:
                value = b"{" if kind == "bad" else record.encode()
                items[name] = kv(name, value, revision, 0 if kind == "leaseless" else 9)
                events.append(WatchEvent("put", items[name]))
        picture = picture.apply(WatchBatch(tuple(events), revision))
    assert picture == ClusterView.from_items(KEYS, items, revision)


def test_the_leader_term_is_stored_in_the_field_epoch() -> None:
    group = GroupRecord(app="bot", group=0, count=2, ids="0-1", term=LeaderTerm(7))
    plan = PlanRecord(app="bot", group=0, term=LeaderTerm(7), nodes={"a": "0-1"})
    for record in (group, plan):
        assert msgspec.json.decode(record.encode())["epoch"] == 7
        assert msgspec.json.decode(record.encode(), type=type(record)) == record
