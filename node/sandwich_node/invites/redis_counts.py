"""The counts of a shard's guilds in Redis: one hash for each owner of the shard, written by that owner only. A shell.

The hash's name contains the owner's fence. The next owner renames the hash to its own name. An overtaken owner that
still writes recreates a hash under its old name, which no owner reads.
"""

from collections.abc import Mapping

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_node.cache.redis_store import RedisCache

EXPIRE_S = 3600
"""Since the owner's last write. Discord keeps a session without a connection for some minutes only."""


class RedisCounts:
    """A `count_persistence.CountStore`. Every call may raise CacheError."""

    def __init__(self, cache: RedisCache, namespace: str, shard: ShardId, fence: Fence) -> None:
        self._cache = cache
        self._prefix = f"sw:{namespace}:invites:{{{shard.app}:{shard.group}:{shard.shard}}}:"
        self._key = f"{self._prefix}{fence}"

    async def take_over(self, fence: Fence) -> dict[str, bytes]:
        """The states that the owner with this fence saved, by guild. They belong to this owner from now on."""
        before = f"{self._prefix}{fence}"
        if before != self._key and await self._cache.command("EXISTS", before):
            await self._cache.command("RENAME", before, self._key)
        found = await self._cache.command("HGETALL", self._key)
        return {guild.decode(errors="replace"): state for guild, state in found.items()}

    async def write(self, states: Mapping[str, bytes | None], *, clear: bool) -> None:
        """See `count_persistence.CountStore`."""
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
        """See `count_persistence.CountStore`."""
        await self._cache.command("EXPIRE", self._key, str(EXPIRE_S))
