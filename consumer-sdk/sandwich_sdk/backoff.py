"""How long to wait before the next attempt: the wait doubles with each failure up to a limit, with jitter. Pure.

The SDK depends on no other package of Sandwich, so this class is its own.
"""

import random

JITTER_MIN = 0.5
"""A wait with jitter is between this part of it and all of it."""
_EXPONENT_MAX = 60
"""The exponent is bounded: an outage may last for days, and a float has a largest value."""


def doubled_s(first_s: float, max_s: float, failures: int) -> float:
    """The wait after `failures` failures in a row, without jitter: `first_s` after the first one, at most `max_s`."""
    return min(max_s, first_s * 2.0 ** min(max(failures - 1, 0), _EXPONENT_MAX))


class Backoff:
    """The waits of one operation that is tried again until it succeeds. All times are seconds.

    Jitter keeps the workers of a group from reconnecting at the same moment.
    """

    __slots__ = ("_failures", "_first_s", "_max_s", "_rng")

    def __init__(self, first_s: float, max_s: float, rng: random.Random | None = None) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._rng = rng or random.Random()
        self._failures = 0

    @property
    def failures(self) -> int:
        """Failures in a row."""
        return self._failures

    def next_s(self) -> float:
        """Count a failure; return how long to wait before the next attempt."""
        self._failures += 1
        return doubled_s(self._first_s, self._max_s, self._failures) * self._rng.uniform(JITTER_MIN, 1.0)

    def succeeded(self) -> None:
        """The next failure is the first in a row again."""
        self._failures = 0
