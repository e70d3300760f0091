"""Which keys of etcd changed lately, and at which revision. Pure.

The revision of a change is the same on every node, so that a reader who knows the cluster as of one revision can go on
at any of them: it needs the present state of every key that changed since.
"""

from collections import deque
from collections.abc import Iterable

from sandwich_coordinator.store.base import WatchBatch

KEPT_MAX = 50_000
"""A start of 10,000 shards writes some five keys for each. An entry takes some 100 bytes."""


class RecentChanges:
    """The last changes, at most `kept_max`. All later than `complete_from` are known."""

    def __init__(self, kept_max: int = KEPT_MAX) -> None:
        self.complete_from = 0
        self._kept_max = kept_max
        self._changes: deque[tuple[int, str]] = deque()

    def note(self, batches: Iterable[WatchBatch]) -> None:
        """Take changes, in the order of their revisions."""
        for batch in batches:
            self._changes.extend([(event.kv.mod_revision, event.kv.key) for event in batch.events])
        while len(self._changes) > self._kept_max:
            self.complete_from = self._changes.popleft()[0]

    def restart(self, revision: int) -> None:
        """The view was read again as a whole: what came and went before `revision` is not known."""
        self._changes.clear()
        self.complete_from = revision

    def since(self, revision: int) -> frozenset[str] | None:
        """The keys that changed after `revision`; None when not all of them are known any more."""
        if revision < self.complete_from:
            return None
        found = set()
        for changed_at, key in reversed(self._changes):
            if changed_at <= revision:
                break
            found.add(key)
        return frozenset(found)
