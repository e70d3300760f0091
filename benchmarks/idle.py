"""`python -m benchmarks.idle`: what an idle shard costs a worker: memory and CPU.

    python -m benchmarks.idle --shards 300 1000 --seconds 60

Each count of shards is a row, on a node with one worker, without cache and without traffic: only heartbeats, and what
a shard reports. Memory is the worker's, less that of a worker with one shard, for each further shard. CPU is read from
outside (`/proc`) over the measured seconds: that of the worker, and of all processes of the node, less what they use
with one shard.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.nodes import node_pids
from benchmarks.processes import cpu_s, rss_mib
from benchmarks.steady import Load, steady_cluster, worker_pid

SETTLE_S = 15.0
DEFAULT = [300, 1000]
HEAD = ("shards", "worker MiB", "KiB a shard", "worker", "a shard", "the node", "a shard")


@dataclass(frozen=True, slots=True)
class Idle:
    """MiB of the worker; CPU of it and of the whole node, in % of one core."""

    shards: int
    mib: float
    worker: float
    node: float


async def measure(shards: int, seconds: float) -> Idle:
    """A node with so many idle shards."""
    async with steady_cluster(Load(shards, 0), cache=False) as cluster:
        await asyncio.sleep(SETTLE_S)
        worker, began = await worker_pid(cluster), time.monotonic()
        before = cpu_s(worker), sum(map(cpu_s, node_pids(cluster)))
        await asyncio.sleep(seconds)
        after, took = (cpu_s(worker), sum(map(cpu_s, node_pids(cluster)))), time.monotonic() - began
        of_worker, of_node = ((last - first) / took * 100 for first, last in zip(before, after, strict=True))
        return Idle(shards, rss_mib(worker), of_worker, of_node)


async def table(counts: Sequence[int], seconds: float) -> None:
    """Print the table, a row when it is measured."""
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    one = await measure(1, seconds)
    print(f"| 1 | {one.mib:.0f} | | {one.worker:.2f} % | | {one.node:.2f} % | |", flush=True)
    for shards in counts:
        found, more = await measure(shards, seconds), shards - 1
        kib, of_worker, of_node = (
            (value - least) / more
            for value, least in (
                (found.mib * 1024, one.mib * 1024),
                (found.worker, one.worker),
                (found.node, one.node),
            )
        )
        print(
            f"| {shards:,} | {found.mib:.0f} | {kib:.0f} | {found.worker:.2f} % | {of_worker:.4f} % | "
            f"{found.node:.2f} % | {of_node:.4f} % |",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle", description=__doc__)
    parser.add_argument("--shards", type=int, nargs="+", default=DEFAULT, help="more than 1")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each is watched")
    arguments = parser.parse_args()
    asyncio.run(table(arguments.shards, arguments.seconds))
