"""The `sandwich` command. Exit codes: 0 healthy or done, 1 degraded or refused, 2 cannot tell, 130 interrupted."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer
import yaml

from sandwich_coordinator.apply import ApplyConflict, ApplyRefused, Changes, Sealer, Wanted, diff, write_changes
from sandwich_coordinator.cli import render
from sandwich_coordinator.cli.cache import guild_app, user_app
from sandwich_coordinator.cli.context import CommandError, Connection, take_snapshot
from sandwich_coordinator.cli.dead import dead_app
from sandwich_coordinator.cli.export import exported_cluster
from sandwich_coordinator.cli.groups import group_app, nats_config
from sandwich_coordinator.cli.load import ConfigError, load_config
from sandwich_coordinator.cli.messaging import find_messaging
from sandwich_coordinator.cli.operate import change_state, drain
from sandwich_coordinator.cli.settings import set_app, show_app
from sandwich_coordinator.cli.shards import balance, move_shards, restart_shards
from sandwich_coordinator.cli.tail import TailOptions, tail
from sandwich_coordinator.config import ClusterSettings
from sandwich_coordinator.config_values import check_name
from sandwich_coordinator.sealing import KEY_VARIABLE, ClusterKey, SealingError
from sandwich_coordinator.store.base import StoreError
from sandwich_coordinator.store.etcd import TlsOptions
from sandwich_coordinator.types import AppRecord, NodeState
from sandwich_coordinator.view import ShardKey
from sandwich_sdk._version import __version__

T = TypeVar("T")
WATCH_EVERY_S = 2.0
_UsageError: type[Any] = typer.BadParameter.__mro__[1]  # typer brings click under a name of its own since 0.20
_PLAIN: dict[str, Any] = {"rich_markup_mode": None, "no_args_is_help": True, "add_completion": False}
_HOISTED = ("--etcd", "--cluster", "--etcd-user", "--etcd-password-file", "--etcd-ca", "--etcd-cert", "--etcd-key")

app = typer.Typer(name="sandwich", pretty_exceptions_enable=False, **_PLAIN)
cluster_app = typer.Typer(help="Configure a cluster and see how it is.", **_PLAIN)
node_app = typer.Typer(help="The cluster's machines.", **_PLAIN)
shard_app = typer.Typer(help="The connections to Discord.", **_PLAIN)
apps_app = typer.Typer(help="The applications (bots).", **_PLAIN)
app.add_typer(cluster_app, name="cluster")
app.add_typer(node_app, name="node")
app.add_typer(shard_app, name="shard")
app.add_typer(apps_app, name="app")
app.add_typer(guild_app, name="guild")
app.add_typer(user_app, name="user")
app.add_typer(dead_app, name="dead")
app.add_typer(group_app, name="group")
app.command("nats-config")(nats_config)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AppName = Annotated[str, typer.Argument(metavar="APP", help="The application's name.")]
KeyFile = Annotated[Path | None, typer.Option("--key-file", help=f"The cluster key; else ${KEY_VARIABLE}.")]


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"sandwich {__version__}")
        raise typer.Exit


@app.callback(epilog="The options above may stand anywhere: sandwich cluster status --etcd http://10.0.0.1:2379")
def root(
    context: typer.Context,
    etcd: Annotated[
        str, typer.Option(envvar="SANDWICH_ETCD", help="etcd URLs, comma-separated; any may be down.")
    ] = "http://127.0.0.1:2379",
    cluster: Annotated[str | None, typer.Option(envvar="SANDWICH_CLUSTER", help="Cluster name. [default]")] = None,
    etcd_user: Annotated[str | None, typer.Option(envvar="SANDWICH_ETCD_USER")] = None,
    etcd_password_file: Annotated[Path | None, typer.Option(envvar="SANDWICH_ETCD_PASSWORD_FILE")] = None,
    etcd_ca: Annotated[Path | None, typer.Option(envvar="SANDWICH_ETCD_CA", help="CA to trust.")] = None,
    etcd_cert: Annotated[Path | None, typer.Option(envvar="SANDWICH_ETCD_CERT", help="Client certificate.")] = None,
    etcd_key: Annotated[Path | None, typer.Option(envvar="SANDWICH_ETCD_KEY", help="Its key.")] = None,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
) -> None:
    """Operate a Sandwich cluster: what it runs, how it is, what it receives."""
    if cluster is not None:
        try:
            check_name(cluster)
        except ValueError as error:
            raise CommandError(f"--cluster {error}") from None
    tls = TlsOptions(ca_file=etcd_ca, cert_file=etcd_cert, key_file=etcd_key) if etcd_ca or etcd_cert else None
    context.obj = Connection(
        etcd=etcd, cluster=cluster, user=etcd_user, password_file=etcd_password_file, tls=tls, key_file=None
    )


@cluster_app.command("init")
def cluster_init(
    key_file: Annotated[Path, typer.Option("--key-file", help="Where the new key goes.")] = Path("cluster.key"),
) -> None:
    """Make the cluster key, which seals tokens and passwords in etcd. Never overwrites one.

    Example: sandwich cluster init --key-file /etc/sandwich/cluster.key
    """
    try:
        descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CommandError(f"{key_file} exists already: not overwritten, or what it sealed would be lost", 1) from None
    except OSError as error:
        raise CommandError(f"{key_file} cannot be written: {error.strerror}", 1) from None
    key = ClusterKey.generate()
    with os.fdopen(descriptor, "w") as file:
        file.write(key.to_base64() + "\n")
    typer.echo(f"wrote cluster key {key.key_id} to {key_file}")
    typer.echo(
        f"Copy it to every node and keep a backup. Give it as --key-file {key_file}, or its text as {KEY_VARIABLE}."
    )
    typer.echo(f"Next: sandwich cluster apply -f cluster.yml --key-file {key_file}")


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
    as_json: Json = False,
) -> None:
    """Make the cluster as the file says. Checks everything before it writes anything; repeating it writes nothing.

    Example: sandwich cluster apply -f cluster.yml --dry-run
    """
    connection: Connection = context.obj
    try:
        loaded = load_config(file, os.environ)
    except ConfigError as error:
        raise CommandError(str(error), 1) from None
    name = connection.cluster or loaded.config.cluster
    if name != loaded.config.cluster:
        raise CommandError(f"the file is for cluster {loaded.config.cluster!r}, the option says {name!r}", 1)
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)
    key = None if insecure_plaintext else _with_key_file(connection, key_file).key(os.environ)
    wanted = Wanted(
        config=loaded.config,
        tokens=loaded.tokens,
        nats_password=loaded.nats_password,
        redis_url=loaded.redis_url,
        redis_password=loaded.redis_password,
    )
    changes = _run(_apply(replace(connection, cluster=name), wanted, Sealer(key), prune=prune, dry_run=dry_run))
    for warning in changes.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        _print_json({"changes": list(changes.lines), "warnings": list(changes.warnings), "written": not dry_run})
        return
    for line in changes.lines:
        typer.echo(line)
    done = "would change (dry run: nothing was written)" if dry_run else "applied"
    count = len(changes.writes)
    typer.echo(f"{count} {'key' if count == 1 else 'keys'} {done}" if count else "no changes")


async def _apply(connection: Connection, wanted: Wanted, sealer: Sealer, *, prune: bool, dry_run: bool) -> Changes:
    async with connection.store() as store:
        current = await store.list(connection.keys.prefix)
        try:
            changes = diff(current, wanted, keys=connection.keys, sealer=sealer, prune=prune)
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

    async def run() -> int:
        connection: Connection = context.obj
        async with connection.store() as store:
            while True:
                snapshot = await take_snapshot(store, connection.keys)
                if as_json:
                    _print_json(render.to_json(snapshot))
                else:
                    typer.echo(
                        ("\x1b[2J\x1b[H" if watch and sys.stdout.isatty() else "") + render.status_text(snapshot)
                    )
                if not watch:
                    return 1 if render.serious(snapshot) else 0
                await asyncio.sleep(WATCH_EVERY_S)

    raise typer.Exit(_run(run()))


@cluster_app.command("export")
def cluster_export(context: typer.Context, as_json: Json = False) -> None:
    """Print the stored configuration as a cluster file; secrets are replaced by {env: NAME}."""
    exported = _run(_export(context.obj))
    if as_json:
        _print_json(exported)
    else:
        typer.echo(yaml.safe_dump(exported, sort_keys=False, allow_unicode=True), nl=False)


async def _export(connection: Connection) -> dict[str, Any]:
    async with connection.store() as store:
        item = await store.get(connection.keys.config)
        listing = await store.list(connection.keys.apps)
    if item is None:
        raise CommandError("the cluster is not configured: run sandwich cluster apply -f cluster.yml", 1)
    try:
        settings = ClusterSettings.decode(item.value)
        records = [msgspec.json.decode(kv.value, type=AppRecord) for kv in listing.items]
    except (msgspec.MsgspecError, ValueError) as error:
        raise CommandError(f"the stored configuration cannot be read: {error}", 1) from None
    return exported_cluster(connection.keys.cluster, settings, records)


def _list(context: typer.Context, rows: Callable[[render.Snapshot], Any], text: Callable[[render.Snapshot], str],
          as_json: bool) -> None:  # fmt: skip
    async def run() -> render.Snapshot:
        async with context.obj.store() as store:
            return await take_snapshot(store, context.obj.keys)

    snapshot = _run(run())
    if as_json:
        _print_json(rows(snapshot))
    else:
        typer.echo(text(snapshot))


@node_app.command("list")
def node_list(context: typer.Context, as_json: Json = False) -> None:
    """The nodes with their load."""
    _list(context, render.node_rows, render.nodes_text, as_json)


NodeName = Annotated[str, typer.Argument(metavar="NODE", help="The node's name, as sandwich node list shows it.")]


@node_app.command("cordon")
def node_cordon(context: typer.Context, node: NodeName, as_json: Json = False) -> None:
    """Give a node no new shards; it keeps what it has. Example: sandwich node cordon node-3"""
    _change_state(context, node, "cordoned", as_json)


@node_app.command("uncordon")
def node_uncordon(context: typer.Context, node: NodeName, as_json: Json = False) -> None:
    """Let a cordoned or draining node take shards again. Example: sandwich node uncordon node-3"""
    _change_state(context, node, "ready", as_json)


def _change_state(context: typer.Context, node: str, wanted: NodeState, as_json: bool) -> None:
    async def run() -> None:
        async with context.obj.store() as store:
            edit = await change_state(store, context.obj.keys, node, wanted)
        for note in edit.notes:
            typer.echo(note, err=as_json)

    _run(run())
    if as_json:
        _print_json({"node": node, "state": wanted})


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

    async def run() -> None:
        async with context.obj.store() as store:
            await drain(
                store, context.obj.keys, node, force=force, timeout_s=timeout_s, say=partial(typer.echo, err=as_json)
            )

    _run(run())
    if as_json:
        _print_json({"node": node, "state": "draining", "shards": 0})


@apps_app.command("list")
def app_list(context: typer.Context, as_json: Json = False) -> None:
    """The applications with their shards and session starts."""
    _list(context, render.app_rows, render.apps_text, as_json)


@apps_app.command("show")
def app_show(context: typer.Context, app_name: AppName, as_json: Json = False) -> None:
    """An application's configuration, as cluster.yml has it. Example: sandwich app show welcomer"""
    shown = _run(show_app(context.obj, app_name))
    if as_json:
        _print_json(shown)
    else:
        typer.echo(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), nl=False)


