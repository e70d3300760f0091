"""A leader does not plan again while nothing that a plan is made from has changed."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from sandwich_coordinator import planner, plans
from sandwich_coordinator.ids import GroupId, LeaderTerm
from sandwich_coordinator.leader import reconcile
from sandwich_coordinator.plans import LeaderMemory, LeaderWrite, pace_s, together
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.store.base import Compare, Delete, KeyValue, Put, WatchBatch, WatchEvent
from sandwich_coordinator.types import ClaimRecord
from sandwich_coordinator.view import ClusterView
from tests.unit.coordinator.test_leader import KEYS, Desk

KEY = GroupId("bot", 0)


class Leader:
    """Decides from one view that changes, as a real one does, and counts its plans."""

    def __init__(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        self.view = ClusterView.from_items(KEYS, desk.items)
        self.memory, self.policy, self.plans = LeaderMemory(), desk.policy, 0
        self.wake_at: float | None = None
        really = planner.plan

        def counted(*args: object, **kwargs: object) -> object:
            self.plans += 1
            return really(*args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(plans, "plan", counted)

    def decide(self, now: float = 0.0) -> dict[str, str] | None:
        """The plan that is written, which the view then has; None when none is."""
        done = reconcile(self.view, {}, self.memory, term=LeaderTerm(1), now=now, wall=now, policy=self.policy)
        self.memory, self.wake_at = done.memory, done.wake_at
        for write in done.writes:
            for change in write.writes:
                if isinstance(change, Put) and change.key == KEYS.plan(*KEY):
                    self.put(change.key, change.value)
                    found: dict[str, str] = msgspec.json.decode(change.value)["nodes"]
                    return found
        return None

    def put(self, key: str, value: bytes, lease: int = 0) -> None:
        revision = self.view.revision + 1
        kv = KeyValue(key, value, revision, revision, 1, lease)
        self.view = self.view.apply(WatchBatch((WatchEvent("put", kv),), revision))

    def remove(self, key: str) -> None:
        revision = self.view.revision + 1
        self.view = self.view.apply(WatchBatch((WatchEvent("delete", KeyValue(key, b"", 0, revision, 0)),), revision))

    def claimed(self, shard: int, node: str) -> None:
        """The shard is at its new owner."""
        record = ClaimRecord(app="bot", group=0, shard=shard, node=node, instance=node, worker=0, state="live")
        self.put(KEYS.claim("bot", 0, shard), record.encode(), 50)


def draining(**policy: int) -> Desk:
    desk = Desk("ab", **policy).app(12).budget().group(count=12, ids="0-11").plan(a="0-5", b="6-11")
    return desk.claims(["live"] * 12, a=range(6), b=range(6, 12)).node("a", "draining")


def test_the_next_shards_move_once_half_of_those_on_their_way_have_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    leader = Leader(draining(moves_in_flight_max=4), monkeypatch)
    assert leader.decide() == {"a": "0-1", "b": "2-11"}
    assert leader.decide() is None
    planned = leader.plans
    leader.claimed(5, "b")
    assert leader.decide() is None
    assert leader.plans == planned
    leader.claimed(4, "b")
    assert leader.decide() == {"b": "0-11"}


def test_what_shards_do_at_their_owners_needs_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    leader = Leader(draining(), monkeypatch)
    assert leader.decide() == {"b": "0-11"}
    for shard in range(6):
        leader.claimed(shard, "b")
    assert leader.decide() is None
    planned = leader.plans
    leader.claimed(0, "b")
    assert leader.decide() is None
    assert leader.plans == planned


def test_nodes_that_have_settled_are_planned_with_although_nothing_else_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk("a").app().budget().group().plan(a="0-3").claims(["live"] * 4)
    leader = Leader(desk, monkeypatch)
    assert leader.decide(0.0) is None
    node = desk.node("b").items[KEYS.node("b")]
    leader.put(node.key, node.value, 50)
    assert leader.decide(10.0) is None
    planned = leader.plans
    assert leader.decide(11.0) is None
    assert leader.plans == planned
    assert leader.decide(10.0 + Policy().settle_s) == {"a": "0-1", "b": "2-3"}


def write(*puts: str, guards: Sequence[str] = (), deletes: Sequence[str] = (), size: int = 1) -> LeaderWrite:
    compares = tuple(Compare(key, "mod_revision", 1) for key in guards)
    return LeaderWrite(compares, (*(Put(key, b"x" * size) for key in puts), *map(Delete, deletes)), "")


def test_writes_share_a_transaction_unless_one_depends_on_another_or_etcd_would_refuse_it() -> None:
    a, b, c = write("a", guards=["g"]), write("b", guards=["g"]), write("c", guards=["a"])
    assert list(together([a, b, c])) == [[a, b], [c]]
    again, gone = write("a"), write("d", deletes=["e"])
    assert list(together([a, again, b])) == [[a], [again, b]]
    assert list(together([a, gone, b])) == [[a], [gone], [b]]
    assert list(together([])) == []
    many = [write(f"k{number}", guards=["g", f"k{number}"]) for number in range(120)]
    assert [len(batch) for batch in together(many)] == [50, 50, 20]
    large = [write(f"k{number}", size=300_000) for number in range(3)]
    assert [len(batch) for batch in together(large)] == [1, 1, 1]


def test_in_a_large_cluster_plans_come_apart_so_that_not_all_nodes_write_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [f"n{number:02d}" for number in range(62)]
    desk = Desk("").app(62).budget().group(count=62, ids="0-61")
    for name in names:
        desk.node(name)
    planned: dict[str, Any] = {name: str(number) for number, name in enumerate(names)}
    owners: dict[str, Any] = {name: [number] for number, name in enumerate(names)}
    desk.plan(**planned).claims(["live"] * 62, **owners)
    leader = Leader(desk, monkeypatch)
    assert leader.decide(0.0) is None

    def lost(number: int) -> None:
        for key in (KEYS.node(names[number]), KEYS.claim("bot", 0, number)):
            leader.remove(key)

    lost(61)
    first = leader.decide(10.0)
    assert first is not None
    assert names[61] not in first
    lost(60)
    assert leader.decide(10.05) is None
    assert leader.wake_at == 10.0 + pace_s(60) == 10.2
    second = leader.decide(10.21)
    assert second is not None
    assert names[60] not in second


def test_a_small_cluster_plans_at_once() -> None:
    assert pace_s(20) == 0.0
    assert pace_s(100) == 0.4
