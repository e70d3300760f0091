"""Two sessions of one bot, as Discord allows them for a change of the shard count; and faults by which they differ."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from sandwich_simulator import BotConfig, Simulator
from sandwich_simulator.delays import Delay, Dispatch, Omission
from sandwich_simulator.events import Event
from sandwich_simulator.intents import ALL_INTENTS, MESSAGE_CONTENT
from sandwich_simulator.mix import Mix
from sandwich_simulator.outbox import Outbox
from sandwich_simulator.protocol import Connection
from sandwich_simulator.pytest_plugin import MakeSimulator
from sandwich_simulator.snowflakes import shard_of

from .fake_gateway import TOKEN, Fake, close_code, names, taken
from .gateway_client import GatewayClient, identify_payload

BUCKET_S = 5.0


def bot(**fields: Any) -> BotConfig:
    return BotConfig(token=TOKEN, **({"guilds": 12, "max_concurrency": 8} | fields))


def generation(fake: Fake, count: int, **fields: Any) -> list[Connection]:
    """The sessions of all shards of one count."""
    fake.mono += BUCKET_S
    return [fake.live(shard=(shard, count), **fields) for shard in range(count)]


def play(fake: Fake, events: int, seed: int = 1) -> None:
    mix = Mix(fake.bot.world, random.Random(seed))
    for _ in range(events):
        fake.mono += 0.001
        for event in mix.next_events(fake.now.wall_ms):
            fake.gateway.publish(fake.bot, event, fake.now)


def dispatches(connections: list[Connection]) -> Iterator[dict[str, Any]]:
    """What the sockets would have received, shard by shard."""
    for connection in connections:
        yield from (item for item in taken(connection) if isinstance(item, dict) and item["op"] == 0)


def journal(fake: Fake, count: int) -> list[dict[str, Any]]:
    return [entry for entry in fake.gateway.journal.entries() if entry["count"] == count]


def by_guild(entries: list[dict[str, Any]]) -> dict[str, list[int]]:
    """The numbers of the events of each guild, in the order of a generation's sessions."""
    found: dict[str, list[int]] = defaultdict(list)
    for entry in entries:
        if entry["event"]:
            found[entry["guild"]].append(entry["event"])
    return found


def test_generations_of_two_counts_get_each_event_with_sequences_of_their_own() -> None:
    fake = Fake(bot())
    old, new = generation(fake, 2), generation(fake, 3)
    began = {connection.session.id: connection.session.seq for connection in (*old, *new) if connection.session}
    for connection in (*old, *new):
        taken(connection)
    play(fake, 2000)
    before, after = list(dispatches(old)), list(dispatches(new))
    assert Counter(item["t"] for item in before) == Counter(item["t"] for item in after)
    assert by_guild(journal(fake, 2)) == by_guild(journal(fake, 3))
    for session_id, first in began.items():
        session = fake.bot.sessions.get(session_id)
        seqs = [entry["seq"] for entry in fake.gateway.journal.entries() if entry["session"] == session_id]
        assert seqs == list(range(1, session.seq + 1))
        assert session.seq > first
    shared = [entry for entry in fake.gateway.journal.entries() if entry["event"]]
    assert {entry["sessions"] for entry in shared} == {2}
    for entry in shared:
        assert shard_of(int(entry["guild"] or 0), entry["count"]) == entry["shard"]


def test_each_session_has_its_own_intents() -> None:
    fake = Fake(bot(guilds=2))
    (old,), (new,) = generation(fake, 1), generation(fake, 1, intents=ALL_INTENTS & ~MESSAGE_CONTENT)
    guild_id = str(next(iter(fake.bot.world.guild_ids)))
    message = {"id": "5", "guild_id": guild_id, "author": {"id": "6"}, "content": "text", "mentions": []}
    taken(old), taken(new)
    fake.gateway.publish(fake.bot, Event("MESSAGE_CREATE", message, int(guild_id)), fake.now)
    assert [item["d"]["content"] for c in (old, new) for item in taken(c)] == ["text", ""]
    one, other = list(fake.gateway.journal.entries())[-2:]
    assert one["digest"] != other["digest"]
    assert {name: one[name] for name in ("event", "guild", "sessions", "t")} == {
        name: other[name] for name in ("event", "guild", "sessions", "t")
    }


def test_events_without_a_guild_go_to_shard_zero_of_each_count() -> None:
    fake = Fake(bot())
    connections = [*generation(fake, 2), *generation(fake, 3)]
    for connection in connections:
        taken(connection)
    fake.gateway.publish(fake.bot, Event("MESSAGE_CREATE", {"id": "1", "author": {"id": "2"}}, None), fake.now)
    assert [names(taken(connection)) for connection in connections] == [
        ["MESSAGE_CREATE"],
        [],
        ["MESSAGE_CREATE"],
        [],
        [],
    ]


