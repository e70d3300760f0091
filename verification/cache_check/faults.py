"""The faults while the cache is written: one at a time, chosen by the seed."""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Iterable, Iterator
from typing import Any

import aiohttp
import redis.asyncio as redis

from sandwich_coordinator.addresses import http_url
from sandwich_coordinator.operations import rows
from sandwich_node.dev.cluster import DevCluster
from sandwich_node.dev.freezing import frozen

SETTLE_S = 60.0
KINDS = (
    "worker killed",
    "node killed and started",
    "node stopped and started",
    "node frozen 8 s",
    "every shard restarted",
    "Redis frozen 3 s",
    "Redis killed 3 s, data kept",
    "Redis emptied",
    "NATS frozen 3 s",
    "Discord drops all sockets",
    "Discord asks all to reconnect (op 7)",
    "Discord forgets all sessions (op 9 false)",
)


def faults(seed: int) -> Iterator[str]:
    """All kinds once in random order, then again in another order, without end."""
    rng = random.Random(seed)
    while True:
        yield from rng.sample(KINDS, len(KINDS))


async def shards_by_node(cluster: DevCluster) -> dict[str, int]:
    """The number of live shards by node."""
    found: dict[str, int] = {}
    for shard in rows.shard_rows(await cluster.snapshot()):
        if shard["state"] == "live":
            found[shard["node"]] = found.get(shard["node"], 0) + 1
    return found


async def settled(cluster: DevCluster, shards: int, *, spread: bool = False) -> bool:
    """Whether all shards of all applications are live and connected; with `spread`, also whether each node has some.

    A node that restarted often gets no shards for a while. Sessions that only fill the cache count as connected too.
    """
    by_node = await shards_by_node(cluster)
    stats: list[dict[str, Any]] = list((await cluster.simulator("stats"))["bots"].values())
    connected = all(bot["connected"] >= shards for bot in stats)
    everywhere = set(by_node) == set(cluster.nodes) or not spread
    return connected and everywhere and sum(by_node.values()) == shards * len(stats)


async def break_it(cluster: DevCluster, kind: str, shards: int, rng: random.Random) -> None:
    """Inject a fault and wait until all shards are live again. Raises TimeoutError when they are not in time."""
    await _break(cluster, kind, rng.choice(sorted(cluster.nodes)))
    await asyncio.sleep(1.0)
    end = asyncio.get_running_loop().time() + SETTLE_S
    while not await settled(cluster, shards):
        if asyncio.get_running_loop().time() > end:
            _, shown = await cluster.run_cli("shard", "list")
            logs = "\n".join(f"{child.name}:\n{child.tail(30)}" for child in cluster.nodes.values())
            raise TimeoutError(f"not all shards are live {SETTLE_S:.0f} s after: {kind}\n{shown}\n{logs}")
        await asyncio.sleep(0.3)


async def _break(cluster: DevCluster, kind: str, node: str) -> None:
    match kind:
        case "worker killed":
            _signal(await _workers(cluster, node), signal.SIGKILL)
        case "node killed and started":
            _signal([cluster.nodes[node].process.pid, *await _workers(cluster, node)], signal.SIGKILL)
            await cluster.nodes[node].process.wait()
            await asyncio.sleep(7.0)
            await cluster.start_node(node)
        case "node stopped and started":
            await cluster.nodes[node].stop(40.0)
            await cluster.start_node(node)
        case "node frozen 8 s":
            async with frozen([cluster.nodes[node].process.pid, *await _workers(cluster, node)]):
                await asyncio.sleep(8.0)
        case "every shard restarted":
            for bot in cluster.bots:
                await cluster.run_cli("shard", "restart", bot.app, f"0-{(bot.shards or 1) - 1}")
        case _:
            await _break_servers(cluster, kind)


async def _break_servers(cluster: DevCluster, kind: str) -> None:
    match kind:
        case "Redis frozen 3 s" | "NATS frozen 3 s":
            server = cluster.redis if kind.startswith("Redis") else cluster.nats
            await server.pause()
            await asyncio.sleep(3.0)
            server.unpause()
        case "Redis killed 3 s, data kept":
            await cluster.redis.kill()
            await asyncio.sleep(3.0)
            await cluster.redis.start()
        case "Redis emptied":
            async with redis.Redis.from_url(cluster.redis.url) as client:
                await client.flushall()
        case "Discord drops all sockets":
            await cluster.simulator("faults", {"kind": "drop", "shards": "all"})
        case "Discord asks all to reconnect (op 7)":
            await cluster.simulator("faults", {"kind": "op7", "shards": "all"})
        case "Discord forgets all sessions (op 9 false)":
            await cluster.simulator("faults", {"kind": "op9", "resumable": False, "shards": "all"})


async def _workers(cluster: DevCluster, node: str) -> list[int]:
    """Process ids of a node's workers, from its own status."""
    address = (await cluster.snapshot()).view.nodes[node].record.address
    async with aiohttp.ClientSession() as http, http.get(f"{http_url(address)}/status") as response:
        return [worker["pid"] for worker in (await response.json())["workers"] if worker["pid"]]


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
