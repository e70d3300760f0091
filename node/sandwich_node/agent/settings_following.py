"""Takes changed settings while the node runs.

`policy` is followed at once. For `nats` and `redis` the workers are replaced one after another: a candidate is started
with the new settings; once it is connected, the shards of one old worker move to it by RESUME, and that worker ends.
While the candidate cannot connect, or the new Redis cannot be written, the old workers keep their shards.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from sandwich_coordinator.config import ClusterSettings
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.problems import Code, Problem, problem
from sandwich_coordinator.sealing import SealingError
from sandwich_coordinator.view import ClusterView
from sandwich_node import ipc
from sandwich_node.agent.configuration import AgentError, OpenSecret
from sandwich_node.agent.dependencies import ServerHealth
from sandwich_node.agent.options import NodeOptions
from sandwich_node.agent.settings_changes import spread_s, without_restart
from sandwich_node.agent.shard_control import ShardControl
from sandwich_node.agent.worker_set import WorkerSet
from sandwich_node.agent.worker_settings import redis_options, worker_settings
from sandwich_node.cache.options import RedisOptions

_log = logging.getLogger(__name__)

POLL_S = 0.1
RETRY_S = 2.0


@dataclass(frozen=True, slots=True)
class WorkerGeneration:
    """What a worker and the streams of its shards are made with; a worker of another generation is replaced."""

    worker: ipc.WorkerSettings
    replicas: int
    max_age_s: float
    max_bytes: int


def worker_generation(options: NodeOptions, settings: ClusterSettings, open_secret: OpenSecret) -> WorkerGeneration:
    """The generation that these settings ask for. Raises SealingError."""
    nats = settings.nats
    worker = worker_settings(options, settings, redis_options(settings, open_secret), open_secret)
    return WorkerGeneration(worker, nats.replicas, nats.max_age_s, nats.max_bytes)


class SettingsFollower:
    """Brings the node in line with the settings that are stored in etcd.

    running   the settings that all parts of the node use; until a change is complete these are the old ones
    wanted    the settings that the node uses, or is going to use
    problem   why the node keeps older settings than those that are stored; None when it does not

    `read` decodes stored settings and raises SealingError or AgentError unless the cluster key authenticates them.
    `use_policy` must not wait.
    """

    def __init__(
        self,
        options: NodeOptions,
        settings: ClusterSettings,
        *,
        read: Callable[[bytes], ClusterSettings],
        open_secret: OpenSecret,
        workers: WorkerSet,
        shards: ShardControl,
        servers: ServerHealth,
        use_policy: Callable[[Policy], None],
        rng: random.Random,
    ) -> None:
        self.running = settings
        self.wanted = settings
        self.problem: Problem | None = None
        self._options = options
        self._read = read
        self._open_secret = open_secret
        self._workers = workers
        self._shards = shards
        self._servers = servers
        self._use_policy = use_policy
        self._rng = rng
        self._stored: bytes | None = None
        self._generation = worker_generation(options, settings, open_secret)
        self._made_with = dict.fromkeys(workers.slots, self._generation)
        self._candidate_with: WorkerGeneration | None = None
        self._ending: set[int] = set()
        self._redis = self._generation.worker.redis
        self._writable: RedisOptions | None = None
        self._begin_at = 0.0
        self._wake = asyncio.Event()

    def follow(self, view: ClusterView) -> None:
        """The view changed."""
        stored = view.config.value if view.config is not None else None
        if stored is None or stored == self._stored:
            return
        self._stored = stored
        try:
            wanted = without_restart(self.running, self._read(stored))
            generation = worker_generation(self._options, wanted, self._open_secret)
        except (SealingError, AgentError) as error:
            self._refuse(str(error))
            return
        self.problem = None
        if generation != self._generation:
            now = asyncio.get_running_loop().time()
            self._begin_at = now + spread_s(len(view.nodes), self._rng.random())
        self.wanted, self._generation = wanted, generation
        self._use_policy(wanted.policy.policy())
        self._wake.set()

    async def run(self) -> None:
        """Replace workers until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                again_s = await self._step(group)
                try:
                    async with asyncio.timeout(again_s):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def _step(self, group: asyncio.TaskGroup) -> float | None:
        """The next step; returns after how many seconds another one follows although nothing changed."""
        refusal = await self._redis_refusal()
        if self._wake.is_set():
            # Other settings came meanwhile.
            return 0.0
        self._end_retiring()
        return self._advance(refusal, group)

    def _advance(self, refusal: Problem | None, group: asyncio.TaskGroup) -> float | None:
        """As `_step`. `refusal`: why the wanted Redis cannot be written."""
        workers = self._workers
        if self._candidate_with != self._generation:
            workers.drop_candidate()
        old = [number for number, made_with in self._made_with.items() if made_with != self._generation]
        if not old:
            self._complete()
            return None
        if workers.stopping or workers.retiring:
            return POLL_S
        now = asyncio.get_running_loop().time()
        if now < self._begin_at:
            return self._begin_at - now
        if refusal is not None:
            self._refuse(refusal.summary)
            return RETRY_S
        if workers.candidate is None:
            self._candidate_with = self._generation
            group.create_task(workers.try_out(self._generation.worker).run())
        candidate = workers.candidate
        assert candidate is not None
        if not candidate.ready:
            if candidate.waiting not in ("", "starting"):
                self._refuse(candidate.waiting)
            return POLL_S
        self.problem = None
        workers.replace(old[0], candidate)
        self._made_with[candidate.index] = self._generation
        _log.info("worker %d has the changed settings and takes the shards of worker %d", candidate.index, old[0])
        self._shards.changed()
        return POLL_S

    def _end_retiring(self) -> None:
        """End each retiring worker once its shards have left it."""
        for number in list(self._workers.retiring):
            worker = self._workers.slots[number]
            if worker.ended.is_set():
                self._workers.remove(number)
                self._ending.discard(number)
                del self._made_with[number]
            elif number not in self._ending and self._shards.has_left(number):
                self._ending.add(number)
                worker.stop()

    async def _redis_refusal(self) -> Problem | None:
        """Why another Redis cannot be used. One that could be written is not asked again for the next worker."""
        wanted = self._generation.worker.redis
        if wanted is None or wanted in (self._redis, self._writable):
            return None
        refusal = await self._servers.redis_refusal(wanted)
        self._writable = wanted if refusal is None else None
        return refusal

    def _complete(self) -> None:
        redis = self._generation.worker.redis
        if redis is not None and redis != self._redis:
            self._redis = redis
            self._servers.use_redis(redis)
        if self.running != self.wanted:
            self.running = self.wanted
            _log.info("the changed settings are in use")

    def _refuse(self, reason: str) -> None:
        node = self._options.node
        found = problem(Code.SETTINGS_REFUSED, f"node/{node}", f"node {node} keeps its settings: {reason}")
        if found != self.problem:
            _log.warning("%s", found.text)
        self.problem = found
