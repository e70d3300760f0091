"""A first start on virtual time: how long it takes beside the shortest time that Discord allows."""

import asyncio
import math
import random
from dataclasses import dataclass

from sandwich_coordinator.start_progress import start_estimate
from sandwich_coordinator.store.memory import MemoryStore
from verification.simulation.checks import Journal
from verification.simulation.discord import Discord, Shard
from verification.simulation.log import Stream
from verification.simulation.loop import run_virtual
from verification.simulation.node import SimNode, World
from verification.simulation.run import configure

APP = "app"
LATE_FACTOR = 3.0


@dataclass(frozen=True, slots=True)
class Start:
    """A start of `shards` sessions. Times in seconds, counted from the start of the first node.

    `order`: the shard ids of each bucket in the order of their IDENTIFYs.
    """

    shards: int
    max_concurrency: int
    first_s: float
    last_s: float
    order: list[list[int]]
    violations: list[str]
    etcd_writes: int

    @property
    def minimum_s(self) -> float:
        """The shortest time that Discord allows."""
        return start_estimate(self.shards, self.max_concurrency)


def measure_start(shards: int, max_concurrency: int, *, nodes: int = 3, seed: int = 1, slow_part: float = 0.0) -> Start:
    """Start a cluster that has never run, on virtual time, until every shard has its session.

    `slow_part`: of the IDENTIFYs, how many travel slowly. They delay their buckets by as much.
    """
    return run_virtual(_start(shards, max_concurrency, nodes, seed, slow_part))


async def _start(shards: int, max_concurrency: int, count: int, seed: int, slow_part: float) -> Start:
    loop, rng, journal = asyncio.get_running_loop(), random.Random(seed), Journal()
    discord = Discord(
        journal, rng, apps={APP: shards}, concurrency=max_concurrency, total=2 * shards, slow_part=slow_part
    )
    database = MemoryStore(loop.time)
    await configure(database, {APP: shards}, {APP: APP})
    world = World(database, Stream(journal, discord), discord, journal, rng)
    nodes = [SimNode(f"n{number}", world, workers=1, skew_s=0.0) for number in range(count)]
    for node in nodes:
        node.start()
    until = LATE_FACTOR * start_estimate(shards, max_concurrency) + 60.0
    while len(discord.live_at) < shards and loop.time() < until:  # noqa: ASYNC110 (nothing announces the change)
        await asyncio.sleep(0.1)
    for node in nodes:
        node.shutdown()
    for node in nodes:
        await node.ended()
    times = discord.live_at.values()
    return Start(
        shards=shards,
        max_concurrency=max_concurrency,
        first_s=min(times, default=math.inf),
        last_s=max(times) if len(times) == shards else math.inf,
        order=_by_bucket(discord.live_at, max_concurrency),
        violations=journal.violations,
        etcd_writes=database.database.revision,
    )


def _by_bucket(live_at: dict[Shard, float], max_concurrency: int) -> list[list[int]]:
    buckets: list[list[int]] = [[] for _ in range(max_concurrency)]
    for (_, number), _ in sorted(live_at.items(), key=lambda item: item[1]):
        buckets[number % max_concurrency].append(number)
    return buckets
