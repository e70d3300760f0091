"""When Discord's REST API may be asked next, with one bot's token, from one worker. Pure.

Rules: https://discord.com/developers/docs/topics/rate-limits. A bucket is (the hash Discord names, the route's major
id); until the hash is known the route stands for it, and one request at a time finds it out. No limit is written
here: all come from the answers. `Reset-After` is used rather than `Reset`, which would compare two clocks.

Discord's 50 requests a second are the bot's, wherever it runs: this worker keeps to the share it is given, takes at
most half of that for what nobody waits for, and halves it for a while when Discord says that the bot was too fast.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sandwich_node.gateway.outbox import SlidingLog

INVALID_MAX = 500
"""Answers of 401, 403 and 429 in ten minutes. Discord bans an address after 10,000; a host may have many workers."""
INVALID_WINDOW_S = 600.0
BURST_S = 1.0
BURST_MIN = 2.0
IN_FLIGHT_MAX = 8
BACKGROUND_IN_FLIGHT_MAX = 2
HALVINGS_MAX = 4
RECOVER_S = 60.0
RESET_MARGIN_S = 0.05
"""A bucket's time is told in milliseconds and has passed at Discord, not here."""
BUCKETS_MAX = 4096
HASHES_MAX = 1024
RETRY_MAX_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Route:
    """What is asked: `template` names the route, `major` the id its bucket belongs to, `path` is the whole of it."""

    template: str
    major: str
    path: str


class InvalidGuard:
    """Counts the answers that get an address banned; one for all bots of a worker."""

    def __init__(self, most: int = INVALID_MAX) -> None:
        self._log = SlidingLog(most, INVALID_WINDOW_S)

    def free_at(self, now: float) -> float:
        """When one more may be risked."""
        return self._log.free_at(now)

    def add(self, now: float) -> None:
        """One was received."""
        self._log.add(now)


class Pace:
    """A token bucket: `per_s` on average, one second's worth at once; slower for a while when it was too fast."""

    def __init__(self, per_s: float) -> None:
        self.per_s = per_s
        self._tokens = self._burst
        self._at = -math.inf
        self._halvings = 0
        self._recover_at = math.inf

    @property
    def _burst(self) -> float:
        return max(BURST_MIN, self.per_s * BURST_S)

    def _fill(self, now: float) -> float:
        """Brings the tokens up to date; the rate at which they come."""
        while self._halvings and now >= self._recover_at:
            self._halvings -= 1
            self._recover_at += RECOVER_S
        rate = self.per_s * 0.5**self._halvings
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * rate)
            self._at = now
        return rate

    def free_at(self, now: float) -> float:
        """When the next may go."""
        rate = self._fill(now)
        # A hair less than one: a wait that was computed must not end a hair too early.
        return now if self._tokens >= 1 - 1e-9 else now + (1 - self._tokens) / rate

    def take(self, now: float) -> None:
        """One went."""
        self._fill(now)
        self._tokens -= 1

    def slow_down(self, now: float) -> None:
        """Half as fast, until it has been well for a minute."""
        self._fill(now)
        self._halvings = min(HALVINGS_MAX, self._halvings + 1)
        self._recover_at = now + RECOVER_S


@dataclass(slots=True)
class Bucket:
    """What Discord last said of one bucket. Until it said anything: one request at a time."""

    limit: int = 1
    remaining: int = 1
    reset_at: float = -math.inf
    closed_until: float = -math.inf
    in_flight: int = 0

    def free_at(self, now: float) -> float:
        """When one more may be sent; infinity: once one in flight is answered."""
        if now < self.closed_until:
            return self.closed_until
        if now >= self.reset_at:
            return now if self.in_flight < self.limit else math.inf
        return now if self.remaining > 0 else self.reset_at

    def take(self, now: float) -> None:
        """One is sent."""
        if now >= self.reset_at:
            self.remaining = self.limit - self.in_flight
        self.remaining -= 1
        self.in_flight += 1

    def told(self, headers: Mapping[str, str], now: float) -> None:
        """An answer described the bucket. Those still in flight may or may not be counted in it: they are counted."""
        limit, remaining = _number(headers, "X-RateLimit-Limit"), _number(headers, "X-RateLimit-Remaining")
        reset_after_s = _number(headers, "X-RateLimit-Reset-After")
        if limit is None or remaining is None or reset_after_s is None:
            return
        self.limit = max(1, int(limit))
        self.remaining = max(0, int(remaining) - self.in_flight)
        self.reset_at = now + reset_after_s + RESET_MARGIN_S

    def is_idle(self, now: float) -> bool:
        """Whether nothing is lost by forgetting it."""
        return not self.in_flight and now >= self.reset_at and now >= self.closed_until


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """The right to send one request, to be given back with `answered` or `lost`."""

    route: Route
    bucket: Bucket
    urgent: bool


