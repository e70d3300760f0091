"""When an ordered group goes on behind the shards of the group before."""

import itertools
import random
from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandwich_sdk.partitioning import partition_of
from sandwich_sdk.progress import FrameKey
from sandwich_sdk.switching import MISSING_MAX_S, OldChain, PartitionState, Switches, old_chains
from sandwich_sdk.wire.headers import WireError
from sandwich_sdk.wire.switch import SHARDS_MAX, Switch

FRAME: FrameKey = ("S", 90, 1)
LATER: FrameKey = ("S", 95, 1)


def keeping(**after: int) -> Switches:
    switches = Switches()
    switches.keep(FRAME, old_chains(Switch(old_group=1, after={int(k[1:]): end for k, end in after.items()}), 90))
    return switches


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"from":1}',
        b'{"after":{}}',
        b'{"from":1,"after":[]}',
        b'{"from":1,"after":{"x":1}}',
        b'{"from":1,"after":{"0":-1}}',
        b'{"from":1,"after":{"0":1.5}}',
        b'{"from":-1,"after":{}}',
        b'{"from":1,"after":{"%d":1}}' % SHARDS_MAX,
    ],
)
def test_a_switch_that_cannot_be_read_is_a_wire_error(payload: bytes) -> None:
    with pytest.raises(WireError, match="bad switch frame"):
        Switch.decode(payload)


def test_a_frame_waits_until_each_of_its_partitions_has_settled_what_is_below_the_end() -> None:
    switches = keeping(s0=40, s1=50)
    assert switches.partitions == {0, 1}
    switches.answered(0, PartitionState(38, in_hand=True))
    assert switches.partitions == {0, 1}
    switches.answered(0, PartitionState(39, in_hand=True))
    assert switches.partitions == {1}
    assert switches.take_settled() == frozenset()
    switches.answered(1, PartitionState(60, in_hand=False))
    assert switches.partitions == frozenset()
    assert [switches.take_settled() for _ in range(2)] == [{FRAME}, frozenset()]


def test_a_chain_is_looked_up_only_while_no_worker_has_a_frame_of_its_partition() -> None:
    switches = keeping(s0=40)
    assert switches.answered(0, PartitionState(20, in_hand=True)) is None
    assert switches.answered(0, PartitionState(20, in_hand=False)) == OldChain(1, 0, 40)
    assert switches.found(OldChain(1, 0, 40), 39) is None
    assert switches.partitions == {0}


@pytest.mark.parametrize(("first", "passes"), [(None, True), (45, True), (44, False)])
def test_a_chain_without_a_frame_below_its_end_is_settled_wherever_the_durable_is(
    first: int | None, passes: bool
) -> None:
    """The lane has no end frame, or the frames were removed from the stream."""
    switches = keeping(s0=40, s32=45)
    assert switches.answered(0, PartitionState(0, in_hand=False)) == OldChain(1, 0, 40)
    assert switches.found(OldChain(1, 0, 40), first) == OldChain(1, 32, 45)
    assert switches.found(OldChain(1, 32, 45), first) is None
    assert switches.take_settled() == ({FRAME} if passes else frozenset())


def test_an_end_beyond_the_frame_itself_is_not_waited_for() -> None:
    switches = keeping(s0=10**30)
    switches.answered(0, PartitionState(89, in_hand=True))
    assert switches.take_settled() == {FRAME}


def test_frames_that_wait_for_the_same_chain_continue_together() -> None:
    switches = keeping(s0=40)
    switches.keep(LATER, frozenset({OldChain(1, 0, 40), OldChain(1, 1, 50)}))
    switches.keep(FRAME, frozenset({OldChain(1, 0, 40)}))
    switches.answered(0, PartitionState(40, in_hand=False))
    assert switches.take_settled() == {FRAME}
    switches.answered(1, PartitionState(50, in_hand=False))
    assert switches.take_settled() == {LATER}


def test_a_partition_that_has_no_durable_is_waited_for_a_minute() -> None:
    switches = keeping(s0=40)
    assert not switches.missing(0, 100.0)
    assert not switches.missing(0, 99.9 + MISSING_MAX_S)
    switches.answered(0, PartitionState(1, in_hand=True))
    assert not switches.missing(0, 101.0 + MISSING_MAX_S)
    assert switches.take_settled() == frozenset()
    assert switches.missing(0, 101.0 + 2 * MISSING_MAX_S)
    assert switches.take_settled() == {FRAME}


