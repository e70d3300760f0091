"""A TCP proxy whose link can be cut or made slow, to disturb the connection of one node to one server."""

import asyncio
import contextlib

CHUNK = 64 * 1024
CHUNKS_UNDER_WAY_MAX = 256
"""The buffer of a slow link; when it is full, the sender waits."""


class Link:
    """Forwards 127.0.0.1:`port` to `target`. After `cut` it ends its connections and accepts none.

    Data is forwarded after `delay_s`, in each direction.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.delay_s = 0.0
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Accept connections (again, on the same port)."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """End all connections over the link."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(reader, far_writer))
                group.create_task(self._copy(far_reader, writer))
        finally:
            self._writers -= {writer, far_writer}
            for end in (writer, far_writer):
                end.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_UNDER_WAY_MAX)
        async with asyncio.TaskGroup() as group:
            taking = group.create_task(self._take(reader, under_way))
            await _deliver(under_way, writer)
            taking.cancel()

    async def _take(self, reader: asyncio.StreamReader, under_way: asyncio.Queue[tuple[float, bytes]]) -> None:
        clock = asyncio.get_running_loop().time
        chunk: bytes | None = None
        while chunk != b"":
            try:
                chunk = await reader.read(CHUNK)
            except OSError:
                chunk = b""
            await under_way.put((clock() + self.delay_s, chunk))


async def _deliver(under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    """Forward due chunks in order; an empty chunk means the end."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while (item := await under_way.get())[1]:
            due, chunk = item
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
