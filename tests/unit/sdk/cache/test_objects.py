"""Objects of the cache: Discord's field names, and unexpected values from Redis or Discord do not break them."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandwich_sdk import cache as sdk
from sandwich_sdk.cache import Channel, Entity, Guild, Member, Overwrite, Permissions, Presence, Role, Thread
from sandwich_sdk.cache.objects import read_object

KINDS = [one for one in vars(sdk).values() if isinstance(one, type) and issubclass(one, Entity) and one is not Entity]
ATTRIBUTES = {name for kind in KINDS for name in dir(kind) if not name.startswith("_")}

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just("9" * 5000)
leaves |= st.sampled_from(["2021-01-01T00:00:00+00:00", "0001-01-01T00:00:00+23:59", "123", "-1"])
anything = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
overwrites = st.lists(st.fixed_dictionaries({"id": leaves, "type": leaves, "allow": leaves, "deny": leaves}))
objects = st.dictionaries(st.sampled_from(sorted(ATTRIBUTES)) | st.just("user"), anything | overwrites)


@given(raw=objects)
def test_no_attribute_fails_for_any_value_of_its_field(raw: dict[str, Any]) -> None:
    for kind in KINDS:
        made = kind(raw)
        for name in dir(kind):
            if not name.startswith("_"):
                getattr(made, name)
        assert repr(made)
        assert made == raw


def test_fields_have_discords_names_and_unknown_ones_are_kept() -> None:
    channel = Channel(
        read_object(b'{"id":"7","type":2,"nsfw":true,"rtc_region":"rotterdam","new":{"a":[1]},"topic":null}')
    )
    assert (channel.id, channel.type, channel.nsfw, channel.topic, channel.parent_id) == ("7", 2, True, None, None)
    assert (channel["rtc_region"], channel.get("nope"), channel.raw["new"], len(channel)) == (
        "rotterdam",
        None,
        {"a": [1]},
        6,
    )
    assert json.loads(json.dumps(channel.raw)) == channel.raw == dict(channel)


def test_a_role_and_an_overwrite_have_permissions() -> None:
    assert Role({"permissions": "1024"}).permissions is Permissions.VIEW_CHANNEL
    assert Role({"permissions": -1}).permissions == Role({}).permissions == 0
    raw = {"permission_overwrites": [{"id": "1", "type": 1, "allow": "8", "deny": "1024"}, {"id": "2", "type": "x"}, 3]}
    assert Channel(raw).permission_overwrites == (Overwrite("1", 1, 8, 1024),)


def test_a_time_has_a_zone_or_is_none() -> None:
    at = Guild({"joined_at": "2021-01-01T12:00:00.5+00:00"}).joined_at
    assert at == datetime(2021, 1, 1, 12, microsecond=500_000, tzinfo=UTC)
    assert Guild({"joined_at": "2021-01-01T12:00:00"}).joined_at is None
    assert Guild({"joined_at": "yesterday"}).joined_at is None


def test_a_member_has_a_user_only_when_more_than_its_id_is_known() -> None:
    known = Member({"user": {"id": "1", "username": "ada", "global_name": None}}, "9")
    assert (known.guild_id, known.user_id, known.display_name, known.user and known.user.display_name) == (
        "9",
        "1",
        "ada",
        "ada",
    )
    bare = Member({"user": {"id": "1"}, "nick": "Ada"}, "9")
    assert (bare.user, bare.user_id, bare.display_name) == (None, "1", "Ada")
    assert (repr(bare), repr(Presence({"user": {"id": "1"}, "status": "idle"}))) == (
        "Member(1, guild_id=9)",
        "Presence(1, idle)",
    )


def test_channels_and_threads_have_their_kind() -> None:
    assert Channel({"flags": 1 << 17}).is_obfuscated
    assert not Channel({"flags": 1 << 4}).is_obfuscated
    thread = Thread({"type": 12, "thread_metadata": {"archived": False, "locked": True}})
    assert (thread.is_private, thread.archived, thread.locked) == (True, False, True)


@pytest.mark.parametrize(
    "value", [b"", b"[]", b"null", b'"x"', b"{", b"\xff\xfe", b"1", b'{"a":' * 100_000, b'{"a":"\xff"}']
)
def test_anything_but_a_json_object_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="not a JSON object"):
        read_object(value)


def test_an_object_is_read_only() -> None:
    with pytest.raises((TypeError, AttributeError)):
        Guild({"id": "1"})["id"] = "2"  # type: ignore[index]
    with pytest.raises(AttributeError):
        Guild({"id": "1"}).other = 1  # type: ignore[attr-defined]
    assert msgspec.json.decode(msgspec.json.encode(Guild({"id": "1"}).raw)) == {"id": "1"}
