"""How long joins may hold a shard's events back. Pure.

An event is held by the waits between its being read and its leaving, which may be several: so it is their sum over any
window that is bounded. A raid takes no more than three tenths of a shard's time by default, and never more than half.
"""

from collections import deque

WINDOW_S = 1.0


class HoldBudget:
    """At most `hold_s` in any second; for more than half a second, in twice that time."""

    def __init__(self, hold_s: float) -> None:
        self.hold_s = hold_s
        self.window_s = max(WINDOW_S, 2 * hold_s)
        self._spent: deque[tuple[float, float]] = deque()

    def allowed_s(self, now: float) -> float:
        """For how long may be waited from now on."""
        since = now - self.window_s
        while self._spent and self._spent[0][1] <= since:
            self._spent.popleft()
        return max(0.0, self.hold_s - sum(end - max(start, since) for start, end in self._spent))

    def spent(self, start: float, end: float) -> None:
        """So long was waited."""
        self._spent.append((start, end))
