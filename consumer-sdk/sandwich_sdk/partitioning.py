"""How the workers of an ordered group share its shards. Pure.

Order is JetStream's doing: a group reads each of its partitions through a durable of its own that gives out one frame
at a time, to whichever worker asks, and the next one only when that one is settled. What is decided here is who asks,
so that every partition has one worker that does, and all have about as many. Workers that disagree for a moment cost
nothing but evenness.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from sandwich_sdk.wire import subjects

PARTITIONS = 32
"""Partitions in each range of shard ids: bots with up to so many shards have one for each shard."""

RANGE_SHARDS = 256
"""Shard ids that one range of partitions covers; ids beyond it have partitions of their own."""

PARTITIONS_MAX = 4096
"""A beat that names others is not believed."""

SILENT_MAX_S = 3.5
"""A worker that was not heard for so long is gone."""


def partition_of(shard: int) -> int:
    """The number of the partition that a shard id belongs to. It does not change when the bot is rescaled."""
    return shard // RANGE_SHARDS * PARTITIONS + shard % PARTITIONS


def partition_filters(app: str, lane: str, partition: int) -> list[str]:
    """The subjects of a partition's shards, in every shard group."""
    first = partition // PARTITIONS * RANGE_SHARDS + partition % PARTITIONS
    return [subjects.shard_filter(app, lane, first + step) for step in range(0, RANGE_SHARDS, PARTITIONS)]


def partition_durable(group: str, partition: int) -> str:
    """A partition's durable. No group can be called so: `@` is not allowed in its name."""
    return f"{group}@{partition}"


def partitions_in(stream_subjects: Iterable[str]) -> frozenset[int]:
    """The partitions that hold any of these subjects of a stream."""
    shards = (subject.rpartition(".")[2] for subject in stream_subjects)
    return frozenset(partition_of(int(shard)) for shard in shards if shard.isdecimal())


_Partition = Annotated[int, msgspec.Meta(ge=0, lt=PARTITIONS_MAX)]


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker tells the others, once a second.

    busy        frames wait for it, and nobody can begin with them: the others take its share
    left        it goes now
    partitions  the partitions that it knows of
    """

    worker: str
    busy: bool = False
    left: bool = False
    partitions: list[_Partition] = []
    v: int = 1


@dataclass(slots=True)
class _Peer:
    heard_at: float
    busy: bool


@dataclass(slots=True)
class Roster:
    """Who shares the group's partitions with us, and which there are. `now`: any clock in seconds, always the same."""

    me: str
    busy: bool = False
    partitions: frozenset[int] = frozenset()
    _peers: dict[str, _Peer] = field(default_factory=dict)

    def hear(self, beat: Beat, now: float) -> bool:
        """Take in a beat. True: we did not know this worker, and it may not know us."""
        if beat.worker == self.me:
            return False
        self.partitions |= frozenset(beat.partitions)
        if beat.left:
            self._peers.pop(beat.worker, None)
            return False
        fresh = beat.worker not in self._peers
        self._peers[beat.worker] = _Peer(now, beat.busy)
        return fresh

    def forget_silent(self, now: float) -> None:
        """Workers that were not heard for `SILENT_MAX_S` are gone."""
        for worker, peer in list(self._peers.items()):
            if now - peer.heard_at > SILENT_MAX_S:
                del self._peers[worker]

    @property
    def relieved(self) -> bool:
        """Whether we are busy and somebody is there who is not."""
        return self.busy and not all(peer.busy for peer in self._peers.values())

    def mine(self) -> frozenset[int]:
        """The partitions whose frames we ask for."""
        workers = {self.me: self.busy} | {worker: peer.busy for worker, peer in self._peers.items()}
        return share(self.partitions, workers, self.me)

    def beat(self, *, left: bool = False) -> Beat:
        """What we tell."""
        return Beat(worker=self.me, busy=self.busy, left=left, partitions=sorted(self.partitions))


def share(partitions: Iterable[int], workers: Mapping[str, bool], me: str) -> frozenset[int]:
    """One worker's partitions: dealt out in turn to those that are not busy (all, when all are), by their names."""
    takers = sorted(worker for worker, busy in workers.items() if not busy) or sorted(workers)
    return frozenset(partition for turn, partition in enumerate(sorted(partitions)) if takers[turn % len(takers)] == me)
