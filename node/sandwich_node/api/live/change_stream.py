"""One producer of the cluster's changes for all readers of this node.

It looks only while there are readers. Each change is encoded once for all readers with the same scope.

A reader resumes with the id of the last event that it has: the etcd revision of what it knows, and a name for its
scope. Any node can go on from there (`RecentChanges`): it sends the present state of what changed since. An id that is
too old, of another scope, or of a revision that this node does not reach within two seconds, begins with a snapshot.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.view import ClusterView
from sandwich_node.agent.node_facts import NodeFacts
from sandwich_node.api.live.audience import Audience
from sandwich_node.api.live.cluster_changes import (
    Change,
    Objects,
    Scope,
    differences,
    figures,
    problem_objects,
    resumed,
    stored_changes,
    stored_objects,
    within,
)
from sandwich_node.api.live.event_stream import Places, Reader, sse
from sandwich_node.api.picture import ClusterPicture

READERS_MAX = 200
LOOK_S = 0.25
"""Changes of this time are sent together."""
PROBLEMS_S = 1.0
REST_FACTOR = 20.0
"""Looking for problems in a large cluster takes its time: it is done so rarely that it takes a twentieth at most."""
FIGURES_S = 5.0
CATCH_UP_S = 2.0


@dataclass(frozen=True, slots=True)
class ResumeFrom:
    """What a reader says that it knows: the cluster at an etcd revision, seen with a scope of this tag."""

    revision: int
    tag: str

    @classmethod
    def parse(cls, text: str) -> "ResumeFrom | None":
        """The value of `Last-Event-ID`; None for one that this stream did not give."""
        number, _, tag = text.partition("-")
        if not (number.isascii() and number.isdecimal() and len(number) <= 19 and tag):
            return None
        return cls(int(number), tag)

    def __str__(self) -> str:
        return f"{self.revision}-{self.tag}"


@dataclass(eq=False)
class _Subscriber:
    scope: Scope
    resume: ResumeFrom | None
    since: float
    reader: Reader = field(default_factory=Reader)
    greeted: bool = False


@dataclass(frozen=True)
class _State:
    """What readers were sent."""

    view: ClusterView
    problems: Objects
    figures: dict[str, dict[str, Any]]


class ChangeStream:
    """Readers of the cluster's changes. `run` serves them until cancelled."""

    def __init__(
        self, facts: NodeFacts, picture: ClusterPicture, *, readers_max: int = READERS_MAX, look_s: float = LOOK_S
    ) -> None:
        self._audience: Audience[_Subscriber] = Audience("changes", readers_max)
        self._facts = facts
        self._picture = picture
        self._look_s = look_s
        self._state: _State | None = None
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
            self._use(_State(view, problem_objects(self._picture.findings.problems(snapshot)), figures(snapshot)))
            self._problems_at = self._figures_at = now + PROBLEMS_S
        else:
            if view is not state.view:
                stored = stored_changes(state.view, view)
                self._use(_State(view, state.problems, state.figures))
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
            self._use(_State(state.view, problems, state.figures))
            self._publish_changes(changes)
        if now >= self._figures_at:
            self._figures_at = now + FIGURES_S
            self._publish_figures(snapshot)

    def _publish_figures(self, snapshot: Snapshot) -> None:
        state = self._state
        assert state is not None
        found = figures(snapshot)
        if found != state.figures:
            self._use(_State(state.view, state.problems, found))
            self._publish(lambda scope: sse("figures", _seen(found, scope), id=str(self._id(scope))))

    def _publish_changes(self, changes: Sequence[Change]) -> None:
        def encode(scope: Scope) -> bytes:
            seen = within(changes, scope)
            if not seen:
                return b""
            return sse("changes", {"changes": [change.value() for change in seen]}, id=str(self._id(scope)))

        if changes:
            self._publish(encode)

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

    def _use(self, state: _State) -> None:
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
            if resume is not None and resume.revision > state.view.revision and now < subscriber.since + CATCH_UP_S:
                # It was at a node that is ahead of this one by some milliseconds.
                continue
            subscriber.reader.put(self._resumed(subscriber) or self._snapshot(subscriber.scope))
            subscriber.greeted = True

    def _resumed(self, subscriber: _Subscriber) -> bytes | None:
        resume, scope, state = subscriber.resume, subscriber.scope, self._state
        assert state is not None
        if resume is None or resume.tag != scope.tag or resume.revision > state.view.revision:
            return None
        touched = self._facts.recent().since(resume.revision)
        if touched is None:
            return None
        body = {
            "changes": [change.value() for change in resumed(state.view, touched, scope)],
            "problems": _seen(state.problems, scope),
            "figures": _seen(state.figures, scope),
        }
        return sse("resumed", body, id=str(self._id(scope)))

    def _snapshot(self, scope: Scope) -> bytes:
        state = self._state
        assert state is not None
        if (known := self._snapshots.get(scope.tag)) is not None:
            return known
        objects = {**stored_objects(state.view, scope), **_seen(state.problems, scope)}
        body = {"objects": objects, "figures": _seen(state.figures, scope)}
        encoded = self._snapshots[scope.tag] = sse("snapshot", body, id=str(self._id(scope)))
        return encoded

    def _id(self, scope: Scope) -> ResumeFrom:
        assert self._state is not None
        return ResumeFrom(self._state.view.revision, scope.tag)


def _seen(named: Objects, scope: Scope) -> dict[str, Any]:
    return {name: fields for name, fields in named.items() if scope.sees(name)}
