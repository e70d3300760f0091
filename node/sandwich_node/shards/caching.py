"""The cache of one running shard: its feed, its resyncs, and changes of what is cached."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial

from sandwich_coordinator.types import CacheSpec
from sandwich_node import ipc
from sandwich_node.cache import group_switch
from sandwich_node.cache.feed import CacheFeed
from sandwich_node.cache.group_switch import PreviousShard, PreviousShards
from sandwich_node.cache.handover_drain import WAIT_S, LeftBehind, Standing, last_owner_is_through
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.cache.settings import CacheWriter
from sandwich_node.gateway.effects import State
from sandwich_node.gateway.machine import ShardMachine
from sandwich_node.gateway.payloads import ShardConfig
from sandwich_node.open_files import SocketRoom
from sandwich_node.publishing.chain import Checkpoint
from sandwich_node.publishing.publisher import ShardPublisher
from sandwich_node.rpc.shard import ShardCommands
from sandwich_node.shards.chunking import MemberChunking
from sandwich_node.shards.connection import WebSocketClient
from sandwich_node.shards.resync import CacheResync

_log = logging.getLogger(__name__)

RESYNC_LOOK_S = (1.0, 3.0)
RESYNC_EVERY_S = 300.0
"""Between two resyncs of a shard: each costs a session start."""
RESYNC_UNREAD_EVERY_S = 3600.0
"""The same, while the cache lacks only events that could not be read: a resync may not help."""
MARK_BUDGET_S = 1.0
NOT_ALL_WRITTEN = "its last owner ended before the cache had everything"


def group_before(
    start: ipc.StartShard, ends: Mapping[int, Checkpoint], *, session: str, seq: int, guilds: Iterable[str]
) -> PreviousShards | None:
    """What the shard's cache has to know of the group that it replaces; None when it replaces none. Pure.

    `ends`: by old shard, the checkpoint that the end frame of its chain holds, with the frame's fence. `session` is the
    public name of this shard's session, `seq` its last sequence before the events that go into the cache.
    """
    previous = start.previous
    if previous is None:
        return None
    return PreviousShards(
        group=previous.group,
        count=previous.count,
        intents=previous.intents,
        own_count=start.count,
        shards=tuple(
            PreviousShard(shard=shard, end=Standing(end.session, end.last_seq), behind=end.behind, fence=end.fence)
            for shard, end in sorted(ends.items())
        ),
        session=session,
        seq=seq,
        guilds=frozenset(guilds),
    )


class ShardCaching:
    """Owned by the shard's features. `caught_up` is called when the cache has everything again."""

    def __init__(
        self,
        writer: CacheWriter,
        cache: RedisCache,
        config: ShardConfig,
        http: WebSocketClient,
        group: asyncio.TaskGroup,
        *,
        commands: ShardCommands,
        send: Callable[[ipc.ToAgent], None],
        rng: random.Random,
        caught_up: Callable[[], None],
        taken_over: Checkpoint,
        before: PreviousShards | None = None,
        state: State = State.NEW,
        room: SocketRoom | None = None,
    ) -> None:
        """`taken_over`: how the shard's last owner left it, and the cache.

        `before`: the group whose guilds the shard takes over in the middle of its session; None when its session
        continues or begins in this group. `state`: of the shard's connection now.
        """
        self.feed: CacheFeed | None = None
        self._writer = writer
        self._cache = cache
        self._config = config
        self._room = room
        self._http = http
        self._group = group
        self._key = writer.shard
        self._commands = commands
        self._chunking: MemberChunking | None = None
        self._send = send
        self._rng = rng
        self._caught_up = caught_up
        self._state = state
        self._resync: CacheResync | None = None
        self._tasks: list[asyncio.Task[None]] = []
        if writer.settings.enabled:
            self._begin(taken_over, before)

    def gateway_moved(self, url: str) -> None:
        """The gateway has another address: the session of a resync uses it too."""
        self._config = replace(self._config, gateway_url=url)
        if self._resync is not None:
            self._resync.gateway_moved(url)

    def _begin(self, left: Checkpoint, before: PreviousShards | None) -> None:
        """Open the feed behind those who may still write what the cache lacks."""
        gap = group_switch.missing(self._writer, before) if before is not None else ""
        if gap or (left.behind and not left.marked):
            self._open(gap or NOT_ALL_WRITTEN, before=before)
            return
        behind = [(self._writer, Standing(left.session, left.last_seq))] if left.behind else []
        if before is not None:
            behind += group_switch.left_behind(self._writer, before)
        if not behind:
            self._open("", before=before)
            return
        until = asyncio.get_running_loop().time() + WAIT_S
        self._open(NOT_ALL_WRITTEN, partial(self._are_through, behind, until), before)

    async def _are_through(self, behind: Sequence[tuple[CacheWriter, Standing]], until: float) -> bool:
        for writer, standing in behind:
            if not await last_owner_is_through(self._cache, writer, standing, until):
                return False
        return True

    def _open(
        self,
        incomplete: str,
        last_owner: Callable[[], Awaitable[bool]] | None = None,
        before: PreviousShards | None = None,
    ) -> None:
        take_over = partial(group_switch.take_over, self._cache, before) if before is not None else None
        feed = self.feed = CacheFeed(
            self._writer,
            self._cache,
            rng=self._rng,
            caught_up=self._caught_up,
            incomplete=incomplete,
            last_owner=last_owner,
            take_over=take_over,
        )
        self._tasks = [self._group.create_task(feed.run()), self._group.create_task(self._keep_complete(feed))]
        self._chunk(feed)

    def _chunk(self, feed: CacheFeed) -> None:
        """Fetch all members from now on, if the options ask for it."""
        wanted = self._writer.settings.chunk_members and self._writer.settings.members
        if wanted and self._writer.receives_members and self._chunking is None:
            self._chunking = MemberChunking(self._writer, self._cache, self._commands)
            self._tasks.append(self._group.create_task(self._fetch_members(self._chunking, feed)))

    @staticmethod
    async def _fetch_members(chunking: MemberChunking, feed: CacheFeed) -> None:
        # The guilds of a group before, and which of them have all members, are known once the feed has begun.
        await feed.begun.wait()
        await chunking.run()

    def observe(self, event_type: str, data: bytes) -> None:
        """Look at an event about a whole guild."""
        if self._chunking is not None:
            self._chunking.observe(event_type, data)

    def follow(self, spec: CacheSpec) -> None:
        """Cache what the options ask for, from now on."""
        before = self._writer.settings
        if spec == before:
            return
        self._writer = replace(self._writer, settings=spec)
        moved = spec.namespace_of(self._key.app) != before.namespace_of(self._key.app)
        if self.feed is not None and spec.enabled and not moved and spec.users == before.users:
            self.feed.follow(self._writer)
            self._chunk(self.feed)
            return
        if self.feed is not None:
            self.feed.release()
            self._group.create_task(_end(self.feed, self._tasks))
            self.feed = self._chunking = None
        if spec.enabled:
            self._open("it was switched on or moved to another namespace")

    def state_changed(self, state: State) -> None:
        """The shard's own connection changed its state."""
        self._state = state
        if state is State.QUEUED and self._resync is not None:
            self._resync.abandon("the shard begins a new session of its own")

    def identify_granted(self) -> bool:
        """The shard's turn to IDENTIFY came. False when no resync takes it."""
        resync = self._resync
        if resync is None or self._state is State.QUEUED or not resync.wants_identify:
            return False
        resync.identify_granted()
        return True

    def numbers(self) -> ipc.CacheNumbers | None:
        """Figures as of now; None when nothing is cached."""
        feed = self.feed
        if feed is None:
            return None
        return ipc.CacheNumbers(
            **asdict(feed.counters),
            backlog=feed.backlog,
            behind=feed.is_behind,
            waiting=feed.waiting,
            incomplete=feed.incomplete,
            refilling=self._resync is not None,
            to_chunk=self._chunking.left if self._chunking is not None else 0,
        )

    async def drained(self) -> None:
        """Wait until everything is written."""
        if self.feed is not None:
            await self.feed.drained()

    def stop(self) -> None:
        """Write nothing more."""
        for task in self._tasks:
            task.cancel()

    def left_at(self, stored: Checkpoint) -> LeftBehind | None:
        """What is in the stream up to its last frame and still to be written to the cache, once the shard has ended.

        None when nothing is left, or when too much is missing.
        """
        if self.feed is None or self.feed.incomplete or not stored.behind:
            return None
        return LeftBehind(self.feed, self._cache, Standing(stored.session, stored.last_seq))

    async def leave(self, publisher: ShardPublisher) -> LeftBehind | None:
        """As `left_at`, for a shard that another owner continues: a marker makes that one wait."""
        feed = self.feed
        if feed is None or feed.incomplete or (feed.is_whole and not publisher.chain.checkpoint.behind):
            return None
        publisher.mark()
        try:
            async with asyncio.timeout(MARK_BUDGET_S):
                await publisher.flushed()
        except TimeoutError:
            return None
        return self.left_at(publisher.chain.checkpoint)

    async def _keep_complete(self, feed: CacheFeed) -> None:
        """Resync the guilds whenever the cache lacks something, as often as session starts allow."""
        clock = asyncio.get_running_loop().time
        unread_from = clock()
        while True:
            await feed.lacking.wait()
            await asyncio.sleep(self._rng.uniform(*RESYNC_LOOK_S))
            if not feed.incomplete or feed.backlog or self._state is not State.LIVE:
                continue
            if not feed.is_urgent and clock() < unread_from:
                continue
            self._resync = CacheResync(
                self._key,
                ShardMachine(self._config, None, self._rng),
                feed,
                self._http,
                send=self._send,
                clock=asyncio.get_running_loop().time,
                room=self._room,
            )
            try:
                complete = await self._resync.run()
                spent = self._resync.has_identified
            finally:
                self._resync = None
            if complete:
                _log.info("the cache of shard %s was resynced", self._key)
            if spent:
                unread_from = clock() + RESYNC_UNREAD_EVERY_S
                await asyncio.sleep(RESYNC_EVERY_S)


async def _end(feed: CacheFeed, tasks: list[asyncio.Task[None]]) -> None:
    await feed.drained()
    for task in tasks:
        task.cancel()
