"""The whole cluster for readers of the API: this node's own view, with what every other node said of itself lately.

Nodes are asked when a client reads, at most once in `FRESH_S` however many read. A reader waits for that only while the
last answers are older than `OLD_S`, so that a node that does not answer slows no reader down. The view is never old: a
change that the API made is seen by the next read.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from sandwich_coordinator.operations.snapshot import Snapshot, ask_etcd, ask_nodes, compose
from sandwich_coordinator.problems import Problem
from sandwich_coordinator.status import NodeStatus
from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.view import ClusterView
from sandwich_node.api.findings import Findings

FRESH_S = 1.0
"""Answers of this age are used as they are."""
OLD_S = 5.0
"""Answers older than this are not shown: a reader waits for new ones."""


@dataclass(frozen=True, slots=True)
class _Answers:
    at: float = float("-inf")
    of_nodes: Mapping[str, NodeStatus | str] = field(default_factory=dict)
    etcd_version: str = ""
    etcd_found: tuple[Problem, ...] = ()


class ClusterPicture:
    """Makes snapshots. `wall`: Unix seconds. `findings`: what follows from the newest one, for all who ask."""

    def __init__(self, store: EtcdStore, http: aiohttp.ClientSession, *, wall: Callable[[], float] = time.time) -> None:
        self._store = store
        self._http = http
        self._wall = wall
        self.findings = Findings()
        self._last = _Answers()
        # The last snapshot, and the answers that it was made of.
        self._made: tuple[_Answers, Snapshot] | None = None
        self._asking: asyncio.Task[None] | None = None

    async def snapshot(self, view: ClusterView) -> Snapshot:
        """The cluster of `view` now, with answers of its nodes that are at most `OLD_S` old."""
        age = asyncio.get_running_loop().time() - self._last.at
        if age > FRESH_S:
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask(view))
            if age > OLD_S or view.nodes.keys() != self._last.of_nodes.keys():
                # Shielded: the answers are for other readers, too.
                await asyncio.shield(self._asking)
        last, now = self._last, self._wall()
        made = self._made
        if made is not None and made[0] is last and made[1].view is view and 0.0 <= now - made[1].now < FRESH_S:
            return made[1]
        answers = {node: last.of_nodes[node] for node in view.nodes if node in last.of_nodes}
        found = compose(view, answers, etcd_version=last.etcd_version, etcd_found=last.etcd_found, now=now)
        self._made = (last, found)
        return found

    async def _ask(self, view: ClusterView) -> None:
        async with asyncio.TaskGroup() as tasks:
            nodes = tasks.create_task(ask_nodes(self._http, view))
            etcd = tasks.create_task(ask_etcd(self._store))
        version, found = etcd.result()
        self._last = _Answers(asyncio.get_running_loop().time(), nodes.result(), version, tuple(found))

    async def close(self) -> None:
        """End a question that is under way."""
        if self._asking is not None and not self._asking.done():
            self._asking.cancel()
            await asyncio.wait([self._asking])


@asynccontextmanager
async def open_picture(store: EtcdStore) -> AsyncIterator[ClusterPicture]:
    """A picture while the context lasts."""
    async with aiohttp.ClientSession() as http:
        picture = ClusterPicture(store, http)
        try:
            yield picture
        finally:
            await picture.close()
