"""The counts of a shard's guilds in Redis: one hash for each owner of the shard, which nobody else writes. A shell.

Its name has the owner's fence (the revision of its claim). The next owner renames it to its own: what an owner writes
that was overtaken and does not know it yet, nobody reads.
"""

from collections.abc import Mapping

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_node.cache.redis_store import RedisCache

EXPIRE_S = 3600
"""Without a word from the owner; Discord keeps a session without a connection for minutes."""


class RedisCounts:
    """A `keeping.CountStore`. Every call may raise CacheError."""

    def __init__(self, cache: RedisCache, namespace: str, shard: ShardId, fence: Fence) -> None:
        self._cache = cache
        self._prefix = f"sw:{namespace}:invites:{{{shard.app}:{shard.group}:{shard.shard}}}:"
        self._key = f"{self._prefix}{fence}"

    async def take_over(self, fence: Fence) -> dict[str, bytes]:
        """What the owner with this fence kept, by guild; it is ours from now on."""
        before = f"{self._prefix}{fence}"
        if before != self._key and await self._cache.command("EXISTS", before):
            await self._cache.command("RENAME", before, self._key)
        found = await self._cache.command("HGETALL", self._key)
        return {guild.decode(errors="replace"): state for guild, state in found.items()}

    async def write(self, states: Mapping[str, bytes | None], *, clear: bool) -> None:
        """See `keeping.CountStore`."""
        gone = [guild for guild, state in states.items() if state is None]
        kept = [word for guild, state in states.items() if state is not None for word in (guild, state)]
        if clear:
            await self._cache.command("UNLINK", self._key)
        elif gone:
            await self._cache.command("HDEL", self._key, *gone)
        if kept:
            await self._cache.command("HSET", self._key, *kept)
        await self.renew()

    async def renew(self) -> None:
        """See `keeping.CountStore`."""
        await self._cache.command("EXPIRE", self._key, str(EXPIRE_S))
