"""Faults with real processes: frozen nodes, servers that die, faults of Discord. Delivery stays exact.

The verdict is always the same: every event that the simulator owed was consumed once and in order, and a shard
identified again only if Discord ended its session; then a gap names what may be missing.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import nats
import pytest
from nats.aio.msg import Msg

from sandwich_node.dev.checker import Verdict
from sandwich_node.dev.cluster import dev_cluster
from sandwich_node.dev.freezing import frozen
from sandwich_sdk import Consumer, Gap
from sandwich_sdk.wire.status import Failover, ShardChanged, StatusMessage, decode_status
from tests.e2e.test_main_job import BOTS, Job, assert_clean

pytestmark = pytest.mark.e2e

SHARDS = 8
LEASE_S = 5.0
RSS_BYTES_MAX = 300 * 1024 * 1024


class FaultJob(Job):
    """A running cluster whose consumer also records gaps."""

    gaps: list[Gap]

    async def consume(self) -> None:
        self.gaps = []
        async with Consumer(self.cluster.nats.url, apps=list(self.checks), group="e2e", start="all") as consumer:

            @consumer.on_gap
            async def keep(gap: Gap) -> None:
                self.gaps.append(gap)

            async for event in consumer:
                self.checks[event.app].take(event.id)

    def consumed(self) -> int:
        """The number of events so far, of all applications."""
        return sum(check.events for check in self.checks.values())

    async def all_receiving(self) -> bool:
        """Whether at least one event of each application was consumed."""
        return all(check.events for check in self.checks.values())

    async def flowing(self) -> bool:
        """Whether events arrive now: the number still grows."""
        before = self.consumed()
        await asyncio.sleep(0.5)
        return self.consumed() > before + 20

    async def ledger(self, kind: str) -> list[Any]:
        """The simulator's ledger records of `kind`."""
        found: Any = await self.cluster.simulator(f"ledger?kind={kind}")
        return list(found["records"] if isinstance(found, dict) else found)

    async def resumes(self) -> int:
        """The number of RESUMEs so far."""
        return len(await self.ledger("resume"))

    async def fault(self, kind: str, **fields: Any) -> None:
        await self.cluster.simulator("faults", {"kind": kind, **fields})

    async def pids(self, node: str) -> tuple[int, list[int]]:
        """Process ids of a node's agent and its workers."""
        workers = [worker["pid"] for worker in (await self.node_status(node))["workers"]]
        return self.cluster.nodes[node].process.pid, workers

    async def counts(self, node: str, metric: str) -> bool:
        """Whether the node's metrics contain this name; workers report every second."""
        (address,) = [row["address"] for row in (await self.status())["nodes"] if row["node"] == node]
        async with aiohttp.ClientSession() as http, http.get(f"http://{address}/metrics") as response:
            return metric in await response.text()

    async def claims(self) -> dict[tuple[str, int, int], str]:
        """The owner of each shard, from etcd."""
        claims = (await self.cluster.snapshot()).view.claims
        return {(key.app, key.group, key.shard): claim.record.node for key, claim in claims.items()}

    async def verdicts_up_to_gaps(self) -> dict[str, Verdict]:
        """The verdicts, without events that a lost session owed after its gap's sequence."""
        return await self.verdicts({gap.session: gap.last_seq for gap in self.gaps})


@asynccontextmanager
async def fault_job(names: set[str]) -> AsyncIterator[FaultJob]:
    """A cluster of nodes `names` (a, b, ...): all shards live with one IDENTIFY each, and a running consumer.

    The consumer starts before the streams exist and retries with growing waits, so that shards may be live for a while
    before it receives their events.
    """
    async with dev_cluster(BOTS, nodes=len(names), rate=300) as cluster:
        running = FaultJob(cluster)
        consuming = asyncio.create_task(running.consume())
        try:
            await running.until("all shards live", lambda: running.settled(names))
            assert await running.spent() == (SHARDS, 0), await running.ledger("identify")
            await running.until("events of each application arrive", running.all_receiving)
            yield running
        finally:
            consuming.cancel()
            await asyncio.gather(consuming, return_exceptions=True)


