"""`sandwich app show|set`: one application's configuration, read and changed in place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from pydantic import ValidationError

from sandwich_coordinator.app_options import option_problems, option_warnings, sharing_problems
from sandwich_coordinator.apply import app_record, edited_fields
from sandwich_coordinator.cli.connection import Connection
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.export import exported_app
from sandwich_coordinator.cli.load import described
from sandwich_coordinator.cli.yaml_text import YamlError, read_yaml
from sandwich_coordinator.config import AppConfig
from sandwich_coordinator.intents import privileged_names
from sandwich_coordinator.operations.errors import NotFound
from sandwich_coordinator.store.base import Compare, Listing, Put
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import AppRecord

_NOT_HERE = {"token": "put the new token into its source and run sandwich cluster apply"}


@dataclass(frozen=True)
class AppEdit:
    """A changed application: `lines` tell what differs, empty when nothing does."""

    record: AppRecord
    lines: tuple[str, ...]
    warnings: tuple[str, ...]


async def show_app(connection: Connection, app: str) -> dict[str, Any]:
    """The application as cluster.yml has it. Raises CommandError."""
    async with connection.store() as store:
        listing = await store.list(connection.keys.apps)
    return exported_app(_find(listing, connection.keys, app)[0])


async def set_app(connection: Connection, app: str, changes: Sequence[str], *, dry_run: bool) -> AppEdit:
    """Change keys of an application. Raises CommandError when something is wrong with them; nothing is written then."""
    keys = connection.keys
    async with connection.store() as store:
        listing = await store.list(keys.apps)
        record, revision = _find(listing, keys, app)
        others = {other.app: other for other in _records(listing) if other.app != app}
        edit = edited(record, parse_changes(changes), others)
        if edit.lines and not dry_run:
            guard = Compare(keys.app(app), "mod_revision", revision)
            if not (await store.txn((guard,), (Put(keys.app(app), edit.record.encode()),))).succeeded:
                raise CommandError("somebody else changed the application at the same time: look, then try again", 1)
    return edit


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
                raise CommandError(f"the stored configuration of {app} is damaged: apply it again", 1) from None
    raise NotFound("application", app, (item.key.removeprefix(keys.apps) for item in listing.items))


def parse_changes(changes: Sequence[str]) -> dict[tuple[str, ...], Any]:
    """`events.ignore=[A, B]` by path. Raises CommandError."""
    found: dict[tuple[str, ...], Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or not all(path):
            raise CommandError(f"{change!r}: write it as KEY=VALUE, such as events.ignore=[TYPING_START]", 1)
        if path[0] in _NOT_HERE:
            raise CommandError(f"{path[0]} is not changed here: {_NOT_HERE[path[0]]}", 1)
        try:
            found[path] = read_yaml(text)[0]
        except YamlError as error:
            why = "" if str(error).startswith("not valid YAML") else f": {error}"
            raise CommandError(f"{key}: the value is not valid YAML{why}", 1) from None
    return found


def edited(record: AppRecord, changes: Mapping[tuple[str, ...], Any], others: Mapping[str, AppRecord]) -> AppEdit:
    """The record with these changes. Raises CommandError naming the key. `others`: the cluster's other applications."""
    document = exported_app(record)
    for path, value in changes.items():
        _put(document, path, value)
    try:
        config = AppConfig.model_validate(document)
    except ValidationError as error:
        raise CommandError(described(error, ("apps", record.app)), 1) from None
    after = msgspec.structs.replace(
        app_record(record.app, config, "", record.token), token=record.token, token_hash=record.token_hash
    )
    caches = {name: other.cache for name, other in others.items()} | {record.app: after.cache}
    problems = [f"{key}: {text}" for key, text in option_problems(after.cache, after.events, after.intents)]
    problems += [f"apps.{app}.{key}: {text}" for app, key, text in sharing_problems(caches)]
    if problems:
        raise CommandError(problems, 1)
    warnings = [
        f"{key}: {text}" for key, text in option_warnings(after.cache, after.events, after.invites, after.intents)
    ]
    if privileged := set(privileged_names(after.intents)) - set(privileged_names(record.intents)):
        warnings.append(f"intents: enable {', '.join(sorted(privileged))} in Discord's developer portal")
    return AppEdit(after, tuple(edited_fields(f"application {record.app}", record, after)), tuple(warnings))


def _put(document: dict[str, Any], path: Sequence[str], value: Any) -> None:
    at = document
    for part in path[:-1]:
        inner = at.get(part)
        if not isinstance(inner, dict):
            inner = at[part] = {}
        at = inner
    at[path[-1]] = value
