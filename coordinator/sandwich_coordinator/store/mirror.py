"""A copy of all keys under a prefix, kept equal to the store: list, then watch, then list again when in doubt.

The store is the truth and this is a reading aid: whatever is decided from it is written with guards.
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
"""Anti-entropy: old etcd versions lose watch events now and then (etcd issues 17529, 18089)."""
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
    puts = [WatchEvent("put", item) for item in listing.items if before.get(item.key) != item]
    return (*deletes, *sorted(puts, key=lambda event: event.kv.mod_revision))


class Mirror:
    """`items` (key -> KeyValue) equals the keys under `prefix` as of `revision`; `run()` keeps it so.

    `synced` is set after the first listing. `changed` (a condition) is notified, and listeners are called with the
    batch, after `items` has taken it. Listeners must not block; what one raises ends `run()`.
    """

    def __init__(
        self, store: Store, prefix: str, *, relist_s: float = RELIST_S, rng: random.Random | None = None
    ) -> None:
        self.synced = asyncio.Event()
        self.changed = asyncio.Condition()
        self.revision = 0
        self._store = store
        self._prefix = prefix
        self._relist_s = relist_s
        self._rng = rng or random.Random()
        self._items: dict[str, KeyValue] = {}
        self._listeners: list[Listener] = []
        self._applying = asyncio.Lock()
        self._heard_at: float | None = None
        self._failing_since: float | None = None

    @property
    def items(self) -> Mapping[str, KeyValue]:
        """A live read-only view. Take a copy to keep one moment's state."""
        return MappingProxyType(self._items)

    @property
    def stale_since(self) -> float | None:
        """Loop time since which `items` may lag behind the store; None while it is known to follow.

        Before the first listing there is nothing to be stale.
        """
        if self._failing_since is not None:
            return self._failing_since
        if self._heard_at is None or not isinstance(self._store, SendsProgress):
            return None
        silent_s = asyncio.get_running_loop().time() - self._heard_at
        return self._heard_at if silent_s > SILENT_PERIODS_MAX * self._store.progress_s + 1.0 else None

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every later batch; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def run(self) -> None:
        """Follow the store until cancelled. Errors of the store are retried for ever, with a capped, jittered pause."""
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
        """Watch and re-list side by side until one of them raises; raises that."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch())
                group.create_task(self._relist_periodically())
        except BaseExceptionGroup as several:
            # Both may end at once; the first tells why, and a bug must not hide behind the store's errors.
            bugs = [error for error in several.exceptions if not isinstance(error, StoreError | _Rewound)]
            raise (bugs or several.exceptions)[0] from None

    async def _watch(self) -> None:
        batches = self._store.watch(self._prefix, self.revision + 1)
        async with _closing(batches):
            async for batch in batches:
                self._note_success()
                async with self._applying:
                    # A listing may have been ahead of the watch: what it brought is not news.
                    news = tuple(event for event in batch.events if event.kv.mod_revision > self.revision)
                    await self._take(news, max(self.revision, news[-1].kv.mod_revision if news else 0))

    async def _relist_periodically(self) -> None:
        while True:
            await asyncio.sleep(self._relist_s * self._rng.uniform(0.9, 1.1))
            try:
                await self._check()
            except StoreError as error:
                self._note_failure()
                log.warning("the periodic listing of %s failed: %s", self._prefix, error)

    async def _relist(self) -> None:
        """Make `items` equal to a listing, whatever was there before."""
        listing = await self._store.list(self._prefix)
        if listing.revision < self.revision:
            log.error("the store's revision went back under %s: was it restored from a backup?", self._prefix)
        async with self._applying:
            await self._take(difference(self._items, listing), listing.revision)
        self._note_success()
        self.synced.set()

    async def _check(self) -> None:
        """Compare with a listing and take what differs. Raises _Rewound when the store went back in time."""
        known = self.revision
        listing = await self._store.list(self._prefix)
        self._note_success()
        if listing.revision < known:
            raise _Rewound
        async with self._applying:
            if listing.revision < self.revision:
                # The watch overtook the listing while it was on its way; the next round compares again.
                return
            missed = difference(self._items, listing)
            if missed:
                log.info("the periodic listing of %s found %d changes before the watch did", self._prefix, len(missed))
            await self._take(missed, listing.revision)

    async def _take(self, events: tuple[WatchEvent, ...], revision: int) -> None:
        """Apply `events`, be at `revision`, announce."""
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
        self._heard_at = asyncio.get_running_loop().time()
        self._failing_since = None

    def _note_failure(self) -> None:
        if self._failing_since is None:
            self._failing_since = self._heard_at or asyncio.get_running_loop().time()


@contextlib.asynccontextmanager
async def _closing(batches: AsyncIterator[WatchBatch]) -> AsyncIterator[None]:
    """Close a watch that is a generator now, and not when it happens to be collected."""
    try:
        yield
    finally:
        if isinstance(batches, AsyncGenerator):
            await batches.aclose()
