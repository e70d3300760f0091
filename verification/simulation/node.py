"""Nodes of the simulation: the real agent and the real shard runners, without processes of their own.

Only what the agent and the shards reach outside is replaced: etcd (the in-memory store, which can be cut off), NATS
(the shared stream), Discord, the HTTP server, the health checks of servers, and the worker processes, whose shards are
tasks here.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sandwich_coordinator.addresses import Address
from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.problems import Code, Problem
from sandwich_coordinator.store.base import (
    Compare,
    Delete,
    KeyValue,
    Listing,
    Put,
    StoreAmbiguous,
    StoreUnavailable,
    TxnResult,
    WatchBatch,
)
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_node import ipc
from sandwich_node.agent.agent import Agent
from sandwich_node.agent.consumer_lag import ConsumerLag
from sandwich_node.agent.dependencies import AgentDependencies, Worker
from sandwich_node.agent.options import NodeOptions
from sandwich_node.cache.options import RedisOptions
from sandwich_node.publishing.previous_group import PreviousGroups
from sandwich_node.publishing.ticks import Ticks
from sandwich_node.shards.runner import ShardRunner
from sandwich_node.shards.services import WorkerServices
from sandwich_node.shards.shard_set import ShardSet
from verification.simulation.checks import Journal
from verification.simulation.discord import Discord
from verification.simulation.log import Conditions, NodeLog, Stream
from verification.simulation.loop import Machine, machine, wall_s

WORKER_RESTART_S = 0.8
REFUSED_USER = "refused"
"""The user of NATS with which no worker can connect."""
SHUTDOWN_BUDGET_S = 8.0

_T = TypeVar("_T")


class RemoteStore:
    """One machine's connection to the store: with latency, cut off, or with lost answers. Replaces `EtcdStore`."""

    def __init__(self, store: MemoryStore, conditions: tuple[Conditions, ...], rng: random.Random) -> None:
        self._store = store
        self._conditions = conditions
        self._rng = rng

    async def get(self, key: str) -> KeyValue | None:
        """See `Store.get`."""
        return await self._call(self._store.get(key))

    async def list(self, prefix: str) -> Listing:
        """See `Store.list`."""
        return await self._call(self._store.list(prefix))

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> TxnResult:
        """See `Store.txn`."""
        return await self._call(self._store.txn(compares, writes), write=True)

    async def grant(self, ttl_s: int) -> int:
        """See `Store.grant`."""
        return await self._call(self._store.grant(ttl_s))

    async def keep_alive(self, lease: int) -> float:
        """See `Store.keep_alive`."""
        return await self._call(self._store.keep_alive(lease))

    async def revoke(self, lease: int) -> None:
        """See `Store.revoke`."""
        await self._call(self._store.revoke(lease))

    async def watch(self, prefix: str, revision: int) -> AsyncIterator[WatchBatch]:
        """See `Store.watch`: with latency, and silent while cut off."""
        async for batch in self._store.watch(prefix, revision):
            while True:
                with contextlib.suppress(StoreUnavailable):
                    await self._travel()
                    break
            yield batch

    async def server_version(self) -> str:
        """A supported version."""
        return "3.6.0"

    async def close(self) -> None:
        """Nothing to release."""

    async def _call(self, work: Coroutine[Any, Any, _T], *, write: bool = False) -> _T:
        try:
            await self._travel()
        except BaseException:
            work.close()
            raise
        lost = max(each.store_answers_lost for each in self._conditions)
        if write and self._rng.random() < lost:
            if self._rng.random() < 0.5:
                await work
            else:
                work.close()
            await asyncio.sleep(1.0)
            raise StoreAmbiguous("the answer was lost")
        result = await work
        await asyncio.sleep(self._latency_s())
        return result

    async def _travel(self) -> None:
        await asyncio.sleep(self._latency_s())
        if any(each.store_away for each in self._conditions):
            await asyncio.sleep(1.0)
            raise StoreUnavailable("no answer")

    def _latency_s(self) -> float:
        return self._rng.uniform(0.0005, 0.005)