@apps_app.command("set")
def app_set(
    context: typer.Context,
    app_name: AppName,
    changes: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE...", help="Keys as in cluster.yml, values in YAML.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change; write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Change an application's configuration while it runs. `cluster.yml` is not changed: the next apply would undo it.

    What is under events, cache, invites and presence takes effect within seconds, without a reconnect.

    Example: sandwich app set welcomer events.ignore=[TYPING_START] cache.presences=true
    """
    edit = _run(set_app(context.obj, app_name, changes, dry_run=dry_run))
    for warning in edit.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        _print_json({"changes": list(edit.lines), "warnings": list(edit.warnings), "written": not dry_run})
        return
    for line in edit.lines or ("no changes",):
        typer.echo(line)
    if edit.lines:
        typer.echo("would change (dry run: nothing was written)" if dry_run else "changed; see sandwich app list")


@shard_app.command("list")
def shard_list(
    context: typer.Context,
    app_name: Annotated[str | None, typer.Option("--app", help="Only this application.")] = None,
    as_json: Json = False,
) -> None:
    """Where each shard runs and how it is. Example: sandwich shard list --app welcomer"""
    _list(context, lambda s: render.shard_rows(s, app_name), lambda s: render.shards_text(s, app_name), as_json)


ShardRanges = Annotated[str, typer.Argument(metavar="SHARDS", help="One shard or ranges: 3, 0-7,12.")]
WaitS = Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait.")]


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

    async def run() -> list[ShardKey]:
        say = partial(typer.echo, err=as_json)
        async with context.obj.store() as store:
            return await move_shards(store, context.obj.keys, app_name, shards, node, timeout_s=timeout_s, say=say)

    moved = _run(run())
    if as_json:
        _print_json({"app": app_name, "shards": [shard.shard for shard in moved], "node": node})


@shard_app.command("restart")
def shard_restart(
    context: typer.Context, app_name: AppName, shards: ShardRanges, timeout_s: WaitS = 60.0, as_json: Json = False
) -> None:
    """Let shards reconnect where they are, by RESUME; a failed one is tried again.

    Example: sandwich shard restart welcomer 0-7
    """

    async def run() -> list[ShardKey]:
        async with context.obj.store() as store:
            return await restart_shards(
                store, context.obj.keys, app_name, shards, timeout_s=timeout_s, say=partial(typer.echo, err=as_json)
            )

    restarted = _run(run())
    if as_json:
        _print_json({"app": app_name, "shards": [shard.shard for shard in restarted]})


@cluster_app.command("rebalance")
def cluster_rebalance(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would move, and why.")] = False,
    timeout_s: WaitS = 600.0,
    as_json: Json = False,
) -> None:
    """Take away all pins and wait until every shard is where the leader wants it. It balances by itself otherwise."""

    async def run() -> list[dict[str, Any]]:
        async with context.obj.store() as store:
            return await balance(
                store, context.obj.keys, dry_run=dry_run, timeout_s=timeout_s, say=partial(typer.echo, err=as_json)
            )

    found = _run(run())
    if as_json:
        _print_json({"moves": found})


@app.command("tail")
def tail_command(
    context: typer.Context,
    app_name: Annotated[str | None, typer.Option("--app", help="Which application, if there are several.")] = None,
    types: Annotated[list[str] | None, typer.Option("--type", help="Only this event type; may be repeated.")] = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Show events as they are published, from now on. Example: sandwich tail --app welcomer --type MESSAGE_CREATE"""
    _run(_tail(_with_key_file(context.obj, key_file), app_name, frozenset(t.upper() for t in types or ()), as_json))


async def _tail(connection: Connection, app_name: str | None, types: frozenset[str], as_json: bool) -> None:
    messaging = await find_messaging(connection, app_name)
    await tail(messaging, TailOptions(apps=messaging.apps, types=types, as_json=as_json), typer.echo)


def _with_key_file(connection: Connection, key_file: Path | None) -> Connection:
    return replace(connection, key_file=key_file)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(main)


def hoist(arguments: Sequence[str]) -> list[str]:
    """Connection options from anywhere on the command line, moved to its front, where the root command reads them."""
    front: list[str] = []
    rest: list[str] = []
    left = iter(arguments)
    for argument in left:
        if argument == "--":
            return [*front, *rest, "--", *left]
        if argument in _HOISTED:
            front += [argument, *([value] if (value := next(left, None)) is not None else [])]
        elif argument.partition("=")[0] in _HOISTED:
            front.append(argument)
        else:
            rest.append(argument)
    return front + rest


def main() -> None:
    """Entry point: one clear line on stderr for every error, and an exit code that means something."""
    try:
        code = app(args=hoist(sys.argv[1:]), standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except CommandError as error:
        _fail(str(error), error.code)
    except SealingError as error:
        _fail(str(error), 1)
    except StoreError as error:
        _fail(f"the store cannot be asked: {error}", 2)
    except _UsageError as error:
        _fail(error.format_message(), 2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _fail(message: str, code: int) -> None:
    typer.echo(f"sandwich: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
