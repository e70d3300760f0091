"""`sandwich app`: the commands as help shows them; a command imports its operation when it runs."""

import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandwich_coordinator.cli.connection import Connection
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.new_sessions import Force, Yes, ask_before_new_sessions
from sandwich_coordinator.cli.node_commands import list_rows
from sandwich_coordinator.cli.options import AppName, Json, KeyFile, WaitS, about, command_group, run, with_key_file
from sandwich_coordinator.cli.output import say, show, show_changes, show_json, show_json_document, show_yaml, warn

if TYPE_CHECKING:
    from sandwich_coordinator.cli.app_access import ChangedApp, ShownApp
    from sandwich_coordinator.operations.applications import AddedApp, NewToken
    from sandwich_coordinator.operations.pausing import ResumedShards
    from sandwich_coordinator.operations.removal import RemovalChoice

apps_app = command_group("The applications (bots).")

TokenEnv = Annotated[
    str | None, typer.Option("--token-env", metavar="NAME", help="The environment variable that has the token.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="PATH", help="The file with the token; -: a pipe, or asked for without echo."),
]
NoCheck = Annotated[bool, typer.Option("--no-check", help="Store the token without asking Discord about it.")]
Plaintext = Annotated[
    bool, typer.Option("--insecure-plaintext", help="For a cluster without a key: store the token unsealed.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change; write nothing.")]


@apps_app.command("list")
def app_list(context: typer.Context, as_json: Json = False) -> None:
    """The applications with their shards and session starts. Example: sandwich app list"""
    from sandwich_coordinator.cli import render

    list_rows(context, render.app_rows, render.apps_text, as_json)


@apps_app.command("show")
def app_show(
    context: typer.Context,
    app_name: AppName,
    everything: Annotated[
        bool, typer.Option("--all", help="Every key with the value in effect; those with their default are marked.")
    ] = False,
    as_json: Json = False,
) -> None:
    """An application's configuration, as cluster.yml has it. Example: sandwich app show welcomer --all"""
    from sandwich_coordinator.cli.app_access import open_apps

    async def work() -> "ShownApp":
        async with open_apps(context.obj) as apps:
            return await apps.show(app_name)

    shown = run(work())
    if everything:
        from sandwich_coordinator.cli.app_text import effective_text

        if as_json:
            show_json({"values": shown.effective.values, "defaults": list(shown.effective.defaults)})
        else:
            show(effective_text(shown.effective))
    elif as_json:
        show_json_document(shown.exported)
    else:
        show_yaml(shown.exported)


@apps_app.command("add")
def app_add(
    context: typer.Context,
    app_name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="a-z, 0-9, _ and -; part of the subjects' names.", callback=about("app")),
    ],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="More keys as in cluster.yml, values in YAML.")
    ] = None,
    token_env: TokenEnv = None,
    token_file: TokenFile = None,
    intents: Annotated[
        str | None, typer.Option("--intents", help="Names with commas, such as GUILDS,GUILD_MESSAGES; or one integer.")
    ] = None,
    shards: Annotated[str | None, typer.Option("--shards", help="auto, or a number. [auto]")] = None,
    ids: Annotated[str | None, typer.Option("--ids", help="Run only these shards: 0-4,6-7.")] = None,
    file: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="A file with the keys under apps.NAME in cluster.yml.")
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Do not start it yet: sandwich app resume does.")] = False,
    no_check: NoCheck = False,
    key_file: KeyFile = None,
    insecure_plaintext: Plaintext = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Add a bot from options, a file, or by questions on a terminal. Its token is tested against Discord and sealed.

    The token comes from --token-env, --token-file, the file, a pipe, or is asked for without echo; never from an
    argument. `cluster.yml` is not changed: apply keeps an application that the file does not name.

    Example: sandwich app add welcomer --token-file token.txt --intents GUILDS,GUILD_MESSAGES --shards auto
    """
    from sandwich_coordinator.cli.app_access import open_apps
    from sandwich_coordinator.cli.app_text import added_json, bot_lines
    from sandwich_coordinator.cli.new_app import read_new_app
    from sandwich_coordinator.operations.applications import NewToken

    connection = with_key_file(context.obj, key_file)
    key = connection.sealing_key(os.environ, plaintext=insecure_plaintext)
    given = read_new_app(
        app_name,
        file=file,
        changes=changes or (),
        options={"intents": intents, "shards": shards, "ids": ids, "paused": paused or None},
        token_from=(token_env, token_file),
        env=os.environ,
    )

    async def work() -> "AddedApp":
        async with open_apps(connection) as apps:
            new = NewToken(given.token, key, test=not no_check)
            return await apps.add(app_name, given.config, new, dry_run=dry_run)

    added = run(work())
    warnings = [f"{warning.path}: {warning.text}" for warning in added.warnings]
    for warning in (*given.warnings, *warnings):
        warn(warning)
    if as_json:
        show_json({**added_json(added), "warnings": warnings, "written": not dry_run})
        return
    for line in bot_lines(added.bot):
        say(line)
    if dry_run:
        say(f"{app_name} would be added (dry run: nothing was written)")
    else:
        say(f"{app_name} is added{' and paused' if added.record.paused else ''}; see sandwich app list")


@apps_app.command("set")
def app_set(
    context: typer.Context,
    app_name: AppName,
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Keys as in cluster.yml, values in YAML.")
    ] = None,
    token_env: TokenEnv = None,
    token_file: TokenFile = None,
    no_check: NoCheck = False,
    key_file: KeyFile = None,
    insecure_plaintext: Plaintext = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Change an application's configuration while it runs. `cluster.yml` is not changed: the next apply would undo it.

    What is under events, cache, invites and presence takes effect within seconds, without a reconnect. A new token
    (--token-env, --token-file) is tested against Discord and sealed. A change that needs new sessions (shards, intents,
    token) shows its cost and asks first.

    Example: sandwich app set welcomer events.ignore=[TYPING_START] cache.presences=true
    """
    from dataclasses import replace

    from sandwich_coordinator.cli.app_access import open_apps
    from sandwich_coordinator.cli.app_text import bot_lines
    from sandwich_coordinator.cli.changes import change_lines, parse_changes

    values = parse_changes(changes or ())
    connection = with_key_file(context.obj, key_file)
    new = _new_token(connection, app_name, (token_env, token_file), plaintext=insecure_plaintext, test=not no_check)
    if new is None and not values:
        raise CommandError("say what changes: KEY=VALUE, --token-env or --token-file")

    async def work(new: "NewToken | None", *, dry_run: bool, revision: int | None = None) -> "ChangedApp":
        async with open_apps(connection) as apps:
            return await apps.change(app_name, values, new, dry_run=dry_run, revision=revision)

    plan = run(work(new, dry_run=True))
    ask_before_new_sessions(
        [plan.new_group] if plan.new_group is not None else [], yes=yes or dry_run, force=force or dry_run
    )
    if not dry_run:
        tested = replace(new, test=False) if new is not None else None
        run(work(tested, dry_run=False, revision=plan.revision))
    lines = change_lines(plan.changes)
    warnings = [f"{warning.path}: {warning.text}" for warning in plan.warnings]
    done = "would change (dry run: nothing was written)" if dry_run else "changed; see sandwich app list"
    summary = done if lines else "no changes"
    if not as_json:
        for line in bot_lines(plan.bot):
            say(line)
    show_changes(lines, warnings, summary=summary, written=not dry_run, as_json=as_json)


