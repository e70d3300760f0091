"""The `sandwich` command. Exit codes: 0 healthy or done, 1 degraded or refused, 2 cannot say, 130 interrupted.

Imports are light here and in the `*_commands` modules: help, `--version` and completion wait for all of them. A
command imports its operation when it runs. Errors become exit codes in `main` and nowhere else.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandwich_coordinator.cli.access_commands import audit_command, token_app
from sandwich_coordinator.cli.app_commands import apps_app
from sandwich_coordinator.cli.cache import guild_app, user_app
from sandwich_coordinator.cli.cluster_commands import cluster_app
from sandwich_coordinator.cli.connection import Connection
from sandwich_coordinator.cli.dead import dead_app
from sandwich_coordinator.cli.errors import EXIT_CANNOT_SAY, EXIT_REFUSED, CommandError, command_error
from sandwich_coordinator.cli.group_commands import group_app, nats_config
from sandwich_coordinator.cli.node_commands import node_app
from sandwich_coordinator.cli.options import HelpGroup, Json, KeyFile, run, with_key_file
from sandwich_coordinator.cli.output import fail, show_json_error, warn
from sandwich_coordinator.cli.scale_commands import app_restart, app_scale
from sandwich_coordinator.cli.shard_commands import shard_app
from sandwich_coordinator.cli.webhook_commands import webhook_app
from sandwich_coordinator.operations.errors import OperationError
from sandwich_sdk._version import __version__

if TYPE_CHECKING:
    from sandwich_coordinator.cli.remote import ApiAddress

_UsageError: type[Any] = typer.BadParameter.__mro__[1]  # typer brings click under a name of its own since 0.20
_ERROR_CODES = {1: "refused", 2: "unavailable"}
_OF_ETCD = ("--etcd", "--cluster", "--etcd-user", "--etcd-password-file", "--etcd-ca", "--etcd-cert", "--etcd-key")
_HOISTED = (*_OF_ETCD, "--api", "--api-token-file", "--api-ca")

COMMAND_WORDS_MAX = 3
"""Such as `app set welcomer`: what follows may be a value."""
COMMAND_WORD_MAX = 64

app = typer.Typer(name="sandwich", cls=HelpGroup, rich_markup_mode=None, pretty_exceptions_enable=False)
app.add_typer(cluster_app, name="cluster")
app.add_typer(node_app, name="node")
app.add_typer(shard_app, name="shard")
app.add_typer(apps_app, name="app")
app.add_typer(guild_app, name="guild")
app.add_typer(user_app, name="user")
app.add_typer(dead_app, name="dead")
app.add_typer(group_app, name="group")
app.add_typer(webhook_app, name="webhook")
app.add_typer(token_app, name="token")
app.command("nats-config")(nats_config)
app.command("audit")(audit_command)
apps_app.command("scale")(app_scale)
apps_app.command("restart")(app_restart)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"sandwich {__version__}")
        raise typer.Exit


@app.callback(epilog="The options above may be anywhere: sandwich cluster status --etcd http://10.0.0.1:2379")
def root(
    context: typer.Context,
    etcd: Annotated[
        str, typer.Option(envvar="SANDWICH_ETCD", help="etcd URLs, comma-separated; any may be down.")
    ] = "http://127.0.0.1:2379",
    cluster: Annotated[str | None, typer.Option(envvar="SANDWICH_CLUSTER", help="Cluster name. [default]")] = None,
    etcd_user: Annotated[str | None, typer.Option(envvar="SANDWICH_ETCD_USER")] = None,
    etcd_password_file: Annotated[
        Path | None, typer.Option(envvar="SANDWICH_ETCD_PASSWORD_FILE", readable=False)
    ] = None,
    etcd_ca: Annotated[
        Path | None, typer.Option(envvar="SANDWICH_ETCD_CA", readable=False, help="CA to trust.")
    ] = None,
    etcd_cert: Annotated[
        Path | None, typer.Option(envvar="SANDWICH_ETCD_CERT", readable=False, help="Client certificate.")
    ] = None,
    etcd_key: Annotated[Path | None, typer.Option(envvar="SANDWICH_ETCD_KEY", readable=False, help="Its key.")] = None,
    api: Annotated[
        str | None,
        typer.Option(
            "--api", metavar="URL", envvar="SANDWICH_API", help="A node's HTTP API, in place of etcd: http://HOST:5469."
        ),
    ] = None,
    api_token_file: Annotated[
        Path | None,
        typer.Option(envvar="SANDWICH_API_TOKEN_FILE", help="File with the API token; else $SANDWICH_API_TOKEN."),
    ] = None,
    api_ca: Annotated[Path | None, typer.Option(envvar="SANDWICH_API_CA", help="CA to trust for https.")] = None,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
) -> None:
    """Operate a Sandwich cluster: what it runs, how it is, what it receives."""
    if cluster is not None:
        from sandwich_coordinator.config_values import check_name

        try:
            check_name(cluster)
        except ValueError as error:
            raise CommandError(f"--cluster {error}") from None
    context.obj = Connection(
        etcd=etcd,
        cluster=cluster,
        user=etcd_user,
        password_file=etcd_password_file,
        ca=etcd_ca,
        cert=etcd_cert,
        cert_key=etcd_key,
        api=_api(context, api, api_token_file, api_ca),
        command=command_words(hoist(sys.argv[1:])),
    )


def _api(context: typer.Context, url: str | None, token_file: Path | None, ca: Path | None) -> "ApiAddress | None":
    """The API's address. Raises CommandError when the command line has it beside etcd's."""
    if url is None:
        return None
    given = [name for name in ("etcd", "cluster") if str(context.get_parameter_source(name)).endswith("COMMANDLINE")]
    if given:
        raise CommandError(f"--{given[0]} and --api exclude each other: the node of the API knows its etcd")
    from sandwich_coordinator.cli.remote import api_address

    return api_address(url, token_file, ca)


def _event_types(incomplete: str) -> list[str]:
    from sandwich_coordinator.event_names import DOCUMENTED

    return sorted(name for name in DOCUMENTED if name.startswith(incomplete.upper()))


@app.command("tail")
def tail_command(
    context: typer.Context,
    app_name: Annotated[str | None, typer.Option("--app", help="Which application, if there are several.")] = None,
    types: Annotated[
        list[str] | None,
        typer.Option("--type", help="Only this event type; may be repeated.", autocompletion=_event_types),
    ] = None,
    guild: Annotated[str | None, typer.Option("--guild", metavar="ID", help="Only events of this guild.")] = None,
    channel: Annotated[str | None, typer.Option("--channel", metavar="ID", help="Only events of this channel.")] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="ID", help="Only events by or about this user.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="Only events whose text has this, in any case.")] = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Show events as they are published, from now on, one line each. With --json, the whole events.

    Example: sandwich tail --app welcomer --type MESSAGE_CREATE --text hello
    """
    from sandwich_coordinator.cli import tail
    from sandwich_coordinator.cli.messaging import find_messaging

    options = tail.TailOptions(
        types=frozenset(kind.strip().upper() for kind in types or ()),
        guild=tail.check_filter("--guild", guild),
        channel=tail.check_filter("--channel", channel),
        user=tail.check_filter("--user", user),
        text=text or "",
        as_json=as_json,
    )
    for warning in tail.unknown_types(options.types):
        warn(warning)

    async def work() -> None:
        if context.obj.api is not None:
            from sandwich_coordinator.cli.tail_remote import tail_remote

            await tail_remote(context.obj.api, app_name, options, tail.shown(options))
            return
        messaging = await find_messaging(with_key_file(context.obj, key_file), app_name)
        await tail.tail(messaging, options, tail.shown(options))

    run(work())


