"""Removes a deleted shard group from the cache."""

import asyncio
import logging

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_node import ipc
from sandwich_node.cache.errors import CacheError
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.cache.settings import CacheWriter

_log = logging.getLogger(__name__)

TRIES_MAX = 30
RETRY_S = 5.0


async def release_group(cache: RedisCache, gone: ipc.CleanGroupCache) -> None:
    """Remove the guilds located at these shards. Tries again for some minutes while Redis is unavailable."""
    for number in range(gone.count):
        shard = ShardId(gone.app, gone.group, number)
        writer = CacheWriter(shard=shard, fence=Fence(gone.fence), bot="", intents=0, settings=gone.cache)
        for _ in range(TRIES_MAX):
            try:
                await cache.release(writer)
            except CacheError as error:
                _log.warning("shard %s is not removed from the cache yet: %s", shard, error)
                await asyncio.sleep(RETRY_S)
            else:
                break
        else:
            _log.error("shard %s stays in the cache: Redis was unavailable for too long", shard)
