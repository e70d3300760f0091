"""Consumer groups that the operator makes, for consumers that may make none, and the NATS accounts for that."""

from collections.abc import Sequence
from datetime import datetime

import nats.errors
import nats.js.errors
from nats.aio.client import Client

from sandwich_coordinator.cli import accounts, letters
from sandwich_coordinator.cli.connection import Connection
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.messaging import connect, find_messaging
from sandwich_sdk.errors import GroupConflict, reason
from sandwich_sdk.groups import Group, SourceOptions
from sandwich_sdk.partitioning import PARTITIONS
from sandwich_sdk.partitioning import RANGE_SHARDS as RANGE_SHARDS
from sandwich_sdk.pull_consumer import NOWHERE
from sandwich_sdk.wire.subjects import check_lane, check_name, stream_name


def group_options(app: str, group: str, *, ordered: bool, lane: str, start: str, ack_wait_s: float) -> SourceOptions:
    """What the command line says of a group. Raises CommandError."""
    try:
        return SourceOptions(
            servers=(),
            apps=(app,),
            group=check_name(group, what="group"),
            lane=check_lane(lane),
            start=start if start in ("new", "all") else _time(start),
            ack_wait_s=ack_wait_s,
            connect_timeout_s=None,
            connection={},
            ordered=ordered,
            kept=True,
        )
    except ValueError as error:
        raise CommandError(str(error)) from None


def _time(text: str) -> datetime:
    """Raises ValueError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--start {text!r} is neither new nor all nor a time such as 2026-01-31T12:00:00Z") from None
    if found.tzinfo is None:
        raise ValueError(f"--start {text!r} has no time zone: add Z or +02:00")
    return found


async def create(connection: Connection, options: SourceOptions, shards: int) -> None:
    messaging = await find_messaging(connection, options.apps[0])
    async with connect(messaging) as client:
        await create_group(client, options, shards)


async def create_group(client: Client, options: SourceOptions, shards: int = RANGE_SHARDS) -> None:
    """Make everything that a worker of the group needs. Raises CommandError."""
    (app,) = options.apps
    group = Group(client.jetstream(timeout=letters.API_TIMEOUT_S), options, app)
    try:
        if options.ordered:
            for partition in range(-(-shards // RANGE_SHARDS) * PARTITIONS):
                await group.ensure_partition(partition, NOWHERE)
        else:
            await group.ensure(NOWHERE)
    except GroupConflict as error:
        raise CommandError(str(error), 1) from None
    except nats.js.errors.NotFoundError:
        raise CommandError(
            f"stream {stream_name(app)} is not there yet: a node makes it with the first shard", 1
        ) from None
    except nats.js.errors.APIError as error:
        raise CommandError(f"JetStream refused: {error.description or error.code}", 1) from None
    except (nats.errors.Error, TimeoutError, OSError) as error:
        raise CommandError(f"NATS does not answer: {reason(error)}") from None
    await letters.open_replays(client, app, options.group)


def config_text(apps: Sequence[str], store: str, listen: str) -> str:
    """A configuration for nats-server with an account for each application. Raises CommandError."""
    if any(char in text for text in (store, listen) for char in '"\n\\'):
        raise CommandError("--store and --listen may hold no quotes, backslashes or line breaks")
    try:
        return accounts.server_config(apps, store=store, listen=listen)
    except ValueError as error:
        raise CommandError(str(error)) from None
