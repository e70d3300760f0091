"""What is put into events before they leave, from the cache, the prefixes and the invites, all in one place."""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from sandwich_coordinator.types import EventsSpec, PrefixSpec
from sandwich_node.cache.batch import EventOps
from sandwich_node.cache.replies import Extra
from sandwich_node.events.asks import Arrival, Ask, MessageAsk, ObserverAsk
from sandwich_node.events.enrich import ShardEnricher
from sandwich_node.events.filters import EventFilter
from sandwich_node.publishing.frames import Batch, Item

OPS: Any = ("an op",)
"""What an event changes in the cache is no matter here, only that it does."""


class Feed:
    """A cache that answers with `extras`, or None for late."""

    is_whole = True

    def __init__(self, extras: Mapping[int, Extra] | None) -> None:
        self.extras = extras
        self.seen: list[tuple[str, int, tuple[int, ...], bool]] = []

    def reports_before(self, event_type: str) -> bool:
        return event_type.endswith(("_UPDATE", "_DELETE"))

    def begin(
        self, session: str, confirmed: int, events: tuple[EventOps, ...], *, starts_session: bool, on_applied: Any
    ) -> None:
        self.seen.append((session, confirmed, tuple(event.seq for event in events), starts_session))
        on_applied(self.extras)


class Prefixes:
    """Knows the prefixes of some guilds, and not those of others."""

    def __init__(self, known: dict[str, frozenset[str]]) -> None:
        self.known = known

    async def of(self, guilds: Iterable[str]) -> dict[str, frozenset[str]]:
        return {guild: self.known[guild] for guild in guilds if guild in self.known}


class Invites:
    """An observer that answers every ask."""

    extra_name = "invited_by"

    def __init__(self, *, is_whole: bool = True) -> None:
        self.is_whole = is_whole

    async def resolve(self, asks: Sequence[ObserverAsk]) -> list[bytes]:
        return [b'{"handle":%d}' % ask.handle for ask in asks]


def item(seq: int, event_type: str, *, ops: Any = (), ask: Ask | None = None, published: bool = True) -> Item:
    line = json.dumps({"t": event_type, "s": seq, "op": 0, "d": {}}).encode() + b"\n" if published else b""
    return Item("session", line, event_type, seq, "events", ops, 100, ask)


def enricher(prefixes: Prefixes | None = None, **parts: Any) -> ShardEnricher:
    spec = EventsSpec(prefixes=PrefixSpec(fallback="!", mention=False)) if prefixes else EventsSpec()
    given: Any = prefixes
    return ShardEnricher(EventFilter(spec, "9"), prefixes=given, **parts)


def finish(tested: ShardEnricher, *items: Item) -> list[Any]:
    """The `__extra` of each line; None without one, "" for what is not published."""
    batch = Batch("session", items[0].seq, items[-1].seq, items)
    begun: list[Sequence[bytes]] = []
    is_begun = tested.begin(batch, 0, begun.append)
    lines = asyncio.run(tested.finish(batch, 0))
    # Both ways add the same.
    assert begun == ([lines] if is_begun else [])
    assert all(line == b"" or line.endswith(b"}\n") for line in lines)
    return [json.loads(line).get("__extra") if line else "" for line in lines]


def test_what_the_cache_says_is_put_into_the_events_that_changed_it_and_no_others() -> None:
    feed = Feed({2: Extra(before=b'{"id":"1"}'), 4: Extra(lazy=True, unavailable=False)})
    extras = finish(
        enricher(cache=feed),
        item(1, "TYPING_START"),
        item(2, "CHANNEL_UPDATE", ops=OPS),
        item(3, "CHANNEL_CREATE", ops=OPS),
        item(4, "GUILD_CREATE", ops=OPS, ask=Arrival(lazy=False, unavailable=False)),
    )
    assert extras == [None, {"before": {"id": "1"}}, None, {"lazy": True, "unavailable": False}]
    assert feed.seen == [("session", 0, (2, 3, 4), False)] * 2


def test_a_cache_that_is_late_is_named_where_a_before_was_owed_and_guilds_say_what_is_known_without_it() -> None:
    extras = finish(
        enricher(cache=Feed(None)),
        item(1, "CHANNEL_UPDATE", ops=OPS),
        item(2, "CHANNEL_CREATE", ops=OPS),
        item(3, "GUILD_CREATE", ops=OPS, ask=Arrival(lazy=True, unavailable=False)),
    )
    assert extras == [{"before": None, "cache": "behind"}, None, {"lazy": True, "unavailable": False}]


def test_what_the_shard_knows_of_a_guild_counts_more_than_a_cache_that_was_emptied_or_is_old() -> None:
    emptied, old = Extra(lazy=False, unavailable=False), Extra(lazy=True, unavailable=False)
    extras = finish(
        enricher(cache=Feed({1: emptied, 2: emptied, 3: old, 4: emptied, 5: old})),
        item(1, "GUILD_CREATE", ops=OPS, ask=Arrival(lazy=True, unavailable=False, is_sure=True)),
        item(2, "GUILD_CREATE", ops=OPS, ask=Arrival(lazy=False, unavailable=True, is_sure=True)),
        item(3, "GUILD_CREATE", ops=OPS, ask=Arrival(lazy=False, unavailable=False, is_sure=True)),
        item(4, "GUILD_CREATE", ops=OPS, ask=Arrival(lazy=False, unavailable=True)),
        item(5, "GUILD_CREATE", ops=(), ask=Arrival(lazy=False, unavailable=True)),
    )
    announced, back, joined = (
        {"lazy": lazy, "unavailable": unavailable}
        for lazy, unavailable in ((True, False), (False, True), (False, False))
    )
    assert extras == [announced, back, joined, back, announced], "only what the shard did not see is the cache's to say"


