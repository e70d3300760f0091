"""From a batch as read to the lines that are published: cache, prefixes and the observer add fields or drop events.

A shell: each lookup has a bounded time.
"""

import asyncio
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
_Fields = dict[int, list[bytes]]
"""The fields of `__extra`, as JSON, by an event's place in its batch."""

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
        if self.extra is not None and not self.extra.is_whole:
            return False
        items = batch.items
        for item in items:
            if item.ask is not None and isinstance(item.ask, MessageAsk | ObserverAsk):
                return False
        self._begin_fields(batch, confirmed, lambda fields: on_lines(_lines(items, fields)))
        return True

    async def finish(self, batch: Batch, confirmed: int) -> list[bytes]:
        """See `publishing.publisher.Enricher`."""
        made: asyncio.Future[_Fields] = asyncio.get_running_loop().create_future()

        def on_fields(fields: _Fields) -> None:
            if not made.done():
                made.set_result(fields)

        self._begin_fields(batch, confirmed, on_fields)
        fields, items, dropped = await made, batch.items, set[int]()
        asks = [(at, item.ask) for at, item in enumerate(items) if isinstance(item.ask, MessageAsk)]
        if asks:
            await self._done(self._prefixes(asks, dropped, fields))
        if self.extra is not None:
            await self._done(self._observed(self.extra, items, fields))
        lines = _lines(items, fields)
        for at in dropped:
            lines[at] = b""
        return lines

    def _begin_fields(self, batch: Batch, confirmed: int, on_fields: Callable[[_Fields], None]) -> None:
        """What the cache adds to events, and whether guilds came. `on_fields` is called once, maybe at once."""
        items, cache = batch.items, self.cache
        if cache is None:
            on_fields(self._fields(items, {}))
            return
        try:
            cache.begin(
                batch.session,
                confirmed,
                tuple([EventOps(item.seq, item.ops, item.size) for item in items if item.ops]),
                starts_session=items[0].type == "READY",
                on_applied=lambda extras: on_fields(self._fields(items, extras)),
            )
        except Exception as error:
            self._failed(error)
            on_fields(self._fields(items, {}))

    def _fields(self, items: Sequence[Item], extras: Mapping[int, Extra] | None) -> _Fields:
        """`extras`: the cache's, by sequence; None: it does not have the events yet."""
        fields: _Fields = {}
        for add in (self._add_before, _add_arrivals):
            try:
                add(items, extras, fields)
            except Exception as error:
                self._failed(error)
        return fields

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

    def _add_before(self, items: Sequence[Item], extras: Mapping[int, Extra] | None, fields: _Fields) -> None:
        """Add the values that events replaced."""
        cache = self.cache
        if extras is None:
            for at, item in enumerate(items):
                if item.ops and cache is not None and cache.reports_before(item.type):
                    fields[at] = [BEHIND]
        elif extras:
            for at, item in enumerate(items):
                extra = extras.get(item.seq)
                # The shard itself decides whether a guild joined: see `_add_arrivals`.
                if extra is not None and extra.before is not None:
                    fields[at] = [b'"before":' + extra.before]

    async def _prefixes(self, asks: Sequence[tuple[int, MessageAsk]], dropped: set[int], fields: _Fields) -> None:
        rule = self.rules.prefixes
        if rule is None:
            # The filter was switched off after the messages were read.
            return
        known = await self.prefixes.of(ask.guild for _, ask in asks) if self.prefixes is not None else {}
        for at, ask in asks:
            found = rule.match(ask.content, known.get(ask.guild))
            if found is not None:
                fields.setdefault(at, []).append(b'"prefix":' + msgspec.json.encode(found))
            elif ask.guild in known or self.prefixes is None:
                dropped.add(at)
                self.counters.without_prefix += 1
            else:
                # It may begin with a prefix that could not be read: the consumer decides.
                fields.setdefault(at, []).append(b'"prefix":null')
                self.counters.prefix_unknown += 1

    async def _observed(self, extra: ExtraSource, items: Sequence[Item], fields: _Fields) -> None:
        asks = [(at, item.ask) for at, item in enumerate(items) if isinstance(item.ask, ObserverAsk)]
        answers = await extra.resolve([ask for _, ask in asks])
        for (at, _), answer in zip(asks, answers, strict=True):
            fields.setdefault(at, []).append(b'"%b":%b' % (extra.extra_name.encode(), answer))


def _add_arrivals(items: Sequence[Item], extras: Mapping[int, Extra] | None, fields: _Fields) -> None:
    """Add whether a guild joined, was announced or is back: as the shard saw it, otherwise as the cache has it."""
    for at, item in enumerate(items):
        arrival = item.ask
        if isinstance(arrival, Arrival):
            extra = extras.get(item.seq) if extras else None
            if extra is not None and extra.lazy is not None:
                arrival = arrival.as_cached(lazy=extra.lazy, unavailable=bool(extra.unavailable))
            fields.setdefault(at, []).append(arrival.fields())


def _lines(items: Sequence[Item], fields: _Fields) -> list[bytes]:
    lines = [item.line for item in items]
    for at, added in fields.items():
        if lines[at]:
            lines[at] = with_extra(lines[at], b",".join(added))
    return lines


def with_extra(line: bytes, fields: bytes) -> bytes:
    """The event's line with `__extra`; `fields` are JSON fields without braces."""
    return b'%b,"__extra":{%b}}\n' % (line[:-2], fields)
