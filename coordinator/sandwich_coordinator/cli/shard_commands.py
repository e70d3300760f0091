"""`sandwich shard`: the commands as help shows them; a command imports its operation when it runs."""

import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.node_commands import list_rows
from sandwich_coordinator.cli.options import AppName, Json, WaitS, command_group, run
from sandwich_coordinator.cli.output import paint_for, say, show_json, show_painted
from sandwich_coordinator.operations.errors import NotFound

if TYPE_CHECKING:
    from sandwich_coordinator.operations.snapshot import Snapshot
    from sandwich_coordinator.view import ClusterView

ANYWHERE = "any"

shard_app = command_group("The connections to Discord.")

ShardRanges = Annotated[str, typer.Argument(metavar="SHARDS", help="One shard or ranges: 3, 0-7,12.")]


@shard_app.command("list")
def shard_list(
    context: typer.Context,
    app_name: Annotated[str | None, typer.Option("--app", help="Only this application.")] = None,
    shards: Annotated[str | None, typer.Option("--shards", help="With --app, only these: 3, 0-7,12.")] = None,
    as_json: Json = False,
) -> None:
    """Where each shard runs and how it is. Example: sandwich shard list --app welcomer --shards 0-7"""
    from sandwich_coordinator.cli import render
    from sandwich_coordinator.operations.shards import find_shards

    if shards is not None and app_name is None:
        raise CommandError("--shards needs --app")

    def check(snapshot: "Snapshot") -> None:
        if app_name is not None and app_name not in snapshot.view.apps:
            raise NotFound("application", app_name, snapshot.view.apps)

    def only(snapshot: "Snapshot") -> frozenset[int] | None:
        if app_name is None or shards is None:
            return None
        return frozenset(shard.shard for shard in find_shards(snapshot.view, app_name, shards))

    list_rows(
        context,
        lambda snapshot: render.shard_rows(snapshot, app_name, only(snapshot)),
        lambda snapshot, paint: render.shards_text(snapshot, app_name, paint, only(snapshot)),
        as_json,
        check,
    )


@shard_app.command("pins")
def shard_pins(
    context: typer.Context,
    app_name: Annotated[str | None, typer.Option("--app", help="Only this application.")] = None,
    as_json: Json = False,
) -> None:
    """Which shards are pinned to which nodes, and why a pin is not followed. Example: sandwich shard pins"""
    from sandwich_coordinator.cli import render
    from sandwich_coordinator.cli.cluster_access import open_cluster

    async def look() -> "ClusterView":
        async with open_cluster(context.obj) as cluster:
            return (await cluster.snapshot()).view

    view = run(look())
    if app_name is not None and app_name not in view.apps:
        raise NotFound("application", app_name, view.apps)
    if as_json:
        show_json(render.pin_rows(view, app_name))
    else:
        show_painted(render.pins_text(view, time.time(), app_name, paint_for(sys.stdout)))


@shard_app.command("move")
def shard_move(
    context: typer.Context,
    app_name: AppName,
    shards: ShardRanges,
    node: Annotated[str, typer.Option("--to", metavar="NODE", help="Where to; any: take the pin away.")],
    timeout_s: WaitS = 60.0,
    as_json: Json = False,
) -> None:
    """Pin shards to a node, sessions kept, and wait until they are live there. Exit code 1: refused, or not there yet.

    The pin holds until --to any; it rests while its node takes no shards.

    Example: sandwich shard move welcomer 3 --to b
    """
    from sandwich_coordinator.cli.cluster_access import open_cluster
    from sandwich_coordinator.cli.progress import shown

    report = shown(partial(say, err=as_json))

    async def work() -> list[int]:
        async with open_cluster(context.obj) as cluster:
            if node == ANYWHERE:
                return await cluster.unpin_shards(app_name, shards, report=report)
            return await cluster.move_shards(app_name, shards, node, timeout_s=timeout_s, report=report)

    moved = run(work())
    if as_json:
        show_json({"app": app_name, "shards": moved, "node": node})


@shard_app.command("restart")
def shard_restart(
    context: typer.Context, app_name: AppName, shards: ShardRanges, timeout_s: WaitS = 60.0, as_json: Json = False
) -> None:
    """Let shards reconnect where they are, by RESUME; a failed one is tried again.

    Example: sandwich shard restart welcomer 0-7
    """
    from sandwich_coordinator.cli.cluster_access import open_cluster
    from sandwich_coordinator.cli.progress import shown

    report = shown(partial(say, err=as_json))

    async def work() -> list[int]:
        async with open_cluster(context.obj) as cluster:
            return await cluster.restart_shards(app_name, shards, timeout_s=timeout_s, report=report)

    restarted = run(work())
    if as_json:
        show_json({"app": app_name, "shards": restarted})
