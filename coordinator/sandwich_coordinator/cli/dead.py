"""`sandwich dead`: events that a consumer group gave up, kept until an operator replays or discards them.

Light, as help and completion need it: what the commands work with is imported when one runs.
"""

import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.options import KEY_VARIABLE, AppName, Json, command_group, run, with_key_file
from sandwich_coordinator.cli.output import say, show, show_json, warn

if TYPE_CHECKING:
    from nats.aio.client import Client

    from sandwich_coordinator.cli.letters import Found, Wanted

T = TypeVar("T")

dead_app = command_group("Events that a consumer group could not handle.")

Letters = Annotated[
    list[str] | None, typer.Argument(metavar="LETTER", help="Numbers or event ids, as sandwich dead list shows.")
]
All = Annotated[bool, typer.Option("--all", help="Every letter that the other options leave.")]
OnlyGroup = Annotated[str | None, typer.Option("--group", help="Only this consumer group's.")]
OnlyType = Annotated[str | None, typer.Option("--type", help="Only this event type.")]
KeyFile = Annotated[
    Path | None, typer.Option("--key-file", help=f"The cluster key, when NATS has a password; else ${KEY_VARIABLE}.")
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
    from sandwich_coordinator.cli import letters

    wanted = _wanted((), group, event_type)

    async def look(client: "Client", apps: tuple[str, ...]) -> "tuple[int, list[Found]]":
        total = 0
        newest: list[Found] = []
        for app in apps:
            of_app: deque[Found] = deque(maxlen=limit)
            async for found in letters.read_letters(client, app, wanted):
                of_app.append(found)
                total += 1
            newest += of_app
        return total, sorted(newest, key=lambda found: (found.letter.at, found.number), reverse=True)[:limit]

    total, shown = _run(context, app_name, key_file, look)
    if not total:
        _warn_unknown(wanted)
    if as_json:
        show_json({"total": total, "letters": [found.row() for found in shown]})
    else:
        show(letters.letters_text(shown, total, time.time(), filtered=bool(group or event_type)))


@dead_app.command("show")
def dead_show(
    context: typer.Context,
    app_name: AppName,
    letter: Annotated[str, typer.Argument(metavar="LETTER", help="Its number, or the event's id.")],
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """One dead letter: the whole event, and what went wrong. Example: sandwich dead show welcomer 17"""
    from sandwich_coordinator.cli import letters

    async def look(client: "Client", apps: tuple[str, ...]) -> dict[str, Any]:
        found = await _select(client, app_name, _wanted((letter,), None, None))
        return await letters.read_content(client, found[-1])

    content = _run(context, app_name, key_file, look)
    if as_json:
        show_json(content)
    else:
        show(letters.content_text(content))


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
    from sandwich_coordinator.cli import letters

    wanted = _wanted(letter or (), group, event_type, everything=everything, checked=True)
    done: list[Found] = []

    async def send(client: "Client", apps: tuple[str, ...]) -> None:
        found = await _select(client, app_name, wanted)
        for name in sorted({each.letter.group for each in found}):
            if not await letters.open_replays(client, app_name, name):
                warn(f"no group {name} reads {app_name} now: it gets them when a worker of it runs")
        for each in found:
            await letters.replay(client, each)
            done.append(each)

    try:
        _run(context, app_name, key_file, send)
    except CommandError:
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
    from sandwich_coordinator.cli import letters

    wanted = _wanted(letter or (), group, event_type, everything=everything, checked=True)

    async def look(client: "Client", apps: tuple[str, ...]) -> "list[Found]":
        return await _select(client, app_name, wanted)

    found = _run(context, app_name, key_file, look)
    if not yes:
        _ask(f"{_count(found)} of {app_name} will be gone for good.")

    async def remove(client: "Client", apps: tuple[str, ...]) -> None:
        for each in found:
            await letters.discard(client, each)

    _run(context, app_name, key_file, remove)
    _say_done("discarded, of", found, as_json)


def _wanted(
    names: tuple[str, ...] | list[str],
    group: str | None,
    event_type: str | None,
    *,
    everything: bool = False,
    checked: bool = False,
) -> "Wanted":
    """Raises CommandError (2) when `checked` and nothing says which letters."""
    from sandwich_coordinator.cli.letters import Wanted

    if checked and not (names or everything or group or event_type):
        raise CommandError("say which letters: their numbers, --group, --type, or --all")
    if checked and names and everything:
        raise CommandError("give either letters or --all")
    return Wanted(names=tuple(names), group=group, type=event_type.upper() if event_type else None)


async def _select(client: "Client", app: str, wanted: "Wanted") -> "list[Found]":
    """The wanted letters, oldest first. Raises CommandError (1) when a named one is not there, or none is."""
    from sandwich_coordinator.cli import letters

    found = [each async for each in letters.read_letters(client, app, wanted)]
    there = {str(each.number) for each in found} | {each.letter.id for each in found}
    missing = [name for name in wanted.names if name not in there]
    if missing:
        raise CommandError(f"{app} has no dead letter {', '.join(missing)}: see sandwich dead list --app {app}", 1)
    if not found:
        _warn_unknown(wanted)
        raise CommandError(f"{app} has no such dead letters: see sandwich dead list --app {app}", 1)
    return found


def _warn_unknown(wanted: "Wanted") -> None:
    """Nothing was found: perhaps because of a mistyped event type."""
    from sandwich_coordinator.event_names import unknown_event

    if wanted.type and (unknown := unknown_event(wanted.type)):
        warn(f"--type {wanted.type}: {unknown}")


def _ask(warning: str) -> None:
    """Raises CommandError (1) unless somebody says yes."""
    if not sys.stdin.isatty():
        raise CommandError(f"{warning} Say --yes", 1)
    if not typer.confirm(f"{warning} Go on?"):
        raise CommandError("nothing was discarded", 1)


def _count(found: "list[Found]") -> str:
    return f"{len(found)} dead {'letter' if len(found) == 1 else 'letters'}"


def _say_done(what: str, done: "list[Found]", as_json: bool) -> None:
    if as_json:
        show_json({"letters": [found.row() for found in done]})
        return
    for group in sorted({found.letter.group for found in done}):
        of_group = [found for found in done if found.letter.group == group]
        say(f"{_count(of_group)} {what} group {group}")


def _run(
    context: typer.Context,
    app: str | None,
    key_file: Path | None,
    work: Callable[["Client", tuple[str, ...]], Awaitable[T]],
) -> T:
    """What `work` makes of a client and the applications. Raises CommandError, StoreError, SealingError."""

    from sandwich_coordinator.cli.messaging import connect, find_messaging

    async def main() -> T:
        messaging = await find_messaging(with_key_file(context.obj, key_file), app)
        async with connect(messaging) as client:
            return await work(client, messaging.apps)

    return run(main())
