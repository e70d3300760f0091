"""Bounds the concurrent requests of each application, so that none can exhaust what the others need. Pure.

A request equal to one in progress only waits for that one's answer. Such waiters are counted separately: they cost
little, and do not block other requests.
"""

from collections import Counter
from collections.abc import Hashable

AT_ONCE_MAX = 1000
"""Concurrent requests of one application in one worker; the next one is refused."""
WAITERS_MAX = 10_000
"""Requests of one application in one worker that wait for the answer of an equal request."""

Ticket = tuple[str, Hashable, bool]
"""Application, question (None: never shared), and whether the request only waits."""


class Admission:
    """Counts concurrent requests. Every ticket that is taken must be given back."""

    def __init__(self, *, at_once_max: int = AT_ONCE_MAX, waiters_max: int = WAITERS_MAX) -> None:
        self._at_once_max = at_once_max
        self._waiters_max = waiters_max
        self._requests: Counter[str] = Counter()
        self._waiters: Counter[str] = Counter()
        self._asked: Counter[tuple[str, Hashable]] = Counter()

    def take(self, app: str, question: Hashable = None) -> Ticket | None:
        """A ticket for one request; None when the limit is reached. Equal questions (not None) share one answer."""
        waits = question is not None and self._asked[app, question] > 0
        counts, most = (self._waiters, self._waiters_max) if waits else (self._requests, self._at_once_max)
        if counts[app] >= most:
            return None
        counts[app] += 1
        if question is not None:
            self._asked[app, question] += 1
        return app, question, waits

    def give_back(self, ticket: Ticket) -> None:
        """The request is finished."""
        app, question, waits = ticket
        (self._waiters if waits else self._requests)[app] -= 1
        if question is not None:
            self._asked[app, question] -= 1
            if not self._asked[app, question]:
                del self._asked[app, question]
