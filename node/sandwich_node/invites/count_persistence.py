"""Saves the invite counts of a shard's guilds for the shard's next owner. A shell.

Outdated counts must leave the store before the event that outdates them is in the stream. Otherwise the next owner
would use them, and attribute one member's use of an invite to another member. Until the store has removed them,
`is_whole` is false, and each frame in the chain says so. Counts that are not saved yet can be lost without harm.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol

from sandwich_node.cache.errors import CacheError

_log = logging.getLogger(__name__)

WRITE_EVERY_S = 1.0
"""Between two writes; urgent changes are written at once."""
RETRY_S = 1.0
RENEW_S = 1200.0
WRITE_BYTES_MAX = 512 * 1024
WAITING_BYTES_MAX = 4 * 1024 * 1024
"""Of the changes that wait while the store is unavailable. Beyond it the oldest are dropped, unless they are urgent."""


class _Entry(NamedTuple):
    state: bytes | None
    urgent: bool

    @property
    def size(self) -> int:
        return len(self.state or b"")


class CountStore(Protocol):
    """The store for the counts of one owner of a shard. Every call may raise CacheError."""

    async def write(self, states: Mapping[str, bytes | None], *, clear: bool) -> None:
        """Save these states, by guild; None removes one. With `clear`, remove all others first."""

    async def renew(self) -> None:
        """Extend the expiry: the owner is still running."""


class CountPersistence:
    """Saves counts in the background. With `store` None nothing is saved.

    `is_clean`: the content of the store is known; otherwise the store is cleared first. `on_whole` is called when the
    store holds no outdated counts any more.
    """

    def __init__(self, store: CountStore | None, *, is_clean: bool, on_whole: Callable[[], None]) -> None:
        self._store = store
        self._on_whole = on_whole
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
        """Whether the store holds no outdated counts."""
        return not self._urgent and self._clear is None

    def save(self, guild: str, state: bytes | None, *, urgent: bool) -> None:
        """Save this state of the guild, None for no state; `urgent` when the saved state is outdated."""
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
        """Everything that is saved is outdated: remove it."""
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
        """Wait until everything is written, or a write failed. From now on changes are written at once."""
        self._leaving = True
        self._hurry.set()
        await self._idle.wait()

    async def run(self) -> None:
        """Write until cancelled."""
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
        """Write once; whether it succeeded."""
        clear, entries = self._clear, self._next()
        states = {guild: entry.state for guild, entry in entries.items()}
        if not await self._tried(store.write(states, clear=clear is not None)):
            return False
        was_whole = self.is_whole
        # Changes that came during the write still wait.
        if self._clear is clear:
            self._clear = None
        for guild, entry in entries.items():
            if self._waiting.get(guild) is entry:
                self._drop(guild)
                self._urgent.discard(guild)
        if self.is_whole and not was_whole:
            self._on_whole()
        return True

    def _next(self) -> dict[str, _Entry]:
        """All urgent changes, then the others, oldest first, up to the size limit."""
        found = {guild: self._waiting[guild] for guild in self._urgent}
        size = 0
        for guild, entry in self._waiting.items():
            size += entry.size
            if size > WRITE_BYTES_MAX and found:
                break
            found[guild] = entry
        return found

    async def _tried(self, call: Awaitable[None]) -> bool:
        """Whether the call succeeded."""
        try:
            await call
        except CacheError as error:
            if not self._is_away:
                _log.warning("invite counts are not saved: %s", error)
            self._is_away = True
            return False
        self._is_away = False
        return True
