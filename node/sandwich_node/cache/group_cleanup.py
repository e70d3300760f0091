"""What the cache needs when a shard group ends: its guilds are located at the next group, the others are removed.

Both tasks can be repeated, also by two nodes at the same time, and continue in each other's place.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import msgspec

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_coordinator.types import CacheSpec
from sandwich_node import ipc
from sandwich_node.cache.batch import names_of
from sandwich_node.cache.errors import CacheError
from sandwich_node.cache.handover_drain import WAIT_S
from sandwich_node.cache.locations import Destination, ids_of
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.cache.settings import CacheWriter

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

RETRY_S = 5.0
TRY_FOR_S = 150.0
"""How long each step is tried again while Redis is unavailable."""


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
        return msgspec.structs.replace(done, error=str(error))
    return msgspec.structs.replace(done, moved=moved)


async def release_group(cache: RedisCache, gone: ipc.CleanGroupCache) -> None:
    """Remove the group's guilds, except those of the next one. Tries again for some minutes, as `relocate_group`.

    A guild of the next group would be removed with everything that is cached of it. So guilds are located there first,
    behind a fence that keeps the old group from locating another one.
    """
    writers = [_writer(ShardId(gone.app, gone.group, number), gone.fence, gone.cache) for number in range(gone.count)]
    if gone.next is not None:
        if gone.next.continues:
            # Owners that ended with the cache behind still write, and the next group's shards wait for that.
            await asyncio.sleep(WAIT_S)
        to, only_unbegun = _destination(gone.next), not gone.next.continues

        async def keep() -> None:
            await cache.fence_out(writers)
            await cache.relocate(writers[0], gone.group, to, only_unbegun=only_unbegun)

        if not await _is_done(keep, f"group {gone.app}/{gone.group}"):
            return
    for writer in writers:
        await _is_done(partial(_release, cache, writer), f"shard {writer.shard}")


async def _is_done(work: Callable[[], Awaitable[None]], of: str) -> bool:
    try:
        await _until_done(work, f"{of} is not removed from the cache")
    except CacheError:
        _log.error("%s stays in the cache: Redis was unavailable for too long", of)
        return False
    return True


async def _release(cache: RedisCache, writer: CacheWriter) -> None:
    await cache.release(writer)
    await cache.command("DEL", names_of(writer).kept, names_of(writer).chunked)


async def _until_done(work: Callable[[], Awaitable[_T]], what: str) -> _T:
    """The result of `work`. Raises the CacheError of the last try."""
    clock = asyncio.get_running_loop().time
    until = clock() + TRY_FOR_S
    while True:
        try:
            return await work()
        except CacheError as error:
            if clock() >= until:
                raise
            _log.warning("%s yet: %s", what, error)
        await asyncio.sleep(RETRY_S)


def _writer(shard: ShardId, fence: int, settings: CacheSpec) -> CacheWriter:
    return CacheWriter(shard=shard, fence=Fence(fence), bot="", intents=0, settings=settings)


def _destination(group: ipc.NextGroup) -> Destination:
    return Destination(group=group.group, count=group.count, ids=ids_of(group.ids, group.count))
