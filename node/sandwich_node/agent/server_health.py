"""What etcd, NATS and Redis say about themselves: asked slowly, so that an operator learns of it before it hurts.

Every node asks etcd and Redis: whether it reaches them is its own matter, and who leads may not be known. Only the
leader asks NATS, by way of a worker.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from sandwich_coordinator.findings import Finding
from sandwich_coordinator.store.base import StoreError
from sandwich_coordinator.store.etcd_health import MemberStatus, etcd_findings
from sandwich_node.agent.redis_probe import RedisProbe
from sandwich_node.cache.options import RedisOptions

_log = logging.getLogger(__name__)

EVERY_S = 10.0


class AsksMembers(Protocol):
    """The part of `EtcdStore` that is needed here."""

    async def member_statuses(self) -> Mapping[str, MemberStatus | str]:
        """See `EtcdStore.member_statuses`."""
        ...


class Servers:
    """`ask_nats` has a worker ask NATS, whose answer comes to `nats_said`; False: it is not for this node to ask."""

    def __init__(self, store: AsksMembers, redis: RedisOptions, *, ask_nats: Callable[[], bool]) -> None:
        self._store = store
        self._redis = RedisProbe(redis)
        self._ask_nats = ask_nats
        self._etcd: list[Finding] = []
        self._nats: list[str] = []

    @property
    def waiting(self) -> list[str]:
        """What keeps this node from working as it should."""
        redis = [self._redis.waiting] if self._redis.waiting else []
        return redis + [finding.text for finding in self._findings if finding.blocks]

    @property
    def problems(self) -> list[str]:
        """What else an operator must know."""
        return [finding.text for finding in self._findings if not finding.blocks] + self._nats

    @property
    def _findings(self) -> list[Finding]:
        return [*self._etcd, *self._redis.findings]

    def nats_said(self, texts: list[str]) -> None:
        """A worker asked NATS, and this is wrong."""
        self._log_new(self._nats, texts)
        self._nats = texts

    async def run(self) -> None:
        """Ask for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._redis.run())
            group.create_task(self._look())

    async def _look(self) -> None:
        while True:
            try:
                found = etcd_findings(await self._store.member_statuses())
            except StoreError:
                # Whether etcd answers at all is known from what is asked all the time.
                found = []
            self._log_new([finding.text for finding in self._etcd], [finding.text for finding in found])
            self._etcd = found
            if not self._ask_nats():
                self._nats = []
            await asyncio.sleep(EVERY_S)

    @staticmethod
    def _log_new(before: list[str], now: list[str]) -> None:
        for text in now:
            if text not in before:
                _log.warning("%s", text)
