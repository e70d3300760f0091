"""Operating an application's shard groups: another count, a restart, and taking either back.

An operation writes what is wanted (`apps/`, `rollouts/`); the leader does it in phases (docs/design/scaling.md). What
was written stays when the operation is interrupted.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Literal

import msgspec

from sandwich_coordinator.autoscale import guilds_of
from sandwich_coordinator.config import SHARDS_MAX
from sandwich_coordinator.groups import serving_groups, upcoming_groups
from sandwich_coordinator.operations.errors import (
    Conflict,
    Invalid,
    NotFound,
    NotReached,
    OutcomeUnknown,
    Refused,
)
from sandwich_coordinator.operations.progress import Report, ScaleAdvanced, ScaleDone, ScaleFailing
from sandwich_coordinator.operations.waiting import read_view, views
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.ranges import parse_ranges
from sandwich_coordinator.scale_plan import ScalePlan, ScaleProgress, plan_next_group, scale_progress
from sandwich_coordinator.shard_counts import judge_shards, recorded_limits
from sandwich_coordinator.store.base import Compare, Put, Store, StoreAmbiguous
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import AppRecord, RolloutRecord
from sandwich_coordinator.view import ClusterView

COUNT_RANGE = f"a bot has 1 to {SHARDS_MAX} shards"
CHANGED_MEANWHILE = "another operator changed the application just now: look and try again"
RESTART_HINT = "sandwich app scale {app} --cancel takes it back"


@dataclass(frozen=True, slots=True)
class ScaleRequest:
    """What to store, and what the leader will do then. `plan` None: no new group is needed.

    `warnings`: what Discord may not take.
    """

    compare: Compare
    put: Put
    plan: ScalePlan | None
    warnings: tuple[str, ...] = ()


async def plan_scale(
    store: Store, keys: Keys, app: str, count: int | Literal["auto"], ids: str | None, *, policy: Policy
) -> ScaleRequest:
    """What another shard count would do; writes nothing.

    `ids` limits the shards that run here; None: all. Raises NotFound, Invalid for a count or ids that cannot be, and
    Refused while another change is under way.
    """
    view = await read_view(store, keys)
    record, revision = _app(view, app)
    if count != "auto" and not 1 <= count <= SHARDS_MAX:
        raise Invalid(f"--shards {count}: {COUNT_RANGE}")
    after = msgspec.structs.replace(record, shards=msgspec.structs.replace(record.shards, count=count, ids=ids))
    serving, budget = serving_groups(view).get(app), view.budgets.get(record.token_hash)
    guilds = guilds_of(view, serving) if serving is not None else 0
    verdict = judge_shards(
        after.shards,
        recorded_limits(budget.record, time.time(), guilds=guilds) if budget is not None else None,
        running=view.groups[serving].record.count if serving is not None else 0,
    )
    if verdict.problems:
        options = {"shards.ids": "--ids"}
        raise Invalid([f"{options.get(key, '--shards')}: {text}" for key, text in verdict.problems])
    plan = plan_next_group(view, after, policy=policy)
    if plan is not None:
        _check_idle(view, app, policy)
    guard = Compare(keys.app(app), "mod_revision", revision)
    warnings = tuple(text for _, text in verdict.warnings)
    return ScaleRequest(guard, Put(keys.app(app), after.encode()), plan, warnings)


async def plan_restart(store: Store, keys: Keys, app: str, *, hard: bool, policy: Policy) -> ScaleRequest:
    """What a restart with new sessions would do; writes nothing. `hard`: the present group ends first.

    Raises NotFound, and Refused while another change is under way or nothing runs.
    """
    view = await read_view(store, keys)
    record, _ = _app(view, app)
    if record.paused:
        raise Refused(f"{app} is paused: sandwich app resume {app} starts it")
    if app not in serving_groups(view):
        raise Refused(f"{app} has no shards yet: see sandwich cluster status for the reason")
    _check_idle(view, app, policy)
    stored = view.rollouts.get(app)
    before = stored.record if stored is not None else RolloutRecord()
    after = msgspec.structs.replace(before, restart=before.restart + 1, hard=hard)
    guard = Compare(keys.rollout(app), "mod_revision", stored.mod_revision if stored is not None else 0)
    return ScaleRequest(
        guard, Put(keys.rollout(app), after.encode()), plan_next_group(view, record, after, policy=policy)
    )


async def plan_accept(store: Store, keys: Keys, app: str, *, policy: Policy, count: int | None = None) -> ScaleRequest:
    """What accepting the leader's proposal would do; writes nothing. `count`: only if that is proposed; None: any.

    Raises NotFound, Conflict when another count is proposed, and Refused without a proposal or while another change is
    under way.
    """
    view = await read_view(store, keys)
    record, _ = _app(view, app)
    proposal = view.proposals.get(app)
    if proposal is None or record.shards.count != "auto":
        raise Refused(f"{app}: no shard count is proposed")
    if count not in (None, proposal.record.count):
        raise Conflict(CHANGED_MEANWHILE)
    _check_idle(view, app, policy)
    stored = view.rollouts.get(app)
    before = stored.record if stored is not None else RolloutRecord()
    after = msgspec.structs.replace(before, auto_count=proposal.record.count)
    guard = Compare(keys.rollout(app), "mod_revision", stored.mod_revision if stored is not None else 0)
    return ScaleRequest(
        guard, Put(keys.rollout(app), after.encode()), plan_next_group(view, record, after, policy=policy)
    )


async def store_request(store: Store, request: ScaleRequest) -> None:
    """Store it; the leader begins. Raises Conflict, Unavailable."""
    try:
        done = await store.txn((request.compare,), (request.put,))
    except StoreAmbiguous as error:
        raise OutcomeUnknown(f"whether that was stored is unknown ({error}): look and try again") from None
    if not done.succeeded:
        raise Conflict(CHANGED_MEANWHILE)


async def cancel_scale(store: Store, keys: Keys, app: str, *, policy: Policy) -> bool:
    """Make the configuration as the serving group is, so that the upcoming group ends. False: nothing was under way.

    Raises NotFound, Conflict, Unavailable, and Refused once the switch has begun.
    """
    view = await read_view(store, keys)
    record, revision = _app(view, app)
    progress = scale_progress(view, app, policy=policy)
    if progress is not None and progress.phase == "switching":
        raise Refused(f"{app}: the switch to group {progress.group} has begun and is over in a moment: it goes on")
    if progress is None and plan_next_group(view, record, policy=policy) is None:
        return False
    group = view.groups[serving_groups(view)[app]].record
    everything = parse_ranges(group.ids) == list(range(group.count))
    # An automatic count stays automatic: only what was accepted is taken back.
    count = "auto" if record.shards.count == "auto" else group.count
    before = msgspec.structs.replace(
        record,
        shards=msgspec.structs.replace(record.shards, count=count, ids=None if everything else group.ids),
        intents=group.intents if group.token_hash else record.intents,
        token=group.token or record.token,
        token_hash=group.token_hash or record.token_hash,
    )
    writes = [Put(keys.app(app), before.encode())] if before != record else []
    guards = [Compare(keys.app(app), "mod_revision", revision)]
    stored = view.rollouts.get(app)
    if stored is not None:
        rollout = msgspec.structs.replace(stored.record, restart=group.restart, hard=False, auto_count=0)
    if stored is not None and rollout != stored.record:
        guards.append(Compare(keys.rollout(app), "mod_revision", stored.mod_revision))
        writes.append(Put(keys.rollout(app), rollout.encode()))
    upcoming = upcoming_groups(view).get(app)
    if upcoming is not None:
        # The switch must not have begun since.
        guards.append(Compare(keys.group(*upcoming), "mod_revision", view.groups[upcoming].mod_revision))
    try:
        done = await store.txn(guards, writes)
    except StoreAmbiguous as error:
        raise OutcomeUnknown(f"whether that was stored is unknown ({error}): look and try again") from None
    if not done.succeeded:
        raise Conflict(f"{app} changed just now: look and try again")
    return True


async def await_scale(
    store: Store, keys: Keys, app: str, *, policy: Policy, timeout_s: float, report: Report
) -> ScaleDone:
    """Wait until the configuration's group serves alone. Raises NotReached, NotFound."""
    clock = asyncio.get_running_loop().time
    began = clock()
    reported: ScaleProgress | None = None
    async for view in views(store, keys, timeout_s=timeout_s, report=report):
        record, _ = _app(view, app)
        progress = scale_progress(view, app, policy=policy)
        if progress is not None and _shown(progress) != _shown(reported):
            if progress.failed and (reported is None or progress.failed != reported.failed):
                report(ScaleFailing(app, progress.failed, RESTART_HINT.format(app=app)))
            report(ScaleAdvanced(progress))
            reported = progress
        if progress is None and plan_next_group(view, record, policy=policy) is None:
            done = ScaleDone(app, clock() - began)
            report(done)
            return done
    raise NotReached(
        f"{app} is not scaled after {timeout_s:g} s; the cluster goes on, see sandwich cluster status; "
        + RESTART_HINT.format(app=app)
    )


def _shown(progress: ScaleProgress | None) -> tuple[object, ...]:
    """What makes a new line of progress."""
    return () if progress is None else (progress.group, progress.phase, progress.done, progress.failed)


def _check_idle(view: ClusterView, app: str, policy: Policy) -> None:
    progress = scale_progress(view, app, policy=policy)
    if progress is not None:
        raise Refused(
            f"{app}: a change is under way already (group {progress.replaces} -> {progress.group}, {progress.phase}, "
            f"{progress.done} of {progress.total}): wait, or take it back with sandwich app scale {app} --cancel"
        )


def _app(view: ClusterView, app: str) -> tuple[AppRecord, int]:
    entry = view.apps.get(app)
    if entry is None:
        if view.revision_of_bad(view.keys.app(app)):
            raise Refused(f"the stored configuration of {app} is damaged: apply it again")
        raise NotFound("application", app, view.apps)
    return entry.record, entry.mod_revision
