"""Guilds' prefixes, read from Redis and kept in memory for some seconds."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable

from sandwich_node.cache.errors import CacheError
from sandwich_node.cache.redis_store import RedisCache
from sandwich_sdk.wire.cache_keys import prefixes_key

REMEMBERED_S = 5.0
"""A changed prefix takes effect within this time."""
GUILDS_MAX = 20_000
WAIT_S = 0.25


class GuildPrefixes:
    """The prefixes of one namespace's guilds. `clock` is monotonic, in seconds."""

    def __init__(self, cache: RedisCache, namespace: str, *, clock: Callable[[], float]) -> None:
        self._cache = cache
        self._namespace = namespace
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, frozenset[str]]] = OrderedDict()

    async def of(self, guilds: Iterable[str]) -> dict[str, frozenset[str]]:
        """Each guild's own prefixes, empty when it has none. A guild is missing when Redis does not answer in time."""
        now = self._clock()
        found: dict[str, frozenset[str]] = {}
        asked: list[str] = []
        for guild in dict.fromkeys(guilds):
            at, prefixes = self._known.get(guild, (float("-inf"), frozenset[str]()))
            if now - at < REMEMBERED_S:
                found[guild] = prefixes
            else:
                asked.append(guild)
        if asked:
            found |= await self._ask(asked, now)
        return found

    async def _ask(self, guilds: list[str], now: float) -> dict[str, frozenset[str]]:
        keys = [prefixes_key(self._namespace, guild) for guild in guilds]
        try:
            async with asyncio.timeout(WAIT_S):
                answers = await self._cache.read_sets(keys)
        except (CacheError, TimeoutError):
            return {}
        found = dict(zip(guilds, answers, strict=True))
        for guild, prefixes in found.items():
            self._known[guild] = (now, prefixes)
            self._known.move_to_end(guild)
        while len(self._known) > GUILDS_MAX:
            self._known.popitem(last=False)
        return found
