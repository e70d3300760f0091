"""Operating one application: add it, read and change its configuration. `removal` removes it, `pausing` pauses it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from pydantic import ValidationError

from sandwich_coordinator.app_options import option_problems, option_warnings, sharing_problems
from sandwich_coordinator.bot_token import shared_token_warning
from sandwich_coordinator.config import AppConfig, policy_of
from sandwich_coordinator.config_mistakes import described
from sandwich_coordinator.config_values import check_name
from sandwich_coordinator.groups import serving_groups
from sandwich_coordinator.intents import privileged_names
from sandwich_coordinator.operations.bots import Bot, look_up_bot, trusted_settings
from sandwich_coordinator.operations.changes import AppChange, app_changes
from sandwich_coordinator.operations.configuration_plan import Sealer, app_record
from sandwich_coordinator.operations.errors import Conflict, Invalid, NotFound, Refused, Stale
from sandwich_coordinator.operations.export import exported_app
from sandwich_coordinator.operations.waiting import read_view
from sandwich_coordinator.scale_plan import ScalePlan, added_group
from sandwich_coordinator.sealing import ClusterKey, token_hash
from sandwich_coordinator.shard_counts import BotLimits, judge_shards, recorded_limits
from sandwich_coordinator.store.base import Compare, Listing, Put, Store
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import AppRecord
from sandwich_coordinator.view import ClusterView

_CONFLICT = "another operator changed the application at the same time: look, then try again"
_STALE = "the application was changed since it was read: look, then try again"


@dataclass(frozen=True, slots=True)
class OptionWarning:
    """What is allowed and will not work as it looks. `path`: the key in cluster.yml."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token to store. `key`: the cluster's, None for a cluster without one. `test`: ask Discord about it first."""

    token: str = field(repr=False)
    key: ClusterKey | None
    test: bool = True


@dataclass(frozen=True, slots=True)
class AppPlan:
    """A changed application: the record to write, and what that changes; no changes: nothing is to do.

    `bot`: what Discord says about a new token that was tested. `revision`: of the record that was read, or written.
    `new_group`: what needs new sessions, and what it costs.
    """

    record: AppRecord
    changes: tuple[AppChange, ...]
    warnings: tuple[OptionWarning, ...]
    bot: Bot | None = None
    revision: int = 0
    new_group: ScalePlan | None = None


@dataclass(frozen=True, slots=True)
class AddedApp:
    """A new application as it is stored. `bot`: what Discord says about its token, None when it was not asked.

    `revision`: at which it was written; 0: it was not.
    """

    record: AppRecord
    bot: Bot | None
    warnings: tuple[OptionWarning, ...]
    revision: int = 0


@dataclass(frozen=True, slots=True)
class StoredApp:
    """An application as it is stored: decoded, and as read at `revision`. Its token is sealed."""

    record: AppRecord
    raw: bytes = field(repr=False)
    revision: int


async def read_app(store: Store, keys: Keys, app: str) -> AppRecord:
    """The application's stored configuration; its token is sealed. Raises NotFound and Refused."""
    return (await find_app(store, keys, app)).record


async def find_app(store: Store, keys: Keys, app: str) -> StoredApp:
    """As `read_app`, with what guards an edit. Raises NotFound and Refused."""
    return _find(await store.list(keys.apps), keys, app)


async def add_app(
    store: Store, keys: Keys, name: str, config: AppConfig, new: NewToken, *, dry_run: bool = False
) -> AddedApp:
    """Add an application; with `dry_run` write nothing. The source of the token in `config` is not read.

    Raises Invalid for what cannot be used, Refused for a name that exists or a token that Discord refuses, Conflict,
    Unavailable when Discord cannot be asked, and SealingError for another cluster key.
    """
    try:
        check_name(name)
    except ValueError as error:
        raise Invalid(f"the name {name[:64]!r} {error}") from None
    settings, settings_item = await trusted_settings(store, keys, new.key)
    view = await read_view(store, keys)
    _check_free(view, name)
    bot = await look_up_bot(settings.discord, new.token) if new.test else None
    record = app_record(name, config, new.token, Sealer(new.key).close(name, new.token))
    others = {other: entry.record for other, entry in view.apps.items()}
    _check(record, others)
    _check_bot(record, bot, limits_of(view, record, bot))
    warnings = _warnings(None, record, bot)
    warnings += _shard_warnings(record, limits_of(view, record, bot))
    twins = [other for other, entry in sorted(others.items()) if entry.token_hash == record.token_hash]
    warnings += [OptionWarning("token", shared_token_warning(other)) for other in twins]
    revision = 0
    if not dry_run:
        # With the settings as they were read: another key since then could not open the token.
        guards = (
            Compare(keys.app(name), "mod_revision", 0),
            Compare(keys.config, "mod_revision", settings_item.mod_revision),
        )
        done = await store.txn(guards, (Put(keys.app(name), record.encode()),))
        if not done.succeeded:
            raise Conflict(_CONFLICT)
        revision = done.revision
    return AddedApp(record, bot, tuple(warnings), revision)