# A model of a group: its stream, its durables, and workers that live, die and look in any order.

LANES = ("all", "chat")


@dataclass(frozen=True)
class Frame:
    """A frame of one guild (-1: an `end` or `switch` frame)."""

    seq: int
    group: int
    shard: int
    lane: str
    guild: int = -1
    switch: Switch | None = field(default=None, hash=False)


class Stream:
    """Shard groups one after another. A new shard begins as soon as the old ones of its guilds have ended."""

    def __init__(self, chance: random.Random, counts: list[int], guilds: list[int]) -> None:
        self.chance = chance
        self.guilds = guilds
        self.frames: list[Frame] = []
        self.ends: dict[tuple[int, int], int] = {}
        running: list[tuple[int, int]] = []
        for group, count in enumerate(counts):
            running = self._write_group(group, count, counts[group - 1] if group else 0, running)
        for group, shard in running:
            self._events(group, shard, counts[group])

    def _write_group(self, group: int, count: int, old_count: int, old: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Old shards go on and end, new ones begin, in a random order."""
        after = {
            shard: {guild % old_count for guild in self.guilds if guild % count == shard} if old_count else set()
            for shard in range(count)
        }
        ended = set[int]()
        new = set[int]()
        while len(ended) < len(old) or len(new) < count:
            able = [shard for shard in range(count) if shard not in new and after[shard] <= ended]
            going_on = [shard for _, shard in old if shard not in ended]
            if able and self.chance.random() < 0.5:
                shard = self.chance.choice(able)
                new.add(shard)
                self._begin(group, shard, after[shard])
                self._events(group, shard, count)
            elif going_on:
                shard = self.chance.choice(going_on)
                self._events(group - 1, shard, old_count)
                if self.chance.random() < 0.5:
                    ended.add(shard)
                    self._end(group - 1, shard)
            if new and self.chance.random() < 0.5:
                self._events(group, self.chance.choice(sorted(new)), count)
        return [(group, shard) for shard in range(count)]

    def _add(self, group: int, shard: int, lane: str, guild: int = -1, switch: Switch | None = None) -> int:
        self.frames.append(Frame(len(self.frames) + 1, group, shard, lane, guild, switch))
        return len(self.frames)

    def _events(self, group: int, shard: int, count: int) -> None:
        guilds = [guild for guild in self.guilds if guild % count == shard]
        for guild in self.chance.choices(guilds, k=self.chance.randrange(3)) if guilds else ():
            self._add(group, shard, self.chance.choice(LANES), guild)

    def _end(self, group: int, shard: int) -> None:
        lanes = self.chance.sample(LANES, self.chance.choice([1, 2]))
        self.ends[group, shard] = min([self._add(group, shard, lane) for lane in lanes])

    def _begin(self, group: int, shard: int, after: set[int]) -> None:
        ends = {old: self.ends[group - 1, old] for old in after}
        if group:
            for lane in LANES:
                self._add(group, shard, lane, switch=Switch(old_group=group - 1, after=ends))


@dataclass
class Durable:
    """Delivers a partition's frames one at a time; `seen` is what it has been through."""

    frames: list[Frame]
    seen: int
    in_hand: Frame | None = None
    worker: int | None = None

    def state(self) -> PartitionState:
        if self.in_hand is not None:
            return PartitionState(self.in_hand.seq - 1, in_hand=True)
        return PartitionState(self.seen, in_hand=False)


@dataclass
class Worker:
    switches: Switches = field(default_factory=Switches)
    looking: dict[int, tuple[OldChain, int]] = field(default_factory=dict)


class Group:
    """The ordered group of one lane. `handled`: the events that were handled, in order. `lost`: removed before that."""

    def __init__(self, stream: Stream, lane: str, workers: int, start: int) -> None:
        self.chance = stream.chance
        self.frames = [frame for frame in stream.frames if frame.lane == lane]
        self.workers = [Worker() for _ in range(workers)]
        self.handled: list[Frame] = []
        self.lost = set[Frame]()
        by_partition: dict[int, list[Frame]] = defaultdict(list)
        for frame in stream.frames:
            by_partition[partition_of(frame.shard)]
        for frame in self.frames:
            if frame.seq >= start:
                by_partition[partition_of(frame.shard)].append(frame)
        self.durables = {partition: Durable(frames, start - 1) for partition, frames in by_partition.items()}

    @property
    def is_done(self) -> bool:
        return all(not durable.frames for durable in self.durables.values())

    def step(self) -> None:
        """One worker requests a frame, handles one, looks, or dies; or the stream loses its oldest frames."""
        number = self.chance.randrange(len(self.workers))
        durable = self.chance.choice([each for each in self.durables.values() if each.frames])
        if self.chance.random() < 0.01:
            self.kill(number)
        elif self.chance.random() < 0.01:
            self.lose()
        elif durable.worker is None:
            self.deliver(durable, number)
        elif durable.in_hand is not None and durable.in_hand.switch is None:
            self.settle(durable)
        else:
            self.look(durable.worker)

    def kill(self, number: int) -> None:
        self.workers[number] = Worker()
        for durable in self.durables.values():
            if durable.worker == number:
                durable.worker = None

    def lose(self) -> None:
        in_hand = [each.in_hand.seq for each in self.durables.values() if each.in_hand is not None]
        first = self.chance.randrange(self.frames[0].seq, min([self.frames[-1].seq, *in_hand]) + 1)
        self.frames = [frame for frame in self.frames if frame.seq >= first]
        for durable in self.durables.values():
            self.lost |= {frame for frame in durable.frames if frame.seq < first}
            durable.frames = [frame for frame in durable.frames if frame.seq >= first]

    def deliver(self, durable: Durable, number: int) -> None:
        frame = durable.in_hand = durable.frames[0]
        durable.worker, durable.seen = number, frame.seq
        if frame.switch is not None:
            chains = old_chains(frame.switch, frame.seq)
            if chains:
                self.workers[number].switches.keep(("S", frame.seq, 1), chains)
            else:
                self.settle(durable)

    def settle(self, durable: Durable) -> None:
        frame = durable.frames.pop(0)
        if frame.guild >= 0:
            self.handled.append(frame)
        durable.in_hand = durable.worker = None

    def look(self, number: int) -> None:
        """Ask for a partition's state, or look up a chain by an older state: other steps may be between the two."""
        worker = self.workers[number]
        if not worker.switches.partitions:
            return
        partition = self.chance.choice(sorted(worker.switches.partitions))
        if partition in worker.looking:
            chain, behind = worker.looking.pop(partition)
            mine = (each.seq for each in self.frames if (each.group, each.shard) == (chain.group, chain.shard))
            following = worker.switches.found(chain, next((seq for seq in mine if seq > behind), None))
        else:
            state = self.durables[partition].state()
            following, behind = worker.switches.answered(partition, state), state.settled
        if following is not None:
            worker.looking[partition] = following, behind
        settled = worker.switches.take_settled()
        for durable in self.durables.values():
            if durable.in_hand is not None and ("S", durable.in_hand.seq, 1) in settled and durable.worker == number:
                self.settle(durable)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.sampled_from([1, 2, 3, 5, 8, 33, 40]), min_size=2, max_size=4),
    st.lists(st.integers(0, 99), min_size=1, max_size=6, unique=True),
    st.integers(1, 4),
    st.booleans(),
)
def test_each_guild_s_events_are_handled_once_in_the_order_of_the_stream_over_any_switches(
    seed: int, counts: list[int], guilds: list[int], workers: int, late: bool
) -> None:
    chance = random.Random(seed)
    stream = Stream(chance, counts, guilds)
    start = chance.randrange(1, len(stream.frames) + 1) if late and stream.frames else 1
    group = Group(stream, chance.choice(LANES), workers, start)
    expected = [frame for frame in group.frames if frame.guild >= 0 and frame.seq >= start]
    for steps in itertools.count():
        if group.is_done:
            break
        assert steps < 20_000, "the group is stuck"
        group.step()
    for guild in guilds:
        of_guild = [frame.seq for frame in group.handled if frame.guild == guild]
        assert of_guild == [frame.seq for frame in expected if frame.guild == guild and frame not in group.lost]
