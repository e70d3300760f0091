"""A copy of all keys under a prefix, kept up to date: list, watch, and list again when a watch may be incomplete.

The store is authoritative. Decisions made from this copy are written with guards.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from sandwich_coordinator.backoff import Backoff
from sandwich_coordinator.store.base import (
    Behind,
    Compacted,
    KeyValue,
    Listing,
    Store,
    StoreError,
    WatchBatch,
    WatchEvent,
)

log = logging.getLogger(__name__)

RELIST_S = 60.0
"""Anti-entropy: old etcd versions sometimes lose watch events (etcd issues 17529, 18089)."""
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 5.0
SILENT_PERIODS_MAX = 3

Listener = Callable[[WatchBatch], None]


@runtime_checkable
class SendsProgress(Protocol):
    """A store whose idle watches yield an empty batch every `progress_s` seconds."""

    progress_s: float


class _Rewound(Exception):
    """The store's revision went back: it was restored from a backup."""


def difference(before: Mapping[str, KeyValue], listing: Listing) -> tuple[WatchEvent, ...]:
    """The changes that lead from `before` to `listing`: deletes by key first, then puts in revision order.

    A delete's true revision is unknown; it carries the listing's.
    """
    now = {item.key: item for item in listing.items}
    deletes = [
        WatchEvent("delete", KeyValue(key, b"", 0, listing.revision, 0)) for key in sorted(before) if key not in now
    ]
    puts = [
        WatchEvent("put", item)
        for item in listing.items
        if (known := before.get(item.key)) is not item and known != item
    ]
    return (*deletes, *sorted(puts, key=lambda event: event.kv.mod_revision))


class Mirror:
    """`items` (key -> KeyValue) equals the keys under `prefix` as of `revision`; `run()` updates it.

    `listings` counts how often it was taken from a listing: a key that came and went before one was never seen.
    `synced` is set after the first listing. After a batch was applied to `items`, `changed` (a condition) is notified
    and listeners are called with the batch. Listeners must not block; an exception in one ends `run()`.
    """

    def __init__(
        self, store: Store, prefix: str, *, relist_s: float = RELIST_S, rng: random.Random | None = None
    ) -> None:
        self.synced = asyncio.Event()
        self.changed = asyncio.Condition()
        self.revision = 0
        self.listings = 0
        self._store = store
        self._prefix = prefix
        self._relist_s = relist_s
        self._rng = rng or random.Random()
        self._items: dict[str, KeyValue] = {}
        self._listeners: list[Listener] = []
        self._applying = asyncio.Lock()
        self._received_at: float | None = None
        self._failing_since: float | None = None

    @property
    def items(self) -> Mapping[str, KeyValue]:
        """A live read-only view. Copy it to keep the state of one moment."""
        return MappingProxyType(self._items)

    @property
    def stale_since(self) -> float | None:
        """Loop time since when `items` may lag behind the store; None while it is up to date.

        None before the first listing, too.
        """
        if self._failing_since is not None:
            return self._failing_since
        if self._received_at is None or not isinstance(self._store, SendsProgress):
            return None
        silent_s = asyncio.get_running_loop().time() - self._received_at
        return self._received_at if silent_s > SILENT_PERIODS_MAX * self._store.progress_s + 1.0 else None

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every later batch. Returns a function that removes it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def run(self) -> None:
        """Follow the store until cancelled. Errors of the store are retried after a capped, jittered pause."""
        backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S, self._rng)
        while True:
            try:
                await self._relist()
                backoff.succeeded()
                await self._follow()
            except Behind as error:
                log.info("watch of %s: %s; listing again", self._prefix, error)
            except Compacted as error:
                log.info("watch of %s fell behind a compaction (%s); listing again", self._prefix, error)
            except _Rewound:
                pass
            except StoreError as error:
                self._note_failure()
                log.warning("mirror of %s cannot follow the store: %s", self._prefix, error)
            await asyncio.sleep(backoff.next_s())

    async def _follow(self) -> None:
        """Watch and re-list concurrently until one of them raises; raises that."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch())
                group.create_task(self._relist_periodically())
        except BaseExceptionGroup as several:
            # Both may fail at once: raise a bug rather than an error of the store, else the first error.
            bugs = [error for error in several.exceptions if not isinstance(error, StoreError | _Rewound)]
            raise (bugs or several.exceptions)[0] from None

    async def _watch(self) -> None:
        batches = self._store.watch(self._prefix, self.revision + 1)
        async with _closing(batches):
            async for batch in batches:
                self._note_success()
                async with self._applying:
                    # A listing may have been ahead of the watch: skip events that it already contained.
                    fresh = tuple(event for event in batch.events if event.kv.mod_revision > self.revision)
                    await self._apply(fresh, max(self.revision, fresh[-1].kv.mod_revision if fresh else 0))

    async def _relist_periodically(self) -> None:
        while True:
            await asyncio.sleep(self._relist_s * self._rng.uniform(0.9, 1.1))
            try:
                await self._check()
            except StoreError as error:
                self._note_failure()
                log.warning("the periodic listing of %s failed: %s", self._prefix, error)

    async def _relist(self) -> None:
        """Make `items` equal to a listing, whatever it contained before."""
        listing = await self._store.list(self._prefix)
        if listing.revision < self.revision:
            log.error("the store's revision went back under %s: was it restored from a backup?", self._prefix)
        async with self._applying:
            self.listings += 1
            await self._apply(difference(self._items, listing), listing.revision)
        self._note_success()
        self.synced.set()

    async def _check(self) -> None:
        """Compare with a listing and apply the differences. Raises _Rewound when the store's revision went back."""
        known = self.revision
        listing = await self._store.list(self._prefix)
        self._note_success()
        if listing.revision < known:
            raise _Rewound
        async with self._applying:
            if listing.revision < self.revision:
                # The watch is already ahead of the listing; the next round compares again.
                return
            missed = difference(self._items, listing)
            if missed:
                log.info("the periodic listing of %s found %d changes before the watch did", self._prefix, len(missed))
                self.listings += 1
            await self._apply(missed, listing.revision)

    async def _apply(self, events: tuple[WatchEvent, ...], revision: int) -> None:
        """Apply `events`, set `revision`, and notify listeners."""
        self.revision = revision
        for event in events:
            if event.kind == "put":
                self._items[event.kv.key] = event.kv
            else:
                self._items.pop(event.kv.key, None)
        if not events:
            return
        for listener in tuple(self._listeners):
            listener(WatchBatch(events, revision))
        async with self.changed:
            self.changed.notify_all()

    def _note_success(self) -> None:
        self._received_at = asyncio.get_running_loop().time()
        self._failing_since = None

    def _note_failure(self) -> None:
        if self._failing_since is None:
            self._failing_since = self._received_at or asyncio.get_running_loop().time()


@contextlib.asynccontextmanager
async def _closing(batches: AsyncIterator[WatchBatch]) -> AsyncIterator[None]:
    """Close a watch that is a generator at once, and not at its garbage collection."""
    try:
        yield
    finally:
        if isinstance(batches, AsyncGenerator):
            await batches.aclose()
