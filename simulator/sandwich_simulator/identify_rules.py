"""Rules of IDENTIFY: its format, close codes, five-second buckets and daily budget. Pure."""

from dataclasses import dataclass
from typing import Any

from .config import BotConfig
from .intents import ALL_INTENTS
from .world import GUILDS_PER_SHARD_MAX

BAD_PAYLOAD = 4001
DECODE_ERROR = 4002
NOT_AUTHENTICATED = 4003
AUTHENTICATION_FAILED = 4004
ALREADY_AUTHENTICATED = 4005
INVALID_SEQ = 4007
RATE_LIMITED = 4008
SESSION_TIMED_OUT = 4009
INVALID_SHARD = 4010
SHARDING_REQUIRED = 4011
INVALID_API_VERSION = 4012
INVALID_INTENTS = 4013
DISALLOWED_INTENTS = 4014
INVALIDATING = frozenset({1000, 1001})  # from the client
SESSION_ENDING = frozenset({4001, 4003, 4004, 4006, 4007, 4009, 4010, 4011, 4012, 4013, 4014})  # sent by Discord
LARGE_THRESHOLD_DEFAULT = 50


class Rejected(Exception):
    """A payload that ends the connection with `code`; `reason` goes into the close frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Identify:
    """A well-formed IDENTIFY."""

    token: str
    intents: int
    shard: int
    count: int
    is_sharded: bool
    compress: bool
    large_threshold: int

    def __repr__(self) -> str:
        return f"Identify(shard={self.shard}, count={self.count}, intents={self.intents})"


def bare_token(token: str) -> str:
    """The token without the prefix `Bot ` that some libraries send."""
    return token.removeprefix("Bot ")


def is_integer(value: Any) -> bool:
    """Whether a JSON value is an integer (true and false are not)."""
    return isinstance(value, int) and not isinstance(value, bool)


def parse_identify(d: Any) -> Identify:
    """Parses the payload's `d`. Raises Rejected: 4001 for a wrong format, 4010 for an invalid shard."""
    if not isinstance(d, dict) or not isinstance(d.get("token"), str) or not is_integer(d.get("intents")):
        raise Rejected(BAD_PAYLOAD, "IDENTIFY needs token and intents")
    properties = d.get("properties")
    if not isinstance(properties, dict):
        raise Rejected(BAD_PAYLOAD, "IDENTIFY needs properties")
    if any(not isinstance(properties.get(k, properties.get("$" + k)), str) for k in ("os", "browser", "device")):
        raise Rejected(BAD_PAYLOAD, "properties needs os, browser and device")
    threshold = d.get("large_threshold", LARGE_THRESHOLD_DEFAULT)
    if not is_integer(threshold) or not 50 <= threshold <= 250:
        raise Rejected(BAD_PAYLOAD, "large_threshold is 50 to 250")
    if not isinstance(d.get("compress", False), bool) or not isinstance(d.get("presence") or {}, dict):
        raise Rejected(BAD_PAYLOAD, "compress is a boolean, presence an object")
    shard, count = _parse_shard(d.get("shard"))
    return Identify(
        token=bare_token(d["token"]),
        intents=d["intents"],
        shard=shard,
        count=count,
        is_sharded=d.get("shard") is not None,
        compress=d.get("compress", False),
        large_threshold=threshold,
    )


def _parse_shard(value: Any) -> tuple[int, int]:
    if value is None:
        return 0, 1
    if not isinstance(value, list) or len(value) != 2 or not all(map(is_integer, value)):
        raise Rejected(INVALID_SHARD, "Invalid shard")
    shard, count = value
    if not 0 <= shard < count:
        raise Rejected(INVALID_SHARD, "Invalid shard")
    return shard, count


def check_identify(identify: Identify, bot: BotConfig, *, guilds_on_shard: int) -> None:
    """Raises Rejected when the bot may not identify so: 4013, 4014, 4010 (large bots' multiples), 4011."""
    if identify.intents < 0 or identify.intents & ~ALL_INTENTS:
        raise Rejected(INVALID_INTENTS, "Invalid intent(s).")
    if identify.intents & ~bot.allowed_intents:
        raise Rejected(DISALLOWED_INTENTS, "Disallowed intent(s).")
    if identify.count % bot.shard_multiple:
        raise Rejected(INVALID_SHARD, "Invalid shard")
    if guilds_on_shard > GUILDS_PER_SHARD_MAX:
        raise Rejected(SHARDING_REQUIRED, "Sharding required")


class IdentifyBuckets:
    """One IDENTIFY per bucket and `interval_s`; the bucket is `shard_id % max_concurrency`."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._last: dict[int, float] = {}

    def try_take(self, shard: int, max_concurrency: int, now: float) -> bool:
        """Takes the bucket's next slot; False, without a change, when it is too early."""
        key = shard % max_concurrency
        last = self._last.get(key)
        if last is not None and now - last < self._interval_s:
            return False
        self._last[key] = now
        return True


class SessionBudget:
    """The session starts that are left in the current day."""

    def __init__(self, limit: int, window_s: float) -> None:
        self.limit = limit
        self._window_s = window_s
        self._used = 0
        self._reset_at: float | None = None

    def _roll(self, now: float) -> None:
        if self._reset_at is not None and now >= self._reset_at:
            self._used, self._reset_at = 0, None

    def remaining(self, now: float) -> int:
        """Starts left."""
        self._roll(now)
        return max(0, self.limit - self._used)

    def reset_after_ms(self, now: float) -> int:
        """Milliseconds until the budget is full again; 0 when it is full."""
        self._roll(now)
        return 0 if self._reset_at is None else max(1, int((self._reset_at - now) * 1000))

    def try_spend(self, now: float) -> bool:
        """Uses one start; False when none is left."""
        if not self.remaining(now):
            return False
        if self._reset_at is None:
            self._reset_at = now + self._window_s
        self._used += 1
        return True

    def set_remaining(self, remaining: int, now: float) -> None:
        """Sets the remaining starts, for tests of a nearly used budget."""
        self._used = self.limit - remaining
        if self._reset_at is None:
            self._reset_at = now + self._window_s


class SlidingWindow:
    """At most `limit` in any `window_s`."""

    def __init__(self, limit: int, window_s: float) -> None:
        self._limit = limit
        self._window_s = window_s
        self._times: list[float] = []

    def try_take(self, now: float) -> bool:
        """Counts one; False when it exceeds the limit."""
        self._times = [t for t in self._times if now - t < self._window_s]
        if len(self._times) >= self._limit:
            return False
        self._times.append(now)
        return True

    def retry_after(self, now: float) -> float:
        """Seconds until there is room."""
        recent = [t for t in self._times if now - t < self._window_s]
        return 0.0 if len(recent) < self._limit else recent[0] + self._window_s - now

    def remaining(self, now: float) -> int:
        """How many are allowed now."""
        return self._limit - sum(1 for t in self._times if now - t < self._window_s)
