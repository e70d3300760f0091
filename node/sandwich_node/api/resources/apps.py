"""The applications: list, show, create, change, give another token, pause, resume."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field, SecretStr

from sandwich_coordinator.access.roles import Role
from sandwich_coordinator.bot_token import check_token, looks_like_token
from sandwich_coordinator.operations import applications, pausing
from sandwich_coordinator.operations.applications import NewToken, OptionWarning
from sandwich_coordinator.operations.bots import Bot, look_up_avatar
from sandwich_coordinator.operations.errors import Conflict, Invalid, Refused, Stale
from sandwich_coordinator.operations.export import exported_app
from sandwich_coordinator.types import AppRecord
from sandwich_node.api.changing import changed
from sandwich_node.api.models import DryRun, Model, Outcome, Page, PageQuery
from sandwich_node.api.resources.groups import check_room
from sandwich_node.api.routing import Call, Reply, Route
from sandwich_node.api.shown.apps import (
    App,
    AppChanged,
    AppSummary,
    TestedBot,
    app_shown,
    apps_page,
    check_readable,
    field_change,
    tested_bot,
    warned,
)
from sandwich_node.api.shown.groups import new_sessions

TAG = "apps"
TOKEN_CHARACTERS_MAX = 1024
VALUES_MAX = 100
_SOURCE = {"env": "TOKEN"}
"""In place of the token where a section of cluster.yml is checked. It is never read."""


class NewApp(Model):
    """A new application. `token` is tested against Discord, unless `check` is false, and is never shown again.

    `config`: as under `apps.NAME` in cluster.yml, without the token.
    """

    name: str = Field(min_length=1, max_length=32)
    token: SecretStr = Field(min_length=1, max_length=TOKEN_CHARACTERS_MAX)
    config: dict[str, Any]
    check: bool = True


class AppPatch(Model):
    """New values of an application's configuration, by dotted path: `{"events.ignore": ["TYPING_START"]}`.

    new_sessions  also when that starts new sessions, which `dry_run=true` shows
    force         also while no node has room for some of the new shards: the change then waits beside the present ones
    token, check  as with PUT /apps/{app}/token, in the same change; null: the token stays
    """

    set: dict[str, Any] = Field(default={}, max_length=VALUES_MAX)
    new_sessions: bool = False
    force: bool = False
    token: SecretStr | None = Field(default=None, min_length=1, max_length=TOKEN_CHARACTERS_MAX)
    check: bool = True


class TokenReplacement(Model):
    """The new token of the same bot. It is tested against Discord, unless `check` is false, and is never shown.

    `force`: also while no node has room for some of the new shards.
    """

    token: SecretStr = Field(min_length=1, max_length=TOKEN_CHARACTERS_MAX)
    check: bool = True
    force: bool = False


class ResumeOutcome(Outcome):
    """How the shards came back: by RESUME, or with a new session. Null: not all are live yet."""

    resumed: int | None = None
    identified: int | None = None


async def _list(call: Call) -> Page[AppSummary]:
    snapshot = await call.cluster.picture.snapshot(call.cluster.view())
    return apps_page(call.cluster.findings.apps(snapshot), call.query, call.identity)


async def _show(call: Call) -> Reply:
    view = call.cluster.view()
    check_readable(view, call.app)
    snapshot = await call.cluster.picture.snapshot(view)
    found = app_shown(view, call.app, call.cluster.findings.apps(snapshot))
    return Reply(found, revision=found.revision)


async def _create(call: Call) -> Reply:
    body: NewApp = call.body
    parts = call.cluster
    if "token" in body.config:
        raise Invalid("config.token: give the token itself as `token`, beside `config`")
    config = applications.parse_app(body.name, {"token": _SOURCE, **body.config})
    token, warnings = _token(body.token, parts, body.check)
    added = await applications.add_app(parts.store, parts.keys, body.name, config, token, dry_run=call.query.dry_run)
    call.changes.after = exported_app(added.record) if added.revision else None
    written = added.revision != 0
    return Reply(
        AppChanged(
            app=body.name,
            written=written,
            revision=added.revision,
            changes=[],
            warnings=warned((*warnings, *added.warnings)),
            bot=await _bot(call, added.bot, added.record),
            new_sessions=None,
        ),
        revision=added.revision or None,
        status=201 if written else 200,
        headers={"Location": f"/api/v1/apps/{body.name}"} if written else {},
    )


async def _change(call: Call) -> Reply:
    body: AppPatch = call.body
    parts = call.cluster
    if any(map(looks_like_token, body.set)):
        raise Invalid("set: a token is no key: it is replaced with PUT /apps/{app}/token")
    if not body.set and body.token is None:
        raise Invalid("set: give at least one key, or a token")
    values = {tuple(part.strip() for part in key.split(".")): value for key, value in body.set.items()}
    for path in values:
        if not all(path):
            raise Invalid(f"set: {'.'.join(path)[:64]!r} is no key: write it as in cluster.yml, such as events.ignore")
        if path[0] == "token":
            raise Invalid("set: the token is replaced with PUT /apps/{app}/token")
    new, warnings = _token(body.token, parts, body.check) if body.token is not None else (None, ())
    return await _carry_out(call, values, new, warnings, agreed=body.new_sessions, force=body.force)


async def _replace_token(call: Call) -> Reply:
    body: TokenReplacement = call.body
    token, warnings = _token(body.token, call.cluster, body.check)
    return await _carry_out(call, {}, token, warnings, agreed=True, force=body.force)


async def _carry_out(
    call: Call,
    values: Mapping[tuple[str, ...], Any],
    new: NewToken | None,
    warnings: tuple[OptionWarning, ...],
    *,
    agreed: bool,
    force: bool,
) -> Reply:
    """Plan the change, and store it unless that is a dry run. `agreed`: new sessions may start."""
    store, keys = call.cluster.store, call.cluster.keys
    plan = await applications.change_app(store, keys, call.app, values, new=new, dry_run=True, revision=call.revision)
    cost = new_sessions(plan.new_group)
    written = bool(plan.changes) and not call.query.dry_run
    if written:
        if cost is not None and not agreed:
            raise Refused(
                f"this starts {cost.session_starts} new sessions ({', '.join(cost.reasons)}): send new_sessions: true "
                "to do it, or dry_run=true to see what it costs"
            )
        check_room(plan.new_group, force=force)
        tested = replace(new, test=False) if new is not None else None
        try:
            done = await applications.change_app(store, keys, call.app, values, new=tested, revision=plan.revision)
        except Stale as error:
            if call.revision is None:
                raise Conflict(str(error)) from None
            raise
        plan = replace(plan, revision=done.revision)
    changes = [field_change(change) for change in plan.changes]
    if written:
        call.changes.before = {change.path: change.before for change in changes}
        call.changes.after = {change.path: change.after for change in changes}
    result = AppChanged(
        app=call.app,
        written=written,
        revision=plan.revision,
        changes=changes,
        warnings=warned((*warnings, *plan.warnings)),
        bot=await _bot(call, plan.bot, plan.record),
        new_sessions=cost if plan.changes else None,
    )
    return Reply(result, revision=plan.revision)


def _token(given: SecretStr, parts: Any, check: bool) -> tuple[NewToken, tuple[OptionWarning, ...]]:
    """The token to store, and what is to be said about its form. Raises Invalid, which never repeats it."""
    try:
        token, warning = check_token(given.get_secret_value().strip())
    except ValueError as error:
        raise Invalid(f"token: {error}") from None
    return NewToken(token, parts.key, test=check), (OptionWarning("token", warning),) if warning else ()


async def _bot(call: Call, bot: Bot | None, record: AppRecord) -> TestedBot | None:
    if bot is None:
        return None
    # For people who look before they store; what is stored waits for no picture.
    avatar = await look_up_avatar(call.cluster.settings().discord, bot) if call.query.dry_run else b""
    return tested_bot(bot, record, avatar)


def _audit_pause(call: Call, *, paused: bool) -> None:
    entry = call.cluster.view().apps.get(call.app)
    call.changes.before = {"paused": entry.record.paused} if entry is not None else None
    call.changes.after = {"paused": paused}


async def _pause(call: Call) -> Reply:
    parts = call.cluster
    _audit_pause(call, paused=True)
    return await changed(
        call,
        lambda report: pausing.pause_app(
            parts.store, parts.keys, call.app, now=time.time(), timeout_s=call.wait_s, report=report
        ),
    )


async def _resume(call: Call) -> Reply:
    parts = call.cluster
    _audit_pause(call, paused=False)
    return await changed(
        call,
        lambda report: pausing.resume_app(
            parts.store, parts.keys, call.app, now=time.time(), timeout_s=call.wait_s, report=report
        ),
        ResumeOutcome,
        ended=lambda shards: {"resumed": shards.resumed, "identified": shards.identified},
    )


ROUTES = (
    Route(
        method="GET",
        path="/apps",
        summary="The applications with their shards and session starts",
        role=Role.VIEWER,
        handler=_list,
        is_of_snapshot=True,
        tag=TAG,
        query=PageQuery,
        result=Page[AppSummary],
    ),
    Route(
        method="POST",
        path="/apps",
        summary="Add an application",
        description="Its token is tested against Discord, and sealed with the cluster key.",
        role=Role.ADMIN,
        handler=_create,
        tag=TAG,
        query=DryRun,
        body=NewApp,
        result=AppChanged,
        status=201,
    ),
    Route(
        method="GET",
        path="/apps/{app}",
        summary="An application: how it is, and its configuration",
        role=Role.VIEWER,
        handler=_show,
        is_of_snapshot=True,
        tag=TAG,
        result=App,
    ),
    Route(
        method="PATCH",
        path="/apps/{app}",
        summary="Change keys of an application's configuration",
        description="With `dry_run=true` the answer has what would change, warnings, and what new sessions cost.",
        role=Role.ADMIN,
        handler=_change,
        tag=TAG,
        query=DryRun,
        body=AppPatch,
        result=AppChanged,
        is_conditional=True,
    ),
    Route(
        method="PUT",
        path="/apps/{app}/token",
        summary="Replace the token of an application's bot",
        description="Its shards start new sessions.",
        role=Role.ADMIN,
        handler=_replace_token,
        tag=TAG,
        query=DryRun,
        body=TokenReplacement,
        result=AppChanged,
        is_conditional=True,
    ),
    Route(
        method="POST",
        path="/apps/{app}/pause",
        summary="Close an application's shards until it is resumed, sessions kept",
        role=Role.OPERATOR,
        handler=_pause,
        tag=TAG,
        result=Outcome,
        takes_time=True,
    ),
    Route(
        method="POST",
        path="/apps/{app}/resume",
        summary="Start the shards of a paused application",
        role=Role.OPERATOR,
        handler=_resume,
        tag=TAG,
        result=ResumeOutcome,
        takes_time=True,
    ),
)
