"""Calls of scripts on one Redis: those of one turn of the loop share a round trip, and a call where the script allows.

The shards of a busy worker apply their batches in the same turn (`publishing.ticks`). Each of them then costs a part of
a call, a write, a read and a connection in place of its own. A shard waits for each of its calls, so that its order is
kept.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis.asyncio as redis
from hiredis import pack_command
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.connection import HiredisRespSerializer
from redis.exceptions import InvalidResponse, NoPermissionError, NoScriptError, ResponseError

from sandwich_node.cache.script import Script

CALLS_MAX = 32
"""As many calls as `RedisCache` makes at once."""
BYTES_MAX = 1024 * 1024
"""Of one round trip: the server answers other clients in between."""
JOINED_BYTES_MAX = 64 * 1024
"""Of the parts of one call, so that it blocks the server for some milliseconds at most."""
IDLE_MAX = 8
"""Connections that are kept for the next round trips: several are under way while Redis takes longer than a tick."""

Words = Sequence[str | bytes | int]
OnReply = Callable[[Any], None]
_pack_any = HiredisRespSerializer().pack


def packing_in_c(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """The same connections, which pack commands with hiredis. redis-py's asyncio connections pack word by word."""

    class Packing(kind):  # type: ignore[valid-type,misc]
        def pack_command(self, *args: Any) -> list[bytes]:
            packed: list[bytes] = _pack_any(*args)
            return packed

    return Packing


@dataclass(slots=True)
class _Part:
    """One caller's keys and arguments. `answer`: where the caller waits, if it can give up."""

    script: Script
    keys: Sequence[str]
    args: Words
    size: int
    on_reply: OnReply
    answer: asyncio.Future[Any] | None = None


class _Call:
    """One run of a script: the parts of several callers, or all of one."""

    __slots__ = ("is_settled", "parts", "script", "size")

    def __init__(self, part: _Part) -> None:
        self.script = part.script
        self.is_settled = False
        self.parts = [part]
        self.size = part.size

    def takes(self, part: _Part) -> bool:
        """Take the part into this call, if it can be."""
        if not self.script.has_parts or part.script is not self.script or self.size + part.size > JOINED_BYTES_MAX:
            return False
        if len(self.parts) >= CALLS_MAX:
            return False
        self.parts.append(part)
        self.size += part.size
        return True

    def command(self, *, by_text: bool) -> list[Any]:
        name, text = ("EVAL", self.script.text) if by_text else ("EVALSHA", self.script.sha)
        words: list[Any] = [name, text, sum(len(part.keys) for part in self.parts)]
        for part in self.parts:
            words += part.keys
        for part in self.parts:
            if self.script.has_parts:
                words.append(len(part.args))
            words += part.args
        return words

    def may_be_split(self, reply: Any) -> bool:
        """Whether its parts are to be sent one by one after this reply."""
        return isinstance(reply, NoPermissionError) and len(self.parts) > 1

    def settle(self, reply: Any) -> None:
        """Give each part its reply: an exception, or what the script returned."""
        self.is_settled = True
        replies = reply
        if not self.script.has_parts or isinstance(reply, BaseException):
            replies = [reply] * len(self.parts)
        elif not isinstance(reply, list) or len(reply) != len(self.parts):
            replies = [InvalidResponse("not a reply for each part")] * len(self.parts)
        for part, its in zip(self.parts, replies, strict=True):
            part.on_reply(its)


