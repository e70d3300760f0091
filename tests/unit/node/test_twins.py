"""Which events a shard remembers of the time before its hold, and which of the hold the old group has published."""

import json
from typing import Any

import msgspec
import pytest

from sandwich_coordinator.types import EventsSpec, PrefixSpec
from sandwich_node.events.asks import Arrival
from sandwich_node.events.filters import EventFilter
from sandwich_node.events.identity import Identity
from sandwich_node.publishing.old_chains import Follower
from sandwich_node.shards.hold import BEFORE_MAX, HeldEvent, Hold, HoldNote, identity_of_text
from sandwich_node.shards.twins import EventsBefore, mark_twins, published_identity

GUILD = 4 << 22
FILTERED = EventFilter(EventsSpec(ignore=["TYPING_*"], cache_only=["PRESENCE_UPDATE"], ignore_bots=True), "1")
PREFIXED = EventFilter(EventsSpec(prefixes=PrefixSpec(fallback="!")), "1")


def named(text: str) -> list[Identity]:
    return [(GUILD, letter.encode() * 16) for letter in text]


def message(*, bot: bool = False) -> msgspec.Raw:
    data: dict[str, Any] = {"id": "5", "channel_id": "1", "guild_id": str(GUILD), "content": "!hi"}
    return msgspec.Raw(json.dumps(data | {"author": {"id": "2", "bot": bot}}).encode())


@pytest.mark.parametrize(
    ("type", "data"),
    [
        ("TYPING_START", msgspec.Raw(b"{}")),
        ("PRESENCE_UPDATE", msgspec.Raw(b"{}")),
        ("MESSAGE_CREATE", message(bot=True)),
    ],
)
def test_an_event_that_is_not_published_has_no_identity(type: str, data: msgspec.Raw) -> None:
    assert published_identity(FILTERED, type, data, None) == (None, False)


def test_where_a_look_up_decides_an_event_has_an_identity_all_the_same() -> None:
    one, is_asked = published_identity(PREFIXED, "MESSAGE_CREATE", message(), None)
    assert (one, is_asked) == (published_identity(FILTERED, "MESSAGE_CREATE", message(), None)[0], True)
    assert one is not None
    assert one[0] == GUILD


def test_a_guild_that_was_announced_is_not_the_one_that_was_joined() -> None:
    data = msgspec.Raw(json.dumps({"id": str(GUILD), "joined_at": "2026-01-01"}).encode())
    lazy, joined = (
        published_identity(FILTERED, "GUILD_CREATE", data, Arrival(lazy=lazy, unavailable=False))[0]
        for lazy in (True, False)
    )
    assert lazy != joined


def test_the_note_of_a_hold_has_the_events_that_are_certainly_published() -> None:
    before, (a, b, c, d) = EventsBefore(), named("abcd")
    before.add(a, is_asked=False)
    before.stream_was_read()
    before.add(b, is_asked=False)
    before.add(c, is_asked=True)
    before.add(d, is_asked=False)
    note = before.note(HoldNote(group=3, count=4, ids="0-3"))
    assert [identity_of_text(text) for text in note.before] == [a, b, d]
    assert (note.group, note.count, note.ids, note.recent) == (3, 4, "0-3", 3)
    assert before.published(set()) == ([a, b, d], 2)
    assert before.published({c}) == ([a, b, c, d], 3)


def test_the_oldest_events_before_a_hold_are_forgotten() -> None:
    before = EventsBefore()
    for number in range(BEFORE_MAX + 5):
        before.add((GUILD, number.to_bytes(16, "big")), is_asked=False)
    found, recent = before.published(set())
    assert (len(found), recent) == (BEFORE_MAX, BEFORE_MAX)
    assert found[0] == (GUILD, (5).to_bytes(16, "big"))
    assert EventsBefore(found, 7).published(set()) == (found, 7), "as a next owner reads it"


def hold_of(letters: str, *, asked: str = "") -> Hold:
    hold = Hold()
    for seq, (letter, one) in enumerate(zip(letters, named(letters), strict=True), start=1):
        raw = msgspec.Raw(b"{}")
        hold.put(HeldEvent(b"{}", raw, "MESSAGE_CREATE", seq, "s", False, one, is_asked=letter in asked))
    return hold


def followed(published: str) -> Follower:
    one = Follower(0, 2, 4, frozenset({0}), 0)
    one.published.extend(named(published))
    one.sessions.extend("s" for _ in published)
    return one


@pytest.mark.parametrize(
    ("held", "asked", "published", "twins"),
    [("cde", "", "bc", "c"), ("cde", "c", "bd", "d"), ("cde", "c", "bcd", "cd"), ("cde", "", "", "")],
)
def test_twins_are_what_the_old_group_went_on_with(held: str, asked: str, published: str, twins: str) -> None:
    hold = hold_of(held, asked=asked)
    assert mark_twins(hold, EventsBefore(named("ab")), followed(published), 4) == len(twins)
    assert "".join(letter for letter, event in zip(held, hold.events, strict=True) if event.is_twin) == twins


def test_without_an_old_group_nothing_is_a_twin() -> None:
    assert mark_twins(hold_of("abc"), EventsBefore(), followed(""), 0) == 0
