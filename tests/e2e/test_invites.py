"""Invite tracking with real processes: attributions are right and in order, and delay other events only briefly."""

import os
import signal
import time
from typing import Any

import aiohttp
import msgspec
import pytest
import redis.asyncio as redis

from sandwich_node.shards.invite_tracking import MEMBER_INVITED
from tests.e2e.cluster_fixture import APP, SHARDS, ClusterFixture, cluster_fixture
from tests.support.processes import descendants
from tests.support.starvation import waited_s

pytestmark = pytest.mark.e2e

HOLD_S = 0.3
SLACK_S = 0.4
"""The time for everything except the hold, minus the processes' waits for a core."""
WAITED_S = 0.1
"""If the cluster waits longer than this for a core, Discord's answer can be too late for the hold."""
GUILDS = 4


async def join(running: ClusterFixture, guild_id: str, code: str | None) -> None:
    await running.cluster.simulator("join", {"bot": APP, "guild_id": guild_id, "code": code})


async def counts_kept(running: ClusterFixture) -> bool:
    """Whether the counts of all guilds are in Redis for a next owner of the shards."""
    async with redis.Redis.from_url(running.cluster.redis.url) as client:
        keys = [key async for key in client.scan_iter(match=f"sw:{APP}:invites:*")]
        states: list[Any] = [state for key in keys for state in await client.hvals(key)]
        return sum(bool(state.startswith(b"{")) for state in states) == GUILDS


def attributions(running: ClusterFixture) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """By guild and user: the attribution with the join, and a later one."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for event in running.events:
        if event.type == "GUILD_MEMBER_ADD":
            who = event.data["guild_id"], event.data["user"]["id"]
            assert who not in found
            found[who] = [event.extra["invited_by"]]
        elif event.type == MEMBER_INVITED:
            who = event.data["guild_id"], event.data["user_id"]
            assert found[who][-1]["pending"], "a late answer comes after its join, once"
            found[who].append(event.data["invited_by"])
    return found


async def assert_right(running: ClusterFixture) -> None:
    """Assert that all attributions are true, and that no user who joined by an invite is unknown."""
    truths = await running.cluster.simulator(f"joins?bot={APP}")

    async def all_attributed() -> bool:
        said = attributions(running)
        whole = {(truth["guild_id"], truth["user_id"]) for truth in truths} == said.keys()
        return whole and not any(answers[-1].get("pending") for answers in said.values())

    await running.until("an answer for each join", all_attributed)
    said = attributions(running)
    for truth in truths:
        answer = said[truth["guild_id"], truth["user_id"]][-1]
        if truth["code"] is None:
            assert (answer["source"], answer.get("reason")) == ("unknown", "no_invite")
        else:
            assert (answer["source"], answer.get("code")) == ("invite", truth["code"])
            assert answer["inviter"]["id"] == truth["inviter_id"]


async def joins_hold_nothing_for_long(running: ClusterFixture, codes: dict[str, str]) -> dict[str, float]:
    """A user joins each of these guilds, and a message of the guild arrives within the hold.

    Returns by guild the time that the cluster's processes waited for a core meanwhile.
    """
    waited = {}
    for guild_id, code in codes.items():

        async def joined_and_said(guild_id: str = guild_id, code: str = code) -> None:
            await join(running, guild_id, code)
            await running.said(guild_id, "hi")

        processes = descendants(os.getpid())
        started, waited_before = time.monotonic(), waited_s([os.getpid(), *processes])
        types = [event.type for event in await running.after(guild_id, joined_and_said)]
        assert types[:2] == ["GUILD_MEMBER_ADD", "MESSAGE_CREATE"]
        waited[guild_id] = waited_s([os.getpid(), *processes]) - waited_before
        assert time.monotonic() - started - waited[guild_id] < HOLD_S + SLACK_S
    return waited


async def node_pages(running: ClusterFixture) -> list[tuple[dict[str, Any], str]]:
    """The status and metrics of each node."""
    _, text = await running.cluster.run_cli("node", "list", "--json")
    found = []
    async with aiohttp.ClientSession() as http:
        for entry in msgspec.json.decode(text):
            async with http.get(f"http://{entry['address']}/status") as response:
                status = await response.json()
            async with http.get(f"http://{entry['address']}/metrics") as response:
                found.append((status, await response.text()))
    return found


async def counted(running: ClusterFixture) -> list[tuple[dict[str, Any], str]]:
    """The nodes' pages when they show the late answers and the joins; workers report every second."""
    pages = await node_pages(running)
    late = sum(status["apps"][APP]["invites"]["late_total"] for status, _ in pages)
    joins = f'sandwich_joins_total{{app="{APP}",outcome="invite"}}'
    return pages if late and all(joins in metrics for _, metrics in pages) else []


async def test_joins_are_attributed_right_and_delay_little_despite_slow_discord_and_dead_workers() -> None:
    async with cluster_fixture(nodes=2, guilds=GUILDS, invites={"track": True}, cache={"enabled": False}) as running:
        simulator = running.cluster.simulator
        guilds = await running.guild_ids()
        codes = {guild: (await simulator("invite", {"bot": APP, "guild_id": guild}))["code"] for guild in guilds}
        await running.until("the counts of every guild are kept", lambda: counts_kept(running))

        waited = await joins_hold_nothing_for_long(running, codes)
        await assert_right(running)
        late = {guild for (guild, _), answers in attributions(running).items() if len(answers) > 1}
        assert all(waited[guild] > WAITED_S for guild in late), "each late answer is a separate event"

        slow = {"kind": "http_delay", "delay": 2.0, "seconds": 1.5, "path": "/guilds/"}
        await simulator("faults", slow)
        await joins_hold_nothing_for_long(running, {guild: codes[guild] for guild in guilds[:2]})
        await assert_right(running)

        await simulator("faults", {"kind": "http_status", "status": 500, "seconds": 1.0, "path": "/guilds/"})
        await joins_hold_nothing_for_long(running, {guild: codes[guild] for guild in guilds[2:]})
        await assert_right(running)
        pages = await running.until("the workers report what they counted", lambda: counted(running))

        await running.until("the counts of every guild are kept", lambda: counts_kept(running))
        for status, _ in pages:
            os.kill(status["workers"][0]["pid"], signal.SIGKILL)

        async def back() -> bool:
            return (await running.spent())[1] == SHARDS

        await running.until("both shards are back", back)
        for guild in guilds:
            await join(running, guild, codes[guild])
        await assert_right(running)
        await join(running, guilds[0], None)
        await assert_right(running)

        await running.until("everything has arrived", running.all_arrived)
        assert await running.spent() == (0, SHARDS, 0)
