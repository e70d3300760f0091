"""The cluster key is changed node by node while events flow: nothing is lost, and no session start is spent."""

from typing import Any

import pytest

from sandwich_coordinator.operations.rekey import plan_rekey
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.keys import Keys
from sandwich_node.dev.cluster import DevCluster, dev_cluster
from tests.e2e.test_faults import SHARDS, FaultJob
from tests.e2e.test_main_job import BOTS, assert_clean
from tests.e2e.test_nats_faults import NODES, nats_job
from tests.e2e.test_settings_change import found

pytestmark = pytest.mark.e2e

KEY = "SANDWICH_CLUSTER_KEY"
STOP_S = 40.0


async def restart_each(running: FaultJob, key: str) -> None:
    """Restart one node after another with another value of the key."""
    running.cluster.env[KEY] = key
    for name in sorted(NODES):
        await running.cluster.nodes[name].stop(STOP_S)
        await running.until("all shards live on the other node", lambda: running.settled(NODES - {name}))  # noqa: B023
        await running.cluster.start_node(name)
        await running.until("all shards live on both nodes", lambda: running.settled(NODES))


async def secrets_left(cluster: DevCluster, key: ClusterKey) -> tuple[str, ...]:
    """What the key alone does not open or prove."""
    store = EtcdStore([cluster.etcd.url])
    try:
        return plan_rekey(await store.list(Keys().prefix), Keys(), key).left
    finally:
        await store.close()


async def ok(cluster: DevCluster, *words: str) -> str:
    code, output = await cluster.run_cli(*words)
    assert code == 0, output
    return output


@pytest.mark.long
async def test_the_cluster_key_is_changed_node_by_node_without_a_lost_event_or_a_session_start() -> None:
    async with dev_cluster(BOTS, nodes=0, rate=300) as cluster, nats_job(cluster) as running:
        await running.until("events of each application arrive", running.all_receiving)
        old, new = cluster.env[KEY], ClusterKey.generate().to_base64()
        both = f"{new},{old}"
        cluster.env["HOOK"] = "https://hooks.example.com/x"
        await ok(cluster, "token", "create", "ci", "--role", "admin")
        await ok(cluster, "webhook", "add", "w", "--url-env", "HOOK")

        cluster.env[KEY] = both
        code, output = await cluster.run_cli("cluster", "rekey")
        assert (code, "is not known to a, b" in output) == (1, True), output
        await restart_each(running, both)
        assert "no changes" in await ok(cluster, "cluster", "apply", "-f", str(cluster.directory / "cluster.yml"))

        before = await workers_of(running)
        said = await ok(cluster, "cluster", "rekey")
        for what in ("the settings", "application music", "application welcomer", "webhook w", "API token"):
            assert what in said, said
        assert "everything is sealed" in await ok(cluster, "cluster", "rekey")
        assert await running.flowing()
        assert await workers_of(running) == before, "no worker is replaced for it"

        await restart_each(running, new)
        assert await secrets_left(cluster, ClusterKey.from_base64(new)) == ()
        await ok(cluster, "cluster", "rekey")
        cluster.env[KEY] = old
        code, output = await cluster.run_cli("cluster", "apply", "-f", str(cluster.directory / "cluster.yml"))
        assert (code, "cluster rekey" in output) == (1, True), output
        cluster.env[KEY] = new
        assert await found(running) == {}, "both nodes use the stored settings"

        assert_clean(await running.verdicts())
        assert running.gaps == []
        assert await running.spent() == (SHARDS, 0), "no session start but the first ones, no rule of Discord violated"


async def workers_of(running: FaultJob) -> dict[str, Any]:
    return {node: (await running.pids(node))[1] for node in sorted(NODES)}
