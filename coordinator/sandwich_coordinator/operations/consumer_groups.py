"""Consumer groups that the operator makes, for consumers whose NATS rights allow none to be made."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import nats.js.errors
from nats.aio.client import Client

from sandwich_coordinator.operations.dead_letters import open_replays
from sandwich_coordinator.operations.errors import Invalid, NotFound, Refused
from sandwich_coordinator.operations.jetstream_api import API_TIMEOUT_S, answered
from sandwich_sdk.errors import GroupConflict
from sandwich_sdk.groups import Group, SourceOptions
from sandwich_sdk.partitioning import PARTITIONS
from sandwich_sdk.partitioning import RANGE_SHARDS as RANGE_SHARDS
from sandwich_sdk.pull_consumer import NOWHERE
from sandwich_sdk.wire.subjects import DEFAULT_LANE, check_lane, check_name, stream_name


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
