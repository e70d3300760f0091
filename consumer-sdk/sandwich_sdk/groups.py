"""A consumer group in JetStream: find it, create it, refuse settings that do not match.

A plain group is one durable with the group's name. An ordered group has a durable for each partition of its shards
(`partitioning`), and an anchor: a durable with the group's name that delivers nothing. The anchor records that the
group is ordered, which lane it reads and where it started. Each partition's durable starts where the anchor started,
even if it is created later, so that a new shard loses no event. Error codes are the server's (`nats-io/nats-server`,
server/errors.json): 10013 and 10148 consumer exists, 10059 no stream.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, ConsumerInfo, DeliverPolicy

from sandwich_sdk.errors import GroupConflict, reason
from sandwich_sdk.partitioning import partition_durable, partition_filters
from sandwich_sdk.pull_consumer import NOWHERE, StreamPosition
from sandwich_sdk.switching import OldChain, PartitionState
from sandwich_sdk.wire import subjects

MAX_ACK_PENDING = 10_000
"""Frames of a group that may be unacknowledged. At JetStream's default, 1,000 nak'd frames silently stop a group."""

ORDERED_MARK = "sandwich.ordered"
KEPT_MARK = "sandwich.kept"
"""The operator created the durable (`sandwich group create`): workers do not change it."""
_CONSUMER_EXISTS = (10013, 10148)
_NO_STREAM = 10059


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """What to read and how. Times in seconds; `connection` goes to nats-py as it is (credentials, TLS).

    domain   JetStream domain; None: the domain of the server
    kept     the operator creates the group, and workers may not change it
    """

    servers: Sequence[str]
    apps: Sequence[str]
    group: str
    lane: str
    start: str | datetime
    ack_wait_s: float
    connect_timeout_s: float | None
    connection: Mapping[str, Any]
    ordered: bool = False
    domain: str | None = None
    kept: bool = False

    @property
    def api(self) -> str:
        """Prefix of the subjects of JetStream's API."""
        return "$JS.API" if self.domain is None else f"$JS.{self.domain}.API"

    def __repr__(self) -> str:
        return f"SourceOptions(apps={list(self.apps)}, group={self.group!r}, lane={self.lane!r})"


