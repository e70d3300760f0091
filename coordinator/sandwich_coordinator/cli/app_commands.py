"""`sandwich app`: the commands as help shows them; a command imports its operation when it runs."""

from typing import TYPE_CHECKING, Annotated

import typer

from sandwich_coordinator.cli.node_commands import list_rows
from sandwich_coordinator.cli.options import AppName, Json, command_group, run
from sandwich_coordinator.cli.output import show_changes, show_json_document, show_yaml

if TYPE_CHECKING:
    from sandwich_coordinator.operations.applications import AppPlan
    from sandwich_coordinator.types import AppRecord

apps_app = command_group("The applications (bots).")


@apps_app.command("list")
def app_list(context: typer.Context, as_json: Json = False) -> None:
    """The applications with their shards and session starts. Example: sandwich app list"""
    from sandwich_coordinator.cli import render

    list_rows(context, render.app_rows, render.apps_text, as_json)


@apps_app.command("show")
def app_show(context: typer.Context, app_name: AppName, as_json: Json = False) -> None:
    """An application's configuration, as cluster.yml has it. Example: sandwich app show welcomer"""
    from sandwich_coordinator.operations.applications import read_app
    from sandwich_coordinator.operations.export import exported_app

    async def work() -> "AppRecord":
        async with context.obj.store() as store:
            return await read_app(store, context.obj.keys, app_name)

    shown = exported_app(run(work()))
    if as_json:
        show_json_document(shown)
    else:
        show_yaml(shown)


@apps_app.command("set")
def app_set(
    context: typer.Context,
    app_name: AppName,
    changes: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE...", help="Keys as in cluster.yml, values in YAML.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change; write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Change an application's configuration while it runs. `cluster.yml` is not changed: the next apply would undo it.

    What is under events, cache, invites and presence takes effect within seconds, without a reconnect.

    Example: sandwich app set welcomer events.ignore=[TYPING_START] cache.presences=true
    """
    from sandwich_coordinator.cli.changes import change_lines, parse_changes
    from sandwich_coordinator.operations.applications import change_app

    values = parse_changes(changes)

    async def work() -> "AppPlan":
        async with context.obj.store() as store:
            return await change_app(store, context.obj.keys, app_name, values, dry_run=dry_run)

    plan = run(work())
    lines = change_lines(plan.changes)
    warnings = [f"{warning.path}: {warning.text}" for warning in plan.warnings]
    done = "would change (dry run: nothing was written)" if dry_run else "changed; see sandwich app list"
    summary = done if lines else "no changes"
    show_changes(lines, warnings, summary=summary, written=not dry_run, as_json=as_json)
