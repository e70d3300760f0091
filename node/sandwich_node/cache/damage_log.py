"""What is said in the log of events that could not be read, or only in part. Pure.

Each is counted by the feed; the log has a line a type a minute, with how many there were. It names the type and the
list, and has nothing of the content.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

QUIET_S = 60.0
"""Between two lines about one type, of one shard."""


@dataclass(slots=True)
class _Said:
    at: float
    since: int = 0


class Shortfalls:
    """One shard's. Only types that the cache knows come here, so that they are few."""

    def __init__(self) -> None:
        self._said: dict[str, _Said] = {}

    def note(self, event_type: str, what: str, now: float) -> str:
        """The line to log; "" while the type was said less than a minute ago. `what`: what is the matter with it."""
        said = self._said.get(event_type)
        if said is not None and now - said.at < QUIET_S:
            said.since += 1
            return ""
        self._said[event_type] = _Said(now)
        more = f" ({said.since} more like it since the last such line)" if said is not None and said.since else ""
        return f"{what}{more}"


def left_out(event_type: str, lost: Sequence[str]) -> str:
    """What an event lacks, by the names of its lists."""
    parts = ", ".join(f"{count} of {name}" for name, count in sorted(Counter(lost).items()))
    return f"{event_type} has parts that have not the known shape and are left out: {parts}"
