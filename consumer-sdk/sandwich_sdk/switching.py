"""When an ordered group may acknowledge a `switch` frame. Pure.

A new shard group goes on with a guild where the old one ends, on another shard and so perhaps in another partition. The
first frame of each new chain is a `switch` frame. The partition's durable delivers nothing behind it until it is
acknowledged. So the worker that has it keeps it until the group has settled every old frame that it names.

There is no deadlock. A `switch` frame waits only for frames with smaller stream sequences than its own. Such a frame is
handled, becomes a dead letter, or is a `switch` frame that waits for smaller ones; the smallest waits for none.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from sandwich_sdk.partitioning import partition_of
from sandwich_sdk.progress import FrameKey
from sandwich_sdk.wire.switch import Switch

MISSING_MAX_S = 60.0
"""A partition without a durable for so long has no reader: workers look for new shards each 10 s (`ordered`)."""


@dataclass(frozen=True, slots=True)
class OldChain:
    """The frames of an old shard that come before a `switch` frame: those with a stream sequence below `end`."""

    group: int
    shard: int
    end: int

    @property
    def partition(self) -> int:
        """The partition that delivers these frames."""
        return partition_of(self.shard)


def old_chains(switch: Switch, stream_seq: int) -> frozenset[OldChain]:
    """What a `switch` frame with this stream sequence comes after: nothing behind itself, whatever it names."""
    return frozenset(OldChain(switch.old_group, shard, min(end, stream_seq)) for shard, end in switch.after.items())


class PartitionState(NamedTuple):
    """How far a partition's durable is.

    settled  stream sequence up to which all frames of the partition are settled
    in_hand  a worker has the next frame
    """

    settled: int
    in_hand: bool


@dataclass(slots=True)
class Switches:
    """The `switch` frames that a worker keeps, each with what it still comes after.

    For each of `partitions`, call `answered` or `missing`. While that, or `found`, returns a chain, look up the chain's
    first frame that is not settled and call `found`. Then acknowledge what `take_settled` returns.
    """

    _frames: dict[FrameKey, int] = field(default_factory=dict)
    _chains: dict[int, dict[OldChain, set[FrameKey]]] = field(default_factory=dict)
    _missing_since: dict[int, float] = field(default_factory=dict)

    def keep(self, frame: FrameKey, chains: frozenset[OldChain]) -> None:
        """This worker has a `switch` frame that comes after these chains."""
        if frame in self._frames:
            return
        self._frames[frame] = len(chains)
        for chain in chains:
            self._chains.setdefault(chain.partition, {}).setdefault(chain, set()).add(frame)

    @property
    def frames(self) -> frozenset[FrameKey]:
        """The frames that are kept."""
        return frozenset(self._frames)

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions whose state is needed."""
        return frozenset(self._chains)

    def answered(self, partition: int, state: PartitionState) -> OldChain | None:
        """The partition's state. Returns a chain to look up.

        One is looked up only while no worker has a frame: then `settled` is the last frame that was delivered. It stays
        below the chain's end where no frame follows on this lane, or those that followed were removed from the stream.
        """
        self._missing_since.pop(partition, None)
        chains = list(self._chains.get(partition, ()))
        self._settle(partition, [chain for chain in chains if state.settled >= chain.end - 1])
        return None if state.in_hand else self._first_of(partition)

    def found(self, chain: OldChain, seq: int | None) -> OldChain | None:
        """The stream sequence of the chain's first frame that is not settled; None: it has none. Returns as above."""
        if seq is not None and seq < chain.end:
            return None
        self._settle(chain.partition, [chain])
        return self._first_of(chain.partition)

    def missing(self, partition: int, now: float) -> bool:
        """The partition has no durable. True: it had none for `MISSING_MAX_S` and is not waited for any more.

        `now`: seconds of a monotonic clock, the same one in all calls.
        """
        if now - self._missing_since.setdefault(partition, now) < MISSING_MAX_S:
            return False
        del self._missing_since[partition]
        self._settle(partition, list(self._chains.get(partition, ())))
        return True

    def take_settled(self) -> frozenset[FrameKey]:
        """The frames that wait for nothing any more. They are forgotten."""
        settled = frozenset(frame for frame, waits_for in self._frames.items() if not waits_for)
        for frame in settled:
            del self._frames[frame]
        return settled

    def _first_of(self, partition: int) -> OldChain | None:
        return next(iter(self._chains.get(partition, ())), None)

    def _settle(self, partition: int, settled: Iterable[OldChain]) -> None:
        chains = self._chains.get(partition, {})
        for chain in settled:
            for frame in chains.pop(chain):
                self._frames[frame] -= 1
        if not chains:
            self._chains.pop(partition, None)
