"""How an ordered group's workers divide its shards."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandwich_sdk.partitioning import (
    PARTITIONS_MAX,
    SILENT_MAX_S,
    GroupMembership,
    Heartbeat,
    assigned_partitions,
    partition_filters,
    partition_of,
    partitions_in,
)
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.switch import SHARDS_MAX

workers = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.booleans(), min_size=1, max_size=8)


@given(st.integers(0, 5000))
def test_a_shard_belongs_to_one_partition_and_no_other_reads_it(shard: int) -> None:
    subject = subjects.shard_filter("app", "all", shard)
    reading = [number for number in range(32 * 20) if subject in partition_filters("app", "all", number)]
    assert reading == [partition_of(shard)]


def test_up_to_32_shards_have_a_partition_each_and_so_have_ranges_of_256() -> None:
    assert [partition_of(shard) for shard in (0, 31, 32, 255, 256, 300)] == [0, 31, 0, 31, 32, 44]


def test_a_heartbeat_can_name_the_partition_of_every_shard_that_a_switch_can_name() -> None:
    assert partition_of(SHARDS_MAX - 1) == PARTITIONS_MAX - 1


def test_partitions_are_found_by_the_subjects_of_a_stream() -> None:
    found = ["sandwich.app.events.all.0.3", "sandwich.app.events.all.7.35", "sandwich.app.events.all.0.x"]
    assert partitions_in(found) == {3}


@given(st.sets(st.integers(0, 200), max_size=64), workers)
def test_every_partition_has_one_worker_that_is_not_busy_and_all_have_about_as_many(
    partitions: set[int], here: dict[str, bool]
) -> None:
    shares = {worker: assigned_partitions(partitions, here, worker) for worker in here}
    assert sorted(partition for part in shares.values() for partition in part) == sorted(partitions)
    free = [worker for worker, busy in here.items() if not busy] or list(here)
    sizes = [len(shares[worker]) for worker in free]
    assert max(sizes) - min(sizes) <= 1
    assert all(not shares[worker] for worker in here.keys() - free)


def test_a_worker_is_known_from_its_first_heartbeat_until_it_leaves_or_is_silent() -> None:
    membership = GroupMembership("b", partitions=frozenset({0, 1, 2, 3}))
    assert membership.own_partitions() == {0, 1, 2, 3}
    assert membership.receive(Heartbeat(worker="a", partitions=[0, 1, 2, 3, 4]), 10.0)
    assert not membership.receive(Heartbeat(worker="a"), 11.0)
    assert membership.own_partitions() == {1, 3}
    membership.remove_silent(11.0 + SILENT_MAX_S)
    assert membership.own_partitions() == {1, 3}
    membership.remove_silent(11.1 + SILENT_MAX_S)
    assert membership.own_partitions() == {0, 1, 2, 3, 4}
    assert membership.receive(Heartbeat(worker="c"), 20.0)
    assert not membership.receive(Heartbeat(worker="c", left=True), 20.5)
    assert membership.own_partitions() == {0, 1, 2, 3, 4}
    assert not membership.receive(Heartbeat(worker="b", partitions=[9]), 21.0)
    assert 9 not in membership.partitions


def test_a_busy_worker_hands_its_partitions_over_to_one_that_is_not() -> None:
    membership = GroupMembership("b", busy=True, partitions=frozenset({0, 1}))
    assert not membership.can_hand_over
    membership.receive(Heartbeat(worker="a", busy=True), 0.0)
    assert not membership.can_hand_over
    assert membership.own_partitions() == {1}
    membership.receive(Heartbeat(worker="a"), 1.0)
    assert membership.can_hand_over
    assert membership.own_partitions() == frozenset()


def test_known_fields_of_a_heartbeat_of_a_later_version_are_read() -> None:
    heartbeat = msgspec.json.decode(b'{"v":2,"worker":"a","busy":true,"more":1}', type=Heartbeat)
    assert (heartbeat.worker, heartbeat.busy, heartbeat.partitions) == ("a", True, [])
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"worker":"a","partitions":[1000000000]}', type=Heartbeat)
