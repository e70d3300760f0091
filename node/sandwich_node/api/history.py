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
            now = self._wall()
            view = self._facts.view()
            if view is not None and minute_of(now) != written and self._facts.status().leader:
                try:
                    snapshot = await self._picture.snapshot(view)
                    await write_point(
                        self._store, self._keys, point_of(snapshot, self._picture.findings.problems(snapshot))
                    )
                    written = minute_of(now)
                except StoreError as error:
                    _log.debug("no point of the history: %s", error)
            await asyncio.sleep(EVERY_S - self._wall() % EVERY_S if written == minute_of(now) else EVERY_S / 12)
