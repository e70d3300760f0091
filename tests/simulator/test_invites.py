"""Invites and joins: which bot receives what, what REST shows, and the record of how users really joined."""

import asyncio
import random
from typing import Any

import aiohttp
import pytest

from sandwich_simulator import BotConfig, Simulator
from sandwich_simulator.action_context import ActionContext
from sandwich_simulator.actions.invites import JoinMethod, drop_expired, invite_created, join, make_invite, member_joins
from sandwich_simulator.entities import EVERYONE
from sandwich_simulator.event_routing import payload_for
from sandwich_simulator.events import Event
from sandwich_simulator.intents import ALL_INTENTS
from sandwich_simulator.pytest_plugin import MakeSimulator
from sandwich_simulator.visibility import MANAGE_CHANNELS, MANAGE_GUILD, VIEW_AUDIT_LOG, permissions_of
from sandwich_simulator.world import World, guild_create

TOKEN = "a-token"
WALL_MS = 1_750_000_000_000


def action_of(seed: int = 1, wall_ms: int = WALL_MS, **fields: Any) -> ActionContext:
    world = World(BotConfig(token=TOKEN, guilds=1, **fields), seed=seed)
    return ActionContext(world, world.guild(next(iter(world.guild_ids))), random.Random(seed), wall_ms)


def joins_by(action: ActionContext, method: JoinMethod) -> list[Event]:
    return next(events for _ in range(100) if (events := list(join(action, method))))


def test_the_last_use_deletes_an_invite_before_or_after_the_join_is_sent() -> None:
    orders = set()
    for seed in range(20):
        action = action_of(seed)
        code = make_invite(action, max_uses=1, max_age_s=0)["code"]
        events = joins_by(action, JoinMethod(code=code))
        orders.add(tuple(event.name for event in events))
        assert action.guild.invites == {}
        assert action.world.shared.joins[-1]["how"] == "invite"
    assert orders == {("GUILD_MEMBER_ADD", "INVITE_DELETE"), ("INVITE_DELETE", "GUILD_MEMBER_ADD")}


def test_an_expired_invite_sends_no_event() -> None:
    action = action_of()
    code = make_invite(action, max_uses=0, max_age_s=60)["code"]
    drop_expired(action.guild, WALL_MS + 59_999)
    assert list(action.guild.invites) == [code]
    drop_expired(action.guild, WALL_MS + 60_000)
    assert action.guild.invites == {}


def test_each_join_is_recorded_with_its_true_method() -> None:
    action = action_of(vanity_guilds=1.0, members_per_guild=200)
    invite = make_invite(action, max_uses=0, max_age_s=0)
    for method in (JoinMethod(code=invite["code"]), JoinMethod(vanity=True), JoinMethod(bot=True), JoinMethod()):
        joins_by(action, method)
    seen = [(truth["how"], truth["code"], truth["inviter_id"]) for truth in action.world.shared.joins]
    vanity = action.guild.base["vanity_url_code"]
    assert seen == [
        ("invite", invite["code"], invite["inviter"]["id"]),
        ("vanity", vanity, None),
        ("bot", None, None),
        ("none", None, None),
    ]
    assert action.guild.invites[invite["code"]]["uses"] == 1


def test_only_a_bot_that_manages_channels_receives_invite_events() -> None:
    action = action_of(unmanaged_guilds=1.0)
    assert not permissions_of(action.guild, action.world.me["id"]) & (MANAGE_GUILD | MANAGE_CHANNELS)
    code = make_invite(action, max_uses=1, max_age_s=0)["code"]
    assert received(action, joins_by(action, JoinMethod(code=code))) == ["GUILD_MEMBER_ADD"]


def received(action: ActionContext, events: list[Event]) -> list[str]:
    me = action.world.me["id"]
    return [event.name for event in events if payload_for(action.guild, event, me) is not None]


def test_a_bot_receives_no_invite_event_of_a_channel_that_it_may_not_view() -> None:
    action = action_of(hidden_channels=0.4)
    seen = {True: 0, False: 0}
    for _ in range(40):
        invite = make_invite(action, max_uses=0, max_age_s=0)
        views = action.guild.sees(action.world.me["id"], invite["channel_id"])
        seen[views] += 1
        assert received(action, [invite_created(action, invite)]) == (["INVITE_CREATE"] if views else [])
    assert all(seen.values())


