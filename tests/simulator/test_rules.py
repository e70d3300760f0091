"""The gateway's rules in virtual time: close codes, buckets, budget, replay window, limits, intents."""

from collections.abc import Callable
from typing import Any

import pytest

from sandwich_simulator import BotConfig, ConfigError
from sandwich_simulator.config import load_config, parse_bot
from sandwich_simulator.gateway import Event
from sandwich_simulator.intents import ALL_INTENTS, GUILD_MEMBERS, GUILD_PRESENCES, GUILDS, MESSAGE_CONTENT
from sandwich_simulator.outbox import Cut
from sandwich_simulator.protocol import Connection
from sandwich_simulator.sessions import replay_capacity
from sandwich_simulator.snowflakes import shard_of
from sandwich_simulator.traffic import Pacer
from sandwich_simulator.world import World

from .fake_gateway import TOKEN, Fake, close_code, names, taken
from .gateway_client import identify_payload


@pytest.mark.parametrize(
    ("op", "d", "code"),
    [
        (77, None, 4001),
        (5, None, 4001),
        (0, None, 4001),
        ("2", None, 4001),
        ([], None, 4001),
        (True, None, 4001),
        (1, "x", 4001),
        (3, {}, 4003),
        (8, {}, 4003),
        (2, None, 4001),
        (2, {"token": TOKEN}, 4001),
        (2, identify_payload(TOKEN) | {"properties": {}}, 4001),
        (2, identify_payload(TOKEN, large_threshold=20), 4001),
        (2, identify_payload("unknown"), 4004),
        (2, identify_payload(TOKEN, shard=(2, 2)), 4010),
        (2, identify_payload(TOKEN, shard=(0, 0)), 4010),
        (2, identify_payload(TOKEN) | {"shard": [0]}, 4010),
        (2, identify_payload(TOKEN, intents=1 << 17), 4013),
        (2, identify_payload(TOKEN, intents=-1), 4013),
        (6, {"token": TOKEN}, 4001),
        (6, {"token": "unknown", "session_id": "x", "seq": 1}, 4004),
    ],
)
def test_each_mistake_before_a_session_has_its_close_code(op: Any, d: Any, code: int) -> None:
    fake = Fake()
    assert close_code(fake.send(fake.connect(), op, d)) == code
    assert fake.gateway.ledger.count("violation", outcome=str(code)) == 1


def test_invalid_payloads_are_decode_errors() -> None:
    fake = Fake()
    for data in (b"{", b"[1]", b"\xff\xfe", b'{"op":1,"d":"' + b"a" * 4096 + b'"}'):
        connection = fake.connect()
        connection.receive(data, fake.now)
        assert close_code(taken(connection)) == 4002


def test_a_payload_of_exactly_4096_bytes_is_accepted() -> None:
    fake = Fake()
    connection = fake.connect()
    payload = b'{"op":1,"d":1}'
    connection.receive(payload + b" " * (4096 - len(payload)), fake.now)
    assert names(taken(connection))[-1] == 11


def test_a_bad_version_is_4012() -> None:
    assert close_code(taken(Fake().connect(version="5"))) == 4012


def test_identifying_twice_is_4005_and_keeps_the_session() -> None:
    fake = Fake()
    assert close_code(fake.send(fake.live(), 2, identify_payload(TOKEN))) == 4005
    assert len(fake.bot.sessions) == 1


def test_disallowed_intents_are_4014_and_a_bot_prefix_is_accepted() -> None:
    fake = Fake(BotConfig(token=TOKEN, guilds=1, allowed_intents=ALL_INTENTS & ~GUILD_MEMBERS))
    assert close_code(fake.send(fake.connect(), 2, identify_payload(TOKEN))) == 4014
    assert "READY" in names(fake.send(fake.connect(), 2, identify_payload(f"Bot {TOKEN}", intents=1)))


