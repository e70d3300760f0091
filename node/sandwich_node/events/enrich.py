"""From a batch as read to the lines that are published: cache, prefixes and the observer add fields or drop events.

A shell: each lookup has a bounded time.
"""

import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from sandwich_node.cache.batch import EventOps
from sandwich_node.cache.feed import CacheFeed
from sandwich_node.cache.replies import Extra
from sandwich_node.events.asks import Arrival, MessageAsk, ObserverAsk
from sandwich_node.events.filters import EventFilter
from sandwich_node.events.observers import ExtraSource
from sandwich_node.events.prefixes import GuildPrefixes
from sandwich_node.publishing.frames import Batch, Item

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

BEHIND = b'"before":null,"cache":"behind"'
"""Replaces `before` in an event while the cache is behind or incomplete."""


@dataclass(slots=True)
class EnrichCounters:
    """Totals since the shard started here. `failed`: batches that were published without fields because of an error."""

    without_prefix: int = 0
    prefix_unknown: int = 0
    failed: int = 0


@dataclass(slots=True)
class ShardEnricher:
    """Implements `Enricher` for one shard. `cache` None: no cache is kept. `extra` None: no observer adds a field."""

    rules: EventFilter
    cache: CacheFeed | None = None
    prefixes: GuildPrefixes | None = None
    extra: ExtraSource | None = None
    counters: EnrichCounters = field(default_factory=EnrichCounters)

    @property
    def ttls(self) -> Mapping[str, float]:
        """See `Enricher`."""
        return self.rules.ttls

    def begin(self, batch: Batch, confirmed: int, on_lines: Callable[[Sequence[bytes]], None]) -> bool:
        """See `publishing.publisher.Enricher`."""
        if self.extra is not None:
            return False
        items, asking = batch.items, False
        for item in items:
            if item.ask is not None:
                if isinstance(item.ask, MessageAsk):
                    return False
                asking = True
        cache = self.cache
        if cache is None and not asking:
            on_lines([item.line for item in items])
        elif cache is None:
            on_lines(self._with_cached(batch, {}))
        else:
            try:
                cache.begin(
                    batch.session,
                    confirmed,
                    _operations(items),
                    starts_session=items[0].type == "READY",
                    on_applied=lambda extras: on_lines(self._with_cached(batch, extras)),
                )
            except Exception as error:
                self._failed(error)
                on_lines(self._with_cached(batch, {}))
        return True

    def _with_cached(self, batch: Batch, extras: Mapping[int, Extra] | None) -> list[bytes]:
        """The lines with what the cache adds; as they came if that fails."""
        items = batch.items
        lines = [item.line for item in items]
        try:
            added = self._cached(items, extras)
            asking = [(at, item) for at, item in enumerate(items) if item.ask is not None]
            if asking:
                _add_arrivals(asking, extras or {}, added)
            _add(lines, added)
        except Exception as error:
            self._failed(error)
            return [item.line for item in items]
        return lines

    async def finish(self, batch: Batch, confirmed: int) -> list[bytes]:
        """See `publishing.publisher.Enricher`."""
        items = batch.items
        lines = [item.line for item in items]
        added: dict[int, list[bytes]] = {}
        cache = self.cache
        extras = await self._done(self._cache(cache, batch, confirmed, added)) if cache is not None else None
        # Few events ask for anything.
        asking = [(at, item) for at, item in enumerate(items) if item.ask is not None]
        if asking:
            _add_arrivals(asking, extras or {}, added)
            asks = [(at, item.ask) for at, item in asking if isinstance(item.ask, MessageAsk)]
            if asks:
                await self._done(self._prefixes(asks, lines, added))
        if self.extra is not None:
            await self._done(self._observed(self.extra, items, added))
        _add(lines, added)
        return lines

    async def _done(self, part: Coroutine[None, None, _T]) -> _T | None:
        """The result of `part`; None if it fails. Raised, the error would end the shard, and return with the replay."""
        try:
            return await part
        except Exception as error:
            self._failed(error)
            return None

    def _failed(self, error: Exception) -> None:
        self.counters.failed += 1
        if self.counters.failed == 1:
            _log.error("events are published without their additional fields", exc_info=error)

    @property
    def is_whole(self) -> bool:
        """See `Enricher`."""
        return (self.cache is None or self.cache.is_whole) and (self.extra is None or self.extra.is_whole)

    async def _cache(
        self, cache: CacheFeed, batch: Batch, confirmed: int, added: dict[int, list[bytes]]
    ) -> Mapping[int, Extra]:
        """Apply the batch's changes and add the values that they replaced; returns the cache's extras by sequence."""
        items = batch.items
        starts_session = items[0].type == "READY"
        extras = await cache.apply(batch.session, confirmed, _operations(items), starts_session=starts_session)
        added.update(self._cached(items, extras))
        return extras or {}

    def _cached(self, items: Sequence[Item], extras: Mapping[int, Extra] | None) -> dict[int, list[bytes]]:
        """The fields that the cache adds, by the event's place. `extras` None: it does not have the events yet."""
        added: dict[int, list[bytes]] = {}
        if extras is None:
            cache = self.cache
            for at, item in enumerate(items):
                if item.ops and cache is not None and cache.reports_before(item.type):
                    added[at] = [BEHIND]
        elif extras:
            for at, item in enumerate(items):
                extra = extras.get(item.seq)
                # The shard itself decides whether a guild joined: see `_add_arrivals`.
                if extra is not None and extra.before is not None:
                    added[at] = [b'"before":' + extra.before]
        return added

    async def _prefixes(
        self, asks: Sequence[tuple[int, MessageAsk]], lines: list[bytes], added: dict[int, list[bytes]]
    ) -> None:
        rule = self.rules.prefixes
        if rule is None:
            # The filter was switched off after the messages were read.
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
                # It may begin with a prefix that could not be read: the consumer decides.
                added.setdefault(at, []).append(b'"prefix":null')
                self.counters.prefix_unknown += 1

    async def _observed(self, extra: ExtraSource, items: Sequence[Item], added: dict[int, list[bytes]]) -> None:
        asks = [(at, item.ask) for at, item in enumerate(items) if isinstance(item.ask, ObserverAsk)]
        answers = await extra.resolve([ask for _, ask in asks])
        for (at, _), answer in zip(asks, answers, strict=True):
            added.setdefault(at, []).append(b'"%b":%b' % (extra.extra_name.encode(), answer))


def _operations(items: Sequence[Item]) -> tuple[EventOps, ...]:
    return tuple([EventOps(item.seq, item.ops, item.size) for item in items if item.ops])


def _add(lines: list[bytes], added: Mapping[int, Sequence[bytes]]) -> None:
    for at, fields in added.items():
        if lines[at]:
            lines[at] = with_extra(lines[at], b",".join(fields))


def _add_arrivals(
    asking: Sequence[tuple[int, Item]], extras: Mapping[int, Extra], added: dict[int, list[bytes]]
) -> None:
    """Add whether a guild joined, was announced or is back: as the shard saw it, otherwise as the cache has it."""
    for at, item in asking:
        arrival, extra = item.ask, extras.get(item.seq)
        if isinstance(arrival, Arrival):
            if extra is not None and extra.lazy is not None:
                arrival = arrival.as_cached(lazy=extra.lazy, unavailable=bool(extra.unavailable))
            added.setdefault(at, []).append(arrival.fields())


def with_extra(line: bytes, fields: bytes) -> bytes:
    """The event's line with `__extra`; `fields` are JSON fields without braces."""
    return b'%b,"__extra":{%b}}\n' % (line[:-2], fields)
