"""What the chains of a replaced group hold, as far as shards of the next group have to know it. Pure.

`previous_group.py` reads the frames.
"""

import logging
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sandwich_coordinator.ids import Fence
from sandwich_node.events.identity import Identity, identity
from sandwich_node.publishing.chain import Checkpoint
from sandwich_node.publishing.log import Extent, StoredFrame
from sandwich_sdk.wire.frame import inflate, split_events
from sandwich_sdk.wire.headers import END, GAP, UNREADABLE

_log = logging.getLogger(__name__)

LOST_WAIT_S = 30.0
"""How long a shard waits for end frames after the stream lost frames: they may be among these."""
PUBLISHED_MAX = 500_000
"""Identities kept for one shard. Of more, the oldest are forgotten: they are the least likely to be in a hold."""
OWN = "own:"


class _Meta(msgspec.Struct, gc=False):
    id: str = ""


class _Extra(msgspec.Struct, gc=False):
    lazy: Any = False
    unavailable: Any = False


class _Line(msgspec.Struct, gc=False):
    t: str
    d: msgspec.Raw
    meta: _Meta = msgspec.field(name="__sandwich", default_factory=_Meta)
    extra: _Extra = msgspec.field(name="__extra", default_factory=_Extra)


_decode = msgspec.json.Decoder(_Line).decode


def identity_of_line(line: bytes) -> Identity | None:
    """The identity of a published event; None for an own event, or one of a single session. Raises UNREADABLE."""
    read = _decode(line)
    if read.meta.id.startswith(OWN):
        return None
    return identity(read.t, read.d, lazy=read.extra.lazy is True, unavailable=read.extra.unavailable is True)


class OldEnd(msgspec.Struct, frozen=True):
    """The first end frame of an old shard's chain: its place in the stream, its checkpoint, and its owner's fence."""

    stream_seq: int
    session: str
    last_seq: int
    fence: int
    is_behind: bool

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint that the frame holds."""
        return Checkpoint(self.session, self.last_seq, self.is_behind, fence=Fence(self.fence))


@dataclass(slots=True, eq=False)
class Follower:
    """What one shard of the upcoming group (`shard` of `count`) knows of the chains of an old one (of `old_count`).

    chains     the old shards that have guilds in common with it
    read_to    the stream sequence up to which it knows them
    published  identities of its guilds' events in them, in order
    sessions   the session of each of these events
    gaps       the chains in which a gap frame was read: a session was lost
    ends       the first end frame of each chain that ended
    trouble    why something that was published may not be known; "" for nothing
    """

    shard: int
    count: int
    old_count: int
    chains: frozenset[int]
    read_to: int
    published: deque[Identity] = field(default_factory=lambda: deque(maxlen=PUBLISHED_MAX))
    sessions: deque[str] = field(default_factory=lambda: deque(maxlen=PUBLISHED_MAX))
    gaps: set[int] = field(default_factory=set)
    ends: dict[int, OldEnd] = field(default_factory=dict)
    trouble: str = ""
    lost_at: float | None = None
    """When it became known that the stream has lost frames, in monotonic seconds."""

    @property
    def open_chains(self) -> frozenset[int]:
        """The chains that have not ended."""
        return self.chains - self.ends.keys()

    def take(self, chain: int, events: Iterable[Identity], session: str) -> None:
        """Take the events of a frame, which are of this session."""
        if chain in self.chains:
            ours = [guilded for guilded in events if self._is_for_us(chain, guilded[0])]
            self.published.extend(ours)
            self.sessions.extend([session] * len(ours))

    def _is_for_us(self, chain: int, guild: int) -> bool:
        # Which shard gets an event of no guild, or of another shard's, is not documented.
        place = guild >> 22
        return place % self.count == self.shard or not guild or place % self.old_count != chain

    def end(self, chain: int, end: OldEnd) -> None:
        """The chain ended."""
        if chain in self.chains:
            self.ends.setdefault(chain, end)

    def is_over(self, now: float) -> bool:
        """Whether it knows everything in its chains, or has waited for their ends since the stream lost frames."""
        return not self.open_chains or (self.lost_at is not None and now >= self.lost_at + LOST_WAIT_S)

    def missed(self, extent: Extent) -> str:
        """Why frames that it has not read are lost; "" for none. It goes on behind them."""
        if extent.last < self.read_to:
            self.read_to = 0
            return "the stream was deleted and made again, or has lost its end"
        if extent.first > self.read_to + 1 and extent.last > self.read_to:
            self.read_to = extent.first - 1
            return "frames of the old group were removed before they were read"
        return ""

    def lost(self, why: str, now: float) -> bool:
        """Frames are lost. False: others were before."""
        if self.lost_at is not None:
            return False
        self.lost_at = now
        self.trouble = f"{why}: what they held may be published a second time"
        return True


class FrameReader:
    """Takes the frames of an old group for those that follow it, in the order of the stream."""

    def __init__(self) -> None:
        self.unreadable = 0
        """Events and frames that could not be read: what they published is not known."""
        self._parts: dict[tuple[int, str], list[bytes]] = {}

    def take(self, frame: StoredFrame, followers: Sequence[Follower]) -> None:
        """Let each follower of the frame's chain know what is in it, unless it has read that far already."""
        headers = frame.headers
        *_, lane, _, number = frame.subject.split(".")
        chain = int(number)
        takers = [one for one in followers if chain in one.chains and one.read_to < frame.stream_seq]
        if headers.kind == END:
            end = OldEnd(frame.stream_seq, headers.session, headers.last_seq, headers.epoch, headers.behind)
            for follower in takers:
                follower.end(chain, end)
        elif headers.kind == GAP:
            for follower in takers:
                follower.gaps.add(chain)
        elif headers.count and takers:
            events = self._events(chain, lane, frame)
            for follower in takers:
                follower.take(chain, events, headers.session)
        for follower in followers:
            follower.read_to = max(follower.read_to, frame.stream_seq)

    def _events(self, chain: int, lane: str, frame: StoredFrame) -> list[Identity]:
        """What a frame holds; nothing for a part that is not the last."""
        payload, part = frame.payload, frame.headers.part
        if part is not None:
            index, total = part
            parts = self._parts.setdefault((chain, lane), [])
            if index == 1:
                parts.clear()
            if index != len(parts) + 1:
                # Its first part is before what is read: the event is older than the hold.
                return []
            parts.append(payload)
            if index < total:
                return []
            payload = b"".join(self._parts.pop((chain, lane)))
        try:
            lines = split_events(inflate(payload))
        except UNREADABLE as error:
            self._could_not_read(frame, error)
            return []
        found = []
        for line in lines:
            try:
                one = identity_of_line(line)
            except UNREADABLE as error:
                self._could_not_read(frame, error)
            else:
                if one is not None:
                    found.append(one)
        return found

    def _could_not_read(self, frame: StoredFrame, error: BaseException) -> None:
        self.unreadable += 1
        if self.unreadable == 1:
            _log.error("message %d on %s cannot be read: %s", frame.stream_seq, frame.subject, error)


def old_chains(shard: int, count: int, old_count: int, old_ids: Iterable[int]) -> frozenset[int]:
    """The old shards (of `old_count`) that have guilds in common with a shard of `count`.

    A guild is in shard `(id >> 22) % count` (Discord: Gateway, Sharding), so both numbers have one remainder by each
    common divisor of the counts. An old count of 0: there was no group.
    """
    common = math.gcd(count, old_count)
    return frozenset(old for old in old_ids if old % common == shard % common)
