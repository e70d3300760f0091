"""`python -m benchmarks.api`: how long reads of the HTTP API take, and what requests do to the latency of events.

Three nodes with real etcd, NATS and Redis. Reads: each path of `PATHS` in turn at `--requests` a second, spread over
the nodes; the time from the request to the whole answer. Events: from the simulator's `emit` to a consumer's handler,
once without requests and once with them.
"""

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from benchmarks.processes import token, until
from sandwich_node.dev.cluster import DevBot, DevCluster, dev_cluster
from sandwich_sdk import Consumer
from verification.chaos.measure import percentile

APP = "api"
PROBE = "TYPING_START"
PROBES_PER_S = 20
START_TIMEOUT_S = 300.0
PATHS = (
    "/cluster",
    "/apps",
    f"/apps/{APP}",
    f"/apps/{APP}/groups",
    "/shards?limit=1000",
    "/problems",
    "/nodes",
    "/budgets",
)


async def api_token(cluster: DevCluster) -> str:
    """A token that may read."""
    code, output = await cluster.run_cli("token", "create", "bench", "--role", "viewer", "--json")
    if code != 0:
        raise RuntimeError(f"no token: {output}")
    return str(json.loads(output)["token"])


@asynccontextmanager
async def running(shards: int, rate: float) -> AsyncIterator[DevCluster]:
    """A cluster with all its shards live."""
    bot = DevBot(app=APP, token=token(1), guilds=shards, shards=shards, recommended=shards, max_concurrency=shards)
    async with dev_cluster((bot,), nodes=3, rate=rate) as cluster:

        async def live() -> bool:
            claims = (await cluster.snapshot()).view.claims.values()
            return len(claims) == shards and all(claim.record.state == "live" for claim in claims)

        await until(live, START_TIMEOUT_S)
        yield cluster


async def read_all(urls: list[str], secret: str, per_s: float, seconds: float, taken: dict[str, list[float]]) -> None:
    """Send reads at this rate; `taken` gets the milliseconds of each, by path."""
    headers = {"Authorization": f"Bearer {secret}"}
    async with aiohttp.ClientSession(headers=headers) as http, asyncio.TaskGroup() as tasks:

        async def read(url: str, path: str) -> None:
            began = time.perf_counter()
            async with http.get(f"{url}/api/v1{path}") as response:
                await response.read()
                response.raise_for_status()
            taken[path].append(1000 * (time.perf_counter() - began))

        began = time.monotonic()
        for number, (url, path) in enumerate(zip(itertools.cycle(urls), itertools.cycle(PATHS), strict=False)):
            if time.monotonic() - began >= seconds:
                return
            await asyncio.sleep(max(0.0, began + number / per_s - time.monotonic()))
            tasks.create_task(read(url, path))


async def event_latencies(cluster: DevCluster, seconds: float) -> list[float]:
    """Milliseconds from `emit` to the handler, of events emitted for so long."""
    bots = (await cluster.simulator("stats"))["bots"]
    bot = next(iter(bots))
    sent: dict[int, float] = {}
    found: list[float] = []
    consumer = Consumer(cluster.nats.url, app=APP, group="bench", start="new")

    async def consume() -> None:
        async with consumer:
            async for event in consumer:
                number = event.data.get("timestamp") if event.type == PROBE else None
                if isinstance(number, int) and number in sent:
                    found.append(1000 * (time.perf_counter() - sent.pop(number)))

    consuming = asyncio.create_task(consume())
    try:
        await asyncio.sleep(2.0)
        began = time.monotonic()
        for number in itertools.count():
            if time.monotonic() - began >= seconds:
                break
            sent[number] = time.perf_counter()
            data = {"channel_id": "1", "user_id": "1", "timestamp": number}
            await cluster.simulator("emit", {"bot": bot, "t": PROBE, "d": data, "shard": number % 3})
            await asyncio.sleep(max(0.0, began + (number + 1) / PROBES_PER_S - time.monotonic()))
        await asyncio.sleep(1.0)
    finally:
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)
    return found


def row(name: str, found: list[float]) -> str:
    """A line of a table: median, 99 %, longest, in milliseconds."""
    parts = " | ".join(f"{percentile(found, part):.1f}" for part in (0.5, 0.99, 1.0)) if found else "- | - | -"
    return f"| {name} | {len(found)} | {parts} |"


async def main(shards: int, rate: float, per_s: float, seconds: float) -> int:
    """Print both tables; returns the exit code."""
    async with running(shards, rate) as cluster:
        nodes = (await cluster.snapshot()).view.nodes.values()
        urls = [f"http://{entry.record.address}" for entry in nodes]
        secret = await api_token(cluster)
        quiet = await event_latencies(cluster, seconds)
        taken: dict[str, list[float]] = {path: [] for path in PATHS}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read_all(urls, secret, per_s, seconds + 3.0, taken))
            busy = tasks.create_task(event_latencies(cluster, seconds))
    print(f"3 nodes, {shards} shards, {rate:g} events/s, {per_s:g} requests/s over all nodes for {seconds:g} s\n")
    print("| read | requests | p50 (ms) | p99 (ms) | longest (ms) |\n|---|---|---|---|---|")
    for path, found in taken.items():
        print(row(f"`{path}`", found))
    print(row("all", [one for found in taken.values() for one in found]))
    print("\n| events | probes | p50 (ms) | p99 (ms) | longest (ms) |\n|---|---|---|---|---|")
    print(row("without requests", quiet))
    print(row(f"with {per_s:g} requests/s", busy.result()))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.api", description=__doc__)
    parser.add_argument("--shards", type=int, default=500)
    parser.add_argument("--rate", type=float, default=200.0, help="events a second over all shards")
    parser.add_argument("--requests", type=float, default=200.0, help="requests a second over all nodes")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each part")
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.shards, given.rate, given.requests, given.seconds)))
