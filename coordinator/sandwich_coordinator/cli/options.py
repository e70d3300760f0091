"""Options and command groups that several commands share. Imports little, because help and completion load it."""

from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from sandwich_coordinator.cli.connection import Connection
from sandwich_coordinator.cli.entry import interruptible

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

T = TypeVar("T")
KEY_VARIABLE = "SANDWICH_CLUSTER_KEY"
KEY_FILE_VARIABLE = "SANDWICH_KEY_FILE"


def about(kind: str) -> Callable[[typer.Context, str], str]:
    """For an argument: the audit log says what a command was about, as it does of a request to the API."""

    def remember(context: typer.Context, value: str) -> str:
        if isinstance(context.obj, Connection):
            context.obj = replace(context.obj, about={**context.obj.about, kind: value})
        return value

    return remember


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AppName = Annotated[str, typer.Argument(metavar="APP", help="The application's name.", callback=about("app"))]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file", envvar=KEY_FILE_VARIABLE, readable=False, help=f"The cluster key; else ${KEY_VARIABLE}."
    ),
]
NodeName = Annotated[
    str,
    typer.Argument(metavar="NODE", help="The node's name, as sandwich node list shows it.", callback=about("node")),
]
WaitS = Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait.")]


class HelpGroup(TyperGroup):
    """Without a command it prints its help, with exit code 0."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)


def command_group(text: str) -> typer.Typer:
    """A group of commands."""
    return typer.Typer(help=text, cls=HelpGroup, rich_markup_mode=None, add_completion=False)


def with_key_file(connection: Connection, key_file: Path | None) -> Connection:
    """The connection with the cluster key from this file."""
    return replace(connection, key_file=key_file)


def run(work: Coroutine[Any, Any, T], loop_factory: "Callable[[], AbstractEventLoop] | None" = None) -> T:
    """Run a command's work; Ctrl-C cancels it. `loop_factory` None: asyncio's own loop."""
    # Imported here: help needs no event loop.
    import asyncio

    interruptible()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(work)
