"""The cluster's figures of the last hours, as this node writes and reads them."""

import asyncio
import logging
import time
from collections.abc import Callable

from sandwich_coordinator.operations.history import EVERY_S, Point, minute_of, point_of, read_points, write_point
from sandwich_coordinator.store.base import Store, StoreError
from sandwich_coordinator.store.keys import Keys
from sandwich_node.agent.node_facts import NodeFacts
from sandwich_node.api.picture import ClusterPicture

_log = logging.getLogger(__name__)

FRESH_S = 20.0
"""For so long a reading serves all readers."""


class History:
    """Reads points, and writes them while this node leads. `wall`: Unix seconds."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        facts: NodeFacts,
        picture: ClusterPicture,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._keys = keys
        self._facts = facts
        self._picture = picture
        self._wall = wall
        self._points: list[Point] = []
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def points(self) -> list[Point]:
        """All points, oldest first, at most `FRESH_S` old. Raises StoreError."""
        async with self._reading:
            now = asyncio.get_running_loop().time()
            if now - self._read_at > FRESH_S:
                self._points = await read_points(self._store, self._keys)
                self._read_at = now
            return self._points

    async def run(self) -> None:
        """Write a point a minute until cancelled, while this node leads."""
        written = -1
        while True:
            try:
                written = await self.write(written)
            except StoreError as error:
                _log.debug("no point of the history: %s", error)
            now = self._wall()
            await asyncio.sleep(EVERY_S - now % EVERY_S if written == minute_of(now) else EVERY_S / 12)

    async def write(self, written: int) -> int:
        """Write the point of this minute, if this node leads and `written`, the last one, is another. Returns the last.

        A snapshot can be of the minute before: then that is the one that was written. Raises StoreError.
        """
        view = self._facts.view()
        if view is None or minute_of(self._wall()) == written or not self._facts.status().leader:
            return written
        snapshot = await self._picture.snapshot(view)
        point = point_of(snapshot, self._picture.findings.problems(snapshot))
        await write_point(self._store, self._keys, point)
        return minute_of(point.at)
