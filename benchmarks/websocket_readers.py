"""Ways to read messages from many websockets, each as a program: used by benchmarks/websockets.py.

Usage: python -m benchmarks.websocket_readers NAME URL SOCKETS FILE
Prints `ready` when all are connected. The number of messages is in FILE, eight bytes in the machine's order, so that
nothing has to be sent back. On uvloop, as workers are.
"""

import asyncio
import base64
import mmap
import os
import ssl
import sys
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import uvloop


class Counter:
    """The number of messages, in a file that the server maps as well."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._count = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")

    def add(self) -> None:
        """One more."""
        self._count[0] += 1


Connect = Callable[[str, ssl.SSLContext | None, Counter], Awaitable[object]]


async def with_aiohttp(url: str, context: ssl.SSLContext | None, counter: Counter) -> object:
    """As a node reads now: a task for each socket."""
    import aiohttp

    session = aiohttp.ClientSession()
    socket = await session.ws_connect(url, ssl=context or True, compress=0, max_msg_size=0, decode_text=False)

    async def read() -> None:
        while (await socket.receive()).type is aiohttp.WSMsgType.BINARY:
            counter.add()

    return session, asyncio.create_task(read())


async def with_picows(url: str, context: ssl.SSLContext | None, counter: Counter) -> object:
    """picows: a callback for each frame."""
    import picows

    class Listener(picows.WSListener):  # type: ignore[misc]  # not installed beside mypy
        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            frame.get_payload_as_bytes()
            counter.add()

    return await picows.ws_connect(Listener, url, ssl_context=context)


class _Protocol(asyncio.Protocol):
    """A handshake, then frames."""

    def __init__(self, url: str, counter: Counter) -> None:
        self.url = url
        self.counter = counter
        self.opened = asyncio.get_running_loop().create_future()
        self.transport: Any = None


class SansIo(_Protocol):
    """The `websockets` package without its own input and output."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        from websockets.client import ClientProtocol
        from websockets.uri import parse_uri

        self.transport = transport
        self.protocol = ClientProtocol(parse_uri(self.url), max_size=None)
        self.protocol.send_request(self.protocol.connect())
        self._send()

    def _send(self) -> None:
        for data in self.protocol.data_to_send():
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            if self.opened.done():
                bytes(event.data)
                self.counter.add()
            else:
                self.opened.set_result(None)
        self._send()


class Plain(_Protocol):
    """The least that reads a server's frames: no fragments, no control frames, no checks. A floor, not a candidate."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.rest = transport, b""
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET / HTTP/1.1\r\nHost: {urlsplit(self.url).netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.transport.write(f"{head}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        if self.rest:
            data, self.rest = self.rest + data, b""
        at, end = 0, len(data)
        if not self.opened.done():
            at = data.find(b"\r\n\r\n") + 4
            if at < 4:
                self.rest = data
                return
            self.opened.set_result(None)
        while end - at >= 2:
            size, begin = data[at + 1], at + 2
            if size >= 126:
                wide = 2 if size == 126 else 8
                begin += wide
                if end < begin:
                    break
                size = int.from_bytes(data[begin - wide : begin], "big")
            if end - begin < size:
                break
            data[begin : begin + size]
            self.counter.add()
            at = begin + size
        self.rest = data[at:]


def on_protocol(kind: type[_Protocol]) -> Connect:
    """A socket of the event loop with this protocol."""

    async def connect(url: str, context: ssl.SSLContext | None, counter: Counter) -> object:
        parts = urlsplit(url)
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(
            lambda: kind(url, counter),
            parts.hostname or "",
            parts.port or 0,
            ssl=context,
            server_hostname="" if context else None,
        )
        await protocol.opened
        return protocol

    return connect


READERS: dict[str, Connect] = {
    "aiohttp": with_aiohttp,
    "picows": with_picows,
    "websockets sans-IO": on_protocol(SansIo),
    "a bare protocol": on_protocol(Plain),
}


async def main(name: str, url: str, sockets: int, path: str) -> None:
    """Connect all, then count until killed."""
    context = None
    if url.startswith("wss:"):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    counter = Counter(path)
    kept = [await READERS[name](url, context, counter) for _ in range(sockets)]
    print("ready", flush=True)
    await asyncio.Event().wait()
    del kept


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
