"""When a worker's shards publish: at once while little happens, together at common moments while much does.

An append alone costs several times what it costs among others: a write, a read and a turn of the loop are for all that
leave together. So a busy worker's shards publish at ticks. At a low rate waiting would only add latency.
"""

import asyncio
from collections.abc import Callable

QUIET_EVENTS_PER_S = 200.0
"""Below this rate of a worker an event leaves at once."""
WINDOW_S = 0.25
"""The rate is that of the last window that is complete."""


def delay_s(now: float, events_per_s: float, tick_s: float) -> float:
    """How long an event of a worker with this rate waits from `now` on: 0, or until the next multiple of `tick_s`."""
    if tick_s <= 0 or events_per_s < QUIET_EVENTS_PER_S:
        return 0.0
    return tick_s - now % tick_s


class Ticks:
    """The ticks of one worker. `tick_s` 0: nothing waits."""

    def __init__(self, tick_s: float = 0.0) -> None:
        self._tick_s = tick_s
        self._events = 0
        self._events_per_s = 0.0
        self._began = 0.0
        self._ready: list[Callable[[], int]] = []

    def took(self, events: int, now: float) -> None:
        """So many events were taken to be published."""
        self._events += events
        length_s = now - self._began
        if length_s >= WINDOW_S:
            # Of one long window nothing is known but its mean: a burst after a pause waits no tick.
            self._events_per_s = self._events / length_s
            self._events, self._began = 0, now

    def call(self, publish: Callable[[], int]) -> None:
        """Call `publish` once events may leave, never at once. It returns how many it took, and must not raise."""
        self._ready.append(publish)
        if len(self._ready) == 1:
            loop = asyncio.get_running_loop()
            delay = delay_s(loop.time(), self._events_per_s, self._tick_s)
            if delay:
                loop.call_later(delay, self._fire)
            else:
                # Not at once: what was read together leaves together.
                loop.call_soon(self._fire)

    def _fire(self) -> None:
        ready, self._ready = self._ready, []
        events = 0
        for publish in ready:
            events += publish()
        self.took(events, asyncio.get_running_loop().time())
