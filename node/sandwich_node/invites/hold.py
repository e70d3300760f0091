"""How long joins may hold a shard's events back. Pure.

Several waits can fall between the reading of an event and its publishing. The bound therefore applies to the sum of the
waits in any window. A raid takes at most three tenths of a shard's time by default, and never more than half.
"""

from collections import deque

WINDOW_S = 1.0


class HoldBudget:
    """At most `hold_s` in any second; if `hold_s` is more than half a second, in any window of `2 * hold_s`."""

    def __init__(self, hold_s: float) -> None:
        self.hold_s = hold_s
        self.window_s = max(WINDOW_S, 2 * hold_s)
        self._spent: deque[tuple[float, float]] = deque()

    def allowed_s(self, now: float) -> float:
        """How long a wait that starts now may last."""
        since = now - self.window_s
        while self._spent and self._spent[0][1] <= since:
            self._spent.popleft()
        return max(0.0, self.hold_s - sum(end - max(start, since) for start, end in self._spent))

    def spent(self, start: float, end: float) -> None:
        """Record a wait."""
        self._spent.append((start, end))
