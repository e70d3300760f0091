"""Discord names a gateway that no shard can reach, then the right one: waiting shards use it."""

import pytest

from sandwich_node.dev.cluster import DevBot, dev_cluster
from tests.e2e.test_main_job import wait_until
from verification.cache_check.faults import settled

pytestmark = pytest.mark.e2e

DEAD = "ws://127.0.0.1:9"


async def test_running_shards_use_the_right_address_soon_after_discord_names_it() -> None:
    bot = DevBot(app="welcomer", token="MTAwMDAwMDAwMDAx.GaaaaX.welcomer", guilds=4, shards=2, recommended=2)
    async with dev_cluster((bot,), nodes=0, rate=0.0) as cluster:
        await cluster.simulator("gateway", {"url": DEAD})
        node = await cluster.start_node("a")

        async def tried() -> bool:
            return f"cannot reach the gateway at {DEAD}" in node.tail(1000)

        await wait_until(cluster, "the shards fail, and the log reports it", tried)
        await cluster.simulator("gateway", {"url": ""})

        # The leader asks at most a minute apart; the shards would use the old address for an hour.
        await wait_until(cluster, "both shards are live", lambda: settled(cluster, 2), 90.0)
        log = node.tail(1000)
        assert "the leader asks again" in log
        assert log.count("cannot reach the gateway") <= 40, "the log is limited"
