"""A hundred nodes: the real agents over the in-memory store; workers whose shards are a few timers each.

A shard connects, resumes or identifies, is live, and closes, each after the time that this takes at Discord. What it
reports to its agent, and waits for, is what a real shard does.
"""

import asyncio
import contextlib
import random
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import copy_context
from unittest import mock

from sandwich_coordinator.addresses import Address
from sandwich_coordinator.discord_api import CurrentUser, GatewayBot
from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.problems import Code
from sandwich_coordinator.store.base import WatchBatch
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import GroupPhase, SessionRecord
from sandwich_coordinator.view import ClusterView
from sandwich_node import ipc
from sandwich_node.agent.agent import Agent
from sandwich_node.agent.dependencies import AgentDependencies, Worker
from sandwich_node.agent.options import NodeOptions
from verification.scale.meter import Meter, MeteredDatabase, MeteredStore
from verification.simulation.log import Conditions
from verification.simulation.loop import Machine, machine, wall_s
from verification.simulation.node import NoServerHealth, RemoteStore, no_http_server

POLL_S = 0.25
FEED_S = 0.0205
"""What changes within this time reaches the nodes together: a little longer than they gather it anyway."""
TRAVEL_S = (0.0005, 0.005)
VIEWS_KEPT = 64
CONNECT_S = 0.15
RESUME_S = 0.3
READY_S = 0.6
CLOSE_S = 0.1
HEARTBEAT_S = 0.1
IDENTIFY_EVERY_S = 5.0
GATEWAY = "ws://discord.sim"
GUILDS = 1000


class Discord:
    """What Discord allows: one IDENTIFY per bucket every five seconds. `broken` counts what it would refuse."""

    def __init__(self, shards: int, concurrency: int) -> None:
        self.shards = shards
        self.concurrency = concurrency
        self.identifies = 0
        self.resumes = 0
        self.broken = 0
        self.live: dict[ShardId, str] = {}
        self._last: dict[tuple[str, int], float] = {}

    async def gateway_bot(self, token: str) -> GatewayBot:
        """`GET /gateway/bot`: see `DiscordApi`."""
        await asyncio.sleep(0.02)
        total = 1000 + 10 * self.shards
        return GatewayBot(
            url=GATEWAY,
            shards=self.shards,
            total=total,
            remaining=total,
            reset_after_s=80_000.0,
            max_concurrency=self.concurrency,
        )

    async def current_user(self, token: str) -> CurrentUser:
        """`GET /users/@me`: see `DiscordApi`."""
        await asyncio.sleep(0.02)
        return CurrentUser(id=str(abs(hash(token)) % 10**18), name=token)

    def identify(self, shard: ShardId, now: float) -> None:
        """A shard identifies."""
        bucket = shard.app, shard.shard % self.concurrency
        self.broken += now - self._last.get(bucket, -IDENTIFY_EVERY_S) < IDENTIFY_EVERY_S
        self._last[bucket] = now
        self.identifies += 1

    def up(self, shard: ShardId, node: str) -> None:
        """A shard is live at this node; it must not be live at another one."""
        self.broken += shard in self.live
        self.live[shard] = node

    def down(self, shard: ShardId, node: str) -> None:
        """A shard's socket at this node closed."""
        if self.live.get(shard) == node:
            del self.live[shard]


class Feed:
    """One watch of `prefix` for all nodes, which get each change at the same time.

    With a watch of its own for each node, most of the run's time would go into a hundred walks over each change.
    """

    def __init__(self, database: MeteredDatabase, prefix: str, rng: random.Random) -> None:
        self._database = database
        self._prefix = prefix
        self._rng = rng
        self._readers: set[asyncio.Queue[WatchBatch]] = set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        seen = self._database.revision
        while True:
            self._database.expire()
            if self._database.revision == seen:
                await self._database.wait()
                continue
            await asyncio.sleep(self._rng.uniform(*TRAVEL_S))
            batch = self._database.since(self._prefix, seen + 1)
            seen = batch.revision
            for reader in self._readers:
                reader.put_nowait(batch)
            await asyncio.sleep(FEED_S)

    async def watch(self, revision: int) -> AsyncIterator[WatchBatch]:
        """See `Store.watch`. Some events may come twice at first, as after a listing."""
        reader: asyncio.Queue[WatchBatch] = asyncio.Queue(maxsize=1000)
        self._readers.add(reader)
        try:
            missed = self._database.since(self._prefix, revision)
            if missed.events:
                yield missed
            while True:
                yield await reader.get()
        finally:
            self._readers.discard(reader)


class FedStore(RemoteStore):
    """A machine's connection to the store whose watch is the feed."""

    def __init__(self, feed: Feed, store: MeteredStore, conditions: Conditions, rng: random.Random) -> None:
        super().__init__(store, (conditions,), rng)
        self._feed = feed

    def watch(self, prefix: str, revision: int) -> AsyncIterator[WatchBatch]:
        """See `Store.watch`. A node watches the prefix of its cluster alone."""
        return self._feed.watch(revision)


