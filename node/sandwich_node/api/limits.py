"""How often a client may do something: a bucket for each, in a bounded table. Pure: the time is given."""

from collections import OrderedDict
from dataclasses import dataclass, field

CLIENTS_MAX = 4096


@dataclass
class RateLimit:
    """`burst` at once, and one more every `every_s` seconds, for each client. The longest unused buckets are dropped.

    A dropped bucket is full again: more clients than `clients_max` at once weaken the limit, and cost no memory.
    """

    burst: int
    every_s: float
    clients_max: int = CLIENTS_MAX
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict, repr=False)

    def take(self, client: str, now: float) -> float:
        """Count one. 0: the client may; else the seconds until it may again, and nothing is counted."""
        left = self._left(client, now)
        if left < 1.0:
            return (1.0 - left) * self.every_s
        self._buckets[client] = (left - 1.0, now)
        self._buckets.move_to_end(client)
        if len(self._buckets) > self.clients_max:
            self._buckets.popitem(last=False)
        return 0.0

    def _left(self, client: str, now: float) -> float:
        left, at = self._buckets.get(client, (float(self.burst), now))
        return min(float(self.burst), left + max(0.0, now - at) / self.every_s)
