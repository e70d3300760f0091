"""What may be asked of a shard, checked before it is sent."""

import json

import pytest

from sandwich_coordinator.intents import ALL
from sandwich_node.rpc import requests as rq
from sandwich_sdk.wire.rpc import RpcError

GUILD = "81384788765712384"


def members(**fields: object) -> dict[str, object]:
    return rq.members(rq.read(json.dumps({"guild_id": GUILD, **fields}).encode(), rq.MembersAsk), ALL)


def test_members_are_asked_for_by_name_by_id_or_all() -> None:
    assert members(query="ad", limit=5) == {"guild_id": GUILD, "query": "ad", "limit": 5}
    assert members(user_ids=["1"], presences=True) == {"guild_id": GUILD, "user_ids": ["1"], "presences": True}
    assert members(query="") == {"guild_id": GUILD, "query": "", "limit": 0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give either query or user_ids"),
        ({"query": "a", "user_ids": ["1"]}, "give either query or user_ids"),
        ({"query": "a"}, "limit of 1 to 100"),
        ({"query": "", "limit": 101}, "limit must be 0 (all) to 100"),
        ({"user_ids": []}, "user_ids must be 1 to 100"),
        ({"user_ids": ["x"]}, "user_ids is not a Discord id"),
        ({"guild_id": "sw:{", "query": ""}, "guild_id is not a Discord id"),
        ({"query": "", "timeout": 1000}, "timeout must be above 0"),
        ({"query": "", "nonce": "mine"}, "unknown field"),
        ({"query": 5}, "Expected"),
    ],
)
def test_a_wrong_request_for_members_is_refused_in_words(fields: dict[str, object], message: str) -> None:
    with pytest.raises(RpcError) as caught:
        members(**fields)
    assert message in caught.value.message
    assert caught.value.code == "invalid"


def test_what_discord_would_pass_over_in_silence_is_refused() -> None:
    for ask, intent in (("", "GUILD_MEMBERS"), ("a", "")):
        body = json.dumps({"guild_id": GUILD, "query": ask, "limit": len(ask)}).encode()
        if intent:
            with pytest.raises(RpcError, match=intent) as caught:
                rq.members(rq.read(body, rq.MembersAsk), 1)
            assert caught.value.code == "refused"
        else:
            rq.members(rq.read(body, rq.MembersAsk), 1)
    with pytest.raises(RpcError, match="GUILD_VOICE_STATES"):
        rq.voice(rq.VoiceAsk(guild_id=GUILD, channel_id=None), 1)


def test_offline_is_shown_as_invisible_and_activities_are_checked() -> None:
    assert rq.presence(rq.PresenceAsk(status="offline"))["status"] == "invisible"
    with pytest.raises(RpcError, match=r"twitch\.tv"):
        rq.presence(rq.PresenceAsk(activities=[{"name": "x", "type": 1}]))


def test_an_own_event_keeps_its_data_and_takes_none_of_discords_names() -> None:
    ask = rq.read(b'{"type":"MY_EVENT","data":{"big":12345678901234567890}}', rq.RelayAsk)
    assert rq.relay(ask).raw == b'{"t":"MY_EVENT","s":null,"op":0,"d":{"big":12345678901234567890}}'
    for wrong in ("MESSAGE_CREATE", "GUILD_JOIN", "SANDWICH_MEMBER_INVITED", "SANDWICH_X", "lower", "A.B", "A\n", ""):
        with pytest.raises(RpcError):
            rq.relay(rq.RelayAsk(type=wrong))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[" * 101 + b"]" * 101, "deeper than 100 levels"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "deeper than 100 levels"),
        (b"[" * 500 + b"]" * 500, "deeper than 100 levels"),
        (b"[" * 984 + b"]" * 984, None),
        (b"[" * 100_000 + b"]" * 100_000, None),
        (b'"\xff"', "UTF-8"),
        (b'{"\xc3":1}', "UTF-8"),
        (b'"\xed\xa0\xbd"', "UTF-8"),
        (b"1e999", "out of range"),
        (b'"\\ud83d"', None),
        (b'"a\nb"', None),
        (b"1 2", None),
        (b"NaN", None),
    ],
)
def test_data_that_some_reader_could_not_read_is_refused(data: bytes, message: str | None) -> None:
    with pytest.raises(RpcError, match=message) as refused:
        rq.relay(rq.read(b'{"type":"SONG","shard":0,"data":%b}' % data, rq.RelayAsk))
    assert refused.value.code == "invalid"


def test_data_as_deep_as_the_bound_is_taken_and_brackets_in_text_do_not_count() -> None:
    for data in (b"[" * 100 + b"]" * 100, b"[%b]" % b",".join([b"[]"] * 500), b'"%b"' % (b'[{\\"' * 200)):
        raw = rq.relay(rq.read(b'{"type":"SONG","data":%b}' % data, rq.RelayAsk)).raw
        assert raw == b'{"t":"SONG","s":null,"op":0,"d":%b}' % data


@pytest.mark.parametrize(
    ("reply", "answered"),
    [
        ("_INBOX.a.b", True),
        ("_R_.a.b", True),
        ("", False),
        ("sandwich.beta.events.all.0.0", False),
        ("sandwich.beta.shard.0.0", False),
        ("$JS.API.STREAM.PURGE.SANDWICH_beta", False),
        ("$SYS.REQ.x", False),
    ],
)
def test_an_answer_goes_to_an_inbox_and_into_no_stream(reply: str, answered: bool) -> None:
    assert rq.may_answer(reply) is answered
