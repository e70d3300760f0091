"""Changed settings on virtual time: which workers a node starts and ends for them, and when it refuses them."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from sandwich_coordinator.addresses import Address
from sandwich_coordinator.config import (
    ClusterSettings,
    DiscordSettings,
    NatsSettings,
    PolicySettings,
    RedisSettings,
)
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.problems import Code, Problem, problem
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.store.base import KeyValue
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.trust import proof_of
from sandwich_coordinator.view import ClusterView
from sandwich_node import ipc
from sandwich_node.agent.configuration import secret_opener, trusted_settings
from sandwich_node.agent.consumer_lag import ConsumerLag
from sandwich_node.agent.dependencies import Worker
from sandwich_node.agent.options import NodeOptions
from sandwich_node.agent.settings_following import SettingsFollower, worker_generation
from sandwich_node.agent.worker_set import WorkerSet
from sandwich_node.cache.options import RedisOptions
from verification.simulation.loop import run_virtual

KEY = ClusterKey.generate()
OPTIONS = NodeOptions(node="a", cluster="c", listen=Address("127.0.0.1", 1), workers=2, capacity=9, labels={})
FIRST = ClusterSettings(nats=NatsSettings(servers=["nats://a"]), redis=RedisSettings(url="redis://a"))
STEP_S = 10.0


class FakeWorker:
    """A slot whose process is ready at once, unless its NATS user is "refused". It ends when it is asked to."""

    def __init__(self, settings: ipc.WorkerSettings, on_message: Callable[[Worker, ipc.ToAgent], None]) -> None:
        self.settings = settings
        self.index = settings.worker
        self.pid = 1
        self.ready = False
        self.waiting = "starting"
        self.waiting_code = Code.WORKER_NOT_READY
        self.alive = True
        self.stats = ipc.WorkerStats(0, 0.0, [])
        self.ended = asyncio.Event()
        self.sent: list[ipc.ToWorker] = []
        self._on_message = on_message
        self._stop = asyncio.Event()

    def send(self, message: ipc.ToWorker) -> None:
        self.sent.append(message)

    async def run(self) -> None:
        if self.settings.nats.user == "refused":
            self.waiting, self.waiting_code = "authorization refused", Code.NATS_UNAUTHORIZED
        else:
            self.ready = True
            self._on_message(self, ipc.WorkerReady())
        await self._stop.wait()
        self.ended.set()

    def stop(self) -> None:
        self._stop.set()


@dataclass
class FakeShards:
    """The shards of the node: they leave a worker while `leaves`."""

    leaves: bool = True

    def has_left(self, worker: int) -> bool:
        return self.leaves

    def changed(self) -> None:
        pass


@dataclass
class FakeServers:
    refusal: Problem | None = None
    asked: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    waiting: tuple[Problem, ...] = ()
    problems: tuple[Problem, ...] = ()
    consumers: ConsumerLag = field(default_factory=ConsumerLag)

    async def redis_refusal(self, options: RedisOptions) -> Problem | None:
        self.asked.append(options.url)
        return self.refusal

    def use_redis(self, options: RedisOptions) -> None:
        self.used.append(options.url)

    def nats_said(self, said: ipc.NatsSaid, at: float) -> None:
        pass

    async def run(self) -> None:
        pass


def sealed(settings: ClusterSettings, key: ClusterKey = KEY) -> ClusterSettings:
    return msgspec.structs.replace(settings, proof=proof_of(settings, "c", key))


class Node:
    """A node with two workers that runs with FIRST. `made`: every worker that was started."""

    def __init__(self) -> None:
        self.workers, self.shards, self.servers = WorkerSet(), FakeShards(), FakeServers()
        self.made: list[FakeWorker] = []
        self.received: list[tuple[int, ipc.ToAgent]] = []
        self.policies: list[Policy] = []
        opener = secret_opener(KEY)
        self.workers.fill(
            self._make,
            worker_generation(OPTIONS, FIRST, opener).worker,
            2,
            on_message=lambda worker, message: self.received.append((worker.index, message)),
            on_started=lambda: None,
            on_gone=lambda worker: None,
        )
        self.follower = SettingsFollower(
            OPTIONS,
            FIRST,
            read=lambda stored: trusted_settings(stored, "c", KEY),
            open_secret=opener,
            workers=self.workers,
            shards=self.shards,  # type: ignore[arg-type]
            servers=self.servers,
            use_policy=self.policies.append,
            rng=random.Random(1),
        )

    def _make(
        self, settings: ipc.WorkerSettings, *, on_message: Callable[[Worker, ipc.ToAgent], None], **_: Any
    ) -> FakeWorker:
        worker = FakeWorker(settings, on_message)
        self.made.append(worker)
        return worker

    async def store(self, settings: ClusterSettings) -> None:
        """Show the node these settings in etcd, and give it time."""
        config = KeyValue(Keys("c").config, settings.encode(), 1, 1, 1, 0)
        self.follower.follow(replace(ClusterView(keys=Keys("c")), config=config))
        await asyncio.sleep(STEP_S)

    def users(self) -> dict[int, str | None]:
        """The NATS user of each slot, by its number."""
        return {number: worker.settings.nats.user for number, worker in self._slots().items()}

    def _slots(self) -> dict[int, FakeWorker]:
        return {number: worker for number, worker in self.workers.slots.items() if isinstance(worker, FakeWorker)}

    def refusal(self) -> str:
        found = self.follower.problem
        assert found is None or (found.code, found.subject) == (Code.SETTINGS_REFUSED, "node/a")
        return found.summary if found is not None else ""


def on_virtual_time(story: Callable[[Node], Coroutine[Any, Any, None]]) -> None:
    @asynccontextmanager
    async def serving() -> AsyncIterator[Node]:
        node = Node()
        tasks = [asyncio.create_task(worker.run()) for worker in node.made]
        tasks.append(asyncio.create_task(node.follower.run()))
        try:
            yield node
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def run() -> None:
        async with serving() as node:
            await node.store(sealed(FIRST))
            assert (len(node.made), node.follower.running) == (2, sealed(FIRST))
            await story(node)

    run_virtual(run())


def nats(user: str, **more: Any) -> ClusterSettings:
    return msgspec.structs.replace(FIRST, nats=NatsSettings(servers=["nats://a"], user=user, **more))


def test_every_worker_is_replaced_one_after_another_and_the_lowest_free_numbers_are_used() -> None:
    async def story(node: Node) -> None:
        node.shards.leaves = False
        await node.store(sealed(nats("b")))
        assert node.users() == {0: None, 1: None, 2: "b"}
        assert node.workers.retiring == {0}
        assert node.follower.running == sealed(FIRST), "not complete yet"
        node.shards.leaves = True
        await asyncio.sleep(STEP_S)
        assert node.users() == {0: "b", 2: "b"}
        assert (node.workers.retiring, node.workers.candidate, node.refusal()) == (set(), None, "")
        assert node.follower.running == sealed(nats("b"))
        assert all(worker.ended.is_set() for worker in node.made[:2])
        assert len(node.made) == 4

    on_virtual_time(story)


def test_settings_that_nats_refuses_leave_the_workers_as_they_are_until_others_are_stored() -> None:
    async def story(node: Node) -> None:
        await node.store(sealed(nats("refused")))
        assert node.users() == {0: None, 1: None}
        assert node.refusal() == "node a keeps its settings: authorization refused"
        assert node.received.count((2, ipc.WorkerReady())) == 0
        refused = node.workers.candidate
        await node.store(sealed(FIRST))
        assert (node.refusal(), node.workers.candidate) == ("", None)
        assert refused is not None
        assert refused.ended.is_set()
        await node.store(sealed(nats("refused")))
        await node.store(sealed(nats("b")))
        assert sorted(map(str, node.users().values())) == ["b", "b"]
        assert node.refusal() == ""

    on_virtual_time(story)


def test_a_candidate_that_connects_late_is_used_then() -> None:
    async def story(node: Node) -> None:
        await node.store(sealed(nats("refused")))
        candidate = node.workers.candidate
        assert candidate is not None
        candidate.ready = True
        await asyncio.sleep(1.0)
        assert candidate.index in node.workers.slots

    on_virtual_time(story)


def test_another_redis_is_used_once_it_can_be_written() -> None:
    async def story(node: Node) -> None:
        node.servers.refusal = problem(Code.REDIS_UNREACHABLE, "redis", "Redis is not reachable", "")
        other = sealed(msgspec.structs.replace(FIRST, redis=RedisSettings(url="redis://b")))
        await node.store(other)
        assert set(node.users()) == {0, 1}
        assert node.refusal() == "node a keeps its settings: Redis is not reachable"
        assert node.servers.used == []
        node.servers.refusal = None
        await asyncio.sleep(STEP_S)
        assert node.follower.running == other
        assert (node.servers.used, set(node.servers.asked), node.refusal()) == (["redis://b"], {"redis://b"}, "")

    on_virtual_time(story)


def test_limits_of_streams_and_the_linger_need_other_workers_and_other_policies_do_not() -> None:
    async def story(node: Node) -> None:
        policy = PolicySettings(moves_in_flight_max=3, restart_grace_s=2.0)
        await node.store(sealed(msgspec.structs.replace(FIRST, policy=policy)))
        assert len(node.made) == 2
        assert (node.policies[-1].moves_in_flight_max, node.policies[-1].restart_grace_s) == (3, 2.0)
        assert node.follower.running.policy == policy
        await node.store(sealed(msgspec.structs.replace(FIRST, policy=PolicySettings(linger_ms=1.0))))
        assert {worker.settings.linger_s for worker in node.made[2:]} == {0.001}
        assert len(node.made) == 4
        await node.store(sealed(nats("", max_age_s=60.0)))
        assert len(node.made) == 6

    on_virtual_time(story)


def test_what_is_read_at_the_start_only_stays_as_it_was() -> None:
    async def story(node: Node) -> None:
        discord, policy = DiscordSettings(api_url="http://b"), PolicySettings(lease_ttl_s=9.0)
        await node.store(sealed(msgspec.structs.replace(FIRST, discord=discord, policy=policy)))
        assert (node.follower.running.discord, node.follower.running.policy) == (FIRST.discord, FIRST.policy)
        assert node.policies[-1].lease_ttl_s == FIRST.policy.lease_ttl_s
        assert len(node.made) == 2

    on_virtual_time(story)


def test_settings_that_the_cluster_key_does_not_authenticate_are_refused() -> None:
    async def story(node: Node) -> None:
        await node.store(msgspec.structs.replace(sealed(nats("b")), nats=NatsSettings(servers=["nats://evil"])))
        assert "changed by something that has no cluster key" in node.refusal()
        await node.store(sealed(nats("b"), ClusterKey.generate()))
        assert "was sealed with cluster key" in node.refusal()
        await node.store(sealed(nats("b", password="v1:cannot-be-opened")))
        assert node.refusal()
        assert (node.users(), len(node.made)) == ({0: None, 1: None}, 2)
        await node.store(sealed(nats("b")))
        assert (node.refusal(), set(node.users().values())) == ("", {"b"})

    on_virtual_time(story)


def test_a_node_that_leaves_starts_no_candidate_and_ends_the_one_it_has() -> None:
    async def story(node: Node) -> None:
        await node.store(sealed(nats("refused")))
        node.workers.stop()
        await node.workers.ended()
        assert len(node.made) == 3
        assert all(worker.ended.is_set() for worker in node.made)
        await node.store(sealed(nats("b")))
        assert len(node.made) == 3

    on_virtual_time(story)


def test_a_candidate_is_kept_informed_like_every_worker_and_its_messages_count_only_while_it_is_one() -> None:
    async def story(node: Node) -> None:
        await node.store(sealed(nats("refused")))
        dropped = node.workers.candidate
        assert isinstance(dropped, FakeWorker)
        node.workers.share_lease(7)
        assert ipc.LeaseHeld(7) in dropped.sent
        await node.store(sealed(FIRST))
        node.received.clear()
        dropped._on_message(dropped, ipc.WorkerReady())
        assert node.received == []

    on_virtual_time(story)