def test_what_is_not_published_stays_unpublished_whatever_is_known_of_it() -> None:
    feed = Feed({1: Extra(before=b"{}")})
    assert finish(enricher(cache=feed), item(1, "CHANNEL_UPDATE", ops=OPS, published=False)) == [""]


def test_prefixes_choose_messages_and_an_unknown_prefix_leaves_the_choice_to_consumers() -> None:
    tested = enricher(Prefixes({"10": frozenset({"?"}), "11": frozenset()}))
    extras = finish(
        tested,
        item(1, "MESSAGE_CREATE", ask=MessageAsk("10", "?help")),
        item(2, "MESSAGE_CREATE", ask=MessageAsk("10", "!help")),
        item(3, "MESSAGE_CREATE", ask=MessageAsk("11", "!help")),
        item(4, "MESSAGE_CREATE", ask=MessageAsk("12", "?help")),
        item(5, "MESSAGE_CREATE", ask=MessageAsk("12", "!help")),
        item(6, "MESSAGE_CREATE"),
    )
    assert extras == [{"prefix": "?"}, "", {"prefix": "!"}, {"prefix": None}, {"prefix": "!"}, None]
    assert (tested.counters.without_prefix, tested.counters.prefix_unknown) == (1, 1)


def test_what_an_observer_adds_leaves_beside_what_the_cache_adds() -> None:
    extras = finish(
        enricher(cache=Feed({}), extra=Invites()),
        item(1, "GUILD_MEMBER_ADD", ops=OPS, ask=ObserverAsk(7)),
        item(2, "GUILD_MEMBER_ADD", ops=OPS),
    )
    assert extras == [{"invited_by": {"handle": 7}}, None]


@pytest.mark.parametrize(("cache", "invites"), [(False, True), (True, False), (False, False)])
def test_it_is_whole_only_with_all_its_parts(cache: bool, invites: bool) -> None:
    feed, lookup = Feed({}), Invites()
    feed.is_whole, lookup.is_whole = cache, invites
    assert not enricher(cache=feed, extra=lookup).is_whole
    assert enricher().is_whole


@pytest.mark.parametrize(
    ("parts", "ask", "is_begun"),
    [
        ({}, None, True),
        ({}, Arrival(lazy=True, unavailable=False), True),
        ({"cache": Feed({})}, None, True),
        ({}, MessageAsk("1", "!hello"), False),
        ({"extra": Invites()}, None, True),
        ({"extra": Invites(is_whole=False)}, None, False),
        ({"extra": Invites()}, ObserverAsk(1), False),
    ],
)
def test_what_asks_for_more_than_the_cache_needs_a_task(parts: dict[str, Any], ask: Ask | None, is_begun: bool) -> None:
    batch = Batch("session", 1, 1, (item(1, "MESSAGE_CREATE", ops=OPS, ask=ask),))
    assert enricher(**parts).begin(batch, 0, lambda lines: None) == is_begun


def test_the_cache_learns_what_is_stored_and_where_a_session_begins() -> None:
    feed = Feed({})
    ready, change = item(1, "READY"), item(2, "CHANNEL_CREATE", ops=OPS)
    for batch, confirmed in ((Batch("new", 1, 2, (ready, change)), 0), (Batch("new", 2, 2, (change,)), 1)):
        assert enricher(cache=feed).begin(batch, confirmed, lambda lines: None)
    assert feed.seen == [("new", 0, (2,), True), ("new", 1, (2,), False)]


def test_a_fault_in_one_kind_of_field_costs_no_other() -> None:
    """Without `lazy`, consumers would take an announced guild for a join."""
    extras: Any = {1: "not an Extra"}
    found = finish(
        enricher(cache=Feed(extras)),
        item(1, "CHANNEL_UPDATE", ops=OPS),
        item(2, "GUILD_CREATE", ops=OPS, ask=Arrival(lazy=True, unavailable=False)),
    )
    assert found == [None, {"lazy": True, "unavailable": False}]


class Broken(Feed):
    """A cache in which an error of our own is raised."""

    def __init__(self, *, at_once: bool) -> None:
        super().__init__({})
        self.at_once = at_once

    def begin(self, *_: Any, on_applied: Any, **__: Any) -> None:
        if self.at_once:
            raise RuntimeError("of our own")
        extras: Any = {1: "not an Extra"}
        on_applied(extras)


@pytest.mark.parametrize("at_once", [True, False])
def test_an_event_whose_fields_cannot_be_made_leaves_once_as_it_came(at_once: bool) -> None:
    tested = enricher(cache=Broken(at_once=at_once))
    found: list[Sequence[bytes]] = []
    one = item(1, "CHANNEL_UPDATE", ops=OPS)
    assert tested.begin(Batch("session", 1, 1, (one,)), 0, found.append)
    assert found == [[one.line]]
    assert tested.counters.failed == 1
