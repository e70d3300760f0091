"""One producer of the cluster's changes for all readers of this node.

It looks only while there are readers. Each change is encoded once for all readers with the same scope.

What each reader is sent is in `change_events.py`. One that knows more than this node, since it was at a node that is
ahead of it, waits for two seconds at most.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_node.agent.node_facts import NodeFacts
from sandwich_node.api.live.audience import Audience
from sandwich_node.api.live.change_events import KnownToReaders, ResumeFrom
from sandwich_node.api.live.cluster_changes import (
    Change,
    Scope,
    differences,
    figures,
    problem_objects,
    stored_changes,
)
from sandwich_node.api.live.event_stream import Places, Reader
from sandwich_node.api.picture import ClusterPicture

READERS_MAX = 200
LOOK_S = 0.25
"""Changes of this time are sent together."""
PROBLEMS_S = 1.0
REST_FACTOR = 20.0
"""Looking for problems in a large cluster takes its time: it is done so rarely that it takes a twentieth at most."""
FIGURES_S = 5.0
CATCH_UP_S = 2.0


@dataclass(eq=False)
class _Subscriber:
    scope: Scope
    resume: ResumeFrom | None
    since: float
    reader: Reader = field(default_factory=Reader)
    greeted: bool = False


class ChangeStream:
    """Readers of the cluster's changes. `run` serves them until cancelled."""

    def __init__(
        self, facts: NodeFacts, picture: ClusterPicture, *, readers_max: int = READERS_MAX, look_s: float = LOOK_S
    ) -> None:
        self._audience: Audience[_Subscriber] = Audience("changes", readers_max)
        self._facts = facts
        self._picture = picture
        self._look_s = look_s
        self._state: KnownToReaders | None = None
        self._snapshots: dict[str, bytes] = {}
        self._problems_at = self._figures_at = 0.0

    @property
    def places(self) -> Places:
        """How many readers there may be."""
        return self._audience.places

    def read(self, scope: Scope, last_event_id: str) -> AsyncGenerator[bytes, None]:
        """The stream of one reader."""
        subscriber = _Subscriber(scope, ResumeFrom.parse(last_event_id), asyncio.get_running_loop().time())
        return self._audience.chunks(subscriber)

    async def run(self) -> None:
        """Send what changes, while there are readers."""
        await self._audience.serve(self._look, self._forget, every_s=self._look_s)

    def close(self) -> None:
        """End every stream."""
        self._audience.cut()

    def _forget(self) -> None:
        self._state = None
        self._snapshots.clear()

    async def _look(self) -> None:
        view = self._facts.view()
        if view is None:
            return
        now = asyncio.get_running_loop().time()
        state = self._state
        if state is None:
            snapshot = await self._picture.snapshot(view)
            self._use(
                KnownToReaders(view, problem_objects(self._picture.findings.problems(snapshot)), figures(snapshot))
            )
            self._problems_at = self._figures_at = now + PROBLEMS_S
        else:
            if view is not state.view:
                stored = stored_changes(state.view, view)
                self._use(KnownToReaders(view, state.problems, state.figures))
                self._publish_changes(stored)
            if now >= self._problems_at:
                await self._look_at_problems(now)
        self._greet(now)

    async def _look_at_problems(self, now: float) -> None:
        state = self._state
        assert state is not None
        snapshot = await self._picture.snapshot(state.view)
        clock = asyncio.get_running_loop().time
        began = clock()
        problems = problem_objects(self._picture.findings.problems(snapshot))
        self._problems_at = now + max(PROBLEMS_S, (clock() - began) * REST_FACTOR)
        changes = differences(state.problems, problems)
        if changes:
            self._use(KnownToReaders(state.view, problems, state.figures))
            self._publish_changes(changes)
        if now >= self._figures_at:
            self._figures_at = now + FIGURES_S
            self._publish_figures(snapshot)

    def _publish_figures(self, snapshot: Snapshot) -> None:
        state = self._state
        assert state is not None
        found = figures(snapshot)
        if found != state.figures:
            known = KnownToReaders(state.view, state.problems, found)
            self._use(known)
            self._publish(known.new_figures)

    def _publish_changes(self, changes: Sequence[Change]) -> None:
        state = self._state
        assert state is not None
        if changes:
            self._publish(partial(state.changes, changes))

    def _publish(self, encode: Callable[[Scope], bytes]) -> None:
        """Send to every reader that has the state before; encoded once for each scope."""
        encoded: dict[str, bytes] = {}
        for subscriber in self._audience.subscribers:
            if subscriber.greeted:
                tag = subscriber.scope.tag
                if tag not in encoded:
                    encoded[tag] = encode(subscriber.scope)
                if encoded[tag]:
                    subscriber.reader.put(encoded[tag])

    def _use(self, state: KnownToReaders) -> None:
        self._state = state
        self._snapshots.clear()

    def _greet(self, now: float) -> None:
        """Send new readers their first event: a snapshot, or what changed since they were here."""
        state = self._state
        assert state is not None
        for subscriber in self._audience.subscribers:
            if subscriber.greeted:
                continue
            resume = subscriber.resume
            if state.is_behind(resume) and now < subscriber.since + CATCH_UP_S:
                continue
            event = state.resumed(resume, subscriber.scope, self._facts.recent())
            subscriber.reader.put(event or self._snapshot(state, subscriber.scope))
            subscriber.greeted = True

    def _snapshot(self, state: KnownToReaders, scope: Scope) -> bytes:
        if scope.tag not in self._snapshots:
            self._snapshots[scope.tag] = state.snapshot(scope)
        return self._snapshots[scope.tag]
