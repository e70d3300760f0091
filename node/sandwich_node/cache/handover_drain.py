"""A shard moves on while Redis is slow: its last owner writes the rest, and the next one waits for that.

Otherwise the cache would lack what the last owner had not written yet, and to read it anew costs a session start. The
last owner says in Redis how far it is when it is through. It needs no fence for that: the next owner writes nothing
before, and waits only so long.
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
"""How long the last owner goes on."""
WAIT_S = 15.0
"""How long the next owner waits: somewhat longer, as it begins later at the earliest."""
LOOK_S = 0.25
SAID_TTL_S = 60


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a shard's last owner was in the stream: what the cache is to have."""

    session: str
    last_seq: int


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """What a shard that ended here has yet to write. `feed` runs nowhere."""

    feed: CacheFeed
    cache: RedisCache
    standing: Standing

    async def finish(self) -> None:
        """Write it, and say so; give up after `FINISH_S`, and leave it to the next owner to read the cache anew."""
        try:
            async with asyncio.timeout(FINISH_S):
                await self.feed.finish(self._say_so)
        except TimeoutError:
            _log.warning("the cache of shard %s lacks its last events", self.feed.writer.shard)

    async def _say_so(self) -> None:
        text = f"{self.standing.session} {self.standing.last_seq}"
        await self.cache.command("SET", names_of(self.feed.writer).through, text, "EX", str(SAID_TTL_S))


async def last_owner_is_through(cache: RedisCache, writer: CacheWriter, standing: Standing, until: float) -> bool:
    """Wait until the last owner has written everything; False when it has not by `until` (loop time).

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
