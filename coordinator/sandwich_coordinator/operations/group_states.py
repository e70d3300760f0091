"""How consumer groups are, from JetStream's answers. Pure.

Source: nats-server, server/jetstream_api.go and server/consumer.go: `$JS.API.CONSUMER.LIST.<stream>`. A group is a
durable of its name; an ordered one has a durable for each partition beside it, called `GROUP@N`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from sandwich_coordinator.operations.errors import NotFound, Refused
from sandwich_sdk.groups import ORDERED_MARK
from sandwich_sdk.wire import subjects

READ_LATELY_S = 60.0
"""So long frames in hand count as those of a worker that is there; longer where `ack_wait` is."""
OLDEST_OF_MAX = 32
"""Of so many durables of a group, those with the most frames, the oldest frame is looked for."""


class _Reached(msgspec.Struct, frozen=True):
    """A sequence of the stream, and when the last message was delivered or acknowledged."""

    stream_seq: int = 0
    last_active: datetime | None = None


class _Config(msgspec.Struct, frozen=True):
    """Times in nanoseconds."""

    durable_name: str = ""
    deliver_policy: str = "all"
    opt_start_seq: int = 0
    opt_start_time: datetime | None = None
    ack_wait: int = 0
    max_ack_pending: int = 0
    filter_subject: str = ""
    filter_subjects: list[str] = []
    metadata: dict[str, str] = {}


class Durable(msgspec.Struct, frozen=True):
    """A consumer of a stream, as JetStream reports it at `ts`, by the server's clock."""

    created: datetime
    ts: datetime
    config: _Config = _Config()
    delivered: _Reached = _Reached()
    ack_floor: _Reached = _Reached()
    num_pending: int = 0
    num_ack_pending: int = 0
    num_waiting: int = 0
    push_bound: bool = False

    @property
    def group(self) -> str:
        """The group that it belongs to; "": it is no durable."""
        return self.config.durable_name.partition("@")[0]

    @property
    def is_partition(self) -> bool:
        """Whether it is one of several of an ordered group."""
        return "@" in self.config.durable_name

    @property
    def filters(self) -> list[str]:
        """The subjects that it reads; empty: all of its stream."""
        return self.config.filter_subjects or [name for name in (self.config.filter_subject,) if name]

    @property
    def lag(self) -> int:
        """Frames that are not acknowledged."""
        return self.num_pending + self.num_ack_pending

    @property
    def settled(self) -> int:
        """The stream sequence up to which all of its frames are settled.

        On replicated streams `ack_floor` is 0 until the first frame is settled, wherever the durable started.
        """
        if not self.num_ack_pending:
            return self.delivered.stream_seq
        if self.config.max_ack_pending == 1:
            return self.delivered.stream_seq - 1
        return max(self.ack_floor.stream_seq, self.config.opt_start_seq - 1)

    @property
    def starts_at(self) -> float:
        """No frame of it is older, Unix seconds; 0: it began with all that the stream had."""
        if self.config.deliver_policy == "new":
            return self.created.timestamp()
        return self.config.opt_start_time.timestamp() if self.config.opt_start_time is not None else 0.0

    @property
    def is_read(self) -> bool:
        """Whether a worker reads with it: a request waits, or frames are in hand and some moved lately.

        What a worker that died had in hand remains so until another one takes it.
        """
        if self.num_waiting or self.push_bound:
            return True
        moved = [at for at in (self.delivered.last_active, self.ack_floor.last_active) if at is not None]
        if not self.num_ack_pending or not moved:
            return False
        return (self.ts - max(moved)).total_seconds() <= max(READ_LATELY_S, 2 * self.config.ack_wait / 1e9)


