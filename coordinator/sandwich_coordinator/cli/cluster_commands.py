"""`sandwich cluster`: the commands as help shows them; their work is imported when one runs."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandwich_coordinator.cli.connection import Connection
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.options import KEY_VARIABLE, Json, KeyFile, WaitS, command_group, run, with_key_file
from sandwich_coordinator.cli.output import paint_for, say, show_json, show_json_document, show_painted, show_yaml, warn

if TYPE_CHECKING:
    from sandwich_coordinator.apply import Changes, Sealer, Wanted

WATCH_EVERY_S = 2.0
CLEAR = "\x1b[2J\x1b[H"

cluster_app = command_group("Configure a cluster and see how it is.")


@cluster_app.command("init")
def cluster_init(
    key_file: Annotated[Path, typer.Option("--key-file", help="Where the new key goes.")] = Path("cluster.key"),
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
    say(f"wrote cluster key {key.key_id} to {key_file}")
    say(f"Copy it to every node and keep a backup. Give it as --key-file {key_file}, or its text as {KEY_VARIABLE}.")
    say(f"Next: sandwich cluster apply -f cluster.yml --key-file {key_file}")


@cluster_app.command("apply")
def cluster_apply(
    context: typer.Context,
    file: Annotated[Path, typer.Option("-f", "--file", help="The cluster file.")],
    key_file: KeyFile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change; write nothing.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Remove applications that the file does not name.")] = False,
    insecure_plaintext: Annotated[
        bool, typer.Option("--insecure-plaintext", help="Store secrets unsealed: whoever reads etcd has them.")
    ] = False,
    rekey: Annotated[
        bool, typer.Option("--rekey", help="Seal everything with another key than before; stop the nodes first.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make the cluster as the file says. Checks everything before it writes anything; repeating it writes nothing.

    Example: sandwich cluster apply -f cluster.yml --dry-run
    """
    from dataclasses import replace

    from sandwich_coordinator.apply import Sealer, Wanted
    from sandwich_coordinator.cli.load import ConfigError, load_config

    connection: Connection = context.obj
    try:
        loaded = load_config(file, os.environ)
    except ConfigError as error:
        raise CommandError(str(error).splitlines(), 1) from None
    name = connection.cluster or loaded.config.cluster
    if name != loaded.config.cluster:
        raise CommandError(f"the file is for cluster {loaded.config.cluster!r}, the option says {name!r}", 1)
    for warning in loaded.warnings:
        warn(warning)
    key = None if insecure_plaintext else with_key_file(connection, key_file).key(os.environ)
    wanted = Wanted(
        config=loaded.config,
        tokens=loaded.tokens,
        nats_password=loaded.nats_password,
        redis_url=loaded.redis_url,
        redis_password=loaded.redis_password,
    )
    connection = replace(connection, cluster=name)
    changes = run(_apply(connection, wanted, Sealer(key), prune=prune, rekey=rekey, dry_run=dry_run))
    _show_changes(changes, dry_run=dry_run, as_json=as_json)


def _show_changes(changes: "Changes", *, dry_run: bool, as_json: bool) -> None:
    for warning in changes.warnings:
        warn(warning)
    if as_json:
        show_json({"changes": list(changes.lines), "warnings": list(changes.warnings), "written": not dry_run})
        return
    for line in changes.lines:
        say(line)
    done = "would change (dry run: nothing was written)" if dry_run else "applied"
    count = len(changes.writes)
    say(f"{count} {'key' if count == 1 else 'keys'} {done}" if count else "no changes")


async def _apply(
    connection: Connection, wanted: "Wanted", sealer: "Sealer", *, prune: bool, rekey: bool, dry_run: bool
) -> "Changes":
    import time

    from sandwich_coordinator.apply import ApplyConflict, ApplyRefused, diff, write_changes

    async with connection.store() as store:
        current = await store.list(connection.keys.prefix)
        try:
            changes = diff(
                current, wanted, keys=connection.keys, sealer=sealer, prune=prune, rekey=rekey, now=time.time()
            )
            if not dry_run:
                await write_changes(store, changes.writes)
        except (ApplyRefused, ApplyConflict) as error:
            raise CommandError(str(error), 1) from None
    return changes


@cluster_app.command("status")
def cluster_status(
    context: typer.Context,
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat every 2 s until Ctrl-C.")] = False,
) -> None:
    """Problems first, then nodes and applications. Exit code 0 healthy, 1 degraded, 2 cannot tell."""
    import asyncio

    from sandwich_coordinator.cli import render
    from sandwich_coordinator.operations.health import find_problems
    from sandwich_coordinator.operations.snapshot import take_snapshot
    from sandwich_coordinator.problems import degraded

    paint = paint_for(sys.stdout)
    clear = CLEAR if watch and sys.stdout.isatty() else ""

    async def look() -> int:
        connection: Connection = context.obj
        async with connection.store() as store:
            while True:
                snapshot = await take_snapshot(store, connection.keys)
                if as_json:
                    show_json(render.to_json(snapshot))
                else:
                    show_painted(clear + render.status_text(snapshot, paint))
                if not watch:
                    return 1 if degraded(find_problems(snapshot)) else 0
                await asyncio.sleep(WATCH_EVERY_S)

    raise typer.Exit(run(look()))


@cluster_app.command("export")
def cluster_export(context: typer.Context, key_file: KeyFile = None, as_json: Json = False) -> None:
    """Print the stored configuration as a cluster file; secrets are replaced by {env: NAME}.

    With the cluster key, only if its addresses are those that were applied.
    """
    from sandwich_coordinator.cli.export import export_cluster

    exported = run(export_cluster(with_key_file(context.obj, key_file)))
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
    """Take away all pins and wait until every shard is where the leader wants it. It balances by itself otherwise."""
    from sandwich_coordinator.cli.shards import balance

    async def work() -> list[dict[str, Any]]:
        async with context.obj.store() as store:
            return await balance(
                store, context.obj.keys, dry_run=dry_run, timeout_s=timeout_s, say=partial(say, err=as_json)
            )

    found = run(work())
    if as_json:
        show_json({"moves": found})
