"""Where requests reach a running shard: gateway commands, and consumers' own events."""

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

from sandwich_node import ipc
from sandwich_node.cache.group_switch import shards_before
from sandwich_node.gateway import events as ev
from sandwich_node.gateway import opcodes
from sandwich_node.publishing.own_events import OwnEvent
from sandwich_node.publishing.publisher import ShardPublisher
from sandwich_node.rpc.shard import Leaving, ShardCommands, ShardGone
from sandwich_node.shards.connection import ShardConnection
from sandwich_node.shards.services import WorkerServices
from sandwich_sdk.wire.rpc import TIMEOUT, UNAVAILABLE, RpcError
from sandwich_sdk.wire.subjects import DEFAULT_LANE

OWN_TIMEOUT_S = 10.0
"""How long it may take to store a consumer's own event."""


class CommandPort:
    """Takes requests for one shard. `bot` and `lane` say what is so at the moment of a request.

    Without an attached connection, commands are refused: the shard does not run yet, or it stops.
    """

    def __init__(
        self,
        start: ipc.StartShard,
        services: WorkerServices,
        publisher: ShardPublisher,
        *,
        bot: Callable[[], str],
        lane: Callable[[str], str | None],
    ) -> None:
        self._start = start
        self._key = start.key
        self._rpc = services.rpc
        self._publisher = publisher
        self._lane = lane
        self._connection: ShardConnection | None = None
        self._refusal = ""
        self.commands = ShardCommands(
            app=start.key.app,
            namespace=start.options.cache.namespace_of(start.key.app),
            intents=start.intents,
            bot=bot,
            send=self._send,
            relay=self._publish_own,
            presence=lambda: self._connection.presence if self._connection is not None else None,
            cache=services.cache,
            rng=services.rng,
            clock=services.clock,
        )

    def attach(self, connection: ShardConnection) -> None:
        """Commands go to this connection from now on."""
        self._connection = connection

    def detach(self) -> None:
        """Take no more commands."""
        self._connection = None

    async def open(self, *, withheld: bool = False) -> None:
        """Take consumers' requests. `withheld`: of an upcoming group's shard, requests wait until `release`.

        Only a presence is set at once: the session shows it.
        """
        if withheld:
            self.commands.withhold()
        if self._rpc is not None:
            await self._rpc.add_shard(self._key, self.commands)

    def release(self) -> None:
        """Handle all requests from now on."""
        self.commands.release()

    async def close(self) -> None:
        """Take no more requests, and end those that are being handled."""
        if self._rpc is not None:
            await self._rpc.remove_shard(self._key)
        await self.commands.close()

    async def first_presence(self) -> dict[str, Any] | None:
        """The presence for the first session: what the bot shows on the shard that this one replaces.

        A request may have set it. Without such a shard, or if it does not answer, the configured one.
        """
        previous, configured = self._start.previous, self._start.presence
        if previous is None or self._rpc is None:
            return configured
        shards = shards_before(self._key.shard, self._start.count, previous.count, previous.ids)
        if not shards:
            return configured
        return await self._rpc.presence_of(self._key._replace(group=previous.group, shard=shards[0])) or configured

    def show_presence(self, presence: dict[str, Any]) -> None:
        """Send the presence once the shard is live. The machine keeps it for every later IDENTIFY."""
        if self._connection is not None:
            self._connection.post(ev.CommandQueued(opcodes.PRESENCE_UPDATE, presence))

    def refused(self, reason: str) -> None:
        """The machine did not take the command."""
        self._refusal = reason

    def _send(self, op: int, data: dict[str, Any]) -> None:
        """Queue a gateway command. Raises ValueError with the reason when the machine does not take it."""
        if self._connection is None:
            raise Leaving
        self._refusal = ""
        self._connection.post(ev.CommandQueued(op, data))
        if self._refusal:
            raise ValueError(self._refusal)

    async def _publish_own(self, event: OwnEvent) -> str:
        if self._connection is None:
            raise ShardGone
        lane = self._lane(event.type) or DEFAULT_LANE
        try:
            async with asyncio.timeout(OWN_TIMEOUT_S):
                return await self._publisher.publish_own(event, uuid.uuid4().hex, lane=lane)
        except ValueError as error:
            raise RpcError(UNAVAILABLE, str(error), 1.0) from None
        except TimeoutError:
            raise RpcError(TIMEOUT, f"not stored within {OWN_TIMEOUT_S:.0f} s: it may still be") from None
