"""How an agent and a worker reach each other: the lines of `ipc.py` over an inherited socket."""

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from sandwich_node.ipc import ToAgent, ToWorker, line_of, read_as_agent, read_as_worker

_log = logging.getLogger(__name__)
_Message = TypeVar("_Message")

LINE_BYTES_MAX = 4 * 1024 * 1024
OUTBOX_BYTES_MAX = 16 * 1024 * 1024


class Channel:
    """One end of the socket. `send` never waits nor fails: only `receive` reports that the peer is gone.

    A peer that has not read for too long counts as gone.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, message: ToWorker | ToAgent) -> None:
        """Queue a message; dropped when the peer is gone."""
        if self._writer.is_closing():
            return
        if self._writer.transport.get_write_buffer_size() > OUTBOX_BYTES_MAX:
            _log.error("the other process does not read its messages: the channel is closed")
            self._writer.transport.abort()
            return
        self._writer.write(line_of(message))

    async def receive_as_worker(self) -> ToWorker | None:
        """The agent's next message; None when the agent is gone."""
        return await self._receive(read_as_worker)

    async def receive_as_agent(self) -> ToAgent | None:
        """The worker's next message; None when the worker is gone."""
        return await self._receive(read_as_agent)

    async def _receive(self, decode: Callable[[bytes], _Message]) -> _Message | None:
        try:
            line = await self._reader.readline()
        except (ConnectionError, ValueError):
            return None
        return decode(line) if line.endswith(b"\n") else None

    async def flush(self, timeout_s: float) -> None:
        """Wait until what was sent has left, at most this long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._writer.drain()
        except (TimeoutError, ConnectionError):
            pass

    def close(self) -> None:
        """Close the socket: the peer reads None."""
        self._writer.close()
