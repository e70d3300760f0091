"""The only place where commands write. All text is made plain, whatever its source.

Colours are added afterwards, on a terminal (https://no-color.org: NO_COLOR switches them off).
"""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import typer

from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.paint import Paint
from sandwich_sdk.wire.plain_text import plain_json, plain_lines, plain_text

JSON_VERSION = 1
"""The version of what `--json` prints: docs/reference/commands.md. Keys are only added under one version."""


def paint_for(stream: TextIO) -> Paint:
    """Colours if the stream is a terminal that can show them and NO_COLOR is not set."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Paint(on=wanted and stream.isatty())


def say(text: object, *, err: bool = False) -> None:
    """One line."""
    typer.echo(plain_text(text), err=err)


def show(text: str, *, err: bool = False) -> None:
    """Several lines."""
    typer.echo(plain_lines(text), err=err)


def show_painted(text: str) -> None:
    """Text with our own colours, whose parts are plain."""
    typer.echo(text, color=paint_for(sys.stdout).on)


def warn(text: object) -> None:
    """A warning, on stderr."""
    paint = paint_for(sys.stderr)
    typer.echo(f"{paint.warning('warning:')} {plain_text(text)}", err=True, color=paint.on)


def ask(warning: str, *, otherwise: str) -> None:
    """Ask the operator whether to go on. Raises CommandError (1), with `otherwise`, unless the answer is yes."""
    if not sys.stdin.isatty():
        raise CommandError(f"{warning} Say --yes", 1)
    if not typer.confirm(f"{plain_text(warning)} Go on?", err=True):
        raise CommandError(otherwise, 1)


def fail(program: str, message: str) -> None:
    """The error that ended the command, on stderr."""
    paint = paint_for(sys.stderr)
    typer.echo(f"{paint.bad(f'{program}:')} {plain_lines(message)}", err=True, color=paint.on)


def show_json(value: Any) -> None:
    """A result as JSON: an object begins with the schema's version, a table is an array of rows."""
    show_json_document({"v": JSON_VERSION, **value} if isinstance(value, dict) else value)


def show_changes(lines: Sequence[str], warnings: Sequence[str], *, summary: str, written: bool, as_json: bool) -> None:
    """What a command changed, or would change if not `written`; the text ends with `summary`."""
    for warning in warnings:
        warn(warning)
    if as_json:
        show_json({"changes": lines, "warnings": warnings, "written": written})
        return
    for line in (*lines, summary):
        say(line)


def show_json_document(value: Any) -> None:
    """A value as JSON, without the schema's version: names stay readable, control characters are escaped."""
    typer.echo(plain_json(json.dumps(value, indent=2, ensure_ascii=False)))


def show_json_error(code: str, message: str) -> None:
    """What ended a command, as one line of JSON on stderr: stdout has results only."""
    body = {"v": JSON_VERSION, "error": {"code": code, "message": message}}
    typer.echo(plain_json(json.dumps(body, ensure_ascii=False)), err=True)


def show_yaml(value: Any) -> None:
    """A value as YAML."""
    # Imported here: few commands need it.
    import yaml

    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    if plain_lines(text) != text:
        # Escaped by YAML itself, so that it decodes to the same value.
        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=False)
    typer.echo(text, nl=False)
