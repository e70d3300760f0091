"""What may be asked when, on virtual time, with a Discord that counts for itself."""

import math
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandwich_node.rest.limiter import (
    BACKGROUND_IN_FLIGHT_MAX,
    BUCKETS_MAX,
    IN_FLIGHT_MAX,
    INVALID_MAX,
    Bucket,
    InvalidGuard,
    RestLimiter,
    Route,
)


def invites(guild: int | str = 1) -> Route:
    return Route("GET /guilds/{id}/invites", str(guild), f"/guilds/{guild}/invites")


def vanity(guild: int | str = 1) -> Route:
    return Route("GET /guilds/{id}/vanity-url", str(guild), f"/guilds/{guild}/vanity-url")


def headers(remaining: int, reset_after: float, *, limit: int = 5, name: str = "h") -> dict[str, str]:
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset-After": str(reset_after),
        "X-RateLimit-Bucket": name,
    }


def limiter(share: float = 1000.0, invalid: int = INVALID_MAX) -> RestLimiter:
    return RestLimiter(share, InvalidGuard(invalid))


def ask(
    one: RestLimiter,
    route: Route,
    now: float,
    answer_headers: dict[str, str],
    status: int = 200,
    retry_after_s: float = 0.0,
) -> None:
    """One request, answered at once."""
    assert one.free_at(route, now, urgent=True) == now
    one.answered(
        one.send(route, now, urgent=True), now, status=status, headers=answer_headers, retry_after_s=retry_after_s
    )


def test_until_discord_named_a_bucket_one_request_at_a_time_finds_it_out() -> None:
    one = limiter()
    ticket = one.send(invites(), 0.0, urgent=True)
    assert one.free_at(invites(), 0.0, urgent=True) == math.inf
    assert one.free_at(invites(2), 0.0, urgent=True) == 0.0
    one.answered(ticket, 0.1, status=200, headers=headers(4, 5.0))
    assert one.free_at(invites(), 0.1, urgent=True) == 0.1


def test_a_spent_bucket_opens_when_discord_said_and_no_other_is_touched() -> None:
    one = limiter()
    ask(one, invites(1), 10.0, headers(0, 4.5))
    assert one.free_at(invites(1), 11.0, urgent=True) == 14.55
    assert one.free_at(invites(2), 11.0, urgent=True) == 11.0
    ask(one, invites(1), 14.55, headers(4, 5.0))


def test_routes_that_share_a_hash_share_their_bucket() -> None:
    one = limiter()
    ask(one, invites(), 0.0, headers(3, 5.0, name="both"))
    ask(one, vanity(), 0.0, headers(0, 5.0, name="both"))
    assert one.free_at(invites(), 1.0, urgent=True) == 5.05
    assert one.free_at(invites(7), 1.0, urgent=True) == 1.0


def test_a_hash_that_changes_starts_a_new_bucket() -> None:
    one = limiter()
    ask(one, invites(), 0.0, headers(4, 5.0, name="old"))
    ask(one, invites(), 0.0, headers(0, 60.0, name="new"))
    assert one.free_at(invites(), 1.0, urgent=True) == 60.05
    ask(one, invites(), 60.05, headers(1, 60.0, limit=2, name="old"))
    assert one.free_at(invites(), 61.0, urgent=True) == 61.0


def test_what_is_in_flight_counts_against_what_is_left() -> None:
    one = limiter()
    ask(one, invites(), 0.0, headers(3, 5.0))
    tickets = [one.send(invites(), 0.0, urgent=True) for _ in range(3)]
    assert one.free_at(invites(), 0.0, urgent=True) == 5.05
    one.answered(tickets[0], 0.1, status=200, headers=headers(2, 5.0))
    assert one.free_at(invites(), 0.1, urgent=True) == pytest.approx(5.15)
    one.lost(tickets[1])
    one.answered(tickets[2], 0.2, status=200, headers=headers(1, 5.0))
    assert one.free_at(invites(), 0.2, urgent=True) == 0.2


@pytest.mark.parametrize("scope", ["user", "shared"])
def test_a_limited_bucket_is_left_alone_and_the_rest_goes_on(scope: str) -> None:
    one = limiter(invalid=1)
    ask(one, invites(), 0.0, {"X-RateLimit-Scope": scope}, 429, 2.5)
    assert one.free_at(invites(), 0.0, urgent=True) >= 2.5
    assert one.free_at(invites(2), 0.0, urgent=True) == (0.0 if scope == "shared" else 600.0)


@pytest.mark.parametrize("answer_headers", [{"X-RateLimit-Global": "true", "X-RateLimit-Scope": "global"}, {}])
def test_a_global_limit_or_one_of_the_edge_stops_everything_and_slows_it_down(answer_headers: dict[str, str]) -> None:
    one = limiter(share=10.0)
    ask(one, invites(), 0.0, answer_headers, 429, 3.0)
    assert one.free_at(vanity(9), 0.0, urgent=True) == 3.0
    assert _sent_within(one, 3.0, 33.0) == pytest.approx(10 + 5 * 30, abs=1)
    assert _sent_within(one, 200.0, 210.0) == pytest.approx(10 + 10 * 10, abs=1)


