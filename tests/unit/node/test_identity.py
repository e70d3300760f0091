"""An event has one identity in all sessions of a bot, and nothing that Discord could send breaks it."""

import random
from collections import defaultdict
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandwich_coordinator.event_names import DOCUMENTED
from sandwich_node.events.identity import IDENTIFYING_FIELDS, SESSION_BOUND, identity
from sandwich_simulator import BotConfig
from sandwich_simulator.events import Event
from sandwich_simulator.intents import ALL_INTENTS, GUILD_MEMBERS, MESSAGE_CONTENT
from sandwich_simulator.mix import Mix
from tests.simulator.fake_gateway import TOKEN, Fake, taken

GUILD = "197038439483310086"
encode = msgspec.json.encode


def of(event_type: str, /, *, lazy: bool = False, **fields: Any) -> tuple[int, bytes] | None:
    return identity(event_type, encode({"guild_id": GUILD, **fields}), lazy=lazy)


def test_both_sessions_of_a_switch_have_the_same_identities_in_the_simulated_mix() -> None:
    """Counts 1 and 3; the second generation has neither content nor members of threads."""
    fake = Fake(BotConfig(token=TOKEN, guilds=9, members_per_guild=30, max_concurrency=4))
    connections = [fake.live()]
    fake.mono += 10.0
    narrow = ALL_INTENTS & ~(MESSAGE_CONTENT | GUILD_MEMBERS)
    connections += [fake.live(shard=(shard, 3), intents=narrow) for shard in range(3)]
    mix, began = Mix(fake.bot.world, random.Random(4)), len(fake.gateway.journal)
    payloads: dict[tuple[str, int], Any] = {}
    for _ in range(4000):
        fake.mono += 0.001
        for event in mix.next_events(fake.now.wall_ms):
            fake.gateway.publish(fake.bot, event, fake.now)
        for connection in connections:
            assert connection.session is not None
            payloads |= {(connection.session.id, item["s"]): item for item in taken(connection)}
    by_event: dict[int, list[tuple[Any, Any]]] = defaultdict(list)
    types = set()
    for entry in fake.gateway.journal.entries(since=began):
        payload = payloads[entry["session"], entry["seq"]]
        found = identity(payload["t"], encode(payload["d"]))
        assert found is not None
        assert found[0] == int(entry["guild"] or 0)
        by_event[entry["event"]].append((found, payload["d"]))
        types.add(entry["t"])
    seen_twice = [found for found in by_event.values() if len(found) == 2]
    assert len(seen_twice) > 3000
    assert all(one[0] == other[0] for one, other in seen_twice)
    assert sum(one[1] != other[1] for one, other in seen_twice) > 1500  # content is hidden in one
    assert len(types) > 40
    # Hardly any two events share an identity; those that do are counted.
    assert len({found[0][0] for found in by_event.values()}) > 0.97 * len(by_event)


@pytest.mark.parametrize("event_type", sorted(SESSION_BOUND))
def test_events_of_one_session_have_none(event_type: str) -> None:
    assert of(event_type, id="1") is None


def test_the_table_names_documented_events() -> None:
    assert set(DOCUMENTED) >= (SESSION_BOUND | set(IDENTIFYING_FIELDS))


@pytest.mark.parametrize("event_type", ["GUILD_CREATE", "GUILD_DELETE"])
def test_a_guild_that_ready_announced_is_of_one_session_and_its_later_events_are_not(event_type: str) -> None:
    data = encode({"id": GUILD, "unavailable": False, "members": [1], "joined_at": "x"})
    assert identity(event_type, data, lazy=True) is None
    other = encode({"members": [], "presences": [], "joined_at": "x", "id": GUILD, "unavailable": False})
    assert identity(event_type, data) == identity(event_type, other)
    assert identity(event_type, data) != identity(event_type, encode({"id": GUILD, "joined_at": "x"}))
    assert of("GUILD_UPDATE", id=GUILD, lazy=True) is not None