class DurablePage(msgspec.Struct, frozen=True):
    """One page of the consumers of a stream, of `total`."""

    total: int = 0
    consumers: list[Durable] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerGroup:
    """A consumer group of an application, or what is left of one.

    partitions    of an ordered group; 0: it is not ordered
    lane          that it reads, `*`: all; None: its filter is none of the SDK's
    lag           frames that are not acknowledged; None: it has no position, only what it left behind
    in_hand       of these, the ones that workers have received
    behind_since  when the oldest of these was stored, Unix seconds; None: there is none, or it was not looked for
    created_at    Unix seconds; None without a position
    dead_letters  its dead letters, one that is stored in parts once for each part
    replays       dead letters that were handed back to it and are not acknowledged
    reads         whether workers read with it now
    """

    app: str
    group: str
    ordered: bool = False
    partitions: int = 0
    lane: str | None = None
    lag: int | None = None
    in_hand: int = 0
    behind_since: float | None = None
    created_at: float | None = None
    dead_letters: int = 0
    replays: int = 0
    reads: bool = False


def groups_of(
    app: str, durables: Iterable[Durable], replays: Iterable[Durable], letters: Mapping[str, int]
) -> list[ConsumerGroup]:
    """The groups of an application, by name.

    `durables` of its event stream, `replays` of its replay stream, `letters`: messages by subject of its dead letters.
    """
    reading = _by_group(durables)
    replaying = _by_group(replays)
    dead = {group: count for subject, count in letters.items() if has_subjects(group := subject.rpartition(".")[2])}
    return [
        _group(app, name, reading.get(name, []), replaying.get(name, []), dead.get(name, 0))
        for name in sorted({*reading, *replaying, *dead})
    ]


def has_subjects(group: str) -> bool:
    """Whether subjects can name the group. A durable that a foreign program made may have another name.

    A dead letter can be on the literal subject `sandwich.<app>.dead.*`, which as a filter is that of all groups.
    """
    try:
        subjects.check_name(group, what="group")
    except ValueError:
        return False
    return True


def _by_group(durables: Iterable[Durable]) -> dict[str, list[Durable]]:
    found: dict[str, list[Durable]] = {}
    for durable in durables:
        if durable.group:
            found.setdefault(durable.group, []).append(durable)
    return found


def _group(app: str, name: str, of_group: list[Durable], replays: list[Durable], letters: int) -> ConsumerGroup:
    partitions = sum(one.is_partition for one in of_group)
    return ConsumerGroup(
        app=app,
        group=name,
        ordered=bool(partitions) or any(ORDERED_MARK in one.config.metadata for one in of_group),
        partitions=partitions,
        lane=_lane(app, of_group),
        lag=sum(one.lag for one in of_group) if of_group else None,
        in_hand=sum(one.num_ack_pending for one in of_group),
        created_at=min((one.created.timestamp() for one in of_group), default=None),
        dead_letters=letters,
        replays=sum(one.lag for one in replays),
        reads=any(one.is_read for one in (*of_group, *replays)),
    )


def _lane(app: str, of_group: list[Durable]) -> str | None:
    before, lanes = f"sandwich.{app}.events.", set[str]()
    for filtered in (name for one in of_group for name in one.filters):
        if not filtered.startswith(before):
            return None
        lanes.add(filtered.removeprefix(before).partition(".")[0])
    return lanes.pop() if len(lanes) == 1 else None


def to_look_at(durables: Iterable[Durable], group: str) -> list[Durable]:
    """The durables of a group of which the oldest frame is looked for."""
    behind = [one for one in durables if one.group == group and one.lag]
    return sorted(behind, key=lambda one: -one.lag)[:OLDEST_OF_MAX]


def find(group: str, groups: Iterable[ConsumerGroup]) -> ConsumerGroup:
    """The group of this name. Raises NotFound."""
    by_name = {one.group: one for one in groups}
    if group not in by_name:
        raise NotFound("consumer group", group, by_name)
    return by_name[group]


def frames(number: int) -> str:
    """A number of frames in words."""
    return f"{number} {'frame' if number == 1 else 'frames'}"


def check_unread(found: ConsumerGroup) -> None:
    """Raise Refused while workers read with the group."""
    if found.reads:
        hand = f", with {frames(found.in_hand)} in hand" if found.in_hand else ""
        raise Refused(
            f"workers read group {found.group} of {found.app} now{hand}: stop them first (one that was killed counts "
            "for a minute). --force removes it all the same, and a worker that goes on makes it again where it may"
        )
