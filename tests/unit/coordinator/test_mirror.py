"""The mirror equals the store after any faults. Time is virtual."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from sandwich_coordinator.store.base import Delete, KeyValue, Listing, Put, StoreUnavailable, WatchBatch
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.store.mirror import Mirror, difference
from verification.simulation.loop import run_virtual


async def with_mirror(
    store: MemoryStore, check: Callable[[Mirror, list[WatchBatch]], Awaitable[None]], relist_s: float = 60.0
) -> None:
    batches: list[WatchBatch] = []
    mirror = Mirror(store, "/m/", relist_s=relist_s, rng=random.Random(1))
    mirror.listen(batches.append)
    running = asyncio.create_task(mirror.run())
    try:
        await check(mirror, batches)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def values(mirror: Mirror) -> dict[str, bytes]:
    return {key: item.value for key, item in mirror.items.items()}


def test_it_lists_then_follows() -> None:
    async def check(mirror: Mirror, batches: list[WatchBatch]) -> None:
        await mirror.synced.wait()
        assert values(mirror) == {"/m/a": b"1"}
        await store.txn([], [Put("/m/b", b"2"), Delete("/m/a"), Put("/elsewhere", b"")])
        await asyncio.sleep(0.1)
        assert values(mirror) == {"/m/b": b"2"}
        assert [[e.kind for e in batch.events] for batch in batches] == [["put"], ["put", "delete"]]
        assert mirror.revision == store.database.revision

    async def main() -> None:
        await store.txn([], [Put("/m/a", b"1")])
        await with_mirror(store, check)

    store = MemoryStore()
    run_virtual(main())


def test_it_lists_again_after_a_compaction_and_reports_the_missed_changes() -> None:
    async def check(mirror: Mirror, batches: list[WatchBatch]) -> None:
        await mirror.synced.wait()
        away.fail(StoreUnavailable("cut"), times=None)
        await store.txn([], [Delete("/m/a")])
        last = (await store.txn([], [Put("/m/b", b"2")])).revision
        store.compact(last)
        await asyncio.sleep(1)
        assert values(mirror) == {"/m/a": b"1"}
        away.heal()
        await asyncio.sleep(20)
        assert values(mirror) == {"/m/b": b"2"}
        assert [(e.kind, e.kv.key) for e in batches[-1].events] == [("delete", "/m/a"), ("put", "/m/b")]

    async def main() -> None:
        await store.txn([], [Put("/m/a", b"1")])
        await with_mirror(away, check)

    store = MemoryStore()
    away = store.peer()
    run_virtual(main())


def test_a_lost_event_is_found_by_the_periodic_listing() -> None:
    async def check(mirror: Mirror, batches: list[WatchBatch]) -> None:
        await mirror.synced.wait()
        deaf.fail(StoreUnavailable("deaf"), verbs=["watch"])
        await store.txn([], [Put("/m/a", b"1")])
        await asyncio.sleep(50)
        assert values(mirror) == {}
        await asyncio.sleep(20)
        assert values(mirror) == {"/m/a": b"1"}
        deaf.heal()
        await asyncio.sleep(1)
        assert len(batches) == 1, "what the listing brought is not announced again"

    store = MemoryStore()
    deaf = store.peer()
    run_virtual(with_mirror(deaf, check))


def test_while_the_store_is_away_it_keeps_its_items_and_reports_since_when() -> None:
    async def check(mirror: Mirror, batches: list[WatchBatch]) -> None:
        await asyncio.sleep(30)
        assert not mirror.synced.is_set()
        assert mirror.stale_since is not None
        away.heal()
        await asyncio.sleep(6)
        assert mirror.stale_since is None
        assert values(mirror) == {"/m/a": b"1"}
        away.fail(StoreUnavailable("cut"), times=None)
        await asyncio.sleep(70)
        assert mirror.stale_since is not None
        assert values(mirror) == {"/m/a": b"1"}
        assert len(batches) == 1

    async def main() -> None:
        await store.txn([], [Put("/m/a", b"1")])
        away.fail(StoreUnavailable("cut"), times=None)
        await with_mirror(away, check)

    store = MemoryStore()
    away = store.peer()
    run_virtual(main())


def test_a_store_restored_from_a_backup_is_followed_back() -> None:
    async def check(mirror: Mirror, batches: list[WatchBatch]) -> None:
        await mirror.synced.wait()
        old = MemoryStore()
        await old.txn([], [Put("/m/b", b"restored")])
        store.database = old.database
        await asyncio.sleep(70)
        assert values(mirror) == {"/m/b": b"restored"}
        assert mirror.revision == old.database.revision
        await old.txn([], [Put("/m/c", b"")])
        await asyncio.sleep(1)
        assert set(mirror.items) == {"/m/b", "/m/c"}

    async def main() -> None:
        for n in range(5):
            await store.txn([], [Put("/m/a", b"%d" % n)])
        await with_mirror(store, check)

    store = MemoryStore()
    run_virtual(main())


def test_an_expiring_lease_reaches_the_mirror_on_the_loops_clock() -> None:
    async def main() -> None:
        async def check(mirror: Mirror, batches: list[WatchBatch]) -> None:
            lease = await store.grant(5)
            await store.txn([], [Put("/m/node", b"", lease)])
            await asyncio.sleep(4.5)
            assert "/m/node" in mirror.items
            await asyncio.sleep(1)
            assert "/m/node" not in mirror.items

        store = MemoryStore(asyncio.get_running_loop().time)
        await with_mirror(store, check)

    run_virtual(main())


@pytest.mark.parametrize("seed", range(20))
def test_after_any_history_of_faults_it_equals_the_store(seed: int) -> None:
    async def check(mirror: Mirror, batches: list[WatchBatch]) -> None:
        seen: dict[str, bytes] = {}
        for _ in range(200):
            match rng.randrange(8):
                case 0:
                    away.fail(StoreUnavailable("cut"), times=rng.choice([1, 2, None]))
                case 1:
                    away.heal()
                case 2 if store.database.revision > store.database.compacted:
                    store.compact(store.database.revision)
                case 3:
                    await asyncio.sleep(rng.uniform(0, 90))
                case 4:
                    await store.txn([], [Delete("/m/", prefix=True)])
                case _:
                    await store.txn([], [Put(f"/m/{rng.randrange(6)}", rng.randbytes(2))])
        away.heal()
        await asyncio.sleep(200)
        assert values(mirror) == {item.key: item.value for item in (await store.list("/m/")).items}
        for batch in batches:
            for event in batch.events:
                if event.kind == "put":
                    seen[event.kv.key] = event.kv.value
                else:
                    del seen[event.kv.key]
        assert seen == values(mirror), "the batches give the same state"

    rng = random.Random(seed)
    store = MemoryStore()
    away = store.peer()
    run_virtual(with_mirror(away, check))


def test_a_difference_is_deletes_by_key_then_puts_by_revision() -> None:
    def item(key: str, revision: int) -> KeyValue:
        return KeyValue(key, b"", revision, revision, 1)

    before = {"a": item("a", 1), "b": item("b", 2), "c": item("c", 3)}
    events = difference(before, Listing((item("b", 9), item("c", 3), item("d", 8)), 10))
    assert [(e.kind, e.kv.key, e.kv.mod_revision) for e in events] == [
        ("delete", "a", 10),
        ("put", "d", 8),
        ("put", "b", 9),
    ]