def test_the_end_of_an_outage_that_ready_found_is_the_same_event_in_all_sessions() -> None:
    """One session saw the outage begin, the other began during it."""
    back = encode({"id": GUILD, "unavailable": False, "joined_at": "x"})
    assert identity("GUILD_CREATE", back, lazy=True, unavailable=True) == identity("GUILD_CREATE", back) is not None
    stub = encode({"id": GUILD, "unavailable": True})
    for event_type in ("GUILD_CREATE", "GUILD_DELETE"):
        assert identity(event_type, stub, lazy=True, unavailable=True) is None, "READY's own report of the outage"
        assert identity(event_type, stub, unavailable=True) is not None
    assert identity("GUILD_CREATE", b"no JSON", lazy=True, unavailable=True) is None


@pytest.mark.parametrize(
    ("event_type", "fields", "same", "different"),
    [
        ("MESSAGE_CREATE", {"id": "1", "content": "a", "poll": {}}, {"content": "", "embeds": []}, {"id": "2"}),
        ("MESSAGE_UPDATE", {"id": "1", "pinned": False}, {"content": "b"}, {"pinned": True}),
        ("MESSAGE_UPDATE", {"id": "1", "edited_timestamp": None}, {"embeds": [{}]}, {"edited_timestamp": "2026"}),
        ("TYPING_START", {"channel_id": "1", "user_id": "2", "timestamp": 3}, {"member": {}}, {"timestamp": 4}),
        ("VOICE_STATE_UPDATE", {"user_id": "1", "mute": False}, {"member": {"nick": "n"}}, {"mute": True}),
        ("VOICE_STATE_UPDATE", {"user_id": "1", "channel_id": None}, {}, {"channel_id": "7"}),
        ("THREAD_MEMBERS_UPDATE", {"id": "1", "member_count": 3}, {"added_members": [{}]}, {"member_count": 4}),
        ("PRESENCE_UPDATE", {"user": {"id": "1"}, "status": "idle"}, {"roles": []}, {"status": "dnd"}),
        (
            "MESSAGE_REACTION_ADD",
            {"channel_id": "1", "user_id": "2", "emoji": {"id": None, "name": "a"}, "burst": False},
            {"member": {}, "emoji": {"name": "a", "id": None}},
            {"emoji": {"id": None, "name": "b"}},
        ),
        ("GUILD_AUDIT_LOG_ENTRY_CREATE", {"id": "1", "reason": "r"}, {"changes": []}, {"id": "2"}),
        ("INTERACTION_CREATE", {"id": "1", "token": "t"}, {"token": "u"}, {"id": "2"}),
        ("GUILD_ROLE_UPDATE", {"role": {"id": "1", "position": 2}}, {"role": {"position": 2, "id": "1"}}, {"role": {}}),
        ("SOMETHING_NEW", {"a": 1, "b": [1, 2]}, {}, {"b": [2, 1]}),
        ("SOMETHING_NEW", {"a": 1}, {}, {"a": "1"}),
        ("SOMETHING_NEW", {"a": None}, {}, {"b": None}),
    ],
)
def test_an_identity_follows_what_no_intent_changes(
    event_type: str, fields: dict[str, Any], same: dict[str, Any], different: dict[str, Any]
) -> None:
    assert of(event_type, **fields) == of(event_type, **fields | same)
    assert of(event_type, **fields) != of(event_type, **fields | different)
    assert of(event_type, **fields) != identity("OTHER", encode({"guild_id": GUILD, **fields}))


def test_events_of_two_guilds_and_of_none_differ() -> None:
    one, other = of("TYPING_START", channel_id="1"), of("TYPING_START", channel_id="1", guild_id="5")
    direct = identity("TYPING_START", b'{"channel_id":"1"}')
    assert [found and found[0] for found in (one, other, direct)] == [int(GUILD), 5, 0]
    assert len({one, other, direct}) == 3


