"""The rate of traffic. Pure: takes the time, returns a number of events."""

RATE_BACKLOG_S = 0.5  # after a stall, at most this much time is caught up


class Pacer:
    """Turns a rate into whole numbers of events, exact over time."""

    def __init__(self, rate: float = 0.0) -> None:
        self.rate = rate
        self._owed = 0.0
        self._last: float | None = None

    def due(self, now: float) -> int:
        """Events due since the last call."""
        elapsed = 0.0 if self._last is None else min(now - self._last, RATE_BACKLOG_S)
        self._last = now
        self._owed += elapsed * self.rate
        whole = int(self._owed)
        self._owed -= whole
        return whole
