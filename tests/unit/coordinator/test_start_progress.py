"""How far a start is, and what the status says when the budget holds it up."""

from typing import Any

import msgspec
import pytest

from sandwich_coordinator.cli.render import start_rows, status_text, to_json
from sandwich_coordinator.operations.health import find_problems
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.problems import Code, Severity
from sandwich_coordinator.start_order import at_utc
from sandwich_coordinator.start_progress import StartProgress, start_estimate, start_progress
from sandwich_coordinator.types import Record
from tests.unit.coordinator.test_health import KEYS, NOW, claim, cluster, only, records

SPACING_S = Policy().identify_spacing_s


def starting(states: list[str], *, buckets: int = 2, count: int = 8, remaining: int = 900, **group: Any) -> Snapshot:
    """A group of `count` shards that starts; `states` of its first ones, the others are not claimed."""
    fields = {"count": count, "ids": f"0-{count - 1}", "state": "starting", **group}
    changes: dict[str, Record | None] = {
        KEYS.group("bot", 1): msgspec.structs.replace(records()[KEYS.group("bot", 1)], **fields),
        KEYS.budget("h"): msgspec.structs.replace(
            records()[KEYS.budget("h")], remaining=remaining, max_concurrency=buckets, shards=count
        ),
        KEYS.claim("bot", 1, 0): None,
        KEYS.claim("bot", 1, 1): None,
    }
    for number, state in enumerate(states):
        changes[KEYS.claim("bot", 1, number)] = claim(number, state=state, since=NOW - 5)
    return cluster(changes)


def of(snapshot: Snapshot) -> StartProgress:
    (found,) = start_progress(snapshot.view, snapshot.policy, snapshot.now)
    return found


@pytest.mark.parametrize(
    ("count", "buckets", "seconds"), [(0, 1, 0.0), (1, 1, 5.0), (24, 1, 120.0), (160, 16, 50.0), (161, 16, 55.0)]
)
def test_an_estimate_is_a_spacing_for_each_round_of_all_buckets(count: int, buckets: int, seconds: float) -> None:
    assert start_estimate(count, buckets) == seconds
    assert start_estimate(count, buckets, 10.0) == 2 * seconds


@pytest.mark.parametrize(("count", "buckets", "spacing_s"), [(-1, 1, 5.0), (1, 0, 5.0), (1, 1, -0.1)])
def test_an_estimate_of_nonsense_is_refused(count: int, buckets: int, spacing_s: float) -> None:
    with pytest.raises(ValueError, match="max_concurrency"):
        start_estimate(count, buckets, spacing_s)


def test_a_start_says_how_many_have_their_session_how_many_wait_and_for_how_long() -> None:
    found = of(starting(["live", "live", "ready", "identifying", "connecting", "failed"]))
    assert (found.started, found.wanted, found.failed, found.waiting) == (3, 8, 1, 4)
    assert found.eta_s == pytest.approx(2 * SPACING_S), "3, 4, 6 and 7 wait: two in each bucket"
    assert found.per_minute == pytest.approx(120 / SPACING_S, abs=0.1)
    assert (found.starts_left, found.blocked_until) == (700, None)


def test_shards_of_another_application_with_the_token_delay_a_start() -> None:
    snapshot = starting(["live"] * 6)
    other = msgspec.structs.replace(records()[KEYS.group("bot", 1)], app="twin", state="live", count=8, ids="0-7")
    waits = msgspec.structs.replace(claim(6, state="identifying"), app="twin")
    app = msgspec.structs.replace(records()[KEYS.app("bot")], app="twin")
    more: dict[str, Record | None] = {
        KEYS.app("twin"): app,
        KEYS.group("twin", 1): other,
        KEYS.claim("twin", 1, 6): waits,
    }
    with_twin = cluster(_records_of(snapshot) | more)
    bot, twin = start_progress(with_twin.view, with_twin.policy, NOW)
    assert (bot.app, bot.waiting, twin.app, twin.waiting) == ("bot", 2, "twin", 1)
    assert bot.eta_s == pytest.approx(2 * SPACING_S), "the twin's shard 6, which was live, is before its 6"
    assert twin.eta_s == pytest.approx(SPACING_S)


