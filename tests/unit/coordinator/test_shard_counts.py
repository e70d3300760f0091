"""A shard count and shard ids against what Discord says about the bot."""

import msgspec
import pytest

from sandwich_coordinator.shard_counts import BotLimits, judge_shards, recorded_limits
from sandwich_coordinator.types import BudgetRecord, ShardsSpec

LIMITS = BotLimits(recommended=8, total=1000, remaining=20, reset_after_s=7200.0, max_concurrency=1, guilds=7000)
LARGE = BotLimits(recommended=160, total=2000, remaining=2000, reset_after_s=0.0, max_concurrency=16, guilds=155_000)


@pytest.mark.parametrize(
    ("shards", "limits", "running", "problem"),
    [
        (ShardsSpec(count=2), LIMITS, 0, "shards.count: the bot is in 7000 guilds, of which a shard may have 2500: 2"),
        (ShardsSpec(count=1001), LIMITS, 0, "shards: 1001 shards need as many session starts, and Discord allows"),
        (ShardsSpec(ids="0-8"), LIMITS, 0, "shards.ids: bad shard range '0-8': with 8 shards the last id is 7"),
        (ShardsSpec(ids="0-4"), LIMITS, 4, "shards.ids: bad shard range '0-4': with 4 shards the last id is 3"),
        (ShardsSpec(ids="0-4"), None, 4, "shards.ids: bad shard range '0-4': with 4 shards the last id is 3"),
        (ShardsSpec(count=4, ids="4"), None, 0, "shards.ids: bad shard range '4': with 4 shards the last id is 3"),
    ],
)
def test_what_discord_would_refuse_is_a_problem(
    shards: ShardsSpec, limits: BotLimits | None, running: int, problem: str
) -> None:
    verdict = judge_shards(shards, limits, running=running)
    assert [f"{key}: {text}"[: len(problem)] for key, text in verdict.problems] == [problem]


@pytest.mark.parametrize(
    ("shards", "limits", "warning"),
    [
        (ShardsSpec(count=40), LIMITS, "40 session starts are needed and 20 are left: the rest start after the reset"),
        (ShardsSpec(count=168), LARGE, "whose count is no multiple of its number is refused (4010)"),
    ],
)
def test_what_may_not_work_is_a_warning(shards: ShardsSpec, limits: BotLimits, warning: str) -> None:
    verdict = judge_shards(shards, limits)
    assert verdict.problems == []
    ((_, text),) = verdict.warnings
    assert warning in text


@pytest.mark.parametrize(
    ("shards", "limits"),
    [
        (ShardsSpec(), LIMITS),
        (ShardsSpec(), None),
        (ShardsSpec(count=3), LIMITS),
        (ShardsSpec(count=64, ids="0-7"), LIMITS),
        (ShardsSpec(count=176), LARGE),
        (ShardsSpec(ids="0-99"), None),
    ],
)
def test_what_can_run_gives_neither(shards: ShardsSpec, limits: BotLimits | None) -> None:
    verdict = judge_shards(shards, limits)
    assert (verdict.problems, verdict.warnings) == ([], [])


def test_recorded_limits_are_whole_again_after_the_reset_and_none_for_a_refused_token() -> None:
    record = BudgetRecord(url="u", shards=2, total=1000, remaining=3, reset_at=100.0, max_concurrency=1, fetched_at=0.0)
    before, after = recorded_limits(record, 40.0), recorded_limits(record, 100.0)
    assert before is not None
    assert (before.remaining, before.reset_after_s) == (3, 60.0)
    assert after is not None
    assert (after.remaining, after.reset_after_s) == (1000, 0.0)
    assert recorded_limits(msgspec.structs.replace(record, error="401"), 0.0) is None