def test_a_world_without_these_settings_is_unchanged() -> None:
    action = action_of()
    shown = guild_create(action.guild, bits=ALL_INTENTS, large_threshold=50, self_id=action.world.id, joined=True)
    assert (shown["vanity_url_code"], shown["features"].count("VANITY_URL")) == (None, 0)
    for _ in range(200):
        list(member_joins(action))
    assert {truth["how"] for truth in action.world.shared.joins} == {"none", "bot"}


async def _get(sim: Simulator, http: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    answer = await http.get(f"{sim.api_url}{path}", headers={"Authorization": f"Bot {TOKEN}"})
    return answer.status, await answer.json()


async def test_rest_shows_counts_only_to_bots_that_may_manage_the_guild(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=1, name="b", vanity_guilds=1.0, hidden_channels=0))
    (guild_id,) = await sim.guild_ids("b")
    code = await sim.make_invite(bot="b", guild_id=guild_id)
    channel_id = (await sim.guild_state("b", guild_id))["invites"][code]["channel_id"]
    async with aiohttp.ClientSession() as http:
        status, (invite,) = await _get(sim, http, f"/guilds/{guild_id}/invites")
        assert (status, invite["code"], invite["uses"]) == (200, code, 0)
        assert (await _get(sim, http, f"/channels/{channel_id}/invites"))[1][0]["uses"] == 0
        before = (await _get(sim, http, f"/guilds/{guild_id}/vanity-url"))[1]["uses"]
        await sim.join_member(bot="b", guild_id=guild_id, vanity=True)
        assert (await _get(sim, http, f"/guilds/{guild_id}/vanity-url"))[1]["uses"] == before + 1
        await sim.permit(bot="b", guild_id=guild_id, permissions=int(EVERYONE) | VIEW_AUDIT_LOG)
        status, (invite,) = await _get(sim, http, f"/guilds/{guild_id}/invites")
        assert (status, "uses" in invite, invite["inviter"]["bot"]) == (200, False, False)
        await sim.permit(bot="b", guild_id=guild_id, permissions=int(EVERYONE))
        for path in (
            f"/guilds/{guild_id}/invites",
            f"/guilds/{guild_id}/vanity-url",
            f"/channels/{channel_id}/invites",
        ):
            assert await _get(sim, http, path) == (403, {"message": "Missing Permissions", "code": 50013})


async def test_the_control_api_creates_uses_and_deletes_invites(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=1, name="b"))
    (guild_id,) = await sim.guild_ids("b")
    place = {"bot": "b", "guild_id": guild_id}
    async with aiohttp.ClientSession() as http:

        async def post(name: str, **body: Any) -> tuple[int, Any]:
            answer = await http.post(f"{sim.base_url}/_sim/{name}", json=place | body)
            return answer.status, await answer.json()

        code = (await post("invite", max_uses=3, used=True))[1]["code"]
        user_id = (await post("join", code=code))[1]["user_id"]
        assert (await post("delete_invite", code=code))[0] == 200
        assert (await post("delete_invite", code=code))[0] == 400
        assert (await post("join", vanity=True))[0] == 400
        assert (await post("permit", permissions=0))[0] == 200
        joins = await (await http.get(f"{sim.base_url}/_sim/joins", params={"bot": "b"})).json()
    assert [truth["code"] for truth in joins] == [code, code]
    assert joins[1]["user_id"] == user_id


async def test_the_fault_http_delay_makes_rest_slow(make_simulator: MakeSimulator) -> None:
    sim = await make_simulator(BotConfig(token=TOKEN, guilds=1, name="b"))
    (guild_id,) = await sim.guild_ids("b")
    await sim.fault("http_delay", delay=0.2, seconds=60, path="/guilds/")
    async with aiohttp.ClientSession() as http:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await _get(sim, http, f"/guilds/{guild_id}/invites")
        assert (await _get(sim, http, "/users/@me"))[0] == 200
        assert (await _get(sim, http, f"/guilds/{guild_id}/invites"))[0] == 200
