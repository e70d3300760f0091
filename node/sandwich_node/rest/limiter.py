"""Decides when the next request to Discord's REST API may be sent, for one bot's token in one worker. Pure.

Rules: https://discord.com/developers/docs/topics/rate-limits. A bucket is (the hash from Discord, the route's major
id). While the hash is unknown the route replaces it, and requests are sent one at a time to learn it. No limit is
hard-coded: all come from answers. `Reset-After` is used and not `Reset`, which would compare two clocks.

Discord allows a bot 50 requests a second from all programs. This worker keeps to its share of them, uses at most half
of the share for background requests, and halves its rate for some time after a global 429.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sandwich_node.gateway.outbox import SlidingLog

INVALID_MAX = 500
"""Answers of 401, 403 and 429 in ten minutes. Discord bans an IP address after 10,000; a host may have many workers."""
INVALID_WINDOW_S = 600.0
BURST_S = 1.0
BURST_MIN = 2.0
IN_FLIGHT_MAX = 8
BACKGROUND_IN_FLIGHT_MAX = 2
HALVINGS_MAX = 4
RECOVER_S = 60.0
RESET_MARGIN_S = 0.05
"""Covers the rounding of reset times to milliseconds, and the time of the answer on its way."""
BUCKETS_MAX = 4096
HASHES_MAX = 1024
RETRY_MAX_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Route:
    """A request's route: `template` is its name, `major` the id of its bucket, `path` the complete path."""

    template: str
    major: str
    path: str


class InvalidGuard:
    """Counts the answers that lead to a ban of the IP address; one guard for all bots of a worker."""

    def __init__(self, most: int = INVALID_MAX) -> None:
        self._log = SlidingLog(most, INVALID_WINDOW_S)

    def free_at(self, now: float) -> float:
        """When the next request may be sent."""
        return self._log.free_at(now)

    def add(self, now: float) -> None:
        """Count one such answer."""
        self._log.add(now)


class Pace:
    """A token bucket: `per_s` on average, with bursts of one second; slower for some time after `slow_down`."""

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
        """Update the tokens; returns their present rate."""
        while self._halvings and now >= self._recover_at:
            self._halvings -= 1
            self._recover_at += RECOVER_S
        rate = self.per_s * 0.5**self._halvings
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * rate)
            self._at = now
        return rate

    def free_at(self, now: float) -> float:
        """When the next request may be sent."""
        rate = self._fill(now)
        # 1e-9 covers the rounding of floats: after the computed wait a token must be there.
        return now if self._tokens >= 1 - 1e-9 else now + (1 - self._tokens) / rate

    def take(self, now: float) -> None:
        """Count one request."""
        self._fill(now)
        self._tokens -= 1

    def slow_down(self, now: float) -> None:
        """Halve the rate; each `RECOVER_S` without another call doubles it again."""
        self._fill(now)
        self._halvings = min(HALVINGS_MAX, self._halvings + 1)
        self._recover_at = now + RECOVER_S


@dataclass(slots=True)
class Bucket:
    """The state of one bucket by Discord's last answer. Before the first answer: one request at a time."""

    limit: int = 1
    remaining: int = 1
    reset_at: float = -math.inf
    closed_until: float = -math.inf
    in_flight: int = 0

    def free_at(self, now: float) -> float:
        """When the next request may be sent; infinity: after one in flight is answered."""
        if now < self.closed_until:
            return self.closed_until
        if now >= self.reset_at:
            return now if self.in_flight < self.limit else math.inf
        return now if self.remaining > 0 else self.reset_at

    def take(self, now: float) -> None:
        """Count one sent request."""
        if now >= self.reset_at:
            self.remaining = self.limit - self.in_flight
        self.remaining -= 1
        self.in_flight += 1

    def update(self, headers: Mapping[str, str], now: float) -> None:
        """Apply the headers of an answer. They may or may not include requests in flight, which are subtracted."""
        limit, remaining = _number(headers, "X-RateLimit-Limit"), _number(headers, "X-RateLimit-Remaining")
        reset_after_s = _number(headers, "X-RateLimit-Reset-After")
        if limit is None or remaining is None or reset_after_s is None:
            return
        self.limit = max(1, int(limit))
        self.remaining = max(0, int(remaining) - self.in_flight)
        self.reset_at = now + reset_after_s + RESET_MARGIN_S

    def is_idle(self, now: float) -> bool:
        """Whether the bucket can be dropped without losing a limit."""
        return not self.in_flight and now >= self.reset_at and now >= self.closed_until


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """The right to send one request. Return it with `answered` or `lost`."""

    route: Route
    bucket: Bucket
    urgent: bool


