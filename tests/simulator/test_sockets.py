"""The simulator over real sockets: compression, resuming, faults, the control API."""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from sandwich_simulator import BotConfig
from sandwich_simulator.pytest_plugin import MakeSimulator

from .gateway_client import Closed, GatewayClient

TOKEN = "a-token"


async def eventually(condition: Callable[[], bool]) -> None:
    """Waits for a condition, at most a minute."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (real sockets)
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("compress", ["", "zlib-stream", "zstd-stream"])
@pytest.mark.parametrize("path", ["/", "//"])
async def test_a_session_starts_and_is_backfilled_whatever_the_compression(
    make_simulator: MakeSimulator, compress: str, path: str
) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=4))
    async with GatewayClient(sim.url, compress=compress, path=path, query="v=10&encoding=json&x=1") as client:
        assert (await client.receive())["d"]["heartbeat_interval"] == 41_250
        await client.identify(TOKEN)
        ready = await client.receive()
        assert (ready["t"], ready["s"]) == ("READY", 1)
        assert ready["d"]["resume_gateway_url"] == sim.url
        created = [await client.receive() for _ in range(4)]
        assert {c["d"]["id"] for c in created} == {g["id"] for g in ready["d"]["guilds"]}
        assert all(c["d"]["unavailable"] is False for c in created)
        await client.send(1, 5)
        assert (await client.receive())["op"] == 11
        assert client.raw[1].startswith(b'{"t":"READY","s":1,"op":0,"d":')


async def test_payload_compression_is_per_payload(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=1))
    async with GatewayClient(sim.url) as client:
        await client.identify(TOKEN, compress=True)
        assert (await client.until("GUILD_CREATE"))["op"] == 0


async def test_the_journal_holds_exactly_what_is_sent(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=4, name="b"))
    async with GatewayClient(sim.url, compress="zstd-stream") as client:
        await client.identify(TOKEN)
        await client.until("READY")
        await sim.act("b", 500)
        while not (client.raw and len(client.raw) - 1 >= len(sim.gateway.journal) >= 505):
            await client.receive()
    entries = await sim.journal(bot="b")
    sent = [hashlib.blake2b(raw, digest_size=8).hexdigest() for raw in client.raw if b'"op":0' in raw]
    assert [entry["digest"] for entry in entries] == sent
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))


async def test_missed_dispatches_are_replayed_in_order(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=3, name="b"))
    async with GatewayClient(sim.url, compress="zstd-stream") as client:
        await client.identify(TOKEN)
        session = (await client.until("READY"))["d"]["session_id"]
        for _ in range(3):
            await client.receive()
    await eventually(lambda: not any(s.outbox for s in sim.gateway.bot_named("b").sessions))
    await sim.act("b", 50)
    owed = [entry["digest"] for entry in await sim.journal(since=4)]
    async with GatewayClient(sim.url, compress="zstd-stream") as client:
        await client.receive()
        await client.resume(TOKEN, session, 4)
        resumed = await client.until("RESUMED")
    assert [hashlib.blake2b(raw, digest_size=8).hexdigest() for raw in client.raw[1:-1]] == owed
    assert resumed["s"] == 4 + len(owed) + 1
    assert sim.gateway.ledger.count("resume", outcome="ok") == 1


@pytest.mark.parametrize(("code", "resumes"), [(1000, False), (1001, False), (4000, True), (3000, True)])
async def test_only_a_normal_close_by_the_client_ends_the_session(
    make_simulator: MakeSimulator, code: int, resumes: bool
) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=1))
    async with GatewayClient(sim.url) as client:
        await client.identify(TOKEN)
        session = (await client.until("READY"))["d"]["session_id"]
        await client.socket.close(code=code)
    async with GatewayClient(sim.url) as client:
        await client.receive()
        await client.resume(TOKEN, session, 1)
        answer = await client.until("RESUMED" if resumes else "op9")
    assert answer["op"] == (0 if resumes else 9)


async def test_a_session_taken_over_closes_the_older_socket(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=1))
    async with GatewayClient(sim.url) as old, GatewayClient(sim.url) as new:
        await old.identify(TOKEN)
        session = (await old.until("READY"))["d"]["session_id"]
        await new.resume(TOKEN, session, 1)
        await new.until("RESUMED")
        assert await old.close_code() == 4000
        await sim.fault("op7")
        assert (await new.until("op7"))["op"] == 7


async def test_each_fault_has_its_effect(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=1, name="b"), identify_interval_s=0.0)
    kinds: list[tuple[str, dict[str, Any], int]] = [
        ("close", {"code": 4009}, 4009),
        ("drop", {}, 1006),
        ("reset", {}, 1006),
    ]
    for kind, fields, code in kinds:
        async with GatewayClient(sim.url) as client:
            await client.identify(TOKEN)
            await client.until("GUILD_CREATE")
            assert await sim.fault(kind, bot="b", **fields) == 1
            assert await client.close_code() == code
    async with GatewayClient(sim.url) as client:
        await client.identify(TOKEN)
        await client.until("GUILD_CREATE")
        await sim.fault("stop_ack")
        await client.send(1, None)
        await sim.fault("op9", resumable=True)
        assert (await client.receive()) == {"t": None, "s": None, "op": 9, "d": True}
    await sim.fault("refuse_connections", seconds=60)
    with pytest.raises(aiohttp.ClientError):
        async with GatewayClient(sim.url):
            pass


async def test_an_unread_socket_is_cut_when_too_much_is_queued(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=0, name="b"), outbox_bytes_max=3_000_000)
    async with GatewayClient(sim.url) as client:
        await client.identify(TOKEN)
        await client.until("READY")
        protocol = client.socket._reader._protocol
        protocol.pause_reading()
        connected = next(iter(sim.gateway.bot_named("b").sessions))
        for _ in range(200):
            await sim.emit(bot="b", shard=0, t="BIG", d={"x": "y" * 100_000})
            await asyncio.sleep(0)
        await eventually(lambda: connected.outbox is None)
        protocol.resume_reading()
    assert connected.seq == 201


async def test_lasting_faults_affect_new_connections(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=0), identify_interval_s=0.0)
    await sim.fault("op7_before_hello", seconds=60)
    async with GatewayClient(sim.url) as client:
        assert (await client.receive())["op"] == 7
    await sim.fault("op7_before_hello", seconds=0)
    await sim.fault("hello_delay", delay=0.05, seconds=60)
    await sim.fault("identify_invalid", seconds=60)
    async with GatewayClient(sim.url) as client:
        assert (await client.receive())["op"] == 10
        await client.identify(TOKEN)
        assert (await client.receive())["d"] is False
    await sim.fault("identify_invalid", seconds=0)
    async with GatewayClient(sim.url) as client:
        await client.identify(TOKEN)
        session = (await client.until("READY"))["d"]["session_id"]
        await sim.fault("stall", seconds=0.05)
        await client.send(1, 1)
        assert (await client.receive())["op"] == 11
    await sim.fault("resume_invalid", seconds=60)
    async with GatewayClient(sim.url) as client:
        await client.resume(TOKEN, session, 1)
        assert (await client.until("op9"))["d"] is False


async def test_raw_bytes_and_bombs_reach_the_client(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=1))
    async with GatewayClient(sim.url, compress="zstd-stream") as client:
        await client.identify(TOKEN)
        await client.until("GUILD_CREATE")
        await sim.send_raw(bomb_mb=4)
        assert len((await client.receive())["d"]) == 4 << 20
        await sim.send_raw(payload='{"op":250}')
        with pytest.raises(KeyError):
            await client.until("nothing")
        await sim.send_raw(data=b"\x00garbage")
        with pytest.raises(Exception, match=r"(?i)zstd|decompress"):
            await client.receive()


async def test_a_burst_is_recorded_and_arrives_completely(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=5, name="b"))
    async with GatewayClient(sim.url, compress="zstd-stream") as client:
        await client.identify(TOKEN)
        for _ in range(7):
            last = await client.receive()
        made = await sim.burst(bot="b", events=3000)
        assert made >= 3000
        for _ in range(made):
            last = await client.receive()
    assert last["s"] == 6 + made == len(sim.gateway.journal)


async def test_a_guild_of_twenty_megabytes_arrives(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=0, name="b"))
    async with GatewayClient(sim.url, compress="zstd-stream") as client:
        await client.identify(TOKEN)
        await client.until("READY")
        guild_id = await sim.big_guild(bot="b", megabytes=20)
        created = await client.until("GUILD_CREATE")
    assert created["d"]["id"] == guild_id
    assert "unavailable" not in created["d"]
    assert len(client.raw[-1]) >= 20_000_000


async def test_a_silent_client_is_closed_and_may_resume(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=0), heartbeat_interval_ms=500)
    async with GatewayClient(sim.url) as client:
        await client.identify(TOKEN)
        assert await client.close_code() == 1000
    assert len(await sim.sessions()) == 1


async def test_the_control_api_answers_in_json(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=2, name="b"))
    control = f"{sim.base_url}/_sim"
    async with aiohttp.ClientSession() as http, GatewayClient(sim.url) as client:
        await client.identify(TOKEN)
        await client.until("GUILD_CREATE")
        stats = await (await http.get(f"{control}/stats")).json()
        (bot,) = stats["bots"].values()
        assert (bot["connected"], bot["identifies"], bot["remaining"]) == (1, 1, 999)
        emit = {"bot": "b", "shard": 0, "t": "TEST_EVENT", "d": {"a": 1}}
        assert (await (await http.post(f"{control}/emit", json=emit)).json())["count"] == 1
        assert (await client.until("TEST_EVENT"))["d"] == {"a": 1}
        lines = (await (await http.get(f"{control}/journal?bot=b&since=1")).text()).splitlines()
        assert len(lines) == 3
        assert (await http.post(f"{control}/faults", json={"kind": "nonsense"})).status == 400
        assert (await http.post(f"{control}/faults", json={"kind": "close", "code": 4000, "shards": [0]})).status == 200
        assert await client.close_code() == 4000
        (guild, _) = await (await http.get(f"{control}/guilds?bot=b")).json()
        state = await (await http.get(f"{control}/guild?bot=b&guild_id={guild}")).json()
        assert state["guild"]["member_count"] == len(state["members"])
        added = await http.post(f"{control}/bots", json={"token": "second", "guilds": 1, "name": "c"})
        assert added.status == 200
        assert (await http.post(f"{control}/bots", json={"bot": "c", "token": "third"})).status == 200
        headers = {"Authorization": "Bot third"}
        assert (await http.get(f"{sim.api_url}/gateway/bot", headers=headers)).status == 200
        text = await (await http.get(f"{control}/stats")).text()
        assert TOKEN not in text
        assert "third" not in text


async def test_an_invite_counts_its_uses_until_the_last_one(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=1, name="b"))
    (guild_id,) = await sim.guild_ids("b")
    guild = sim.gateway.bot_named("b").world.guild(int(guild_id))
    channel = guild.channels_of(0)[0]
    guild.invites["abc"] = {"code": "abc", "uses": 0, "max_uses": 2, "channel_id": channel, "guild_id": guild_id}
    headers = {"Authorization": f"Bot {TOKEN}"}
    async with aiohttp.ClientSession() as http, GatewayClient(sim.url) as client:
        await client.identify(TOKEN)
        await client.until("GUILD_CREATE")
        user_id = await sim.join_member(bot="b", guild_id=guild_id, code="abc")
        assert (await client.receive())["d"]["user"]["id"] == user_id
        (invite,) = await (await http.get(f"{sim.api_url}/guilds/{guild_id}/invites", headers=headers)).json()
        assert (invite["uses"], invite["guild"]["id"]) == (1, guild_id)
        body = {"bot": "b", "guild_id": guild_id, "code": "abc"}
        assert (await http.post(f"{sim.base_url}/_sim/join", json=body)).status == 200
        assert (await client.until("INVITE_DELETE"))["d"]["code"] == "abc"
        assert (await http.post(f"{sim.base_url}/_sim/join", json=body)).status == 400


async def test_a_message_sent_over_rest_arrives_as_an_event(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=1, name="b"))
    (guild_id,) = await sim.guild_ids("b")
    channel = next(key for key, c in (await sim.guild_state("b", guild_id))["channels"].items() if c["type"] == 0)
    url, headers = f"{sim.api_url}/channels/{channel}/messages", {"Authorization": f"Bot {TOKEN}"}
    async with aiohttp.ClientSession() as http, GatewayClient(sim.url) as client:
        await client.identify(TOKEN, intents=1 << 9)
        await client.until("READY")
        sent = await (await http.post(url, json={"content": "hello"}, headers=headers)).json()
        received = await client.until("MESSAGE_CREATE")
        assert (received["d"]["id"], received["d"]["content"]) == (sent["id"], "hello")
        assert [m["id"] for m in await (await http.get(url, headers=headers)).json()] == [sent["id"]]
        assert (await http.post(url, json={"content": ""}, headers=headers)).status == 400


async def test_rest_checks_the_token_and_limits_a_bucket(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=1))
    async with aiohttp.ClientSession() as http:
        assert (await http.get(f"{sim.api_url}/gateway/bot", headers={"Authorization": "Bot no"})).status == 401
        assert (await http.get(f"{sim.api_url}/nothing")).status == 404
        await sim.fault("http_status", status=502, path="/users", seconds=60)
        headers = {"Authorization": f"Bot {TOKEN}"}
        assert (await http.get(f"{sim.api_url}/users/@me", headers=headers)).status == 502
        answers = [await http.get(f"{sim.api_url}/gateway/bot", headers=headers) for _ in range(6)]
    assert [answer.status for answer in answers] == [200] * 5 + [429]
    assert answers[0].headers["X-RateLimit-Remaining"] == "4"
    assert (await answers[5].json())["retry_after"] > 0
    assert answers[5].headers["X-RateLimit-Scope"] == "user"


async def test_an_unknown_version_is_refused(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=1))
    async with GatewayClient(sim.url, query="v=3") as client:
        with pytest.raises(Closed) as closed:
            await client.receive()
    assert closed.value.code == 4012


async def test_the_control_api_pauses_shows_and_extends_a_world(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=2, name="b", world="w", hidden_channels=0.3))
    control = f"{sim.base_url}/_sim"
    async with aiohttp.ClientSession() as http, GatewayClient(sim.url) as client:

        async def quiescent() -> dict[str, Any]:
            found: dict[str, Any] = await (await http.get(f"{control}/quiescent")).json()
            return found

        await client.identify(TOKEN)
        await client.until("GUILD_CREATE")
        await sim.fault("stall", seconds=1.0)
        assert (await http.post(f"{control}/happen", json={"bot": "b", "events": 300, "seed": 4})).status == 200
        assert (await quiescent())["busy_sockets"] == 1
        async with asyncio.timeout(60):
            while not (await quiescent())["quiescent"]:
                await client.receive()
        for guild_id in await sim.guild_ids("b"):
            url = f"{control}/guild?bot=b&guild_id={guild_id}"
            whole, seen = await (await http.get(url)).json(), await (await http.get(f"{url}&as=seen")).json()
            hidden = {key for key, channel in seen["channels"].items() if channel["name"] == "___hidden___"}
            assert hidden == set(seen["hidden"])
            assert not any(channel["name"] == "___hidden___" for channel in whole["channels"].values())
        later = {"token": "later", "guilds": 1, "name": "c", "world": "w"}
        assert (await http.post(f"{control}/bots", json=later)).status == 200
        while (await client.until("GUILD_MEMBER_ADD"))["d"]["user"]["username"] != "c":
            pass
        assert await sim.guild_ids("c") == (await sim.guild_ids("b"))[:1]


async def test_a_separate_seed_makes_the_same_events_again(make_simulator: MakeSimulator) -> None:
    stories = []
    for _ in range(2):
        sim = await make_simulator(BotConfig(token=TOKEN, guilds=2, name="b"))
        async with GatewayClient(sim.url) as client:
            await client.identify(TOKEN)
            await client.until("GUILD_CREATE")
            await client.until("GUILD_CREATE")
            await sim.act("b", 200, seed=9)
            stories.append([entry["t"] for entry in await sim.journal(since=3)])
    assert stories[0] == stories[1]
