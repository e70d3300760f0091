"""How many requests may be under way, by application, so that none can use up what the others need. Pure.

Who asks what is being asked already only waits for that answer. It is counted apart: such waiters cost little, and do
not keep other questions from being asked.
"""

from collections import Counter
from collections.abc import Hashable

AT_ONCE_MAX = 1000
"""Requests of one application under way in one worker; the next one is refused."""
WAITERS_MAX = 10_000
"""Requests of one application that wait in one worker for answers which others asked for."""

Ticket = tuple[str, Hashable, bool]
"""Application, question (None: one of its own kind), and whether it only waits."""


class Admission:
    """Counts what is under way. Every ticket taken is to be given back."""

    def __init__(self, *, at_once_max: int = AT_ONCE_MAX, waiters_max: int = WAITERS_MAX) -> None:
        self._at_once_max = at_once_max
        self._waiters_max = waiters_max
        self._requests: Counter[str] = Counter()
        self._waiters: Counter[str] = Counter()
        self._asked: Counter[tuple[str, Hashable]] = Counter()

    def take(self, app: str, question: Hashable = None) -> Ticket | None:
        """A place for one request; None when there is none. Equal questions (not None) share one answer."""
        waits = question is not None and self._asked[app, question] > 0
        counts, most = (self._waiters, self._waiters_max) if waits else (self._requests, self._at_once_max)
        if counts[app] >= most:
            return None
        counts[app] += 1
        if question is not None:
            self._asked[app, question] += 1
        return app, question, waits

    def give_back(self, ticket: Ticket) -> None:
        """The request has its answer."""
        app, question, waits = ticket
        (self._waiters if waits else self._requests)[app] -= 1
        if question is not None:
            self._asked[app, question] -= 1
            if not self._asked[app, question]:
                del self._asked[app, question]
