"""From a batch as it was read to the lines that are published: what the cache, prefixes and invites add or hold back.

A shell: it asks, each for a bounded time, and puts the answers in.
"""

import logging
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from sandwich_node.cache.batch import EventOps
from sandwich_node.cache.feed import CacheFeed
from sandwich_node.cache.replies import Extra
from sandwich_node.events.filters import EventFilter, MessageAsk
from sandwich_node.events.guild_arrivals import Arrival
from sandwich_node.events.prefixes import GuildPrefixes
from sandwich_node.invites.lookup import InviteLookup, JoinAsk
from sandwich_node.publishing.frames import Batch, Item

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

BEHIND = b'"before":null,"cache":"behind"'
"""What an event is told with that would have had its `before`, while the cache is behind or incomplete."""


@dataclass(slots=True)
class EnrichCounters:
    """Totals since the shard started here. `failed`: batches that left without what should have been added."""

    without_prefix: int = 0
    prefix_unknown: int = 0
    failed: int = 0


@dataclass(slots=True)
class ShardEnricher:
    """Implements `Enricher` for one shard. `cache` None: the application keeps none; `invites`: it follows no joins."""

    rules: EventFilter
    cache: CacheFeed | None = None
    prefixes: GuildPrefixes | None = None
    invites: InviteLookup | None = None
    counters: EnrichCounters = field(default_factory=EnrichCounters)

    @property
    def ttls(self) -> Mapping[str, float]:
        """See `Enricher`."""
        return self.rules.ttls

    async def finish(self, batch: Batch, confirmed: int) -> list[bytes]:
        """See `sinks.publisher.Enricher`."""
        items = batch.items
        lines = [item.line for item in items]
        added: dict[int, list[bytes]] = {}
        cache = self.cache
        extras = await self._done(self._cache(cache, batch, confirmed, added)) if cache is not None else None
        _tell_arrivals(items, extras or {}, added)
        asks = [(at, item.ask) for at, item in enumerate(items) if isinstance(item.ask, MessageAsk)]
        if asks:
            await self._done(self._prefixes(asks, lines, added))
        if self.invites is not None:
            await self._done(self._joins(self.invites, items, added))
        for at, fields in added.items():
            if lines[at]:
                lines[at] = with_extra(lines[at], b",".join(fields))
        return lines

    async def _done(self, part: Coroutine[None, None, _T]) -> _T | None:
        """What `part` answers; None where it fails. An error would end the shard, and come again with the replay."""
        try:
            return await part
        except Exception:
            self.counters.failed += 1
            if self.counters.failed == 1:
                _log.exception("events leave without what should have been added to them")
            return None

    @property
    def is_whole(self) -> bool:
        """See `Enricher`."""
        return (self.cache is None or self.cache.is_whole) and (self.invites is None or self.invites.is_whole)

    async def _cache(
        self, cache: CacheFeed, batch: Batch, confirmed: int, added: dict[int, list[bytes]]
    ) -> Mapping[int, Extra]:
        """Apply the batch's changes, and take what they replaced; returns what the cache says, by sequence."""
        items = batch.items
        events = tuple(EventOps(item.seq, item.ops, item.size) for item in items if item.ops)
        extras = await cache.apply(batch.session, confirmed, events, starts_session=items[0].type == "READY")
        if extras is None:
            for at, item in enumerate(items):
                if item.ops and cache.reports_before(item.type):
                    added.setdefault(at, []).append(BEHIND)
            return {}
        if extras:
            for at, item in enumerate(items):
                extra = extras.get(item.seq)
                # Of guilds the shard says itself whether they joined.
                if extra is not None and (fields := Extra(extra.before).fields()):
                    added.setdefault(at, []).append(fields)
        return extras

    async def _prefixes(
        self, asks: Sequence[tuple[int, MessageAsk]], lines: list[bytes], added: dict[int, list[bytes]]
    ) -> None:
        rule = self.rules.prefixes
        if rule is None:
            # Switched off since the messages were read.
            return
        known = await self.prefixes.of(ask.guild for _, ask in asks) if self.prefixes is not None else {}
        for at, ask in asks:
            found = rule.match(ask.content, known.get(ask.guild))
            if found is not None:
                added.setdefault(at, []).append(b'"prefix":' + msgspec.json.encode(found))
            elif ask.guild in known or self.prefixes is None:
                lines[at] = b""
                self.counters.without_prefix += 1
            else:
                # It may begin with one that we could not read: the consumer decides.
                added.setdefault(at, []).append(b'"prefix":null')
                self.counters.prefix_unknown += 1

    async def _joins(self, invites: InviteLookup, items: Sequence[Item], added: dict[int, list[bytes]]) -> None:
        joins = [(at, item.ask) for at, item in enumerate(items) if isinstance(item.ask, JoinAsk)]
        told = await invites.resolve([ask for _, ask in joins])
        for (at, _), how in zip(joins, told, strict=True):
            added.setdefault(at, []).append(b'"invited_by":' + how)


def _tell_arrivals(items: Sequence[Item], extras: Mapping[int, Extra], added: dict[int, list[bytes]]) -> None:
    """Whether guilds joined, were announced or are back: as the shard saw it, or where it did not, as the cache did."""
    for at, item in enumerate(items):
        arrival, extra = item.ask, extras.get(item.seq)
        if isinstance(arrival, Arrival):
            if extra is not None and extra.lazy is not None:
                arrival = arrival.as_cached(lazy=extra.lazy, unavailable=bool(extra.unavailable))
            added.setdefault(at, []).append(arrival.fields())


def with_extra(line: bytes, fields: bytes) -> bytes:
    """The event's line with an `__extra`; `fields` are JSON fields without braces."""
    return b'%b,"__extra":{%b}}\n' % (line[:-2], fields)