@asynccontextmanager
async def status_events(running: FaultJob) -> AsyncIterator[list[StatusMessage]]:
    """The messages on the status subjects from now on, read as any consumer would."""
    received: list[StatusMessage] = []

    async def take(message: Msg) -> None:
        received.append(decode_status(message.data))

    client = await nats.connect(running.cluster.nats.url)
    try:
        await client.subscribe("sandwich.*.status", cb=take)
        await client.flush()
        yield received
    finally:
        await client.close()


def ended(pid: int) -> bool:
    """Whether the process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_a_node_frozen_past_its_lease_releases_shards_that_others_took_and_joins_again() -> None:
    async with fault_job({"a", "b", "c"}) as running:
        agent, workers = await running.pids("a")
        async with frozen([agent, *workers]):
            await running.until("the frozen node's shards on the others", lambda: running.settled({"b", "c"}))
        await running.until("the node has its share again", lambda: running.settled({"a", "b", "c"}))
        await running.until("what was refused is counted", lambda: running.counts("a", "sandwich_fenced_total{"))
        assert await running.pids("a") == (agent, workers), "neither the agent nor its workers had to start again"
        assert_clean(await running.verdicts())
        assert await running.spent_on_events() == (SHARDS, 0)
        assert running.gaps == []


async def test_a_worker_frozen_for_a_moment_continues() -> None:
    async with fault_job({"a", "b"}) as running:
        _, workers = await running.pids("a")
        async with frozen(workers):
            await asyncio.sleep(3.0)
        await running.until("all shards live", lambda: running.settled({"a", "b"}))
        assert (await running.pids("a"))[1] == workers
        assert_clean(await running.verdicts())
        assert await running.spent() == (SHARDS, 0)


async def test_a_worker_that_hangs_is_killed_and_failovers_are_announced() -> None:
    async with fault_job({"a", "b"}) as running, status_events(running) as received:
        # Slow enough for Discord's replay buffer of bots this small.
        await running.cluster.simulator("traffic", {"rate": 100})
        _, (worker,) = await running.pids("a")
        mine = {key[::2] for key, node in (await running.claims()).items() if node == "a"}
        async with frozen([worker]):

            async def killed() -> bool:
                return ended(worker)

            await running.until("the hung worker is killed", killed)

        async def back() -> set[tuple[str, int]]:
            seen = {(one.app, one.shard) for one in received if isinstance(one, Failover)}
            return mine if seen >= mine else set()

        await running.until("a failover message for each of its shards", back)
        assert {(one.cause, one.how) for one in received if isinstance(one, Failover)} == {("worker died", "resumed")}
        assert {one.state for one in received if isinstance(one, ShardChanged)} >= {"connecting", "resuming", "live"}
        await running.until("all shards live", lambda: running.settled({"a", "b"}))

        async def died() -> list[dict[str, Any]]:
            rows = [row for row in (await running.status())["failovers"] if row["cause"] == "worker died"]
            return rows if sum(row["count"] for row in rows) >= len(mine) else []

        rows = await running.until("each failover is counted", died)
        assert sum(row["count"] for row in rows) == sum(row["resumed"] for row in rows) == len(mine)

        async def healthy() -> str:
            code, text = await running.cluster.run_cli("cluster", "status")
            return "" if code else text

        assert "worker died, on a" in await running.until("nothing is wrong any more", healthy)
        assert_clean(await running.verdicts())
        assert await running.spent_on_events() == (SHARDS, 0)


async def test_no_shard_moves_or_stops_while_etcd_is_dead() -> None:
    async with fault_job({"a", "b", "c"}) as running:
        claims, resumes = await running.claims(), await running.resumes()
        await running.cluster.etcd.kill()
        end = time.monotonic() + 2 * LEASE_S
        while time.monotonic() < end:
            await running.until("events arrive while etcd is dead", running.flowing, LEASE_S)
            assert await running.connected()
        await running.cluster.etcd.start()
        await running.until("all shards live", lambda: running.settled({"a", "b", "c"}))
        end = time.monotonic() + 1.5 * LEASE_S
        while time.monotonic() < end:
            await running.until("events arrive after etcd is back", running.flowing, LEASE_S)
        assert await running.claims() == claims
        assert await running.resumes() == resumes
        running.cluster.nodes["a"].signal(signal.SIGKILL)
        await running.until("etcd's outage did not stop failover", lambda: running.settled({"b", "c"}))
        assert_clean(await running.verdicts())
        assert await running.spent_on_events() == (SHARDS, 0)


async def test_a_dead_nats_server_costs_only_time() -> None:
    async with fault_job({"a", "b"}) as running:
        await running.cluster.simulator("traffic", {"rate": 500})
        await running.until("events arrive", running.flowing)
        await running.cluster.nats.kill()
        await asyncio.sleep(5.0)
        for node in ("a", "b"):
            for worker in (await running.node_status(node))["workers"]:
                assert 0 < worker["rss_bytes"] < RSS_BYTES_MAX
        await running.cluster.nats.start()
        await running.until("events arrive again", running.flowing)
        await running.until("all shards live", lambda: running.settled({"a", "b"}))
        assert_clean(await running.verdicts())
        assert await running.spent() == (SHARDS, 0)
        assert running.gaps == []


async def test_resumable_sessions_are_resumed_and_forgotten_ones_are_named_by_a_gap() -> None:
    async with fault_job({"a", "b"}) as running:
        for kind, fields in (
            ("drop", {}),
            ("op7", {}),
            ("op9", {"resumable": True}),
            ("close", {"code": 4000}),
            ("close", {"code": 4008}),
        ):
            wanted = await running.resumes() + SHARDS
            await running.fault(kind, shards="all", **fields)

            async def resumed(wanted: int = wanted) -> bool:
                return await running.resumes() >= wanted and await running.connected()

            await running.until(f"every shard resumed after {kind} {fields}", resumed)
            assert await running.spent() == (SHARDS, 0), f"no IDENTIFY after {kind} {fields}"
        assert running.gaps == []

        for number, faults in enumerate(((("op9", {"resumable": False}),), (("invalidate_session", {}), ("drop", {})))):
            for kind, fields in faults:
                await running.fault(kind, bot="welcomer", shards=[number], **fields)

            async def identified(number: int = number) -> bool:
                return len(running.gaps) == number + 1 and (await running.spent())[0] == SHARDS + number + 1

            await running.until(f"one more IDENTIFY and a gap after {faults}", identified)
            gap = running.gaps[-1]
            assert (gap.app, gap.shard) == ("welcomer", number)
            assert gap.last_seq == running.checks["welcomer"].sessions[gap.session].last_seq > 0
            await running.until("all shards live", lambda: running.settled({"a", "b"}))
        assert_clean(await running.verdicts_up_to_gaps())
        assert await running.spent() == (SHARDS + 2, 0)


async def test_the_workers_of_a_dead_leader_agent_end_by_themselves() -> None:
    async with fault_job({"a", "b", "c"}) as running:
        leaders = [name for name in running.cluster.nodes if (await running.node_status(name))["leader"]]
        assert len(leaders) == 1
        _, workers = await running.pids(leaders[0])
        running.cluster.nodes[leaders[0]].signal(signal.SIGKILL)

        async def gone() -> bool:
            return all(ended(pid) for pid in workers)

        await running.until("the workers of the dead agent have ended", gone)
        assert "its lease is released" in running.cluster.nodes[leaders[0]].log.read_text()
        rest = {"a", "b", "c"} - set(leaders)
        await running.until("the dead leader's shards on the others", lambda: running.settled(rest))

        async def counted() -> list[int]:
            return [row["identified"] for row in (await running.status())["failovers"] if row["cause"] == "node gone"]

        assert set(await running.until("the failover is counted", counted)) == {0}
        assert_clean(await running.verdicts())
        assert await running.spent() == (SHARDS, 0)
