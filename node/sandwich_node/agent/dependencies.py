"""What the agent uses outside of its own code, as protocols and factories.

`composition/agent.py` fills them in for a real node, the simulation for a node on virtual time.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from sandwich_coordinator.addresses import Address
from sandwich_coordinator.config import DiscordSettings
from sandwich_coordinator.discord_api import CurrentUser, GatewayBot
from sandwich_coordinator.problems import Code, Problem
from sandwich_coordinator.store.base import Store
from sandwich_node import ipc
from sandwich_node.agent.consumer_lag import ConsumerLag
from sandwich_node.agent.node_facts import NodeFacts
from sandwich_node.cache.options import RedisOptions
from sandwich_node.log_lines import LogRing


class NodeStore(Store, Protocol):
    """The store of a node: etcd."""

    async def server_version(self) -> str:
        """The server's version. Raises StoreError."""


class Worker(Protocol):
    """One worker slot: a process and what it last said of itself. `WorkerProcess` is the real one."""

    index: int
    pid: int
    ready: bool
    waiting: str
    waiting_code: Code
    stats: ipc.WorkerStats

    @property
    def alive(self) -> bool:
        """Whether messages reach the process now."""

    @property
    def ended(self) -> asyncio.Event:
        """`run` is over."""

    def send(self, message: ipc.ToWorker) -> None:
        """Send to the process; a message that it cannot take any more is dropped."""

    async def run(self) -> None:
        """Keep a process alive until `stop`; then set `ended`."""

    def stop(self) -> None:
        """Ask the process to stop its shards and end."""


class MakeWorker(Protocol):
    """Makes a worker slot. The callbacks run on the agent's loop and must not wait."""

    def __call__(
        self,
        settings: ipc.WorkerSettings,
        *,
        on_message: Callable[[Worker, ipc.ToAgent], None],
        on_started: Callable[[Worker], None],
        on_gone: Callable[[Worker], None],
    ) -> Worker:
        """A slot that runs nothing yet."""


class ServerHealth(Protocol):
    """What etcd, NATS and Redis say about themselves. `Servers` is the real one."""

    @property
    def waiting(self) -> Sequence[Problem]:
        """What keeps this node from working as it should."""

    @property
    def problems(self) -> Sequence[Problem]:
        """What else an operator must know."""

    consumers: ConsumerLag

    def use_redis(self, options: RedisOptions) -> None:
        """Ask the Redis of these options from now on."""

    async def redis_refusal(self, options: RedisOptions) -> Problem | None:
        """Why the cache cannot be written with these options now; None when it can."""

    def nats_said(self, said: ipc.NatsSaid, at: float) -> None:
        """A worker asked NATS, and this is wrong."""

    async def run(self) -> None:
        """Ask until cancelled."""


class DiscordApi(Protocol):
    """Discord's REST API as the leader uses it. The methods raise DiscordApiError."""

    async def gateway_bot(self, token: str) -> GatewayBot:
        """`GET /gateway/bot`."""

    async def current_user(self, token: str) -> CurrentUser:
        """`GET /users/@me`."""


Listen = Callable[[NodeFacts, Address], AbstractAsyncContextManager[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDependencies:
    """Everything outside that an agent reaches.

    store               etcd; the agent closes it
    listen              the HTTP server of the node; yields the port. Raises HttpError
    open_discord        Discord's REST API, while the context lasts
    make_worker         a worker slot
    make_server_health  the health checks of the servers; the second argument makes a worker ask NATS
    rng                 for jitter and for the name of this start
    wall                Unix seconds, for records that people read. What waits uses the loop's time
    clock               the machine's monotonic clock, in seconds: workers date their figures by it
    logs                where the log lines of the workers go
    http_problems       what is wrong with the HTTP server
    """

    store: NodeStore
    listen: Listen
    open_discord: Callable[[DiscordSettings], AbstractAsyncContextManager[DiscordApi]]
    make_worker: MakeWorker
    make_server_health: Callable[[RedisOptions, Callable[[], bool]], ServerHealth]
    rng: random.Random
    wall: Callable[[], float]
    clock: Callable[[], float]
    logs: LogRing = field(default_factory=LogRing)
    http_problems: Callable[[], Sequence[Problem]] = tuple
