"""Operating one application: read, change and remove its configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from pydantic import ValidationError

from sandwich_coordinator.app_options import option_problems, option_warnings, sharing_problems
from sandwich_coordinator.config import AppConfig
from sandwich_coordinator.config_mistakes import described
from sandwich_coordinator.intents import privileged_names
from sandwich_coordinator.operations.changes import AppChange, app_changes
from sandwich_coordinator.operations.configuration_plan import app_record
from sandwich_coordinator.operations.errors import Conflict, Invalid, NotFound, Refused
from sandwich_coordinator.operations.export import exported_app
from sandwich_coordinator.store.base import Compare, Delete, Listing, Put, Store
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import AppRecord

_CONFLICT = "another operator changed the application at the same time: look, then try again"


@dataclass(frozen=True, slots=True)
class OptionWarning:
    """What is allowed and will not work as it looks. `path`: the key in cluster.yml."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class AppPlan:
    """A changed application: the record to write, and what that changes; no changes: nothing is to do."""

    record: AppRecord
    changes: tuple[AppChange, ...]
    warnings: tuple[OptionWarning, ...]


async def read_app(store: Store, keys: Keys, app: str) -> AppRecord:
    """The application's stored configuration; its token is sealed. Raises NotFound and Refused."""
    return _find(await store.list(keys.apps), keys, app)[0]


async def change_app(
    store: Store, keys: Keys, app: str, values: Mapping[tuple[str, ...], Any], *, dry_run: bool = False
) -> AppPlan:
    """Change keys of an application, see `plan_change`; with `dry_run` write nothing.

    Raises NotFound, Refused, Invalid, Conflict.
    """
    listing = await store.list(keys.apps)
    record, revision = _find(listing, keys, app)
    others = {other.app: other for other in _records(listing) if other.app != app}
    plan = plan_change(record, values, others)
    if plan.changes and not dry_run:
        guard = Compare(keys.app(app), "mod_revision", revision)
        if not (await store.txn((guard,), (Put(keys.app(app), plan.record.encode()),))).succeeded:
            raise Conflict(_CONFLICT)
    return plan


async def remove_app(store: Store, keys: Keys, app: str) -> None:
    """Remove an application; the leader stops its shards. Raises NotFound, Conflict."""
    item = await store.get(keys.app(app))
    if item is None:
        raise _unknown(await store.list(keys.apps), keys, app)
    guard = Compare(keys.app(app), "mod_revision", item.mod_revision)
    if not (await store.txn((guard,), (Delete(keys.app(app)),))).succeeded:
        raise Conflict(_CONFLICT)


def _records(listing: Listing) -> list[AppRecord]:
    found = []
    for item in listing.items:
        try:
            found.append(msgspec.json.decode(item.value, type=AppRecord))
        except msgspec.MsgspecError:
            continue
    return found


def _find(listing: Listing, keys: Keys, app: str) -> tuple[AppRecord, int]:
    for item in listing.items:
        if item.key == keys.app(app):
            try:
                return msgspec.json.decode(item.value, type=AppRecord), item.mod_revision
            except msgspec.MsgspecError:
                raise Refused(f"the stored configuration of {app} is damaged: apply it again") from None
    raise _unknown(listing, keys, app)


def _unknown(listing: Listing, keys: Keys, app: str) -> NotFound:
    return NotFound("application", app, (item.key.removeprefix(keys.apps) for item in listing.items))


def plan_change(record: AppRecord, values: Mapping[tuple[str, ...], Any], others: Mapping[str, AppRecord]) -> AppPlan:
    """The record with these values. Pure.

    `values`: by path, as cluster.yml has them; `others`: the cluster's other applications. Raises Invalid, which names
    each wrong key.
    """
    document = exported_app(record)
    for path, value in values.items():
        check_path(path)
        _put(document, path, value)
    try:
        config = AppConfig.model_validate(document)
    except ValidationError as error:
        raise Invalid(described(error, ("apps", record.app))) from None
    after = msgspec.structs.replace(
        app_record(record.app, config, "", record.token), token=record.token, token_hash=record.token_hash
    )
    caches = {name: other.cache for name, other in others.items()} | {record.app: after.cache}
    problems = [f"{key}: {text}" for key, text in option_problems(after.cache, after.events, after.intents)]
    problems += [f"apps.{app}.{key}: {text}" for app, key, text in sharing_problems(caches)]
    if problems:
        raise Invalid(problems)
    return AppPlan(after, tuple(app_changes(record.app, record, after)), tuple(_warnings(record, after)))


def check_path(path: Sequence[str]) -> None:
    """Raise Invalid for a key that `change_app` does not change."""
    if path[0] == "token":
        raise Invalid("token is not changed here: put the new token into its source and run sandwich cluster apply")


def _warnings(before: AppRecord, after: AppRecord) -> list[OptionWarning]:
    options = option_warnings(after.cache, after.events, after.invites, after.intents)
    found = [OptionWarning(path, text) for path, text in options]
    if privileged := set(privileged_names(after.intents)) - set(privileged_names(before.intents)):
        text = f"enable {', '.join(sorted(privileged))} in Discord's developer portal"
        found.append(OptionWarning("intents", text))
    return found


def _put(document: dict[str, Any], path: Sequence[str], value: Any) -> None:
    at = document
    for part in path[:-1]:
        inner = at.get(part)
        if not isinstance(inner, dict):
            inner = at[part] = {}
        at = inner
    at[path[-1]] = value
