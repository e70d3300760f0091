"""How the agent's `run` ends when it is not asked to leave but cancelled."""

import asyncio
import contextlib
import random

import pytest

from sandwich_coordinator.addresses import Address
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_node.agent.agent import Agent
from sandwich_node.agent.dependencies import AgentDependencies
from sandwich_node.agent.options import NodeOptions
from verification.simulation.checks import Journal
from verification.simulation.discord import Discord
from verification.simulation.log import Conditions
from verification.simulation.loop import run_virtual, wall_s
from verification.simulation.node import NoServerHealth, RemoteStore, no_http_server
from verification.simulation.run import KEYS, configure


@pytest.mark.parametrize("configured", [False, True], ids=["it waits for its settings", "it serves"])
def test_a_cancelled_agent_leaves_no_task_behind(configured: bool) -> None:
    async def scenario() -> None:
        store = MemoryStore(asyncio.get_running_loop().time)
        discord = Discord(Journal(), random.Random(1), apps={"bot": 1}, concurrency=1)
        if configured:
            await configure(store, {"bot": 1}, {"bot": "bot"})
        dependencies = AgentDependencies(
            store=RemoteStore(store.peer(), (Conditions(),), random.Random(1)),
            listen=no_http_server,
            open_discord=lambda _: contextlib.nullcontext(discord),
            make_worker=lambda *_, **__: pytest.fail("a node without workers makes none"),
            make_server_health=lambda *_: NoServerHealth(),
            rng=random.Random(1),
            wall=wall_s,
            clock=asyncio.get_running_loop().time,
        )
        options = NodeOptions(
            node="a", cluster="default", listen=Address("127.0.0.1", 1), workers=0, capacity=1, labels={}
        )
        running = asyncio.create_task(Agent(options, dependencies, None).run())
        await asyncio.sleep(10.0)
        assert (await store.get(KEYS.node("a")) is not None) == configured
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert await store.get(KEYS.node("a")) is None, "its lease is released"

    run_virtual(scenario())
