"""`sandwich group`: consumer groups that the operator makes, for consumers that may make none."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import nats.errors
import nats.js.errors
import typer
from nats.aio.client import Client

from sandwich_coordinator.cli import accounts, letters
from sandwich_coordinator.cli.context import CommandError, Connection
from sandwich_coordinator.cli.messaging import connect, find_messaging
from sandwich_coordinator.sealing import KEY_VARIABLE
from sandwich_sdk.errors import GroupConflict
from sandwich_sdk.groups import Group, SourceOptions
from sandwich_sdk.pulls import NOWHERE
from sandwich_sdk.sharing import PARTITIONS, RANGE_SHARDS
from sandwich_sdk.wire.subjects import DEFAULT_LANE, check_lane, check_name, stream_name

SHARDS_MAX = 32_768

group_app = typer.Typer(
    help="Consumer groups that the operator makes.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
)


@group_app.command("create")
def group_create(
    context: typer.Context,
    app_name: Annotated[str, typer.Argument(metavar="APP", help="The application's name.")],
    group: Annotated[str, typer.Argument(metavar="GROUP", help="The group's name.")],
    ordered: Annotated[bool, typer.Option("--ordered", help="Each shard in order over all workers.")] = False,
    lane: Annotated[str, typer.Option("--lane", help="The lane to read; *: all of them.")] = DEFAULT_LANE,
    start: Annotated[str, typer.Option("--start", help="new, all, or a time such as 2026-01-31T12:00:00Z.")] = "new",
    ack_wait: Annotated[float, typer.Option("--ack-wait", min=1.0, help="Seconds; the workers' ack_wait.")] = 30.0,
    shards: Annotated[
        int, typer.Option("--shards", min=1, max=SHARDS_MAX, help="Ordered: for bots of up to so many shards.")
    ] = RANGE_SHARDS,
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", help=f"The cluster key, when NATS has a password; else ${KEY_VARIABLE}."),
    ] = None,
) -> None:
    """Make a group, or follow a changed --ack-wait or --shards. Example: sandwich group create welcomer greeter"""
    try:
        options = SourceOptions(
            servers=(),
            apps=(app_name,),
            group=check_name(group, what="group"),
            lane=check_lane(lane),
            start=start if start in ("new", "all") else _time(start),
            ack_wait_s=ack_wait,
            connect_timeout_s=None,
            connection={},
            ordered=ordered,
            kept=True,
        )
    except ValueError as error:
        raise CommandError(str(error)) from None
    connection: Connection = replace(context.obj, key_file=key_file)
    asyncio.run(_create(connection, options, shards))
    typer.echo(f"group {group} of {app_name} is there")


def _time(text: str) -> datetime:
    """Raises ValueError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--start {text!r} is neither new nor all nor a time such as 2026-01-31T12:00:00Z") from None
    if found.tzinfo is None:
        raise ValueError(f"--start {text!r} has no time zone: add Z or +02:00")
    return found


async def _create(connection: Connection, options: SourceOptions, shards: int) -> None:
    messaging = await find_messaging(connection, options.apps[0])
    async with connect(messaging) as client:
        await create_group(client, options, shards)


async def create_group(client: Client, options: SourceOptions, shards: int = RANGE_SHARDS) -> None:
    """Make everything that a worker of the group needs. Raises CommandError."""
    (app,) = options.apps
    group = Group(client.jetstream(timeout=letters.API_TIMEOUT_S), options, app)
    try:
        if options.ordered:
            for partition in range(-(-shards // RANGE_SHARDS) * PARTITIONS):
                await group.ensure_partition(partition, NOWHERE)
        else:
            await group.ensure(NOWHERE)
    except GroupConflict as error:
        raise CommandError(str(error), 1) from None
    except nats.js.errors.NotFoundError:
        raise CommandError(
            f"stream {stream_name(app)} is not there yet: a node makes it with the first shard", 1
        ) from None
    except nats.js.errors.APIError as error:
        raise CommandError(f"JetStream refused: {error.description or error.code}", 1) from None
    except (nats.errors.Error, TimeoutError, OSError) as error:
        raise CommandError(f"NATS does not answer ({type(error).__name__})") from None
    await letters.open_replays(client, app, options.group)


def nats_config(
    apps: Annotated[list[str], typer.Argument(metavar="APP...", help="The applications, by name.")],
    store: Annotated[str, typer.Option("--store", help="Where JetStream keeps its files.")] = "/data",
    listen: Annotated[str, typer.Option("--listen", help="Where nats-server listens.")] = "0.0.0.0:4222",
) -> None:
    """Print a configuration for nats-server: an account for each application. Example: sandwich nats-config welcomer"""
    typer.echo(_config(apps, store, listen), nl=False)


def _config(apps: Sequence[str], store: str, listen: str) -> str:
    if any(char in text for text in (store, listen) for char in '"\n\\'):
        raise CommandError("--store and --listen may hold no quotes, backslashes or line breaks")
    try:
        return accounts.server_config(apps, store=store, listen=listen)
    except ValueError as error:
        raise CommandError(str(error)) from None