class SimWorker:
    """A worker slot like `WorkerProcess`; its shards are tasks of the simulation."""

    def __init__(
        self,
        process: "SimProcess",
        settings: ipc.WorkerSettings,
        *,
        on_message: Callable[[Worker, ipc.ToAgent], None],
        on_started: Callable[[Worker], None],
        on_gone: Callable[[Worker], None],
    ) -> None:
        self.index = settings.worker
        self.pid = 1
        self.ready = False
        self.waiting = "starting"
        self.waiting_code = Code.WORKER_NOT_READY
        self.stats = ipc.WorkerStats(0, 0.0, [])
        self.ended = asyncio.Event()
        self.lease: int | None = None
        self._linger_s = settings.linger_s
        self.nats_user = settings.nats.user
        self._on_message, self._on_started, self._on_gone = on_message, on_started, on_gone
        self._process = process
        self._life: _WorkerLife | None = None
        self._stop = asyncio.Event()

    @property
    def alive(self) -> bool:
        """See `WorkerProcess.alive`."""
        return self._life is not None

    def send(self, message: ipc.ToWorker) -> None:
        """See `WorkerProcess.send`: the message arrives in a later iteration of the loop."""
        if self._life is not None:
            asyncio.get_running_loop().call_soon(self._life.receive, message)

    async def run(self) -> None:
        """See `WorkerProcess.run`."""
        try:
            while not self._stop.is_set():
                await self._run_once()
                if not self._stop.is_set():
                    await asyncio.sleep(WORKER_RESTART_S)
        finally:
            self.ended.set()

    async def _run_once(self) -> None:
        life = self._life = _WorkerLife(self._process, self._linger_s)
        try:
            self._on_started(self)
            if self.nats_user == REFUSED_USER:
                life.send(ipc.WorkerWaiting("NATS at sim: authorization refused", Code.NATS_UNAUTHORIZED))
            else:
                life.send(ipc.WorkerReady())
            while (message := await life.mail.get()) is not None:
                self._on_message(self, message)
        finally:
            if self._life is not None:
                life.kill()
            self._life = None
            self.ready = False
            self._on_gone(self)

    def stop(self) -> None:
        """See `WorkerProcess.stop`."""
        self._stop.set()
        self.send(ipc.Shutdown())

    def kill(self) -> None:
        """kill -9."""
        if self._life is not None:
            self._life.kill()

    def detach(self) -> "_WorkerLife | None":
        """The agent is dead; returns the process that continues without it."""
        life, self._life = self._life, None
        return life

    def shards(self) -> list[ShardId]:
        """The shards that run here."""
        return self._life.shards() if self._life is not None else []


class _WorkerLife:
    """One process of a worker: its shards as tasks, and its messages to the agent, ended by None."""

    def __init__(self, process: "SimProcess", linger_s: float) -> None:
        self.mail: asyncio.Queue[ipc.ToAgent | None] = asyncio.Queue()
        self.lease: int | None = None
        self._process = process
        self._linger_s = linger_s
        self._ended = False
        self._stopping: asyncio.Task[None] | None = None
        self._shards: ShardSet | None = None
        world = process.node.world
        self._log = NodeLog(world.stream, world.rng, process.conditions)
        self._previous = PreviousGroups(self._log, world.rng)
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._shards = ShardSet(group, self._make_runner, self.send)
            await asyncio.get_running_loop().create_future()

    def _make_runner(self, start: ipc.StartShard) -> ShardRunner:
        world = self._process.node.world
        services = WorkerServices(
            log=self._log,
            previous=self._previous,
            http=world.discord,
            send=self.send,
            rng=world.rng,
            clock=asyncio.get_running_loop().time,
            wall=wall_s,
            ticks=Ticks(self._linger_s),
        )
        return ShardRunner(start, services)

    def send(self, message: ipc.ToAgent) -> None:
        """Send to the agent, while this process lives."""
        if isinstance(message, ipc.ShardStopped) and message.how == "crashed":
            self._process.node.world.journal.violate(f"shard {message.key} crashed")
        if not self._ended:
            self.mail.put_nowait(message)

    def receive(self, message: ipc.ToWorker) -> None:
        """Take a message of the agent."""
        if self._ended or self._shards is None:
            return
        match message:
            case ipc.LeaseHeld(lease):
                self.lease = lease
            case ipc.RelocateGuilds(app=app, group=group, to=to):
                # There is no cache to relocate them in.
                self.send(ipc.GuildsRelocated(app=app, group=group, to=to.group))
            case ipc.Shutdown():
                self._stopping = asyncio.create_task(self.release_all())
            case _:
                self._shards.receive(message)

    def shards(self) -> list[ShardId]:
        """The shards that run here."""
        return [runner.key for runner in self._shards.runners] if self._shards is not None else []

    async def release_all(self) -> None:
        """Stop all shards with their sessions kept, then end."""
        if self._shards is not None:
            await self._shards.stop_all("the worker ends", SHUTDOWN_BUDGET_S)
        self.kill()

    def kill(self) -> None:
        """End now: sockets close, no further message is sent."""
        if not self._ended:
            self._ended = True
            self.mail.put_nowait(None)
            self._task.cancel()


class NoServerHealth:
    """`ServerHealth` without servers: their health is not simulated."""

    waiting: Sequence[Problem] = ()
    problems: Sequence[Problem] = ()
    consumers = ConsumerLag()

    def use_redis(self, options: RedisOptions) -> None:
        """See `ServerHealth.use_redis`."""

    async def redis_refusal(self, options: RedisOptions) -> Problem | None:
        """See `ServerHealth.redis_refusal`."""
        return None

    def nats_said(self, said: ipc.NatsSaid, at: float) -> None:
        """See `ServerHealth.nats_said`: never called."""

    async def run(self) -> None:
        """See `ServerHealth.run`."""


