"""`sandwich app scale` and `restart`: as help shows them; a command imports its operation when it runs."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.new_sessions import Force, Yes, ask_before_new_sessions, show_costs
from sandwich_coordinator.cli.options import AppName, Json, WaitS, run
from sandwich_coordinator.cli.output import say, show_json, warn

if TYPE_CHECKING:
    from sandwich_coordinator.cli.app_access import NewGroup, PlannedGroup
    from sandwich_coordinator.cli.connection import Connection

OnlyPlan = Annotated[bool, typer.Option("--plan", help="Show what it costs; write nothing.")]


def app_scale(
    context: typer.Context,
    app_name: AppName,
    shards: Annotated[str | None, typer.Option("--shards", metavar="N|auto", help="The new shard count.")] = None,
    ids: Annotated[str | None, typer.Option("--ids", help="Only these run in this cluster: 0-31,40.")] = None,
    plan: OnlyPlan = False,
    accept: Annotated[bool, typer.Option("--accept", help="Take the count that the cluster proposes.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Take a change back that has not switched yet.")] = False,
    yes: Yes = False,
    force: Force = False,
    timeout_s: WaitS = 3600.0,
    as_json: Json = False,
) -> None:
    """Run the application with another shard count. The present shards serve until the new ones are ready.

    Consumers get every event once and in order. cluster.yml is not changed: change it too, or the next apply undoes it.

    Example: sandwich app scale welcomer --shards 64 --plan
    """
    from sandwich_coordinator.cli.app_access import NewCount, ProposedCount
    from sandwich_coordinator.config import SHARDS_MAX
    from sandwich_coordinator.operations.errors import Invalid
    from sandwich_coordinator.operations.scaling import COUNT_RANGE

    connection: Connection = context.obj
    if accept and (shards is not None or ids is not None or cancel):
        raise CommandError("--accept takes the proposed count: --shards, --ids and --cancel do not go with it", 2)
    if cancel:
        if shards is not None or ids is not None or plan:
            raise CommandError("--cancel takes the change back that is under way: give no other option with it", 2)
        _cancel(connection, app_name, as_json)
        return
    if accept:
        _carry_out(
            connection,
            app_name,
            ProposedCount(),
            only_plan=plan,
            yes=yes,
            force=force,
            timeout_s=timeout_s,
            as_json=as_json,
        )
        return
    if shards is None:
        raise CommandError("say how many: --shards 64, --shards auto, or --accept; or --cancel", 2)
    count: Any = shards
    if shards != "auto":
        if not (shards.isascii() and shards.isdecimal()) or len(shards) > 9:
            raise CommandError(f"--shards {shards!r}: a number, or auto", 2)
        count = int(shards)
        if not 1 <= count <= SHARDS_MAX:
            raise Invalid(f"--shards {count}: {COUNT_RANGE}")
    _carry_out(
        connection,
        app_name,
        NewCount(count, ids),
        only_plan=plan,
        yes=yes,
        force=force,
        timeout_s=timeout_s,
        as_json=as_json,
    )


def app_restart(
    context: typer.Context,
    app_name: AppName,
    hard: Annotated[bool, typer.Option("--hard", help="End the present sessions first: events are lost.")] = False,
    rolling: Annotated[bool, typer.Option("--rolling", help="Beside the present sessions: the default.")] = False,
    shards: Annotated[
        str | None, typer.Option("--shards", help="Only reconnect these (0-7,12), with their sessions kept.")
    ] = None,
    plan: OnlyPlan = False,
    yes: Yes = False,
    force: Force = False,
    timeout_s: WaitS = 3600.0,
    as_json: Json = False,
) -> None:
    """Give the application new sessions without losing an event. It costs a session start for every shard.

    With --shards, these shards reconnect where they are, by RESUME: no session start is spent.

    Example: sandwich app restart welcomer --plan
    """
    from sandwich_coordinator.cli.app_access import NewSessions

    connection: Connection = context.obj
    if hard and rolling:
        raise CommandError("--hard and --rolling exclude each other", 2)
    if shards is not None:
        if hard or rolling or plan:
            raise CommandError("--shards reconnects by RESUME: --hard, --rolling and --plan do not go with it", 2)
        from sandwich_coordinator.cli.shard_commands import shard_restart

        shard_restart(context, app_name, shards, timeout_s, as_json)
        return
    _carry_out(
        connection,
        app_name,
        NewSessions(hard),
        only_plan=plan,
        yes=yes,
        force=force,
        timeout_s=timeout_s,
        as_json=as_json,
    )


def _cancel(connection: "Connection", app_name: str, as_json: bool) -> None:
    from sandwich_coordinator.cli.app_access import open_apps

    async def work() -> bool:
        async with open_apps(connection) as apps:
            return await apps.cancel_group(app_name)

    done = run(work())
    if as_json:
        show_json({"app": app_name, "cancelled": done})
    else:
        say(f"{app_name}: taken back; the present shards serve as before" if done else f"{app_name}: nothing to cancel")


def _carry_out(
    connection: "Connection",
    app_name: str,
    wanted: "NewGroup",
    *,
    only_plan: bool,
    yes: bool,
    force: bool,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Show the plan, ask, store it, and wait."""
    from sandwich_coordinator.cli.app_access import open_apps
    from sandwich_coordinator.cli.progress import shown
    from sandwich_coordinator.operations.rows import plan_row

    async def look() -> "PlannedGroup":
        async with open_apps(connection) as apps:
            return await apps.plan_group(app_name, wanted)

    request = run(look())
    report_line = partial(say, err=as_json)
    for text in request.warnings:
        warn(text)
    plans = [request.plan] if request.plan is not None else []
    if only_plan:
        show_costs(plans, err=as_json)
        if as_json:
            show_json({"plan": plan_row(request.plan) if request.plan is not None else None, "written": False})
        elif request.plan is None:
            say(f"{app_name}: no new sessions are needed")
        return
    ask_before_new_sessions(plans, yes=yes, force=force)

    async def work() -> float:
        # Another connection: a question may wait for long.
        async with open_apps(connection) as apps:
            return await apps.make_group(app_name, request, timeout_s=timeout_s, report=shown(report_line))

    took_s = run(work())
    if as_json:
        row = plan_row(request.plan) if request.plan is not None else None
        show_json({"plan": row, "written": True, "took_s": round(took_s, 1)})
