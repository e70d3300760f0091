"""Asking before session starts are spent."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.output import say

if TYPE_CHECKING:
    from sandwich_coordinator.scale_plan import ScalePlan

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Spend session starts without asking.")]

Force = Annotated[bool, typer.Option("--force", help="Also when no node has room for some of the new shards.")]


def show_costs(plans: "Sequence[ScalePlan]", *, err: bool = True) -> None:
    """What each new shard group costs, in words."""
    import time

    from sandwich_coordinator.cli.progress import plan_lines

    for plan in plans:
        for line in plan_lines(plan, time.time()):
            say(line, err=err)


def ask_before_new_sessions(plans: "Sequence[ScalePlan]", *, yes: bool, force: bool) -> None:
    """Show what it costs, and go on only if the user agrees. Raises CommandError (1) otherwise.

    Without room for a new group it would wait for ever beside the present one: that needs `force`.
    """
    show_costs(plans)
    if not force and (names := ", ".join(plan.app for plan in plans if plan.without_room)):
        raise CommandError(
            f"{names}: not all new shards have room, nothing was changed; --force begins all the same", 1
        )
    if not plans or yes:
        return
    if not sys.stdin.isatty():
        raise CommandError("this starts new sessions: say --yes to do it without a question", 1)
    if not typer.confirm("Go on?", err=True):
        raise CommandError("nothing was changed", 1)
