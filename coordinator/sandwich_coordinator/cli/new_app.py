"""What `sandwich app add` is given, from options, a file and a terminal, as one checked configuration."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from sandwich_coordinator.cli.changes import parse_changes
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.load import NO_TOKEN, ConfigError, load_app
from sandwich_coordinator.cli.output import say
from sandwich_coordinator.cli.token_input import read_token
from sandwich_coordinator.config import AppConfig
from sandwich_coordinator.config_values import check_name
from sandwich_coordinator.intents import INTENTS, PRIVILEGED
from sandwich_coordinator.operations.applications import parse_app, put_value


@dataclass(frozen=True)
class NewApp:
    """A checked section of an application, and its token. The repr shows no secret."""

    config: AppConfig
    token: str = field(repr=False)
    warnings: tuple[str, ...] = ()


def read_new_app(
    name: str,
    *,
    file: Path | None,
    changes: Sequence[str],
    options: Mapping[str, Any],
    token_from: tuple[str | None, Path | None],
    env: Mapping[str, str],
) -> NewApp:
    """Read all of it; what is missing is asked for on a terminal. Raises CommandError and Invalid.

    `options`: intents, shards, ids, paused; None where not given. `token_from`: --token-env and --token-file.
    """
    try:
        check_name(name)
    except ValueError as error:
        raise CommandError(f"the name {name[:64]!r} {error}", 1) from None
    values = parse_changes(changes)
    values |= {path: value for path, value in _from_options(options).items() if value is not None}
    variable, token_file = token_from
    if file is not None:
        if values:
            raise CommandError("give either --from, or options and KEY=VALUE")
        try:
            loaded = load_app(file, name, env, with_token=variable is None and token_file is None)
        except ConfigError as error:
            raise CommandError(str(error).splitlines(), 1) from None
        token = loaded.token or read_token(variable, token_file, f"Token of {name}", env)
        return NewApp(loaded.config, token, loaded.warnings)
    if ("intents",) not in values:
        if not sys.stdin.isatty():
            raise CommandError("say which intents: --intents GUILDS,GUILD_MESSAGES, or --from FILE")
        values |= _asked(shards_given=("shards", "count") in values)
    document: dict[str, Any] = {"token": NO_TOKEN}
    for path, value in values.items():
        put_value(document, path, value)
    config = parse_app(name, document)
    return NewApp(config, read_token(variable, token_file, f"Token of {name}", env))


def _from_options(options: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    intents, shards = options["intents"], options["shards"]
    return {
        ("intents",): None if intents is None else _intents(intents),
        ("shards", "count"): None if shards is None else _count(shards),
        ("shards", "ids"): options["ids"],
        ("paused",): options["paused"],
    }


def _intents(text: str) -> int | list[str]:
    text = text.strip()
    if text.isascii() and text.isdecimal() and len(text) <= 20:
        return int(text)
    return [part for name in text.strip("[]").split(",") if (part := name.strip())]


def _count(text: str) -> int | str:
    text = text.strip()
    # What is no number is refused with the key's own message.
    return int(text) if text.isascii() and text.removeprefix("-").isdecimal() and len(text) <= 20 else text


def _asked(*, shards_given: bool) -> dict[tuple[str, ...], Any]:
    """Ask for what has no default."""
    names = ", ".join(f"{name}*" if name in PRIVILEGED else name for name in INTENTS)
    say(f"Intents: {names}. Those with * must be enabled in Discord's developer portal.", err=True)
    found: dict[tuple[str, ...], Any] = {
        ("intents",): _intents(typer.prompt("Which intents", default="GUILDS,GUILD_MESSAGES", err=True))
    }
    if not shards_given:
        found["shards", "count"] = _count(typer.prompt("How many shards", default="auto", err=True))
    return found
