"""When to beat, when a connection counts as dead, and how long an ACK took. Pure.

Rules: https://discord.com/developers/docs/events/gateway#sending-heartbeats. Any inbound message counts as life, not
the ACK alone: ACKs queue behind replays and large GUILD_CREATEs.
"""

import random


class Heartbeat:
    """The heartbeat of one connection after another.

    `alive` is set by whoever reads (`alive = True`), and cleared by each beat. A beat that is due while `alive` is
    still cleared means a dead connection, unless we ourselves did not look: reading was suspended, or this beat is
    so late that the whole process must have stood still.
    """

    __slots__ = ("_interval", "_looked_away", "_sent_at", "_suspended", "alive", "next_at", "unanswered")

    def __init__(self) -> None:
        self.alive = True
        self.next_at: float | None = None
        self.unanswered = 0
        """Heartbeats of this connection that have no ACK. ACKs come in the order of heartbeats."""
        self._interval = 0.0
        self._sent_at: float | None = None
        self._suspended = False
        self._looked_away = False

    def start(self, interval_s: float, now: float, rng: random.Random) -> None:
        """HELLO came: the first beat comes after a random part of the interval; nothing of before counts."""
        self._interval = interval_s
        self.next_at = now + interval_s * rng.random()
        self.alive = True
        self.unanswered = 0
        self._sent_at = None
        self._looked_away = self._suspended

    def stop(self) -> None:
        """The connection ended, and with it any suspension of reading it."""
        self.next_at = None
        self.unanswered = 0
        self._sent_at = None
        self._suspended = False

    def suspend(self) -> None:
        """We stopped reading."""
        self._suspended = True
        self._looked_away = True

    def resume(self) -> None:
        """We read again; what came meanwhile has yet to be read, so the next beat does not judge."""
        self._suspended = False

    def due(self, now: float) -> bool:
        """Whether the next beat is due."""
        return self.next_at is not None and now >= self.next_at

    def beat(self, now: float) -> bool:
        """The due beat: True = send it, False = the connection is dead. Moves `next_at`."""
        assert self.next_at is not None
        late = now - self.next_at > self._interval / 2
        judged = not (self._looked_away or late)
        self.next_at = now + self._interval
        if judged and not self.alive:
            return False
        self.alive = False
        self._looked_away = self._suspended
        return True

    def sent(self, now: float) -> None:
        """A heartbeat left. An ACK is measured against the oldest that has none."""
        self.unanswered += 1
        if self._sent_at is None:
            self._sent_at = now

    def acknowledged(self, now: float) -> float | None:
        """An ACK came: the latency in seconds, None when it is unknown (nothing sent, or we read late)."""
        self.unanswered = max(0, self.unanswered - 1)
        sent_at, self._sent_at = self._sent_at, None
        if sent_at is None or self._looked_away:
            return None
        return now - sent_at