@pytest.mark.parametrize(
    ("event_type", "fields", "guild"),
    [
        ("GUILD_UPDATE", {"id": GUILD, "guild_id": "5"}, int(GUILD)),
        ("GUILD_DELETE", {"id": GUILD}, int(GUILD)),
        ("GUILD_ROLE_DELETE", {"guild_id": GUILD, "id": "5"}, int(GUILD)),
        ("THREAD_LIST_SYNC", {"guild_id": GUILD, "threads": []}, int(GUILD)),
        ("INTERACTION_CREATE", {"id": "1", "guild_id": GUILD}, int(GUILD)),
        ("INTERACTION_CREATE", {"id": "1"}, 0),
        ("MESSAGE_CREATE", {"id": "1", "flags": 64}, 0),
        ("ENTITLEMENT_CREATE", {"id": "1", "guild_id": GUILD}, 0),
        ("SUBSCRIPTION_UPDATE", {"id": "1", "guild_id": GUILD}, 0),
        ("USER_UPDATE", {"id": GUILD}, 0),
        ("TYPING_START", {"channel_id": "1", "guild_id": None}, 0),
        ("TYPING_START", {"channel_id": "1", "guild_id": 7}, 0),
        ("TYPING_START", {"channel_id": "1", "guild_id": "-7"}, 0),
        ("TYPING_START", {"channel_id": "1", "guild_id": "٣"}, 0),
        ("TYPING_START", {"channel_id": "1", "guild_id": "9" * 21}, 0),
    ],
)
def test_the_guild_of_an_event(event_type: str, fields: dict[str, Any], guild: int) -> None:
    found = identity(event_type, encode(fields))
    assert found is not None
    assert found[0] == guild


def test_an_event_without_what_identifies_its_type_is_identified_by_its_whole_payload() -> None:
    assert of("MESSAGE_CREATE", content="a") != of("MESSAGE_CREATE", content="b")
    assert of("MESSAGE_CREATE", content="a") == identity(
        "MESSAGE_CREATE", b'{"content": "a", "guild_id": "%b"}' % GUILD.encode()
    )


@given(st.sampled_from([*DOCUMENTED, "GUILD_JOIN_REQUEST_CREATE", "\ud800", ""]), st.binary())
@example("MESSAGE_CREATE", b"[]")
@example("MESSAGE_CREATE", b'"\\ud800"')
@example("GUILD_UPDATE", b"[" * 100_000)
@example("GUILD_UPDATE", b'{"id":' * 20_000)
@example("SOMETHING_NEW", b"1e999")
@example("SOMETHING_NEW", b"9" * 10_000)
@example("SOMETHING_NEW", b'{"guild_id":"\xff"}')
@example("SOMETHING_NEW", b"NaN")
def test_any_bytes_have_an_identity(event_type: str, data: bytes) -> None:
    found = identity(event_type, data)
    assert found == identity(event_type, data)
    assert (found is None) == (event_type in SESSION_BOUND)
    if found is not None:
        assert len(found[1]) == 16
        if data != b"{}":
            assert found != identity(event_type, b"{}")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(set(DOCUMENTED) - SESSION_BOUND)), st.dictionaries(st.text(max_size=3), json_values))
def test_neither_the_order_of_keys_nor_spaces_change_it(event_type: str, fields: dict[str, Any]) -> None:
    compact = encode(fields)
    turned = encode(dict(reversed(fields.items())))
    assert identity(event_type, compact) == identity(event_type, turned)
    assert identity(event_type, compact) == identity(event_type, msgspec.json.format(turned, indent=2))


def test_a_joined_guild_has_one_identity_whatever_the_sessions_see_of_it() -> None:
    fake = Fake(BotConfig(token=TOKEN, guilds=2))
    wide = fake.live()
    fake.mono += 10.0
    narrow = fake.live(intents=1)
    taken(wide), taken(narrow)
    guild = fake.bot.world.join_guild()
    fake.gateway.publish(fake.bot, Event("GUILD_CREATE", {}, int(guild.id), joined=True), fake.now)
    (one,), (other,) = taken(wide), taken(narrow)
    assert len(one["d"]["members"]) > len(other["d"]["members"])
    assert identity("GUILD_CREATE", encode(one["d"])) == identity("GUILD_CREATE", encode(other["d"]))
