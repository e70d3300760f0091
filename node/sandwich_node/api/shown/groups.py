"""What the API shows of shard groups: how far each is, the change from one to the next, and what new sessions cost."""

from collections import Counter
from dataclasses import asdict

from sandwich_coordinator.groups import serving_groups, upcoming_groups
from sandwich_coordinator.operations.rows import change_row, plan_row
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.scale_plan import ScalePlan
from sandwich_coordinator.start_progress import start_progress
from sandwich_coordinator.view import ClusterView
from sandwich_node.api.models import Model
from sandwich_node.api.shown.overview import Start


class NewSessions(Model):
    """What new sessions for an application cost.

    reasons                  what is different, for example "4 shards -> 8 shards"
    session_starts           how many it costs; `session_starts_kept` of those left are for failover
    session_starts_reset_at  when all session starts are there again (Unix seconds)
    seconds                  the least time that the starts take
    memory_bytes             what the new shards need beside the present ones, without traffic
    at_once                  the present shards end first
    shards_without_room      how many of the new shards no node has room for now
    room_advice              what would make room, in words; "" when there is room
    begins_now               whether enough session starts are there; otherwise it begins after the reset
    """

    app: str
    reasons: list[str]
    shards_before: int
    shards_after: int
    session_starts: int
    session_starts_left: int | None
    session_starts_total: int | None
    session_starts_kept: int
    session_starts_reset_at: float | None
    seconds: float
    memory_bytes: int
    at_once: bool
    shards_without_room: int
    room_advice: str
    begins_now: bool


class Change(Model):
    """How far the change from one shard group to the next is. `seconds_left`: null while that is not known."""

    from_group: int
    to_group: int
    phase: str
    shards_done: int
    shards: int
    shards_failed: list[int]
    seconds_left: int | None


class Proposal(Model):
    """A shard count that the leader proposes, and why. `at`: Unix seconds."""

    count: int
    reason: str
    guilds: int
    at: float


class Group(Model):
    """One generation of an application's shards, with one shard count.

    ids       the shards that run in this cluster, as ranges
    serves    its events are those that consumers get
    replaces  the group that it takes over from; null: none
    shards    how many of its shards are in each state
    start     how far its start is; null when nothing starts
    """

    app: str
    group: int
    count: int
    ids: str
    phase: str
    state: str
    reason: str
    serves: bool
    replaces: int | None
    created_at: float
    shards: dict[str, int]
    start: Start | None


class Groups(Model):
    """The groups, oldest first; the change that is under way, and the proposal, where there is one."""

    groups: list[Group]
    change: Change | None
    proposal: Proposal | None


def new_sessions(plan: ScalePlan | None) -> NewSessions | None:
    """As the API shows it."""
    return None if plan is None else NewSessions.model_validate(plan_row(plan))


def change_of(view: ClusterView, app: str, policy: Policy) -> Change | None:
    """The change of groups that is under way."""
    row = change_row(view, app, policy)
    return None if row is None else Change.model_validate(row)


def proposal_of(view: ClusterView, app: str) -> Proposal | None:
    """What the leader proposes for an application."""
    entry = view.proposals.get(app)
    if entry is None:
        return None
    found = entry.record
    return Proposal(count=found.count, reason=found.reason, guilds=found.guilds, at=found.at)


def groups_of(view: ClusterView, app: str, policy: Policy, now: float) -> Groups:
    """The groups of an application. `now`: Unix seconds."""
    serving, upcoming = serving_groups(view).get(app), upcoming_groups(view).get(app)
    starts = {one.group: one for one in start_progress(view, policy, now) if one.app == app}
    states: dict[int, Counter[str]] = {}
    for shard, claim in view.claims.items():
        if shard.app == app:
            states.setdefault(shard.group, Counter())[claim.record.state] += 1
    found = []
    for key, entry in sorted(view.groups.items()):
        if key.app != app:
            continue
        record, start = entry.record, starts.get(key.group)
        found.append(
            Group(
                app=key.app,
                group=key.group,
                count=record.count,
                ids=record.ids,
                phase=record.phase,
                state=record.state,
                reason=record.reason,
                serves=key == serving and key != upcoming,
                replaces=record.replaces,
                created_at=record.created_at,
                shards=dict(sorted(states.get(key.group, Counter()).items())),
                start=Start.model_validate(asdict(start)) if start is not None else None,
            )
        )
    return Groups(groups=found, change=change_of(view, app, policy), proposal=proposal_of(view, app))
