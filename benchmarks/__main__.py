"""`make bench`: steady traffic, bursts, latency, memory, idle shards and first starts, as tables of markdown.

    make bench ARGS="--parts steady bursts --seconds 20"

Steady traffic, bursts and memory are compared with other libraries on the same simulator.
Compare the ratios of one run: machines are shared and noisy, so absolute figures are not comparable.
"""

import argparse
import asyncio
import logging
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import aiohttp
import msgspec

from benchmarks import idle, start, steady
from benchmarks.nodes import all_live, node_pids, node_status, until_spares
from benchmarks.peers import PEERS
from benchmarks.processes import Client, ClientFailed, client, not_run, rss_mib, token, until, until_quiet
from sandwich_node.dev.cluster import DevBot, DevCluster, dev_cluster
from sandwich_sdk import Consumer
from sandwich_sdk.wire.frame import session_hash

SHARDS = 2
LATENCY_RATE = 2000
FLEET = 18
FLEET_GUILDS = 50
IDLE_S = 60.0
STARTS = ["160/16/3", "800/16/1"]
"""800 shards on one node: their heartbeats must not be late meanwhile."""
START_GUILDS = 4


# --- cost of an event -------------------------------------------------------------------------------------------


async def burst_cost(cluster: DevCluster, bot: str, pid: int, events: int) -> tuple[float, int]:
    """The process's CPU seconds for one burst, and the number of events."""
    before = await until_quiet(pid)
    sent = await cluster.simulator("burst", {"bot": bot, "events": events // SHARDS, "shards": "all"})
    return await until_quiet(pid) - before, int(sent["count"])


async def client_cost(cluster: DevCluster, library: str, one: Client, events: int) -> float:
    """µs of CPU per event of one burst. Raises ClientFailed."""
    async with one.must_run():
        handled = one.messages
        spent, sent = await burst_cost(cluster, library, one.pid, events)
        await asyncio.sleep(0.6)
    share = (one.messages - handled) / sent
    if share <= 0.2:
        raise ClientFailed(f"handled only {share:.0%} of the burst as messages")
    return spent / sent * 1e6


async def measure_cost(rounds: int, events: int) -> dict[str, list[float] | ClientFailed]:
    """µs of CPU per event, one figure a round: Sandwich's worker, discord.py and hikari in turn."""
    bot = DevBot(
        app="sandwich",
        token=token(1),
        guilds=40,
        shards=SHARDS,
        recommended=SHARDS,
        max_concurrency=SHARDS,
        world={"mix": steady.DEFAULT_MIX},
    )
    ours: list[float] = []
    costs: dict[str, list[float] | ClientFailed] = {"sandwich": ours, "discord.py": [], "hikari": []}
    async with dev_cluster((bot,), nodes=1, rate=0) as cluster, AsyncExitStack() as stack:
        await until(lambda: all_live(cluster, SHARDS))
        clients: dict[str, Client] = {}
        for number, library in enumerate(("discord.py", "hikari"), start=2):
            body = {"token": token(number), "name": library, "guilds": 40}
            body |= {"recommended_shards": SHARDS, "max_concurrency": SHARDS, "mix": steady.DEFAULT_MIX}
            await cluster.simulator("bots", body)
            api_url = f"{cluster.simulator_url}/api/v10"
            try:
                clients[library] = await stack.enter_async_context(client(library, api_url, token(number)))
            except ClientFailed as failed:
                costs[library] = failed
        worker = (await node_status(cluster))["workers"][0]["pid"]
        for _ in range(rounds):
            spent, sent = await burst_cost(cluster, "sandwich", worker, events)
            ours.append(spent / sent * 1e6)
            for library, values in costs.items():
                if library in clients and isinstance(values, list):
                    try:
                        values.append(await client_cost(cluster, library, clients[library], events))
                    except ClientFailed as failed:
                        costs[library] = failed
        await check_published(cluster, "sandwich")
    return costs


async def check_published(cluster: DevCluster, app: str) -> None:
    """Wait until all owed events are in the stream: a figure for dropped events would be meaningless."""
    owed = sum(len(sequences) for sequences in (await cluster.owed(app, ())).values())

    async def stored() -> bool:
        return bool((await node_status(cluster))["apps"][app]["published_total"] >= owed)

    await until(stored, 20)


# --- latency ----------------------------------------------------------------------------------------------------


async def measure_latency(seconds: float) -> list[float]:
    """Milliseconds from the simulator's dispatch to the SDK consumer's handler."""
    bot = DevBot(
        app="sandwich",
        token=token(1),
        guilds=40,
        shards=4,
        recommended=4,
        max_concurrency=4,
        world={"mix": steady.DEFAULT_MIX},
    )
    received: dict[tuple[str, int], int] = {}

    async def consume(cluster: DevCluster) -> None:
        async with Consumer(cluster.nats.url, app="sandwich", group="bench", start="all") as consumer:
            async for event in consumer:
                session, _, seq = event.id.partition(":")
                received[session, int(seq)] = time.time_ns()

    async with dev_cluster((bot,), nodes=1, rate=0) as cluster:
        await until(lambda: all_live(cluster, 4))
        consuming = asyncio.create_task(consume(cluster))
        await asyncio.sleep(6)
        await cluster.simulator("traffic", {"rate": LATENCY_RATE})
        await asyncio.sleep(2)
        start = time.time_ns()
        await asyncio.sleep(seconds)
        end = time.time_ns()
        await asyncio.sleep(1)
        await cluster.simulator("pause_traffic", {})
        consuming.cancel()
        found = []
        url = f"{cluster.simulator_url}/_sim/journal"
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            async for line in response.content:
                entry = msgspec.json.decode(line)
                if start <= entry["ns"] <= end:
                    arrived = received[session_hash(entry["session"]), entry["seq"]]
                    found.append((arrived - entry["ns"]) / 1e6)
        return found


# --- memory -----------------------------------------------------------------------------------------------------


async def measure_memory() -> tuple[float, float | ClientFailed]:
    """MiB of one node with 18 bots, and of 18 discord.py processes with the same bots."""
    bots = tuple(
        DevBot(app=f"bot{number}", token=token(number), guilds=FLEET_GUILDS, shards=1, recommended=1)
        for number in range(1, FLEET + 1)
    )
    async with dev_cluster(bots, nodes=1, rate=200) as cluster:
        await until(lambda: all_live(cluster, FLEET))
        await until_spares(cluster)
        await asyncio.sleep(5)
        ours = sum(map(rss_mib, node_pids(cluster)))
        await cluster.stop_nodes()
        try:
            return ours, await fleet_memory(cluster, bots)
        except ClientFailed as failed:
            return ours, failed


async def fleet_memory(cluster: DevCluster, bots: Sequence[DevBot]) -> float:
    """MiB of a discord.py process for each bot. Raises ClientFailed."""
    async with AsyncExitStack() as stack:
        pids = []
        for bot in bots:
            api_url = f"{cluster.simulator_url}/api/v10"
            one = await stack.enter_async_context(client("discord.py", api_url, bot.token))
            await stack.enter_async_context(one.must_run())
            pids.append(one.pid)
        await asyncio.sleep(5)
        return sum(map(rss_mib, pids))


# --- the table --------------------------------------------------------------------------------------------------


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


async def print_steady(options: argparse.Namespace) -> None:
    """An ordinary day."""
    loads = [steady.Load.parse(text) for text in options.load]
    print(f"CPU in % of one core over {options.seconds:.0f} s, events of the mix `{steady.DEFAULT_MIX}`:\n")
    await steady.table(loads, [False, True], options.peers, options.seconds)


async def print_bursts(options: argparse.Namespace) -> None:
    """CPU of an event."""
    costs = await measure_cost(options.rounds, options.events)
    head = f"CPU µs an event, {options.rounds} bursts of {options.events}"
    print(f"| {head} | median (min to max) | events/s a core | times Sandwich |")
    print("|---|---|---|---|")
    ours = 0.0
    for name, values in costs.items():
        if isinstance(values, ClientFailed):
            print(f"| {name} | {not_run(values)} | | |")
            continue
        middle = statistics.median(values)
        ours = ours or middle
        print(f"| {name} | {spread(values)} | {1e6 / middle:,.0f} | {middle / ours:.1f} |")


async def print_latency(options: argparse.Namespace) -> None:
    """From the simulator to a consumer."""
    latencies = sorted(await measure_latency(options.seconds))
    p50, p99 = latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)]
    print(f"{len(latencies)} events at {LATENCY_RATE}/s, simulator to SDK consumer: p50 {p50:.1f} ms, p99 {p99:.1f} ms")


