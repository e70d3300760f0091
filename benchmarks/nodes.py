"""What the nodes of a measured cluster say of themselves."""

from typing import Any

import aiohttp
import msgspec

from benchmarks.processes import children, until
from sandwich_coordinator.addresses import http_url
from sandwich_node.dev.cluster import DevCluster

SPARES_S = 90.0
"""A spare worker is started some seconds after its worker is ready (worker_process.py); later if it has no room."""


async def node_status(cluster: DevCluster) -> dict[str, Any]:
    """The status of the only node; {} before it has joined, and when a busy machine has no answer."""
    code, text = await cluster.run_cli("node", "list", "--json")
    nodes = msgspec.json.decode(text) if code == 0 else None
    if not nodes:
        return {}
    try:
        async with aiohttp.ClientSession() as http, http.get(f"{http_url(nodes[0]['address'])}/status") as response:
            return await response.json()  # type: ignore[no-any-return]
    except aiohttp.ClientError:
        return {}


async def all_live(cluster: DevCluster, shards: int) -> bool:
    """Whether the only node has so many shards, and all are live."""
    status = await node_status(cluster)
    states = [shard["state"] for shard in status.get("shards", ())]
    return len(states) == shards and set(states) == {"live"}


def node_pids(cluster: DevCluster) -> list[int]:
    """The only node's agent, workers and spare workers."""
    agent = cluster.nodes["a"].process.pid
    return [agent, *children(agent)]


async def until_spares(cluster: DevCluster) -> None:
    """Wait until each worker of the only node has its spare: its start would be measured as traffic, or not at all."""

    async def all_there() -> bool:
        workers = len((await node_status(cluster)).get("workers", ()))
        return workers > 0 and len(node_pids(cluster)) == 1 + 2 * workers

    await until(all_there, SPARES_S)
