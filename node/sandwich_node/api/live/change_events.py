"""The events of the stream of changes, as a reader of some scope gets them. Pure.

A reader resumes with the id of the last event that it has: the etcd revision of what it knows, and a name for its
scope. Any node can go on from there (`RecentChanges`): it sends the present state of what changed since. An id that is
too old, or of another scope, begins with a snapshot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandwich_coordinator.view import ClusterView
from sandwich_node.agent.recent_changes import RecentChanges
from sandwich_node.api.live.cluster_changes import Change, Objects, Scope, resumed, stored_objects, within
from sandwich_node.api.live.event_stream import sse


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


@dataclass(frozen=True, slots=True)
class KnownToReaders:
    """What readers were sent: the view, and what this node found out itself. Each event is of one scope."""

    view: ClusterView
    problems: Objects
    figures: Mapping[str, Mapping[str, Any]]

    def is_behind(self, resume: ResumeFrom | None) -> bool:
        """Whether a reader knows more: it was at a node that is ahead of this one by some milliseconds."""
        return resume is not None and resume.revision > self.view.revision

    def snapshot(self, scope: Scope) -> bytes:
        """Everything, for a new reader."""
        objects = {**stored_objects(self.view, scope), **_seen(self.problems, scope)}
        return self._event("snapshot", {"objects": objects, "figures": _seen(self.figures, scope)}, scope)

    def resumed(self, resume: ResumeFrom | None, scope: Scope, recent: RecentChanges) -> bytes | None:
        """What changed since, for a reader that was here before; None: it gets a snapshot.

        `recent`: the keys that changed lately, up to the view.
        """
        if resume is None or resume.tag != scope.tag or self.is_behind(resume):
            return None
        touched = recent.since(resume.revision)
        if touched is None:
            return None
        body = {
            "changes": [change.value() for change in resumed(self.view, touched, scope)],
            "problems": _seen(self.problems, scope),
            "figures": _seen(self.figures, scope),
        }
        return self._event("resumed", body, scope)

    def changes(self, changes: Sequence[Change], scope: Scope) -> bytes:
        """What has changed to become this; b"" where the scope has none of it."""
        seen = within(changes, scope)
        return self._event("changes", {"changes": [change.value() for change in seen]}, scope) if seen else b""

    def new_figures(self, scope: Scope) -> bytes:
        """The figures, which have changed."""
        return self._event("figures", _seen(self.figures, scope), scope)

    def _event(self, name: str, body: Mapping[str, Any], scope: Scope) -> bytes:
        return sse(name, body, id=str(ResumeFrom(self.view.revision, scope.tag)))


def _seen(named: Mapping[str, Mapping[str, Any]], scope: Scope) -> dict[str, Any]:
    return {name: fields for name, fields in named.items() if scope.sees(name)}
