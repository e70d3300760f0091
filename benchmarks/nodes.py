"""What the nodes of a measured cluster say of themselves."""

from typing import Any

import aiohttp
import msgspec

from sandwich_coordinator.addresses import http_url
from sandwich_node.dev.cluster import DevCluster


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
