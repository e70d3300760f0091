"""Decoding of Discord's JSON, and the JSON that consumers see."""

import json
from typing import Any

import pytest

from sandwich_node.invites.attribution import CANDIDATES_MAX, ByInvite, Reason, Unknown, invited_by
from sandwich_node.invites.wire import (
    BadAnswer,
    GuildSeen,
    Invite,
    InviteMade,
    Inviter,
    MemberSeen,
    NoCounts,
    RoleSeen,
    UserSeen,
    read_event,
    read_invites,
    read_vanity,
)

LISTED: dict[str, Any] = {
    "type": 0,
    "code": "abc",
    "inviter": {"id": "5", "username": "ann", "global_name": "Ann", "avatar": None},
    "expires_at": "2026-01-02T03:04:05.678000+00:00",
    "guild": {"id": "1", "name": "g"},
    "channel": {"id": "2", "name": "c", "type": 0},
    "uses": 3,
    "max_uses": 10,
    "max_age": 86400,
    "temporary": False,
    "created_at": "2026-01-01T03:04:05.678000+00:00",
}


def test_an_invite_is_read_also_without_its_optional_fields() -> None:
    bare = {"code": "x", "uses": 0, "channel": None, "expires_at": None}
    found = read_invites(json.dumps([LISTED, bare]).encode())
    assert found["abc"] == Invite("abc", 3, 10, 1767323045.678, "2", Inviter("5", "ann", "Ann"))
    assert found["x"] == Invite("x", 0)


@pytest.mark.parametrize("body", [b"{}", b"[1]", b"<html>", b"\xff", b"[" * 5000, b'[{"code":1,"uses":1}]'])
def test_an_answer_without_the_documented_form_is_refused(body: bytes) -> None:
    with pytest.raises(BadAnswer):
        read_invites(body)
    with pytest.raises(BadAnswer):
        read_vanity(body if body != b"{}" else b"[]")


def test_invites_without_counts_raise_an_error_of_their_own() -> None:
    with pytest.raises(NoCounts):
        read_invites(b'[{"code":"abc"}]')


def test_a_guild_may_have_no_vanity_url() -> None:
    assert read_vanity(b'{"code":null,"uses":0}') is None
    assert read_vanity(b'{"code":"disc","uses":12}') == Invite("disc", 12)


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b'{"user":{}}', b'{"user":{"id":"\xff"}}', b"[" * 5000])
def test_an_event_without_the_documented_form_is_ignored(data: bytes) -> None:
    assert read_event("GUILD_MEMBER_ADD", data) is None


def test_a_damaged_part_of_a_guild_does_not_affect_the_rest() -> None:
    data = {
        "id": "1",
        "unavailable": None,
        "owner_id": 7,
        "roles": [None, {"id": "2", "permissions": "32"}, {"id": 3}],
        "members": [{"user": None}, {"user": {"id": "9"}, "roles": ["2"]}],
    }
    whole = GuildSeen("1", roles=[RoleSeen("2", "32")], members=[MemberSeen(UserSeen("9"), ["2"])])
    assert read_event("GUILD_CREATE", json.dumps(data).encode()) == whole
    assert read_event("GUILD_UPDATE", b'{"id":"1","roles":null,"members":7}') == GuildSeen("1")
    assert read_event("GUILD_CREATE", b'{"id":1}') is None


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00", "9999-12-31T23:59:59.999+14:00", "0001-01-01T00:00:00+14:00"]
)
def test_a_time_far_from_today_is_accepted(moment: str) -> None:
    event = {"code": "x", "channel_id": "1", "expires_at": moment}
    made = read_event("INVITE_CREATE", json.dumps(event).encode())
    assert isinstance(made, InviteMade)
    assert abs(made.as_invite().expires_at or 0) > 6e10


@pytest.mark.parametrize("permissions", ["", "-8", "8.0", "x", "9" * 5000, "\u0663"])
def test_invalid_permissions_allow_nothing(permissions: str) -> None:
    assert not RoleSeen("1", permissions).manages


def test_the_json_of_a_join_by_invite() -> None:
    by_invite = ByInvite(Invite("abc", 4, 10, None, "2", Inviter("5", "ann", "Ann")))
    assert invited_by(by_invite) == (
        b'{"source":"invite","code":"abc","inviter":{"id":"5","username":"ann","global_name":"Ann"},"evidence":"uses"}'
    )
    assert invited_by(ByInvite(Invite("x", 1, 1), last_use=True)) == (
        b'{"source":"invite","code":"x","inviter":null,"evidence":"last_use"}'
    )


def test_the_json_of_a_join_by_vanity_url() -> None:
    assert invited_by(ByInvite(Invite("disc", 4), vanity=True)) == (
        b'{"source":"vanity","code":"disc","inviter":null,"evidence":"uses"}'
    )


def test_the_json_of_an_unknown_invite() -> None:
    assert invited_by(Unknown(Reason.BOT)) == b'{"source":"unknown","reason":"bot"}'
    pending = invited_by(Unknown(Reason.TIMEOUT), pending=True)
    assert pending == b'{"source":"unknown","reason":"timeout","pending":true}'
    many = tuple(str(number) for number in range(CANDIDATES_MAX + 5))
    shown = json.loads(invited_by(Unknown(Reason.AMBIGUOUS, many)))
    assert (shown["reason"], len(shown["candidates"])) == ("ambiguous", CANDIDATES_MAX)


@pytest.mark.parametrize("guild", ["x", "../users/@me", "", "1\u0662", "1 "])
def test_an_event_whose_guild_id_is_invalid_is_ignored(guild: str) -> None:
    member = {"guild_id": guild, "user": {"id": "2"}}
    assert read_event("GUILD_MEMBER_ADD", json.dumps(member).encode()) is None
    assert read_event("GUILD_CREATE", json.dumps({"id": guild}).encode()) is None
    assert read_event("GUILD_MEMBER_ADD", json.dumps(member | {"guild_id": "1"}).encode()) is not None