async def print_memory(options: argparse.Namespace) -> None:
    """Of many small bots."""
    node, fleet = await measure_memory()
    print(f"{FLEET} bots of {FLEET_GUILDS} guilds: one node {node:.0f} MiB,", end=" ")
    if isinstance(fleet, ClientFailed):
        print(f"{FLEET} discord.py processes {not_run(fleet)}")
    else:
        print(f"{FLEET} discord.py processes {fleet:.0f} MiB: {node / fleet:.2f} of it")


async def print_idle(options: argparse.Namespace) -> None:
    """Shards without events."""
    await idle.table(idle.DEFAULT, IDLE_S)


async def print_start(options: argparse.Namespace) -> None:
    """First starts of real processes."""
    await start.main([start.Wanted.parse(text) for text in STARTS], START_GUILDS, on_virtual_time=False)


PARTS = {
    "steady": ("Steady traffic", print_steady),
    "bursts": ("Bursts", print_bursts),
    "latency": ("Latency", print_latency),
    "memory": ("Memory", print_memory),
    "idle": ("Idle shards", print_idle),
    "start": ("A first start", print_start),
}


def machine() -> str:
    """What the figures were taken on, and its load now."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    python = ".".join(map(str, sys.version_info[:3]))
    return f"{time.strftime('%d %B %Y %H:%M', time.gmtime())} UTC, {os.cpu_count()} cores, Python {python}, load {load}"


async def main(options: argparse.Namespace) -> None:
    """Print the chosen parts."""
    for name in options.parts:
        title, run = PARTS[name]
        print(f"\n## {title}\n\n{machine()}.\n", flush=True)
        await run(options)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--parts", choices=list(PARTS), nargs="+", default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=40_000, help="events a burst")
    parser.add_argument("--load", nargs="+", default=steady.DEFAULT, help="steady traffic: SHARDS/RATE")
    parser.add_argument("--peers", choices=list(PEERS), nargs="*", default=steady.DEFAULT_PEERS)
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="length of the measurements of steady traffic and of latency"
    )
    logging.disable(logging.CRITICAL)
    asyncio.run(main(parser.parse_args()))
