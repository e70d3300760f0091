"""`sandwich tail --api`: the same events and the same lines, from the stream of a node's HTTP API."""

import asyncio
import json
import shutil
import sys
from typing import Any

from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.letter_access import all_apps
from sandwich_coordinator.cli.output import paint_for
from sandwich_coordinator.cli.remote import Api, ApiAddress, open_api
from sandwich_coordinator.cli.tail import PIPE_WIDTH, Line, Show, TailOptions, gap_line, line_or_reason
from sandwich_coordinator.operations.errors import OperationError

AGAIN_S = 1.0
"""A stream of the API ends after a while and is asked for again: at once, unless it has just begun."""


async def tail_remote(address: ApiAddress, app: str | None, options: TailOptions, show: Show) -> None:
    """Show events until cancelled. Raises OperationError, CommandError."""
    failure: BaseException | None = None
    async with open_api(address) as api:
        apps = (app,) if app is not None else await all_apps(api)
        try:
            async with asyncio.TaskGroup() as group:
                for name in apps:
                    group.create_task(_show(api, name, options, show))
        except* (OperationError, CommandError, BrokenPipeError) as failed:
            failure = failed.exceptions[0]
    if failure is not None:
        raise failure


async def _show(api: Api, app: str, options: TailOptions, show: Show) -> None:
    query = {
        "app": app,
        "type": ",".join(sorted(options.types)) or None,
        "guild": options.guild or None,
        "channel": options.channel or None,
        "user": options.user or None,
        "text": options.text or None,
    }
    paint = paint_for(sys.stdout)
    clock = asyncio.get_running_loop().time
    while True:
        began_at = clock()
        async for kind, data in api.events("/events", query):
            if kind == "event":
                width = shutil.get_terminal_size((PIPE_WIDTH, 24)).columns
                line = line_or_reason(app, data, options, width, paint)
            else:
                line = _note(app, kind, json.loads(data))
            if line is not None:
                show(line)
        await asyncio.sleep(max(0.0, began_at + AGAIN_S - clock()))
        show(
            Line(
                f"{app} (the stream ended and is read on from now: events of this moment may be missing)", is_note=True
            )
        )


def _note(app: str, kind: str, data: Any) -> Line | None:
    if kind == "gap":
        return gap_line(app, data["after"])
    if kind == "skipped":
        return Line(f"{app} ({data['events']} events are not shown: there are too many at once)", is_note=True)
    return None