@contextlib.asynccontextmanager
async def no_http_server(*_: object) -> AsyncIterator[int]:
    yield 1


@dataclass(slots=True)
class World:
    """What all machines share; so is this `conditions`."""

    database: MemoryStore
    stream: Stream
    discord: Discord
    journal: Journal
    rng: random.Random
    conditions: Conditions = field(default_factory=Conditions)


class SimProcess:
    """One start of a node: an agent and its workers."""

    def __init__(self, node: "SimNode", options: NodeOptions) -> None:
        self.node = node
        self.workers: list[SimWorker] = []
        self.own_conditions = Conditions()
        self.conditions = (node.world.conditions, self.own_conditions)
        self.agent = Agent(options, self._dependencies(node.world), None)
        self.task = asyncio.create_task(self._run())

    def _dependencies(self, world: World) -> AgentDependencies:
        return AgentDependencies(
            store=RemoteStore(world.database.peer(), self.conditions, world.rng),
            listen=no_http_server,
            open_discord=lambda _: contextlib.nullcontext(world.discord),
            make_worker=self._make_worker,
            make_server_health=lambda *_: NoServerHealth(),
            rng=world.rng,
            wall=wall_s,
            clock=asyncio.get_running_loop().time,
        )

    def _make_worker(
        self,
        settings: ipc.WorkerSettings,
        *,
        on_message: Callable[[Worker, ipc.ToAgent], None],
        on_started: Callable[[Worker], None],
        on_gone: Callable[[Worker], None],
    ) -> SimWorker:
        worker = SimWorker(self, settings, on_message=on_message, on_started=on_started, on_gone=on_gone)
        self.workers.append(worker)
        return worker

    async def _run(self) -> None:
        try:
            await self.agent.run()
        except Exception as error:
            self.node.world.journal.note(f"{self.node.name}: ended by {leaf(error)!r}")


class SimNode:
    """One machine: it starts processes, and faults of the machine happen to them."""

    def __init__(self, name: str, world: World, *, workers: int, skew_s: float) -> None:
        self.name, self.world = name, world
        self.machine = Machine(skew_s)
        self._options = NodeOptions(
            node=name, cluster="default", listen=Address("127.0.0.1", 1), workers=workers, capacity=100, labels={}
        )
        self._process: SimProcess | None = None

    @property
    def running(self) -> bool:
        """Whether an agent runs."""
        return self._process is not None and not self._process.task.done()

    @property
    def conditions(self) -> Conditions:
        """The conditions of this machine alone."""
        return self._process.own_conditions if self._process is not None else Conditions()

    @property
    def workers(self) -> Sequence[SimWorker]:
        """The workers of the running agent."""
        return self._process.workers if self._process is not None and self.running else ()

    @property
    def leads(self) -> bool:
        """Whether its agent believes that it leads."""
        return self._process is not None and self.running and self._process.agent.status().leader

    def problems(self) -> list[Code]:
        """The problems that its agent reports."""
        found = self._process.agent.status().problems if self._process is not None else ()
        return [one.code for one in found if isinstance(one, Problem)]

    def start(self) -> None:
        """Start a process in its own context, so that all its tasks belong to this machine."""
        context = copy_context()
        context.run(machine.set, self.machine)
        self._process = context.run(SimProcess, self, self._options)
        self.world.journal.note(f"{self.name}: started")

    def kill(self) -> None:
        """Everything on the machine ends at once."""
        self._silence()
        for worker in self._process.workers if self._process else ():
            worker.kill()

    async def kill_agent(self) -> None:
        """kill -9 of the agent. Its workers stop by themselves and release its lease."""
        if self._process is None:
            return
        # First of all: a killed process does not do what its tasks would still do when they are cancelled.
        lives = [life for worker in self._process.workers if (life := worker.detach()) is not None]
        cut_off = self.world.conditions.store_away or self.conditions.store_away
        self._silence()
        await asyncio.gather(*(life.release_all() for life in lives))
        for lease in {life.lease for life in lives}:
            if lease is not None and not cut_off:
                await self.world.database.peer().revoke(lease)

    def _silence(self) -> None:
        """Cut the agent off: cancelled tasks clean up, a killed process does not."""
        if self.machine.frozen:
            self.machine.thaw()
        if self._process is not None:
            self._process.own_conditions.store_away = True
            self._process.task.cancel()

    def shutdown(self) -> None:
        """SIGTERM."""
        if self._process is not None:
            self._process.agent.shutdown()

    async def ended(self) -> None:
        """Wait until the agent has ended."""
        if self._process is not None:
            await asyncio.wait([self._process.task])

    def shards(self) -> list[ShardId]:
        """The shards that run on this node."""
        return [key for worker in self.workers for key in worker.shards()]


def leaf(error: BaseException) -> BaseException:
    """The first error inside of groups of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
