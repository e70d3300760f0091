"""Writes what a shard's next owner needs of its guilds' counts. A shell.

What is true no longer must be gone from the store before the stream has the event which says so: otherwise a next
owner would believe it, and give somebody's use of an invite to somebody else. `is_whole` is false meanwhile, and goes
into the chain with each frame. What is still to be kept may be lost without harm.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol

from sandwich_node.cache.errors import CacheError

_log = logging.getLogger(__name__)

WRITE_EVERY_S = 1.0
"""Between two writes; what is urgent is written at once."""
WRITE_TIMEOUT_S = 1.0
RETRY_S = 1.0
RENEW_S = 1200.0
WRITE_BYTES_MAX = 512 * 1024
WAITING_BYTES_MAX = 4 * 1024 * 1024
"""Of what waits while the store is away; the oldest of it is given up, unless it is urgent."""


class _Entry(NamedTuple):
    state: bytes | None
    urgent: bool

    @property
    def size(self) -> int:
        return len(self.state or b"")


class CountStore(Protocol):
    """Where one owner of a shard keeps its guilds' counts. Every call may raise CacheError."""

    async def write(self, states: Mapping[str, bytes | None], *, clear: bool) -> None:
        """PersistCounts these, by guild, None for nothing; with `clear` nothing else."""

    async def renew(self) -> None:
        """The owner still lives: nothing of it may age out."""


class CountPersistence:
    """`news` is called when the store is whole again; `store` None: nothing is kept at all.

    `is_clean`: what is in the store is known. Otherwise it is taken back first of all.
    """

    def __init__(self, store: CountStore | None, *, is_clean: bool, news: Callable[[], None]) -> None:
        self._store = store
        self._news = news
        self._waiting: dict[str, _Entry] = {}
        self._urgent: set[str] = set()
        self._bytes = 0
        self._clear: object | None = None
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._leaving = False
        self._is_away = False
        if not is_clean:
            self.clear()

    @property
    def is_whole(self) -> bool:
        """Whether the store says nothing that is true no longer."""
        return not self._urgent and self._clear is None

    def keep(self, guild: str, state: bytes | None, *, urgent: bool) -> None:
        """PersistCounts this of the guild, None for nothing; `urgent` when what is there is true no longer."""
        self._drop(guild)
        if urgent:
            self._urgent.add(guild)
            self._hurry.set()
        entry = self._waiting[guild] = _Entry(state, guild in self._urgent)
        self._bytes += entry.size
        while self._bytes > WAITING_BYTES_MAX and len(self._urgent) < len(self._waiting):
            self._drop(next(guild for guild in self._waiting if guild not in self._urgent))
        self._changed()

    def clear(self) -> None:
        """Nothing of what is kept is true any longer."""
        if self._store is not None:
            self._waiting.clear()
            self._urgent.clear()
            self._bytes = 0
            self._clear = object()
            self._hurry.set()
            self._changed()

    def _drop(self, guild: str) -> None:
        entry = self._waiting.pop(guild, None)
        self._bytes -= entry.size if entry is not None else 0

    def _changed(self) -> None:
        self._wake.set()
        self._idle.clear()

    async def drained(self) -> None:
        """Wait until everything is written, or the store does not take it; nothing waits for its time any more."""
        self._leaving = True
        self._hurry.set()
        await self._idle.wait()

    async def run(self) -> None:
        """Write for ever."""
        store = self._store
        while store is not None:
            if self.is_whole and not self._waiting:
                self._idle.set()
                self._wake.clear()
            try:
                async with asyncio.timeout(RENEW_S):
                    await self._wake.wait()
            except TimeoutError:
                await self._tried(store.renew())
                continue
            if self.is_whole and not self._leaving:
                await self._pause()
            self._hurry.clear()
            if not await self._write(store):
                if self._leaving:
                    self._idle.set()
                await asyncio.sleep(RETRY_S)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(WRITE_EVERY_S):
                await self._hurry.wait()
        except TimeoutError:
            pass

    async def _write(self, store: CountStore) -> bool:
        """Whether a step was made."""
        clear, entries = self._clear, self._next()
        states = {guild: entry.state for guild, entry in entries.items()}
        if not await self._tried(store.write(states, clear=clear is not None)):
            return False
        was_whole = self.is_whole
        # What changed meanwhile is still to be done.
        if self._clear is clear:
            self._clear = None
        for guild, entry in entries.items():
            if self._waiting.get(guild) is entry:
                self._drop(guild)
                self._urgent.discard(guild)
        if self.is_whole and not was_whole:
            self._news()
        return True

    def _next(self) -> dict[str, _Entry]:
        """All that is urgent, and of the rest, oldest first, what fits."""
        found = {guild: self._waiting[guild] for guild in self._urgent}
        size = 0
        for guild, entry in self._waiting.items():
            size += entry.size
            if size > WRITE_BYTES_MAX and found:
                break
            found[guild] = entry
        return found

    async def _tried(self, call: Awaitable[None]) -> bool:
        """Whether the call went well."""
        try:
            await call
        except CacheError as error:
            if not self._is_away:
                _log.warning("the counts of invites are not kept: %s", error)
            self._is_away = True
            return False
        self._is_away = False
        return True
