"""`sandwich app remove`: reaches NATS and Redis, shows what goes, and has the application's name typed."""

import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import typer
from nats.aio.client import Client

from sandwich_coordinator.cli.cache import load
from sandwich_coordinator.cli.connection import Connection
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.messaging import connect, read_messaging
from sandwich_coordinator.cli.remote import ApiAddress, open_api, part
from sandwich_coordinator.durations import duration
from sandwich_coordinator.operations.errors import Unavailable
from sandwich_coordinator.operations.progress import Report
from sandwich_coordinator.operations.removal import (
    Footprint,
    GuildCount,
    ReadingGroup,
    RemovalChoice,
    StreamContent,
    remove_app,
    survey,
)


@dataclass(frozen=True)
class Servers:
    """What a removal asks. `client` None: NATS does not answer, which only `--force` allows."""

    client: Client | None
    guilds: GuildCount


@asynccontextmanager
async def servers(connection: Connection, *, force: bool) -> AsyncIterator[Servers]:
    """NATS and Redis for the context. Raises Unavailable when NATS does not answer, unless `force`."""
    lookup = await load(connection, connection.key_file)

    async def guilds(namespace: str, app: str) -> int:
        try:
            return await replace(lookup, namespaces={app: namespace}).ask(
                lambda cache: cache.in_namespace(namespace).guild_count(app)
            )
        except CommandError as error:
            raise Unavailable(str(error)) from None

    messaging = await read_messaging(connection)
    async with AsyncExitStack() as stack:
        client: Client | None = None
        try:
            client = await stack.enter_async_context(connect(messaging))
        except CommandError as error:
            if not force:
                raise Unavailable(str(error)) from None
        yield Servers(client, guilds)


async def look_at(connection: Connection, app: str, warn: Callable[[str], None], *, force: bool) -> Footprint | None:
    """What the application has; None when a server does not answer, which only `force` allows."""
    try:
        if connection.api is not None:
            return await _ask_footprint(connection.api, app)
        async with connection.store() as store, servers(connection, force=False) as reached:
            assert reached.client is not None
            return await survey(store, connection.keys, app, client=reached.client, guilds=reached.guilds)
    except Unavailable as error:
        if not force:
            raise
        warn(f"{error}; what {app} has, and whether consumers read it is not known")
        return None


async def carry_out(
    connection: Connection, app: str, choice: RemovalChoice, *, timeout_s: float, report: Report, force: bool
) -> RemovalChoice:
    """Remove the application, see `remove_app`; the choice that holds."""
    if connection.api is not None:
        query: dict[str, Any] = {"confirm": app, "keep_cache": choice.keep_cache, "delete_stream": choice.delete_stream}
        async with open_api(connection.api) as api:
            found = await api.follow(
                "DELETE", f"/apps/{part(app)}", timeout_s=timeout_s, report=report, force=force, **query
            )
        return _choice(found["choice"])
    async with connection.store() as store, servers(connection, force=force) as reached:
        return await remove_app(
            store,
            connection.keys,
            app,
            choice,
            client=reached.client,
            guilds=reached.guilds,
            now=time.time(),
            timeout_s=timeout_s,
            report=report,
            force=force,
        )


async def _ask_footprint(address: ApiAddress, app: str) -> Footprint:
    async with open_api(address) as api:
        found = await api.get(f"/apps/{part(app)}/removal")
    groups = tuple(ReadingGroup(one["group"], one["lag"], one["reads"]) for one in found["consumers"])
    return Footprint(
        app=found["app"],
        shards_live=found["shards_live"],
        shards=found["shards"],
        namespace=found["namespace"],
        sharers=tuple(found["sharers"]),
        guilds=found["guilds"],
        stream=StreamContent(
            messages=found["stream_messages"],
            bytes=found["stream_bytes"],
            max_age_s=found["stream_max_age_s"],
            dead_letters=found["dead_letters"],
            groups=groups,
        ),
        stored=None if found["stored"] is None else _choice(found["stored"]),
    )


def _choice(found: dict[str, Any]) -> RemovalChoice:
    return RemovalChoice(keep_cache=found["keep_cache"], delete_stream=found["delete_stream"])


def footprint_lines(found: Footprint, choice: RemovalChoice) -> list[str]:
    """What goes and what stays, before anything happens. Pure."""
    stream, app = found.stream, found.app
    lines = [f"removing {app}:"]
    lines.append(f"  shards         {found.shards_live} of {found.shards} live; they close first")
    if found.guilds is None:
        lines.append("  cache          none")
    else:
        shared = f", shared with {', '.join(found.sharers)}, which keep theirs" if found.sharers else ""
        what = "kept, and not updated any more" if choice.keep_cache else "removed"
        lines.append(f"  cache          {found.guilds} guilds in namespace {found.namespace}{shared}: {what}")
    size = f"{stream.messages} messages, {_size(stream.bytes)}"
    if choice.delete_stream:
        lines.append(f"  stream         {size}: deleted now, with {stream.dead_letters} dead letters")
    else:
        until = (
            f"until they are older than {duration(stream.max_age_s)}"
            if stream.max_age_s
            else "for ever: the stream has no age limit"
        )
        lines.append(f"  stream         {size}: kept {until}")
        lines.append(f"  dead letters   {stream.dead_letters}: kept for 30 days")
    for group in stream.groups:
        state = "reads now" if group.reads else "no worker reads"
        lines.append(f"  group {group.group}: {state}, lag {group.lag}")
    lines.append("  If cluster.yml names it, the next apply adds it again.")
    return lines


def _size(number: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def confirm(app: str, answer: str | None) -> None:
    """Have the name typed, or take it from --yes. Raises CommandError (1) when it is another one."""
    if answer is None:
        if not sys.stdin.isatty():
            raise CommandError(f"removing an application is confirmed with its name: --yes {app}", 1)
        answer = typer.prompt(f"Type {app} to remove it", default="", show_default=False, err=True)
    if answer.strip() != app:
        raise CommandError(f"that is not {app}: nothing was removed", 1)
