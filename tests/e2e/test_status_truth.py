"""The status with real processes: a killed node is shown as gone, one that left is not, and lag is read."""

import signal

import nats
import pytest
from nats.js.api import ConsumerConfig

from sandwich_coordinator.operations.health import find_problems
from sandwich_coordinator.problems import Code
from sandwich_node.dev.cluster import DevBot, dev_cluster
from tests.e2e.test_bad_input import live, until

pytestmark = pytest.mark.e2e

BOT = DevBot(app="welcomer", token="MTAwMDAwMDAwMDAx.GaaaaX.canary", guilds=2, shards=2, recommended=2)
TIMEOUT_S = 120.0


@pytest.mark.long
async def test_a_killed_node_is_gone_one_that_left_is_not_and_the_lag_of_a_group_is_shown() -> None:
    async with dev_cluster((BOT,), nodes=3, rate=50.0) as cluster:
        await until("live shards", lambda: live(cluster, 2), TIMEOUT_S)

        async def codes() -> dict[str, Code]:
            return {found.subject: found.code for found in find_problems(await cluster.snapshot())}

        await cluster.nodes["c"].stop(30)

        async def left() -> bool:
            departed = (await cluster.snapshot()).view.departed
            return "c" in departed and departed["c"].record.left

        await until("the record of the node that left", left, TIMEOUT_S)
        cluster.nodes["b"].signal(signal.SIGKILL)

        async def gone() -> bool:
            return (await codes()).get("node/b") is Code.NODE_GONE

        await until("the killed node in the status", gone, TIMEOUT_S)
        assert "node/c" not in await codes()
        code, text = await cluster.run_cli("node", "forget", "a")
        assert (code, "node a is registered" in text) == (1, True)
        assert (await cluster.run_cli("node", "forget", "b", "--json"))[0] == 0
        assert "node/b" not in await codes()
        await until("live shards on the node that is left", lambda: live(cluster, 2), TIMEOUT_S)
        client = await nats.connect(cluster.nats.url)
        wanted = ConsumerConfig(durable_name="greeter", name="greeter")
        await client.jetstream().add_consumer("SANDWICH_welcomer", wanted)
        await client.close()

        async def lags() -> bool:
            code, text = await cluster.run_cli("cluster", "status")
            return code == 1 and "greeter" in text

        await until("the group in the status", lags, TIMEOUT_S)
        await cluster.start_node("b")

        async def back() -> bool:
            return "b" not in (await cluster.snapshot()).view.departed

        await until("the node is back", back, TIMEOUT_S)
