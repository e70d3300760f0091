"""What a worker provides to all its shards."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from sandwich_node import ipc
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.open_files import SocketRoom
from sandwich_node.publishing.log import Log
from sandwich_node.publishing.previous_group import PreviousGroups
from sandwich_node.publishing.ticks import Ticks
from sandwich_node.rest.clients import RestClients
from sandwich_node.rpc.server import RpcServer
from sandwich_node.shards.connection import WebSocketClient
from sandwich_node.shards.failures import FailureLog


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerServices:
    """Shared by the shards of one worker. `send` passes a message to the agent and must not wait.

    `previous` reads shard groups that are replaced, each once for all shards.

    `ticks`: when they publish. `clock` is monotonic, in seconds; `wall` gives Unix seconds.
    """

    log: Log
    previous: PreviousGroups
    http: WebSocketClient
    send: Callable[[ipc.ToAgent], None]
    rng: random.Random
    clock: Callable[[], float]
    wall: Callable[[], float]
    rests: RestClients | None = None
    cache: RedisCache | None = None
    rpc: RpcServer | None = None
    ticks: Ticks = field(default_factory=Ticks)
    failures: FailureLog = field(default_factory=FailureLog)
    room: SocketRoom | None = None
