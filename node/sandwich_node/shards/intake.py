"""What a shard does with each event that it reads: looks at it once, and passes it to the publisher.

Whatever an event contains, it is published. A step that fails on it is left out, counted and logged: the event leaves
as it came, and the cache lacks it. An error would end the shard, and Discord would replay the event without end.
"""

from typing import Protocol

import msgspec

from sandwich_node.cache.context import Op
from sandwich_node.cache.feed import CacheFeed
from sandwich_node.events.asks import Arrival, Ask, MessageAsk, ObserverAsk
from sandwich_node.events.filters import CACHE_ONLY, EventFilter
from sandwich_node.events.guild_arrivals import ShardGuilds
from sandwich_node.events.observers import EventObserver
from sandwich_node.events.unreadable import Unreadable
from sandwich_node.publishing.publisher import ShardPublisher
from sandwich_node.rpc.answers import ANSWERS
from sandwich_node.rpc.shard import ShardCommands
from sandwich_node.shards.caching import ShardCaching
from sandwich_sdk.wire.frame import session_hash

_OF_GUILDS = frozenset({"READY", "GUILD_CREATE", "GUILD_DELETE"})


class Gate(Protocol):
    """Takes a shard's events in place of its intake, while they are not published as they come."""

    def dispatch(self, raw: bytes, data: msgspec.Raw, type: str, seq: int, session_id: str, *, damaged: bool) -> bool:
        """As `DispatchReceiver.dispatch`."""

    def begin_guilds(self, guilds: ShardGuilds) -> None:
        """A session began with these guilds."""

    async def drained(self) -> None:
        """As `DispatchReceiver.drained`."""


