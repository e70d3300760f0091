"""Hundreds of live sessions on this machine: what an idle shard costs, and how long a scale to them takes.

Three nodes, the simulated Discord, little traffic. The memory of the nodes' processes is compared before and after
the scale, and their CPU is counted while nothing but heartbeats and the little traffic happens (proc(5)).
"""

import argparse
import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sandwich_coordinator.operations.progress import ignore
from sandwich_coordinator.operations.scaling import await_scale, plan_scale, store_request
from sandwich_coordinator.operations.waiting import read_view
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.keys import Keys
from sandwich_node.dev.cluster import DevBot, DevCluster, dev_cluster

APP = "idle"
NODES = 3
START_MAX_S = 120.0
SCALE_MAX_S = 1200.0
SETTLE_S = 10.0
TICK_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveResult:
    """What was measured. `scale_s` of these at least `legal_s` by Discord's rules; `violations` of them."""

    shards: int
    scale_s: float
    legal_s: float
    bytes_a_shard: float
    cpu_percent_a_shard: float
    idle_s: float
    reconnects: int
    violations: int


@dataclass(frozen=True, slots=True)
class _Usage:
    rss_bytes: int
    cpu_s: float


async def measure(shards: int, *, rate: float, idle_s: float, say: Callable[[str], None]) -> LiveResult:
    """Scale a bot from one shard a node to `shards`, then watch it. Raises EmbeddedServerError, OperationError."""
    concurrency = max(1, shards // 10)
    bot = DevBot(
        app=APP,
        token="MTAwMDAwMDAwMDAx.GaaaaX.welcomer",
        guilds=shards,
        members=2,
        shards=NODES,
        recommended=NODES,
        max_concurrency=concurrency,
        settings={"cache": {"enabled": False}},
        world={"session_limit": 100_000},
    )
    policy = Policy()
    async with dev_cluster((bot,), nodes=NODES, rate=rate, seed=1) as cluster:
        store, keys = EtcdStore([server.url for server in cluster.etcds]), Keys()
        try:
            await _live(store, keys, NODES, START_MAX_S)
            await asyncio.sleep(SETTLE_S)
            before = _usage(cluster)
            began = time.monotonic()
            request = await plan_scale(store, keys, APP, shards, None, policy=policy)
            await store_request(store, request)
            await await_scale(store, keys, APP, policy=policy, timeout_s=SCALE_MAX_S, report=ignore)
            scale_s = time.monotonic() - began
            say(f"{shards} shards are live after {scale_s:.1f} s")
            await asyncio.sleep(SETTLE_S)
            idle_from = time.monotonic()
            connects = await _connects(cluster)
            first = _usage(cluster)
            await asyncio.sleep(idle_s)
            last = _usage(cluster)
            seconds = time.monotonic() - idle_from
            bots = (await cluster.simulator("stats"))["bots"].values()
            return LiveResult(
                shards=shards,
                scale_s=scale_s,
                legal_s=-(-shards // concurrency) * 5.0,
                bytes_a_shard=(last.rss_bytes - before.rss_bytes) / (shards - NODES),
                cpu_percent_a_shard=(last.cpu_s - first.cpu_s) / seconds / shards * 100,
                idle_s=seconds,
                reconnects=await _connects(cluster) - connects,
                violations=sum(sum(one["violations"].values()) for one in bots),
            )
        finally:
            await store.close()


async def _live(store: EtcdStore, keys: Keys, shards: int, timeout_s: float) -> None:
    async with asyncio.timeout(timeout_s):
        while True:
            view = await read_view(store, keys)
            if sum(claim.record.state == "live" for claim in view.claims.values()) == shards:
                return
            await asyncio.sleep(0.5)


async def _connects(cluster: DevCluster) -> int:
    """How many sessions clients began or resumed until now."""
    bots = (await cluster.simulator("stats"))["bots"].values()
    return sum(bot["identifies"] + bot["resumes_ok"] for bot in bots)


def _usage(cluster: DevCluster) -> _Usage:
    """Of the nodes' agents and workers, spare ones included."""
    pids = [node.process.pid for node in cluster.nodes.values()]
    pids += [child for pid in pids for child in _children(pid)]
    rss, cpu = 0, 0.0
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        cpu += (int(stat[11]) + int(stat[12])) / TICK_S
        rss += int(stat[21]) * PAGE_BYTES
    return _Usage(rss, cpu)


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def live_lines(result: LiveResult) -> list[str]:
    """The result as text."""
    return [
        f"{result.shards} live shards on {NODES} nodes: scaled in {result.scale_s:.1f} s (Discord's least: "
        f"{result.legal_s:.0f} s and one start before)",
        f"an idle shard: {result.bytes_a_shard / 1024:.0f} KiB, {result.cpu_percent_a_shard:.4f} % of a core "
        f"over {result.idle_s:.0f} s",
        f"reconnects meanwhile: {result.reconnects}; violations of Discord's rules: {result.violations}",
    ]


def main() -> int:
    """Exit code 0: no session was lost and no rule violated."""
    parser = argparse.ArgumentParser(prog="python -m verification.scale.live", description=__doc__)
    parser.add_argument("--shards", type=int, default=500, help="sessions (default 500)")
    parser.add_argument("--rate", type=float, default=20.0, help="events a second over all (default 20)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to watch them (default 60)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    result = asyncio.run(measure(options.shards, rate=options.rate, idle_s=options.seconds, say=print))
    print("\n".join(live_lines(result)))
    return 1 if result.reconnects or result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
