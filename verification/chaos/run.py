"""One run: a whole cluster under load, one fault after another, and the final comparison."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from sandwich_coordinator.addresses import http_url
from sandwich_coordinator.store.base import StoreError
from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.view import ClusterView
from sandwich_node.dev.checker import DeliveryCheck, spare_sessions
from sandwich_node.dev.cluster import DevBot, DevCluster, dev_cluster
from sandwich_node.dev.freezing import frozen
from sandwich_sdk import Consumer, Event, Gap
from verification.chaos import measure
from verification.chaos.measure import Shard
from verification.chaos.plan import Fault, faults
from verification.chaos.proxy import Link
from verification.chaos.report import Result

NODES = ("a", "b", "c")
BOTS = (
    DevBot(app="welcomer", token="MTAwMDAwMDAwMDAx.GaaaaX.welcomer", guilds=480, shards=None, recommended=6),
    DevBot(app="music", token="MTAwMDAwMDAwMDAy.GbbbbX.music", guilds=480, shards=6, recommended=1, max_concurrency=6),
)
SHARDS = 12
RECOVERY_MAX_S = 60.0
START_MAX_S = 90.0
READ_IDLE_S = 20.0
WORKERS_IN_GROUP = 2

Say = Callable[[str], None]


class Run:
    """The running cluster and what is recorded of it."""

    def __init__(self, cluster: DevCluster, links: dict[str, list[Link]], result: Result, say: Say) -> None:
        self.cluster = cluster
        self.result = result
        self.say = say
        self.group = {bot.app: DeliveryCheck() for bot in cluster.bots}
        self._links = links
        self._store = EtcdStore([server.url for server in cluster.etcds])
        self._keys = Keys()
        self._bots: dict[str, str] = {}

    # --- state --------------------------------------------------------------------------------------------------

    async def view(self) -> ClusterView | None:
        """The cluster's current view from etcd; None while etcd does not answer."""
        try:
            listing = await self._store.list(self._keys.prefix)
        except StoreError:
            return None
        return ClusterView.from_items(self._keys, {item.key: item for item in listing.items}, listing.revision)

    async def ledger(self, since_ns: int = 0) -> list[dict[str, Any]]:
        """The simulator's ledger since `since_ns`."""
        found = await self.cluster.simulator("ledger")
        records = found["records"] if isinstance(found, dict) else found
        return [record for record in records if record["ns"] >= since_ns]

    async def shards_of(self, nodes: Iterable[str]) -> set[Shard]:
        """The shards that these nodes hold claims of."""
        view = await self.view()
        assert view is not None, "called only while etcd answers"
        names = set(nodes)
        return {
            (self._bots[key.app], key.shard)
            for key, claim in view.claims.items()
            if claim.record.node in names and key.app in self._bots
        }

    async def settled(self) -> bool:
        """Whether all shards are live and connected, and all nodes registered (they need not have shards)."""
        stats = (await self.cluster.simulator("stats"))["bots"]
        self._bots = {bot["name"]: bot_id for bot_id, bot in stats.items()}
        if sum(bot["connected"] for bot in stats.values()) != SHARDS:
            return False
        view = await self.view()
        if view is None:
            return False
        live = [claim.record.node for claim in view.claims.values() if claim.record.state == "live"]
        return len(live) == SHARDS and set(view.nodes) == set(NODES)

    async def until_settled(self, what: str, timeout_s: float = RECOVERY_MAX_S) -> bool:
        """Wait for `settled`; False, recorded as a failure, when it takes too long."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            with contextlib.suppress(aiohttp.ClientError):
                if await self.settled():
                    return True
            await asyncio.sleep(0.2)
        view = await self.view()
        states = sorted((*key, c.record.node, c.record.state) for key, c in view.claims.items()) if view else "no etcd"
        self.result.unrecovered.append(f"not settled {timeout_s:g} s after: {what}; claims: {states}")
        return False

    async def workers(self, node: str) -> list[int]:
        """Process ids of a node's workers."""
        view = await self.view()
        entry = view.nodes.get(node) if view else None
        if entry is None:
            return []
        url = f"{http_url(entry.record.address)}/status"
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            status = await response.json()
        return [worker["pid"] for worker in status["workers"] if worker["pid"]]

    def agent(self, node: str) -> int:
        """Process id of a node's agent."""
        return self.cluster.nodes[node].process.pid

    def note_memory(self) -> None:
        """Record the agents' current memory."""
        for node in NODES:
            with contextlib.suppress(OSError, ValueError, IndexError):
                pages = int(Path(f"/proc/{self.agent(node)}/statm").read_text().split()[1])
                self.result.agent_rss.setdefault(node, []).append(pages * os.sysconf("SC_PAGE_SIZE"))

    # --- faults -------------------------------------------------------------------------------------------------

    async def start_node(self, node: str) -> None:
        """Start a node that reaches etcd through links that can be cut."""
        etcd = ",".join(f"http://127.0.0.1:{link.port}" for link in self._links[node])
        await self.cluster.start_node(node, etcd=etcd)

    async def inject(self, fault: Fault) -> None:
        """Inject a fault, wait for recovery, record how long it took."""
        kind = fault.kind
        began_ns = time.time_ns()
        affected = await self._break(fault)
        if kind.measure in ("death", "machine"):
            await self._until_back(affected, began_ns)
        if not await self.until_settled(kind.name):
            return
        records = await self.ledger(began_ns)
        if kind.measure in ("death", "machine"):
            times = measure.after_death(records, affected, began_ns)
            self.result.recoveries.setdefault(kind.measure, []).extend(s for s in times.values() if s is not None)
        elif kind.measure == "move":
            self.result.recoveries.setdefault("move", []).extend(measure.silences(records, began_ns))

    async def _break(self, fault: Fault) -> set[Shard]:
        """Returns the affected shards. When it returns, servers and nodes that it stopped run again."""
        one, other = fault.nodes[:2]
        match fault.kind.name:
            case "worker killed":
                return await self._kill_workers([one])
            case "two workers killed":
                return await self._kill_workers([one, other])
            case "agent killed":
                return await self._kill_agent(one, [])
            case "leader's agent killed":
                view = await self.view()
                leader = view.leader.record.node if view and view.leader else one
                return await self._kill_agent(leader, [])
            case "node killed":
                return await self._kill_agent(one, await self.workers(one))
            case "node frozen 8 s":
                return await self._freeze([one], 8.0, agents=True)
            case "worker frozen 3 s":
                return await self._freeze([one], 3.0, agents=False)
            case "node stopped and started":
                await self.cluster.nodes[one].stop(40.0)
                await self.start_node(one)
            case "node drained":
                await self._cli("node", "drain", one, "--timeout", "50")
                await self._cli("node", "uncordon", one)
            case "every shard restarted":
                await self._cli("shard", "restart", "welcomer", "0-5")
                await self._cli("shard", "restart", "music", "0-5")
            case "node cut off etcd 10 s":
                await asyncio.gather(*(link.cut() for link in self._links[one]))
                await asyncio.sleep(10.0)
                await asyncio.gather(*(link.open() for link in self._links[one]))
            case name if name.startswith("Discord"):
                await self._break_discord(fault)
            case _:
                await self._break_servers(fault)
        return set()

    async def _kill_workers(self, nodes: list[str]) -> set[Shard]:
        hit = await self.shards_of(nodes)
        for pids in [await self.workers(node) for node in nodes]:
            for pid in pids:
                _signal(pid, signal.SIGKILL)
        return hit

    async def _kill_agent(self, node: str, workers: list[int]) -> set[Shard]:
        hit = await self.shards_of([node])
        killed_ns = time.time_ns()
        for pid in (self.agent(node), *workers):
            _signal(pid, signal.SIGKILL)
        await self.cluster.nodes[node].process.wait()
        # The shards must recover without this node.
        await self._until_back(hit, killed_ns)
        await self.start_node(node)
        return hit

    async def _until_back(self, shards: set[Shard], since_ns: int) -> None:
        """Wait until these shards stream again; `until_settled` reports those that do not."""
        end = time.monotonic() + RECOVERY_MAX_S
        while time.monotonic() < end:
            if None not in measure.after_death(await self.ledger(since_ns), shards, since_ns).values():
                return
            await asyncio.sleep(0.2)

    async def _freeze(self, nodes: list[str], seconds: float, *, agents: bool) -> set[Shard]:
        hit = await self.shards_of(nodes)
        pids = [pid for node in nodes for pid in await self.workers(node)]
        pids += [self.agent(node) for node in nodes] if agents else []
        async with frozen(pids):
            await asyncio.sleep(seconds)
        return hit

    async def _break_servers(self, fault: Fault) -> None:
        cluster = self.cluster
        match fault.kind.name:
            case "etcd member killed 5 s":
                await _kill_for(cluster.etcds[fault.draw % len(cluster.etcds)], 5.0)
            case "etcd quorum frozen 8 s":
                await _pause_for(cluster.etcds[:2], 8.0)
            case "NATS server killed 5 s":
                await _kill_for(cluster.natses[fault.draw % len(cluster.natses)], 5.0)
            case "NATS frozen 4 s":
                await _pause_for(cluster.natses, 4.0)
            case "Redis frozen 5 s":
                await _pause_for([cluster.redis], 5.0)

    async def _break_discord(self, fault: Fault) -> None:
        bot, shard = ("welcomer", "music")[fault.draw % 2], fault.draw % 6
        faults: dict[str, list[dict[str, Any]]] = {
            "Discord drops all sockets": [{"kind": "drop"}],
            "Discord resets all sockets": [{"kind": "reset"}],
            "Discord asks all to reconnect (op 7)": [{"kind": "op7"}],
            "Discord interrupts all sessions (op 9 true)": [{"kind": "op9", "resumable": True}],
            "Discord closes all with 4000": [{"kind": "close", "code": 4000}],
            "Discord unreachable 6 s": [{"kind": "refuse_connections", "seconds": 6}, {"kind": "drop"}],
            "Discord stalls 5 s": [{"kind": "stall", "seconds": 5}],
            "Discord's REST answers 500 for 5 s": [
                {"kind": "http_status", "status": 500, "seconds": 5, "path": "/gateway/bot"}
            ],
            "Discord forgets a session": [{"kind": "op9", "resumable": False, "bot": bot, "shards": [shard]}],
        }
        for body in faults[fault.kind.name]:
            await self.cluster.simulator("faults", {"shards": "all", **body})
        if fault.kind.name == "Discord forgets a session":
            self.result.sessions_forgotten += 1
        # Long enough for the fault to have its effect before the shards are checked again.
        await asyncio.sleep(1.0)

    async def _cli(self, *arguments: str) -> None:
        code, output = await self.cluster.run_cli(*arguments)
        if code != 0:
            self.result.unrecovered.append(f"`sandwich {' '.join(arguments)}` ended with {code}: {output.strip()}")

    # --- verdict ------------------------------------------------------------------------------------------------

    async def consume(self) -> None:
        """Run a consumer group of several workers, as a bot would."""

        async def work() -> None:
            servers = [server.url for server in self.cluster.natses]
            consumer = Consumer(servers, apps=list(self.group), group="chaos", start="all")

            @consumer.on_any
            async def take(event: Event) -> None:
                self.group[event.app].take(event.id)

            await consumer.run(handle_signals=False)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(WORKERS_IN_GROUP):
                tasks.create_task(work())

    async def judge(self) -> None:
        """Stop the traffic, read the whole stream, and compare it with the owed events."""
        await self.cluster.simulator("pause_traffic", {})
        await self.until_settled("the end")
        at_least = [await self.cluster.owed(bot.app, ()) for bot in self.cluster.bots]
        checks, gaps = await self._read_stream(sum(len(seqs) for one in at_least for seqs in one.values()))
        ends = {gap.session: gap.last_seq for gap in gaps}
        result, streamed = self.result, {session for check in checks.values() for session in check.sessions}
        owed = {bot.app: await self.cluster.owed(bot.app, streamed | ends.keys()) for bot in self.cluster.bots}
        await self._group_caught_up(owed, ends)
        for app, sessions in owed.items():
            due = measure.owed_up_to_gaps(sessions, ends)
            verdict, group = checks[app].verdict(due), self.group[app].verdict(due)
            result.owed += verdict.owed
            result.lost += verdict.lost
            result.doubled += verdict.doubled
            result.out_of_order += verdict.out_of_order
            result.group_missed += group.lost
            result.group_repeated += group.doubled
            for session, sequences in due.items():
                count = checks[app].sessions.get(session)
                missing = [s for s in sequences if count is None or s > count.last_seq or s in count.missing]
                if missing:
                    result.unrecovered.append(
                        f"lost of {app}, session {session}: {len(missing)} events, {missing[0]} to {missing[-1]}"
                    )
        bots = (await self.cluster.simulator("stats"))["bots"].values()
        identifies = [r for r in await self.ledger() if r["kind"] == "identify"]
        result.sessions_spare = len(spare_sessions(identifies, streamed | ends.keys()))
        spent = sum(bot["identifies"] for bot in bots) - result.sessions_spare
        result.identifies_extra = spent - SHARDS - result.sessions_forgotten
        result.violations = sum(sum(bot["violations"].values()) for bot in bots)
        if result.identifies_extra:
            refused = [r for r in await self.ledger() if r["kind"] == "resume" and r["outcome"] != "ok"]
            result.unrecovered.append(f"RESUMEs that Discord refused: {refused[-5:]}")

    async def _read_stream(self, expected: int) -> tuple[dict[str, DeliveryCheck], list[Gap]]:
        checks = {bot.app: DeliveryCheck() for bot in self.cluster.bots}
        gaps: list[Gap] = []
        servers = [server.url for server in self.cluster.natses]
        async with Consumer(servers, apps=list(checks), group="judge", start="all") as consumer:

            @consumer.on_gap
            async def keep(gap: Gap) -> None:
                gaps.append(gap)

            events = aiter(consumer)
            read = 0
            with contextlib.suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(READ_IDLE_S if read < expected else 3.0):
                        event = await anext(events)
                    checks[event.app].take(event.id)
                    read += 1
        return checks, gaps

    async def _group_caught_up(self, owed: dict[str, dict[str, list[int]]], ends: dict[str, int]) -> None:
        end = time.monotonic() + 60.0
        while time.monotonic() < end:
            due = {app: measure.owed_up_to_gaps(sessions, ends) for app, sessions in owed.items()}
            if not any(self.group[app].verdict(due[app]).lost for app in due):
                return
            await asyncio.sleep(1.0)

    async def close(self) -> None:
        """Close the connection to etcd."""
        await self._store.close()


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


