"""Consumer groups: list them, remove one, and make one for consumers whose NATS rights allow none to be made."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext

from sandwich_coordinator.operations import group_states
from sandwich_coordinator.operations.dead_letters import open_replays
from sandwich_coordinator.operations.errors import Invalid, NotFound, Refused
from sandwich_coordinator.operations.group_states import ConsumerGroup, Durable, DurablePage
from sandwich_coordinator.operations.jetstream_api import API_TIMEOUT_S, answered
from sandwich_sdk.errors import GroupConflict
from sandwich_sdk.groups import Group, SourceOptions
from sandwich_sdk.partitioning import PARTITIONS
from sandwich_sdk.partitioning import RANGE_SHARDS as RANGE_SHARDS
from sandwich_sdk.pull_consumer import NOWHERE
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.subjects import DEFAULT_LANE, check_lane, check_name, stream_name

PAGES_MAX = 64
"""Of at most 256 durables each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSpec:
    """A consumer group as it is to be. Raises Invalid for a group or lane that cannot be one.

    start       where a new group begins: with new events, all that are kept, or those since a time
    ack_wait_s  the workers' own; seconds
    shards      an ordered group has durables for this many shards
    """

    app: str
    group: str
    ordered: bool = False
    lane: str = DEFAULT_LANE
    start: Literal["new", "all"] | datetime = "new"
    ack_wait_s: float = 30.0
    shards: int = RANGE_SHARDS

    def __post_init__(self) -> None:
        try:
            check_name(self.group, what="group")
            check_lane(self.lane)
        except ValueError as error:
            raise Invalid(str(error)) from None


