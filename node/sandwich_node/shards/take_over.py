"""How a shard's new owner takes its chain over."""

import asyncio
import random

from sandwich_coordinator.backoff import jittered_s
from sandwich_node import ipc
from sandwich_node.publishing.chain import Chain, Checkpoint
from sandwich_node.publishing.log import Log, LogError, StreamLimits

STREAM_RETRY_S = 1.0


class TakeOver:
    """Makes sure of the application's stream, then appends the fence frame. `waiting`: for what; "" for nothing."""

    def __init__(self, start: ipc.StartShard, log: Log, chain: Chain, rng: random.Random) -> None:
        self._app = start.key.app
        self._limits = StreamLimits(
            max_age_s=start.stream_max_age_s, max_bytes=start.stream_max_bytes, replicas=start.stream_replicas
        )
        self._log = log
        self._chain = chain
        self._rng = rng
        self.waiting = ""

    async def run(self) -> Checkpoint:
        """Returns the checkpoint before the fence frame. Waits while the log is away. Raises Fenced."""
        self._log.limit_stream(self._app, self._limits)
        while True:
            try:
                await self._log.ensure_stream(self._app)
            except LogError as error:
                self.waiting = str(error)
                await asyncio.sleep(jittered_s(STREAM_RETRY_S, self._rng))
            else:
                self.waiting = ""
                return await self._chain.take_over()
