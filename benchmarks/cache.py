"""`python -m benchmarks.cache`: the cost of the cache: CPU per event of a worker and of Redis.

Two bots on the same worker get the same kind of bursts; one caches everything except presences and messages, the other
has no cache.
"""

import argparse
import asyncio
import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.__main__ import burst_cost, check_published, spread
from benchmarks.nodes import all_live, node_status
from benchmarks.processes import cpu_s, token, until
from sandwich_node.dev.cluster import DevBot, dev_cluster

SHARDS = 2
APPS = {"plain": {"cache": {"enabled": False}}, "cached": {}}


def bots_of(apps: Mapping[str, Mapping[str, Any]]) -> tuple[DevBot, ...]:
    """Bots that differ only in their settings."""
    return tuple(
        DevBot(
            app=name,
            token=token(number),
            guilds=40,
            shards=SHARDS,
            recommended=SHARDS,
            max_concurrency=SHARDS,
            settings=settings,
        )
        for number, (name, settings) in enumerate(apps.items(), start=1)
    )


async def measure(rounds: int, events: int) -> dict[str, list[float]]:
    """µs of CPU per event: of a worker without and with the cache, and of Redis with it."""
    costs: dict[str, list[float]] = {"plain": [], "cached": [], "redis": []}
    async with dev_cluster(bots_of(APPS), nodes=1, rate=0) as cluster:
        await until(lambda: all_live(cluster, SHARDS * len(APPS)))
        worker = (await node_status(cluster))["workers"][0]["pid"]
        for _ in range(rounds):
            for name in APPS:
                before = cpu_s(cluster.redis.pid)
                spent, sent = await burst_cost(cluster, name, worker, events)
                costs[name].append(spent / sent * 1e6)
                if name == "cached":
                    costs["redis"].append((cpu_s(cluster.redis.pid) - before) / sent * 1e6)
        for name in APPS:
            await check_published(cluster, name)
    return costs


async def main(rounds: int, events: int) -> None:
    costs = await measure(rounds, events)
    plain = statistics.median(costs["plain"])
    print(f"| CPU µs an event, {rounds} bursts of {events} | median (min to max) | times without the cache |")
    print("|---|---|---|")
    for name, text in (("plain", "a worker without the cache"), ("cached", "a worker with it"), ("redis", "Redis")):
        print(f"| {text} | {spread(costs[name])} | {statistics.median(costs[name]) / plain:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=40_000, help="events a burst")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.rounds, arguments.events))
