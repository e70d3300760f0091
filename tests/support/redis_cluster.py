"""A Redis Cluster of embedded servers: masters without replicas."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import redis.asyncio as redis

from sandwich_node.dev.embedded import EmbeddedRedis
from sandwich_node.dev.ports import PortBlocks

SLOTS = 16384
PORTS = PortBlocks(20_000, 22_700)
"""Each server also uses the port 10,000 higher (Redis: cluster-enabled), which `free_ports` never returns."""


@asynccontextmanager
async def redis_cluster(directory: Path, nodes: int) -> AsyncIterator[list[EmbeddedRedis]]:
    """Servers that together serve all slots."""
    extra = ("--cluster-enabled", "yes", "--cluster-node-timeout", "5000")
    async with AsyncExitStack() as stack:
        servers = [EmbeddedRedis(directory / f"node{number}", extra=extra) for number in range(nodes)]
        for server, port in zip(servers, PORTS.take(nodes), strict=True):
            server.take_ports([port])
            await stack.enter_async_context(server)
        clients = [await stack.enter_async_context(redis.Redis.from_url(server.url)) for server in servers]
        for number, client in enumerate(clients):
            mine = range(SLOTS * number // nodes, SLOTS * (number + 1) // nodes)
            await client.execute_command("CLUSTER", "ADDSLOTS", *mine)
            await client.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port)
        async with asyncio.timeout(30):
            while not all([await _is_whole(client, nodes) for client in clients]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield servers


async def _is_whole(client: Any, nodes: int) -> bool:
    info = await client.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == nodes
