"""Whether a shard count and shard ids suit a bot, from what Discord says about it. Pure.

Rules: https://discord.com/developers/docs/events/gateway#sharding, "Sharding for Very Large Bots" and "Session Start
Limit". Discord does not say whose multiple a very large bot needs; the recommended count is always valid.
"""

from dataclasses import dataclass, field

from sandwich_coordinator.durations import duration
from sandwich_coordinator.ranges import parse_ranges
from sandwich_coordinator.types import BudgetRecord, ShardsSpec

GUILDS_PER_SHARD_MAX = 2500


@dataclass(frozen=True, slots=True, kw_only=True)
class BotLimits:
    """What Discord says of a bot: `GET /gateway/bot`. `guilds`: about how many it is in; None: not known."""

    recommended: int
    total: int
    remaining: int
    reset_after_s: float
    max_concurrency: int
    guilds: int | None = None


def recorded_limits(budget: BudgetRecord, now: float, *, guilds: int = 0) -> BotLimits | None:
    """The limits that the leader recorded; None when Discord refused the token. `now`: Unix seconds.

    `guilds`: how many the running shards have recorded; 0: not known.
    """
    if budget.error:
        return None
    return BotLimits(
        recommended=budget.shards,
        total=budget.total,
        remaining=budget.remaining if now < budget.reset_at else budget.total,
        reset_after_s=max(0.0, budget.reset_at - now),
        max_concurrency=budget.max_concurrency,
        guilds=guilds or None,
    )


@dataclass(slots=True)
class Verdict:
    """(key, what is wrong) of what Discord would refuse, and of what may not work."""

    problems: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)


def judge_shards(shards: ShardsSpec, limits: BotLimits | None, *, running: int = 0) -> Verdict:
    """Judge a configuration of shards. `running`: the count of the application's shard group; 0: there is none."""
    verdict = Verdict()
    count = shards.count
    known = (running or (limits.recommended if limits is not None else 0)) if count == "auto" else count
    try:
        ids = parse_ranges(shards.ids, count=known or None) if shards.ids else range(known)
    except ValueError as error:
        verdict.problems.append(("shards.ids", str(error)))
        return verdict
    if limits is None:
        return verdict
    starts = len(ids)
    if limits.total and starts > limits.total:
        text = f"{starts} shards need as many session starts, and Discord allows this bot {limits.total} a day"
        verdict.problems.append(("shards", text))
    elif starts > limits.remaining:
        reset = duration(limits.reset_after_s)
        text = f"{starts} session starts are needed and {limits.remaining} are left: the rest start after the reset"
        verdict.warnings.append(("shards", f"{text} in {reset}"))
    if count != "auto":
        _judge_count(count, limits, verdict)
    return verdict


def _judge_count(count: int, limits: BotLimits, verdict: Verdict) -> None:
    needed = -(-(limits.guilds or 0) // GUILDS_PER_SHARD_MAX)
    if count < needed:
        text = f"the bot is in {limits.guilds} guilds, of which a shard may have {GUILDS_PER_SHARD_MAX}: {count} shards"
        verdict.problems.append(("shards.count", f"{text} are refused (4011); Discord recommends {limits.recommended}"))
    concurrency = limits.max_concurrency
    if concurrency > 1 and limits.recommended % concurrency == 0 and count % concurrency:
        text = f"Discord recommends {limits.recommended} and starts {concurrency} sessions at a time: a very large bot"
        verdict.warnings.append(("shards.count", f"{text} whose count is no multiple of its number is refused (4010)"))
