"""The gateway's sockets on aiohttp: a thin shell around `Connection` that moves bytes and reads the clock."""

import asyncio
from collections.abc import Callable

from aiohttp import WSMsgType, web

from .clock import Now
from .compression import TRANSPORTS, transport_compressor
from .gateway import Gateway
from .protocol import Connection
from .socket_writer import SocketWriter

MESSAGE_BYTES_MAX = 1024 * 1024  # far above Discord's 4096, so that the protocol answers 4002, not aiohttp
CLOSE_TIMEOUT_S = 2.0
TICK_S = 0.02
EXPIRE_S = 1.0
BACKFILL_GUILDS = 16


class GatewayServer:
    """Accepts gateway connections and runs their timers."""

    def __init__(self, gateway: Gateway, clock: Callable[[], Now]) -> None:
        self._gateway = gateway
        self._clock = clock
        self.connections: dict[Connection, SocketWriter] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One gateway connection, from the HTTP upgrade to its end."""
        now = self._clock()
        transport = request.transport
        if transport is None or self._gateway.faults.is_refusing(now.mono):
            if transport is not None:
                transport.abort()
            return web.Response(status=503)
        compress = request.query.get("compress", "")
        if request.query.get("encoding", "json") != "json" or compress not in TRANSPORTS:
            return web.json_response({"message": "encoding is json; compress zlib-stream or zstd-stream"}, status=400)
        websocket = web.WebSocketResponse(timeout=CLOSE_TIMEOUT_S, compress=False, max_msg_size=MESSAGE_BYTES_MAX)
        await websocket.prepare(request)
        version = request.query.get("v", "6")
        connection = Connection(self._gateway, version=version, host=request.host, compress=compress)
        writer = SocketWriter(connection, transport_compressor(compress), websocket, transport, self._clock)
        self.connections[connection] = writer
        try:
            connection.open(self._clock())
            await self._serve(connection, writer, websocket)
        finally:
            del self.connections[connection]
        return websocket

    async def _serve(self, connection: Connection, writer: SocketWriter, websocket: web.WebSocketResponse) -> None:
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(writer.run())
            code = await self._read(connection, websocket)
            connection.closed(code, self._clock())
            if not connection.outbox.is_closed:
                writing.cancel()

    async def _read(self, connection: Connection, websocket: web.WebSocketResponse) -> int | None:
        """Reads until the connection ends; returns the client's close code, None when it sent none."""
        while True:
            message = await websocket.receive()
            if message.type is WSMsgType.TEXT:
                connection.receive(message.data.encode(), self._clock())
            elif message.type is WSMsgType.BINARY:
                connection.receive(message.data, self._clock())
            elif message.type is WSMsgType.CLOSE:
                return message.data if isinstance(message.data, int) and message.data else None
            else:
                return None

    async def keep_time(self) -> None:
        """Runs deadlines, backfills and resume windows until cancelled."""
        expire_at = 0.0
        while True:
            now = self._clock()
            for connection in list(self.connections):
                deadline = connection.deadline()
                if deadline is not None and deadline <= now.mono:
                    connection.tick(now)
            if now.mono >= expire_at:
                self._gateway.expire(now)
                expire_at = now.mono + EXPIRE_S
            self._gateway.deliver_due(now)
            has_more = self._gateway.pump(now, guilds=BACKFILL_GUILDS)
            await asyncio.sleep(0 if has_more else TICK_S)
