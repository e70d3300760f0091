"""How long to wait before the next connection, and before the next IDENTIFY. Pure.

A wait for a connection grows with attempts since the last READY or RESUMED (an open socket proves nothing), but little
while there is a session that Discord may still keep: its events are lost when it is found too late.
The time between two IDENTIFYs grows with those since a session last lived long: session starts are a daily budget of
the whole application, and spending it resets the token. At the cap a shard uses at most 288 a day. It runs from the
IDENTIFY on: a session that is lost later than that waits for nothing but its turn.
"""

import random

from sandwich_coordinator.backoff import doubled_s, jittered_s

QUICK_MIN_S = 0.05
QUICK_MAX_S = 0.4
FIRST_S = 1.0
CAP_S = 120.0
RESUME_CAP_S = 10.0
IDENTIFY_FIRST_S = 5.0
IDENTIFY_CAP_S = 600.0
DAMAGED_READYS_MAX = 3
DAMAGED_READY_WAIT_S = 3600.0
"""After so many READYs in a row that name no session: each costs an IDENTIFY of the day's budget."""
LIVE_STABLE_S = 10.0
"""A session that ends sooner after READY or RESUMED counts as one more attempt."""
IDENTIFY_STABLE_S = 300.0
"""A session that lives this long has been worth its IDENTIFY."""

FLAP_ATTEMPTS_MAX = 3
"""But no more than so many: a session that can be resumed must come back before Discord's replay buffer is full."""

_ATTEMPTS_MAX = 16


class GatewayBackoff:
    """The waits of one shard, built on the back-off of the whole cluster; the source of randomness is injected."""

    __slots__ = ("_attempts", "_damaged_readys", "_flaps", "_identifies", "_rng")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._attempts = 0
        self._flaps = 0
        self._identifies = 0
        self._damaged_readys = 0

    def succeeded(self) -> None:
        """READY or RESUMED came."""
        self._attempts = self._damaged_readys = 0

    def damaged_ready(self) -> float:
        """A READY came that names no session: seconds to wait at least before the next connection."""
        self._damaged_readys += 1
        return DAMAGED_READY_WAIT_S if self._damaged_readys >= DAMAGED_READYS_MAX else 0.0

    def lived(self, seconds: float) -> None:
        """A live session's connection ended after this long."""
        self._flaps = 0 if seconds >= LIVE_STABLE_S else self._flaps + 1
        if seconds >= IDENTIFY_STABLE_S:
            self.worth_it()

    def worth_it(self) -> None:
        """A session lived long enough."""
        self._identifies = 0

    def fresh(self) -> None:
        """What is tried next has not failed yet: another session, or another address."""
        self._attempts = self._flaps = 0

    def identified(self) -> None:
        """An IDENTIFY was sent."""
        self._identifies += 1

    def reconnect(self, minimum_s: float = 0.0, *, hopeful: bool = False) -> float:
        """Seconds until the next connection. Counts an attempt. `hopeful`: to a session that may still be resumed."""
        attempts = max(self._attempts, min(self._flaps - 1, FLAP_ATTEMPTS_MAX))
        self._attempts = min(attempts + 1, _ATTEMPTS_MAX)
        if attempts <= 0:
            return minimum_s + self._rng.uniform(QUICK_MIN_S, QUICK_MAX_S)
        wait = doubled_s(FIRST_S, RESUME_CAP_S if hopeful else CAP_S, attempts)
        return max(minimum_s, jittered_s(wait, self._rng))

    def identify(self) -> float:
        """Seconds from the last IDENTIFY to the next one at least; 0 before the first."""
        if not self._identifies:
            return 0.0
        return jittered_s(doubled_s(IDENTIFY_FIRST_S, IDENTIFY_CAP_S, self._identifies), self._rng)
