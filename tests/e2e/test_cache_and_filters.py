"""The shared cache, the `before` of events, and filters, with real processes and a real Redis."""

import asyncio
import json
from typing import Any

import aiohttp
import msgspec
import nats
import pytest
import redis.asyncio as redis
import yaml
from nats.js.api import ConsumerConfig, DeliverPolicy

from sandwich_node.rpc.server import NO_OWNER
from sandwich_sdk import Event
from sandwich_sdk.cache import Cache
from sandwich_sdk.rpc import Rpc
from sandwich_sdk.wire.cache_keys import prefixes_key
from sandwich_sdk.wire.frame import inflate, split_events
from sandwich_sdk.wire.rpc import RpcError
from tests.e2e.cluster_fixture import APP, AUTHOR, SHARDS, ClusterFixture, cluster_fixture

pytestmark = pytest.mark.e2e

BURST, BURSTS = 6000, 20
MOVING = frozenset({"last_message_id", "last_pin_timestamp", "status", "voice_start_time", "guild_id"})
"""Channel fields that other events change, and one that only channel events have."""


def entity(event: Event) -> tuple[str, dict[str, Any]] | None:
    """The collection and the entity of a channel or role event."""
    if event.type.startswith("CHANNEL_") and event.type != "CHANNEL_PINS_UPDATE":
        return "channels", event.data
    if event.type.startswith("GUILD_ROLE_"):
        return "roles", event.data.get("role") or {"id": event.data["role_id"]}
    return None


def replayed(events: list[Event]) -> int:
    """Track channels and roles through the stream and compare each `before`; returns the number of comparisons."""
    state: dict[tuple[str, str], dict[str, Any]] = {}
    compared = 0
    for event in events:
        if event.type == "GUILD_CREATE":
            state |= {("channels", one["id"]): one for one in event.data["channels"]}
            state |= {("roles", one["id"]): one for one in event.data["roles"]}
        elif (found := entity(event)) is not None:
            key = found[0], found[1]["id"]
            if event.type.endswith(("_UPDATE", "_DELETE")) and key in state and "cache" not in event.extra:
                assert fixed(event.extra["before"]) == fixed(state[key]), event.raw
                compared += 1
            state[key] = found[1]
    return compared


async def late(running: ClusterFixture, least: int) -> int:
    """How many events did not wait for their change of the cache; 0 until it is `least`. Workers report each second."""
    found = 0
    for entry in (await running.cluster.snapshot()).view.nodes.values():
        async with aiohttp.ClientSession() as http, http.get(f"http://{entry.record.address}/status") as response:
            found += (await response.json())["apps"][APP]["cache"]["late_total"]
    return found if found >= least else 0


def fixed(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key not in MOVING}


