"""Remove an application: its shards are released first, then its configuration, its cache and its stream go.

What was chosen is stored in `removals/<app>` before anything else happens, and that key goes last: a removal that was
interrupted is finished by the same call.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import msgspec
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext

from sandwich_coordinator.groups import serving_groups, shard_ids
from sandwich_coordinator.operations.applications import find_app
from sandwich_coordinator.operations.consumer_groups import read_durables
from sandwich_coordinator.operations.errors import Conflict, NotFound, NotReached, OutcomeUnknown, Refused, Unavailable
from sandwich_coordinator.operations.group_states import groups_of
from sandwich_coordinator.operations.jetstream_api import API_TIMEOUT_S, answered
from sandwich_coordinator.operations.progress import AppRemoved, AppRemoving, GuildsLeft, Report
from sandwich_coordinator.operations.waiting import await_shards, read_view
from sandwich_coordinator.store.base import Compare, Delete, Put, Store, StoreAmbiguous
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import RemovalRecord
from sandwich_coordinator.view import ClusterView, Entry
from sandwich_sdk.wire.subjects import dead_stream_name, replay_stream_name, stream_name, tries_stream_name

POLL_S = 0.5
ASK_AGAIN_S = 15.0
"""A leader that changed did not see what the one before was asked for."""

GuildCount = Callable[[str, str], Awaitable[int]]
"""Namespace and application -> its guilds in the cache. Raises Unavailable."""


@dataclass(frozen=True, slots=True)
class RemovalChoice:
    """What of an application outlives it."""

    keep_cache: bool = False
    delete_stream: bool = False


@dataclass(frozen=True, slots=True)
class ReadingGroup:
    """A consumer group of the application. `reads`: workers of it are there, or frames wait for their answer."""

    group: str
    lag: int
    reads: bool


@dataclass(frozen=True, slots=True)
class StreamContent:
    """What an application has in JetStream."""

    messages: int = 0
    bytes: int = 0
    max_age_s: float = 0.0
    dead_letters: int = 0
    groups: tuple[ReadingGroup, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What an application has. `guilds` None: there is no cache. `sharers`: other applications of its namespace.

    `stored`: what was chosen when this removal began, None when it is a new one.
    """

    app: str
    shards_live: int
    shards: int
    namespace: str
    sharers: tuple[str, ...]
    guilds: int | None
    stream: StreamContent
    stored: RemovalChoice | None


async def survey(store: Store, keys: Keys, app: str, *, client: Client, guilds: GuildCount) -> Footprint:
    """What a removal concerns, as it is now. Raises NotFound, Refused, and Unavailable for NATS and Redis."""
    view = await read_view(store, keys)
    removal = view.removals.get(app)
    cache = removal.record.cache if removal is not None else (await find_app(store, keys, app)).record.cache
    namespace = cache.namespace_of(app)
    group = serving_groups(view).get(app)
    others = ((name, entry.record.cache) for name, entry in sorted(view.apps.items()) if name != app)
    return Footprint(
        app=app,
        shards_live=sum(shard.app == app and claim.record.state == "live" for shard, claim in view.claims.items()),
        shards=len(shard_ids(view.groups[group].record)) if group is not None else 0,
        namespace=namespace,
        sharers=tuple(name for name, other in others if other.enabled and other.namespace_of(name) == namespace),
        guilds=await guilds(namespace, app) if cache.enabled else None,
        stream=await _stream_content(client, app),
        stored=None if removal is None else _choice(removal.record),
    )


