"""What etcd, NATS and Redis report about themselves: asked every ten seconds, so that an operator sees it early.

Every node asks etcd and Redis: only it knows whether it reaches them, and the leader may not be known. Only the leader
asks NATS, through a worker.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from sandwich_coordinator.problems import Code, Problem, Severity, problem
from sandwich_coordinator.store.base import StoreError
from sandwich_coordinator.store.etcd_health import MemberStatus, etcd_problems
from sandwich_node.agent.consumer_lag import ConsumerLag
from sandwich_node.agent.redis_probe import RedisProbe, redis_refusal
from sandwich_node.cache.options import RedisOptions
from sandwich_node.ipc import NatsSaid

_log = logging.getLogger(__name__)

EVERY_S = 10.0


class AsksMembers(Protocol):
    """The part of `EtcdStore` that is needed here."""

    @property
    def tls_refused(self) -> str:
        """See `EtcdStore.tls_refused`."""
        ...

    async def member_statuses(self) -> Mapping[str, MemberStatus | str]:
        """See `EtcdStore.member_statuses`."""
        ...


class Servers:
    """`ask_nats` has a worker ask NATS, whose answer comes to `nats_said`; False: it is not for this node to ask."""

    def __init__(self, store: AsksMembers, redis: RedisOptions, *, ask_nats: Callable[[], bool]) -> None:
        self._store = store
        self._redis = RedisProbe(redis)
        self._ask_nats = ask_nats
        self._etcd: list[Problem] = []
        self._nats: list[Problem] = []
        self.consumers = ConsumerLag()

    @property
    def waiting(self) -> list[Problem]:
        """What keeps this node from working as it should."""
        redis = [self._redis.waiting] if self._redis.waiting is not None else []
        return redis + [found for found in self._found if found.severity is Severity.CRITICAL]

    @property
    def problems(self) -> list[Problem]:
        """What else is wrong."""
        return [found for found in self._found if found.severity is not Severity.CRITICAL] + self._nats

    @property
    def _found(self) -> list[Problem]:
        return [*self._etcd, *self._redis.problems]

    def use_redis(self, options: RedisOptions) -> None:
        """Ask the Redis of these options from now on."""
        self._redis.use(options)

    async def redis_refusal(self, options: RedisOptions) -> Problem | None:
        """Why the cache cannot be written with these options now; None when it can."""
        return await redis_refusal(options)

    def nats_said(self, said: NatsSaid, at: float) -> None:
        """A worker asked NATS. `at` is Unix seconds."""
        self._log_new(self._nats, said.problems)
        self._nats = said.problems
        self.consumers.note(said.consumers, said.dead_letters, at)

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._redis.run())
            group.create_task(self._look())

    async def _look(self) -> None:
        while True:
            try:
                found = etcd_problems(await self._store.member_statuses())
            except StoreError:
                # Whether etcd answers at all is known from what is asked all the time.
                found = []
            if why := self._store.tls_refused:
                words = f"the changed TLS files for etcd cannot be used, and those before stay: {why}"
                found.append(problem(Code.CERTIFICATE_REFUSED, "etcd", words))
            self._log_new(self._etcd, found)
            self._etcd = found
            if not self._ask_nats():
                self._nats = []
                self.consumers.forget()
            await asyncio.sleep(EVERY_S)

    @staticmethod
    def _log_new(before: list[Problem], now: list[Problem]) -> None:
        for found in now:
            if found not in before:
                _log.warning("%s", found.text)
