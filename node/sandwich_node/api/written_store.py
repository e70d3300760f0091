"""The store as the API's handlers use it: it notes the last revision that they wrote to the cluster.

So a change waits until this node's view has it, and for nothing that others write meanwhile.
"""

from collections.abc import AsyncIterator, Sequence

from sandwich_coordinator.store.base import Compare, Delete, KeyValue, Listing, Put, Store, TxnResult, WatchBatch


class WrittenStore:
    """Implements `Store`. `revision`: of the last transaction that wrote below `prefix`; 0: there was none."""

    def __init__(self, store: Store, prefix: str) -> None:
        self.revision = 0
        self._store = store
        self._prefix = prefix

    async def get(self, key: str) -> KeyValue | None:
        """See `Store.get`."""
        return await self._store.get(key)

    async def list(self, prefix: str) -> Listing:
        """See `Store.list`."""
        return await self._store.list(prefix)

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> TxnResult:
        """See `Store.txn`."""
        result = await self._store.txn(compares, writes)
        if result.succeeded and any(write.key.startswith(self._prefix) for write in writes):
            self.revision = max(self.revision, result.revision)
        return result

    def watch(self, prefix: str, from_revision: int) -> AsyncIterator[WatchBatch]:
        """See `Store.watch`."""
        return self._store.watch(prefix, from_revision)

    async def grant(self, ttl_s: int) -> int:
        """See `Store.grant`."""
        return await self._store.grant(ttl_s)

    async def keep_alive(self, lease: int) -> float:
        """See `Store.keep_alive`."""
        return await self._store.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        """See `Store.revoke`."""
        await self._store.revoke(lease)

    async def close(self) -> None:
        """The agent closes the store."""
