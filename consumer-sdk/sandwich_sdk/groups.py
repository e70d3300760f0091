"""A consumer group in JetStream: finding it, making it, refusing what does not fit.

A plain group is one durable, called like the group. An ordered group has a durable for each partition of its shards
(`sharing`), and an anchor, called like the group, that delivers nothing: it says that the group is ordered, which lane
it reads and where it began. Every partition's durable begins where the anchor says, whenever it is made: a shard that
appears later loses nothing. Error codes are the server's (`nats-io/nats-server`, server/errors.json): 10013 and 10148
consumer exists, 10059 no stream.
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
from sandwich_sdk.pull_consumer import NOWHERE, Spot
from sandwich_sdk.wire import subjects

MAX_ACK_PENDING = 10_000
"""Frames of a group that may wait for their ack: JetStream's default of 1,000 stops silently with nak'd frames."""

ORDERED_MARK = "sandwich.ordered"
KEPT_MARK = "sandwich.kept"
"""The operator made the durable (`sandwich group create`): a worker asks for no change of it."""
_CONSUMER_EXISTS = (10013, 10148)
_NO_STREAM = 10059


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """What to read and how. Times in seconds; `connection` goes to nats-py as it is (credentials, TLS).

    domain   JetStream's, None: the server's own
    kept     the operator makes the group, and workers may not change it
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
        """What the subjects of JetStream's API begin with."""
        return "$JS.API" if self.domain is None else f"$JS.{self.domain}.API"

    def __repr__(self) -> str:
        return f"SourceOptions(apps={list(self.apps)}, group={self.group!r}, lane={self.lane!r})"


class Group:
    """One application's consumer group, as this worker wants it."""

    def __init__(self, jetstream: JetStreamContext, options: SourceOptions, app: str) -> None:
        self._jetstream = jetstream
        self._options = options
        self._app = app
        self._stream = subjects.stream_name(app)
        self._anchor: ConsumerInfo | None = None

    async def ensure(self, passed: Spot) -> None:
        """Find or make the plain group; what is behind `passed` is what this worker still needs.

        Raises GroupConflict, and what means "not now".
        """
        lane = subjects.lane_filter(self._app, self._options.lane)
        wanted = ConsumerConfig(filter_subject=lane, max_ack_pending=MAX_ACK_PENDING)
        await self._ensure(self._options.group, wanted, partial(self._start, passed))

    async def ensure_anchor(self) -> ConsumerConfig:
        """Find or make what says where the ordered group began. Raises GroupConflict, and what means "not now"."""
        empty = subjects.empty_filter(self._app, self._options.lane)
        wanted = ConsumerConfig(filter_subject=empty, max_ack_pending=1, metadata={ORDERED_MARK: "1"})
        self._anchor = await self._ensure(self._options.group, wanted, self._anchor_start)
        return self._anchor.config

    async def ensure_partition(self, partition: int, passed: Spot) -> None:
        """Find or make one partition's durable; `passed` as for `ensure`, and raises as it does."""
        anchor = await self.ensure_anchor()

        async def start() -> dict[str, Any]:
            return _start_of(anchor) if passed == NOWHERE else await self._start(passed)

        filters = partition_filters(self._app, self._options.lane, partition)
        wanted = ConsumerConfig(filter_subjects=filters, max_ack_pending=1)
        await self._ensure(partition_durable(self._options.group, partition), wanted, start)

    async def _start(self, passed: Spot) -> dict[str, Any]:
        info = await self._jetstream.stream_info(self._stream)
        # In hand, and the first of its stream: nothing is behind us.
        start = "all" if passed != NOWHERE and not passed.seq else self._options.start
        anew = info.created is not None and info.created.timestamp() > passed.published_ns / 1e9
        return start_policy(start, last_seen=passed.seq, anew=anew)

    async def _anchor_start(self) -> dict[str, Any]:
        info, known = await self._jetstream.stream_info(self._stream), self._anchor
        if known is not None:
            # It was deleted under us. Where it began still holds, unless the stream was deleted, too: that is all new.
            anew = info.created is not None and info.created > known.created
            return {"deliver_policy": DeliverPolicy.ALL} if anew else _start_of(known.config)
        policy = start_policy(self._options.start, last_seen=0, anew=False)
        if policy["deliver_policy"] == DeliverPolicy.NEW:
            # By number: a partition that is made later begins here, too.
            return {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": info.state.last_seq + 1}
        return policy

    async def _ensure(
        self, durable: str, wanted: ConsumerConfig, start: Callable[[], Awaitable[dict[str, Any]]]
    ) -> ConsumerInfo:
        """The durable as it is, or as it was made now. Its ack_wait follows ours. Raises GroupConflict."""
        info = await self._find(durable)
        if info is None:
            if self._options.kept:
                wanted = wanted.evolve(metadata={**(wanted.metadata or {}), KEPT_MARK: "1"})
            # Without `name` nats-py uses the legacy create subject, which permissions may not allow.
            made = wanted.evolve(
                name=durable, durable_name=durable, ack_wait=self._options.ack_wait_s, **(await start())
            )
            try:
                info = await self._jetstream.add_consumer(self._stream, made)
            except (TimeoutError, nats.errors.TimeoutError, nats.js.errors.ServiceUnavailableError) as error:
                raise nats.errors.Error(self._not_made(error)) from None
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

    def _not_made(self, error: Exception) -> str:
        app, group = self._app, self._options.group
        return (
            f"group {group!r} of {app!r} is not there and could not be made ({reason(error)}); where workers may not "
            f"make it, the operator does: sandwich group create {app} {group}"
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
                f"{group} is not ordered, its workers take what comes: leave ordered=True away, or give the ordered "
                "workers another group name"
            )
        reads, ours = _filters(present), _filters(wanted)
        if reads != ours:
            raise GroupConflict(f"{group} reads {', '.join(sorted(reads))}, not {', '.join(sorted(ours))}")
        if KEPT_MARK in (present.metadata or {}) and not self._options.kept:
            self._check_ack_wait(group, present)
        if wanted.max_ack_pending == 1 != present.max_ack_pending:
            raise GroupConflict(f"{group} has a durable made by hand without max_ack_pending 1, which keeps no order")

    def _check_ack_wait(self, group: str, present: ConsumerConfig) -> None:
        if present.ack_wait != self._options.ack_wait_s:
            raise GroupConflict(
                f"{group} was made by the operator with an ack_wait of {present.ack_wait:g} s, not "
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


def start_policy(start: str | datetime, *, last_seen: int, anew: bool) -> dict[str, Any]:
    """Where a new durable begins. One that was deleted under us goes on behind the last frame we saw.

    `anew`: the stream was made after that frame was stored, so all of it is new to us.
    """
    if (last_seen and anew) or (start == "all" and not last_seen):
        return {"deliver_policy": DeliverPolicy.ALL}
    if last_seen:
        return {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": last_seen + 1}
    if isinstance(start, datetime):
        return {"deliver_policy": DeliverPolicy.BY_START_TIME, "opt_start_time": start}
    return {"deliver_policy": DeliverPolicy.NEW}
