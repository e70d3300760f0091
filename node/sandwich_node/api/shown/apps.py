"""What the API shows of applications: how they are, their configuration, and what a change of it does."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from sandwich_coordinator.access.roles import Identity
from sandwich_coordinator.groups import serving_groups
from sandwich_coordinator.intents import intent_names
from sandwich_coordinator.operations.applications import OptionWarning
from sandwich_coordinator.operations.bots import Bot
from sandwich_coordinator.operations.changes import AppChange
from sandwich_coordinator.operations.configuration import stream_defaults
from sandwich_coordinator.operations.errors import NotFound, Refused
from sandwich_coordinator.operations.export import effective_app, exported_app
from sandwich_coordinator.types import AppRecord
from sandwich_coordinator.view import ClusterView
from sandwich_node.api.models import Model, Page, PageQuery
from sandwich_node.api.paging import page_of
from sandwich_node.api.shown.groups import Change, NewSessions, Proposal, proposal_of


class AppSummary(Model):
    """How an application is.

    state         of its serving shard group; also paused, removing, down (no node), waiting (it has none yet)
    paused_at     since when an operator paused it (Unix seconds); null: not so
    shards        how many of its shards are in each state, of `shards_wanted`
    change        how far a change of its shard group is; null: there is none
    cache         how complete its cache is, in words
    problems      how many there are, by severity
    """

    app: str
    state: str
    paused_at: float | None
    reason: str
    shards_wanted: int
    shards: dict[str, int]
    change: Change | None
    guilds: int
    events_per_s: float
    cache: str
    session_starts_left: int | None
    session_starts_total: int | None
    session_starts_reset_at: float | None
    problems: dict[str, int]


class App(Model):
    """An application: how it is, and its configuration.

    revision       of the stored configuration: the first part of the ETag
    configuration  as under `apps.NAME` in cluster.yml; the token is replaced by the name of a variable
    effective      every key with the value in effect
    defaults       the paths of the keys in `effective` that have their default
    group          number of the serving shard group; null: it has none yet
    """

    app: str
    revision: int
    bot_id: str
    bot_name: str
    group: int | None
    status: AppSummary
    configuration: dict[str, Any]
    effective: dict[str, Any]
    defaults: list[str]
    proposal: Proposal | None


class FieldChange(Model):
    """One changed key of the stored configuration. A secret's values are null."""

    path: str
    before: Any
    after: Any
    is_secret: bool


class Warned(Model):
    """What is allowed and will not work as it looks. `path`: the key in cluster.yml."""

    path: str
    text: str


class TestedBot(Model):
    """What Discord says about a token that was tested.

    intents_not_enabled, intents_enabled  of the privileged intents, in the developer portal
    guilds                                about how many it is in; null: not known
    avatar                                its picture as a data: URL, in a dry run and when Discord gives it; else ""
    """

    id: str
    name: str
    avatar: str
    intents_not_enabled: list[str]
    intents_enabled: list[str]
    guilds: int | None
    shards_recommended: int
    session_starts_left: int
    session_starts_total: int
    session_starts_reset_s: float
    max_concurrency: int


class AppChanged(Model):
    """A new or changed application. `written` false: a dry run, or nothing was to change.

    `new_sessions`: what the new sessions cost that this starts; null: it starts none.
    """

    app: str
    written: bool
    revision: int
    changes: list[FieldChange]
    warnings: list[Warned]
    bot: TestedBot | None
    new_sessions: NewSessions | None


def apps_page(app_rows: Iterable[Mapping[str, Any]], query: PageQuery, identity: Identity) -> Page[AppSummary]:
    """The applications that the identity may see. `app_rows`: of the snapshot."""
    rows = [row for row in app_rows if identity.sees(row["app"])]
    return page_of(rows, query, lambda row: str(row["app"]), AppSummary.model_validate)


def check_readable(view: ClusterView, app: str) -> None:
    """Raise NotFound unless the application is there, and Refused when what is stored of it cannot be read."""
    if app in view.apps:
        return
    if view.revision_of_bad(view.keys.app(app)):
        raise Refused(f"the stored configuration of {app} is damaged: apply it again")
    raise NotFound("application", app, view.apps)


def app_shown(view: ClusterView, app: str, app_rows: Iterable[Mapping[str, Any]]) -> App:
    """An application that is there. `app_rows`: of the snapshot."""
    entry = view.apps[app]
    record = entry.record
    effective = effective_app(record, stream_defaults(view.config))
    budget, serving = view.budgets.get(record.token_hash), serving_groups(view).get(app)
    return App(
        app=app,
        revision=entry.mod_revision,
        bot_id=budget.record.bot_id if budget is not None else "",
        bot_name=budget.record.bot_name if budget is not None else "",
        group=serving.group if serving is not None else None,
        status=AppSummary.model_validate(next(row for row in app_rows if row["app"] == app)),
        configuration=exported_app(record),
        effective=effective.values,
        defaults=list(effective.defaults),
        proposal=proposal_of(view, app),
    )


def field_change(change: AppChange) -> FieldChange:
    """A changed key; intents by their names."""
    before, after = (_shown(change.path, value) for value in (change.before, change.after))
    return FieldChange(path=change.path, before=before, after=after, is_secret=change.is_secret)


def _shown(path: str, value: Any) -> Any:
    return intent_names(value) if path == "intents" and isinstance(value, int) else msgspec.to_builtins(value)


def warned(found: Sequence[OptionWarning]) -> list[Warned]:
    """The warnings, as the API shows them."""
    return [Warned(path=warning.path, text=warning.text) for warning in found]


def tested_bot(bot: Bot, record: AppRecord, avatar: bytes) -> TestedBot:
    """What Discord says about the bot of an application. `avatar`: a PNG, or b"" for none."""
    limits = bot.limits
    return TestedBot(
        id=bot.id,
        name=bot.name,
        avatar=f"data:image/png;base64,{b64encode(avatar).decode()}" if avatar else "",
        intents_not_enabled=bot.not_granted(record.intents),
        intents_enabled=sorted(bot.granted),
        guilds=limits.guilds,
        shards_recommended=limits.recommended,
        session_starts_left=limits.remaining,
        session_starts_total=limits.total,
        session_starts_reset_s=limits.reset_after_s,
        max_concurrency=limits.max_concurrency,
    )
