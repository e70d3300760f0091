"""The shard groups of an application: how far each is, and asking for another one (scale, restart)."""

import time
from typing import Annotated, Any, Literal

from pydantic import Field

from sandwich_coordinator.access.roles import Role
from sandwich_coordinator.groups import serving_groups, upcoming_groups
from sandwich_coordinator.operations import scaling
from sandwich_coordinator.operations.errors import Invalid, NotFound, Refused, Stale
from sandwich_coordinator.operations.shards import restart_shards
from sandwich_coordinator.scale_plan import ScalePlan, no_room
from sandwich_coordinator.view import ClusterView
from sandwich_node.api.changing import changed
from sandwich_node.api.models import DryRun, Model, Outcome
from sandwich_node.api.routing import Call, Reply, Route
from sandwich_node.api.shown.groups import Groups, NewSessions, groups_of, new_sessions

TAG = "groups"


Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | Literal["auto"]


class ScaleRequest(Model):
    """The new shard count, or `auto`.

    ids    only these shards run in this cluster, such as `0-31,40`; null: all
    force  also while no node has room for some of the new shards: the change then waits beside the present ones
    """

    shards: Count
    ids: str | None = Field(default=None, max_length=4096)
    force: bool = False


class AcceptQuery(DryRun):
    """Which proposal, and whether to begin without room for it."""

    count: int | None = Field(default=None, ge=1, description="Only if this count is the one that is proposed.")
    force: bool = Field(default=False, description="Also while no node has room for some of the new shards.")


class RestartRequest(Model):
    """How to restart.

    hard    end the present sessions first: events are lost
    shards  only reconnect these (`0-7,12`), sessions kept: no session start is spent; null: new sessions for all
    force   also while no node has room for some of the new shards
    """

    hard: bool = False
    shards: str | None = Field(default=None, max_length=4096)
    force: bool = False


class ScaleOutcome(Outcome):
    """How a change of shard groups ended. `written` false: a dry run. `new_sessions` null: none are needed.

    `revision`: of the configuration that was read, for If-Match; null where the request does not change it.
    """

    written: bool = True
    revision: int | None = None
    new_sessions: NewSessions | None = None
    warnings: list[str] = Field(default_factory=list)


class Cancelled(Model):
    """`cancelled` false: nothing was under way."""

    cancelled: bool


def check_app(view: ClusterView, app: str) -> None:
    """Raise NotFound unless the application is there, or is being removed."""
    if app not in view.apps and app not in view.removals:
        raise NotFound("application", app, view.apps)


async def _groups(call: Call) -> Groups:
    view = call.cluster.view()
    check_app(view, call.app)
    return groups_of(view, call.app, call.cluster.settings().policy.policy(), time.time())


async def _scale(call: Call) -> Reply:
    body: ScaleRequest = call.body
    parts, policy = call.cluster, call.cluster.settings().policy.policy()
    request = await scaling.plan_scale(parts.store, parts.keys, call.app, body.shards, body.ids, policy=policy)
    return await _carry_out(call, request, force=body.force)


async def _accept(call: Call) -> Reply:
    query: AcceptQuery = call.query
    parts, policy = call.cluster, call.cluster.settings().policy.policy()
    request = await scaling.plan_accept(parts.store, parts.keys, call.app, policy=policy, count=query.count)
    return await _carry_out(call, request, force=query.force)


async def _restart(call: Call) -> Reply:
    body: RestartRequest = call.body
    parts, policy = call.cluster, call.cluster.settings().policy.policy()
    if body.shards is None:
        request = await scaling.plan_restart(parts.store, parts.keys, call.app, hard=body.hard, policy=policy)
        return await _carry_out(call, request, force=body.force)
    ranges = body.shards
    if body.hard or call.query.dry_run:
        raise Invalid("shards: they reconnect with their sessions kept: hard and dry_run do not go with it")
    call.changes.after = {"restart": ranges}
    return await changed(
        call,
        lambda report: restart_shards(parts.store, parts.keys, call.app, ranges, timeout_s=call.wait_s, report=report),
        ScaleOutcome,
    )