def test_answers_go_only_to_the_session_that_asked_and_are_no_events_of_the_world() -> None:
    fake = Fake(bot(guilds=3))
    (old,), (new,) = generation(fake, 1), generation(fake, 1)
    guild_id = str(next(iter(fake.bot.world.guild_ids)))
    taken(old)
    before = len(fake.gateway.journal)
    for op, d in (
        (8, {"guild_id": guild_id, "query": "", "limit": 0, "nonce": "n"}),
        (31, {"guild_ids": [guild_id]}),
        (43, {"guild_id": guild_id, "fields": ["status"]}),
        (8, {"guild_id": guild_id, "query": "", "limit": 0}),
    ):
        assert fake.send(new, op, d)
    entries = list(fake.gateway.journal.entries(since=before))
    answers = ["GUILD_MEMBERS_CHUNK", "SOUNDBOARD_SOUNDS", "CHANNEL_INFO", "RATE_LIMITED"]
    assert [(entry["t"], entry["event"]) for entry in entries] == [(name, 0) for name in answers]
    assert taken(old) == []
    began = [e for e in fake.gateway.journal.entries() if e["t"] in ("READY", "GUILD_CREATE")]
    assert {entry["event"] for entry in began} == {0}


def test_the_end_of_one_session_does_not_touch_the_others() -> None:
    fake = Fake(bot())
    old, new = generation(fake, 2), generation(fake, 3)
    for connection in old:
        connection.closed(1000, fake.now)
    assert sorted((s.shard, s.count) for s in fake.bot.sessions) == [(0, 3), (1, 3), (2, 3)]
    for connection in new:
        taken(connection)
    play(fake, 100)
    assert {entry["sessions"] for entry in list(fake.gateway.journal.entries())[-20:]} == {1}
    assert len(list(dispatches(new))) > 50
    assert names(fake.send(new[0], 1, None)) == [11]


@pytest.mark.parametrize("code", [1000, None])
def test_a_bot_is_offline_in_a_guild_when_its_last_session_there_ends(code: int | None) -> None:
    fake = Fake(bot(), resume_window_s=60.0)
    old = generation(fake, 2)

    def changes(status: str) -> list[int]:
        records = fake.gateway.ledger.as_json(kind="presence")
        return [int(r["detail"].removeprefix("guilds=")) for r in records if r["outcome"] == status]

    def end(connections: list[Connection]) -> None:
        for connection in connections:
            connection.closed(code, fake.now)
        fake.mono += 61.0
        fake.gateway.expire(fake.now)

    assert sum(changes("online")) == 12
    new = generation(fake, 3)
    end(old)
    assert changes("offline") == []
    assert sum(changes("online")) == 12
    end(new)
    assert sum(changes("offline")) == 12


def test_buckets_and_budget_are_the_tokens_whatever_the_count() -> None:
    fake = Fake(bot(max_concurrency=4, session_limit=4))
    assert "READY" in names(fake.send(fake.connect(), 2, identify_payload(TOKEN, shard=(1, 2))))
    for shard in ((1, 3), (5, 6)):  # both have the key 1
        assert 9 in names(fake.send(fake.connect(), 2, identify_payload(TOKEN, shard=shard)))
    assert fake.gateway.ledger.count("violation", outcome="identify_rate") == 2
    assert "READY" in names(fake.send(fake.connect(), 2, identify_payload(TOKEN, shard=(2, 3))))
    assert fake.gateway.stats(fake.now)[fake.bot.id]["remaining"] == 2
    fake.mono += BUCKET_S
    fake.live(shard=(1, 3))
    fake.live(shard=(0, 6))
    fake.mono += BUCKET_S
    assert close_code(fake.send(fake.connect(), 2, identify_payload(TOKEN, shard=(3, 6)))) == 4004
    assert len(fake.bot.sessions) == 0


def voice_session(fake: Fake, guild: Any) -> str | None:
    state = guild.voice_states.get(fake.bot.id)
    return None if state is None else state["session_id"]