async def remove_app(
    store: Store,
    keys: Keys,
    app: str,
    choice: RemovalChoice,
    *,
    client: Client | None,
    guilds: GuildCount,
    now: float,
    timeout_s: float,
    report: Report,
    force: bool = False,
    begins: bool = True,
) -> RemovalChoice:
    """Remove an application, or finish a removal that began, as it was chosen then; returns the choice that holds.

    `force`: also while it is read; and a removal that began then ends with the cache kept, when `choice` says so.

    `begins` False: only finish one that began; NotFound when there is none.
    `client` None: NATS is not asked, which only `force` allows. `now`: Unix seconds.
    Raises NotFound; Refused while consumer groups read it, unless `force`; Conflict, Unavailable; NotReached when it
    is not done after `timeout_s`, and then the same call goes on.
    """
    clock = asyncio.get_running_loop().time
    ends_at = clock() + timeout_s
    view = await read_view(store, keys)
    entry = view.removals.get(app)
    if entry is None:
        if not begins:
            raise NotFound("removal", app, view.removals)
        if not force:
            if client is None:
                raise Unavailable("without NATS it is not known whether consumers read it; --force does not ask")
            check_unread(app, await _stream_content(client, app))
        entry = await _begin(store, keys, view, app, choice, now)
    record = entry.record
    if force and choice.keep_cache:
        # The way out when the Redis of a removal that has begun will not come back.
        record = msgspec.structs.replace(record, keep_cache=True)
    report(AppRemoving(app, sum(shard.app == app for shard in view.claims), is_new=app not in view.removals))
    await await_shards(
        store,
        keys,
        app,
        lambda view: sorted(shard.shard for shard in view.claims if shard.app == app),
        "closed",
        timeout_s=max(0.0, ends_at - clock()),
        report=report,
    )
    began = Compare(keys.removal(app), "create_revision", entry.create_revision)
    await _forget(store, keys, app, began)
    await await_shards(
        store,
        keys,
        app,
        lambda view: sorted(group.group for group in view.groups if group.app == app),
        "removed",
        noun="shard groups",
        timeout_s=max(0.0, ends_at - clock()),
        report=report,
    )
    if record.cache.enabled and not record.keep_cache:
        await _clean_cache(store, keys, app, guilds, max(0.0, ends_at - clock()), report)
    if record.delete_stream:
        if client is None:
            raise Unavailable(f"NATS is needed to delete the stream of {app}: run it again when it answers")
        await _delete_streams(client, app)
    await _end(store, keys, app, began, is_stream_gone=record.delete_stream)
    done = _choice(record)
    report(AppRemoved(app, done.keep_cache or not record.cache.enabled, done.delete_stream))
    return done


def _choice(record: RemovalRecord) -> RemovalChoice:
    return RemovalChoice(keep_cache=record.keep_cache, delete_stream=record.delete_stream)


def check_unread(app: str, stream: StreamContent) -> None:
    """Raise Refused while consumer groups read the application."""
    reading = [group for group in stream.groups if group.reads]
    if reading:
        names = ", ".join(f"{group.group} (lag {group.lag})" for group in reading)
        raise Refused(f"consumers still read {app}: {names}. Stop them first; --force removes it all the same")


async def check_all_unread(apps: Iterable[str], client: Client) -> None:
    """Raise Refused while consumer groups read one of these applications, and Unavailable when NATS does not answer."""
    for app in apps:
        check_unread(app, await _stream_content(client, app))


async def _begin(
    store: Store, keys: Keys, view: ClusterView, app: str, choice: RemovalChoice, now: float
) -> Entry[RemovalRecord]:
    """Store the choice and pause the application, in one transaction."""
    found = await find_app(store, keys, app)
    record = RemovalRecord(
        at=now,
        keep_cache=choice.keep_cache,
        delete_stream=choice.delete_stream,
        cache=found.record.cache,
        groups={key.group: entry.record.count for key, entry in view.groups.items() if key.app == app},
    )
    paused = msgspec.json.encode({**msgspec.json.decode(found.raw), "paused": True, "paused_at": now})
    guards = (
        Compare(keys.app(app), "mod_revision", found.revision),
        Compare(keys.removal(app), "mod_revision", view.revision_of_bad(keys.removal(app))),
    )
    revision = await _write(store, guards, (Put(keys.app(app), paused), Put(keys.removal(app), record.encode())))
    return Entry(record, revision, revision, 0)


async def _forget(store: Store, keys: Keys, app: str, began: Compare) -> None:
    """Delete the configuration, so that the leader removes groups, plans and sessions.

    `began` guards it: another caller may have finished this removal, and an operator added the application again.
    """
    item = await store.get(keys.app(app))
    if item is not None:
        guard = Compare(keys.app(app), "mod_revision", item.mod_revision)
        await _write(store, (began, guard), (Delete(keys.app(app)), Delete(keys.rollout(app))))


