"""Log lines about events that were unreadable, or readable only in part. Pure.

The feed counts each such event. The log has at most one line per type and minute, with the number of events. It names
the type and the list, and contains nothing of the content.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

QUIET_S = 60.0
"""Between two log lines about one event type of one shard."""


@dataclass(slots=True)
class _LastLine:
    at: float
    since: int = 0


class Shortfalls:
    """The unreadable events of one shard. Only types that the cache reads occur, so they are few."""

    def __init__(self) -> None:
        self._last_lines: dict[str, _LastLine] = {}

    def note(self, event_type: str, what: str, now: float) -> str:
        """The line to log; "" if the type was logged less than a minute ago. `what` describes the damage."""
        last = self._last_lines.get(event_type)
        if last is not None and now - last.at < QUIET_S:
            last.since += 1
            return ""
        self._last_lines[event_type] = _LastLine(now)
        more = f" ({last.since} more like it since the last such line)" if last is not None and last.since else ""
        return f"{what}{more}"


def left_out(event_type: str, lost: Sequence[str]) -> str:
    """The description of the parts of an event that were left out, by the names of its lists."""
    parts = ", ".join(f"{count} of {name}" for name, count in sorted(Counter(lost).items()))
    return f"{event_type} has parts that do not have the documented form and are left out: {parts}"