def _sent_within(one: RestLimiter, start: float, end: float, *, urgent: bool = True) -> int:
    now, sent = start, 0
    while (now := one.free_at(invites(sent), now, urgent=urgent)) < end:
        ticket = one.send(invites(sent), now, urgent=urgent)
        one.answered(ticket, now, status=200, headers=headers(4, 5.0))
        sent += 1
    return sent


def test_the_share_is_kept_and_half_of_it_is_reserved_for_urgent_requests() -> None:
    assert _sent_within(limiter(share=10.0), 0.0, 60.0) == pytest.approx(610, abs=1)
    assert _sent_within(limiter(share=10.0), 0.0, 60.0, urgent=False) == pytest.approx(305, abs=1)
    one = limiter(share=10.0)
    _sent_within(one, 0.0, 60.0, urgent=False)
    assert one.free_at(invites(1), 60.0, urgent=True) == 60.0


def test_the_share_changes_with_the_shards_that_are_carried() -> None:
    one = limiter(share=10.0)
    one.set_share(2.0)
    assert _sent_within(one, 0.0, 60.0) == pytest.approx(122, abs=10)


def test_few_are_in_flight_and_fewer_in_the_background() -> None:
    one = limiter()
    for guild in range(BACKGROUND_IN_FLIGHT_MAX):
        one.send(invites(guild), 0.0, urgent=False)
    assert one.free_at(invites(100), 0.0, urgent=False) == math.inf
    for guild in range(BACKGROUND_IN_FLIGHT_MAX, IN_FLIGHT_MAX):
        assert one.free_at(invites(guild), 0.0, urgent=True) == 0.0
        one.send(invites(guild), 0.0, urgent=True)
    assert one.free_at(invites(100), 0.0, urgent=True) == math.inf


def test_it_stops_long_before_an_address_is_banned() -> None:
    guard = InvalidGuard()
    first, second = RestLimiter(1000.0, guard), RestLimiter(1000.0, guard)
    for number in range(INVALID_MAX):
        ask(first if number % 2 else second, invites(number), float(number) / 10, {}, 403)
    assert first.free_at(invites("x"), 50.0, urgent=True) == 600.0
    assert second.free_at(invites("x"), 50.0, urgent=True) == 600.0


def test_a_refused_token_is_remembered() -> None:
    one = limiter()
    ask(one, invites(), 0.0, {}, 401)
    assert one.token_refused


def test_headers_that_make_no_sense_change_nothing() -> None:
    bucket = Bucket()
    for value in ("", "nan", "inf", "-1", "x"):
        bucket.update(headers(0, 5.0) | {"X-RateLimit-Reset-After": value}, 0.0)
        bucket.update(headers(0, 5.0) | {"X-RateLimit-Remaining": value}, 0.0)
    assert bucket == Bucket()


def test_buckets_that_are_whole_again_are_forgotten() -> None:
    one = limiter(share=1e9)
    for guild in range(BUCKETS_MAX * 2):
        ask(one, invites(guild), float(guild), headers(4, 1.0))
    assert len(one._buckets) <= BUCKETS_MAX + 1


class Counting:
    """A Discord with fixed windows of its own, which answers after a while."""

    def __init__(self, limit: int, window_s: float) -> None:
        self.limit = limit
        self.window_s = window_s
        self.opened: dict[str, tuple[float, int]] = {}
        self.refused = 0

    def answer(self, route: Route, now: float) -> tuple[int, dict[str, str]]:
        opened_at, used = self.opened.get(route.major, (-math.inf, 0))
        if now >= opened_at + self.window_s:
            opened_at, used = now, 0
        left_s = opened_at + self.window_s - now
        if used >= self.limit:
            self.refused += 1
            return 429, headers(0, left_s, limit=self.limit) | {"X-RateLimit-Scope": "user"}
        self.opened[route.major] = (opened_at, used + 1)
        return 200, headers(self.limit - used - 1, left_s, limit=self.limit)


@given(
    st.lists(st.tuples(st.floats(0, 2), st.integers(1, 3), st.booleans()), max_size=80),
    st.integers(1, 6),
    st.floats(0.5, 10),
    st.floats(0.0, 0.5),
)
@settings(max_examples=150, deadline=None)
def test_a_discord_that_counts_for_itself_refuses_nothing(
    requests: list[tuple[float, int, bool]], limit: int, window_s: float, delay_s: float
) -> None:
    discord, one, now = Counting(limit, window_s), limiter(share=20.0), 0.0
    flying: deque[tuple[float, object, int, dict[str, str]]] = deque()

    def land(until: float) -> None:
        while flying and flying[0][0] <= until:
            at, ticket, status, answer_headers = flying.popleft()
            one.answered(ticket, at, status=status, headers=answer_headers, retry_after_s=window_s)  # type: ignore[arg-type]

    for pause, guild, urgent in requests:
        now += pause
        land(now)
        while (at := one.free_at(invites(guild), now, urgent=urgent)) > now:
            now = min(at, flying[0][0]) if flying else at
            assert now < math.inf
            land(now)
        ticket = one.send(invites(guild), now, urgent=urgent)
        flying.append((now + delay_s, ticket, *discord.answer(invites(guild), now + delay_s / 2)))
    assert discord.refused == 0
