"""Whether to ask a server that failed: not at once, so that events do not wait for it again and again. Pure."""

from dataclasses import dataclass

from sandwich_coordinator.backoff import doubled_s

PAUSE_FIRST_S = 0.25
PAUSE_MAX_S = 2.0


@dataclass(slots=True)
class Breaker:
    """Closed while all is well. After a failure it is open for a pause that doubles with each further one."""

    failures: int = 0
    open_until: float = 0.0

    def allows(self, now: float) -> bool:
        """Whether to try. `now` in seconds of any clock that only goes forward."""
        return now >= self.open_until

    def failed(self, now: float) -> None:
        """The server did not answer."""
        self.failures += 1
        self.open_until = now + doubled_s(PAUSE_FIRST_S, PAUSE_MAX_S, self.failures)

    def succeeded(self) -> None:
        """It did."""
        self.failures = 0
        self.open_until = 0.0
