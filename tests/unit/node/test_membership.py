"""A node's registration: what an operator made of it outlives a lost lease, not the process. Time is virtual."""

import asyncio

import msgspec
import pytest

from sandwich_coordinator.store.base import StoreRefused
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import NodeRecord
from sandwich_node.agent.membership import Membership
from verification.simulation.loop import run_virtual

KEYS = Keys()
OWN = NodeRecord(node="a", instance="now", address="h:1", version="1")


def member(store: MemoryStore) -> Membership:
    return Membership(store, KEYS, OWN, ttl_s=9, on_change=lambda: None)


def test_a_draining_node_that_lost_its_lease_registers_again_as_draining() -> None:
    async def main() -> None:
        store = MemoryStore()
        membership = member(store)
        await membership.join(lambda _: None)
        assert membership.lease is not None
        first = membership.lease
        rejoined = asyncio.Event()

        async def on_rejoined() -> None:
            rejoined.set()

        keeping = asyncio.create_task(membership.keep(on_rejoined))
        membership.follow(msgspec.structs.replace(OWN, state="draining"))
        await store.revoke(first)
        async with asyncio.timeout(30):
            await rejoined.wait()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        found = await store.get(KEYS.node("a"))
        assert found is not None
        assert found.lease not in (0, first)
        assert msgspec.json.decode(found.value, type=NodeRecord) == msgspec.structs.replace(OWN, state="draining")

    run_virtual(main())


class Refusing(MemoryStore):
    """Refuses leases while `refuses`."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = False
        self.refused = asyncio.Semaphore(0)

    async def grant(self, ttl_s: int) -> int:
        if self.refuses:
            self.refused.release()
            raise StoreRefused("permission denied")
        return await super().grant(ttl_s)


def test_a_store_that_refuses_a_new_lease_ends_a_node_at_its_start_only() -> None:
    async def main() -> None:
        store = Refusing()
        store.refuses = True
        with pytest.raises(StoreRefused):
            await member(store).join(lambda _: None)
        await store.refused.acquire()
        store.refuses = False
        membership = member(store)
        await membership.join(lambda _: None)
        assert membership.lease is not None
        rejoined = asyncio.Event()

        async def on_rejoined() -> None:
            rejoined.set()

        keeping = asyncio.create_task(membership.keep(on_rejoined))
        store.refuses = True
        await store.revoke(membership.lease)
        async with asyncio.timeout(60):
            for _ in range(3):
                await store.refused.acquire()
        assert not keeping.done()
        assert membership.waiting is not None
        assert "permission denied" in membership.waiting.text
        store.refuses = False
        async with asyncio.timeout(60):
            await rejoined.wait()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    run_virtual(main())


def test_the_state_of_an_earlier_process_is_not_taken_over() -> None:
    membership = member(MemoryStore())
    membership.follow(msgspec.structs.replace(OWN, instance="before", state="draining"))
    assert membership.record == OWN
