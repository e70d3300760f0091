"""REST rate limits (docs/design/protocol.md, section 17): a bucket per route and major id, 50 requests/s. Pure."""

import hashlib
from dataclasses import dataclass

from .identify_rules import SlidingWindow

GLOBAL_LIMIT = 50
GLOBAL_WINDOW_S = 1.0
ROUTES_MAX = 10_000
ROUTE_LIMITS: dict[str, tuple[int, float]] = {
    "GET /gateway": (50, 1.0),
    "GET /gateway/bot": (5, 5.0),
    "POST /channels/{channel}/messages": (5, 5.0),
    "GET /channels/{channel}/messages": (5, 5.0),
    "GET /guilds/{guild}/invites": (5, 5.0),
    "GET /guilds/{guild}/vanity-url": (5, 5.0),
    "GET /channels/{channel}/invites": (5, 5.0),
}
DEFAULT_LIMIT = (10, 5.0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request is allowed, and the headers of its answer."""

    allowed: bool
    retry_after_s: float
    is_global: bool
    headers: dict[str, str]


class RestLimits:
    """All buckets of all tokens."""

    def __init__(self) -> None:
        self._global: dict[str, SlidingWindow] = {}
        self._buckets: dict[tuple[str, str, str], SlidingWindow] = {}

    def judge(self, *, who: str, route: str, major: str, now: float, wall_s: float) -> Verdict:
        """Counts one request of bot `who` on a route (method and template) with its major parameter."""
        overall = self._global.setdefault(who, SlidingWindow(GLOBAL_LIMIT, GLOBAL_WINDOW_S))
        if not overall.try_take(now):
            return self._refuse(overall.retry_after(now), is_global=True, headers={})
        if len(self._buckets) >= ROUTES_MAX:
            self._buckets.clear()
        limit, window_s = ROUTE_LIMITS.get(route, DEFAULT_LIMIT)
        bucket = self._buckets.setdefault((who, route, major), SlidingWindow(limit, window_s))
        allowed = bucket.try_take(now)
        reset_after = bucket.retry_after(now) or window_s
        headers = {
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(bucket.remaining(now)),
            "X-RateLimit-Reset": f"{wall_s + reset_after:.3f}",
            "X-RateLimit-Reset-After": f"{reset_after:.3f}",
            "X-RateLimit-Bucket": hashlib.blake2b(route.encode(), digest_size=16).hexdigest(),
        }
        return Verdict(True, 0.0, False, headers) if allowed else self._refuse(reset_after, False, headers)

    def _refuse(self, retry_after_s: float, is_global: bool, headers: dict[str, str]) -> Verdict:
        extra = {"Retry-After": str(max(1, round(retry_after_s + 0.5))), "X-RateLimit-Scope": "user"}
        if is_global:
            extra |= {"X-RateLimit-Global": "true", "X-RateLimit-Scope": "global"}
        return Verdict(False, retry_after_s, is_global, headers | extra)
