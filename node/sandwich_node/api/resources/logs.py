"""The log lines of all nodes, as far as they keep them in memory."""

from typing import Literal

import msgspec
from pydantic import Field

from sandwich_coordinator.access.roles import Role
from sandwich_coordinator.operations.errors import NotFound
from sandwich_node.api.live.event_stream import EVENT_STREAM
from sandwich_node.api.live.parts import LiveParts
from sandwich_node.api.models import Model
from sandwich_node.api.problem_details import ApiError
from sandwich_node.api.routing import Call, Route, Stream
from sandwich_node.log_lines import LogFilter, LogLine

TAG = "live"
Level = Literal["debug", "info", "warning", "error", "critical"]


class LogQuery(Model):
    """Which lines."""

    node: str = Field(default="", max_length=256, description="Only of this node.")
    app: str = Field(default="", max_length=64, description="Only lines that name this application.")
    shard: str = Field(default="", max_length=32, description="Only of this shard: its number, or GROUP/SHARD.")
    level: Level = Field(default="debug", description="At least this level.")
    text: str = Field(default="", max_length=256, description="Only lines with this text, in any case.")


class LogPageQuery(LogQuery):
    """Which lines, and how many."""

    since: float = Field(default=0.0, ge=0.0, allow_inf_nan=False, description="Not older than this, in Unix seconds.")
    limit: int = Field(default=200, ge=1, le=1000, description="The last so many lines.")


class LogEntry(Model):
    """One line. `worker` null: the node's agent. `app` and `shard` ("0/3": group and shard): "" where it names none."""

    at: float
    level: str
    node: str
    worker: int | None
    logger: str
    app: str
    shard: str
    message: str


class LogPage(Model):
    """Lines, oldest first. `silent`: nodes that did not answer, and why."""

    lines: list[LogEntry]
    silent: dict[str, str]


def _wanted(call: Call, live: LiveParts) -> LogFilter:
    query = call.query
    if query.app and not call.identity.sees(query.app):
        raise ApiError("not-found", f"there is no application {query.app}")
    # Which nodes there are is not shown to who sees some applications only.
    if query.node and call.identity.apps is None and not live.logs.known(query.node):
        raise NotFound("node", query.node, ())
    return LogFilter(
        app=query.app,
        shard=query.shard,
        level=query.level,
        text=query.text,
        since=getattr(query, "since", 0.0),
        apps=call.identity.apps,
    )


def _entry(line: LogLine) -> LogEntry:
    fields = msgspec.structs.asdict(line)
    del fields["seq"]
    return LogEntry(**fields)


async def _logs(call: Call) -> LogPage:
    live = call.cluster.live_parts()
    found = await live.logs.read(_wanted(call, live), node=call.query.node, limit=call.query.limit)
    silent = dict(found.silent) if call.identity.apps is None else {}
    return LogPage(lines=[_entry(line) for line in found.lines], silent=silent)


async def _follow(call: Call) -> Stream:
    live = call.cluster.live_parts()
    live.logs.places.check()
    return Stream(live.logs.follow(_wanted(call, live), call.query.node), EVENT_STREAM)


ROUTES = (
    Route(
        method="GET",
        path="/logs",
        summary="The last log lines of all nodes",
        description=(
            "Each node keeps some thousand lines of itself and its workers in memory. A restart of the node loses them."
        ),
        role=Role.OPERATOR,
        handler=_logs,
        tag=TAG,
        query=LogPageQuery,
        result=LogPage,
        errors=("not-found", "unavailable"),
    ),
    Route(
        method="GET",
        path="/logs/live",
        summary="New log lines of all nodes, as server-sent events",
        description=(
            "From now on; an event `line` has the fields of `GET /logs`, where they are not empty. Lines are up to two "
            "seconds old. `skipped` says how many lines of a node were left out because it wrote too many."
        ),
        role=Role.OPERATOR,
        handler=_follow,
        tag=TAG,
        query=LogQuery,
        media_type=EVENT_STREAM,
        errors=("not-found", "unavailable"),
    ),
)
