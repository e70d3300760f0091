"""When a worker's shards publish: at once while little happens, together at common moments while much does.

An append alone costs several times what it costs among others: a write, a read and a turn of the loop are for all that
leave together. So a busy worker's shards publish at ticks. At a low rate waiting would only add latency.
"""

import asyncio

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
        self._next: asyncio.Event | None = None

    def took(self, events: int, now: float) -> None:
        """So many events were taken to be published."""
        self._events += events
        length_s = now - self._began
        if length_s >= WINDOW_S:
            # Of one long window nothing is known but its mean: a burst after a pause waits no tick.
            self._events_per_s = self._events / length_s
            self._events, self._began = 0, now

    async def wait(self, now: float) -> None:
        """Wait until events may leave."""
        delay = delay_s(now, self._events_per_s, self._tick_s)
        if not delay:
            return
        tick = self._next
        if tick is None:
            tick = self._next = asyncio.Event()
            asyncio.get_running_loop().call_later(delay, self._fire)
        await tick.wait()

    def _fire(self) -> None:
        tick, self._next = self._next, None
        if tick is not None:
            tick.set()
