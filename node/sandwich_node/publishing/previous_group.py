"""What the group that is replaced has published: its chains, read from the stream until they end.

A worker reads an old group once for all its shards (`PreviousGroups`). There is no task for it: of the shards that
wait, one reads a page for all of them.
"""

import asyncio
import logging
import math
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sandwich_coordinator.backoff import Backoff
from sandwich_coordinator.ids import Fence
from sandwich_node.events.identity import Identity, identity
from sandwich_node.publishing.chain import Checkpoint
from sandwich_node.publishing.log import Log, LogError, StoredFrame, StreamMissing
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.frame import inflate, split_events
from sandwich_sdk.wire.headers import END, GAP, UNREADABLE

_log = logging.getLogger(__name__)

LOOK_S = 0.05
"""How often a shard looks for new frames."""
CHECK_S = 1.0
"""How often it checks that the stream still has what was read."""
LOST_WAIT_S = 30.0
"""How long a shard waits for end frames after the stream lost frames: they may be among these."""
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 2.0
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


class PreviousGroups:
    """The old groups that shards of this worker follow."""

    def __init__(self, log: Log, rng: random.Random) -> None:
        self._log = log
        self._rng = rng
        self._readers: dict[tuple[str, int], PreviousGroup] = {}

    def reader(self, app: str, group: int) -> "PreviousGroup":
        """The one reader of this group."""
        for key in [key for key, reader in self._readers.items() if not reader.followers and key != (app, group)]:
            del self._readers[key]
        return self._readers.setdefault((app, group), PreviousGroup(self._log, app, group, self._rng))


class PreviousGroup:
    """Reads one old group's frames for its followers. `waiting`: what the log answers instead; "" for nothing."""

    def __init__(self, log: Log, app: str, group: int, rng: random.Random) -> None:
        self.followers: list[Follower] = []
        self.waiting = ""
        self.unreadable = 0
        """Events and frames that could not be read: what they published is not known."""
        self._log = log
        self._stream = subjects.stream_name(app)
        self._subjects = subjects.group_filter(app, group)
        self._lock = asyncio.Lock()
        self._backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S, rng)
        self._parts: dict[tuple[int, str], list[bytes]] = {}
        self._check_at = 0.0

    def follow(self, shard: int, count: int, old_count: int, chains: frozenset[int], after: int) -> Follower:
        """Follow these chains behind stream sequence `after`, until `leave`. The counts: of both groups' shards."""
        follower = Follower(shard, count, old_count, chains, after)
        self.followers.append(follower)
        self._check_at = 0.0
        return follower

    def leave(self, follower: Follower) -> None:
        """Follow no longer."""
        self.followers.remove(follower)

    async def ended(self, follower: Follower) -> None:
        """Wait until the follower's chains have ended and it knows everything in them.

        Returns also when the stream has lost frames and no end came for `LOST_WAIT_S` since.
        """
        while not self._is_over(follower):
            async with self._lock:
                if not self._is_over(follower):
                    await self._read_on()

    def _is_over(self, follower: Follower) -> bool:
        lost_at = follower.lost_at
        return not follower.open_chains or (lost_at is not None and _now() >= lost_at + LOST_WAIT_S)

    async def _read_on(self) -> None:
        """Read a page for all followers. Waits when there is nothing."""
        try:
            if _now() >= self._check_at:
                await self._check()
                self._check_at = _now() + CHECK_S
            # One that comes while the page is taken has missed the frames before: it reads them again.
            followers = list(self.followers)
            at = min(follower.read_to for follower in followers) + 1
            page = await self._log.read(self._stream, self._subjects, at)
        except LogError as error:
            self.waiting = str(error)
            if isinstance(error, StreamMissing):
                self._lost_from(0, "the stream was deleted")
            await asyncio.sleep(self._backoff.next_s())
            return
        self.waiting = ""
        self._backoff.succeeded()
        for frame in page.frames:
            self._take(frame, followers)
            # Other shards get their turn: a page may have thousands of events.
            await asyncio.sleep(0)
        for follower in followers:
            follower.read_to = max(follower.read_to, page.next_seq - 1)
        if page.next_seq == at:
            await asyncio.sleep(LOOK_S)

    async def _check(self) -> None:
        """Find out whether the stream has lost what was not read yet."""
        extent = await self._log.extent(self._stream)
        for follower in self.followers:
            if extent.last < follower.read_to:
                self._lost(follower, "the stream was deleted and made again, or has lost its end")
                follower.read_to = 0
            elif extent.first > follower.read_to + 1 and extent.last > follower.read_to:
                self._lost(follower, "frames of the old group were removed before they were read")
                follower.read_to = extent.first - 1

    def _lost_from(self, read_to: int, why: str) -> None:
        for follower in self.followers:
            self._lost(follower, why)
            follower.read_to = read_to

    def _lost(self, follower: Follower, why: str) -> None:
        if follower.lost_at is None:
            follower.lost_at = _now()
            follower.trouble = f"{why}: what they held may be published a second time"
            _log.error("%s: %s", self._subjects, follower.trouble)

    def _take(self, frame: StoredFrame, followers: list[Follower]) -> None:
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


def _now() -> float:
    return asyncio.get_running_loop().time()


def old_chains(shard: int, count: int, old_count: int, old_ids: Iterable[int]) -> frozenset[int]:
    """The old shards (of `old_count`) that have guilds in common with a shard of `count`.

    A guild is in shard `(id >> 22) % count` (Discord: Gateway, Sharding), so both numbers have one remainder by each
    common divisor of the counts. An old count of 0: there was no group.
    """
    common = math.gcd(count, old_count)
    return frozenset(old for old in old_ids if old % common == shard % common)