class RestLimiter:
    """All limits of one token in one worker."""

    def __init__(self, share_per_s: float, invalid: InvalidGuard) -> None:
        self.token_refused = False
        """Discord answered 401: nothing is asked with this token any more."""
        self._invalid = invalid
        self._all = Pace(share_per_s)
        self._background = Pace(share_per_s / 2)
        self._closed_until = -math.inf
        self._hashes: dict[str, str] = {}
        self._limits: dict[str, int] = {}
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._flying: list[Ticket] = []

    def set_share(self, per_s: float) -> None:
        """Changes the share, in requests a second."""
        self._all.per_s, self._background.per_s = per_s, per_s / 2

    def free_at(self, route: Route, now: float, *, urgent: bool) -> float:
        """When this may be sent: `now`, or later; infinity: not before one in flight is answered."""
        in_background = sum(not ticket.urgent for ticket in self._flying)
        if len(self._flying) >= IN_FLIGHT_MAX or (not urgent and in_background >= BACKGROUND_IN_FLIGHT_MAX):
            return math.inf
        bucket = self._buckets.get(self._key(route))
        times = [self._closed_until, self._invalid.free_at(now), self._all.free_at(now)]
        times.append(bucket.free_at(now) if bucket else now)
        if not urgent:
            times.append(self._background.free_at(now))
        return max(now, *times)

    def send(self, route: Route, now: float, *, urgent: bool) -> Ticket:
        """Counts one request, which `free_at` allowed."""
        key = self._key(route)
        bucket = self._buckets.get(key)
        if bucket is None:
            self._forget_idle(now)
            limit = self._limits.get(key[0], 1)
            bucket = self._buckets[key] = Bucket(limit, limit)
        bucket.take(now)
        self._all.take(now)
        if not urgent:
            self._background.take(now)
        ticket = Ticket(route, bucket, urgent)
        self._flying.append(ticket)
        return ticket

    def lost(self, ticket: Ticket) -> None:
        """No answer came."""
        self._flying.remove(ticket)
        ticket.bucket.in_flight -= 1

    def answered(
        self, ticket: Ticket, now: float, *, status: int, headers: Mapping[str, str], retry_after_s: float = 0.0
    ) -> None:
        """An answer came; `retry_after_s` is a 429's."""
        self.lost(ticket)
        bucket = self._bucket_of_answer(ticket, headers, now)
        bucket.told(headers, now)
        scope = headers.get("X-RateLimit-Scope", "")
        if status == 401:
            self.token_refused = True
        if status in (401, 403) or (status == 429 and scope != "shared"):
            self._invalid.add(now)
        if status != 429:
            return
        until = now + min(retry_after_s, RETRY_MAX_S)
        if scope in ("user", "shared"):
            bucket.closed_until = max(bucket.closed_until, until)
        else:
            # The whole bot, or, without a scope, the whole address: the edge in front of Discord.
            self._closed_until = max(self._closed_until, until)
            self._all.slow_down(now)
            self._background.slow_down(now)

    def _key(self, route: Route) -> tuple[str, str]:
        return self._hashes.get(route.template, route.template), route.major

    def _bucket_of_answer(self, ticket: Ticket, headers: Mapping[str, str], now: float) -> Bucket:
        """The bucket an answer belongs to: the one it was sent by, or that of a hash that is new for its route."""
        name = headers.get("X-RateLimit-Bucket")
        if not name:
            return ticket.bucket
        if self._hashes.get(ticket.route.template) != name:
            self._learn(ticket.route.template, name)
        if (limit := _number(headers, "X-RateLimit-Limit")) is not None:
            self._limits[name] = max(1, int(limit))
        return self._buckets.setdefault((name, ticket.route.major), ticket.bucket)

    def _learn(self, template: str, name: str) -> None:
        """The route's bucket has another name: what is in flight goes over to it."""
        if len(self._hashes) >= HASHES_MAX or len(self._limits) >= HASHES_MAX:
            self._hashes.clear()
            self._limits.clear()
        self._hashes[template] = name
        for ticket in self._flying:
            if ticket.route.template == template:
                self._buckets.setdefault((name, ticket.route.major), ticket.bucket)

    def _forget_idle(self, now: float) -> None:
        """Keeps the number of buckets bounded: a bucket that is whole again need not be remembered."""
        if len(self._buckets) >= BUCKETS_MAX:
            self._buckets = {key: bucket for key, bucket in self._buckets.items() if not bucket.is_idle(now)}


def _number(headers: Mapping[str, str], name: str) -> float | None:
    """A header's finite number that is not negative; None when it is absent or none."""
    try:
        found = float(headers.get(name, ""))
    except ValueError:
        return None
    return found if 0 <= found < RETRY_MAX_S else None