async def create_group(client: Client, spec: GroupSpec) -> None:
    """Make everything that a worker of the group needs, or follow a changed `ack_wait_s` or `shards`.

    Raises Refused, NotFound when the application has no stream yet, and Unavailable.
    """
    group = Group(client.jetstream(timeout=API_TIMEOUT_S), _options(spec), spec.app)
    with answered():
        try:
            if spec.ordered:
                for partition in range(-(-spec.shards // RANGE_SHARDS) * PARTITIONS):
                    await group.ensure_partition(partition, NOWHERE)
            else:
                await group.ensure(NOWHERE)
        except GroupConflict as error:
            raise Refused(str(error)) from None
        except nats.js.errors.NotFoundError:
            stream = stream_name(spec.app)
            missing = f"stream {stream} is not there yet: a node makes it with the first shard"
            raise NotFound("stream", stream, (), missing) from None
    await open_replays(client, spec.app, spec.group)


def _options(spec: GroupSpec) -> SourceOptions:
    return SourceOptions(
        servers=(),
        apps=(spec.app,),
        group=spec.group,
        lane=spec.lane,
        start=spec.start,
        ack_wait_s=spec.ack_wait_s,
        connect_timeout_s=None,
        connection={},
        ordered=spec.ordered,
        kept=True,
    )


# --- listing and removing -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """The durables of an application's groups, and what else the groups have."""

    durables: Sequence[Durable]
    replays: Sequence[Durable]
    groups: Sequence[ConsumerGroup]


async def list_groups(client: Client, app: str) -> list[ConsumerGroup]:
    """The groups of an application, by name; none when it has no stream. Raises Refused and Unavailable."""
    found = await _read(client, app)
    return [
        replace(one, behind_since=await _behind_since(client, app, found.durables, one.group)) for one in found.groups
    ]


async def find_group(client: Client, app: str, group: str) -> ConsumerGroup:
    """One group, without `behind_since`. Raises NotFound, Refused and Unavailable."""
    return group_states.find(group, (await _read(client, app)).groups)


async def remove_group(client: Client, app: str, group: str, *, force: bool = False) -> ConsumerGroup:
    """Remove a group for good: its position, dead letters, replays and tries. Returns the group as it was.

    `force`: also while workers read with it. What is left of a removal that failed in the middle is still a group, so
    that the same call goes on. Raises NotFound; Refused while workers read with it; Unavailable.
    """
    found = await _read(client, app)
    removed = group_states.find(group, found.groups)
    if not force:
        group_states.check_unread(removed)
    jetstream = client.jetstream(timeout=API_TIMEOUT_S)
    of_group = [one for one in found.durables if one.group == group]
    with answered():
        await _delete(jetstream, stream_name(app), (one for one in of_group if one.is_partition))
        await _delete(jetstream, subjects.replay_stream_name(app), (one for one in found.replays if one.group == group))
        if group_states.has_subjects(group):
            await _purge(jetstream, subjects.replay_stream_name(app), subjects.replay_subject(app, group, "*"))
            await _purge(jetstream, subjects.tries_stream_name(app), subjects.tries_subject(app, group, "*"))
            await _purge(jetstream, subjects.dead_stream_name(app), subjects.dead_subject(app, group))
        # Last: as long as something else is left, the group is listed.
        await _delete(jetstream, stream_name(app), (one for one in of_group if not one.is_partition))
    return removed


async def _delete(jetstream: JetStreamContext, stream: str, durables: Iterable[Durable]) -> None:
    for one in durables:
        try:
            await jetstream.delete_consumer(stream, one.config.durable_name)
        except nats.js.errors.NotFoundError:
            continue


async def _purge(jetstream: JetStreamContext, stream: str, subject: str) -> None:
    try:
        await jetstream.purge_stream(stream, subject=subject)
    except nats.js.errors.NotFoundError:
        return


async def read_durables(client: Client, stream: str) -> list[Durable]:
    """The consumers of a stream; none when it does not exist. Raises Refused and Unavailable."""
    found: list[Durable] = []
    with answered():
        for _ in range(PAGES_MAX):
            request = msgspec.json.encode({"offset": len(found)})
            # Not by nats-py: it leaves out the server's time.
            answer = await client.request(f"$JS.API.CONSUMER.LIST.{stream}", request, timeout=API_TIMEOUT_S)
            try:
                page = _page(answer.data)
            except nats.js.errors.NotFoundError:
                return []
            found += page.consumers
            if not page.consumers or len(found) >= page.total:
                break
    return found


def _page(answer: bytes) -> DurablePage:
    """Raises nats-py's error for one that JetStream answers, or for an answer that cannot be read."""
    try:
        if error := msgspec.json.decode(answer, type=dict[str, msgspec.Raw]).get("error"):
            raise nats.js.errors.APIError.from_error(msgspec.json.decode(error))
        return msgspec.json.decode(answer, type=DurablePage)
    except msgspec.MsgspecError as error:
        raise nats.errors.Error(f"its list of consumers cannot be read ({error})") from None


async def _read(client: Client, app: str) -> _Found:
    durables = await read_durables(client, stream_name(app))
    replays = await read_durables(client, subjects.replay_stream_name(app))
    jetstream = client.jetstream(timeout=API_TIMEOUT_S)
    with answered():
        try:
            every = subjects.dead_subject(app, "*")
            info = await jetstream.stream_info(subjects.dead_stream_name(app), subjects_filter=every)
            letters = info.state.subjects or {}
        except nats.js.errors.NotFoundError:
            letters = {}
    return _Found(durables, replays, group_states.groups_of(app, durables, replays, letters))


async def _behind_since(client: Client, app: str, durables: Sequence[Durable], group: str) -> float | None:
    """When the group's oldest frame that is not acknowledged was stored. Raises Refused and Unavailable."""
    jetstream = client.jetstream(timeout=API_TIMEOUT_S)
    looks: list[asyncio.Task[float | None]] = []
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            for one in group_states.to_look_at(durables, group):
                looks.append(tasks.create_task(_oldest(jetstream, app, one)))
    except* (nats.errors.Error, TimeoutError, OSError) as failed:
        failure = failed.exceptions[0]
    with answered():
        if failure is not None:
            raise failure
    return min((at for look in looks if (at := look.result()) is not None), default=None)


async def _oldest(jetstream: JetStreamContext, app: str, durable: Durable) -> float | None:
    """When a durable's oldest frame that is not settled was stored."""
    times: list[float] = []
    for subject in durable.filters or subjects.stream_subjects(app):
        try:
            found = await jetstream.get_msg(stream_name(app), seq=durable.settled + 1, subject=subject, next=True)
        except nats.js.errors.NotFoundError:
            continue
        if found.time is not None:
            times.append(found.time.timestamp())
    return max(min(times), durable.starts_at) if times else None
