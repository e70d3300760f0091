"""What one session of a bot does not see as the others do: late events, and events that it does not get. Pure.

With late events, two sessions receive the events of different guilds in different orders, and one of them lags.
"""

import heapq
import random
from collections.abc import Container
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from .outbox import Outbox

ACK = b'{"t":null,"s":null,"op":11,"d":null}'


class Dispatch(NamedTuple):
    """An event for one session, before it gets a sequence. `guild` 0: it belongs to none.

    event     the number of the world's event, the same for all sessions that receive it; 0: it is of this session only
    sessions  how many sessions of the bot there were for its guild
    """

    name: str
    data: bytes
    guild: int = 0
    event: int = 0
    sessions: int = 1


@dataclass(slots=True)
class Delay:
    """The waiting events of one session. Times are seconds of the monotonic clock.

    max_s      each event waits for up to this time, and not less than the events of its guild before it
    until      later events wait only for those before them
    acks_wait  the acknowledgement of a heartbeat waits for all events that were sent before it, as on a slow
               connection; otherwise it overtakes them, as if a guild were slow
    """

    max_s: float
    until: float
    acks_wait: bool
    rng: random.Random = field(repr=False)
    _waiting: list[tuple[float, int, Dispatch | Outbox]] = field(default_factory=list)
    _last: dict[int, float] = field(default_factory=dict)
    _latest: float = 0.0
    _numbers: "count[int]" = field(default_factory=count)

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, dispatch: Dispatch, now: float) -> None:
        """Adds an event that is sent now."""
        extra = self.rng.uniform(0, self.max_s) if now < self.until else 0.0
        due = self._last[dispatch.guild] = max(self._last.get(dispatch.guild, 0.0), now + extra)
        self._push(due, dispatch)

    def push_ack(self, outbox: Outbox, now: float) -> None:
        """Adds the acknowledgement of a heartbeat that came now on the socket of this outbox."""
        self._push(max(self._latest, now) if self.acks_wait else now, outbox)

    def _push(self, due: float, item: Dispatch | Outbox) -> None:
        self._latest = max(self._latest, due)
        heapq.heappush(self._waiting, (due, next(self._numbers), item))

    def due(self, now: float) -> list[Dispatch | Outbox]:
        """Removes and returns the events, and the outboxes that get an acknowledgement, which are due; in order."""
        found = []
        while self._waiting and self._waiting[0][0] <= now:
            found.append(heapq.heappop(self._waiting)[2])
        return found

    def is_over(self, now: float) -> bool:
        """Whether nothing waits and nothing more will."""
        return now >= self.until and not self._waiting


@dataclass(slots=True)
class Omission:
    """A share of the events of these types that one session does not get while another session of the bot does."""

    share: float
    until: float
    types: Container[str]
    rng: random.Random = field(repr=False)

    def omits(self, name: str, now: float) -> bool:
        """Whether the session does not get this event."""
        return now < self.until and name in self.types and self.rng.random() < self.share