def test_a_bot_is_in_voice_by_the_session_of_its_last_request_and_leaves_with_it() -> None:
    fake = Fake(bot(guilds=1))
    (old,), (new,) = generation(fake, 1), generation(fake, 1)
    guild = fake.bot.world.guild(next(iter(fake.bot.world.guild_ids)))
    join = {"guild_id": guild.id, "channel_id": guild.channels_of(2)[0]}
    old_id, new_id = (c.session.id for c in (old, new) if c.session)
    assert names(fake.send(old, 4, join)) == ["VOICE_STATE_UPDATE", "VOICE_SERVER_UPDATE"]
    assert voice_session(fake, guild) == old_id
    assert [n for n in names(taken(new)) if n.startswith("VOICE_")] == ["VOICE_STATE_UPDATE"]
    assert names(fake.send(new, 4, join)) == ["VOICE_STATE_UPDATE", "VOICE_SERVER_UPDATE"]
    assert voice_session(fake, guild) == new_id
    old.closed(1000, fake.now)
    assert names(taken(new)) == []
    fake.mono += BUCKET_S
    (third,) = generation(fake, 1)
    taken(third)
    new.closed(1000, fake.now)
    assert voice_session(fake, guild) is None
    assert names(taken(third))[0] == "VOICE_STATE_UPDATE"


def delayed(fake: Fake, connections: list[Connection], max_s: float, *, acks_wait: bool = True) -> None:
    for number, connection in enumerate(connections):
        assert connection.session is not None
        delay = Delay(max_s, fake.mono + 3600.0, acks_wait, random.Random(number))
        fake.gateway.delay(fake.bot, connection.session, delay)


def test_late_events_keep_the_order_of_their_guild_and_change_that_of_different_guilds() -> None:
    fake = Fake(bot())
    generation(fake, 1)
    (new,) = generation(fake, 1)
    assert new.session is not None
    new_id = new.session.id
    delayed(fake, [new], 0.5)
    for seed in range(40):
        play(fake, 50, seed)
        fake.gateway.deliver_due(fake.now)
    early = [e for e in fake.gateway.journal.entries() if e["event"] and e["session"] != new_id]
    late = [e for e in fake.gateway.journal.entries() if e["event"] and e["session"] == new_id]
    assert 0 < len(late) < len(early)
    for _ in range(50):
        fake.mono += 0.01
        fake.gateway.deliver_due(fake.now)
    late = [e for e in fake.gateway.journal.entries() if e["event"] and e["session"] == new_id]
    assert by_guild(late) == by_guild(early)
    assert [e["event"] for e in late] != [e["event"] for e in early]
    lags = {e["event"]: e["ns"] for e in late}
    assert max(lags[e["event"]] - e["ns"] for e in early) <= 0.6e9  # what is due waits for the next step
    seqs = [item["s"] for item in dispatches([new])]
    assert seqs == list(range(2, new.session.seq + 1))  # without READY


@pytest.mark.parametrize(("acks_wait", "first"), [(True, "TYPING_START"), (False, 11)])
def test_an_acknowledgement_waits_for_the_events_before_it_or_overtakes_them(acks_wait: bool, first: Any) -> None:
    fake = Fake(bot(guilds=1))
    (connection,) = generation(fake, 1)
    delayed(fake, [connection], 1.0, acks_wait=acks_wait)
    guild_id = next(iter(fake.bot.world.guild_ids))
    fake.gateway.publish(fake.bot, Event("TYPING_START", {"guild_id": str(guild_id)}, guild_id), fake.now)
    assert fake.send(connection, 1, None) == []
    fake.mono += 1.0
    fake.gateway.deliver_due(fake.now)
    found = names(taken(connection))
    assert sorted(found, key=str) == sorted(["TYPING_START", 11], key=str)
    assert found[0] == first


def test_an_acknowledgement_of_an_older_socket_is_dropped() -> None:
    delay, outbox = Delay(1.0, 10.0, True, random.Random(1)), Outbox(1000)
    delay.push(Dispatch("A", b"{}", 7), 0.0)
    delay.push_ack(outbox, 0.0)
    assert delay.due(1.0) == [Dispatch("A", b"{}", 7), outbox]
    assert not delay.is_over(1.0)
    assert delay.is_over(10.0)


def test_a_delay_ends_and_its_last_events_are_sent_in_order() -> None:
    fake = Fake(bot(guilds=1))
    (connection,) = generation(fake, 1)
    assert connection.session is not None
    fake.gateway.delay(fake.bot, connection.session, Delay(2.0, fake.mono + 0.01, True, random.Random(3)))
    play(fake, 100)
    assert len(connection.session.delay or ()) > 50
    fake.mono += 2.0
    fake.gateway.deliver_due(fake.now)
    assert connection.session.delay is None
    numbers = [entry["event"] for entry in fake.gateway.journal.entries() if entry["event"]]
    assert numbers == sorted(numbers)


def test_delayed_events_survive_the_socket_and_end_with_the_session() -> None:
    fake = Fake(bot(guilds=1))
    (connection,) = generation(fake, 1)
    session = connection.session
    assert session is not None
    delayed(fake, [connection], 1.0)
    play(fake, 10)
    before = session.seq
    connection.closed(None, fake.now)
    fake.mono += 1.0
    fake.gateway.deliver_due(fake.now)
    assert session.seq >= before + 10
    again = fake.connect()
    found = names(fake.send(again, 6, {"token": TOKEN, "session_id": session.id, "seq": before}))
    assert found[-1] == "RESUMED"
    assert len(found) == session.seq - before
    play(fake, 10)
    again.closed(1000, fake.now)
    recorded = len(fake.gateway.journal)
    fake.mono += 1.0
    fake.gateway.deliver_due(fake.now)
    assert len(fake.gateway.journal) == recorded


