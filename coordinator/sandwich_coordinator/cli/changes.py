"""Changes of the stored configuration as text: read from KEY=VALUE, shown as the lines of a diff."""

from collections.abc import Sequence
from typing import Any

from sandwich_coordinator.app_options import shown_option
from sandwich_coordinator.bot_token import looks_like_token
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.yaml_text import YamlError, read_yaml
from sandwich_coordinator.operations import changes as changed
from sandwich_coordinator.operations.applications import check_path
from sandwich_coordinator.operations.changes import Change
from sandwich_coordinator.operations.configuration_plan import key_in_words
from sandwich_coordinator.ranges import format_ranges


def parse_changes(changes: Sequence[str]) -> dict[tuple[str, ...], Any]:
    """`events.ignore=[A, B]` by path. Raises CommandError and Invalid."""
    found: dict[tuple[str, ...], Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if looks_like_token(key):
            raise CommandError("a token is no argument, which other users could see: say --token-env or --token-file")
        if not equals or not all(path):
            raise CommandError(f"{change!r}: write it as KEY=VALUE, such as events.ignore=[TYPING_START]", 1)
        check_path(path)
        try:
            found[path] = read_yaml(text)[0]
        except YamlError as error:
            why = "" if str(error).startswith("not valid YAML") else f": {error}"
            raise CommandError(f"{key}: the value is not valid YAML{why}", 1) from None
    return found


def change_line(change: Change) -> str:
    """One change, after + (added), ~ (changed) or - (removed)."""
    match change:
        case changed.AppAdded(app, shards, intents):
            return f"+ application {app}: shards {shards}, intents {shown_option('intents', intents)}"
        case changed.AppRemoved(app):
            return f"- application {app}: removed"
        case changed.AppReplaced(app):
            return f"~ application {app}: its stored configuration is damaged and is replaced"
        case changed.AppChange(app, path, before, after, is_secret):
            return f"~ application {app}: {_field(path, before, after, is_secret)}"
        case changed.ShardsRetried(app, shards):
            return f"~ application {app}: failed shards {format_ranges(shards)} try again"
        case changed.SettingsAdded():
            return "+ cluster: configured"
        case changed.SettingsReplaced():
            return "~ cluster: the stored configuration is damaged and is replaced"
        case changed.SettingsChange(path, before, after, is_secret):
            return f"~ cluster: {_field(path, before, after, is_secret)}"
        case changed.SettingsAuthenticated(key_id):
            return f"~ cluster: its addresses are authenticated with {key_in_words(key_id)}"


def change_lines(changes: Sequence[Change]) -> list[str]:
    """A line for each change."""
    return [change_line(change) for change in changes]


def _field(path: str, before: Any, after: Any, is_secret: bool) -> str:
    return f"{path}: changed" if is_secret else f"{path}: {shown_option(path, before)} -> {shown_option(path, after)}"