def check_stays(view: ClusterView, app: str) -> None:
    """Raise Refused while an application is being removed."""
    if app in view.removals:
        raise Refused(f"{app} is being removed: sandwich app remove {app} finishes that")


def _check_free(view: ClusterView, name: str) -> None:
    check_stays(view, name)
    if name in view.apps or view.keys.app(name) in view.bad:
        raise Refused(f"there is an application {name} already: sandwich app set {name} changes it")


async def change_app(
    store: Store,
    keys: Keys,
    app: str,
    values: Mapping[tuple[str, ...], Any],
    *,
    new: NewToken | None = None,
    dry_run: bool = False,
    revision: int | None = None,
) -> AppPlan:
    """Change keys of an application, see `plan_change`, and its token when there is a `new` one; `dry_run`: only look.

    `revision`: only when the application is still as it was then; None: as it is now.
    Raises NotFound, Refused, Invalid, Conflict, Stale; with a new token also Unavailable and SealingError.
    """
    listing = await store.list(keys.prefix)
    found = _find(listing, keys, app)
    if revision not in (None, found.revision):
        raise Stale(_STALE)
    view = ClusterView.from_items(keys, {item.key: item for item in listing.items}, listing.revision)
    check_stays(view, app)
    others = {name: entry.record for name, entry in view.apps.items() if name != app}
    plan = plan_change(found.record, values, others)
    guards = [Compare(keys.app(app), "mod_revision", found.revision)]
    if new is not None:
        settings, item = await trusted_settings(store, keys, new.key)
        guards.append(Compare(keys.config, "mod_revision", item.mod_revision))
        bot = await look_up_bot(settings.discord, new.token) if new.test else None
        plan = _with_token(found.record, plan, new, bot, view.budgets)
    after, limits = plan.record, limits_of(view, plan.record, plan.bot)
    if after.shards != found.record.shards or plan.bot is not None:
        group = serving_groups(view).get(app)
        running = view.groups[group].record.count if group is not None else 0
        verdict = judge_shards(after.shards, limits, running=running)
        if verdict.problems:
            raise Invalid([f"apps.{app}.{key}: {text}" for key, text in verdict.problems])
        plan = replace(plan, warnings=(*plan.warnings, *(OptionWarning(*one) for one in verdict.warnings)))
    stored = next((item for item in listing.items if item.key == keys.config), None)
    policy = policy_of(stored.value if stored is not None else None)
    plan = replace(plan, new_group=added_group(view, plan.record, policy=policy))
    if plan.changes and not dry_run:
        done = await store.txn(guards, (Put(keys.app(app), plan.record.encode()),))
        if not done.succeeded:
            raise Conflict(_CONFLICT) if revision is None else Stale(_STALE)
        return replace(plan, revision=done.revision)
    return replace(plan, revision=found.revision)


def _with_token(
    before: AppRecord, plan: AppPlan, new: NewToken, bot: Bot | None, budgets: Mapping[str, Any]
) -> AppPlan:
    """The plan with another token. Raises Refused for that of another bot, and Invalid, see `_check_bot`."""
    known = budgets.get(before.token_hash)
    if bot is not None and known is not None and known.record.bot_id not in ("", bot.id):
        was, name = known.record, f"{bot.name} ({bot.id})"
        raise Refused(
            f"this is the token of {name}, and {before.app} is {was.bot_name} ({was.bot_id}): "
            "another bot is another application (sandwich app add)"
        )
    sealed = Sealer(new.key).keep_or_close(before.app, new.token, before.token)
    after = msgspec.structs.replace(plan.record, token=sealed, token_hash=token_hash(new.token))
    _check_bot(after, bot, None)
    changes = tuple(app_changes(before.app, before, after))
    return AppPlan(after, changes, tuple(_warnings(before, after, bot)), bot)


