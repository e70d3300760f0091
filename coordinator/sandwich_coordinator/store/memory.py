"""The store contract in memory, for simulations and tests: deterministic, on virtual time, with injected faults."""

import asyncio
import bisect
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from sandwich_coordinator.store.base import (
    Compacted,
    Compare,
    Delete,
    KeyValue,
    LeaseLost,
    Listing,
    Put,
    StoreError,
    StoreRefused,
    TxnResult,
    WatchBatch,
    WatchEvent,
)

# etcd's own limits: --max-request-bytes and --max-txn-ops.
REQUEST_BYTES_MAX = 1_572_864
TXN_OPS_MAX = 128
HISTORY_REVISIONS_MAX = 100_000

_T = TypeVar("_T")


@dataclass(slots=True)
class _Lease:
    ttl_s: float
    ends_at: float
    keys: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Fault:
    error: StoreError
    verbs: frozenset[str]
    left: int | None
    applied: bool


class MemoryDatabase:
    """The state that `MemoryStore` clients share: keys, revisions, history, leases. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.items: dict[str, KeyValue] = {}
        self.revision = 1
        self.compacted = 0
        self._clock = clock
        self._skew_s = 0.0
        self._leases: dict[int, _Lease] = {}
        self._last_lease = 0
        # No lease ends before this time.
        self._none_ends_before = 0.0
        self._history: list[WatchBatch] = []
        self._changed = asyncio.Event()

    @property
    def now(self) -> float:
        """The clock's seconds plus what `advance` added."""
        return self._clock() + self._skew_s

    def advance(self, seconds: float) -> None:
        """Advance time and expire the leases that are due."""
        self._skew_s += seconds
        self.expire()

    def expire(self) -> None:
        """End the leases that are due: one revision for each, as in etcd, in the order of their ends."""
        if self.now < self._none_ends_before:
            return
        due = sorted((lease.ends_at, id_) for id_, lease in self._leases.items() if lease.ends_at <= self.now)
        for _, id_ in due:
            self.revoke(id_)
        self._none_ends_before = min((lease.ends_at for lease in self._leases.values()), default=math.inf)

    def apply(self, compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> TxnResult:
        """One transaction. Raises StoreRefused, LeaseLost."""
        _check_request(compares, writes)
        for write in writes:
            if isinstance(write, Put) and write.lease and write.lease not in self._leases:
                raise LeaseLost("the lease has expired or was revoked")
        if not all(self._holds(compare) for compare in compares):
            return TxnResult(False, self.revision)
        self._commit(writes)
        return TxnResult(True, self.revision)

    def grant(self, ttl_s: int) -> int:
        """Create a lease of `ttl_s` seconds. Raises StoreRefused."""
        if ttl_s <= 0:
            raise StoreRefused("a lease needs a time to live of at least a second")
        self._last_lease += 1
        self._leases[self._last_lease] = _Lease(float(ttl_s), self.now + ttl_s)
        self._none_ends_before = min(self._none_ends_before, self.now + ttl_s)
        return self._last_lease

    def renew(self, lease: int) -> float:
        """Restart a lease's time; return its TTL in seconds. Raises LeaseLost."""
        found = self._leases.get(lease)
        if found is None:
            raise LeaseLost(f"lease {lease:x} has expired or was revoked")
        found.ends_at = self.now + found.ttl_s
        return found.ttl_s

    def revoke(self, lease: int) -> None:
        """End a lease and delete its keys in one revision. One already gone is not an error."""
        found = self._leases.get(lease)
        if found is not None:
            self._commit([Delete(key) for key in sorted(found.keys)])
            del self._leases[lease]

    def compact(self, revision: int) -> None:
        """Drop history before `revision`. Raises StoreRefused for one in the future or already dropped."""
        if not self.compacted < revision <= self.revision:
            raise StoreRefused("compaction is only possible between the last one and now")
        self.compacted = revision
        del self._history[: bisect.bisect_left(self._history, revision, key=lambda batch: batch.revision)]

    def since(self, prefix: str, revision: int) -> WatchBatch:
        """The changes under `prefix` from `revision` on. Raises Compacted."""
        if revision < self.compacted:
            raise Compacted(self.compacted)
        start = bisect.bisect_left(self._history, revision, key=lambda batch: batch.revision)
        found = [event for batch in self._history[start:] for event in batch.events if event.kv.key.startswith(prefix)]
        return WatchBatch(tuple(found), max(revision - 1, self.revision))

    async def wait(self) -> None:
        """Wait until something may have changed: a write, or, if the clock runs by itself, the end of a lease."""
        soonest = self._none_ends_before if self._leases else None
        try:
            # If the clock does not advance, this wakes without a change and waits again.
            async with asyncio.timeout(None if soonest is None else max(soonest - self.now, 0.001)):
                await self._changed.wait()
        except TimeoutError:
            self.expire()

    def wake(self) -> None:
        """Wake all watches."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _holds(self, compare: Compare) -> bool:
        found = self.items.get(compare.key)
        if compare.field == "value":
            return found is not None and found.value == compare.expected
        actual = 0 if found is None else getattr(found, compare.field)
        return bool(actual == compare.expected)

    def _commit(self, writes: Sequence[Put | Delete]) -> None:
        revision, events = self.revision + 1, list[WatchEvent]()
        for write in writes:
            if isinstance(write, Put):
                events.append(WatchEvent("put", self._put(write, revision)))
            else:
                keys = [write.key] if not write.prefix else sorted(k for k in self.items if k.startswith(write.key))
                events += [self._delete(key, revision) for key in keys if key in self.items]
        if not events:
            return
        self.revision = revision
        self._history.append(WatchBatch(tuple(events), revision))
        if len(self._history) > HISTORY_REVISIONS_MAX:
            self.compact(self._history[HISTORY_REVISIONS_MAX // 2].revision)
        self.wake()

    def _put(self, write: Put, revision: int) -> KeyValue:
        old = self.items.get(write.key)
        if old is not None and old.lease in self._leases:
            self._leases[old.lease].keys.discard(write.key)
        created, version = (revision, 1) if old is None else (old.create_revision, old.version + 1)
        new = KeyValue(write.key, bytes(write.value), created, revision, version, write.lease)
        self.items[write.key] = new
        if write.lease:
            self._leases[write.lease].keys.add(write.key)
        return new

    def _delete(self, key: str, revision: int) -> WatchEvent:
        old = self.items.pop(key)
        if old.lease in self._leases:
            self._leases[old.lease].keys.discard(key)
        gone = replace(old, value=b"", create_revision=0, mod_revision=revision, version=0, lease=0)
        return WatchEvent("delete", gone)


def _check_request(compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> None:
    """Refuse the transactions that etcd refuses. Raises StoreRefused."""
    if max(len(compares), len(writes)) > TXN_OPS_MAX:
        raise StoreRefused("etcdserver: too many operations in txn request")
    if sum(len(write.key) + len(write.value) for write in writes if isinstance(write, Put)) > REQUEST_BYTES_MAX:
        raise StoreRefused("etcdserver: request is too large")
    puts = [write.key for write in writes if isinstance(write, Put)]
    deletes = [write for write in writes if isinstance(write, Delete)]
    if len(set(puts)) < len(puts) or any(
        key == delete.key or (delete.prefix and key.startswith(delete.key)) for key in puts for delete in deletes
    ):
        raise StoreRefused("etcdserver: duplicate key given in txn request")


class MemoryStore:
    """`Store` in memory: one client of a `MemoryDatabase`, with its own faults.

    `clock` gives monotonic seconds (an event loop's `time` makes leases expire by themselves, on a virtual loop too);
    without one, only `advance` changes the time. `peer()` creates another client of the same database.
    """

    def __init__(self, clock: Callable[[], float] | None = None, *, database: MemoryDatabase | None = None) -> None:
        self.database = database or MemoryDatabase(clock or (lambda: 0.0))
        self._faults: list[_Fault] = []
        self._watches_held = False

    def peer(self) -> "MemoryStore":
        """Another client of the same database, without faults."""
        return MemoryStore(database=self.database)

    def advance(self, seconds: float) -> None:
        """Advance time; leases that are due end now."""
        self.database.advance(seconds)

    def compact(self, revision: int) -> None:
        """Drop history before `revision`."""
        self.database.compact(revision)

    def fail(
        self, error: StoreError, *, verbs: Sequence[str] = (), times: int | None = 1, applied: bool = False
    ) -> None:
        """Raise `error` in the next `times` calls (None: until `heal`) of `verbs` (none named: of every verb).

        `applied`: apply the write, then raise, as if its answer was lost. While "watch" is named, or with
        `times=None` and no verbs, watches pause; they deliver the missed events after `heal`.
        """
        self._faults.append(_Fault(error, frozenset(verbs), times, applied))
        self._watches_held = self._watches_held or "watch" in verbs or (times is None and not verbs)

    def heal(self) -> None:
        """End all faults."""
        self._faults.clear()
        self._watches_held = False
        self.database.wake()

    async def get(self, key: str) -> KeyValue | None:
        """See `Store.get`."""
        return await self._run("get", lambda: self.database.items.get(key))

    async def list(self, prefix: str) -> Listing:
        """See `Store.list`."""
        return await self._run("list", lambda: self._listing(prefix))

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> TxnResult:
        """See `Store.txn`."""
        return await self._run("txn", lambda: self.database.apply(compares, writes))

    async def grant(self, ttl_s: int) -> int:
        """See `Store.grant`."""
        return await self._run("grant", lambda: self.database.grant(ttl_s))

    async def keep_alive(self, lease: int) -> float:
        """See `Store.keep_alive`."""
        return await self._run("keep_alive", lambda: self.database.renew(lease))

    async def revoke(self, lease: int) -> None:
        """See `Store.revoke`."""
        await self._run("revoke", lambda: self.database.revoke(lease))

    async def close(self) -> None:
        """See `Store.close`: there is nothing to release."""

    def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[WatchBatch, None]:
        """See `Store.watch`."""
        return self._watch(prefix, max(1, from_revision))

    async def _watch(self, prefix: str, next_revision: int) -> AsyncGenerator[WatchBatch, None]:
        while True:
            if not self._watches_held:
                self.database.expire()
                batch = self.database.since(prefix, next_revision)
                next_revision = max(next_revision, batch.revision + 1)
                if batch.events:
                    yield batch
                    continue
            await self.database.wait()

    async def _run(self, verb: str, action: Callable[[], _T]) -> _T:
        # Yield to the loop in each call, so that callers interleave as with a real server.
        await asyncio.sleep(0)
        self.database.expire()
        fault = next((fault for fault in self._faults if not fault.verbs or verb in fault.verbs), None)
        if fault is None:
            return action()
        if fault.left is not None:
            fault.left -= 1
            if fault.left <= 0:
                self._faults.remove(fault)
        if fault.applied:
            action()
        raise fault.error

    def _listing(self, prefix: str) -> Listing:
        found = sorted((key, item) for key, item in self.database.items.items() if key.startswith(prefix))
        return Listing(tuple(item for _, item in found), self.database.revision)