async def _kill_for(server: Any, seconds: float) -> None:
    await server.kill()
    await asyncio.sleep(seconds)
    await server.start()


async def _pause_for(servers: Iterable[Any], seconds: float) -> None:
    async with frozen([server.pid for server in servers]):
        await asyncio.sleep(seconds)


@asynccontextmanager
async def _proxied(cluster: DevCluster) -> AsyncIterator[dict[str, list[Link]]]:
    links = {node: [Link(server.port) for server in cluster.etcds] for node in NODES}
    for chosen in links.values():
        for link in chosen:
            await link.open()
    try:
        yield links
    finally:
        for chosen in links.values():
            await asyncio.gather(*(link.cut() for link in chosen))


async def run(seed: int, *, minutes: float, rate: float, say: Say) -> Result:
    """One seed. Raises EmbeddedServerError when the cluster cannot be started."""
    result = Result(seed)
    async with dev_cluster(BOTS, nodes=0, rate=rate, seed=seed, members=3) as cluster, _proxied(cluster) as links:
        running = Run(cluster, links, result, say)
        consuming = asyncio.create_task(running.consume())
        try:
            for node in NODES:
                await running.start_node(node)
            if await running.until_settled("the start", START_MAX_S):
                await _break_things(running, seed, minutes)
            await running.judge()
        finally:
            consuming.cancel()
            await asyncio.gather(consuming, return_exceptions=True)
            await running.close()
            if not result.correct:
                _keep_logs(cluster, seed, say)
            # Nodes first: the links to etcd end with this block.
            await cluster.stop_nodes()
    return result


async def _break_things(running: Run, seed: int, minutes: float) -> None:
    began = time.monotonic()
    measured = 0
    for fault in faults(seed, NODES):
        elapsed = time.monotonic() - began
        if elapsed >= minutes * 60 or running.result.unrecovered:
            break
        if measured == 0 and elapsed >= minutes * 15:
            running.note_memory()
            measured = 1
        running.say(f"{elapsed:6.1f} s  {fault.kind.name} ({fault.nodes[0]})")
        running.result.faults[fault.kind.name] = running.result.faults.get(fault.kind.name, 0) + 1
        await running.inject(fault)
        await asyncio.sleep(fault.pause_s)
    running.note_memory()
    running.result.seconds = time.monotonic() - began


def _keep_logs(cluster: DevCluster, seed: int, say: Say) -> None:
    kept = Path(tempfile.mkdtemp(prefix=f"sandwich-chaos-{seed}-"))
    for log in cluster.directory.rglob("*.log"):
        shutil.copy(log, kept / f"{log.parent.name}-{log.name}")
    say(f"the logs are kept in {kept}")


def write_json(path: Path, results: list[Result]) -> None:
    """Write the results as JSON."""
    path.write_bytes(msgspec.json.encode([result.as_json() for result in results]))