def test_large_bots_need_multiples_and_shards_hold_2500_guilds() -> None:
    fake = Fake(BotConfig(token=TOKEN, guilds=2501, shard_multiple=1))
    assert close_code(fake.send(fake.connect(), 2, identify_payload(TOKEN))) == 4011
    fake.bot.config.shard_multiple = 4
    assert close_code(fake.send(fake.connect(), 2, identify_payload(TOKEN, shard=(0, 6)))) == 4010
    assert "READY" in names(fake.send(fake.connect(), 2, identify_payload(TOKEN, shard=(0, 8))))


def test_a_bucket_lets_one_identify_pass_every_five_seconds() -> None:
    fake = Fake(BotConfig(token=TOKEN, guilds=3, max_concurrency=2))
    assert "READY" in names(fake.send(fake.connect(), 2, identify_payload(TOKEN, shard=(0, 4))))
    assert "READY" in names(fake.send(fake.connect(), 2, identify_payload(TOKEN, shard=(1, 4))))
    fake.mono += 4.99
    refused = fake.connect()
    assert fake.send(refused, 2, identify_payload(TOKEN, shard=(2, 4))) == [{"t": None, "s": None, "op": 9, "d": False}]
    assert fake.gateway.ledger.count("violation", outcome="identify_rate") == 1
    fake.mono += 0.01
    assert "READY" in names(fake.send(refused, 2, identify_payload(TOKEN, shard=(2, 4))))
    assert fake.bot.budget.remaining(fake.mono) == 997


def test_a_spent_budget_ends_every_session_and_the_token() -> None:
    fake = Fake(BotConfig(token=TOKEN, guilds=1, session_limit=1))
    first = fake.live()
    assert fake.bot.budget.reset_after_ms(fake.mono) == 86_400_000
    fake.mono += 5
    assert close_code(fake.send(fake.connect(), 2, identify_payload(TOKEN))) == 4004
    assert close_code(taken(first)) == 4004
    assert len(fake.bot.sessions) == 0
    assert fake.gateway.bot_of_token(TOKEN) is None


def test_a_budget_is_whole_again_after_a_day() -> None:
    fake = Fake(BotConfig(token=TOKEN, guilds=1, session_limit=1))
    fake.live()
    fake.mono += 86_400
    assert fake.bot.budget.remaining(fake.mono) == 1
    assert "READY" in names(fake.send(fake.connect(), 2, identify_payload(TOKEN)))


def test_the_121st_payload_of_a_minute_is_4008() -> None:
    fake = Fake()
    connection = fake.live()
    for _ in range(119):
        assert names(fake.send(connection, 1, 1)) == [11]
    assert close_code(fake.send(connection, 1, 1)) == 4008
    again = fake.connect()
    assert names(fake.send(again, 1, 1)) == [11]


def test_a_client_that_beats_is_kept_and_one_that_stops_is_closed() -> None:
    fake = Fake()
    connection = fake.live()
    for _ in range(3):
        fake.mono += 41.25
        fake.send(connection, 1, 1)
        connection.tick(fake.now)
        assert taken(connection) == []
    deadline = connection.deadline()
    assert deadline == pytest.approx(fake.mono + 41.25 * 1.5)
    fake.mono = deadline or 0.0
    connection.tick(fake.now)
    assert close_code(taken(connection)) == 1000
    assert connection.deadline() is None


def resume(fake: Fake, session: Any, seq: int, token: str = TOKEN) -> list[Any]:
    """Answers to a RESUME on a fresh connection."""
    return fake.send(fake.connect(), 6, {"token": token, "session_id": session.id, "seq": seq})


def dropped(fake: Fake, **fields: Any) -> Any:
    """A session whose socket has gone away."""
    connection = fake.live(**fields)
    session = connection.session
    connection.closed(None, fake.now)
    return session


def test_a_resume_replays_what_was_missed_and_then_says_so() -> None:
    fake = Fake()
    session = dropped(fake)
    fake.gateway.publish(fake.bot, Event("USER_UPDATE", {}, None), fake.now)
    items = resume(fake, session, 2)
    assert names(items) == ["GUILD_CREATE", "GUILD_CREATE", "USER_UPDATE", "RESUMED"]
    assert [item["s"] for item in items] == [3, 4, 5, 6]