async def test_events_have_the_right_before_and_the_cache_equals_discords_state() -> None:
    async with cluster_fixture() as running:
        creates = [event for event in running.events if event.type == "GUILD_CREATE"]
        assert len(creates) == 16
        assert all(event.extra["lazy"] for event in creates), "backfill after READY is not a join"
        assert {event.derived for event in creates} == {None}

        for _ in range(BURSTS):
            # One after the other: once Redis is late, the rest of a burst does not wait for it.
            await running.cluster.simulator("happen", {"bot": APP, "events": BURST // BURSTS})
            await running.until("everything has arrived", running.all_arrived)
        assert replayed(running.events) > 20
        types = {event.type for event in running.events if event.extra.get("before")}
        assert {"GUILD_MEMBER_UPDATE", "GUILD_MEMBER_REMOVE", "GUILD_UPDATE", "VOICE_STATE_UPDATE"} <= types
        behind = sum(event.extra.get("cache") == "behind" for event in running.events)
        if behind:
            # On a machine with other work Redis may answer after a frame's wait; then the node says so.
            await running.until("the late events are counted", lambda: late(running, behind))

        async with Cache(running.cluster.redis.url, namespace=APP) as cache:
            for guild_id in await running.guild_ids():
                truth = await running.guild(guild_id)
                if truth["unavailable"]:
                    continue
                found = await cache.guild(guild_id)
                assert found is not None
                assert found.name == truth["guild"]["name"]
                assert {str(channel.id) for channel in await cache.channels(guild_id)} == set(truth["channels"])
        assert await running.spent() == (0, 0, 0)


async def test_a_new_guild_is_a_join_and_a_left_guild_is_removed() -> None:
    async with cluster_fixture() as running:
        joined = await running.cluster.simulator("emit", {"bot": APP, "big_guild_mb": 0.1})
        guild_id = str(joined["guild_id"])

        async def created() -> Event | None:
            return next((e for e in running.events if e.type == "GUILD_CREATE" and e.data["id"] == guild_id), None)

        event = await running.until("the new guild's GUILD_CREATE", created)
        assert (event.extra["lazy"], event.extra["unavailable"]) == (False, False)
        assert event.derived == "GUILD_JOIN"
        code, output = await running.cluster.run_cli("guild", "show", guild_id)
        assert code == 0, output
        assert event.data["name"] in output

        await running.emit("GUILD_DELETE", {"id": guild_id, "unavailable": True}, guild_id)
        await running.emit("GUILD_CREATE", event.data | {"unavailable": False}, guild_id)
        await running.emit("GUILD_DELETE", {"id": guild_id}, guild_id)

        async def left() -> Event | None:
            return next((e for e in running.events if e.derived == "GUILD_LEAVE" and e.data["id"] == guild_id), None)

        event = await running.until("its GUILD_DELETE", left)
        derived = [event.derived for event in running.events if event.derived and event.data["id"] == guild_id]
        assert derived == ["GUILD_JOIN", "GUILD_UNAVAILABLE", "GUILD_AVAILABLE", "GUILD_LEAVE"]
        assert event.extra["before"]["id"] == guild_id
        code, output = await running.cluster.run_cli("guild", "where", guild_id)
        assert code == 1
        assert "not" in output


async def test_filters_and_lanes_take_effect_within_seconds_and_without_a_reconnect() -> None:
    async with cluster_fixture() as running:
        guild_id, other = (await running.guild_ids())[:2]

        async def typing() -> None:
            await running.emit("TYPING_START", {"user_id": "5", "channel_id": "7", "timestamp": 1}, guild_id)

        async def message() -> None:
            await running.said(guild_id, "hello")

        async def bots_message() -> None:
            await running.said(guild_id, "beep", author=AUTHOR | {"bot": True})

        await running.takes_effect(guild_id, typing, arrives=True)
        await running.set("events.ignore=[TYPING_START]")
        await running.takes_effect(guild_id, typing, arrives=False)
        await running.set("events.ignore=[]", "events.cache_only=[MESSAGE_*]")
        await running.takes_effect(guild_id, typing, arrives=True)
        await running.takes_effect(guild_id, message, arrives=False)
        await running.set("events.cache_only=[]", "events.ignore_bots=true")
        await running.takes_effect(guild_id, message, arrives=True)
        await running.takes_effect(guild_id, bots_message, arrives=False)
        await running.set("events.ignore_bots=false")
        await running.takes_effect(guild_id, bots_message, arrives=True)
        await prefixes_choose(running, guild_id, other)
        await running.set("events.prefixes=null", "events.lanes={chat: {types: [MESSAGE_*], max_age: 60s}}")
        await lanes_divide(running, guild_id)
        assert await running.spent() == (0, 0, 0)


async def prefixes_choose(running: ClusterFixture, guild_id: str, other: str) -> None:
    """One guild has its own prefixes, the other uses the fallback; a mention works in both."""
    async with redis.Redis.from_url(running.cluster.redis.url) as client:
        await client.sadd(prefixes_key(APP, guild_id), "?", "??")
    await running.set('events.prefixes={fallback: "!", mention: true}')

    async def chatter() -> None:
        await running.said(guild_id, "hello")

    await running.takes_effect(guild_id, chatter, arrives=False)

    async def prefix_of(guild: str, content: str) -> str | None:
        found = await running.after(guild, lambda: running.said(guild, content))
        return found[0].extra["prefix"] if found else None

    bot = next(event.data["user"]["id"] for event in running.events if event.type == "READY")
    assert await prefix_of(guild_id, "?play") == "?"
    assert await prefix_of(guild_id, "??play") == "??", "the longest counts"
    assert await prefix_of(guild_id, "!play") is None, "the fallback is for guilds without their own"
    assert await prefix_of(other, "!play") == "!"
    assert await prefix_of(other, "?play") is None
    assert await prefix_of(guild_id, f"<@{bot}> play") == f"<@{bot}>"


async def lanes_divide(running: ClusterFixture, guild_id: str) -> None:
    """Messages go to their own subject with their own retention; all other events stay on theirs."""
    client = await nats.connect(running.cluster.nats.url)
    try:
        stream = client.jetstream()
        config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
        sub = await stream.subscribe(f"sandwich.{APP}.events.chat.*.*", stream=f"SANDWICH_{APP}", config=config)
        for number in range(40):
            await running.after(guild_id, lambda: running.said(guild_id, "into the lane"))
            try:
                found = await sub.next_msg(timeout=0.5)
            except TimeoutError:
                assert number < 39, "no message in its lane"
                continue
            break
        lines = split_events(inflate(found.data))
        assert {Event(line).type for line in lines} == {"MESSAGE_CREATE"}
        assert (found.headers or {})["Nats-TTL"]
    finally:
        await client.close()


async def test_events_continue_as_behind_while_redis_does_not_answer() -> None:
    async with cluster_fixture() as running:
        guild_id = (await running.guild_ids())[0]
        channel = next(iter((await running.guild(guild_id))["channels"].values()))

        async def renamed(name: str) -> Event:
            data = {key: value for key, value in channel.items() if key != "guild_id"} | {"name": name}
            (event,) = await running.after(guild_id, lambda: running.emit("CHANNEL_UPDATE", data, guild_id))
            return event

        assert (await renamed("first")).extra["before"]["name"] == channel["name"]
        await running.cluster.redis.pause()
        try:
            event = await renamed("second")
            assert event.extra == {"before": None, "cache": "behind"}

            async def shown() -> bool:
                return any("Redis" in problem["summary"] for problem in (await running.status())["problems"])

            await running.until("the problem in the status", shown)
        finally:
            running.cluster.redis.unpause()
        await running.until("the cache caught up", running.complete)
        # The delayed changes are in the cache: the third event has the second as its `before`.
        assert (await renamed("third")).extra["before"]["name"] == "second"
        assert await running.spent() == (0, 0, 0)


async def test_a_shard_that_moves_while_redis_does_not_answer_costs_no_session_start() -> None:
    async with cluster_fixture() as running:
        run = running.cluster.run_cli
        listed = msgspec.json.decode((await run("shard", "list", "--app", APP, "--json"))[1])
        shard, source = next((row["shard"], row["node"]) for row in listed)
        (target,) = running.cluster.nodes.keys() - {source}
        await running.cluster.redis.pause()
        try:
            await running.cluster.simulator("happen", {"bot": APP, "events": 300})
            await running.until("everything has arrived", running.all_arrived)
            code, output = await run("shard", "move", APP, str(shard), "--to", target)
            assert (code, f"live on {target} after" in output) == (0, True), output
        finally:
            running.cluster.redis.unpause()
        await running.cluster.simulator("happen", {"bot": APP, "events": 300})
        await running.until("everything has arrived", running.all_arrived)
        await running.until("the cache caught up", running.complete)
        identifies, _, violations = await running.spent()
        assert (identifies, violations) == (0, 0)
        async with Cache(running.cluster.redis.url, namespace=APP) as cache:
            for guild_id in await running.guild_ids():
                truth = await running.guild(guild_id)
                if not truth["unavailable"]:
                    assert {str(one.id) for one in await cache.channels(guild_id)} == set(truth["channels"])
                    assert {str(one.id) for one in await cache.roles(guild_id)} == set(truth["roles"])


async def test_an_emptied_redis_is_filled_again_beside_the_live_sessions() -> None:
    async with cluster_fixture() as running:
        async with redis.Redis.from_url(running.cluster.redis.url) as client:
            await client.flushall()
        await running.cluster.simulator("happen", {"bot": APP, "events": 100})

        async def filling() -> bool:
            identifies, resumes, violations = await running.spent()
            assert not resumes
            assert not violations
            return identifies == SHARDS and await running.complete()

        await running.until("the cache is complete again, for one IDENTIFY a shard", filling, 120.0)
        async with Cache(running.cluster.redis.url, namespace=APP) as cache:
            assert set(await cache.guild_ids(APP)) == set(await running.guild_ids())
        # Events that only fill the cache are not published.
        assert sum(event.type == "GUILD_CREATE" and event.extra["lazy"] for event in running.events) == 16


async def test_requests_reach_a_bot_through_the_node_that_has_the_shard() -> None:
    async with cluster_fixture(cache={"members": True}) as running:
        guilds = await running.guild_ids()
        async with Rpc(running.cluster.nats.url, app=APP) as rpc:
            for guild_id in guilds[:4]:
                assert (await rpc.where_is_guild(guild_id))["shard"] == (int(guild_id) >> 22) % SHARDS
            truth = await running.guild(guilds[0])
            user = next(iter(truth["members"]))
            assert guilds[0] in (await rpc.mutual_guilds(user))[APP]
            member = await rpc.fetch("member", guild_id=guilds[0], user_id=user)
            assert member["user"]["id"] == user

            # One that comes after the answer waits for its turn: Discord gives the whole list once in 30 seconds.
            asked = [rpc.request_members(guilds[0], timeout=60) for _ in range(5)]
            answers = await asyncio.gather(*asked)
            assert all({m["user"]["id"] for m in one["members"]} == set(truth["members"]) for one in answers)
            found = await rpc.request_members(guilds[1], user_ids=[user, 4])
            assert "4" in [str(one) for one in found["not_found"]]

            voice = next(key for key, one in truth["channels"].items() if one["type"] == 2)
            joined = await rpc.update_voice_state(guilds[0], voice)
            assert joined["state"]["channel_id"] == voice
            assert joined["server"]["endpoint"]
            assert (await rpc.update_voice_state(guilds[0], None))["state"]["channel_id"] is None
            assert ((await rpc.update_presence(status="dnd")) or {})["failed"] == {}

            relayed = await rpc.relay("SONG_ENDED", {"song": 7}, guild=guilds[0])

            async def arrived() -> bool:
                return any(event.id == relayed and event.data == {"song": 7} for event in running.events)

            await running.until("the event of our own", arrived)
            body = b'{"type":"SONG_ENDED",\n"data":{"lines":\r\n[1,\n2]},"guild_id":"%b"}' % guilds[0].encode()
            lines = json.loads(await rpc._ask_once("relay", body))["id"]

            async def arrived_whole() -> bool:
                return any(event.id == lines and event.data == {"lines": [1, 2]} for event in running.events)

            await running.until("the event that was written on several lines", arrived_whole)
            for wrong in (
                rpc.update_presence(status="bad"),
                rpc.relay("MESSAGE_CREATE", {}),
                rpc.relay("SONG_ENDED", json.loads("[" * 101 + "]" * 101)),
                rpc.update_presence(shard=SHARDS),
                rpc.where_is_guild("abc"),
            ):
                with pytest.raises(RpcError):
                    await wrong
            await running.cluster.nodes["a"].stop(30)

            async def shown_by_all() -> bool:
                failed = ((await rpc.update_presence(status="online")) or {})["failed"]
                assert set(failed.values()) <= {NO_OWNER}
                return not failed

            # For a moment no node has its shards, and a request for all of them says so.
            await running.until("the presence on every shard", shown_by_all)
        assert await running.all_arrived()
        identifies, _, violations = await running.spent()
        assert (identifies, violations) == (0, 0)


async def test_a_disabled_part_of_the_cache_is_removed_and_returns_when_enabled() -> None:
    async with cluster_fixture() as running, redis.Redis.from_url(running.cluster.redis.url) as client:

        async def kept() -> set[str]:
            """The kinds of guild keys in Redis."""
            keys = [key.decode() async for key in client.scan_iter(match=f"sw:{{{APP}:*", count=1000)]
            return {key.rpartition("}:")[2] for key in keys}

        assert {"guild", "members", "channels", "roles"} <= await kept()
        await running.set("cache.members=false")

        async def members_gone() -> bool:
            return "members" not in await kept()

        async def nothing() -> bool:
            return not await kept()

        await running.until("the members gone", members_gone, 15.0)
        assert "channels" in await kept()
        await running.set("cache.enabled=false")
        await running.until("nothing kept", nothing, 15.0)
        assert await running.spent() == (0, 0, 0)
        await running.set("cache.enabled=true", "cache.members=true")
        await running.until("the cache complete again", running.complete, 90.0)
        assert (await running.spent())[0] == SHARDS
        assert {"guild", "members", "channels", "roles"} <= await kept()

        path = running.cluster.directory / "cluster.yml"
        config = yaml.safe_load(path.read_text())
        del config["apps"][APP]
        path.write_text(yaml.safe_dump(config))
        code, output = await running.cluster.run_cli("cluster", "apply", "-f", str(path), "--prune", "--force")
        assert code == 0, output
        await running.until("the guilds of a removed application gone", nothing)