def check_room(plan: ScalePlan | None, *, force: bool) -> None:
    """Raise Refused for a group that would wait for ever, unless that is wanted."""
    if plan is not None and plan.without_room and not force:
        raise Refused(f"{plan.app}: {no_room(plan)}; send force: true to begin all the same")


async def _carry_out(call: Call, request: scaling.ScaleRequest, *, force: bool = False) -> Reply:
    """Store what was planned, unless it is a dry run, and wait for it as long as the caller does."""
    parts, policy = call.cluster, call.cluster.settings().policy.policy()
    guard = request.compare
    revision = int(guard.expected) if guard.key == parts.keys.app(call.app) else None
    if call.revision is not None and revision not in (None, call.revision):
        # Otherwise the guard of the transaction is this revision.
        raise Stale(scaling.CHANGED_MEANWHILE)
    more: dict[str, Any] = {
        "new_sessions": new_sessions(request.plan),
        "warnings": list(request.warnings),
        "revision": revision,
    }
    if call.query.dry_run:
        return Reply(ScaleOutcome(reached=False, written=False, **more))
    check_room(request.plan, force=force)
    await scaling.store_request(parts.store, request)
    serving = serving_groups(parts.view()).get(call.app)
    call.changes.before = {"group": serving.group} if serving is not None else None
    call.changes.after = {"change": list(request.plan.reasons) if request.plan is not None else []}
    return await changed(
        call,
        lambda report: scaling.await_scale(
            parts.store, parts.keys, call.app, policy=policy, timeout_s=call.wait_s, report=report
        ),
        ScaleOutcome,
        **more,
    )


async def _cancel(call: Call) -> Cancelled:
    parts, policy = call.cluster, call.cluster.settings().policy.policy()
    upcoming = upcoming_groups(parts.view()).get(call.app)
    call.changes.before = {"upcoming_group": upcoming.group} if upcoming is not None else None
    return Cancelled(cancelled=await scaling.cancel_scale(parts.store, parts.keys, call.app, policy=policy))


ROUTES = (
    Route(
        method="GET",
        path="/apps/{app}/groups",
        summary="The shard groups of an application, and how far a change of them is",
        role=Role.VIEWER,
        handler=_groups,
        tag=TAG,
        result=Groups,
    ),
    Route(
        method="POST",
        path="/apps/{app}/scale",
        summary="Run an application with another shard count",
        description="The present shards serve until the new ones are ready. `dry_run=true` shows what it costs.",
        role=Role.OPERATOR,
        handler=_scale,
        tag=TAG,
        query=DryRun,
        body=ScaleRequest,
        result=ScaleOutcome,
        takes_time=True,
        is_conditional=True,
    ),
    Route(
        method="POST",
        path="/apps/{app}/scale/accept",
        summary="Take the shard count that the leader proposes",
        role=Role.OPERATOR,
        handler=_accept,
        tag=TAG,
        query=AcceptQuery,
        result=ScaleOutcome,
        takes_time=True,
    ),
    Route(
        method="POST",
        path="/apps/{app}/scale/cancel",
        summary="Take a change of shard groups back that has not switched yet",
        role=Role.OPERATOR,
        handler=_cancel,
        tag=TAG,
        result=Cancelled,
    ),
    Route(
        method="POST",
        path="/apps/{app}/restart",
        summary="Give an application new sessions, or let some of its shards reconnect",
        description="New sessions cost a session start for each shard. `dry_run=true` shows what it costs.",
        role=Role.OPERATOR,
        handler=_restart,
        tag=TAG,
        query=DryRun,
        body=RestartRequest,
        result=ScaleOutcome,
        takes_time=True,
    ),
)
