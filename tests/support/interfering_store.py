"""A store in which another writer is faster, once."""

from collections.abc import Sequence

from sandwich_coordinator.store.base import Compare, Delete, Put, TxnResult
from sandwich_coordinator.store.memory import MemoryStore


class InterferingStore(MemoryStore):
    """Another writer's write, `other`, comes between our reading and our transaction, once."""

    other: Put | None = None

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> TxnResult:
        other, self.other = self.other, None
        if other is not None:
            await super().txn([], [other])
        return await super().txn(compares, writes)
