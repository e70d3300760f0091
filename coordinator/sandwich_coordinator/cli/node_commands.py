"""`sandwich node` and the tables of nodes, applications and shards; a command imports its operation when it runs."""

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandwich_coordinator.cli.options import Json, NodeName, command_group, run
from sandwich_coordinator.cli.output import paint_for, say, show_json, show_painted
from sandwich_coordinator.cli.paint import Paint

if TYPE_CHECKING:
    from sandwich_coordinator.operations.snapshot import Snapshot

node_app = command_group("The cluster's machines.")


def list_rows(
    context: typer.Context,
    rows: Callable[["Snapshot"], Any],
    text: Callable[["Snapshot", Paint], str],
    as_json: bool,
    check: Callable[["Snapshot"], None] | None = None,
) -> None:
    """Show a table of the cluster as it is now. `check` raises CommandError when it cannot be shown."""
    from sandwich_coordinator.cli.cluster_access import open_cluster

    async def look() -> "Snapshot":
        async with open_cluster(context.obj) as cluster:
            return await cluster.snapshot()

    snapshot = run(look())
    if check is not None:
        check(snapshot)
    if as_json:
        show_json(rows(snapshot))
    else:
        show_painted(text(snapshot, paint_for(sys.stdout)))


@node_app.command("list")
def node_list(context: typer.Context, as_json: Json = False) -> None:
    """The nodes with their load. Example: sandwich node list"""
    from sandwich_coordinator.cli import render

    list_rows(context, render.node_rows, render.nodes_text, as_json)


@node_app.command("cordon")
def node_cordon(context: typer.Context, node: NodeName, as_json: Json = False) -> None:
    """Give a node no new shards; it keeps what it has. Example: sandwich node cordon node-3"""
    _change_state(context, node, "cordoned", as_json)


@node_app.command("uncordon")
def node_uncordon(context: typer.Context, node: NodeName, as_json: Json = False) -> None:
    """Let a cordoned or draining node take shards again. Example: sandwich node uncordon node-3"""
    _change_state(context, node, "ready", as_json)


@node_app.command("forget")
def node_forget(context: typer.Context, node: NodeName, as_json: Json = False) -> None:
    """Stop showing a node that is gone and will not come back. Example: sandwich node forget node-3"""
    from sandwich_coordinator.cli.cluster_access import open_cluster

    async def work() -> None:
        async with open_cluster(context.obj) as cluster:
            await cluster.forget(node)

    run(work())
    say(f"node {node} is forgotten", err=as_json)
    if as_json:
        show_json({"node": node, "state": "forgotten"})


def _change_state(context: typer.Context, node: str, wanted: Any, as_json: bool) -> None:
    from sandwich_coordinator.cli.cluster_access import open_cluster
    from sandwich_coordinator.cli.progress import shown

    async def work() -> None:
        async with open_cluster(context.obj) as cluster:
            await cluster.change_state(node, wanted, report=shown(partial(say, err=as_json)))

    run(work())
    if as_json:
        show_json({"node": node, "state": wanted})


@node_app.command("drain")
def node_drain(
    context: typer.Context,
    node: NodeName,
    force: Annotated[bool, typer.Option("--force", help="Also when no other node could take its shards.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait until it is empty.")] = 600.0,
    as_json: Json = False,
) -> None:
    """Move a node's shards to the others, sessions kept, and wait until it has none. Exit code 1: not drained.

    The node stays draining, after Ctrl-C and a timeout too, until it is uncordoned or its process is restarted.
    Example: sandwich node drain node-3 --timeout 120
    """
    from sandwich_coordinator.cli.cluster_access import open_cluster
    from sandwich_coordinator.cli.progress import shown

    async def work() -> None:
        async with open_cluster(context.obj) as cluster:
            report = shown(partial(say, err=as_json))
            await cluster.drain(node, force=force, timeout_s=timeout_s, report=report)

    run(work())
    if as_json:
        show_json({"node": node, "state": "draining", "shards": 0})