def _new_token(
    connection: Connection, app: str, token_from: tuple[str | None, Path | None], *, plaintext: bool, test: bool
) -> "NewToken | None":
    """The token that --token-env or --token-file names; None without them."""
    from sandwich_coordinator.cli.token_input import read_token
    from sandwich_coordinator.operations.applications import NewToken

    if token_from == (None, None):
        return None
    key = connection.sealing_key(os.environ, plaintext=plaintext)
    return NewToken(read_token(*token_from, f"New token of {app}", os.environ), key, test=test)


@apps_app.command("pause")
def app_pause(context: typer.Context, app_name: AppName, timeout_s: WaitS = 60.0, as_json: Json = False) -> None:
    """Close an application's shards until it is resumed.

    Their sessions are kept, and the command waits until they are closed. Discord keeps a session that is not connected
    only for minutes, and its events only up to a limit. Consumers keep what is in the stream and get nothing new. An
    apply does not resume it. Paused already: nothing is changed.

    Example: sandwich app pause welcomer
    """
    from sandwich_coordinator.cli.cluster_access import open_cluster
    from sandwich_coordinator.cli.progress import shown

    report = shown(partial(say, err=as_json))

    async def work() -> float:
        async with open_cluster(context.obj) as cluster:
            return await cluster.pause_app(app_name, now=time.time(), timeout_s=timeout_s, report=report)

    since = run(work())
    if as_json:
        show_json({"app": app_name, "paused_at": since})


