"""Cordon, uncordon, drain and forget: what is refused and written, and how long a drain waits. Time is virtual."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from sandwich_coordinator.cli.progress import progress_lines, shown
from sandwich_coordinator.ids import LeaderTerm
from sandwich_coordinator.operations.errors import Conflict, NotFound, NotReached, OperationError, Refused
from sandwich_coordinator.operations.nodes import change_state, drain, forget
from sandwich_coordinator.operations.progress import NodeStateSet, NoOtherNodeReady, OthersDraining, ignore
from sandwich_coordinator.store.base import Compare, Delete, Put, StoreAmbiguous, StoreUnavailable, TxnResult
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import ClaimRecord, DepartedRecord, NodeRecord, NodeState, PlanRecord
from tests.support.interfering_store import InterferingStore
from verification.simulation.loop import run_virtual

KEYS = Keys()


async def add_node(store: MemoryStore, node: str, state: NodeState = "ready", instance: str = "1") -> int:
    lease = await store.grant(600)
    record = NodeRecord(node=node, instance=instance, address="h:1", version="1", state=state)
    await store.txn([], [Put(KEYS.node(node), record.encode(), lease)])
    return lease


async def state_of(store: MemoryStore, node: str) -> str:
    found = await store.get(KEYS.node(node))
    assert found is not None
    return msgspec.json.decode(found.value, type=NodeRecord).state


async def claim(store: MemoryStore, node: str, shard: int, lease: int) -> None:
    record = ClaimRecord(app="music", group=0, shard=shard, node=node, instance="1", worker=0)
    await store.txn([], [Put(KEYS.claim("music", 0, shard), record.encode(), lease)])


async def refused(store: MemoryStore, node: str, wanted: NodeState) -> str:
    with pytest.raises(OperationError) as raised:
        await change_state(store, KEYS, node, wanted)
    assert isinstance(raised.value, NotFound | Refused)
    return str(raised.value)


def test_an_edit_keeps_the_lease_and_the_fields_a_newer_node_wrote() -> None:
    async def main() -> None:
        store = MemoryStore()
        lease = await store.grant(10)
        value = {"node": "a", "instance": "1", "address": "h:1", "version": "9", "rack": "r7"}
        await store.txn([], [Put(KEYS.node("a"), msgspec.json.encode(value), lease)])
        await change_state(store, KEYS, "a", "cordoned")
        found = await store.get(KEYS.node("a"))
        assert found is not None
        assert msgspec.json.decode(found.value) == {**value, "state": "cordoned"}
        assert found.lease == lease
        assert not (await change_state(store, KEYS, "a", "cordoned")).writes
        await change_state(store, KEYS, "a", "ready")
        assert await state_of(store, "a") == "ready"

    run_virtual(main())


def test_an_unknown_node_is_refused_with_the_names_there_are() -> None:
    async def main() -> None:
        store = MemoryStore()
        await add_node(store, "a")
        assert "there is no node z; there are: a" in await refused(store, "z", "draining")

    run_virtual(main())


def test_the_last_ready_node_is_drained_only_by_force() -> None:
    async def main() -> None:
        store = MemoryStore()
        await add_node(store, "a")
        alone = await refused(store, "a", "draining")
        assert "it is the only node" in alone
        assert "With --force its shards stay on it until one is ready, and run nowhere if you stop it" in alone
        await add_node(store, "b", "cordoned")
        assert "b is cordoned" in await refused(store, "a", "draining")
        assert await state_of(store, "a") == "ready"
        edit = await change_state(store, KEYS, "a", "draining", force=True)
        assert edit.notes[-1] == NoOtherNodeReady()
        assert progress_lines(edit.notes[-1])[0].startswith("no other node is ready")
        assert await state_of(store, "a") == "draining"

    run_virtual(main())


def test_of_two_operators_draining_each_others_last_resort_the_later_is_refused() -> None:
    async def main() -> None:
        store = InterferingStore()
        await add_node(store, "a")
        lease = await add_node(store, "b")
        meanwhile = NodeRecord(node="b", instance="1", address="h:1", version="1", state="draining")
        store.other = Put(KEYS.node("b"), meanwhile.encode(), lease)
        assert "b is draining" in await refused(store, "a", "draining")
        assert await state_of(store, "a") == "ready"

    run_virtual(main())


def test_a_second_operator_is_shown_the_drain_of_the_first() -> None:
    async def main() -> None:
        store = MemoryStore()
        for node in "abc":
            await add_node(store, node)
        await change_state(store, KEYS, "a", "draining")
        again = (await change_state(store, KEYS, "a", "draining")).notes[0]
        assert again == NodeStateSet("a", "draining", "draining")
        assert progress_lines(again) == ["node a is draining already"]
        second = (await change_state(store, KEYS, "b", "draining")).notes
        assert OthersDraining(("a",)) in second
        assert progress_lines(second[1]) == ["draining too: a"]
        assert "uncordon it first" in await refused(store, "a", "cordoned")

    run_virtual(main())


def test_a_write_of_unknown_outcome_is_looked_up() -> None:
    async def main() -> None:
        store = MemoryStore()
        await add_node(store, "a")
        store.fail(StoreAmbiguous("cut"), verbs=["txn"], times=1, applied=True)
        await change_state(store, KEYS, "a", "cordoned")
        assert await state_of(store, "a") == "cordoned"

    run_virtual(main())


def test_a_drain_waits_until_no_shard_is_claimed_or_planned_and_rides_out_a_silent_store() -> None:
    async def main() -> None:
        store = MemoryStore()
        lease = await add_node(store, "a")
        await add_node(store, "b")
        for shard in (0, 1):
            await claim(store, "a", shard, lease)
        plan = PlanRecord(app="music", group=0, term=LeaderTerm(1), nodes={"a": "1-2", "b": "0"})
        await store.txn([], [Put(KEYS.plan("music", 0), plan.encode())])
        operator = store.peer()
        said: list[str] = []
        task = asyncio.create_task(drain(operator, KEYS, "a", force=False, timeout_s=60, report=shown(said.append)))
        await asyncio.sleep(2)
        assert said == ["node a is draining now (was ready)", "node a: 3 to move (music 3)"]
        operator.fail(StoreUnavailable("cut"), times=1)
        await store.txn([], [Delete(KEYS.claim("music", 0, shard)) for shard in (0, 1)])
        await asyncio.sleep(3)
        assert "the store does not answer" in said[2]
        assert said[3:] == ["node a: 2 to move (music 2)"]
        moved = msgspec.structs.replace(plan, nodes={"b": "0-2"})
        await store.txn([], [Put(KEYS.plan("music", 0), moved.encode())])
        await task
        assert said[-1] == "node a is drained: it has no shards and can be stopped"
        assert await state_of(store, "a") == "draining"

    run_virtual(main())


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("uncordoned", "another operator made it ready"),
        ("restarted", "was restarted"),
        ("gone", "left the cluster"),
        ("none", "not drained in 30 s"),
    ],
)
def test_a_drain_that_cannot_finish_ends_with_the_reason(event: str, reason: str) -> None:
    async def main() -> None:
        store = MemoryStore()
        lease = await add_node(store, "a")
        other = await add_node(store, "b")
        await claim(store, "a", 0, other)
        task = asyncio.create_task(drain(store, KEYS, "a", force=False, timeout_s=30, report=ignore))
        await asyncio.sleep(2)
        match event:
            case "uncordoned":
                await change_state(store, KEYS, "a", "ready")
            case "restarted":
                await add_node(store, "a", instance="2")
            case "gone":
                await store.revoke(lease)
        with pytest.raises(NotReached, match=reason):
            await task

    run_virtual(main())


def test_an_interrupted_drain_says_that_the_node_stays_draining() -> None:
    async def main() -> None:
        store = MemoryStore()
        lease = await add_node(store, "a")
        await add_node(store, "b")
        await claim(store, "a", 0, lease)
        said: list[str] = []
        task = asyncio.create_task(drain(store, KEYS, "a", force=False, timeout_s=30, report=shown(said.append)))
        await asyncio.sleep(2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert said[-1].startswith("node a stays draining: ")
        assert await state_of(store, "a") == "draining"

    run_virtual(main())


async def departed(store: MemoryStore, node: str) -> DepartedRecord:
    found = await store.get(KEYS.departed_node(node))
    assert found is not None
    return msgspec.json.decode(found.value, type=DepartedRecord)


def gone(node: str, **fields: bool) -> Put:
    return Put(KEYS.departed_node(node), DepartedRecord(node=node, at=5.0, **fields).encode())


def test_a_forgotten_node_counts_as_one_that_left_so_that_the_leader_does_not_record_it_again() -> None:
    async def main() -> None:
        store = MemoryStore()
        await store.txn([], [gone("b"), gone("c")])
        await forget(store, KEYS, "b")
        assert await departed(store, "b") == DepartedRecord(node="b", at=5.0, left=True)
        assert await departed(store, "c") == DepartedRecord(node="c", at=5.0)
        revision = store.database.revision
        await forget(store, KEYS, "b")
        assert store.database.revision == revision

    run_virtual(main())


def test_a_node_that_is_registered_or_unknown_is_not_forgotten() -> None:
    async def main() -> None:
        store = MemoryStore()
        await add_node(store, "a")
        await store.txn([], [gone("a"), gone("boxer")])
        with pytest.raises(Refused, match="node a is registered"):
            await forget(store, KEYS, "a")
        with pytest.raises(NotFound, match="there is no node that is gone boxr \\(did you mean boxer\\?\\)"):
            await forget(store, KEYS, "boxr")
        await store.txn([], [Put(KEYS.node("boxer"), b"{", await store.grant(60))])
        with pytest.raises(Refused, match="node boxer is registered"):
            await forget(store, KEYS, "boxer")
        assert not (await departed(store, "a")).left
        assert not (await departed(store, "boxer")).left

    run_virtual(main())


def test_a_node_that_returns_while_it_is_forgotten_is_not_marked() -> None:
    async def main() -> None:
        store = InterferingStore()
        await store.txn([], [gone("b")])
        record = NodeRecord(node="b", instance="2", address="h:1", version="1")
        store.other = Put(KEYS.node("b"), record.encode(), await store.grant(60))
        with pytest.raises(Refused, match="node b is registered"):
            await forget(store, KEYS, "b")
        assert not (await departed(store, "b")).left

    run_virtual(main())


def test_a_record_that_keeps_changing_is_a_conflict() -> None:
    class Restless(MemoryStore):
        async def txn(self, compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> TxnResult:
            if compares:
                await super().txn([], [gone("b")])
            return await super().txn(compares, writes)

    async def main() -> None:
        store = Restless()
        await store.txn([], [gone("b")])
        with pytest.raises(Conflict, match="node b keeps changing"):
            await forget(store, KEYS, "b")

    run_virtual(main())
