"""Removing an application: what it has, and the removal itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from sandwich_coordinator.access.roles import Role
from sandwich_coordinator.operations.errors import Invalid, NotFound, Unavailable
from sandwich_coordinator.operations.export import exported_app
from sandwich_coordinator.operations.progress import Progress, Report, ignore
from sandwich_coordinator.store.base import StoreError
from sandwich_node.api.changing import changed
from sandwich_node.api.cluster import ApiCluster
from sandwich_node.api.models import Model, Outcome
from sandwich_node.api.routing import Call, Reply, Route

if TYPE_CHECKING:
    from nats.aio.client import Client

    from sandwich_coordinator.operations import removal

TAG = "apps"
GOES_ON_S = 3600.0
"""So long a node goes on with a removal after its request was answered."""
RETRY_S = 5.0


class RemovalChoice(Model):
    """What was chosen when a removal began."""

    keep_cache: bool
    delete_stream: bool


class ReadingGroup(Model):
    """A consumer group. `reads`: workers of it are there, or frames wait for their answer."""

    group: str
    lag: int
    reads: bool


class Footprint(Model):
    """What an application has: what a removal concerns.

    guilds        in the cache; null: there is no cache
    sharers       other applications of its namespace, which keep their guilds
    stored        what was chosen when a removal began that is not finished; null: none did
    """

    app: str
    shards: int
    shards_live: int
    namespace: str
    sharers: list[str]
    guilds: int | None
    stream_messages: int
    stream_bytes: int
    stream_max_age_s: float
    dead_letters: int
    consumers: list[ReadingGroup]
    stored: RemovalChoice | None


class RemovalOutcome(Outcome):
    """`choice`: what was chosen when the removal began; null: it is not finished."""

    choice: RemovalChoice | None = None


class RemoveQuery(Model):
    """`confirm`: the application's name again."""

    confirm: str = Field(min_length=1, max_length=64, description="The application's name again.")
    keep_cache: bool = Field(default=False, description="Leave its guilds in Redis.")
    delete_stream: bool = Field(default=False, description="Delete its events and dead letters now.")
    force: bool = Field(default=False, description="Also while consumers read it, or when NATS does not answer.")


async def _survey(call: Call) -> Footprint:
    # Imported here: an agent whose API is not asked for this does not load it.
    from sandwich_coordinator.operations.removal import survey

    parts = call.cluster
    async with parts.messaging.client() as client:
        found = await survey(parts.store, parts.keys, call.app, client=client, guilds=parts.messaging.guild_count)
    stream, stored = found.stream, found.stored
    return Footprint(
        app=found.app,
        shards=found.shards,
        shards_live=found.shards_live,
        namespace=found.namespace,
        sharers=[name for name in found.sharers if call.identity.sees(name)],
        guilds=found.guilds,
        stream_messages=stream.messages,
        stream_bytes=stream.bytes,
        stream_max_age_s=stream.max_age_s,
        dead_letters=stream.dead_letters,
        consumers=[ReadingGroup(group=one.group, lag=one.lag, reads=one.reads) for one in stream.groups],
        stored=None if stored is None else _choice(stored),
    )


def _choice(found: "removal.RemovalChoice") -> RemovalChoice:
    return RemovalChoice(keep_cache=found.keep_cache, delete_stream=found.delete_stream)


async def _remove(call: Call) -> Reply:
    from sandwich_coordinator.operations import removal

    query: RemoveQuery = call.query
    parts = call.cluster
    if query.confirm != call.app:
        raise Invalid("confirm: it is not the application's name: nothing was removed")
    choice = removal.RemovalChoice(keep_cache=query.keep_cache, delete_stream=query.delete_stream)
    entry = parts.view().apps.get(call.app)
    call.changes.before = exported_app(entry.record) if entry is not None else None
    call.changes.after = {"removed": True, "keep_cache": query.keep_cache, "delete_stream": query.delete_stream}

    async def attempt(report: Report, timeout_s: float, *, begins: bool = True) -> removal.RemovalChoice:
        async with _client(parts, is_needed=begins and not query.force) as client:
            return await removal.remove_app(
                parts.store,
                parts.keys,
                call.app,
                choice,
                client=client,
                guilds=parts.messaging.guild_count,
                now=time.time(),
                timeout_s=timeout_s,
                report=report,
                force=query.force,
                begins=begins,
            )

    name = f"the removal of {call.app}"
    is_left = await parts.going_on.end(name)

    async def work(report: Report) -> removal.RemovalChoice:
        def noted(progress: Progress) -> None:
            nonlocal is_left
            is_left = True
            report(progress)

        nonlocal is_left
        done = await attempt(noted, call.wait_s)
        is_left = False
        return done

    try:
        return await changed(call, work, RemovalOutcome, ended=lambda done: {"choice": _choice(done)})
    finally:
        if is_left:
            # Also when its caller has gone, or a server does not answer.
            parts.going_on.begin(name, partial(_finish, partial(attempt, ignore, begins=False)))


@asynccontextmanager
async def _client(parts: ApiCluster, *, is_needed: bool) -> AsyncIterator["Client | None"]:
    """NATS; None when it does not answer and is not needed. Raises Unavailable."""
    async with AsyncExitStack() as stack:
        client = None
        try:
            client = await stack.enter_async_context(parts.messaging.client())
        except Unavailable:
            if is_needed:
                raise
        yield client


async def _finish(attempt: Callable[[float], Awaitable[object]]) -> None:
    """Again while a server does not answer, for GOES_ON_S. `attempt` gets the seconds that are left."""
    clock = asyncio.get_running_loop().time
    ends_at = clock() + GOES_ON_S
    while True:
        try:
            await attempt(max(0.0, ends_at - clock()))
            return
        except NotFound:
            # It is done.
            return
        except (Unavailable, StoreError):
            if clock() >= ends_at:
                raise
        await asyncio.sleep(RETRY_S)


ROUTES = (
    Route(
        method="GET",
        path="/apps/{app}/removal",
        summary="What an application has: what its removal concerns",
        role=Role.OPERATOR,
        handler=_survey,
        tag=TAG,
        result=Footprint,
        errors=("refused",),
    ),
    Route(
        method="DELETE",
        path="/apps/{app}",
        summary="Remove an application, and what it has",
        description=(
            "Its shards close, then its configuration and its guilds in the cache go. Refused while consumers read it. "
            "After the answer 202 the node that took the request goes on, for an hour. When that node ends, the same "
            "request goes on with the removal: with another `Idempotency-Key`, since the first one has its answer."
        ),
        role=Role.ADMIN,
        handler=_remove,
        tag=TAG,
        query=RemoveQuery,
        result=RemovalOutcome,
        takes_time=True,
    ),
)
