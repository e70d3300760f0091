"""Which shard count an application with an automatic one should have, and when that is looked at. Pure.

A proposal is a record that operators see and accept. Without `confirm` the leader accepts it by itself, within the
application's window. Discord puts at most 2,500 guilds on a shard and closes with 4011 above (Discord: Gateway,
Sharding).
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from sandwich_coordinator.groups import claims_of
from sandwich_coordinator.ids import GroupId
from sandwich_coordinator.types import BudgetRecord, GroupRecord, ProposalRecord, ShardsSpec
from sandwich_coordinator.view import ClusterView

FILL = 0.8
"""A new group's shards have this part of `guilds_per_shard`, so that growth does not make the next proposal at once."""
TOO_EMPTY = 0.4
"""Fewer shards are proposed when they have less than this part of `guilds_per_shard`."""
SHARDING_REQUIRED = 4011

_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)(?: UTC)?")
_DAY_MINUTES = 1440


@dataclass(frozen=True, slots=True)
class Window:
    """A time of the day in UTC, in minutes; it may pass midnight."""

    start: int
    end: int

    def is_open(self, wall: float) -> bool:
        """Whether it is that time at `wall` (Unix seconds)."""
        now = datetime.fromtimestamp(wall, UTC)
        minute = now.hour * 60 + now.minute
        return (minute - self.start) % _DAY_MINUTES < (self.end - self.start) % _DAY_MINUTES


def parse_window(text: str) -> Window:
    """From "02:00-06:00 UTC". Raises ValueError."""
    match = _WINDOW.fullmatch(text.strip())
    if match is None:
        raise ValueError("write a time of the day in UTC as 02:00-06:00 UTC")
    hour, minute, end_hour, end_minute = map(int, match.groups())
    window = Window(hour * 60 + minute, end_hour * 60 + end_minute)
    if window.start == window.end:
        raise ValueError("begins and ends at the same time: leave it out for the whole day")
    return window


def may_act(spec: ShardsSpec, wall: float) -> bool:
    """Whether the leader accepts a proposal by itself now."""
    if spec.confirm:
        return False
    try:
        return not spec.window or parse_window(spec.window).is_open(wall)
    except ValueError:
        # Only configuration that was checked is stored; a damaged window is never open.
        return False


def guilds_of(view: ClusterView, key: GroupId) -> int:
    """The guilds of a group, as its shards recorded them with their sessions."""
    return sum(entry.record.guilds for shard, entry in view.sessions.items() if shard.of == key)


def propose(
    view: ClusterView, key: GroupId, spec: ShardsSpec, budget: BudgetRecord | None, wall: float
) -> ProposalRecord | None:
    """The count that the group should have instead of its own, and why; None when it is right or not known."""
    group = view.groups[key].record
    if budget is None or budget.error or not group.count:
        return None
    claims = claims_of(view, key, group).values()
    too_few = any(claim is not None and claim.close_code == SHARDING_REQUIRED for claim in claims)
    guilds = guilds_of(view, key)
    count, reason = _wanted(group, guilds, spec, budget, too_few=too_few)
    if count == group.count:
        return None
    return ProposalRecord(count=count, reason=reason, guilds=guilds, at=wall)


def _wanted(
    group: GroupRecord, guilds: int, spec: ShardsSpec, budget: BudgetRecord, *, too_few: bool
) -> tuple[int, str]:
    each = guilds / group.count
    fitting = math.ceil(guilds / (FILL * spec.guilds_per_shard))
    if too_few:
        needed = max(budget.shards, fitting, group.count + 1)
        return _allowed(needed, group, spec, budget), "Discord closed a shard with 4011: it needs more shards"
    if each > spec.guilds_per_shard:
        count = _allowed(max(fitting, budget.shards), group, spec, budget)
        return count, f"{guilds} guilds are more than {spec.guilds_per_shard} for each of {group.count} shards"
    if budget.shards > group.count:
        return _allowed(max(budget.shards, fitting), group, spec, budget), f"Discord recommends {budget.shards} shards"
    if each < TOO_EMPTY * spec.guilds_per_shard:
        # Never fewer than Discord recommends.
        count = _allowed(max(1, fitting, budget.shards), group, spec, budget)
        if count < group.count:
            return count, f"{guilds} guilds need no more than {count} shards"
    return group.count, ""


def _allowed(count: int, group: GroupRecord, spec: ShardsSpec, budget: BudgetRecord) -> int:
    """The next count that Discord takes for this bot, within the configured maximum.

    A large bot's counts are multiples of what Discord assigned; its own recommendation is one (close code 4010).
    """
    if budget.max_concurrency > 1 and count != budget.shards:
        count = math.ceil(count / budget.max_concurrency) * budget.max_concurrency
    if spec.max and count > spec.max:
        step = budget.max_concurrency if budget.max_concurrency > 1 else 1
        count = max(spec.max // step * step, min(group.count, spec.max))
    return count or group.count
