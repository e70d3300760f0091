"""`sandwich cluster`: the commands as help shows them; a command imports its operation when it runs."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from sandwich_coordinator.cli.connection import Connection
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.new_sessions import Yes, ask_before_new_sessions
from sandwich_coordinator.cli.options import KEY_VARIABLE, Json, KeyFile, WaitS, command_group, run, with_key_file
from sandwich_coordinator.cli.output import (
    paint_for,
    say,
    show_changes,
    show_json,
    show_json_document,
    show_painted,
    show_yaml,
    warn,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandwich_coordinator.cli.cluster_access import ClusterAccess, ExportedCluster
    from sandwich_coordinator.operations.configuration_plan import ConfigurationPlan, Wanted
    from sandwich_coordinator.operations.snapshot import Snapshot
    from sandwich_coordinator.rebalance import Move

WATCH_EVERY_S = 2.0
HOME, REST_OF_LINE, REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"

cluster_app = command_group("Configure a cluster and see how it is.")


@cluster_app.command("init")
def cluster_init(
    key_file: Annotated[Path, typer.Option("--key-file", help="Where the new key goes.")] = Path("cluster.key"),
    as_json: Json = False,
) -> None:
    """Make the cluster key, which seals tokens and passwords in etcd. Never overwrites one.

    Example: sandwich cluster init --key-file /etc/sandwich/cluster.key
    """
    from sandwich_coordinator.sealing import ClusterKey

    key = ClusterKey.generate()
    try:
        descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CommandError(f"{key_file} exists already: not overwritten, or what it sealed would be lost", 1) from None
    except OSError as error:
        raise CommandError(f"{key_file} cannot be written: {error.strerror}", 1) from None
    with os.fdopen(descriptor, "w") as file:
        file.write(key.to_base64() + "\n")
    if as_json:
        show_json({"key_id": key.key_id, "key_file": str(key_file)})
        return
    say(f"wrote cluster key {key.key_id} to {key_file}")
    say(f"Copy it to every node and keep a backup. Give it as --key-file {key_file}, or its text as {KEY_VARIABLE}.")
    say(f"Next: sandwich cluster apply -f cluster.yml --key-file {key_file}")


@cluster_app.command("apply")
def cluster_apply(
    context: typer.Context,
    file: Annotated[Path, typer.Option("-f", "--file", help="The cluster file.")],
    key_file: KeyFile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change; write nothing.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Remove applications that the file does not name.")] = False,
    insecure_plaintext: Annotated[
        bool, typer.Option("--insecure-plaintext", help="Store secrets unsealed: whoever reads etcd has them.")
    ] = False,
    rekey: Annotated[
        bool, typer.Option("--rekey", help="Without the old key: seal everything with another; stop the nodes first.")
    ] = False,
    yes: Yes = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also without room for all new shards, and while consumers read what is pruned."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Make the cluster as the file says. Checks everything before it writes anything; repeating it writes nothing.

    A change that needs new sessions (shards, intents, token) shows its cost and asks first. An application that
    consumers read is not pruned.

    Example: sandwich cluster apply -f cluster.yml --dry-run
    """
    import time
    from dataclasses import replace

    from sandwich_coordinator.operations.configuration import apply_configuration
    from sandwich_coordinator.operations.configuration_plan import Sealer

    if context.obj.api is not None:
        raise CommandError("cluster apply needs etcd and the cluster key: it does not work with --api", 1)
    wanted = _read_file(file, context.obj)
    connection = replace(with_key_file(context.obj, key_file), cluster=wanted.config.cluster)
    sealer = Sealer(None if insecure_plaintext else connection.key(os.environ))

    async def work(*, dry_run: bool) -> "ConfigurationPlan":
        async with connection.store() as store:
            return await apply_configuration(
                store, connection.keys, wanted, sealer, now=time.time(), prune=prune, rekey=rekey, dry_run=dry_run
            )

    plan = run(work(dry_run=True))
    if not (force or dry_run):
        run(_check_pruned(plan, connection))
    ask_before_new_sessions(plan.new_groups, yes=yes or dry_run, force=force or dry_run)
    if not dry_run:
        plan = run(work(dry_run=False))
    _show_plan(plan, dry_run=dry_run, as_json=as_json)