def test_a_sequence_never_sent_is_4007() -> None:
    fake = Fake()
    session = dropped(fake)
    assert close_code(resume(fake, session, session.seq + 1)) == 4007
    assert names(resume(fake, session, 1)) == [9]


def test_another_bots_token_is_4004() -> None:
    fake = Fake(BotConfig(token=TOKEN, guilds=1), BotConfig(token="other", guilds=1))
    assert close_code(resume(fake, dropped(fake), 1, token="other")) == 4004


@pytest.mark.parametrize(("wait_s", "expected"), [(180.0, "RESUMED"), (180.1, 9)])
def test_a_session_can_be_resumed_within_its_window(wait_s: float, expected: Any) -> None:
    fake = Fake()
    session = dropped(fake)
    fake.mono += wait_s
    fake.gateway.expire(fake.now)
    assert names(resume(fake, session, session.seq))[-1] == expected


def test_an_overflowed_buffer_refuses_and_a_full_one_does_not() -> None:
    for missed, expected in ((100, "RESUMED"), (101, 9)):
        fake = Fake(replay_events=100)
        session = dropped(fake)
        seen = session.seq
        for _ in range(missed):
            fake.gateway.publish(fake.bot, Event("USER_UPDATE", {}, None), fake.now)
        assert names(resume(fake, session, seen))[-1] == expected


def test_the_replay_buffer_follows_the_formula() -> None:
    assert [replay_capacity(guilds) for guilds in (0, 1, 2, 40, 100)] == [100, 100, 150, 3000, 3500]


def ask_members(fake: Fake, connection: Connection, **fields: Any) -> list[Any]:
    """The answers to op 8 for the first guild."""
    guild_id = str(next(iter(fake.bot.world.guild_ids)))
    return fake.send(connection, 8, {"guild_id": guild_id} | fields)


def test_a_whole_member_list_is_sent_once_in_thirty_seconds() -> None:
    fake = Fake(BotConfig(token=TOKEN, guilds=1, members_per_guild=2100))
    connection = fake.live()
    chunks = ask_members(fake, connection, query="", limit=0, nonce="n", presences=True)
    assert [len(chunk["d"]["members"]) for chunk in chunks] == [1000, 1000, 100]
    assert [(chunk["d"]["chunk_index"], chunk["d"]["nonce"]) for chunk in chunks] == [(0, "n"), (1, "n"), (2, "n")]
    fake.mono += 29
    (refused,) = ask_members(fake, connection, query="", limit=0, nonce="m")
    assert refused["t"] == "RATE_LIMITED"
    assert (refused["d"]["retry_after"], refused["d"]["meta"]["nonce"]) == (1.0, "m")
    assert names(ask_members(fake, connection, query="", limit=5)) == ["GUILD_MEMBERS_CHUNK"]
    fake.mono += 1
    assert len(ask_members(fake, connection, query="", limit=0)) == 3


def test_member_requests_by_id_list_missing_ids_and_drop_long_nonces() -> None:
    fake = Fake()
    (chunk,) = ask_members(fake, fake.live(), user_ids=[fake.bot.id, "1"], nonce="n" * 33)
    assert [member["user"]["id"] for member in chunk["d"]["members"]] == [fake.bot.id]
    assert chunk["d"]["not_found"] == ["1"]
    assert "nonce" not in chunk["d"]


def test_a_whole_list_without_the_intent_gets_no_answer() -> None:
    fake = Fake()
    assert ask_members(fake, fake.live(intents=GUILDS), query="", limit=0) == []