class RestLimiter:
    """All limits of one token in one worker."""

    def __init__(self, share_per_s: float, invalid: InvalidGuard) -> None:
        self.token_refused = False
        """Discord answered 401: no further request is sent with this token."""
        self._invalid = invalid
        self._all = Pace(share_per_s)
        self._background = Pace(share_per_s / 2)
        self._closed_until = -math.inf
        self._hashes: dict[str, str] = {}
        self._limits: dict[str, int] = {}
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._flying: list[Ticket] = []

    def set_share(self, per_s: float) -> None:
        """Change the share, in requests a second."""
        self._all.per_s, self._background.per_s = per_s, per_s / 2

    def free_at(self, route: Route, now: float, *, urgent: bool) -> float:
        """When a request may be sent: `now` or later; infinity: after one in flight is answered."""
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
        """Count one request that `free_at` allowed."""
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
        """The request got no answer."""
        self._flying.remove(ticket)
        ticket.bucket.in_flight -= 1

    def answered(
        self, ticket: Ticket, now: float, *, status: int, headers: Mapping[str, str], retry_after_s: float = 0.0
    ) -> None:
        """The request was answered; `retry_after_s` is from a 429."""
        self.lost(ticket)
        bucket = self._bucket_of_answer(ticket, headers, now)
        bucket.update(headers, now)
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
            # A limit of the whole bot or, without a scope, of the IP address (by the proxies in front of Discord).
            self._closed_until = max(self._closed_until, until)
            self._all.slow_down(now)
            self._background.slow_down(now)

    def _key(self, route: Route) -> tuple[str, str]:
        return self._hashes.get(route.template, route.template), route.major

    def _bucket_of_answer(self, ticket: Ticket, headers: Mapping[str, str], now: float) -> Bucket:
        """The bucket of an answer: the one of its request, or the one of a hash that is new for the route."""
        name = headers.get("X-RateLimit-Bucket")
        if not name:
            return ticket.bucket
        if self._hashes.get(ticket.route.template) != name:
            self._learn(ticket.route.template, name)
        if (limit := _number(headers, "X-RateLimit-Limit")) is not None:
            self._limits[name] = max(1, int(limit))
        return self._buckets.setdefault((name, ticket.route.major), ticket.bucket)

    def _learn(self, template: str, name: str) -> None:
        """The route's bucket has a new hash: move the requests in flight to it."""
        if len(self._hashes) >= HASHES_MAX or len(self._limits) >= HASHES_MAX:
            self._hashes.clear()
            self._limits.clear()
        self._hashes[template] = name
        for ticket in self._flying:
            if ticket.route.template == template:
                self._buckets.setdefault((name, ticket.route.major), ticket.bucket)

    def _forget_idle(self, now: float) -> None:
        """Bound the number of buckets: drop those without a pending limit."""
        if len(self._buckets) >= BUCKETS_MAX:
            self._buckets = {key: bucket for key, bucket in self._buckets.items() if not bucket.is_idle(now)}


def _number(headers: Mapping[str, str], name: str) -> float | None:
    """A header's non-negative finite number; None when it is absent or invalid."""
    try:
        found = float(headers.get(name, ""))
    except ValueError:
        return None
    return found if 0 <= found < RETRY_MAX_S else None