def _find(listing: Listing, keys: Keys, app: str) -> StoredApp:
    for item in listing.items:
        if item.key == keys.app(app):
            try:
                record = msgspec.json.decode(item.value, type=AppRecord)
            except msgspec.MsgspecError:
                raise Refused(f"the stored configuration of {app} is damaged: apply it again") from None
            return StoredApp(record, item.value, item.mod_revision)
    names = (item.key.removeprefix(keys.apps) for item in listing.items if item.key.startswith(keys.apps))
    raise NotFound("application", app, names)


def parse_app(name: str, document: Mapping[str, Any]) -> AppConfig:
    """The section of an application in cluster.yml, checked. Raises Invalid, which names each wrong key."""
    try:
        return AppConfig.model_validate(document)
    except ValidationError as error:
        raise Invalid(described(error, ("apps", name))) from None


def plan_change(record: AppRecord, values: Mapping[tuple[str, ...], Any], others: Mapping[str, AppRecord]) -> AppPlan:
    """The record with these values. Pure.

    `values`: by path, as cluster.yml has them; `others`: the cluster's other applications. Raises Invalid, which names
    each wrong key.
    """
    document = exported_app(record)
    for path, value in values.items():
        check_path(path)
        put_value(document, path, value)
    config = parse_app(record.app, document)
    after = msgspec.structs.replace(
        app_record(record.app, config, "", record.token),
        token=record.token,
        token_hash=record.token_hash,
        paused_at=record.paused_at if config.paused else 0.0,
    )
    _check(after, others)
    return AppPlan(after, tuple(app_changes(record.app, record, after)), tuple(_warnings(record, after, None)))


def _check(after: AppRecord, others: Mapping[str, AppRecord]) -> None:
    """Raise Invalid for options that contradict each other, or those of applications that share a cache."""
    caches = {name: other.cache for name, other in others.items()} | {after.app: after.cache}
    problems = [f"{key}: {text}" for key, text in option_problems(after.cache, after.events, after.intents)]
    problems += [f"apps.{app}.{key}: {text}" for app, key, text in sharing_problems(caches)]
    if problems:
        raise Invalid(problems)


def _check_bot(record: AppRecord, bot: Bot | None, limits: BotLimits | None) -> None:
    """Raise Invalid for what Discord would refuse this bot: intents that are not enabled, a shard count."""
    problems = []
    if bot is not None and (missing := bot.not_granted(record.intents)):
        problems.append(
            f"apps.{record.app}.intents: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not enabled for "
            f"{bot.name}: enable it in Discord's developer portal (Bot, Privileged Gateway Intents), or leave it out"
        )
    verdict = judge_shards(record.shards, limits)
    problems += [f"apps.{record.app}.{key}: {text}" for key, text in verdict.problems]
    if problems:
        raise Invalid(problems)


def _shard_warnings(record: AppRecord, limits: BotLimits | None) -> list[OptionWarning]:
    return [OptionWarning(*one) for one in judge_shards(record.shards, limits).warnings]


def limits_of(view: ClusterView, record: AppRecord, bot: Bot | None = None) -> BotLimits | None:
    """What is known about the bot of an application: from Discord now, else from what the leader recorded."""
    if bot is not None:
        return bot.limits
    entry = view.budgets.get(record.token_hash)
    return None if entry is None else recorded_limits(entry.record, time.time())


def check_path(path: Sequence[str]) -> None:
    """Raise Invalid for a key that `change_app` does not change."""
    if path[0] == "token":
        raise Invalid("token is not given as a value, which other users could see: say --token-env or --token-file")


def _warnings(before: AppRecord | None, after: AppRecord, bot: Bot | None) -> list[OptionWarning]:
    options = option_warnings(after.cache, after.events, after.invites, after.intents)
    found = [OptionWarning(path, text) for path, text in options]
    privileged = set(privileged_names(after.intents)) - set(privileged_names(before.intents) if before else ())
    if privileged and bot is None:
        text = f"enable {', '.join(sorted(privileged))} in Discord's developer portal"
        found.append(OptionWarning("intents", text))
    return found


def put_value(document: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a value in a document of sections, making sections that are missing."""
    at = document
    for part in path[:-1]:
        inner = at.get(part)
        if not isinstance(inner, dict):
            inner = at[part] = {}
        at = inner
    at[path[-1]] = value
