"""Settings that change while nodes run: the workers are replaced, and every session and event is kept."""

import os
import signal
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from sandwich_coordinator.operations.health import find_problems
from sandwich_coordinator.problems import Code
from sandwich_node.dev.cluster import DevCluster, dev_cluster
from tests.e2e.test_faults import SHARDS, FaultJob
from tests.e2e.test_main_job import BOTS, assert_clean
from tests.e2e.test_nats_faults import NODES, nats_job

pytestmark = pytest.mark.e2e

GUEST = {"guest": "guest"}
"""The consumer of these tests, which has no credentials."""
TIMEOUT_S = 120.0


def set_users(cluster: DevCluster, users: Mapping[str, str]) -> None:
    """Configure the NATS server for these users (name -> password); who has no credentials is the guest."""
    lines = [f'{{ user: "{name}", password: "{word}" }}' for name, word in {**GUEST, **users}.items()]
    cluster.nats.extra = ("no_auth_user: guest", "authorization { users: [", *lines, "] }")
    cluster.nats.command()


async def restart_with(cluster: DevCluster, users: Mapping[str, str]) -> None:
    set_users(cluster, users)
    await cluster.nats.kill()
    await cluster.nats.start()


def reload_with(cluster: DevCluster, users: Mapping[str, str]) -> None:
    set_users(cluster, users)
    os.kill(cluster.nats.pid, signal.SIGHUP)


async def apply(cluster: DevCluster, **sections: Mapping[str, Any]) -> None:
    """Change keys of sections of cluster.yml and apply it."""
    path = cluster.directory / "cluster.yml"
    config = yaml.safe_load(path.read_text())
    for name, changed in sections.items():
        config.setdefault(name, {}).update(changed)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    code, output = await cluster.run_cli("cluster", "apply", "-f", str(path))
    assert code == 0, output


async def use_nats_password(cluster: DevCluster, user: str, password: str) -> None:
    cluster.env["NATS_PASSWORD"] = password
    await apply(cluster, nats={"user": user, "password": {"env": "NATS_PASSWORD"}})


async def found(running: FaultJob) -> dict[str, Code]:
    """The problems of nodes and of settings, by subject."""
    problems = find_problems(await running.cluster.snapshot())
    return {one.subject: one.code for one in problems if one.code in (Code.SETTINGS_OUTDATED, Code.SETTINGS_REFUSED)}


async def workers(running: FaultJob) -> dict[str, set[int]]:
    """Process ids of the workers, by node."""
    return {node: set((await running.pids(node))[1]) for node in sorted(NODES)}


async def replaced(running: FaultJob, before: Mapping[str, set[int]]) -> bool:
    """Whether each node has as many workers as before, all of them others, and uses what is stored."""
    now = await workers(running)
    same_number = all(len(now[node]) == len(before[node]) for node in NODES)
    return same_number and not any(now[node] & before[node] for node in NODES) and not await found(running)


@pytest.mark.long
async def test_a_changed_nats_password_is_taken_while_events_flow_and_no_session_start_is_spent() -> None:
    async with dev_cluster(BOTS, nodes=0, rate=300) as cluster:
        await restart_with(cluster, {"old": "old-word", "new": "new-word"})
        await use_nats_password(cluster, "old", "old-word")
        async with nats_job(cluster) as running:
            await running.until("events of each application arrive", running.all_receiving)
            first = await workers(running)

            await use_nats_password(cluster, "new", "not-the-word")

            async def refused() -> bool:
                snapshot = await cluster.snapshot()
                said = [one for one in find_problems(snapshot) if one.code is Code.SETTINGS_REFUSED]
                return sorted(one.subject for one in said) == ["node/a", "node/b"] and all(
                    "authorization refused" in one.summary for one in said
                )

            await running.until("both nodes refuse the wrong password", refused, TIMEOUT_S)
            assert await workers(running) == first, "the old workers keep their shards"
            assert await running.flowing()

            await use_nats_password(cluster, "new", "new-word")
            await running.until("all workers replaced", lambda: replaced(running, first), TIMEOUT_S)
            await running.until("all shards live", lambda: running.settled(NODES), TIMEOUT_S)
            reload_with(cluster, {"new": "new-word"})
            await running.until("events arrive without the old user", running.flowing, TIMEOUT_S)

            second = await workers(running)
            await apply(cluster, policy={"moves_in_flight": 7, "identify_reserve": 3})

            async def taken() -> bool:
                return not await found(running)

            await running.until("the policy is taken", taken, TIMEOUT_S)
            assert await workers(running) == second, "a policy needs no other worker"

            await apply(cluster, policy={"lease_ttl": "6s"})

            async def needs_a_restart() -> bool:
                snapshot = await cluster.snapshot()
                advice = {one.advice for one in find_problems(snapshot) if one.code is Code.SETTINGS_OUTDATED}
                return advice == {"restart the node; its sessions are kept"}

            await running.until("the lease needs a restart", needs_a_restart, TIMEOUT_S)
            assert_clean(await running.verdicts())
            assert await running.spent() == (SHARDS, 0)
            failovers = [one for node in sorted(NODES) for one in (await running.node_status(node))["failovers"]]
            assert {one["cause"] for one in failovers} == {"moved"}


@pytest.mark.long
async def test_another_redis_is_taken_once_it_can_be_written() -> None:
    async with dev_cluster(BOTS, nodes=0, rate=300) as cluster, nats_job(cluster) as running:
        first = await workers(running)
        server = cluster.redis.url.rpartition("/")[0]
        await apply(cluster, redis={"url": f"{server.rpartition(':')[0]}:1/0"})

        async def refused() -> bool:
            return await found(running) == {"node/a": Code.SETTINGS_REFUSED, "node/b": Code.SETTINGS_REFUSED}

        await running.until("both nodes refuse a Redis that is not there", refused, TIMEOUT_S)
        assert await workers(running) == first
        await apply(cluster, redis={"url": f"{server}/1"})
        await running.until("all workers replaced", lambda: replaced(running, first), TIMEOUT_S)
        await running.until("all shards live", lambda: running.settled(NODES), TIMEOUT_S)
        assert_clean(await running.verdicts())
