"""What the cache needs when a shard group ends: its guilds are located at the next group, the others are removed.

Both tasks can be repeated, also by two nodes at the same time, and continue in each other's place.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_coordinator.ranges import parse_ranges
from sandwich_coordinator.types import CacheSpec
from sandwich_node import ipc
from sandwich_node.cache.batch import names_of
from sandwich_node.cache.errors import CacheError
from sandwich_node.cache.locations import Destination
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.cache.settings import CacheWriter

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

TRIES_MAX = 30
RETRY_S = 5.0


async def relocate_group(cache: RedisCache, asked: ipc.RelocateGuilds) -> ipc.GuildsRelocated:
    """Locate the group's guilds at the next one. Tries again for some minutes while Redis is unavailable."""
    done = ipc.GuildsRelocated(app=asked.app, group=asked.group, to=asked.to.group)
    if not asked.cache.enabled:
        return done
    writer = _writer(ShardId(asked.app, asked.group, 0), 0, asked.cache)
    what = f"the guilds of group {asked.app}/{asked.group} are not located at group {asked.to.group}"
    try:
        moved = await _until_done(lambda: cache.relocate(writer, asked.group, _destination(asked.to)), what)
    except CacheError as error:
        return ipc.GuildsRelocated(app=asked.app, group=asked.group, to=asked.to.group, error=str(error))
    return ipc.GuildsRelocated(app=asked.app, group=asked.group, to=asked.to.group, moved=moved)


async def release_group(cache: RedisCache, gone: ipc.CleanGroupCache) -> None:
    """Remove the group's guilds, except those of the next one. Tries again for some minutes, as `relocate_group`.

    Guilds of a next group that continues have been located there before; what is not would be removed with everything
    that is cached of it. So they are located first, behind a fence that keeps the old group from locating another one.
    """
    writers = [_writer(ShardId(gone.app, gone.group, number), gone.fence, gone.cache) for number in range(gone.count)]
    what = f"group {gone.app}/{gone.group} is not removed from the cache"
    try:
        if gone.next is not None:
            to, only_unbegun = _destination(gone.next), not gone.next.continues
            await _until_done(lambda: cache.fence_out(writers, ()), what)
            await _until_done(
                lambda: cache.relocate(writers[0], gone.group, to, only_unbegun=only_unbegun), what
            )
        for writer in writers:
            await _until_done(lambda: _release(cache, writer), what)
    except CacheError:
        _log.error("%s: Redis was unavailable for too long", what)


async def _release(cache: RedisCache, writer: CacheWriter) -> None:
    await cache.release(writer)
    await cache.command("DEL", names_of(writer).kept, names_of(writer).chunked)


async def _until_done(work: Callable[[], Awaitable[_T]], what: str) -> _T:
    """The result of `work`. Raises the CacheError of the last try."""
    for left in reversed(range(TRIES_MAX)):
        try:
            return await work()
        except CacheError as error:
            if not left:
                raise
            _log.warning("%s yet: %s", what, error)
            await asyncio.sleep(RETRY_S)
    raise AssertionError("unreachable")


def _writer(shard: ShardId, fence: int, settings: CacheSpec) -> CacheWriter:
    return CacheWriter(shard=shard, fence=Fence(fence), bot="", intents=0, settings=settings)


def _destination(group: ipc.NextGroup) -> Destination:
    return Destination(group=group.group, count=group.count, ids=frozenset(parse_ranges(group.ids)))
