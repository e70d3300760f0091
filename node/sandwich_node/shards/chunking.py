"""Requests all members of a shard's guilds from Discord, one guild after the other, and remembers which it has.

Redis keeps which guilds have all their members, beside the shard's guilds, so that the shard's next owner goes on. A
GUILD_CREATE replaces the guild's members: they are requested again, unless it listed all of them.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from sandwich_node.cache.batch import names_of
from sandwich_node.cache.errors import CacheError
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.cache.settings import CacheWriter
from sandwich_node.rpc.shard import ShardCommands
from sandwich_sdk.wire.rpc import LIMITED, RpcError

_log = logging.getLogger(__name__)

PACE_S = 1.0
"""Between two guilds. A shard may send 120 commands in 60 s: other commands have room."""
GUILD_TIMEOUT_S = 30.0
TRIES_MAX = 3
RETRY_S = 5.0


class _Guild(msgspec.Struct):
    id: str
    member_count: int = 0
    members: list[msgspec.Raw] = []
    unavailable: bool = False


class _Some(msgspec.Struct):
    id: str
    member_count: int = 0
    unavailable: Any = False


_whole = msgspec.json.Decoder(_Guild).decode
_some = msgspec.json.Decoder(_Some).decode


def _guild(data: bytes) -> _Guild:
    """The guild. If its list of members cannot be read, it counts as empty. Raises MsgspecError."""
    try:
        return _whole(data)
    except msgspec.MsgspecError:
        found = _some(data)
        return _Guild(found.id, member_count=found.member_count, unavailable=found.unavailable is True)


class MemberChunking:
    """Requests the members of one shard. `observe` takes its READY, GUILD_CREATE and GUILD_DELETE in order."""

    def __init__(self, writer: CacheWriter, cache: RedisCache, commands: ShardCommands) -> None:
        self._key = names_of(writer).chunked
        self._index = names_of(writer).index
        self._cache = cache
        self._commands = commands
        self._pending: OrderedDict[str, int] = OrderedDict()
        self._complete: set[str] = set()
        self._forgotten: set[str] = set()
        self._is_new_session = False
        self._woken = asyncio.Event()

    @property
    def left(self) -> int:
        """How many guilds' members are still to be requested."""
        return len(self._pending)

    def observe(self, event_type: str, data: bytes) -> None:
        """Look at an event about a whole guild."""
        if event_type == "READY":
            self._pending.clear()
            self._complete.clear()
            self._is_new_session = True
        else:
            try:
                guild = _guild(data)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                return
            if guild.unavailable or not guild.id.isdigit():
                return
            self._pending.pop(guild.id, None)
            if event_type == "GUILD_CREATE" and guild.member_count > len(guild.members):
                self._forgotten.add(guild.id)
                self._pending[guild.id] = 0
            elif event_type == "GUILD_CREATE":
                self._complete.add(guild.id)
            else:
                self._forgotten.add(guild.id)
        self._woken.set()

    async def run(self) -> None:
        """Request members for ever, whenever a guild is left."""
        resumed = await self._until_redis(self._left_by_others)
        for guild in resumed:
            self._pending.setdefault(guild, 0)
        while True:
            self._woken.clear()
            await self._until_redis(self._note)
            if not self._pending:
                await self._woken.wait()
                continue
            guild, tries = self._pending.popitem(last=False)
            try:
                await self._commands.chunk(guild, GUILD_TIMEOUT_S)
            except RpcError as error:
                self._later(guild, tries, error)
            else:
                self._complete.add(guild)
            await asyncio.sleep(PACE_S)

    def _later(self, guild: str, tries: int, error: RpcError) -> None:
        """It was not this guild's turn, or Discord did not answer: try again after all the others."""
        if error.code != LIMITED:
            tries += 1
            _log.info("members of guild %s were not all fetched: %s", guild, error)
        if tries < TRIES_MAX:
            self._pending.setdefault(guild, tries)

    async def _until_redis(self, work: Callable[[], Awaitable[list[str]]]) -> list[str]:
        while True:
            try:
                return await work()
            except CacheError as error:
                _log.info("fetching members waits: %s", error)
                await asyncio.sleep(RETRY_S)

    async def _left_by_others(self) -> list[str]:
        """The guilds that the shard's last owner had not requested; none when the session began here."""
        if self._is_new_session:
            return []
        guilds, complete = await self._cache.read_sets([self._index, self._key])
        return sorted(guilds - complete)

    async def _note(self) -> list[str]:
        """Store which guilds are complete now."""
        if self._is_new_session:
            await self._cache.command("DEL", self._key)
            self._is_new_session = False
        gone, done = self._forgotten - self._complete, set(self._complete)
        if gone:
            await self._cache.command("SREM", self._key, *sorted(gone))
        if done:
            await self._cache.command("SADD", self._key, *sorted(done))
        self._forgotten -= gone
        self._complete -= done
        return []