class ShardIntake:
    """Implements `DispatchReceiver`. `rules`, `guilds`, `caching` and `observer` may be replaced while it runs.

    `gate` takes the events while there is one; it passes them to `take` or `pass_over`.
    """

    def __init__(
        self,
        publisher: ShardPublisher,
        commands: ShardCommands,
        rules: EventFilter,
        unreadable: Unreadable,
        *,
        bot: str,
        guilds: int,
    ) -> None:
        self.rules = rules
        self.unreadable = unreadable
        self.guilds = ShardGuilds(guilds)
        self.caching: ShardCaching | None = None
        self.bot = bot
        self.session_id = ""
        self.gate: Gate | None = None
        self._publisher = publisher
        self._commands = commands
        self._observer: EventObserver | None = None
        self._observed_types: frozenset[str] = frozenset()
        self._trouble: str | Exception | None = None
        """What failed first on the event that is being taken."""

    @property
    def observer(self) -> EventObserver | None:
        """What follows the shard's events, from the next one on; None: nothing does."""
        return self._observer

    @observer.setter
    def observer(self, observer: EventObserver | None) -> None:
        self._observer = observer
        self._observed_types = observer.event_types if observer is not None else frozenset()

    def begin_guilds(self, guilds: ShardGuilds) -> None:
        """A session began with these guilds."""
        if self.gate is not None:
            self.gate.begin_guilds(guilds)
        else:
            self.guilds = guilds

    def begin_session(self, session_id: str, seq: int) -> None:
        """Events are of this session from now on; it was read up to `seq`."""
        self.session_id = session_id
        session = session_hash(session_id)
        self._publisher.buffer.start_session(session, seq, bot=self.bot)
        if self._observer is not None:
            self._observer.begin(session, self.bot)

    def dispatch(
        self, raw: bytes, data: msgspec.Raw, type: str, seq: int, session_id: str, *, damaged: bool = False
    ) -> bool:
        """Take one event from the connection."""
        if self.gate is not None:
            return self.gate.dispatch(raw, data, type, seq, session_id, damaged=damaged)
        if session_id is not self.session_id and session_id != self.session_id:
            self.begin_session(session_id, 0)
        self._trouble = "not JSON as every reader takes it" if damaged else None
        rules = self.rules
        lane = rules.lane(type)
        ask: Ask | None = None
        if type in _OF_GUILDS:
            ask = self._of_guilds(type, bytes(data), is_new=seq > self._publisher.buffer.last_seq)
        if self._commands.is_waiting and type in ANSWERS:
            self._answers(type, bytes(data))
        if type in self._observed_types and seq > self._publisher.buffer.last_seq:
            ask = self._observed(type, bytes(data), is_published=bool(lane)) or ask
        ops: tuple[Op, ...] = ()
        if lane is not None:
            if type == "GUILD_MEMBERS_CHUNK" or rules.looks_inside(type):
                lane, ask = self._judged(rules, type, data, lane)
            feed = self.caching.feed if self.caching is not None else None
            if feed is not None and feed.concerns(type):
                ops = self._changes(feed, type, bytes(data))
        if self._trouble is not None:
            self.unreadable.note(type, self._trouble)
        if not lane:
            raw = b""
        size = len(data) if ops else 0
        return self._publisher.push(raw, type, seq, lane or CACHE_ONLY, ops, size, ask, damaged)

    def take(
        self, raw: bytes, data: msgspec.Raw, type: str, seq: int, session_id: str, *, damaged: bool = False
    ) -> bool:
        """As `dispatch` without a gate: for the gate itself."""
        gate, self.gate = self.gate, None
        try:
            return self.dispatch(raw, data, type, seq, session_id, damaged=damaged)
        finally:
            self.gate = gate

    def pass_over(self, data: msgspec.Raw, type: str, seq: int, session_id: str) -> bool:
        """Take an event that is neither published nor cached: another shard group does that."""
        if session_id is not self.session_id and session_id != self.session_id:
            self.begin_session(session_id, 0)
        if type in _OF_GUILDS:
            self._of_guilds(type, bytes(data), is_new=seq > self._publisher.buffer.last_seq)
        return self._publisher.push(b"", type, seq, CACHE_ONLY)

    def _failed(self, why: str | Exception) -> None:
        self._trouble = self._trouble or why

    def _of_guilds(self, type: str, data: bytes, *, is_new: bool) -> Arrival | None:
        """Look at an event about a whole guild. For one that comes or goes, whether it was announced."""
        try:
            if self.caching is not None:
                self.caching.observe(type, data)
            if type == "READY" or not is_new:
                return None
            arrival = self.guilds.take(type, data)
        except Exception as error:
            self._failed(error)
            return None
        if arrival is None:
            self._failed(f"not the known shape of a {type}")
        return arrival

    def _answers(self, type: str, data: bytes) -> None:
        try:
            self._commands.observe(type, data)
        except Exception as error:
            self._failed(error)

    def _observed(self, type: str, data: bytes, *, is_published: bool) -> ObserverAsk | None:
        observer = self._observer
        if observer is None:
            return None
        try:
            return observer.observe(type, data, is_published=is_published)
        except Exception as error:
            self._failed(error)
            observer.interrupt()
            return None

    def _judged(self, rules: EventFilter, type: str, data: msgspec.Raw, lane: str) -> tuple[str, MessageAsk | None]:
        try:
            if type == "GUILD_MEMBERS_CHUNK":
                return CACHE_ONLY if self._commands.is_for_cache(bytes(data)) else lane, None
            verdict = rules.judge(type, data, lane)
        except Exception as error:
            self._failed(error)
            return lane, None
        if not verdict.is_read:
            self._failed(f"not the known shape of a {type}")
        return verdict.lane, verdict.ask

    def _changes(self, feed: CacheFeed, type: str, data: bytes) -> tuple[Op, ...]:
        ops = feed.translate(type, data)
        if feed.trouble is not None:
            self._failed(feed.trouble)
        return ops

    async def drained(self) -> None:
        """Wait until the publisher has room, or the gate."""
        if self.gate is not None:
            await self.gate.drained()
            return
        observer = self._observer
        if observer is not None:
            observer.is_reading(False)
        try:
            await self._publisher.drained()
        finally:
            if observer is not None:
                observer.is_reading(True)
