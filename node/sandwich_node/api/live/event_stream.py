"""Server-sent events (WHATWG HTML, section 9.2): their text, and readers with a bounded buffer.

A reader that does not keep up is cut off and never waited for. A browser's `EventSource` connects again by itself and
sends `Last-Event-ID`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from sandwich_node.api.problem_details import ApiError
from sandwich_sdk.wire.plain_text import plain_json

EVENT_STREAM = "text/event-stream"
HEARTBEAT_S = 15.0
"""Proxies close connections on which nothing passes, often after 30 or 60 s."""
STREAM_S_MAX = 900.0
"""A stream ends after so long, so that its reader has to show again who it is: a role may have been taken away."""
RETRY_MS = 2000
BUFFER_CHUNKS_MAX = 256
BUFFER_BYTES_MAX = 8 * 1024 * 1024
HEARTBEAT = b": \n\n"
FIRST = f"retry: {RETRY_MS}\n\n".encode()


def sse(event: str, data: Any, *, id: str = "") -> bytes:
    """One event with JSON as its data, on one line."""
    return sse_text(event, plain_json(msgspec.json.encode(data).decode()), id=id)


def sse_text(event: str, data: str, *, id: str = "") -> bytes:
    """One event with this line as its data."""
    head = f"id: {id}\n" if id else ""
    return f"{head}event: {event}\ndata: {data}\n\n".encode()


class Reader:
    """The chunks for one reader, bounded in number and bytes. `is_cut`: it did not keep up, or its stream has ended."""

    def __init__(self, *, chunks_max: int = BUFFER_CHUNKS_MAX, bytes_max: int = BUFFER_BYTES_MAX) -> None:
        self.is_cut = False
        self._chunks_max = chunks_max
        self._bytes_max = bytes_max
        self._chunks: deque[bytes] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether another chunk would cut the reader off."""
        return len(self._chunks) >= self._chunks_max or self._bytes >= self._bytes_max

    def put(self, chunk: bytes) -> None:
        """Add a chunk, or cut the reader off. One chunk is taken whatever its size."""
        if self.is_full:
            self.cut()
        elif not self.is_cut:
            self._chunks.append(chunk)
            self._bytes += len(chunk)
            self._wake.set()

    def cut(self) -> None:
        """End the stream. What was not sent is dropped: the reader connects again and resumes."""
        self.is_cut = True
        self._chunks.clear()
        self._bytes = 0
        self._wake.set()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The chunks as they come, with heartbeats between, until the reader is cut off or the stream is old."""
        clock = asyncio.get_running_loop().time
        ends_at = clock() + STREAM_S_MAX
        yield FIRST
        while not self.is_cut and (left := ends_at - clock()) > 0:
            if self._chunks:
                taken = b"".join(self._chunks)
                self._chunks.clear()
                self._bytes = 0
                yield taken
                continue
            self._wake.clear()
            try:
                async with asyncio.timeout(min(HEARTBEAT_S, left)):
                    await self._wake.wait()
            except TimeoutError:
                yield HEARTBEAT


class Places:
    """How many readers there may be at a time."""

    def __init__(self, most: int) -> None:
        self.taken = 0
        self._most = most

    def check(self) -> None:
        """Raise ApiError when all are taken."""
        if self.taken >= self._most:
            raise ApiError(
                "unavailable", f"this node serves {self._most} streams of this kind already: try another node", (), 5.0
            )

    def __enter__(self) -> None:
        self.taken += 1

    def __exit__(self, *_: object) -> None:
        self.taken -= 1