@contextlib.contextmanager
def shared_views() -> Iterator[None]:
    """Let all nodes of this process have one view of each revision, which the first of them makes.

    A view is immutable and a function of the revision. In reality each node makes its own; here that would be done a
    hundred times for each change.
    """
    really, views = ClusterView.apply, OrderedDict[tuple[str, int], ClusterView]()

    def apply(view: ClusterView, *batches: WatchBatch) -> ClusterView:
        prefix, revision = view.keys.prefix, max([view.revision, *(batch.revision for batch in batches)])
        found = views.get((prefix, revision))
        if found is None:
            found = really(view, *batches)
            # The view of a node that has just listed everything does not know what the others have seen change.
            if not views or views.get((prefix, view.revision)) is view:
                views[prefix, revision] = found
            if len(views) > VIEWS_KEPT:
                views.popitem(last=False)
        return found

    with mock.patch.object(ClusterView, "apply", apply):
        yield


class ScaleWorker:
    """A worker slot like `WorkerProcess`."""

    def __init__(
        self,
        node: "ScaleNode",
        settings: ipc.WorkerSettings,
        *,
        on_message: Callable[[Worker, ipc.ToAgent], None],
        on_started: Callable[[Worker], None],
        on_gone: Callable[[Worker], None],
    ) -> None:
        self.index = settings.worker
        self.pid = 1
        self.ready = False
        self.waiting = ""
        self.waiting_code = Code.WORKER_NOT_READY
        self.stats = ipc.WorkerStats(0, 0.0, [])
        self.ended = asyncio.Event()
        self.alive = False
        self._node = node
        self._on_message, self._on_started = on_message, on_started
        self._runs: dict[ShardId, tuple[ipc.StartShard, asyncio.Task[None]]] = {}
        self._granted: dict[ShardId, asyncio.Event] = {}
        self._phases: dict[ShardId, asyncio.Queue[GroupPhase]] = {}
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """See `Worker.run`."""
        self.alive = True
        try:
            self._on_started(self)
            self._say(ipc.WorkerReady())
            await self._stop.wait()
        finally:
            self.alive = False
            self.ended.set()

    def stop(self) -> None:
        """See `Worker.stop`."""
        for shard in list(self._runs):
            self._close(shard, "released")
        asyncio.get_running_loop().call_later(CLOSE_S * 2, self._stop.set)

    def kill(self) -> None:
        """End now."""
        for shard, (_, task) in list(self._runs.items()):
            task.cancel()
            self._node.fleet.discord.down(shard, self._node.name)
        self._runs.clear()
        self.alive = False

    def send(self, message: ipc.ToWorker) -> None:
        """See `Worker.send`."""
        asyncio.get_running_loop().call_soon(self._receive, message)

    def _receive(self, message: ipc.ToWorker) -> None:
        if not self.alive:
            return
        match message:
            case ipc.StartShard(key=key) if key not in self._runs:
                self._phases[key] = asyncio.Queue()
                self._runs[key] = message, asyncio.create_task(self._serve(message))
            case ipc.StopShard(key):
                self._close(key, "released")
            case ipc.SetPhase(key, "closing"):
                self._close(key, "ended")
            case ipc.SetPhase(key, phase) if key in self._runs:
                self._phases[key].put_nowait(phase)
            case ipc.IdentifyGranted(key) if key in self._granted:
                self._granted[key].set()

    def _say(self, message: ipc.ToAgent) -> None:
        if self.alive:
            asyncio.get_running_loop().call_soon(self._on_message, self, message)

    async def _serve(self, start: ipc.StartShard) -> None:
        key, discord = start.key, self._node.fleet.discord
        self._say(ipc.ShardChanged(key, "connecting"))
        await asyncio.sleep(CONNECT_S)
        if start.session is not None:
            self._say(ipc.ShardChanged(key, "resuming"))
            await asyncio.sleep(RESUME_S)
            discord.resumes += 1
        else:
            await self._identify(start)
        discord.up(key, self._node.name)
        if start.phase == "closing":
            # It moved while its group was replaced: what it has still to publish is little.
            self._close(key, "ended")
            return
        if start.phase != "active":
            await self._switch(key, start.phase)
        self._say(ipc.ShardBack(key=key, how="identified" if start.session is None else "resumed"))
        self._say(ipc.ShardChanged(key, "live"))

    async def _switch(self, key: ShardId, phase: GroupPhase) -> None:
        """A shard of an upcoming group goes with the phases of its group until it serves."""
        while phase != "active":
            if phase in ("canary", "preparing"):
                self._say(ipc.ShardChanged(key, "ready"))
            elif phase == "holding":
                await asyncio.sleep(HEARTBEAT_S)
                self._say(ipc.ShardChanged(key, "holding"))
            elif phase == "switching":
                # The old chains end, and are read.
                await asyncio.sleep(2 * HEARTBEAT_S + CLOSE_S)
                return
            phase = await self._phases[key].get()

    async def _identify(self, start: ipc.StartShard) -> None:
        key, discord = start.key, self._node.fleet.discord
        self._say(ipc.ShardChanged(key, "identifying"))
        granted = self._granted[key] = asyncio.Event()
        self._say(ipc.IdentifyWanted(key))
        await granted.wait()
        del self._granted[key]
        discord.identify(key, asyncio.get_running_loop().time())
        self._say(ipc.IdentifySent(key))
        await asyncio.sleep(READY_S)
        session = SessionRecord(
            session_id=f"{discord.identifies:032x}",
            resume_url=GATEWAY,
            intents=start.intents,
            count=start.count,
            first_seq=1,
            token_hash=start.token_hash,
            guilds=GUILDS,
        )
        self._say(ipc.SessionSaved(key, session, start.bot, start.route))

    def _close(self, shard: ShardId, how: str) -> None:
        """Close the socket; a moment later the run is over."""
        if shard not in self._runs:
            return
        start, task = self._runs.pop(shard)
        task.cancel()
        self._granted.pop(shard, None)
        self._phases.pop(shard, None)

        def closed() -> None:
            self._node.fleet.discord.down(shard, self._node.name)
            self._say(ipc.ShardStopped(shard, start.run, how))

        asyncio.get_running_loop().call_later(CLOSE_S, closed)


