"""A bound on what a worker logs about its shards' connections, however many shards there are. Pure."""

from dataclasses import dataclass

LINES_MAX = 10
WINDOW_S = 30.0


@dataclass(slots=True)
class _Lines:
    """What was logged and left out of one level since `since` (monotonic seconds)."""

    since: float = -WINDOW_S
    logged: int = 0
    left_out: int = 0


class FailureLog:
    """At most `LINES_MAX` lines of each level in `WINDOW_S` for all shards of a worker.

    The next line says how many were left out. Each level has its own bound: what only informs displaces no warning.
    """

    def __init__(self) -> None:
        self._levels: dict[int, _Lines] = {}

    def note(self, level: int, text: str, now: float) -> str | None:
        """The line to log now; None for none."""
        lines = self._levels.setdefault(level, _Lines())
        if now - lines.since >= WINDOW_S:
            lines.since, lines.logged = now, 0
        if lines.logged >= LINES_MAX:
            lines.left_out += 1
            return None
        lines.logged += 1
        left_out, lines.left_out = lines.left_out, 0
        return f"{text} ({left_out} more such lines left out before)" if left_out else text
