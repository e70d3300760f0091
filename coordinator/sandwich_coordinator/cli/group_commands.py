"""`sandwich group` and `sandwich nats-config` as help shows them; a command imports its operation when it runs."""

from typing import Annotated

import typer

from sandwich_coordinator.cli.options import AppName, KeyFile, command_group, run, with_key_file
from sandwich_coordinator.cli.output import say, show
from sandwich_sdk.wire.subjects import DEFAULT_LANE

SHARDS_MAX = 32_768

group_app = command_group("Consumer groups that the operator makes.")


@group_app.command("create")
def group_create(
    context: typer.Context,
    app_name: AppName,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="The group's name.")],
    ordered: Annotated[bool, typer.Option("--ordered", help="Each shard in order over all workers.")] = False,
    lane: Annotated[str, typer.Option("--lane", help="The lane to read; *: all of them.")] = DEFAULT_LANE,
    start: Annotated[str, typer.Option("--start", help="new, all, or a time such as 2026-01-31T12:00:00Z.")] = "new",
    ack_wait: Annotated[float, typer.Option("--ack-wait", min=1.0, help="Seconds; the workers' ack_wait.")] = 30.0,
    shards: Annotated[
        int | None,
        typer.Option("--shards", min=1, max=SHARDS_MAX, help="Ordered: for bots of up to so many shards. [256]"),
    ] = None,
    key_file: KeyFile = None,
) -> None:
    """Make a group, or follow a changed --ack-wait or --shards. Example: sandwich group create welcomer greeter"""
    from sandwich_coordinator.cli.groups import group_spec
    from sandwich_coordinator.cli.letter_access import open_letters

    spec = group_spec(app_name, group, ordered=ordered, lane=lane, start=start, ack_wait_s=ack_wait, shards=shards)

    async def work() -> None:
        async with open_letters(with_key_file(context.obj, key_file), app_name) as letters:
            await letters.create_group(spec)

    run(work())
    say(f"group {group} of {app_name} is there")


def nats_config(
    apps: Annotated[list[str], typer.Argument(metavar="APP...", help="The applications, by name.")],
    store: Annotated[str, typer.Option("--store", help="Where JetStream keeps its files.")] = "/data",
    listen: Annotated[str, typer.Option("--listen", help="Where nats-server listens.")] = "0.0.0.0:4222",
) -> None:
    """Print a configuration for nats-server: an account for each application. Example: sandwich nats-config welcomer"""
    from sandwich_coordinator.cli.groups import config_text

    show(config_text(apps, store, listen).rstrip())