class ScaleNode:
    """One machine: it starts agents, one after the other."""

    def __init__(self, fleet: "Fleet", name: str, workers: int) -> None:
        self.fleet = fleet
        self.name = name
        self._workers: list[ScaleWorker] = []
        self._conditions = Conditions()
        self._options = NodeOptions(
            node=name, cluster="default", listen=Address("127.0.0.1", 1), workers=workers, capacity=100, labels={}
        )
        self._task: asyncio.Task[None] | None = None
        self._agent: Agent | None = None

    def start(self) -> None:
        """Start a process in its own context, so that its tasks belong to this machine."""
        context = copy_context()
        context.run(machine.set, Machine())
        context.run(self._start)

    def _start(self) -> None:
        fleet = self.fleet
        self._workers, self._conditions = [], Conditions()
        store = MeteredStore(fleet.database, fleet.meter)
        dependencies = AgentDependencies(
            store=FedStore(fleet.feed, store, self._conditions, fleet.rng),
            listen=no_http_server,
            open_discord=lambda _: contextlib.nullcontext(fleet.discord),
            make_worker=self._make_worker,
            make_server_health=lambda *_: NoServerHealth(),
            rng=fleet.rng,
            wall=wall_s,
            clock=asyncio.get_running_loop().time,
        )
        self._agent = Agent(self._options, dependencies, None)
        self._task = asyncio.create_task(self._agent.run())

    def _make_worker(
        self,
        settings: ipc.WorkerSettings,
        *,
        on_message: Callable[[Worker, ipc.ToAgent], None],
        on_started: Callable[[Worker], None],
        on_gone: Callable[[Worker], None],
    ) -> ScaleWorker:
        worker = ScaleWorker(self, settings, on_message=on_message, on_started=on_started, on_gone=on_gone)
        self._workers.append(worker)
        return worker

    def kill(self) -> None:
        """Everything on the machine ends at once; its lease runs out."""
        self._conditions.store_away = True
        for worker in self._workers:
            worker.kill()
        if self._task is not None:
            self._task.cancel()

    async def shut_down(self) -> None:
        """SIGTERM: shards are handed over, then the agent ends."""
        if self._agent is not None and self._task is not None:
            self._agent.shutdown()
            await asyncio.wait([self._task])
            self._task.result()


class Fleet:
    """All nodes, the store and Discord."""

    def __init__(self, *, nodes: int, workers: int, discord: Discord, seed: int) -> None:
        loop = asyncio.get_running_loop()
        self.meter = Meter()
        self.rng = random.Random(seed)
        self.discord = discord
        self.database = MeteredDatabase(loop.time, self.meter)
        self.store = MeteredStore(self.database, self.meter)
        self.feed = Feed(self.database, Keys().prefix, self.rng)
        self.nodes = [ScaleNode(self, f"n{number:03d}", workers) for number in range(nodes)]

    def claim_states(self) -> Counter[str]:
        """How many claims are in each state, as etcd has them."""
        states = Counter[str]()
        for key, item in self.database.items.items():
            if "/claims/" in key:
                state = item.value.partition(b'"state":"')[2].partition(b'"')[0].decode()
                states[state or "claiming"] += 1
        return states

    async def until_live(self, shards: int, *, limit_s: float) -> float:
        """Wait until so many shards are live, at Discord and in etcd. Returns how long that took (virtual seconds).

        Raises TimeoutError.
        """
        return await until(
            lambda: len(self.discord.live) == shards and self.claim_states() == {"live": shards}, limit_s=limit_s
        )


async def until(condition: Callable[[], bool], *, limit_s: float) -> float:
    """Wait until the condition holds. Returns how long that took (virtual seconds). Raises TimeoutError."""
    clock = asyncio.get_running_loop().time
    began = clock()
    while not condition():
        if clock() - began > limit_s:
            raise TimeoutError(f"not reached in {limit_s:g} s")
        await asyncio.sleep(POLL_S)
    return clock() - began
