"""One client a bot, and how much of the bot's limit a worker takes."""

import pytest

from sandwich_node.rest.clients import BOT_PER_S, REMEMBERED_MAX, WORKER_MIN_PER_S, RestClients
from sandwich_node.rest.limiter import RestLimiter
from sandwich_node.secret import Secret


def clients() -> RestClients:
    return RestClients(None, "http://discord.invalid/api/v10")  # type: ignore[arg-type]


def per_s(made: RestClients, token_hash: str) -> float:
    limiter: RestLimiter = made._held[token_hash].limiter
    return limiter._all.per_s


def test_the_shards_of_a_bot_share_a_client_and_bots_do_not() -> None:
    made = clients()
    one = made.take("a", Secret("x"), 4)
    assert made.take("a", Secret("x"), 4) is one
    assert made.take("b", Secret("y"), 4) is not one


@pytest.mark.parametrize("workers", [1, 3, 16])
def test_all_workers_together_take_a_fifth_of_what_discord_allows_wherever_the_shards_are(workers: int) -> None:
    total, count = 0.0, 16
    shards: list[list[int]] = [list(range(number, count, workers)) for number in range(workers)]
    for mine in shards:
        made = clients()
        for _ in mine:
            made.take("a", Secret("x"), count)
        total += per_s(made, "a")
    assert total == pytest.approx(BOT_PER_S)


def test_a_worker_that_gives_shards_away_takes_less_and_a_tiny_part_is_still_something() -> None:
    made = clients()
    for _ in range(4):
        made.take("a", Secret("x"), 4000)
    assert per_s(made, "a") == WORKER_MIN_PER_S
    for _ in range(2):
        made.take("b", Secret("x"), 2)
    made.give_back("b", 2)
    assert per_s(made, "b") == pytest.approx(BOT_PER_S / 2)


def test_what_discord_said_of_limits_outlives_the_shards_within_bounds() -> None:
    made = clients()
    one = made.take("a", Secret("x"), 1)
    made.give_back("a", 1)
    assert made.take("a", Secret("x"), 1) is one
    for number in range(3 * REMEMBERED_MAX):
        made.take(str(number), Secret("x"), 1)
        made.give_back(str(number), 1)
    assert len(made._held) <= REMEMBERED_MAX
    assert made.take("a", Secret("x"), 1) is one


def test_no_part_of_it_shows_the_token() -> None:
    made = clients()
    made.take("a", Secret("canary.token"), 1)
    assert "canary" not in repr((vars(made), made._held))
