"""`python -m benchmarks.drain`: how long it takes to empty a node with many shards under load, by `drain` and SIGTERM.

Three nodes with real etcd and NATS; the first has `--shards` shards, the others half as many in all. A shard's silence
is the time from its closed socket to its accepted RESUME, measured by the simulator. Exit code 1: an event was lost,
doubled or out of order, or a session start was used.
"""

import argparse
import asyncio
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.processes import token, until
from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.view import ClusterView
from sandwich_node.dev.checker import DeliveryCheck, Verdict
from sandwich_node.dev.cluster import DevBot, DevCluster, dev_cluster
from sandwich_sdk import Consumer
from verification.chaos.measure import percentile, silences

APP = "drain"
CAPACITIES = {"a": 200, "b": 50, "c": 50}
GUILDS_PER_SHARD = 4
TARGET_S = 20.0
TARGET_SHARDS = 100
START_TIMEOUT_S = 300.0
DRAIN_TIMEOUT_S = 120
EXIT_TIMEOUT_S = 40.0


@dataclass(frozen=True, slots=True)
class Row:
    """One way of emptying a node. Times in seconds; shards not `handed_over` in time were stopped at once."""

    way: str
    shards: int
    seconds: float
    handed_over: int
    silences: list[float]

    def text(self) -> str:
        """The line of the table."""
        p50, p95, longest = (percentile(self.silences, part) for part in (0.5, 0.95, 1.0))
        moved = f"{self.shards} | {self.seconds:.1f} | {self.handed_over} | {len(self.silences)}"
        return f"| {self.way} | {moved} | {p50:.2f} | {p95:.2f} | {longest:.2f} |"


class Fleet:
    """The cluster under test and its consumer."""

    def __init__(self, cluster: DevCluster, shards: int) -> None:
        self.cluster = cluster
        self.shards = shards
        self.check = DeliveryCheck()
        self._store = EtcdStore([cluster.etcd.url])
        self._keys = Keys()

    async def consume(self) -> None:
        """Read all events, as an application would."""
        async with Consumer(self.cluster.nats.url, app=APP, group="bench", start="all") as consumer:
            async for event in consumer:
                self.check.take(event.id)

    async def carried(self) -> Counter[str]:
        """Live shards by node; empty while one of them is not live."""
        listing = await self._store.list(self._keys.claims)
        view = ClusterView.from_items(self._keys, {item.key: item for item in listing.items})
        claims = [claim.record for claim in view.claims.values()]
        if len(claims) != total(self.shards) or any(claim.state != "live" for claim in claims):
            return Counter()
        return Counter(claim.node for claim in claims)

    async def full(self) -> bool:
        """Whether the first node has all its shards."""
        return (await self.carried())["a"] == self.shards

    async def drained(self) -> Row:
        """Empty the first node with the command."""
        began_ns, began = time.time_ns(), time.monotonic()
        code, output = await self.cluster.run_cli("node", "drain", "a", "--timeout", str(DRAIN_TIMEOUT_S))
        seconds = time.monotonic() - began
        if code != 0:
            raise RuntimeError(f"the drain ended with {code}:\n{output}")
        return await self._row("drain", seconds, self.shards, began_ns)

    async def stopped(self) -> Row:
        """Empty the first node by ending its process."""
        node = self.cluster.nodes["a"]
        began_ns, began = time.time_ns(), time.monotonic()
        node.signal(signal.SIGTERM)
        async with asyncio.timeout(EXIT_TIMEOUT_S):
            await node.process.wait()
        seconds = time.monotonic() - began
        late = re.search(r"(\d+) shards are not handed over", node.log.read_text())
        return await self._row("SIGTERM", seconds, self.shards - (int(late[1]) if late else 0), began_ns)

    async def _row(self, way: str, seconds: float, handed_over: int, since_ns: int) -> Row:
        async def all_live() -> bool:
            return bool(await self.carried())

        await until(all_live, START_TIMEOUT_S)
        records = await self.cluster.simulator("ledger")
        recent = [record for record in records if record["ns"] >= since_ns]
        return Row(way, self.shards, seconds, handed_over, silences(recent, since_ns))

    async def verdict(self) -> Verdict:
        """Stop the traffic and compare the received events with the owed ones."""
        await self.cluster.simulator("pause_traffic", {})

        async def clean() -> bool:
            return self.check.verdict(await self.cluster.owed(APP, self.check.sessions)).clean

        try:
            await until(clean, 30.0)
        except TimeoutError:
            pass
        return self.check.verdict(await self.cluster.owed(APP, self.check.sessions))

    async def close(self) -> None:
        """Close the connection to etcd."""
        await self._store.close()

    async def stats(self) -> dict[str, Any]:
        """The simulator's counts of the bot."""
        return next(iter((await self.cluster.simulator("stats"))["bots"].values()))


def total(shards: int) -> int:
    """The number of all shards, when the first node has `shards`."""
    return shards * sum(CAPACITIES.values()) // CAPACITIES["a"]


@asynccontextmanager
async def fleet(shards: int, rate: float) -> AsyncIterator[Fleet]:
    """Nodes of unequal capacity with all shards live and traffic."""
    count = total(shards)
    bot = DevBot(
        app=APP,
        token=token(1),
        guilds=count * GUILDS_PER_SHARD,
        shards=count,
        recommended=count,
        max_concurrency=count,
    )
    async with dev_cluster((bot,), nodes=0, rate=rate) as cluster:
        running = Fleet(cluster, shards)
        consuming = asyncio.create_task(running.consume())
        try:
            for name, capacity in CAPACITIES.items():
                await cluster.start_node(name, capacity=capacity)
            await until(running.full, START_TIMEOUT_S)
            yield running
        finally:
            consuming.cancel()
            await asyncio.gather(consuming, return_exceptions=True)
            await running.close()


async def measure(shards: int, rate: float) -> bool:
    """Measure both ways with one number of shards; returns whether delivery was exact."""
    async with fleet(shards, rate) as running:
        started = (await running.stats())["identifies"]
        drained = await running.drained()
        print(drained.text(), flush=True)
        await running.cluster.run_cli("node", "uncordon", "a")
        await until(running.full, START_TIMEOUT_S)
        print((await running.stopped()).text(), flush=True)
        verdict, stats = await running.verdict(), await running.stats()
    spent = stats["identifies"] - started
    met = "met" if drained.seconds <= TARGET_S else "MISSED"
    target = f"; {TARGET_S:g} s for a drain: {met}" if shards == TARGET_SHARDS else ""
    print(
        f"{shards} shards: {verdict.owed} events owed; lost {verdict.lost}, doubled {verdict.doubled}, out of order "
        f"{verdict.out_of_order}; session starts spent {spent}; violations {sum(stats['violations'].values())}{target}",
        flush=True,
    )
    return verdict.clean and not spent and not stats["violations"]


async def main(counts: list[int], rate: float) -> int:
    """Print the table; returns the exit code."""
    print(f"{rate:g} events a second\n")
    print("| way | shards | seconds to empty | handed over | resumed | silence p50 (s) | p95 | longest |")
    print("|---|---|---|---|---|---|---|---|")
    exact = [await measure(count, rate) for count in counts]
    return 0 if all(exact) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drain", description=__doc__)
    parser.add_argument("--shards", type=int, nargs="+", default=[TARGET_SHARDS], help="on the node that is emptied")
    parser.add_argument("--rate", type=float, default=1000.0, help="events a second over all shards")
    arguments = parser.parse_args()
    sys.exit(asyncio.run(main(arguments.shards, arguments.rate)))
