"""What the store is asked for, by virtual second, and how long the leader's decisions really take."""

import contextlib
import gc
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sandwich_coordinator import leader, plans
from sandwich_coordinator.store.base import Compare, Delete, Listing, Put, TxnResult
from sandwich_coordinator.store.memory import MemoryDatabase, MemoryStore


class Meter:
    """Counts since the last `reset`.

    A write is one request that etcd's members agree on and store: a transaction that writes, also when its guard fails,
    and the grant or the end of a lease.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin a scenario."""
        self.kinds: Counter[str] = Counter()
        self.by_second: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self.keys = 0
        self.bytes = 0
        self.largest = 0
        self.largest_request = 0
        self.lists = 0
        self.list_bytes = 0
        self.seconds: dict[str, list[float]] = defaultdict(list)

    @property
    def writes(self) -> int:
        """All writes."""
        return self.kinds.total()

    @property
    def busiest(self) -> Counter[str]:
        """The writes of the busiest second, by kind."""
        return max(self.by_second.values(), key=Counter.total, default=Counter())

    def write(self, kind: str, at: float) -> None:
        """One write at this virtual time."""
        self.kinds[kind] += 1
        self.by_second[int(at)][kind] += 1

    def sizes(self, writes: Sequence[Put | Delete]) -> None:
        """What one transaction stores."""
        stored = [(write.key, len(write.value)) for write in writes if isinstance(write, Put)]
        request = sum(len(key) + size for key, size in stored)
        self.keys += len(writes)
        self.bytes += request
        self.largest_request = max(self.largest_request, request)
        self.largest = max([self.largest, *(size for _, size in stored)])

    @contextlib.contextmanager
    def timing(self) -> Iterator[None]:
        """Measure the CPU time of each decision of the leader and of each plan inside of it."""
        measured: list[tuple[Any, str]] = [(leader, "reconcile"), (plans, "plan")]
        real = [getattr(module, name) for module, name in measured]
        for (module, name), function in zip(measured, real, strict=True):
            setattr(module, name, self._timed(name, function))
        try:
            yield
        finally:
            for (module, name), function in zip(measured, real, strict=True):
                setattr(module, name, function)

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            # It would collect the garbage of all nodes, of which a leader has its own alone.
            collects = gc.isenabled()
            gc.disable()
            began = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[name].append(time.process_time() - began)
                if collects:
                    gc.enable()

        return call


def _kind(compares: Sequence[Compare], write: Put | Delete) -> str:
    """What a transaction is about, from its first write: the table, and what becomes of the key."""
    table = write.key.split("/")[3]
    if isinstance(write, Delete):
        return f"{table} deleted"
    is_new = any((one.key, one.expected) == (write.key, 0) for one in compares)
    return f"{table} created" if is_new else table


class MeteredDatabase(MemoryDatabase):
    """A database that counts what it is asked for."""

    def __init__(self, clock: Callable[[], float], meter: Meter) -> None:
        super().__init__(clock)
        self.listings: dict[str, tuple[Listing, int]] = {}
        """The last listing of each prefix and its bytes."""
        self._meter = meter

    def apply(self, compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> TxnResult:
        """See `MemoryDatabase.apply`."""
        if writes:
            kind = _kind(compares, writes[0])
            result = super().apply(compares, writes)
            self._meter.write(kind if result.succeeded else f"{kind} (guard failed)", self.now)
            self._meter.sizes(writes if result.succeeded else ())
            return result
        return super().apply(compares, writes)

    def grant(self, ttl_s: int) -> int:
        """See `MemoryDatabase.grant`."""
        self._meter.write("lease grant", self.now)
        return super().grant(ttl_s)

    def revoke(self, lease: int) -> None:
        """See `MemoryDatabase.revoke`."""
        self._meter.write("lease end", self.now)
        super().revoke(lease)


class MeteredStore(MemoryStore):
    """A client of a `MeteredDatabase` that counts its listings."""

    def __init__(self, database: MeteredDatabase, meter: Meter) -> None:
        super().__init__(database=database)
        self._kept = database.listings
        self._meter = meter

    def _listing(self, prefix: str) -> Listing:
        """The nodes list everything every minute; nothing changes between most of these listings."""
        listing, size = self._kept.get(prefix, (None, 0))
        if listing is None or listing.revision != self.database.revision:
            listing = super()._listing(prefix)
            size = sum(len(item.key) + len(item.value) for item in listing.items)
            self._kept[prefix] = listing, size
        self._meter.lists += 1
        self._meter.list_bytes += size
        return listing
