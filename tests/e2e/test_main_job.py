"""The main job with real processes: all owed events are consumed once and in order, whatever happens to nodes."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest

from sandwich_coordinator.cli import render
from sandwich_node.dev.checker import DeliveryCheck, Verdict, spare_sessions
from sandwich_node.dev.cluster import DevBot, DevCluster, dev_cluster
from sandwich_node.shards.caching import NOT_ALL_WRITTEN
from sandwich_sdk import Consumer
from verification.cache_check.faults import shards_by_node

pytestmark = pytest.mark.e2e

READY_S = 60.0
AT_ONCE_S = 10.0
"""For what every node follows. Below what would repair it later: a look every 30 s, a listing every 60 s."""
POLL_S = 0.1
POLL_MAX_S = 0.5
OWED_MIN = 200
"""Fewer events of a bot prove little."""
BOTS = (
    DevBot(app="welcomer", token="MTAwMDAwMDAwMDAx.GaaaaX.welcomer", guilds=48, shards=None, recommended=6),
    DevBot(app="music", token="MTAwMDAwMDAwMDAy.GbbbbX.music", guilds=60, shards=2, recommended=1, max_concurrency=2),
)


async def status(cluster: DevCluster) -> dict[str, Any]:
    """The output of `sandwich cluster status --json`."""
    return msgspec.json.decode(msgspec.json.encode(render.to_json(await cluster.snapshot())))  # type: ignore[no-any-return]


async def polling(timeout_s: float) -> AsyncIterator[None]:
    """Yields for `timeout_s`, ever less often: a look at the cluster takes CPU time that the awaited work needs."""
    begin = now = time.monotonic()
    while now - begin < timeout_s:
        yield
        await asyncio.sleep(min(max(POLL_S, (now - begin) / 20), POLL_MAX_S))
        now = time.monotonic()


async def wait_until(
    cluster: DevCluster, what: str, check: Callable[[], Awaitable[Any]], timeout_s: float = READY_S
) -> Any:
    """Poll `check` until it is true. Fails with `what` and the end of the nodes' logs."""
    async for _ in polling(timeout_s):
        found = await check()
        if found:
            return found
    logs = "\n".join(f"{child.name}:\n{child.tail(30)}" for child in cluster.nodes.values())
    pytest.fail(f"not in {timeout_s:.0f} s: {what}\n{logs}")


class Job:
    """A running cluster and its consumer, with helpers for tests."""

    def __init__(self, cluster: DevCluster) -> None:
        self.cluster = cluster
        self.checks = {bot.app: DeliveryCheck() for bot in cluster.bots}

    async def consume(self) -> None:
        async with Consumer(self.cluster.nats.url, apps=list(self.checks), group="e2e", start="all") as consumer:
            async for event in consumer:
                self.checks[event.app].take(event.id)

    async def status(self) -> dict[str, Any]:
        """The output of `sandwich cluster status --json`."""
        return await status(self.cluster)

    async def until(self, what: str, check: Callable[[], Any], timeout_s: float = READY_S) -> Any:
        """See `wait_until`."""
        return await wait_until(self.cluster, what, check, timeout_s)

    async def connected(self) -> bool:
        """Whether all sessions of the simulator are connected, one for each shard."""
        stats = (await self.cluster.simulator("stats"))["bots"].values()
        wanted = {"welcomer": 6, "music": 2}
        return all(bot["connected"] == wanted[bot["name"]] for bot in stats)

    async def owners(self) -> dict[str, int]:
        """Live shards by node, from etcd."""
        return await shards_by_node(self.cluster)

    async def settled(self, nodes: set[str]) -> bool:
        owners = await self.owners()
        return set(owners) == nodes and sum(owners.values()) == 8 and await self.connected()

    async def spent(self) -> tuple[int, int]:
        """The numbers of IDENTIFYs and of violations of Discord's rules so far."""
        bots = (await self.cluster.simulator("stats"))["bots"].values()
        return sum(bot["identifies"] for bot in bots), sum(sum(bot["violations"].values()) for bot in bots)

    async def spent_on_events(self) -> tuple[int, int]:
        """As `spent`, where an owner ended without a word: without the sessions that fill the cache again.

        Such a session is begun beside the shard's own, once for each time that the last owner's cache was behind.
        """
        identifies, violations = await self.spent()
        ledger: Any = await self.cluster.simulator("ledger?kind=identify")
        rows = ledger["records"] if isinstance(ledger, dict) else ledger
        spare = spare_sessions(rows, {name for check in self.checks.values() for name in check.sessions})
        logs = "".join(node.log.read_text(errors="replace") for node in self.cluster.nodes.values())
        assert len(spare) <= logs.count(NOT_ALL_WRITTEN), "a session beside another one that nothing asked for"
        return identifies - len(spare), violations

    async def verdicts(self, ends: Mapping[str, int] | None = None) -> dict[str, Verdict]:
        """Let there be traffic, stop it, wait until all owed events have had time to arrive, and compare.

        `ends`: the last sequence that a lost session owed, by its hash.
        """
        ends = ends or {}

        async def owed(app: str) -> dict[str, list[int]]:
            found = await self.cluster.owed(app, self.checks[app].sessions.keys() | ends.keys())
            most = {session: ends.get(session, seqs[-1]) for session, seqs in found.items() if seqs}
            return {session: [seq for seq in seqs if seq <= most[session]] for session, seqs in found.items()}

        async def busy() -> bool:
            return all([sum(map(len, (await owed(app)).values())) > OWED_MIN for app in self.checks])

        await self.until("every bot has had events", busy)
        await self.cluster.simulator("pause_traffic", {})
        end = time.monotonic() + READY_S
        while True:
            found = {app: check.verdict(await owed(app)) for app, check in self.checks.items()}
            if all(verdict.clean for verdict in found.values()) or time.monotonic() > end:
                return found
            await asyncio.sleep(0.3)

    async def node_status(self, node: str) -> dict[str, Any]:
        """A node's status, from the address that it registered."""
        address = (await self.cluster.snapshot()).view.nodes[node].record.address
        async with aiohttp.ClientSession() as http, http.get(f"http://{address}/status") as response:
            return await response.json()  # type: ignore[no-any-return]


