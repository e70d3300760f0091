"""Reads what the group that is replaced has published: its chains, from the stream, until they end.

A worker reads an old group once for all its shards (`PreviousGroups`). There is no task for it: of the shards that
wait, one reads a page for all of them. What the frames mean for each shard: `old_chains.py`.
"""

import asyncio
import logging
import random

from sandwich_coordinator.backoff import Backoff
from sandwich_node.publishing.log import Log, LogError, StreamMissing
from sandwich_node.publishing.old_chains import Follower, FrameReader
from sandwich_sdk.wire import subjects

_log = logging.getLogger(__name__)

LOOK_S = 0.05
"""How often a shard looks for new frames."""
CHECK_S = 1.0
"""How often it checks that the stream still has what was read."""
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 2.0


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
        self._log = log
        self._stream = subjects.stream_name(app)
        self._subjects = subjects.group_filter(app, group)
        self._lock = asyncio.Lock()
        self._backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S, rng)
        self._frames = FrameReader()
        self._check_at = 0.0

    @property
    def unreadable(self) -> int:
        """How many events and frames could not be read: what they published is not known."""
        return self._frames.unreadable

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
        while not follower.is_over(_now()):
            async with self._lock:
                if not follower.is_over(_now()):
                    await self._read_on()

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
            self._frames.take(frame, followers)
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
            if why := follower.missed(extent):
                self._lost(follower, why)

    def _lost_from(self, read_to: int, why: str) -> None:
        for follower in self.followers:
            self._lost(follower, why)
            follower.read_to = read_to

    def _lost(self, follower: Follower, why: str) -> None:
        if follower.lost(why, _now()):
            _log.error("%s: %s", self._subjects, follower.trouble)


def _now() -> float:
    return asyncio.get_running_loop().time()
