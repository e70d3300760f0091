"""Writes one socket's outbox as compressed frames. A thin shell without decisions.

It builds frames and writes them in large chunks. With a system call for each message, the simulator would be slower
than the client in a benchmark.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable

from aiohttp import web

from .clock import Now
from .compression import BINARY, TEXT, Compressor, PayloadZlib, websocket_frame
from .outbox import Close, CompressPayloads, Cut, Item, Raw
from .protocol import Connection

BATCH_ITEMS = 256
CHUNK_BYTES = 64 * 1024
BUFFER_BYTES_MAX = 512 * 1024
BUFFER_POLL_S = 0.002
STALL_POLL_S = 0.01


class SocketWriter:
    """Writes a connection's outbox until it contains Close or Cut."""

    def __init__(
        self,
        connection: Connection,
        compressor: Compressor,
        websocket: web.WebSocketResponse,
        transport: asyncio.Transport,
        clock: Callable[[], Now],
    ) -> None:
        self._connection = connection
        self._outbox = connection.outbox
        self._compressor = compressor
        self._websocket = websocket
        self._transport = transport
        self._clock = clock
        self._wanted = asyncio.Event()
        self._chunks: deque[bytes] = deque()
        self._outbox.wake = self._wanted.set
        self._wanted.set()

    def prepare(self, payloads: Iterable[bytes]) -> None:
        """Compresses and frames payloads now, behind all queued items; writes as fast as the socket accepts."""
        if self._outbox.is_closed:
            return
        self._encode(self._outbox.take(len(self._outbox)))
        self._encode(payloads)

    @property
    def is_idle(self) -> bool:
        """Whether everything has been passed to the socket."""
        return not self._chunks and not len(self._outbox) and not self._transport.get_write_buffer_size()

    def release(self) -> None:
        """Starts writing the prepared frames."""
        self._wanted.set()

    async def run(self) -> None:
        """Writes until the connection should end, then ends it."""
        while not self._transport.is_closing():
            await self._wanted.wait()
            self._wanted.clear()
            ending: Close | Cut | None = None
            while ending is None and (self._chunks or len(self._outbox)):
                await self._hold()
                ending = self._encode(self._outbox.take(BATCH_ITEMS))
                await self._write()
            if ending is not None:
                await self._end(ending)
                return

    async def _hold(self) -> None:
        while self._connection.stalled_until > self._clock().mono and not self._outbox.is_cut:  # noqa: ASYNC110
            await asyncio.sleep(STALL_POLL_S)

    def _encode(self, items: Iterable[Item]) -> Close | Cut | None:
        parts: list[bytes] = []
        size = 0
        ending: Close | Cut | None = None
        for item in items:
            if isinstance(item, bytes):
                frame = websocket_frame(*self._compressor.encode(item))
            elif isinstance(item, Raw):
                frame = websocket_frame(TEXT if item.text else BINARY, item.data)
            elif isinstance(item, CompressPayloads):
                self._compressor = PayloadZlib()
                continue
            else:
                ending = item
                break
            parts.append(frame)
            size += len(frame)
            if size >= CHUNK_BYTES:
                self._chunks.append(b"".join(parts))
                parts, size = [], 0
        if parts:
            self._chunks.append(b"".join(parts))
        return ending

    async def _write(self) -> None:
        while self._chunks and not self._transport.is_closing():
            if not self._is_full():
                self._transport.write(self._chunks.popleft())
            elif self._outbox.is_cut:
                self._chunks.clear()
            else:
                await asyncio.sleep(BUFFER_POLL_S)
        await asyncio.sleep(0)

    def _is_full(self) -> bool:
        return self._transport.get_write_buffer_size() > BUFFER_BYTES_MAX

    async def _end(self, ending: Close | Cut) -> None:
        if isinstance(ending, Close):
            await self._websocket.close(code=ending.code, message=ending.reason.encode())
        elif ending.reset:
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        elif self._is_full():
            self._transport.abort()
        else:
            self._transport.close()
