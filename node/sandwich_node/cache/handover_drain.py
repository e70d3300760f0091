"""Completes the cache when a shard moves while Redis is slow: the last owner writes the rest, the next one waits.

Otherwise the cache would lack the last owner's unwritten changes, and a resync costs a session start. When it has
written everything, the last owner records its final position in Redis. This needs no fence: the next owner writes
nothing before that, and its wait is bounded.
"""

import asyncio
import logging
from dataclasses import dataclass

from sandwich_node.cache.batch import names_of
from sandwich_node.cache.feed import CacheFeed
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.cache.settings import CacheWriter

_log = logging.getLogger(__name__)

FINISH_S = 12.0
"""How long the last owner continues to write."""
WAIT_S = 15.0
"""How long the next owner waits: longer than `FINISH_S`, since the last owner may start its rest later."""
LOOK_S = 0.25
RECORD_TTL_S = 60


@dataclass(frozen=True, slots=True)
class Standing:
    """The position of a shard's last owner in the stream, which the cache must reach."""

    session: str
    last_seq: int


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """The unwritten cache changes of a shard that ended here. `feed` is not running."""

    feed: CacheFeed
    cache: RedisCache
    standing: Standing

    async def finish(self) -> None:
        """Write the rest and record it. Gives up after `FINISH_S`; the next owner then has to resync."""
        try:
            async with asyncio.timeout(FINISH_S):
                await self.feed.finish(self._record_end)
        except TimeoutError:
            _log.warning("the cache of shard %s lacks its last events", self.feed.writer.shard)

    async def _record_end(self) -> None:
        text = f"{self.standing.session} {self.standing.last_seq}"
        await self.cache.command("SET", names_of(self.feed.writer).through, text, "EX", str(RECORD_TTL_S))


async def last_owner_is_through(cache: RedisCache, writer: CacheWriter, standing: Standing, until: float) -> bool:
    """Wait until the last owner has written everything; False if it has not by `until` (loop time).

    Raises CacheError.
    """
    loop = asyncio.get_running_loop()
    while True:
        said = await cache.command("GET", names_of(writer).through)
        if said == f"{standing.session} {standing.last_seq}".encode():
            return True
        if loop.time() >= until:
            return False
        await asyncio.sleep(LOOK_S)
