"""`sandwich dead`: events that a consumer group gave up, kept until an operator replays or discards them.

Light, as help and completion need it: a command imports its operation when it runs.
"""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.options import (
    KEY_FILE_VARIABLE,
    KEY_VARIABLE,
    AppName,
    Json,
    command_group,
    run,
    with_key_file,
)
from sandwich_coordinator.cli.output import ask, say, show, show_json, warn
from sandwich_coordinator.operations.errors import NotFound, OperationError

if TYPE_CHECKING:
    from sandwich_coordinator.cli.letter_access import LetterAccess
    from sandwich_coordinator.operations.dead_letters import (
        GroupNotRead,
        LetterContent,
        LetterFilter,
        LetterList,
        Replayed,
        StoredLetter,
    )

T = TypeVar("T")

dead_app = command_group("Events that a consumer group could not handle.")

Letters = Annotated[
    list[str] | None, typer.Argument(metavar="LETTER", help="Numbers or event ids, as sandwich dead list shows.")
]
All = Annotated[bool, typer.Option("--all", help="Every letter that the other options leave.")]
OnlyGroup = Annotated[str | None, typer.Option("--group", help="Only this consumer group's.")]
OnlyType = Annotated[str | None, typer.Option("--type", help="Only this event type.")]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        envvar=KEY_FILE_VARIABLE,
        help=f"The cluster key, when NATS has a password; else ${KEY_VARIABLE}.",
    ),
]


@dead_app.command("list")
def dead_list(
    context: typer.Context,
    app_name: Annotated[str | None, typer.Option("--app", help="Only this application's.")] = None,
    group: OnlyGroup = None,
    event_type: OnlyType = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show at most so many.")] = 50,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """The dead letters, newest first. Example: sandwich dead list --app welcomer --group worker"""
    from sandwich_coordinator.cli.letter_text import letter_row, letters_text

    wanted = _wanted((), group, event_type)

    async def look(letters: "LetterAccess") -> "LetterList":
        return await letters.newest(wanted, limit=limit)

    found = _run(context, app_name, key_file, look)
    if not found.total:
        _warn_unknown(wanted)
    if as_json:
        show_json({"total": found.total, "letters": [letter_row(stored) for stored in found.letters]})
    else:
        show(letters_text(found.letters, found.total, time.time(), filtered=bool(group or event_type)))


@dead_app.command("show")
def dead_show(
    context: typer.Context,
    app_name: AppName,
    letter: Annotated[str, typer.Argument(metavar="LETTER", help="Its number, or the event's id.")],
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """One dead letter: the whole event, and what went wrong. Example: sandwich dead show welcomer 17"""
    from sandwich_coordinator.cli.letter_text import content_row, content_text

    async def look(letters: "LetterAccess") -> "LetterContent":
        return await letters.content(app_name, letter)

    content = content_row(_run(context, app_name, key_file, look))
    if as_json:
        show_json(content)
    else:
        show(content_text(content))


@dead_app.command("replay")
def dead_replay(
    context: typer.Context,
    app_name: AppName,
    letter: Letters = None,
    everything: All = False,
    group: OnlyGroup = None,
    event_type: OnlyType = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Send dead letters back to their consumer group.

    No other group gets them; the workers of this one do, within some seconds. Tries are counted from 1 again, the
    event's id stays, and the shard's order is not kept.

    Example: sandwich dead replay welcomer --group worker --type MESSAGE_CREATE
    """
    from sandwich_coordinator.operations.dead_letters import GroupNotRead

    wanted = _wanted(letter or (), group, event_type, everything=everything, checked=True)
    done: list[StoredLetter] = []

    def report(event: "Replayed | GroupNotRead") -> None:
        if isinstance(event, GroupNotRead):
            warn(f"no group {event.group} reads {event.app} now: it gets them when a worker of it runs")
        else:
            done.append(event.stored)

    async def send(letters: "LetterAccess") -> None:
        await letters.replay(app_name, await _find(letters, app_name, wanted), report=report)

    try:
        _run(context, app_name, key_file, send)
    except OperationError:
        if done:
            _say_done("handed back to", done, as_json)
        raise
    _say_done("handed back to", done, as_json)


@dead_app.command("discard")
def dead_discard(
    context: typer.Context,
    app_name: AppName,
    letter: Letters = None,
    everything: All = False,
    group: OnlyGroup = None,
    event_type: OnlyType = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Throw dead letters away, for good. Asks first. Example: sandwich dead discard welcomer 17 18 --yes"""
    wanted = _wanted(letter or (), group, event_type, everything=everything, checked=True)

    async def look(letters: "LetterAccess") -> "list[StoredLetter]":
        return await _find(letters, app_name, wanted)

    found = _run(context, app_name, key_file, look)
    if not yes:
        ask(f"{_count(found)} of {app_name} will be gone for good.", otherwise="nothing was discarded")

    async def remove(letters: "LetterAccess") -> None:
        await letters.discard(app_name, found)

    _run(context, app_name, key_file, remove)
    _say_done("discarded, of", found, as_json)


def _wanted(
    names: tuple[str, ...] | list[str],
    group: str | None,
    event_type: str | None,
    *,
    everything: bool = False,
    checked: bool = False,
) -> "LetterFilter":
    """Raises CommandError (2) when `checked` and nothing says which letters."""
    from sandwich_coordinator.operations.dead_letters import LetterFilter

    if checked and not (names or everything or group or event_type):
        raise CommandError("say which letters: their numbers, --group, --type, or --all")
    if checked and names and everything:
        raise CommandError("give either letters or --all")
    return LetterFilter(names=tuple(names), group=group, type=event_type.upper() if event_type else None)


async def _find(letters: "LetterAccess", app: str, wanted: "LetterFilter") -> "list[StoredLetter]":
    """The letters that match, oldest first. Raises NotFound, after a warning about an event type that is unknown."""
    try:
        return await letters.find(app, wanted)
    except NotFound:
        if not wanted.names:
            _warn_unknown(wanted)
        raise


def _warn_unknown(wanted: "LetterFilter") -> None:
    """No letter was found: the event type may be mistyped."""
    from sandwich_coordinator.event_names import unknown_event

    if wanted.type and (unknown := unknown_event(wanted.type)):
        warn(f"--type {wanted.type}: {unknown}")


def _count(found: "list[StoredLetter]") -> str:
    return f"{len(found)} dead {'letter' if len(found) == 1 else 'letters'}"


def _say_done(what: str, done: "list[StoredLetter]", as_json: bool) -> None:
    from sandwich_coordinator.cli.letter_text import letter_row

    if as_json:
        show_json({"letters": [letter_row(stored) for stored in done]})
        return
    for group in sorted({found.letter.group for found in done}):
        of_group = [found for found in done if found.letter.group == group]
        say(f"{_count(of_group)} {what} group {group}")


def _run(
    context: typer.Context, app: str | None, key_file: Path | None, work: Callable[["LetterAccess"], Awaitable[T]]
) -> T:
    """Run `work` with the letters. Raises CommandError, OperationError, StoreError, SealingError."""
    from sandwich_coordinator.cli.letter_access import open_letters

    async def main() -> T:
        async with open_letters(with_key_file(context.obj, key_file), app) as letters:
            return await work(letters)

    return run(main())