class Group:
    """One application's consumer group, with this worker's options."""

    def __init__(self, jetstream: JetStreamContext, options: SourceOptions, app: str) -> None:
        self._jetstream = jetstream
        self._options = options
        self._app = app
        self._stream = subjects.stream_name(app)
        self._anchor: ConsumerInfo | None = None

    async def ensure(self, ack_floor: StreamPosition) -> None:
        """Find or create the plain group. A group that was deleted is created again to start behind `ack_floor`.

        Raises GroupConflict, and an error of `LOST` when it has to be tried again.
        """
        lane = subjects.lane_filter(self._app, self._options.lane)
        wanted = ConsumerConfig(filter_subject=lane, max_ack_pending=MAX_ACK_PENDING)
        await self._ensure(self._options.group, wanted, partial(self._start, ack_floor))

    async def ensure_anchor(self) -> ConsumerConfig:
        """Find or create the anchor of the ordered group. Raises as `ensure` does."""
        empty = subjects.empty_filter(self._app, self._options.lane)
        wanted = ConsumerConfig(filter_subject=empty, max_ack_pending=1, metadata={ORDERED_MARK: "1"})
        self._anchor = await self._ensure(self._options.group, wanted, self._anchor_start)
        return self._anchor.config

    async def ensure_partition(self, partition: int, ack_floor: StreamPosition) -> None:
        """Find or create the durable of one partition. `ack_floor` and errors are as in `ensure`."""
        anchor = await self.ensure_anchor()

        async def start() -> dict[str, Any]:
            return _start_of(anchor) if ack_floor == NOWHERE else await self._start(ack_floor)

        filters = partition_filters(self._app, self._options.lane, partition)
        wanted = ConsumerConfig(filter_subjects=filters, max_ack_pending=1)
        await self._ensure(partition_durable(self._options.group, partition), wanted, start)

    async def partition_state(self, partition: int) -> PartitionState | None:
        """How far a partition's durable is; None if there is none. Raises an error of `LOST`."""
        info = await self._find(partition_durable(self._options.group, partition))
        if info is None:
            return None
        assert info.delivered is not None
        # Not `ack_floor`: on replicated streams it is 0 until the first frame is settled, wherever the durable started.
        last = info.delivered.stream_seq
        return PartitionState(last - 1, in_hand=True) if info.num_ack_pending else PartitionState(last, in_hand=False)

    async def first_behind(self, seq: int, chain: OldChain) -> int | None:
        """The stream sequence of a chain's first frame behind `seq`, on the group's lane; None: there is none.

        Raises an error of `LOST`.
        """
        subject = subjects.shard_filter(self._app, self._options.lane, chain.shard, group=chain.group)
        try:
            found = await self._jetstream.get_msg(self._stream, seq=seq + 1, subject=subject, next=True)
        except nats.js.errors.NotFoundError:
            return None
        return found.seq

    async def _start(self, ack_floor: StreamPosition) -> dict[str, Any]:
        info = await self._jetstream.stream_info(self._stream)
        # The first frame of the stream is unacknowledged: start at the beginning.
        start = "all" if ack_floor != NOWHERE and not ack_floor.seq else self._options.start
        stream_is_new = info.created is not None and info.created.timestamp() > ack_floor.published_ns / 1e9
        return start_policy(start, last_seen=ack_floor.seq, stream_is_new=stream_is_new)

    async def _anchor_start(self) -> dict[str, Any]:
        info, known = await self._jetstream.stream_info(self._stream), self._anchor
        if known is not None:
            # The anchor was deleted while we ran. Its start is still valid, unless the stream is new as well.
            stream_is_new = info.created is not None and info.created > known.created
            return {"deliver_policy": DeliverPolicy.ALL} if stream_is_new else _start_of(known.config)
        policy = start_policy(self._options.start, last_seen=0, stream_is_new=False)
        if policy["deliver_policy"] == DeliverPolicy.NEW:
            # As a sequence, so that a partition that is created later starts here, too.
            return {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": info.state.last_seq + 1}
        return policy

    async def _ensure(
        self, durable: str, wanted: ConsumerConfig, start: Callable[[], Awaitable[dict[str, Any]]]
    ) -> ConsumerInfo:
        """The durable, created if it is missing. Its ack_wait is set to ours. Raises GroupConflict."""
        info = await self._find(durable)
        if info is None:
            if self._options.kept:
                wanted = wanted.evolve(metadata={**(wanted.metadata or {}), KEPT_MARK: "1"})
            # Without `name` nats-py uses the legacy create subject, which permissions may not allow.
            created = wanted.evolve(
                name=durable, durable_name=durable, ack_wait=self._options.ack_wait_s, **(await start())
            )
            try:
                info = await self._jetstream.add_consumer(self._stream, created)
            except (TimeoutError, nats.errors.TimeoutError, nats.js.errors.ServiceUnavailableError) as error:
                raise nats.errors.Error(self._not_created(error)) from None
            except nats.js.errors.APIError as error:
                if error.err_code not in _CONSUMER_EXISTS:
                    raise
                info = await self._jetstream.consumer_info(self._stream, durable)
        assert info is not None
        self._check(info.config, wanted)
        metadata = info.config.metadata or {}
        keeps = self._options.kept and KEPT_MARK not in metadata
        if info.config.ack_wait != self._options.ack_wait_s or keeps:
            if self._options.kept:
                metadata = {**metadata, KEPT_MARK: "1"}
            changed = info.config.evolve(name=durable, ack_wait=self._options.ack_wait_s, metadata=metadata)
            info = await self._jetstream.add_consumer(self._stream, changed)
        return info

    def _not_created(self, error: Exception) -> str:
        app, group = self._app, self._options.group
        return (
            f"group {group!r} of {app!r} does not exist and could not be created ({reason(error)}); where workers may "
            f"not create it, the operator does: sandwich group create {app} {group}"
        )

    async def _find(self, durable: str) -> ConsumerInfo | None:
        try:
            found: ConsumerInfo = await self._jetstream.consumer_info(self._stream, durable)
        except nats.js.errors.NotFoundError as error:
            if error.err_code == _NO_STREAM:
                raise
            return None
        return found

    def _check(self, present: ConsumerConfig, wanted: ConsumerConfig) -> None:
        group = f"group {self._options.group!r} of {self._app!r}"
        if _is_ordered(present) and not _is_ordered(wanted):
            raise GroupConflict(
                f"{group} is ordered: give every worker of it ordered=True, or this one another group name"
            )
        if _is_ordered(wanted) and not _is_ordered(present):
            raise GroupConflict(
                f"{group} is not ordered: leave out ordered=True, or give the ordered workers another group name"
            )
        present_filters, own_filters = _filters(present), _filters(wanted)
        if present_filters != own_filters:
            raise GroupConflict(
                f"{group} reads {', '.join(sorted(present_filters))}, not {', '.join(sorted(own_filters))}"
            )
        if KEPT_MARK in (present.metadata or {}) and not self._options.kept:
            self._check_ack_wait(group, present)
        if wanted.max_ack_pending == 1 != present.max_ack_pending:
            raise GroupConflict(
                f"{group} has a durable without max_ack_pending 1, created by another program; it keeps no order"
            )

    def _check_ack_wait(self, group: str, present: ConsumerConfig) -> None:
        if present.ack_wait != self._options.ack_wait_s:
            raise GroupConflict(
                f"{group} was created by the operator with an ack_wait of {present.ack_wait:g} s, not "
                f"{self._options.ack_wait_s:g} s: give every worker ack_wait={present.ack_wait:g}, or have the "
                "operator run sandwich group create again with another --ack-wait"
            )


def _is_ordered(config: ConsumerConfig) -> bool:
    return ORDERED_MARK in (config.metadata or {})


def _filters(config: ConsumerConfig) -> frozenset[str]:
    return frozenset(config.filter_subjects or [config.filter_subject or "everything"])


def _start_of(config: ConsumerConfig) -> dict[str, Any]:
    return {
        "deliver_policy": config.deliver_policy,
        "opt_start_seq": config.opt_start_seq,
        "opt_start_time": config.opt_start_time,
    }


def start_policy(start: str | datetime, *, last_seen: int, stream_is_new: bool) -> dict[str, Any]:
    """Where a new durable starts. If it was deleted while we ran, it starts behind the last frame that we received.

    `stream_is_new`: the stream was created after that frame was stored, so that all its frames are new to us.
    """
    if (last_seen and stream_is_new) or (start == "all" and not last_seen):
        return {"deliver_policy": DeliverPolicy.ALL}
    if last_seen:
        return {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": last_seen + 1}
    if isinstance(start, datetime):
        return {"deliver_policy": DeliverPolicy.BY_START_TIME, "opt_start_time": start}
    return {"deliver_policy": DeliverPolicy.NEW}