def test_joining_a_voice_channel_answers_with_state_and_server() -> None:
    fake = Fake()
    connection = fake.live()
    guild = fake.bot.world.guild(next(iter(fake.bot.world.guild_ids)))
    channel = guild.channels_of(2)[0]
    joined = fake.send(connection, 4, {"guild_id": guild.id, "channel_id": channel, "self_mute": True})
    assert names(joined) == ["VOICE_STATE_UPDATE", "VOICE_SERVER_UPDATE"]
    assert names(fake.send(connection, 4, {"guild_id": guild.id, "channel_id": None})) == ["VOICE_STATE_UPDATE"]
    assert fake.bot.id not in guild.voice_states


def test_sounds_and_channel_info_are_answered() -> None:
    fake = Fake()
    connection = fake.live()
    guild_id = str(next(iter(fake.bot.world.guild_ids)))
    assert names(fake.send(connection, 31, {"guild_ids": [guild_id, "1"]})) == ["SOUNDBOARD_SOUNDS"]
    (info,) = fake.send(connection, 43, {"guild_id": guild_id, "fields": ["status"]})
    assert info["t"] == "CHANNEL_INFO"
    assert close_code(fake.send(connection, 43, {"guild_id": guild_id, "fields": ["nonsense"]})) == 4001


def test_events_go_to_the_shard_of_their_guild_and_the_rest_to_shard_zero() -> None:
    fake = Fake(BotConfig(token=TOKEN, guilds=8, max_concurrency=4))
    connections = [fake.live(shard=(shard, 4)) for shard in range(4)]
    for connection in connections:
        taken(connection)
    for guild_id in fake.bot.world.guild_ids:
        fake.gateway.publish(fake.bot, Event("WEBHOOKS_UPDATE", {"guild_id": str(guild_id)}, guild_id), fake.now)
    fake.gateway.publish(fake.bot, Event("USER_UPDATE", {}, None), fake.now)
    for shard, connection in enumerate(connections):
        got = taken(connection)
        mine = [item["d"]["guild_id"] for item in got if item["t"] == "WEBHOOKS_UPDATE"]
        assert mine == [str(g) for g in fake.bot.world.guild_ids if shard_of(g, 4) == shard]
        assert ("USER_UPDATE" in names(got)) == (shard == 0)


def message(author: str, mentions: list[Any], **fields: Any) -> dict[str, Any]:
    return {"author": {"id": author}, "mentions": mentions, "content": "text", "poll": {}, "embeds": [1]} | fields


def test_content_is_removed_without_its_intent_unless_it_concerns_the_bot() -> None:
    fake = Fake()
    connection = fake.live(intents=ALL_INTENTS & ~MESSAGE_CONTENT)
    guild_id, me = next(iter(fake.bot.world.guild_ids)), fake.bot.id
    place = {"guild_id": str(guild_id)}
    taken(connection)
    for data in (message("1", [], **place), message(me, [], **place), message("1", [{"id": me}], **place)):
        fake.gateway.publish(fake.bot, Event("MESSAGE_CREATE", data, guild_id), fake.now)
    fake.gateway.publish(fake.bot, Event("MESSAGE_CREATE", message("1", []), None), fake.now)
    got = [item["d"] for item in taken(connection)]
    assert [item["content"] for item in got] == ["", "text", "text", "text"]
    assert "poll" not in got[0]
    assert got[0]["embeds"] == []


def test_events_without_their_intent_are_neither_sent_nor_recorded() -> None:
    fake = Fake()
    connection = fake.live(intents=GUILDS)
    guild_id, before = next(iter(fake.bot.world.guild_ids)), len(fake.gateway.journal)
    taken(connection)
    member = {"guild_id": str(guild_id), "user": {"id": "1"}}
    fake.gateway.publish(fake.bot, Event("GUILD_MEMBER_UPDATE", member, guild_id), fake.now)
    fake.gateway.publish(fake.bot, Event("TYPING_START", {}, guild_id), fake.now)
    assert taken(connection) == []
    fake.gateway.publish(
        fake.bot, Event("GUILD_MEMBER_UPDATE", member | {"user": {"id": fake.bot.id}}, guild_id), fake.now
    )
    assert names(taken(connection)) == ["GUILD_MEMBER_UPDATE"]
    assert len(fake.gateway.journal) == before + 1


