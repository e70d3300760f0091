"""The cluster as this node sees it, kept up to date. What a change of it means for the node: `view_changes.py`."""

import asyncio
import random
from collections.abc import Callable

from sandwich_coordinator.store.base import Store, WatchBatch
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.store.mirror import Mirror
from sandwich_coordinator.view import ClusterView
from sandwich_node.agent.recent_changes import RecentChanges

GATHER_S = 0.02
"""A change that comes sooner after the last one than this waits for others: a large cluster changes often, and each
view costs a copy. A single change never waits."""


class ViewFollower:
    """The view, kept up to date while `run` runs. `on_change(before, after)` is called on every change.

    `recent`: which keys changed lately, up to the view.
    """

    def __init__(
        self,
        store: Store,
        keys: Keys,
        *,
        rng: random.Random,
        on_change: Callable[[ClusterView | None, ClusterView], None],
    ) -> None:
        self._keys = keys
        self._view: ClusterView | None = None
        self._on_change = on_change
        self._gathered: list[WatchBatch] = []
        self._taken_at = -GATHER_S
        self._timer: asyncio.TimerHandle | None = None
        self.recent = RecentChanges()
        self._listings = 0
        self._mirror = Mirror(store, keys.prefix, rng=rng)
        self._mirror.listen(self._on_batch)

    @property
    def is_stale(self) -> bool:
        """Whether the store does not answer, so that the view may be old."""
        return self._mirror.stale_since is not None

    def view(self) -> ClusterView | None:
        """The cluster as last seen; None before the first listing."""
        return self._view

    async def run(self) -> None:
        """Follow the store until cancelled."""
        try:
            await self._mirror.run()
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _on_batch(self, batch: WatchBatch) -> None:
        self._gathered.append(batch)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            if loop.time() >= self._taken_at + GATHER_S:
                self._take()
            else:
                self._timer = loop.call_at(self._taken_at + GATHER_S, self._take)

    def _take(self) -> None:
        self._timer = None
        self._taken_at = asyncio.get_running_loop().time()
        batches, self._gathered = self._gathered, []
        before = self._view
        view = self._view = (before or ClusterView(keys=self._keys)).apply(*batches)
        if self._mirror.listings != self._listings:
            self._listings = self._mirror.listings
            self.recent.restart(view.revision)
        else:
            self.recent.note(batches)
        self._on_change(before, view)