@apps_app.command("resume")
def app_resume(context: typer.Context, app_name: AppName, timeout_s: WaitS = 600.0, as_json: Json = False) -> None:
    """Start the shards of a paused application.

    By RESUME where Discord still has the session, else with a session start. Waits until all are live. Exit code 1: a
    shard failed, or not all are live in time; they go on. A `paused: true` in cluster.yml pauses it again with the next
    apply.

    Example: sandwich app resume welcomer
    """
    from sandwich_coordinator.cli.cluster_access import open_cluster
    from sandwich_coordinator.cli.progress import counted, shown

    report = shown(partial(say, err=as_json))

    async def work() -> "ResumedShards":
        async with open_cluster(context.obj) as cluster:
            return await cluster.resume_app(app_name, now=time.time(), timeout_s=timeout_s, report=report)

    done = run(work())
    if as_json:
        show_json({"app": app_name, "resumed": done.resumed, "identified": done.identified})
    elif done.resumed or done.identified:
        say(f"{counted(done.resumed, 'session')} continued, {counted(done.identified, 'new session')}")


@apps_app.command("remove")
def app_remove(
    context: typer.Context,
    app_name: AppName,
    yes: Annotated[
        str | None, typer.Option("--yes", metavar="NAME", help="The application's name again, instead of typing it.")
    ] = None,
    keep_cache: Annotated[
        bool, typer.Option("--keep-cache/--delete-cache", help="Whether its guilds stay in Redis.")
    ] = False,
    delete_stream: Annotated[
        bool,
        typer.Option(
            "--delete-stream/--keep-stream",
            help="Whether its events and dead letters go now, or when they are too old.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also while consumers read it, or when NATS does not answer.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go; remove nothing.")] = False,
    timeout_s: WaitS = 120.0,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Remove an application, and what it has.

    Its shards close, then its configuration and its guilds in the cache go. Shows what goes and has the name typed. In
    a shared namespace other applications keep their guilds. Refused while consumers read it. After Ctrl-C or a timeout
    (exit code 1), the same command goes on, as it was begun.

    Example: sandwich app remove welcomer --yes welcomer --delete-stream
    """
    from sandwich_coordinator.cli.progress import shown
    from sandwich_coordinator.cli.remove_app import carry_out, confirm, footprint_lines, look_at
    from sandwich_coordinator.operations.removal import RemovalChoice, check_unread

    connection = with_key_file(context.obj, key_file)
    wanted = RemovalChoice(keep_cache=keep_cache, delete_stream=delete_stream)
    report = shown(partial(say, err=as_json))

    async def look() -> "RemovalChoice":
        found = await look_at(connection, app_name, warn, force=force)
        if found is None:
            return wanted
        choice = found.stored or wanted
        for line in footprint_lines(found, choice):
            say(line, err=as_json)
        if found.stored is None and not force:
            check_unread(app_name, found.stream)
        return choice

    async def remove() -> "RemovalChoice":
        return await carry_out(connection, app_name, wanted, timeout_s=timeout_s, report=report, force=force)

    choice = run(look())
    if not dry_run:
        # Between two connections: a question may wait for long.
        confirm(app_name, yes)
    done = choice if dry_run else run(remove())
    if as_json:
        kept = {"kept_cache": done.keep_cache, "deleted_stream": done.delete_stream}
        show_json({"app": app_name, "removed": not dry_run, **kept})
    elif dry_run:
        say("dry run: nothing was removed")