@pytest.mark.parametrize(
    ("intents", "everyone", "presences"),
    [(ALL_INTENTS, True, True), (ALL_INTENTS & ~GUILD_PRESENCES, False, False), (GUILDS, False, False)],
)
def test_the_members_of_a_guild_depend_on_the_presence_intent(intents: int, everyone: bool, presences: bool) -> None:
    fake = Fake(BotConfig(token=TOKEN, guilds=1, members_per_guild=30))
    created = next(
        item for item in taken(fake.live(intents=intents)) if isinstance(item, dict) and item["t"] == "GUILD_CREATE"
    )
    data = created["d"]
    shown = {member["user"]["id"] for member in data["members"]}
    speaking = {state["user_id"] for state in data["voice_states"]}
    assert (len(shown) == data["member_count"]) == everyone
    assert bool(data["presences"]) == presences
    assert {fake.bot.id, *speaking} <= shown


def test_a_guild_in_an_outage_is_announced_as_unavailable() -> None:
    fake = Fake()
    guild_id = next(iter(fake.bot.world.guild_ids))
    fake.bot.world.guild(guild_id).unavailable = True
    deleted = [item["d"] for item in taken(fake.live()) if item["t"] == "GUILD_DELETE"]
    assert deleted == [{"unavailable": True, "id": str(guild_id)}]


def test_a_slow_reader_is_disconnected_and_its_session_stays() -> None:
    fake = Fake(outbox_bytes_max=100_000)
    connection = fake.live(intents=0)
    for _ in range(2000):
        fake.gateway.publish(fake.bot, Event("USER_UPDATE", {"a": "b" * 100}, None), fake.now)
    assert taken(connection)[-1] == Cut()
    connection.closed(None, fake.now)
    assert len(fake.bot.sessions) == 1


def test_a_seed_gives_the_same_world_in_any_order_of_access() -> None:
    one, two = (World(BotConfig(token=TOKEN, guilds=5), seed=3) for _ in range(2))
    ids = list(one.guild_ids)
    assert ids == list(two.guild_ids)
    forward, backward = {g: one.guild_state(g) for g in ids}, {g: two.guild_state(g) for g in reversed(ids)}
    assert forward == backward
    assert all(guild_id > 2**53 for guild_id in ids)
    assert list(World(BotConfig(token=TOKEN, guilds=5), seed=4).guild_ids) != ids


def test_guilds_spread_evenly_over_shards() -> None:
    world = World(BotConfig(token=TOKEN, guilds=64), seed=1)
    assert [len(world.guilds_of_shard(shard, 8)) for shard in range(8)] == [8] * 8


def test_a_pacer_catches_up_fractions_but_not_long_stalls() -> None:
    pacer = Pacer(10.0)
    assert pacer.due(0.0) == 0
    assert sum(pacer.due(i / 100) for i in range(1, 1001)) in (99, 100)
    assert pacer.due(1000.0) <= 6


@pytest.mark.parametrize("make", [lambda: parse_bot("secret:x"), lambda: parse_bot(":3"), lambda: BotConfig(token="")])
def test_the_error_of_an_invalid_bot_does_not_contain_its_token(make: Callable[[], BotConfig]) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    assert "secret" not in str(error.value)


def test_configuration_is_read_and_unknown_keys_are_refused(tmp_path: Any) -> None:
    path = tmp_path / "bots.json"
    path.write_text('{"rate": 5, "bots": [{"token": "t", "guilds": 3}]}')
    config = load_config(path)
    assert (config.rate, config.bots[0].guilds) == (5, 3)
    assert "'t'" not in repr(config.bots[0])
    path.write_text('{"bots": [{"token": "t", "gilds": 3}]}')
    with pytest.raises(ConfigError, match="gilds"):
        load_config(path)
    assert parse_bot("t:7:2:4").max_concurrency == 4
