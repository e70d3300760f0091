"""How long it takes to start sessions, and how far a start is. Pure.

Computed by who reads it: numbers that change by themselves are in no record.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sandwich_coordinator.groups import UPCOMING, shard_ids
from sandwich_coordinator.ids import GroupId, ShardId
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.start_order import Priority, group_priority, kept_back
from sandwich_coordinator.types import BudgetRecord, GroupRecord, ShardState
from sandwich_coordinator.view import ClusterView

LEGAL_SPACING_S = 5.0
"""Discord: Gateway, Sharding, max_concurrency: one IDENTIFY per bucket and 5 seconds."""
_STARTED: frozenset[ShardState] = frozenset({"ready", "holding", "live", "draining", "ended"})
"""States of a claim whose shard has its session."""


def start_estimate(count: int, max_concurrency: int, spacing_s: float = LEGAL_SPACING_S) -> float:
    """The seconds that `count` session starts need, of shards with ids in sequence. Raises ValueError."""
    if count < 0 or max_concurrency < 1 or spacing_s < 0:
        raise ValueError("count and spacing_s are not negative, and max_concurrency is at least 1")
    return -(-count // max_concurrency) * spacing_s


@dataclass(frozen=True, slots=True, kw_only=True)
class StartProgress:
    """How far the start of a shard group is.

    wanted, started, failed   shards of the group: all, those with a session, those that Discord refused for good
    waiting                   those without a session yet
    per_minute                session starts that Discord allows this token for the shards that wait
    eta_s                     seconds until the last one has its session; None while that is not known
    starts_left               session starts that this group may use until the reset; None when that is not known
    blocked_until             Unix seconds: the budget has too few starts for all that wait; None: it has enough
    """

    app: str
    group: int
    wanted: int
    started: int
    failed: int
    waiting: int
    per_minute: float
    eta_s: float | None
    starts_left: int | None
    blocked_until: float | None


def start_progress(view: ClusterView, policy: Policy, now: float) -> list[StartProgress]:
    """Every group that starts or is prepared, or whose shards wait for a start. `now`: Unix seconds."""
    groups = {key: entry.record for key, entry in sorted(view.groups.items())}
    missing = {key: _without_session(view, key, record) for key, record in groups.items()}
    return [
        _progress(view, key, record, missing, policy, now)
        for key, record in groups.items()
        if _starts(record) or missing[key]
    ]


def _starts(group: GroupRecord) -> bool:
    return group.phase in UPCOMING or (group.phase == "active" and group.state == "starting")


def _without_session(view: ClusterView, key: GroupId, group: GroupRecord) -> list[int]:
    """The shards that need a session start. Of a group that was live, those that wait for one: the others resume."""
    states = {number: view.claims.get(ShardId(*key, number)) for number in shard_ids(group)}
    if not _starts(group):
        return [number for number, claim in states.items() if claim and claim.record.state == "identifying"]
    done = _STARTED | {"failed"}
    return [number for number, claim in states.items() if claim is None or claim.record.state not in done]


def _progress(
    view: ClusterView,
    key: GroupId,
    group: GroupRecord,
    missing: dict[GroupId, list[int]],
    policy: Policy,
    now: float,
) -> StartProgress:
    states = Counter(claim.record.state for shard, claim in view.claims.items() if shard.of == key)
    waiting = missing[key]
    budget = _budget(view, group)
    per_minute, eta, left, blocked = 0.0, None, None, None
    if budget is not None:
        priority = group_priority(view, group)
        before = list(_ahead(view, key, priority, missing))
        eta, per_minute = _pace(waiting, before, budget.max_concurrency, policy.identify_spacing_s)
        left = max(0, budget.remaining - kept_back(view, budget, priority, ShardId(*key, 0), policy))
        if len(waiting) > left:
            blocked = budget.reset_at
            rest = start_estimate(len(waiting) - left, budget.max_concurrency, policy.identify_spacing_s)
            eta = max(0.0, blocked - now) + rest if blocked > now else None
    return StartProgress(
        app=key.app,
        group=key.group,
        wanted=len(shard_ids(group)),
        started=sum(states[state] for state in _STARTED),
        failed=states["failed"],
        waiting=len(waiting),
        per_minute=per_minute,
        eta_s=eta,
        starts_left=left,
        blocked_until=blocked,
    )


def _budget(view: ClusterView, group: GroupRecord) -> BudgetRecord | None:
    """What Discord said about the group's token; None when it is not known or the token was refused."""
    entry = view.budgets.get(_token_hash(view, group))
    return None if entry is None or entry.record.error or entry.record.max_concurrency < 1 else entry.record


def _token_hash(view: ClusterView, group: GroupRecord) -> str:
    app = view.apps.get(group.app)
    return group.token_hash or (app.record.token_hash if app is not None else "")


def _ahead(view: ClusterView, key: GroupId, priority: Priority, missing: dict[GroupId, list[int]]) -> Iterator[int]:
    """Shards of other groups of the same token that may start before this group's last one."""
    token_hash = _token_hash(view, view.groups[key].record)
    for other, numbers in missing.items():
        record = view.groups[other].record
        if other != key and _token_hash(view, record) == token_hash and group_priority(view, record) <= priority:
            yield from numbers


def _pace(waiting: Sequence[int], before: Sequence[int], max_concurrency: int, spacing_s: float) -> tuple[float, float]:
    """Seconds until the last one has its turn, and starts a minute while all their buckets have one that waits."""
    used = {number % max_concurrency for number in waiting}
    fill = Counter(number % max_concurrency for number in (*waiting, *before))
    longest = max((fill[bucket] for bucket in used), default=0)
    return longest * spacing_s, round(len(used) * 60.0 / spacing_s, 1)