async def _check_pruned(plan: "ConfigurationPlan", connection: Connection) -> None:
    """Raise Refused while consumers read an application that --prune would remove, CommandError without NATS."""
    from sandwich_coordinator.cli.messaging import connect, read_messaging
    from sandwich_coordinator.operations.changes import AppRemoved
    from sandwich_coordinator.operations.removal import check_all_unread

    pruned = [change.app for change in plan.changes if isinstance(change, AppRemoved)]
    if not pruned:
        return
    try:
        async with connect(await read_messaging(connection)) as client:
            await check_all_unread(pruned, client)
    except CommandError as error:
        text = f"{error}; whether consumers read {', '.join(pruned)} is not known: --force removes all the same"
        raise CommandError(text, error.code) from None


def _read_file(file: Path, connection: Connection) -> "Wanted":
    """The cluster file with its secrets; its warnings are shown. Raises CommandError (1)."""
    from sandwich_coordinator.cli.load import ConfigError, load_config
    from sandwich_coordinator.operations.configuration_plan import Wanted

    try:
        loaded = load_config(file, os.environ, absence_allowed=True)
    except ConfigError as error:
        raise CommandError(str(error).splitlines(), 1) from None
    name = loaded.config.cluster
    if connection.cluster not in (None, "", name):
        raise CommandError(f"the file is for cluster {name!r}, the option says {connection.cluster!r}", 1)
    for warning in loaded.warnings:
        warn(warning)
    return Wanted(
        config=loaded.config,
        tokens=loaded.tokens,
        nats_password=loaded.nats_password,
        redis_url=loaded.redis_url,
        redis_password=loaded.redis_password,
        login_secret=loaded.login_secret,
        absent=loaded.absent,
    )


def _show_plan(plan: "ConfigurationPlan", *, dry_run: bool, as_json: bool) -> None:
    from sandwich_coordinator.cli.changes import change_lines

    lines = change_lines(plan.changes)
    warnings = [f"application {app} is not in the file and stays; --prune removes it" for app in plan.kept]
    warnings += plan.warnings
    done = "would change (dry run: nothing was written)" if dry_run else "applied"
    count = len(plan.writes)
    summary = f"{count} {'key' if count == 1 else 'keys'} {done}" if count else "no changes"
    show_changes(lines, warnings, summary=summary, written=not dry_run, as_json=as_json)


