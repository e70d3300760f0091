"""How the workers of an ordered group divide its shards. Pure.

JetStream keeps the order: each partition has a durable that delivers one frame at a time, to any worker that requests
it, and the next one only when that frame is settled. This module decides which worker requests which partition, so that
each partition has one worker, and all workers have about as many. If workers disagree for a moment, only the load is
uneven.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from sandwich_sdk.wire import subjects

PARTITIONS = 32
"""Partitions in each range of shard ids. A bot with no more shards than this has one partition for each shard."""

RANGE_SHARDS = 256
"""Shard ids that one range of partitions covers; ids beyond it have partitions of their own."""

PARTITIONS_MAX = 4096
"""Upper bound for partition numbers; a heartbeat that names a larger one is ignored."""

SILENT_MAX_S = 3.5
"""A worker that sent no heartbeat for so long is gone."""


def partition_of(shard: int) -> int:
    """The number of the partition that a shard id belongs to. It does not change when the bot is rescaled."""
    return shard // RANGE_SHARDS * PARTITIONS + shard % PARTITIONS


def partition_filters(app: str, lane: str, partition: int) -> list[str]:
    """The subjects of a partition's shards, in every shard group."""
    first = partition // PARTITIONS * RANGE_SHARDS + partition % PARTITIONS
    return [subjects.shard_filter(app, lane, first + step) for step in range(0, RANGE_SHARDS, PARTITIONS)]


def partition_durable(group: str, partition: int) -> str:
    """A partition's durable. No group can have this name: group names contain no `@`."""
    return f"{group}@{partition}"


def partitions_in(stream_subjects: Iterable[str]) -> frozenset[int]:
    """The partitions of these subjects."""
    shards = (subject.rpartition(".")[2] for subject in stream_subjects)
    return frozenset(partition_of(int(shard)) for shard in shards if shard.isdecimal())


_Partition = Annotated[int, msgspec.Meta(ge=0, lt=PARTITIONS_MAX)]


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker sends to the others once a second.

    busy        frames wait in it and no handler is free: the others take its partitions
    left        it leaves now
    partitions  the partitions that it knows
    """

    worker: str
    busy: bool = False
    left: bool = False
    partitions: list[_Partition] = []
    v: int = 1


@dataclass(slots=True)
class _Peer:
    received_at: float
    busy: bool


@dataclass(slots=True)
class GroupMembership:
    """The workers of the group and its partitions. `now`: seconds of a monotonic clock, the same one in all calls."""

    worker: str
    busy: bool = False
    partitions: frozenset[int] = frozenset()
    _peers: dict[str, _Peer] = field(default_factory=dict)

    def receive(self, heartbeat: Heartbeat, now: float) -> bool:
        """Process a heartbeat. True: the worker is new to us, and may not know us."""
        if heartbeat.worker == self.worker:
            return False
        self.partitions |= frozenset(heartbeat.partitions)
        if heartbeat.left:
            self._peers.pop(heartbeat.worker, None)
            return False
        is_new = heartbeat.worker not in self._peers
        self._peers[heartbeat.worker] = _Peer(now, heartbeat.busy)
        return is_new

    def remove_silent(self, now: float) -> None:
        """Remove the workers that sent no heartbeat for `SILENT_MAX_S`."""
        for worker, peer in list(self._peers.items()):
            if now - peer.received_at > SILENT_MAX_S:
                del self._peers[worker]

    @property
    def can_hand_over(self) -> bool:
        """Whether this worker is busy and another one is not."""
        return self.busy and not all(peer.busy for peer in self._peers.values())

    def own_partitions(self) -> frozenset[int]:
        """The partitions whose frames this worker requests."""
        workers = {self.worker: self.busy} | {worker: peer.busy for worker, peer in self._peers.items()}
        return assigned_partitions(self.partitions, workers, self.worker)

    def heartbeat(self, *, left: bool = False) -> Heartbeat:
        """The heartbeat that this worker sends."""
        return Heartbeat(worker=self.worker, busy=self.busy, left=left, partitions=sorted(self.partitions))


def assigned_partitions(partitions: Iterable[int], workers: Mapping[str, bool], worker: str) -> frozenset[int]:
    """One worker's partitions: dealt out in turn to the workers that are not busy (all, if all are), by name."""
    takers = sorted(name for name, busy in workers.items() if not busy) or sorted(workers)
    return frozenset(
        partition for turn, partition in enumerate(sorted(partitions)) if takers[turn % len(takers)] == worker
    )
