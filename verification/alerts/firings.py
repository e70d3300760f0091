"""When each alert fired, from one look at Prometheus after the other. Pure."""

import math
from collections import defaultdict
from collections.abc import Set
from dataclasses import dataclass

Alert = tuple[str, str]
"""Name, and the application of its label or ""."""


@dataclass(slots=True)
class _Span:
    began: float
    ended: float | None = None


class Firings:
    """What fires, and what fired before. Times are seconds of one clock, and those at which it was seen.

    looked  when the question was asked that was answered last: what fires is at least as new
    """

    def __init__(self) -> None:
        self.firing: Set[Alert] = frozenset()
        self.looked = -math.inf
        self._spans: dict[Alert, list[_Span]] = defaultdict(list)

    def saw(self, firing: Set[Alert], *, asked: float, answered: float) -> None:
        """Note what fires now."""
        for alert in firing - self.firing:
            self._spans[alert].append(_Span(answered))
        for alert in self.firing - firing:
            self._spans[alert][-1].ended = answered
        self.firing, self.looked = firing, asked

    def began(self, since: float) -> dict[Alert, float]:
        """The alerts that began to fire since then, and when they first did."""
        found = {
            alert: next((span.began for span in spans if span.began >= since), None)
            for alert, spans in self._spans.items()
        }
        return {alert: at for alert, at in found.items() if at is not None}

    def cleared(self, alert: Alert) -> float | None:
        """When the alert cleared last. None: it fires, or never did."""
        spans = self._spans.get(alert)
        return spans[-1].ended if spans else None