class ScriptCalls:
    """The calls of one client. `timeout_s`: how long each reply may take."""

    def __init__(self, client: redis.Redis | RedisCluster, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._waiting: list[_Part] = []
        self._trips: dict[asyncio.Task[None], list[_Call]] = {}
        self._idle: list[AbstractConnection] = []

    async def run(self, script: Script, keys: Sequence[str], args: Words) -> Any:
        """The script's reply. Raises what redis-py raises for this call."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._add(_Part(script, keys, args, _size(args), partial(_settle, answer), answer))
        return await answer

    def submit(self, script: Script, keys: Sequence[str], args: Words, size: int, on_reply: OnReply) -> None:
        """As `run`, but give the reply, or an exception, to a function. `size`: about how many bytes `args` have."""
        self._add(_Part(script, keys, args, size, on_reply))

    def _add(self, part: _Part) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._leave)
        self._waiting.append(part)

    def _leave(self) -> None:
        waiting, self._waiting = self._waiting, []
        trip: list[_Call] = []
        size = 0
        for call in self._joined(waiting):
            if trip and (len(trip) >= CALLS_MAX or size + call.size > BYTES_MAX):
                self._begin(trip)
                trip, size = [], 0
            trip.append(call)
            size += call.size
        if trip:
            self._begin(trip)

    def _joined(self, waiting: Sequence[_Part]) -> Iterator[_Call]:
        """The calls for what waits. On a Redis Cluster each part has a slot of its own."""
        call: _Call | None = None
        for part in waiting:
            if part.answer is not None and part.answer.cancelled():
                continue
            if call is not None and not isinstance(self._client, RedisCluster) and call.takes(part):
                continue
            if call is not None:
                yield call
            call = _Call(part)
        if call is not None:
            yield call

    def _begin(self, trip: list[_Call]) -> None:
        task = asyncio.create_task(self._trip(trip))
        self._trips[task] = trip
        task.add_done_callback(self._trips.pop)

    async def _trip(self, trip: list[_Call]) -> None:
        """One round trip, or two: a server that does not know a script receives its text, and stores it.

        Redis refuses a call with a single key that the user may not use. The other parts are not at fault.
        """
        replies: Sequence[Any]
        try:
            replies = await self._send(trip, by_text=False)
            unknown = [call for call, reply in zip(trip, replies, strict=True) if isinstance(reply, NoScriptError)]
            if unknown:
                again = dict(zip(map(id, unknown), await self._send(unknown, by_text=True), strict=True))
                replies = [again.get(id(call), reply) for call, reply in zip(trip, replies, strict=True)]
        except Exception as error:
            replies = [error] * len(trip)
        apart: list[_Call] = []
        for call, reply in zip(trip, replies, strict=True):
            if call.may_be_split(reply):
                apart += map(_Call, call.parts)
                call.is_settled = True
            else:
                call.settle(reply)
        for at in range(0, len(apart), CALLS_MAX):
            self._begin(apart[at : at + CALLS_MAX])

    async def _send(self, calls: Sequence[_Call], *, by_text: bool) -> list[Any]:
        commands = [call.command(by_text=by_text) for call in calls]
        client = self._client
        if isinstance(client, RedisCluster):
            pipeline = client.pipeline()
            for command in commands:
                pipeline.execute_command(*command)
            # A server that cannot be reached fails all of it. Calls one by one would each wait for that server:
            # redis-py asks it about the cluster after every failure.
            return await pipeline.execute(raise_on_error=False)
        connection = await self._connected(client)
        try:
            replies = await self._exchange(connection, commands)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        if len(self._idle) < IDLE_MAX:
            self._idle.append(connection)
        else:
            await connection.disconnect(nowait=True)
        return replies

    async def _exchange(self, connection: AbstractConnection, commands: Sequence[list[Any]]) -> list[Any]:
        packed = [pack_command(tuple(command)) for command in commands]
        replies: list[Any] = []
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._timeout_s) as deadline:
            await connection.send_packed_command(packed, check_health=False)
            for _ in commands:
                if replies:
                    deadline.reschedule(loop.time() + self._timeout_s)
                try:
                    replies.append(await connection.read_response())
                except ResponseError as error:
                    replies.append(error)
        return replies

    async def _connected(self, client: redis.Redis) -> AbstractConnection:
        """A connection of its own. Its deadlines are set here: those of redis-py cost a task for each write."""
        while self._idle:
            idle = self._idle.pop()
            try:
                is_closed = await idle.can_read()
            except BaseException:
                await idle.disconnect(nowait=True)
                raise
            if not is_closed:
                return idle
            # The server closed it.
            await idle.disconnect(nowait=True)
        connection: AbstractConnection = client.connection_pool.make_connection()
        await connection.connect()
        connection.socket_timeout = None
        return connection

    async def close(self) -> None:
        """End what is under way, and what has not left yet."""
        waiting, self._waiting = self._waiting, []
        trips = dict(self._trips)
        for task in trips:
            task.cancel()
        await asyncio.gather(*trips, return_exceptions=True)
        # Here and not in the tasks: one that has not begun is cancelled without a trace.
        for call in (*map(_Call, waiting), *(call for trip in trips.values() for call in trip)):
            if not call.is_settled:
                call.settle(asyncio.CancelledError())
        while self._idle:
            await self._idle.pop().disconnect(nowait=True)


def _size(args: Words) -> int:
    return sum(len(word) for word in args if isinstance(word, str | bytes))


def _settle(answer: asyncio.Future[Any], reply: Any) -> None:
    if answer.done():
        return
    if isinstance(reply, asyncio.CancelledError):
        answer.cancel()
    elif isinstance(reply, Exception):
        answer.set_exception(reply)
    else:
        answer.set_result(reply)
