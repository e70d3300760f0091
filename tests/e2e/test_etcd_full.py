"""An etcd without space, with real processes: it is reported at once, and no node dies."""

import aiohttp
import pytest

from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.keys import Keys
from sandwich_node.dev.cluster import DevBot, DevCluster, dev_cluster
from tests.e2e.test_bad_input import address, live, node_status, until

pytestmark = pytest.mark.e2e

BOT = DevBot(app="welcomer", token="MTAwMDAwMDAwMDAx.GaaaaX.canary", guilds=2, shards=1, recommended=1)


async def alarm(cluster: DevCluster, action: str) -> None:
    """Raise or clear the alarm that etcd raises when its quota is used up."""
    async with aiohttp.ClientSession() as http:
        status = await http.post(f"{cluster.etcd.url}/v3/maintenance/status", json={})
        member = (await status.json())["header"]["member_id"]
        body = {"action": action, "memberID": member, "alarm": "NOSPACE"}
        async with http.post(f"{cluster.etcd.url}/v3/maintenance/alarm", json=body) as response:
            assert response.status == 200, await response.text()


async def test_an_etcd_without_space_is_reported_at_once_and_no_node_dies() -> None:
    async with dev_cluster((BOT,), nodes=1, rate=0.0) as cluster:
        await until("a live shard", lambda: live(cluster, 1))
        where = await address(cluster)
        await alarm(cluster, "ACTIVATE")
        code, text = await cluster.run_cli("cluster", "status")
        assert (code, "etcd is out of space (NOSPACE alarm)" in text) == (1, True), text

        async def not_ready() -> bool:
            async with aiohttp.ClientSession() as http, http.get(f"{where}/readyz") as response:
                return response.status == 503 and "NOSPACE" in await response.text()

        await until("the node reports that it is not ready, and why", not_ready)
        store = EtcdStore([cluster.etcd.url])
        try:
            (registration,) = (await store.list(Keys().nodes)).items
            await store.revoke(registration.lease)
        finally:
            await store.close()

        async def waits() -> bool:
            async with aiohttp.ClientSession() as http, http.get(f"{where}/readyz") as response:
                return "etcd is out of space and refuses writes" in await response.text()

        await until("the node waits for its registration", waits)
        assert cluster.nodes["a"].running
        await alarm(cluster, "DEACTIVATE")
        await until("the shard is claimed again", lambda: live(cluster, 1))
        (shard,) = (await node_status(cluster))["shards"]
        assert shard["state"] == "live"
        (bot,) = (await cluster.simulator("stats"))["bots"].values()
        assert bot["identifies"] == 1, "its session continued all the time"

        async def over() -> bool:
            return "NOSPACE" not in (await cluster.run_cli("cluster", "status"))[1]

        await until("it is no longer reported", over)
