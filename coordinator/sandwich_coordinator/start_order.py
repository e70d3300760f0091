"""Who may start a session next: priorities and order over the whole cluster, and what the budget allows. Pure.

Every node sees all claims, groups and budgets in its view, so each finds the same order without a message:

1. failover: a shard of a serving group, which was live before
2. re-read: a live shard whose guilds are read again for the cache
3. restart: a shard of an upcoming group that has the count and intents of the one it replaces
4. scale-up: any other upcoming group, and an application's first start

Within one priority the lowest shard id is first (Discord: Sharding, max_concurrency: buckets are started in order).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import NamedTuple

from sandwich_coordinator.groups import UPCOMING, token_hash_of
from sandwich_coordinator.ids import GroupId, ShardId
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.types import BudgetRecord, GroupRecord
from sandwich_coordinator.view import Bucket, ClusterView

"""From `switching` on a group serves: without one of its shards, consumers miss events."""


class Priority(IntEnum):
    """Why a shard needs a session start; the lowest value is first."""

    FAILOVER = 0
    REREAD = 1
    RESTART = 2
    SCALE_UP = 3


class Turn(NamedTuple):
    """A place in the order of one bucket: compare two of them."""

    priority: Priority
    number: int
    shard: ShardId


@dataclass(frozen=True, slots=True)
class Waiting:
    """A shard that has to IDENTIFY, as its claim says."""

    turn: Turn
    bucket: Bucket
    node: str


def bucket_of(view: ClusterView, shard: ShardId) -> Bucket | None:
    """The shard's bucket; None while its token's limits are not known."""
    token_hash = token_hash_of(view, shard.of)
    entry = view.budgets.get(token_hash)
    if entry is None or entry.record.max_concurrency < 1:
        return None
    return Bucket(token_hash, shard.shard % entry.record.max_concurrency)


def group_priority(view: ClusterView, group: GroupRecord) -> Priority:
    """Why the shards of this group start."""
    if group.phase not in UPCOMING:
        was_live = group.phase != "active" or group.state in ("live", "degraded")
        return Priority.FAILOVER if was_live else Priority.SCALE_UP
    app = view.apps.get(group.app)
    replaced = None if group.replaces is None else view.groups.get(GroupId(group.app, group.replaces))
    if replaced is None or app is None:
        return Priority.SCALE_UP
    old, default = replaced.record, app.record.intents
    same = (old.count, old.intents or default) == (group.count, group.intents or default)
    return Priority.RESTART if same else Priority.SCALE_UP


def priority_of(view: ClusterView, shard: ShardId, *, spare: bool) -> Priority:
    """Why this shard needs a session start. `spare`: it is live, and a second session reads its guilds again."""
    if spare:
        return Priority.REREAD
    group = view.groups.get(shard.of)
    return Priority.SCALE_UP if group is None else group_priority(view, group.record)


def turn_of(view: ClusterView, shard: ShardId, *, spare: bool) -> Turn:
    """The shard's place in its bucket."""
    return Turn(priority_of(view, shard, spare=spare), shard.shard, shard)


def waiting(view: ClusterView, bucket: Bucket, *, beside: str = "") -> Iterator[Waiting]:
    """Every shard of the cluster that waits for its turn in this bucket, in no order. The bucket's holder does not.

    Those of the node `beside` are left out.
    """
    budget = view.budgets.get(bucket.token_hash)
    if budget is None or budget.record.max_concurrency < 1:
        return
    held, concurrency = view.identifies.get(bucket), budget.record.max_concurrency
    holder = None if held is None else ShardId(held.record.app, held.record.group, held.record.shard)
    for group, shards in view.queued.items():
        if token_hash_of(view, group) != bucket.token_hash:
            continue
        entry = view.groups.get(group)
        priority = Priority.SCALE_UP if entry is None else group_priority(view, entry.record)
        for shard in shards:
            if shard.shard % concurrency != bucket.bucket or shard == holder:
                continue
            claim = view.claims[shard].record
            if claim.node != beside:
                turn = Turn(Priority.REREAD if claim.rereads else priority, shard.shard, shard)
                yield Waiting(turn, bucket, claim.node)


def budget_refusal(view: ClusterView, token_hash: str, turn: Turn, policy: Policy, *, spent: int = 0) -> str | None:
    """Why no start may be reserved for `turn` after `spent` more; None: one may.

    A token without session starts is refused until the reset: Discord resets the token of a bot that continues.
    """
    entry = view.budgets.get(token_hash)
    if entry is None:
        return "the session start budget is not known yet"
    budget = entry.record
    if budget.error:
        return f"Discord refused the token: {budget.error}"
    kept = kept_back(view, budget, turn.priority, turn.shard, policy)
    left = budget.remaining - spent
    if left > kept:
        return None
    if left <= 0:
        return f"no session starts left until {at_utc(budget.reset_at)}"
    return f"the last {kept} session starts until {at_utc(budget.reset_at)} are kept for failover"


def kept_back(view: ClusterView, budget: BudgetRecord, priority: Priority, shard: ShardId, policy: Policy) -> int:
    """How many session starts must be left after a start of this priority.

    The reserve is for failover alone. A re-read also leaves one for each shard of its group.
    """
    if priority is Priority.FAILOVER:
        return 0
    reserve = policy.reserve_of(budget.total)
    group = view.groups.get(shard.of) if priority is Priority.REREAD else None
    return reserve if group is None else max(reserve, group.record.count)


def at_utc(at: float) -> str:
    """A reset time for people, to the minute. It does not change while the budget does not."""
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):
        return "the reset, whose time is not known"
