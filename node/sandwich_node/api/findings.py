"""What follows from a snapshot of the cluster: computed once, however many readers ask while nothing changes. Pure."""

from collections.abc import Sequence
from typing import Any

from sandwich_coordinator.operations.health import find_problems
from sandwich_coordinator.operations.rows import app_rows
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.problems import Problem


class Findings:
    """Of the newest snapshot. What is returned is shared: callers change nothing of it."""

    def __init__(self) -> None:
        self._of: Snapshot | None = None
        self._problems: Sequence[Problem] | None = None
        self._apps: Sequence[dict[str, Any]] | None = None

    def problems(self, snapshot: Snapshot) -> Sequence[Problem]:
        """What is wrong, worst first."""
        self._use(snapshot)
        if self._problems is None:
            self._problems = find_problems(snapshot)
        return self._problems

    def apps(self, snapshot: Snapshot) -> Sequence[dict[str, Any]]:
        """One row an application."""
        problems = self.problems(snapshot)
        if self._apps is None:
            self._apps = app_rows(snapshot, problems)
        return self._apps

    def _use(self, snapshot: Snapshot) -> None:
        if self._of is not snapshot:
            self._of, self._problems, self._apps = snapshot, None, None