@app.command("top")
def top_command(context: typer.Context) -> None:
    """The cluster in this terminal, kept up to date: problems, nodes, applications, shards. Operated with keys.

    1-4 choose a table, / filters, Enter opens, d drains a node, c cordons, u uncordons, m moves a shard, r restarts it,
    q ends. While the cluster cannot be asked, the last picture stays.

    Example: sandwich top
    """
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise CommandError("sandwich top needs a terminal: sandwich cluster status --watch does not")
    from sandwich_coordinator.cli.cluster_access import open_cluster
    from sandwich_coordinator.cli.top.screen import Top

    top = Top(lambda: open_cluster(context.obj))
    top.run()
    if top.refusal is not None:
        raise top.refusal
    raise typer.Exit(top.return_code or 0)


def hoist(arguments: Sequence[str]) -> list[str]:
    """Move connection options from anywhere on the command line to its front, where the root command reads them."""
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


def command_words(arguments: Sequence[str]) -> str:
    """The command for the audit log: its words before the first option of its own, without further arguments.

    `arguments`: as `hoist` returns them.
    """
    words: list[str] = []
    left = iter(arguments)
    for argument in left:
        if argument in _HOISTED:
            next(left, None)
        elif argument.partition("=")[0] in _HOISTED:
            continue
        elif argument.startswith("-") or len(words) == COMMAND_WORDS_MAX:
            break
        else:
            words.append(argument[:COMMAND_WORD_MAX])
    return " ".join(["sandwich", *words])


def main() -> None:
    """Entry point. Every error is one line on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        # What the terminal's encoding lacks must not end a command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(args=hoist(sys.argv[1:]), prog_name="sandwich", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except CommandError as error:
        _fail(error)
    except OperationError as error:
        _fail(command_error(error))
    except _UsageError as error:
        _fail(CommandError(error.format_message().splitlines()), "usage")
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        # Imported here: only a command that failed needs these two classes, and it has loaded them already.
        from sandwich_coordinator.sealing import SealingError
        from sandwich_coordinator.store.base import StoreError

        if isinstance(error, SealingError):
            _fail(CommandError(str(error), EXIT_REFUSED))
        if isinstance(error, StoreError):
            _fail(CommandError(f"the store cannot be asked: {error}", EXIT_CANNOT_SAY))
        raise


def _fail(error: CommandError, kind: str = "") -> None:
    """End with the error on stderr, as JSON with --json. `kind`: its code, where the exit code is ambiguous."""
    if wants_json(sys.argv[1:]):
        show_json_error(kind or _ERROR_CODES[error.code], str(error))
    else:
        fail("sandwich", str(error))
    sys.exit(error.code)


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether the command line asks for JSON, even when it cannot be parsed."""
    return "--json" in arguments[: arguments.index("--") if "--" in arguments else None]


if __name__ == "__main__":
    main()