def _records_of(snapshot: Snapshot) -> dict[str, Record | None]:
    view = snapshot.view
    found: dict[str, Record | None] = {KEYS.claim(*shard): entry.record for shard, entry in view.claims.items()}
    found |= {KEYS.group(*key): entry.record for key, entry in view.groups.items()}
    return found | {KEYS.budget(key): entry.record for key, entry in view.budgets.items()}


def test_a_prepared_group_is_shown_and_a_group_that_only_resumes_is_not() -> None:
    assert start_rows(cluster()) == []
    resuming: dict[str, Record | None] = {KEYS.claim("bot", 1, 0): claim(0, state="resuming", since=NOW - 1)}
    assert start_rows(cluster(resuming)) == []
    lost: dict[str, Record | None] = {KEYS.claim("bot", 1, 0): claim(0, state="identifying", since=NOW - 1)}
    (row,) = start_rows(cluster(lost))
    assert (row["waiting"], row["starts_left"]) == (1, 900), "a shard that was live may use the reserve"
    (row,) = start_rows(starting(["ready"], phase="preparing", state="waiting", replaces=0))
    assert (row["started"], row["waiting"]) == (1, 7)


def test_the_status_shows_a_start_with_its_end_and_json_the_numbers() -> None:
    snapshot = starting(["live"] * 4 + ["identifying"] * 4, buckets=1)
    text = status_text(snapshot)
    assert "session starts\nAPP  GROUP  STARTED  WAITING  PER MINUTE  ETA\n" in text
    assert "bot  1      4/8      4        11.9        20s" in text
    (row,) = to_json(snapshot)["starts"]
    assert set(row) == {
        "app", "group", "wanted", "started", "failed", "waiting", "per_minute", "eta_s", "starts_left", "blocked_until",
    }  # fmt: skip
    assert find_problems(snapshot) == [], "a start is no problem"


def test_a_shard_that_waits_for_its_turn_is_no_problem_for_as_long_as_a_start_takes() -> None:
    patience = 60.0 + start_estimate(8, 1, SPACING_S)
    waits = claim(7, state="identifying", since=NOW - patience + 1)
    snapshot = starting(["live"] * 7, buckets=1)
    assert find_problems(cluster(_records_of(snapshot) | {KEYS.claim("bot", 1, 7): waits})) == []
    late = msgspec.structs.replace(waits, since=NOW - patience - 1)
    found = only(cluster(_records_of(snapshot) | {KEYS.claim("bot", 1, 7): late}))
    assert found.code is Code.SHARDS_NOT_LIVE


def test_a_start_that_the_reserve_holds_up_is_a_problem_with_the_reset_time() -> None:
    snapshot = starting(["live"] * 4 + ["identifying"] * 4, remaining=201)
    blocked, row = find_problems(snapshot)[0], start_rows(snapshot)[0]
    assert (blocked.code, blocked.severity, blocked.subject) == (
        Code.SESSION_STARTS_RESERVED,
        Severity.WARNING,
        "app/bot",
    )
    reset = at_utc(NOW + 100)
    assert blocked.summary == (
        f"bot: 3 shards have no session start before {reset} (the last 200 are kept for failover)"
    )
    assert (row["starts_left"], row["blocked_until"]) == (1, NOW + 100)
    assert row["eta_s"] == pytest.approx(100 + 2 * SPACING_S)
    assert f"only 1 start left until {reset}; 1m" in status_text(snapshot)


def test_without_any_start_left_the_problem_is_critical_and_the_status_says_until_when() -> None:
    snapshot = starting(["identifying"] * 8, remaining=0, state="degraded")
    blocked = find_problems(snapshot)[0]
    assert (blocked.code, blocked.severity) == (Code.SESSION_STARTS_EXHAUSTED, Severity.CRITICAL)
    assert blocked.summary.endswith("(0 of 1000 are left)")
    assert f"no starts left until {at_utc(NOW + 100)}; " in status_text(snapshot)


def test_a_budget_is_low_when_no_more_than_the_reserve_is_left() -> None:
    def left(remaining: int) -> list[Code]:
        low = msgspec.structs.replace(records()[KEYS.budget("h")], remaining=remaining)
        return [found.code for found in find_problems(cluster({KEYS.budget("h"): low}))]

    assert left(201) == []
    assert left(200) == [Code.SESSION_STARTS_LOW]


def test_a_reset_time_that_no_clock_can_show_is_still_a_text() -> None:
    assert at_utc(1e300) == "the reset, whose time is not known"
    assert at_utc(float("nan")) == "the reset, whose time is not known"
