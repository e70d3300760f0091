"""Calls of scripts on one Redis: those of one turn of the loop share a round trip.

The shards of a busy worker apply their batches in the same turn (`publishing.ticks`). Each call then costs a part of a
write, a read and a connection in place of its own. A shard waits for each of its calls, so that its order is kept.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio as redis
from redis.asyncio.connection import AbstractConnection
from redis.connection import HiredisRespSerializer
from redis.exceptions import NoScriptError

from sandwich_node.cache.script import Script

CALLS_MAX = 32
"""As many calls as `RedisCache` makes at once."""
BYTES_MAX = 1024 * 1024
"""Of one round trip: the server answers other clients in between."""

Words = Sequence[str | bytes | int]
_pack = HiredisRespSerializer().pack


def packing_in_c(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """The same connections, which pack commands with hiredis. redis-py's asyncio connections pack word by word."""

    class Packing(kind):  # type: ignore[valid-type,misc]
        def pack_command(self, *args: Any) -> list[bytes]:
            packed: list[bytes] = _pack(*args)
            return packed

    return Packing


@dataclass(slots=True)
class _Call:
    script: Script
    keys: Sequence[str]
    args: Words
    size: int
    answer: asyncio.Future[Any]


class ScriptCalls:
    """The calls of one client."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._waiting: list[_Call] = []
        self._trips: set[asyncio.Task[None]] = set()

    async def run(self, script: Script, keys: Sequence[str], args: Words) -> Any:
        """The script's reply. Raises what redis-py raises for this call."""
        loop = asyncio.get_running_loop()
        size = sum(len(word) for word in args if isinstance(word, str | bytes))
        call = _Call(script, keys, args, size, loop.create_future())
        if not self._waiting:
            loop.call_soon(self._leave)
        self._waiting.append(call)
        return await call.answer

    def _leave(self) -> None:
        waiting, self._waiting = self._waiting, []
        trip: list[_Call] = []
        size = 0
        for call in waiting:
            if call.answer.cancelled():
                continue
            if trip and (len(trip) >= CALLS_MAX or size + call.size > BYTES_MAX):
                self._begin(trip)
                trip, size = [], 0
            trip.append(call)
            size += call.size
        if trip:
            self._begin(trip)

    def _begin(self, trip: list[_Call]) -> None:
        task = asyncio.create_task(self._trip(trip))
        self._trips.add(task)
        task.add_done_callback(self._trips.discard)

    async def _trip(self, trip: list[_Call]) -> None:
        """One round trip. A server that does not know a script receives its text, and stores it."""
        try:
            replies = await self._send(trip, by_text=False)
            unknown = [call for call, reply in zip(trip, replies, strict=True) if isinstance(reply, NoScriptError)]
            again = dict(zip(map(id, unknown), await self._send(unknown, by_text=True), strict=True)) if unknown else {}
        except asyncio.CancelledError:
            for call in trip:
                call.answer.cancel()
            raise
        except Exception as error:
            for call in trip:
                if not call.answer.done():
                    call.answer.set_exception(error)
            return
        for call, reply in zip(trip, replies, strict=True):
            _settle(call.answer, again.get(id(call), reply))

    async def _send(self, calls: Sequence[_Call], *, by_text: bool) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for call in calls:
            name, text = ("EVAL", call.script.text) if by_text else ("EVALSHA", call.script.sha)
            pipeline.execute_command(name, text, len(call.keys), *call.keys, *call.args)
        return await pipeline.execute(raise_on_error=False)

    async def close(self) -> None:
        """End what is under way."""
        for trip in self._trips:
            trip.cancel()
        await asyncio.gather(*self._trips, return_exceptions=True)


def _settle(answer: asyncio.Future[Any], reply: Any) -> None:
    if answer.done():
        return
    if isinstance(reply, Exception):
        answer.set_exception(reply)
    else:
        answer.set_result(reply)
