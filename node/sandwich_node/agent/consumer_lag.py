"""Which consumer groups fall behind, from what JetStream reports every ten seconds. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sandwich_coordinator.problems import Code, Problem, problem
from sandwich_coordinator.status import ConsumerStatus

LAG_FRAMES = 1000
BEHIND_AFTER_S = 60.0
"""So long with a lag of `LAG_FRAMES` or more: a burst is over by then."""
STUCK_AFTER_S = 300.0
"""So long with frames to handle and none acknowledged."""


@dataclass(slots=True)
class _Progress:
    floor: int
    moved_at: float
    low_at: float


@dataclass(slots=True)
class ConsumerLag:
    """Remembers how each group of each application went on. Times are Unix seconds."""

    groups: Sequence[ConsumerStatus] = ()
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    _progress: dict[tuple[str, str], _Progress] = field(default_factory=dict)

    def note(self, groups: Sequence[ConsumerStatus], dead_letters: Mapping[str, int], at: float) -> None:
        """Take a new report; groups that are not in it are forgotten."""
        before, self._progress = self._progress, {}
        for group in groups:
            key = group.app, group.group
            last = before.get(key) or _Progress(group.floor, at, at)
            if group.floor != last.floor or not group.lag:
                last.floor, last.moved_at = group.floor, at
            if group.lag < LAG_FRAMES:
                last.low_at = at
            self._progress[key] = last
        self.groups, self.dead_letters = groups, dead_letters

    def forget(self) -> None:
        """Another node leads and asks now."""
        self.groups, self.dead_letters = (), {}
        self._progress.clear()

    def problems(self, now: float) -> list[Problem]:
        """The groups that are behind at `now`, and the applications with dead letters."""
        found = []
        for group in self.groups:
            last = self._progress[group.app, group.group]
            since = None
            if group.lag >= LAG_FRAMES and now - last.low_at >= BEHIND_AFTER_S:
                since = last.low_at
            elif group.lag and now - last.moved_at >= STUCK_AFTER_S:
                since = last.moved_at
            if since is not None:
                subject = f"app/{group.app}/group/{group.group}"
                words = f"{group.app}: consumer group {group.group} has {group.lag} unacknowledged frames"
                advice = (
                    "see that its workers run; start more of them; if it is abandoned: "
                    f"sandwich group remove {group.app} {group.group}"
                )
                found.append(problem(Code.CONSUMER_BEHIND, subject, words, advice, since=since))
        for app, count in sorted(self.dead_letters.items()):
            if count:
                words = f"{app}: {count} dead {'letter waits' if count == 1 else 'letters wait'}"
                advice = f"sandwich dead list --app {app}; then replay or discard them"
                found.append(problem(Code.DEAD_LETTERS, f"app/{app}", words, advice))
        return found