def test_a_session_omits_a_share_of_these_types_only_while_another_one_gets_them() -> None:
    fake = Fake(bot())
    old, new = generation(fake, 1), generation(fake, 2)
    for connection in new:
        assert connection.session is not None
        until = fake.mono + 3600.0
        connection.session.omission = Omission(0.5, until, frozenset({"TYPING_START"}), random.Random(5))
    play(fake, 2000)

    def typed(count: int) -> int:
        return sum(entry["t"] == "TYPING_START" for entry in journal(fake, count))

    def rest(count: int) -> dict[str, list[int]]:
        return by_guild([entry for entry in journal(fake, count) if entry["t"] != "TYPING_START"])

    assert 0.35 < typed(2) / typed(1) < 0.65
    assert rest(1) == rest(2)
    assert {entry["sessions"] for entry in journal(fake, 1) if entry["event"]} == {2}
    for connection in old:
        connection.closed(1000, fake.now)
    before, began = typed(2), len(fake.gateway.journal)
    play(fake, 500, seed=2)
    alone = list(fake.gateway.journal.entries(since=began))
    assert {entry["sessions"] for entry in alone if entry["t"] == "TYPING_START"} == {1}
    assert typed(2) - before == sum(entry["t"] == "TYPING_START" for entry in alone) > 10


async def connect(sim: Simulator, client: GatewayClient, shard: tuple[int, int]) -> str:
    await client.identify(TOKEN, shard=shard)
    return str((await client.until("READY"))["d"]["session_id"])


async def test_faults_choose_one_generation_by_its_count_or_one_session(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(bot(guilds=4, name="b"), identify_interval_s=0.0)
    async with GatewayClient(sim.url) as old, GatewayClient(sim.url) as new, GatewayClient(sim.url) as twin:
        await connect(sim, old, (0, 1))
        await connect(sim, new, (0, 2))
        third = await connect(sim, twin, (0, 2))
        assert await sim.fault("op1", count=2) == 2
        assert await sim.fault("op1", bot="b", shards=[0], count=1) == 1
        assert await sim.fault("delay_events", session=third, delay=0.3, seconds=60) == 1
        await sim.act("b", 200)
        delays = {entry["session"]: entry["delayed"] for entry in await sim.sessions("b")}
        assert delays.pop(third) > 0
        assert set(delays.values()) == {0}
        assert (await sim.quiescent())["delayed"] > 0
        with pytest.raises(ValueError, match="delayed"):
            await sim.burst(bot="b", events=10)
        while not (await sim.quiescent())["quiescent"]:
            await twin.receive()
        entries = [entry for entry in await sim.journal() if entry["count"] == 2 and entry["event"]]
        late = [entry for entry in entries if entry["session"] == third]
        assert by_guild(late) == by_guild([entry for entry in entries if entry["session"] != third])
        assert await sim.fault("close", session=third, code=4000) == 1
        assert await twin.close_code() == 4000
        assert await sim.fault("invalidate_session", count=2) == 2
        assert {entry["count"] for entry in await sim.sessions("b")} == {1}
        assert await sim.fault("omit_events", share=1.0, seconds=60) == 1


async def test_an_event_that_is_emitted_to_a_shard_is_one_event_in_all_its_sessions(
    make_simulator: MakeSimulator,
) -> None:
    sim = await make_simulator(bot(guilds=4, name="b"), identify_interval_s=0.0)
    async with GatewayClient(sim.url) as old, GatewayClient(sim.url) as new:
        await connect(sim, old, (0, 1))
        await connect(sim, new, (0, 3))
        assert await sim.emit(bot="b", t="ENTITLEMENT_CREATE", d={"id": "1"}, shard=0) == 2
        assert await sim.emit(bot="b", t="MESSAGE_CREATE", d={"id": "2", "author": {"id": "3"}}) == 2
        await old.until("MESSAGE_CREATE")
        await new.until("MESSAGE_CREATE")
    found = [entry for entry in await sim.journal() if entry["event"]]
    assert Counter((entry["t"], entry["event"]) for entry in found) == {
        ("ENTITLEMENT_CREATE", found[0]["event"]): 2,
        ("MESSAGE_CREATE", found[0]["event"] + 1): 2,
    }
    assert {(entry["guild"], entry["sessions"]) for entry in found} == {("", 2)}
