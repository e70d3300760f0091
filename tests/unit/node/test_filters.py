"""Which events are published, on which lane, and which only change the cache."""

import json

import pytest

from sandwich_coordinator.types import EventsSpec, LaneSpec, PrefixSpec
from sandwich_node.events.asks import MessageAsk
from sandwich_node.events.filters import CACHE_ONLY, Decision, EventFilter


def message(content: str = "hi", *, bot: bool = False, guild: str | None = "5") -> bytes:
    author = {"id": "1"} | ({"bot": True} if bot else {})
    return json.dumps({"content": content, "author": author} | ({"guild_id": guild} if guild else {})).encode()


def test_a_type_goes_to_its_lane_or_nowhere() -> None:
    rules = EventFilter(
        EventsSpec(
            ignore=["TYPING_START", "PRESENCE_*"],
            cache_only=["GUILD_MEMBER_UPDATE"],
            lanes={"messages": LaneSpec(types=["MESSAGE_*"], max_age_s=60.0)},
        ),
        bot="9",
    )
    types = ("TYPING_START", "PRESENCE_UPDATE", "GUILD_MEMBER_UPDATE", "MESSAGE_CREATE", "SOMETHING_NEW")
    assert [rules.lane(name) for name in types] == [None, None, CACHE_ONLY, "messages", "all"]
    assert rules.ttls == {"messages": 60.0}
    assert not rules.looks_inside("MESSAGE_CREATE")


def test_messages_of_bots_stay_in_the_cache() -> None:
    rules = EventFilter(EventsSpec(ignore_bots=True), bot="9")
    assert rules.looks_inside("MESSAGE_UPDATE")
    assert not rules.looks_inside("TYPING_START")
    assert rules.judge("MESSAGE_CREATE", message(bot=True), "all") == Decision(CACHE_ONLY)
    assert rules.judge("MESSAGE_CREATE", message(), "all") == Decision("all")
    assert rules.judge("MESSAGE_CREATE", b'{"author":5}', "all") == Decision("all")


def test_prefixes_are_asked_for_guilds_and_direct_messages_pass() -> None:
    rules = EventFilter(EventsSpec(prefixes=PrefixSpec(fallback="!")), bot="9")
    assert rules.judge("MESSAGE_CREATE", message("?x"), "all") == Decision("all", MessageAsk("5", "?x"))
    assert rules.judge("MESSAGE_CREATE", message("?x", guild=None), "all") == Decision("all")
    assert not rules.looks_inside("MESSAGE_UPDATE")


@pytest.mark.parametrize(
    ("content", "own", "found"),
    [
        ("!play", frozenset(), "!"),
        ("!play", frozenset({"?"}), None),
        ("??play", frozenset({"?", "??"}), "??"),
        ("<@9> play", frozenset({"?"}), "<@9>"),
        ("<@!9> play", frozenset(), "<@!9>"),
        ("play", frozenset(), None),
        ("", frozenset({""}), None),
        ("!play", None, "!"),
    ],
)
def test_a_guilds_own_prefixes_replace_the_fallback(
    content: str, own: frozenset[str] | None, found: str | None
) -> None:
    rule = EventFilter(EventsSpec(prefixes=PrefixSpec(fallback="!")), bot="9").prefixes
    assert rule is not None
    assert rule.match(content, own) == found


def test_without_a_fallback_and_mentions_only_the_guilds_own_prefixes_count() -> None:
    rule = EventFilter(EventsSpec(prefixes=PrefixSpec(mention=False)), bot="9").prefixes
    assert rule is not None
    assert rule.match("<@9> x", frozenset()) is None
    assert rule.match("!x", frozenset({"!"})) == "!"
