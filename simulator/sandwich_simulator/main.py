"""The command `sandwich-simulator`."""

import asyncio
import importlib.metadata
import resource
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from .config import BotConfig, ConfigError, SimulatorConfig, load_config, parse_bot
from .simulator import Simulator

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_DEFAULT_BOT = BotConfig(token="simulated-token", guilds=10)


async def _serve(config: SimulatorConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Simulator(config) as simulator:
        typer.echo(f"listening on {simulator.base_url}")
        await simulator.run_until(stop)


def _version(wanted: bool) -> None:
    if wanted:
        # Of the distribution: the simulator imports nothing of Sandwich.
        typer.echo(f"sandwich {importlib.metadata.version('sandwich')}")
        raise typer.Exit


@app.command()
def run(
    bot: Annotated[list[str] | None, typer.Option(help="token:guilds[:shards[:max_concurrency]], repeatable")] = None,
    config: Annotated[Path | None, typer.Option(help="JSON: SimulatorConfig's fields, or a list of bots")] = None,
    host: Annotated[str | None, typer.Option()] = None,
    port: Annotated[int | None, typer.Option(help="0 = any free port")] = None,
    advertise: Annotated[
        str | None, typer.Option(help="HOST or HOST:PORT at which clients reach it; needed with --host 0.0.0.0")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="events a second, all bots together")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    journal: Annotated[Path | None, typer.Option(help="append each dispatch to this file (NDJSON)")] = None,
    version: Annotated[
        bool, typer.Option("--version", help="show the version and exit", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Runs a simulated Discord until SIGTERM or Ctrl-C."""
    try:
        settings = load_config(config) if config else SimulatorConfig()
        settings.bots += [parse_bot(text) for text in bot or ()]
        settings = replace(settings, host=host or settings.host, advertise=advertise or settings.advertise)
    except ConfigError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    if not settings.bots:
        settings.bots = [_DEFAULT_BOT]
    settings.port = settings.port if port is None else port
    settings.rate = settings.rate if rate is None else rate
    settings.seed = settings.seed if seed is None else seed
    settings.journal_path = journal or settings.journal_path
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        # Each connected shard needs a file descriptor.
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(_serve(settings))


def main() -> None:
    """The program's entry point."""
    app()
