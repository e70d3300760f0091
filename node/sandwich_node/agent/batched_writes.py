"""Guarded writes of a node, many in one transaction: a node that starts writes hundreds of claims and sessions.

Each write stays what it is alone: when the guard of one fails, the others of its transaction are tried without it.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from sandwich_coordinator.store.base import Compare, Delete, LeaseLost, Put, Store, StoreError

_log = logging.getLogger(__name__)

AT_ONCE = 100
"""Writes in one transaction. etcd allows 128 operations (--max-txn-ops) and 1.5 MB (--max-request-bytes)."""
TRANSACTIONS_AT_ONCE = 16
GATHER_S = 0.02

Applied = int | None
"""The revision of a write; 0: its guard failed; None: the store failed, and whether it was applied is not known."""


@dataclass(frozen=True, slots=True)
class GuardedWrite:
    """What is written together or not at all, and what must hold for it."""

    compares: tuple[Compare, ...]
    writes: tuple[Put | Delete, ...]


class BatchedWrites:
    """The writes of one node. No two writes under way may be of the same key."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._limit = asyncio.Semaphore(TRANSACTIONS_AT_ONCE)
        self._gathered: list[tuple[GuardedWrite, asyncio.Future[Applied]]] = []

    async def commit(self, writes: Sequence[GuardedWrite]) -> list[Applied]:
        """Carry out writes now. Returns what became of each."""
        parts = [writes[start : start + AT_ONCE] for start in range(0, len(writes), AT_ONCE)]
        return [one for part in await asyncio.gather(*map(self._commit_part, parts)) for one in part]

    async def gather(self, write: GuardedWrite) -> Applied:
        """Carry out a write together with others that come within a moment."""
        done: asyncio.Future[Applied] = asyncio.get_running_loop().create_future()
        self._gathered.append((write, done))
        if len(self._gathered) > 1:
            return await done
        gathered: list[tuple[GuardedWrite, asyncio.Future[Applied]]] = []
        try:
            await asyncio.sleep(GATHER_S)
            gathered, self._gathered = self._gathered, []
            results = await self.commit([each for each, _ in gathered])
            for (_, waiting), result in zip(gathered, results, strict=True):
                if not waiting.done():
                    waiting.set_result(result)
            return done.result()
        finally:
            # Cancelled: the others try again.
            if not gathered:
                gathered, self._gathered = self._gathered, []
            for _, waiting in gathered:
                if not waiting.done():
                    waiting.set_result(None)

    async def _commit_part(self, writes: Sequence[GuardedWrite]) -> list[Applied]:
        applied = await self._txn(writes)
        if applied == 0 and len(writes) > 1:
            return list(await asyncio.gather(*(self._txn([write]) for write in writes)))
        return [applied] * len(writes)

    async def _txn(self, writes: Sequence[GuardedWrite]) -> Applied:
        async with self._limit:
            try:
                done = await self._store.txn(
                    [compare for each in writes for compare in each.compares],
                    [write for each in writes for write in each.writes],
                )
            except (StoreError, LeaseLost) as error:
                _log.warning("etcd: %s", error)
                return None
        return done.revision if done.succeeded else 0
