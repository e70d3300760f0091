"""The `sandwich-node` command: `join` a cluster, or run a whole one on this machine with `dev`.

Imports are light: help and `--version` wait for all of them. What a node is made of is imported when it runs.
"""

import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandwich_coordinator.cli.options import HelpGroup, run
from sandwich_coordinator.cli.output import fail
from sandwich_sdk._version import __version__
from sandwich_sdk.wire.plain_text import plain_text

if TYPE_CHECKING:
    from sandwich_coordinator.addresses import Address
    from sandwich_coordinator.sealing import ClusterKey
    from sandwich_node.agent.agent import Agent
    from sandwich_node.http.tls import ServerTls

_log = logging.getLogger(__name__)

DEFAULT_LISTEN = "127.0.0.1:5469"
EXIT_REFUSED = 1
_UsageError: type[Any] = typer.BadParameter.__mro__[1]  # as in sandwich_coordinator.cli.main

# In the options below `readable=False`: typer would say that a file is not readable, and not why.
app = typer.Typer(
    name="sandwich-node",
    cls=HelpGroup,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A node of a Sandwich cluster: it holds gateway connections and publishes their events.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sandwich {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """A node of a Sandwich cluster."""


def _fail(message: str) -> typer.Exit:
    fail("sandwich-node", plain_text(message))
    return typer.Exit(EXIT_REFUSED)


def _listen(value: str) -> "Address":
    from sandwich_coordinator.addresses import parse_address

    try:
        return parse_address(value, any_port=True)
    except ValueError as error:
        raise _fail(f"--listen {value!r}: {error}, such as {DEFAULT_LISTEN}") from None


def _advertised(value: str) -> str | None:
    from sandwich_coordinator.addresses import parse_advertised

    try:
        return parse_advertised(value) if value else None
    except ValueError as error:
        raise _fail(f"--advertise {value!r}: {error}") from None


def _labels(values: list[str]) -> dict[str, str]:
    from sandwich_coordinator.placement import check_label

    labels: dict[str, str] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise _fail(f"--label {value!r}: write it as NAME=VALUE")
        try:
            check_label(name, text)
        except ValueError as error:
            raise _fail(f"--label {value!r}: {error}") from None
        if labels.setdefault(name, text) != text:
            raise _fail(f"--label {value!r}: {name} is {labels[name]!r} already")
    return labels


def _default_node_id() -> str:
    name = "".join(char if char.isalnum() or char in "-_" else "-" for char in socket.gethostname().lower())
    return name.strip("-_")[:32] or "node"


@app.command()
def join(
    etcd: Annotated[
        str, typer.Option(envvar="SANDWICH_ETCD", help="etcd endpoints, comma-separated; any one may be down.")
    ] = "http://127.0.0.1:2379",
    cluster: Annotated[str, typer.Option(envvar="SANDWICH_CLUSTER", help="The cluster's name.")] = "default",
    node_id: Annotated[
        str, typer.Option(envvar="SANDWICH_NODE_ID", help="This node's name; default: the host name.")
    ] = "",
    listen: Annotated[
        str, typer.Option(envvar="SANDWICH_LISTEN", help="Address for health, metrics and status.")
    ] = DEFAULT_LISTEN,
    advertise: Annotated[
        str,
        typer.Option(
            envvar="SANDWICH_ADVERTISE",
            help="HOST:PORT under which others reach this node; default: the listening address.",
        ),
    ] = "",
    workers: Annotated[
        int, typer.Option(envvar="SANDWICH_WORKERS", min=0, max=256, help="Worker processes; 0: one a core.")
    ] = 0,
    capacity: Annotated[
        int, typer.Option(envvar="SANDWICH_CAPACITY", min=1, max=1_000_000, help="This node's share, as a weight.")
    ] = 100,
    max_shards: Annotated[
        int,
        typer.Option(
            envvar="SANDWICH_MAX_SHARDS",
            min=0,
            max=1_000_000,
            help="Never run more shards than this here; 0: no limit.",
        ),
    ] = 0,
    label: Annotated[
        list[str] | None,
        typer.Option(
            envvar="SANDWICH_LABELS",
            help="NAME=VALUE, which the placement of an application can require. Repeatable; in the variable, "
            "separated by spaces.",
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(envvar="SANDWICH_KEY_FILE", readable=False, help="File with the cluster key (mode 600)."),
    ] = None,
    insecure_plaintext: Annotated[
        bool,
        typer.Option(
            envvar="SANDWICH_INSECURE_PLAINTEXT",
            help="For trials: run without a cluster key; tokens are readable in etcd.",
        ),
    ] = False,
    etcd_user: Annotated[str, typer.Option(envvar="SANDWICH_ETCD_USER", help="etcd user.")] = "",
    etcd_password_file: Annotated[
        Path | None,
        typer.Option(envvar="SANDWICH_ETCD_PASSWORD_FILE", readable=False, help="File with the etcd user's password."),
    ] = None,
    etcd_ca: Annotated[
        Path | None, typer.Option(envvar="SANDWICH_ETCD_CA", readable=False, help="CA that signed etcd's certificate.")
    ] = None,
    etcd_cert: Annotated[
        Path | None, typer.Option(envvar="SANDWICH_ETCD_CERT", readable=False, help="Client certificate for etcd.")
    ] = None,
    etcd_key: Annotated[
        Path | None, typer.Option(envvar="SANDWICH_ETCD_KEY", readable=False, help="Key of the client certificate.")
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(envvar="SANDWICH_TLS_CERT", readable=False, help="Serve https with this certificate (PEM)."),
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(envvar="SANDWICH_TLS_KEY", readable=False, help="Its key.")] = None,
    log_level: Annotated[
        str, typer.Option(envvar="SANDWICH_LOG_LEVEL", help="debug, info, warning or error.")
    ] = "info",
    log_format: Annotated[str, typer.Option(envvar="SANDWICH_LOG_FORMAT", help="text or json.")] = "text",
) -> None:
    """Join a cluster and hold a share of its shards until SIGTERM or Ctrl-C.

    On the way out every session is kept, so that another node resumes it.

    Example: sandwich-node join --etcd http://10.0.0.1:2379,http://10.0.0.2:2379 --node-id a
    """
    if log_level.lower() not in ("debug", "info", "warning", "error"):
        raise _fail(f"--log-level {log_level!r}: use debug, info, warning or error")
    if log_format not in ("text", "json"):
        raise _fail(f"--log-format {log_format!r}: use text or json")
    from sandwich_coordinator.private_files import read_private
    from sandwich_node.agent.lease_release import open_store
    from sandwich_node.agent.options import NodeOptions
    from sandwich_node.composition.agent import compose_agent
    from sandwich_node.environment import unused_proxies
    from sandwich_node.ipc import EtcdOptions
    from sandwich_node.logs import configure_logging
    from sandwich_node.names import NodeLoop
    from sandwich_node.open_files import raise_limit
    from sandwich_sdk.wire.subjects import check_name

    configure_logging(log_level, style=log_format)
    for variable in unused_proxies(os.environ):
        _log.warning("%s is set and not used: a proxy for Discord is the key discord.proxy of cluster.yml", variable)
    # A core dump would hold tokens.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        name = check_name(node_id or _default_node_id(), what="--node-id")
        check_name(cluster, what="--cluster")
        reach = EtcdOptions(
            endpoints=tuple(part for part in etcd.split(",") if part.strip()),
            username=etcd_user or None,
            password=read_private(etcd_password_file, "etcd password") if etcd_password_file else None,
            ca_file=str(etcd_ca) if etcd_ca else None,
            cert_file=str(etcd_cert) if etcd_cert else None,
            key_file=str(etcd_key) if etcd_key else None,
        )
        store = open_store(reach)
        key = _cluster_key(key_file, insecure=insecure_plaintext)
        tls = _server_tls(tls_cert, tls_key)
    except (ValueError, OSError) as error:
        raise _fail(str(error)) from None
    options = NodeOptions(
        node=name,
        cluster=cluster,
        listen=_listen(listen),
        workers=workers or os.cpu_count() or 1,
        capacity=capacity,
        max_shards=max_shards,
        labels=_labels(label or []),
        advertise=_advertised(advertise),
        log_level=log_level.upper(),
        etcd=reach,
        open_files=raise_limit(),
    )
    # Logs as JSON are collected: a token must not be in them.
    show = _show_first_token if log_format == "text" else None
    raise typer.Exit(run(_run(compose_agent(options, store, key, show, tls)), NodeLoop))


def _server_tls(cert: Path | None, key: Path | None) -> "ServerTls | None":
    """Raises ValueError."""
    from sandwich_node.http.tls import ServerTls

    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise ValueError("--tls-cert and --tls-key go together")
    return ServerTls(cert, key)


def _show_first_token(token: str) -> None:
    typer.echo(
        f"\nThe HTTP API has no admin yet. This token is one for 24 hours, until you make another:\n  {token}\n",
        err=True,
    )


@app.command()
def dev(
    nodes: Annotated[int, typer.Option(min=1, max=26, help="How many nodes.")] = 3,
    workers: Annotated[int, typer.Option(min=1, max=16, help="Worker processes a node.")] = 1,
    rate: Annotated[float, typer.Option(min=0.0, help="Events a second from the simulated Discord.")] = 300.0,
    seed: Annotated[int, typer.Option(help="Seed of the simulated world and its traffic.")] = 1,
    seconds: Annotated[
        float | None, typer.Option(min=1.0, help="End by itself after so long with all shards live, and judge the run.")
    ] = None,
    plain: Annotated[bool, typer.Option(help="A line a second instead of the live view.")] = False,
) -> None:
    """Run a whole cluster on this machine: etcd, NATS, Redis, a simulated Discord, nodes, and a consumer.

    Needs the servers that the extra `dev` brings, and says how to install them. Nothing is left behind at the end.

    Example: sandwich-node dev --seconds 20 --plain
    """
    # Imported here: a node in production has neither the embedded servers nor a consumer.
    from sandwich_node.dev.demo import DemoOptions, run_demo
    from sandwich_node.dev.embedded import EmbeddedServerError

    options = DemoOptions(nodes=nodes, workers=workers, rate=rate, seed=seed, seconds=seconds, plain=plain)
    try:
        raise typer.Exit(run(run_demo(options)))
    except EmbeddedServerError as error:
        raise _fail(str(error)) from None


def _cluster_key(key_file: Path | None, *, insecure: bool) -> "ClusterKey | None":
    from sandwich_coordinator.sealing import KEY_VARIABLE, ClusterKey, SealingError

    try:
        key = ClusterKey.load(os.environ, key_file)
        # Nothing that this process starts, and no crash report that lists the environment, has to have it.
        os.environ.pop(KEY_VARIABLE, None)
        return key
    except SealingError as error:
        if insecure and key_file is None and KEY_VARIABLE not in os.environ:
            return None
        raise _fail(f"{error}; for a trial without one: --insecure-plaintext") from None


async def _run(agent: "Agent") -> int:
    import asyncio

    from sandwich_coordinator.sealing import SealingError
    from sandwich_coordinator.store.base import StoreRefused
    from sandwich_node.agent.configuration import AgentError
    from sandwich_node.agent.membership import NodeIdTaken
    from sandwich_node.http.app import HttpError

    loop = asyncio.get_running_loop()
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        if asked > 2:
            # Three times is not an accident: leave what is left to the leases.
            os._exit(EXIT_REFUSED)
        agent.shutdown()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    code = 0
    try:
        await agent.run()
    except* (AgentError, NodeIdTaken, HttpError, SealingError, StoreRefused) as failed:
        for error in _leaves(failed):
            fail("sandwich-node", plain_text(error))
        code = EXIT_REFUSED
    return code


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def main() -> None:
    """Entry point."""
    try:
        code = app(prog_name="sandwich-node", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except _UsageError as error:
        fail("sandwich-node", error.format_message())
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        logging.shutdown()
        sys.exit(130)


if __name__ == "__main__":
    main()
