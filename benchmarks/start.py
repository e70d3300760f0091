"""`python -m benchmarks.start`: how long a first start takes, beside the shortest time that Discord allows.

That is ceil(shards / max_concurrency) x 5 s. Each `--start SHARDS/MAX_CONCURRENCY[/NODES]` is a row. By default the
cluster is real: processes, etcd, NATS and the simulator, which counts every violation of Discord's rules. A row's time
runs from the start of the first node's process until the last claim is live; a round is the time between two IDENTIFYs
of a bucket, 5 s at least. `--virtual` uses the simulation instead: the same agents and shards on virtual time, without
the cost of a CPU. Exit code 1: a rule was violated, or a round took more than 5 % longer than 5 s.
"""

import argparse
import asyncio
import logging
import math
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from benchmarks.processes import token, until
from sandwich_coordinator.start_progress import LEGAL_SPACING_S, start_estimate
from sandwich_coordinator.store.base import StoreUnavailable
from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.view import ClusterView
from sandwich_node.dev.cluster import DevBot, DevCluster, dev_cluster
from verification.simulation.pace import measure_start

APP = "start"
BAR = 1.05
DEFAULT = ["24/1/3", "160/16/3"]
TIMEOUT_FACTOR = 4.0
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """One start: how many shards, buckets and nodes."""

    shards: int
    max_concurrency: int
    nodes: int = 3

    @classmethod
    def parse(cls, text: str) -> "Wanted":
        """From "SHARDS/MAX_CONCURRENCY[/NODES]". Raises ValueError."""
        return cls(*(int(part) for part in text.split("/")))

    @property
    def rounds(self) -> int:
        """How many IDENTIFYs the fullest bucket has."""
        return math.ceil(self.shards / self.max_concurrency)

    @property
    def minimum_s(self) -> float:
        """The shortest time that Discord allows."""
        return start_estimate(self.shards, self.max_concurrency)


@dataclass(frozen=True, slots=True)
class Row:
    """One start. Times in seconds; `first_s` and `last_s`: of IDENTIFYs. `violations` by kind."""

    wanted: Wanted
    took_s: float
    first_s: float
    last_s: float
    violations: dict[str, int]

    @property
    def round_s(self) -> float:
        """The time between two IDENTIFYs of a bucket."""
        return (self.last_s - self.first_s) / max(1, self.wanted.rounds - 1)

    @property
    def ok(self) -> bool:
        """Whether the bar is met."""
        return not self.violations and self.took_s < math.inf and self.round_s <= BAR * LEGAL_SPACING_S

    def text(self) -> str:
        """The line of the table."""
        one, minimum = self.wanted, self.wanted.minimum_s
        found = ", ".join(f"{count} {kind}" for kind, count in self.violations.items()) or "0"
        return (
            f"| {one.shards} | {one.max_concurrency} | {one.nodes} | {minimum:.0f} | {self.took_s:.1f} | "
            f"{self.took_s / minimum:.3f} | {self.first_s:.1f} | {self.round_s:.3f} | {found} |"
        )


def virtual(wanted: Wanted) -> Row:
    """A start on virtual time."""
    start = measure_start(wanted.shards, wanted.max_concurrency, nodes=wanted.nodes)
    found = {"in the simulation": len(start.violations)} if start.violations else {}
    return Row(wanted, start.last_s, start.first_s, start.last_s, found)


async def real(wanted: Wanted, guilds: int) -> Row:
    """A start of real processes. `guilds`: on each shard."""
    shards = wanted.shards
    bot = DevBot(
        app=APP,
        token=token(1),
        guilds=guilds * shards,
        shards=shards,
        recommended=shards,
        max_concurrency=wanted.max_concurrency,
        members=5,
        world={"session_limit": 2 * shards + 1000},
    )
    async with dev_cluster((bot,), nodes=0, rate=0) as cluster:
        store = EtcdStore([cluster.etcd.url])
        try:
            began, began_ns = time.monotonic(), time.time_ns()
            for number in range(wanted.nodes):
                await cluster.start_node(f"n{number}")
            await until(lambda: _all_live(store, shards), TIMEOUT_FACTOR * wanted.minimum_s + TIMEOUT_S)
            took = time.monotonic() - began
        except TimeoutError:
            took = math.inf
        finally:
            await store.close()
        first, last = await _identifies(cluster, began_ns)
        return Row(wanted, took, first, last, await _violations(cluster))


async def _all_live(store: EtcdStore, shards: int) -> bool:
    keys = Keys()
    try:
        listing = await store.list(keys.claims)
    except StoreUnavailable:
        return False  # of a busy machine: asked again
    view = ClusterView.from_items(keys, {item.key: item for item in listing.items})
    return Counter(claim.record.state for claim in view.claims.values())["live"] == shards


async def _identifies(cluster: DevCluster, began_ns: int) -> tuple[float, float]:
    """When the first and the last IDENTIFY arrived."""
    records = await cluster.simulator("ledger?kind=identify")
    times = [(record["ns"] - began_ns) / 1e9 for record in records]
    return min(times, default=math.inf), max(times, default=math.inf)


async def _violations(cluster: DevCluster) -> dict[str, int]:
    stats: dict[str, Any] = await cluster.simulator("stats")
    found: Counter[str] = Counter()
    for bot in stats["bots"].values():
        found.update(bot["violations"])
    return dict(found)


async def main(rows: list[Wanted], guilds: int, *, on_virtual_time: bool) -> int:
    """Print the table; returns the exit code."""
    heads = ("shards", "max_concurrency", "nodes", "shortest (s)", "took (s)", "ratio", "first IDENTIFY (s)")
    print(f"| {' | '.join((*heads, 'a round (s)', 'violations'))} |")
    print("|---|---|---|---|---|---|---|---|---|")
    met = True
    for wanted in rows:
        row = await asyncio.to_thread(virtual, wanted) if on_virtual_time else await real(wanted, guilds)
        print(row.text(), flush=True)
        met = met and row.ok
    return 0 if met else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--start", type=Wanted.parse, nargs="+", help="SHARDS/MAX_CONCURRENCY[/NODES]; 3 nodes")
    parser.add_argument("--guilds", type=int, default=4, help="on each shard")
    parser.add_argument("--virtual", action="store_true", help="on virtual time")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    chosen = arguments.start or [Wanted.parse(text) for text in DEFAULT]
    sys.exit(asyncio.run(main(chosen, arguments.guilds, on_virtual_time=arguments.virtual)))
