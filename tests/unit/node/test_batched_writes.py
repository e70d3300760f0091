"""Guarded writes, many in one transaction, against the in-memory store on virtual time."""

import asyncio

from sandwich_coordinator.store.base import Compare, Put, StoreAmbiguous, StoreUnavailable, TxnResult
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_node.agent.batched_writes import AT_ONCE, BatchedWrites, GuardedWrite
from verification.simulation.loop import run_virtual


class CountingStore(MemoryStore):
    """Counts the writes of each transaction."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def txn(self, compares: object, writes: object) -> TxnResult:
        self.sizes.append(len(writes))  # type: ignore[arg-type]
        return await super().txn(compares, writes)  # type: ignore[arg-type]


def create(key: str) -> GuardedWrite:
    return GuardedWrite((Compare(key, "create_revision", 0),), (Put(key, b"new"),))


def test_many_writes_are_few_transactions() -> None:
    async def main() -> None:
        store = CountingStore()
        applied = await BatchedWrites(store).commit([create(f"k{number}") for number in range(2 * AT_ONCE + 1)])
        assert sorted(store.sizes) == [1, AT_ONCE, AT_ONCE]
        assert all(applied)
        assert len((await store.list("k")).items) == 2 * AT_ONCE + 1

    run_virtual(main())


def test_what_a_node_of_a_hundred_shards_claims_is_one_transaction() -> None:
    async def main() -> None:
        store = CountingStore()
        assert all(await BatchedWrites(store).commit([create(f"k{number}") for number in range(100)]))
        assert store.sizes == [100]

    run_virtual(main())


def test_a_write_whose_guard_fails_does_not_take_the_others_with_it() -> None:
    async def main() -> None:
        store = CountingStore()
        await store.txn([], [Put("k1", b"old")])
        applied = await BatchedWrites(store).commit([create(f"k{number}") for number in range(3)])
        assert [bool(one) for one in applied] == [True, False, True]
        assert applied[1] == 0
        assert {item.key: item.value for item in (await store.list("k")).items} == {
            "k0": b"new",
            "k1": b"old",
            "k2": b"new",
        }

    run_virtual(main())


def test_what_the_store_did_not_answer_is_reported_as_not_known() -> None:
    async def main() -> None:
        for error in (StoreUnavailable("away"), StoreAmbiguous("lost")):
            store = CountingStore()
            store.fail(error, verbs=["txn"])
            assert await BatchedWrites(store).commit([create("a"), create("b")]) == [None, None]

    run_virtual(main())


def test_writes_that_come_within_a_moment_share_a_transaction_and_each_has_its_answer() -> None:
    async def main() -> None:
        store = CountingStore()
        await store.txn([], [Put("k1", b"old")])
        store.sizes.clear()
        writes = BatchedWrites(store)
        answers = await asyncio.gather(*(writes.gather(create(f"k{number}")) for number in range(3)))
        assert [bool(one) for one in answers] == [True, False, True]
        assert store.sizes == [3, 1, 1, 1]
        assert await writes.gather(create("k9"))
        assert store.sizes[4:] == [1]

    run_virtual(main())


def test_when_the_one_that_gathers_is_cancelled_the_others_are_answered() -> None:
    async def main() -> None:
        for wait_s in (0.001, 0.0201):
            store = CountingStore()
            writes = BatchedWrites(store)
            first = asyncio.create_task(writes.gather(create("a")))
            second = asyncio.create_task(writes.gather(create("b")))
            await asyncio.sleep(wait_s)
            first.cancel()
            async with asyncio.timeout(1):
                assert await second in (None, 2)
            assert await writes.gather(create("c")), "the next one gathers again"

    run_virtual(main())
