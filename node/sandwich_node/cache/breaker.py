"""Decides whether to call a server that failed, so that events do not wait for it repeatedly. Pure."""

from dataclasses import dataclass

from sandwich_coordinator.backoff import doubled_s

PAUSE_FIRST_S = 0.25
PAUSE_MAX_S = 2.0


@dataclass(slots=True)
class Breaker:
    """Closed while calls succeed. A failure opens it for a pause, which doubles with each further failure."""

    failures: int = 0
    open_until: float = 0.0

    def allows(self, now: float) -> bool:
        """Whether a call may be made. `now`: seconds of a monotonic clock."""
        return now >= self.open_until

    def failed(self, now: float) -> None:
        """Record that the server did not answer."""
        self.failures += 1
        self.open_until = now + doubled_s(PAUSE_FIRST_S, PAUSE_MAX_S, self.failures)

    def succeeded(self) -> None:
        """Record that the server answered."""
        self.failures = 0
        self.open_until = 0.0
