"""What may be sent when: a sliding log of sends, and the queue of commands. Pure.

Rules: https://discord.com/developers/docs/events/gateway#rate-limiting: 120 payloads in 60 s on a connection, whatever
they are, and a few presence updates in 20 s. A log of send times, unlike a counter that is reset, exceeds the limit
in no window. Part of the capacity is kept for heartbeats.
"""

import math
from collections import deque
from typing import Any

from sandwich_node.gateway import opcodes, payloads

SENDS_MAX = 120
PRESENCES_MAX = 5
MARGIN_S = 0.5
"""Windows are measured where payloads arrive: those sent later may arrive closer together."""
WINDOW_S = 60.0 + MARGIN_S
PRESENCE_WINDOW_S = 20.0 + MARGIN_S
_RESERVE_MAX = 40
PRESENCE_BYTES_MAX = 3072
"""A presence also has to fit into IDENTIFY beside everything else."""


class SlidingLog:
    """Times of the last sends: at most `capacity` in any window."""

    __slots__ = ("_capacity", "_times", "_window")

    def __init__(self, capacity: int, window_s: float) -> None:
        self._capacity = capacity
        self._window = window_s
        self._times: deque[float] = deque()

    def free_at(self, now: float, reserve: int = 0) -> float:
        """When one more may be added with `reserve` places left over: `now`, or later."""
        times = self._times
        while times and times[0] + self._window <= now:
            times.popleft()
        room = self._capacity - reserve
        return now if len(times) < room else times[len(times) - room] + self._window

    def add(self, now: float) -> None:
        """One was sent."""
        self._times.append(now)


class SendLimiter:
    """The limits of one connection. Scheduled heartbeats come first, then requested ones, then commands."""

    def __init__(self, interval_s: float) -> None:
        self._sends = SlidingLog(SENDS_MAX, WINDOW_S)
        self._presences = SlidingLog(PRESENCES_MAX, PRESENCE_WINDOW_S)
        self._reserve = min(_RESERVE_MAX, math.ceil(WINDOW_S / interval_s) + 1)

    def heartbeat(self, now: float, *, requested: bool) -> bool:
        """Whether a heartbeat may be sent now; it then counts as sent."""
        if self._sends.free_at(now, self._reserve if requested else 0) > now:
            return False
        self._sends.add(now)
        return True

    def handshake(self, now: float) -> None:
        """IDENTIFY or RESUME was sent."""
        self._sends.add(now)

    def command_at(self, now: float, op: int) -> float:
        """When a command may be sent."""
        at = self._sends.free_at(now, 2 * self._reserve)
        return max(at, self._presences.free_at(now)) if op == opcodes.PRESENCE_UPDATE else at

    def command(self, now: float, op: int) -> None:
        """A command was sent."""
        self._sends.add(now)
        if op == opcodes.PRESENCE_UPDATE:
            self._presences.add(now)


_Slot = tuple[int, str | int]


class Outbox:
    """Commands waiting to be sent, oldest first; they survive reconnects.

    Of presences only the last waits, of voice states the last of each guild, in the place of the first.
    """

    def __init__(self, commands_max: int) -> None:
        self._max = commands_max
        self._waiting: dict[_Slot, bytes] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, op: int, data: dict[str, Any]) -> None:
        """Queue a command. Raises ValueError, with the reason, when it is not taken."""
        payload = payloads.command(op, data)
        if op == opcodes.PRESENCE_UPDATE and len(payload) > PRESENCE_BYTES_MAX:
            raise ValueError(f"the presence has {len(payload)} bytes; at most {PRESENCE_BYTES_MAX} are taken")
        slot = self._slot(op, data)
        if slot not in self._waiting and len(self._waiting) >= self._max:
            raise ValueError(f"{self._max} commands are waiting already")
        self._waiting[slot] = payload

    def _slot(self, op: int, data: dict[str, Any]) -> _Slot:
        if op == opcodes.PRESENCE_UPDATE:
            return op, ""
        if op == opcodes.VOICE_STATE_UPDATE:
            return op, str(data.get("guild_id"))
        self._count += 1
        return op, self._count

    def forget_presence(self) -> None:
        """IDENTIFY carries the presence: the one that waits is not needed."""
        self._waiting.pop((opcodes.PRESENCE_UPDATE, ""), None)

    def take(self, now: float, limiter: SendLimiter) -> tuple[int, bytes] | None:
        """The next command that may be sent now; it then counts as sent. A limited presence delays no other command."""
        slot = next((slot for slot in self._waiting if limiter.command_at(now, slot[0]) <= now), None)
        if slot is None:
            return None
        limiter.command(now, slot[0])
        return slot[0], self._waiting.pop(slot)

    def next_at(self, now: float, limiter: SendLimiter) -> float | None:
        """When `take` will give something; None when nothing waits."""
        ops = {op for op, _ in self._waiting}
        return min((limiter.command_at(now, op) for op in ops), default=None)