@cluster_app.command("rekey")
def cluster_rekey(
    context: typer.Context,
    key_file: KeyFile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sealed again; write nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also while a node does not have the new key: it must not restart then.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Seal everything with a new cluster key while nodes run. Give both keys: NEW,OLD. Repeating it goes on.

    Each node must have both keys before. Afterwards each can be restarted with the new one alone.

    Example: sandwich cluster rekey --key-file both.key
    """
    from sandwich_coordinator.operations.rekey import Rekeying, rekey

    if context.obj.api is not None:
        raise CommandError("cluster rekey needs etcd and the cluster key: it does not work with --api", 1)
    connection = with_key_file(context.obj, key_file)
    key = connection.key(os.environ)

    async def work() -> Rekeying:
        async with connection.store() as store:
            return await rekey(store, connection.keys, key, force=force, dry_run=dry_run)

    found = run(work())
    warnings = [f"neither key opens {what}: it stays as it is" for what in found.left]
    done = "would be sealed again (dry run: nothing was written)" if dry_run else "sealed again"
    count = len(found.sealed)
    summary = f"{count} {'record' if count == 1 else 'records'} {done} with cluster key {key.key_ids[0]}"
    if not count:
        what = "what it opens" if found.left else "everything"
        summary = f"{what} is sealed with cluster key {key.key_ids[0]}"
    show_changes(
        [f"~ {what}" for what in found.sealed], warnings, summary=summary, written=not dry_run, as_json=as_json
    )
    if found.left:
        raise typer.Exit(1)


@cluster_app.command("status")
def cluster_status(
    context: typer.Context,
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat every 2 s until Ctrl-C.")] = False,
) -> None:
    """Problems first, then nodes and applications. Exit code 0: healthy, 1: degraded, 2: unknown.

    Example: sandwich cluster status --watch
    """
    from sandwich_coordinator.cli import render
    from sandwich_coordinator.cli.cluster_access import open_cluster
    from sandwich_coordinator.operations.health import find_problems
    from sandwich_coordinator.problems import degraded

    paint = paint_for(sys.stdout)

    def show(snapshot: "Snapshot", *, over: bool) -> None:
        if as_json:
            show_json(render.to_json(snapshot))
        else:
            text = render.status_text(snapshot, paint)
            show_painted(_in_place(text) if over else text)

    async def look() -> int:
        async with open_cluster(context.obj) as cluster:
            if watch:
                await _watch(cluster, show)
            snapshot = await cluster.snapshot()
            show(snapshot, over=False)
            return 1 if degraded(find_problems(snapshot)) else 0

    raise typer.Exit(run(look()))


def _in_place(text: str) -> str:
    """The text over the one before, line by line: a screen that is cleared first would flicker."""
    return HOME + text.replace("\n", f"{REST_OF_LINE}\n") + REST_OF_LINE + REST_OF_SCREEN


async def _watch(cluster: "ClusterAccess", show: "Callable[..., None]") -> NoReturn:
    """Show the status again and again. While the cluster cannot be asked, say so and go on."""
    import asyncio

    from sandwich_coordinator.operations.errors import OperationError
    from sandwich_coordinator.store.base import StoreError

    failure = ""
    while True:
        try:
            show(await cluster.snapshot(), over=sys.stdout.isatty())
            failure = ""
        except (OperationError, StoreError) as error:
            if str(error) != failure:
                failure = str(error)
                warn(f"the cluster cannot be asked, trying again: {failure}")
        await asyncio.sleep(WATCH_EVERY_S)


@cluster_app.command("export")
def cluster_export(context: typer.Context, key_file: KeyFile = None, as_json: Json = False) -> None:
    """Print the stored configuration as a cluster file; secrets are replaced by {env: NAME}.

    With the cluster key, only if its addresses are those that were applied.

    Example: sandwich cluster export > cluster.yml
    """
    from sandwich_coordinator.cli.cluster_access import open_cluster

    connection = with_key_file(context.obj, key_file)
    has_key = connection.api is None and (key_file is not None or os.environ.get(KEY_VARIABLE))
    key = connection.key(os.environ) if has_key else None

    async def work() -> "ExportedCluster":
        async with open_cluster(connection) as cluster:
            return await cluster.export(key)

    found = run(work())
    if not found.is_checked:
        warn("without the cluster key it is not checked who wrote the addresses in this")
    exported = found.file
    if as_json:
        show_json_document(exported)
    else:
        show_yaml(exported)


@cluster_app.command("rebalance")
def cluster_rebalance(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would move, and why.")] = False,
    timeout_s: WaitS = 600.0,
    as_json: Json = False,
) -> None:
    """Remove all pins and wait until every shard is where the leader wants it. It balances by itself otherwise.

    Example: sandwich cluster rebalance --dry-run
    """
    from sandwich_coordinator.cli.cluster_access import open_cluster
    from sandwich_coordinator.cli.progress import shown
    from sandwich_coordinator.operations.rows import move_row

    report = shown(partial(say, err=as_json))

    async def work() -> "list[Move]":
        async with open_cluster(context.obj) as cluster:
            if dry_run:
                return await cluster.planned_moves(report=report)
            return await cluster.restore_balance(timeout_s=timeout_s, report=report)

    moves = run(work())
    if as_json:
        show_json({"moves": [move_row(move) for move in moves]})