@asynccontextmanager
async def job(nodes: int) -> AsyncIterator[Job]:
    async with dev_cluster(BOTS, nodes=nodes, rate=300) as cluster:
        running = Job(cluster)
        consuming = asyncio.create_task(running.consume())
        try:
            yield running
        finally:
            consuming.cancel()
            await asyncio.gather(consuming, return_exceptions=True)


def assert_clean(verdicts: dict[str, Verdict]) -> None:
    assert set(verdicts) == {"welcomer", "music"}
    for app, verdict in verdicts.items():
        assert verdict.clean, f"{app}: {verdict}"
        assert verdict.owed > OWED_MIN


async def test_nothing_is_lost_or_doubled_while_workers_die_and_nodes_join_and_leave() -> None:
    async with job(nodes=3) as running:
        await running.until("all shards live on three nodes", lambda: running.settled({"a", "b", "c"}))
        started = await running.spent()
        assert started == (8, 0), "one IDENTIFY a shard, and no rule of Discord violated"

        worker = (await running.node_status("a"))["workers"][0]["pid"]
        os.kill(worker, signal.SIGKILL)

        async def restarted() -> bool:
            workers = (await running.node_status("a"))["workers"]
            return workers[0]["pid"] not in (0, worker) and await running.settled({"a", "b", "c"})

        await running.until("the killed worker's shards back", restarted)

        await running.cluster.nodes["b"].stop(30)
        assert running.cluster.nodes["b"].process.returncode == 0
        await running.until("the stopped node's shards on the others", lambda: running.settled({"a", "c"}))

        await running.cluster.start_node("d")
        await running.until("the new node has its share", lambda: running.settled({"a", "c", "d"}))

        running.cluster.nodes["c"].signal(signal.SIGKILL)
        await running.until("the dead node's shards on the others", lambda: running.settled({"a", "d"}))

        assert_clean(await running.verdicts())
        assert await running.spent_on_events() == started, "every shard came back by RESUME"


async def test_stopped_and_restarted_nodes_resume_all_sessions() -> None:
    async with job(nodes=2) as running:
        await running.until("all shards live", lambda: running.settled({"a", "b"}))
        started = await running.spent()
        await running.cluster.stop_nodes()
        await asyncio.gather(running.cluster.start_node("a"), running.cluster.start_node("b"))
        await running.until("all shards live again", lambda: running.settled({"a", "b"}))
        assert_clean(await running.verdicts())
        assert await running.spent() == started
