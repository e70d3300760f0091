"""Removes a deleted shard group from the cache."""

import asyncio
import logging

from sandwich_node import ipc
from sandwich_node.cache.errors import CacheError
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.cache.settings import Writer

_log = logging.getLogger(__name__)

TRIES_MAX = 30
RETRY_S = 5.0


async def release_group(cache: RedisCache, gone: ipc.CleanGroupCache) -> None:
    """Remove the guilds located at these shards. Tries again for some minutes while Redis is unavailable."""
    for shard in range(gone.count):
        writer = Writer(
            app=gone.app, group=gone.group, shard=shard, fence=gone.fence, bot="", intents=0, settings=gone.cache
        )
        for _ in range(TRIES_MAX):
            try:
                await cache.release(writer)
            except CacheError as error:
                _log.warning("shard %s/%d/%d is not removed from the cache yet: %s", gone.app, gone.group, shard, error)
                await asyncio.sleep(RETRY_S)
            else:
                break
        else:
            _log.error(
                "shard %s/%d/%d stays in the cache: Redis was unavailable for too long", gone.app, gone.group, shard
            )