async def _end(store: Store, keys: Keys, app: str, began: Compare, *, is_stream_gone: bool) -> None:
    """Delete what was chosen, unless another caller has done so."""
    numbers = (Delete(keys.group_number(app)),) if is_stream_gone else ()
    try:
        await store.txn((began,), (Delete(keys.removal(app)), *numbers))
    except StoreAmbiguous as error:
        raise OutcomeUnknown(f"whether that was stored is unknown ({error}): run it again") from None


async def _clean_cache(
    store: Store, keys: Keys, app: str, guilds: GuildCount, timeout_s: float, report: Report
) -> None:
    """Ask the leader's node to remove the application's guilds, again while nothing happens, until none is left."""
    clock = asyncio.get_running_loop().time
    began = clock()
    asked_at: float | None = None
    reported: int | None = None
    while True:
        view = await read_view(store, keys)
        entry = view.removals.get(app)
        if entry is None:
            # Another caller of this removal has finished it.
            return
        try:
            left = await guilds(entry.record.cache.namespace_of(app), app)
        except Unavailable as error:
            raise Unavailable(
                f"{error}; sandwich app remove {app} goes on, or ends with --force --keep-cache"
            ) from None
        if not left:
            return
        if left != reported:
            reported, asked_at = left, asked_at and clock()
            report(GuildsLeft(app, left))
        if asked_at is None or clock() - asked_at >= ASK_AGAIN_S:
            asked_at = clock()
            record = msgspec.structs.replace(entry.record, clean=entry.record.clean + 1)
            guard = Compare(keys.removal(app), "mod_revision", entry.mod_revision)
            await _write(store, (guard,), (Put(keys.removal(app), record.encode()),))
        if clock() - began >= timeout_s:
            raise NotReached(
                f"{left} guilds of {app} are in the cache after {round(timeout_s, 1):g} s "
                f"(a node removes them, when one leads): sandwich app remove {app} goes on"
            )
        await asyncio.sleep(POLL_S)


async def _write(store: Store, guards: tuple[Compare, ...], writes: tuple[Put | Delete, ...]) -> int:
    try:
        done = await store.txn(guards, writes)
    except StoreAmbiguous as error:
        raise OutcomeUnknown(f"whether that was stored is unknown ({error}): run it again") from None
    if not done.succeeded:
        raise Conflict("another operator changed the application at the same time: look, then try again")
    return done.revision


# --- JetStream ------------------------------------------------------------------------------------------------------


def _jetstream(client: Client) -> JetStreamContext:
    return client.jetstream(timeout=API_TIMEOUT_S)


async def _stream_content(client: Client, app: str) -> StreamContent:
    jetstream = _jetstream(client)
    with answered():
        try:
            found = await jetstream.stream_info(stream_name(app))
        except nats.js.errors.NotFoundError:
            return StreamContent(dead_letters=await _messages(jetstream, dead_stream_name(app)))
        groups = await _groups(client, app)
        letters = await _messages(jetstream, dead_stream_name(app))
    return StreamContent(found.state.messages, found.state.bytes, found.config.max_age or 0.0, letters, groups)


async def _messages(jetstream: JetStreamContext, stream: str) -> int:
    try:
        return (await jetstream.stream_info(stream)).state.messages
    except nats.js.errors.NotFoundError:
        return 0


async def _groups(client: Client, app: str) -> tuple[ReadingGroup, ...]:
    """The groups of its event stream. Frames in hand count as read, also those of a worker that has died."""
    durables = await read_durables(client, stream_name(app))
    return tuple(
        ReadingGroup(one.group, one.lag or 0, one.reads or bool(one.in_hand))
        for one in groups_of(app, durables, (), {})
    )


async def _delete_streams(client: Client, app: str) -> None:
    jetstream = _jetstream(client)
    names = (stream_name(app), dead_stream_name(app), tries_stream_name(app), replay_stream_name(app))
    with answered():
        for name in names:
            try:
                await jetstream.delete_stream(name)
            except nats.js.errors.NotFoundError:
                continue
