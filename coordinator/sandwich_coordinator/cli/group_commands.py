"""`sandwich group` and `sandwich nats-config` as help shows them; a command imports its operation when it runs."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from sandwich_coordinator.cli.options import AppName, Json, KeyFile, command_group, run, with_key_file
from sandwich_coordinator.cli.output import ask, say, show, show_json
from sandwich_sdk.wire.subjects import DEFAULT_LANE

if TYPE_CHECKING:
    from sandwich_coordinator.cli.letter_access import LetterAccess
    from sandwich_coordinator.operations.group_states import ConsumerGroup

T = TypeVar("T")
SHARDS_MAX = 32_768

group_app = command_group("Consumer groups: workers that share an application's events under one name.")

GroupName = Annotated[str, typer.Argument(metavar="GROUP", help="The group's name.")]


@group_app.command("list")
def group_list(context: typer.Context, app_name: AppName, key_file: KeyFile = None, as_json: Json = False) -> None:
    """The consumer groups of an application, and how far behind each is. Example: sandwich group list welcomer"""
    import time

    from sandwich_coordinator.cli.group_text import group_row, groups_text

    async def look(letters: "LetterAccess") -> "list[ConsumerGroup]":
        return await letters.groups(app_name)

    found = _run(context, app_name, key_file, look)
    if as_json:
        show_json([group_row(one) for one in found])
    else:
        show(groups_text(app_name, found, time.time()))


@group_app.command("create")
def group_create(
    context: typer.Context,
    app_name: AppName,
    group: GroupName,
    ordered: Annotated[bool, typer.Option("--ordered", help="Each shard in order over all workers.")] = False,
    lane: Annotated[str, typer.Option("--lane", help="The lane to read; *: all of them.")] = DEFAULT_LANE,
    start: Annotated[str, typer.Option("--start", help="new, all, or a time such as 2026-01-31T12:00:00Z.")] = "new",
    ack_wait: Annotated[float, typer.Option("--ack-wait", min=1.0, help="Seconds; the workers' ack_wait.")] = 30.0,
    shards: Annotated[
        int | None,
        typer.Option("--shards", min=1, max=SHARDS_MAX, help="Ordered: for bots of up to so many shards. [256]"),
    ] = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Make a group, or follow a changed --ack-wait or --shards. Example: sandwich group create welcomer greeter"""
    from sandwich_coordinator.cli.groups import group_spec

    spec = group_spec(app_name, group, ordered=ordered, lane=lane, start=start, ack_wait_s=ack_wait, shards=shards)

    async def create(letters: "LetterAccess") -> None:
        await letters.create_group(spec)

    _run(context, app_name, key_file, create)
    say(f"group {group} of {app_name} is there", err=as_json)
    if as_json:
        show_json({"app": app_name, "group": group, "ordered": ordered, "lane": lane, "ack_wait_s": ack_wait})


@group_app.command("remove")
def group_remove(
    context: typer.Context,
    app_name: AppName,
    group: GroupName,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also while workers read with it.")] = False,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Remove a group for good: its position and its dead letters.

    Shows what goes, and asks. Refused while workers read with the group. Events stay in the stream, and other groups
    keep what they have.

    Example: sandwich group remove welcomer greeter --yes
    """
    from sandwich_coordinator.cli.group_text import group_row, removal_lines
    from sandwich_coordinator.operations.group_states import check_unread

    async def look(letters: "LetterAccess") -> "ConsumerGroup":
        return await letters.find_group(app_name, group)

    async def remove(letters: "LetterAccess") -> "ConsumerGroup":
        return await letters.remove_group(app_name, group, force=force)

    found = _run(context, app_name, key_file, look)
    for line in removal_lines(found):
        say(line, err=as_json)
    if not force:
        check_unread(found)
    if not yes:
        # Between two connections: a question may wait for long.
        ask(f"Group {group} of {app_name} and its dead letters will be gone for good.", otherwise="nothing was removed")
    done = _run(context, app_name, key_file, remove)
    letters = f"{done.dead_letters} dead {'letter' if done.dead_letters == 1 else 'letters'}"
    say(f"group {group} of {app_name} is removed, with {letters}", err=as_json)
    if as_json:
        show_json({"removed": True, **group_row(done)})


def _run(context: typer.Context, app: str, key_file: Path | None, work: Callable[["LetterAccess"], Awaitable[T]]) -> T:
    """Run `work` with the application's groups. Raises CommandError, OperationError, StoreError, SealingError."""
    from sandwich_coordinator.cli.letter_access import open_letters

    async def main() -> T:
        async with open_letters(with_key_file(context.obj, key_file), app) as letters:
            return await work(letters)

    return run(main())


def nats_config(
    apps: Annotated[list[str], typer.Argument(metavar="APP...", help="The applications, by name.")],
    store: Annotated[str, typer.Option("--store", help="Where JetStream keeps its files.")] = "/data",
    listen: Annotated[str, typer.Option("--listen", help="Where nats-server listens.")] = "0.0.0.0:4222",
) -> None:
    """Print a configuration for nats-server: an account for each application. Example: sandwich nats-config welcomer"""
    from sandwich_coordinator.cli.groups import config_text

    show(config_text(apps, store, listen).rstrip())
