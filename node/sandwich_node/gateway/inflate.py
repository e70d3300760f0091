"""Transport compression: websocket messages in, gateway messages out, never far above a limit. Pure.

The limit is kept without asking for it at every message: a zstd block takes at least 4 bytes and gives at most
128 KiB (RFC 8878 3.1.1.2), a deflate stream expands at most 1032 times (RFC 1951). Input too short to reach the
limit is inflated in one call; longer input goes in slices, each too short to pass what is left of it.
"""

import zlib
from collections.abc import Callable
from typing import Protocol

import zstandard

INFLATED_BYTES_MAX = 128 * 1024 * 1024
INFLATED_BYTES_MIN = 1024 * 1024
"""The limit is at least this: it is also how far the last slice of a bomb may pass it."""

ZSTD_WINDOW_BYTES_MAX = 8 * 1024 * 1024
_ZSTD_GAIN_MAX = 128 * 1024 // 4
_ZSTD_SLICE_MIN = INFLATED_BYTES_MIN // _ZSTD_GAIN_MAX
_ZSTD_OUTPUT_BYTES = 128 * 1024

_ZLIB_GAIN_MAX = 1032
_ZLIB_SUFFIX = b"\x00\x00\xff\xff"


class InflateError(Exception):
    """Corrupt, truncated or oversized input. The connection cannot go on; the session can."""


class Inflate(Protocol):
    """The decompression context of one connection. After an InflateError it must not be used again."""

    def feed(self, data: bytes) -> bytes | None:
        """Take one websocket message; return the gateway message it completes, None while it is incomplete."""
        ...


class PlainInflate:
    """No compression: each websocket message is a gateway message."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def feed(self, data: bytes) -> bytes | None:
        """Return the message. Raises InflateError above the limit."""
        if len(data) > self._limit:
            raise InflateError(f"a message of {len(data)} bytes is over the limit of {self._limit}")
        return data


class ZstdInflate:
    """zstd-stream: one context; each websocket message is exactly one gateway message, flushed but not ended."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._whole_max = limit // _ZSTD_GAIN_MAX
        self._open()

    def _open(self) -> None:
        context = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX)
        self._stream = context.decompressobj(write_size=_ZSTD_OUTPUT_BYTES)
        self._inflate = self._stream.decompress

    def feed(self, data: bytes) -> bytes | None:
        """Return the message. Raises InflateError when it is corrupt, gives nothing or passes the limit."""
        try:
            raw = self._inflate(data) if len(data) <= self._whole_max else self._feed_sliced(data)
        except zstandard.ZstdError as error:
            raise InflateError(f"corrupt zstd stream: {error}") from error
        if not raw:
            raise InflateError("a zstd message gave no output: it is truncated")
        if self._stream.eof:
            self._next_frame()
        return raw

    def _feed_sliced(self, data: bytes) -> bytes:
        parts: list[bytes] = []
        left = self._limit
        position = 0
        while position < len(data):
            size = max(_ZSTD_SLICE_MIN, left // _ZSTD_GAIN_MAX)
            part = self._inflate(data[position : position + size])
            position += size
            left -= len(part)
            if left < 0:
                raise InflateError(f"a message inflates to more than the limit of {self._limit} bytes")
            parts.append(part)
            if self._stream.eof and position < len(data):
                raise InflateError("a zstd frame ends within a message")
        return b"".join(parts)

    def _next_frame(self) -> None:
        if self._stream.unused_data:
            raise InflateError("a zstd frame ends within a message")
        self._open()


class ZlibInflate:
    """zlib-stream: one context; a gateway message ends with a sync flush and may span websocket messages."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._whole_max = limit // _ZLIB_GAIN_MAX
        self._stream = zlib.decompressobj()
        self._buffer = bytearray()

    def feed(self, data: bytes) -> bytes | None:
        """Return the message, or None until it ends. Raises InflateError when corrupt or over the limit."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) > self._limit:
                raise InflateError(f"more than {self._limit} bytes came without an end of message")
            if not self._buffer.endswith(_ZLIB_SUFFIX):
                return None
            data = bytes(self._buffer)
            self._buffer.clear()
        elif not data.endswith(_ZLIB_SUFFIX):
            self._buffer += data
            return None
        try:
            if len(data) <= self._whole_max:
                raw = self._stream.decompress(data)
            else:
                raw = self._stream.decompress(data, self._limit)
        except zlib.error as error:
            raise InflateError(f"corrupt zlib stream: {error}") from error
        if self._stream.unconsumed_tail:
            raise InflateError(f"a message inflates to more than the limit of {self._limit} bytes")
        if self._stream.eof:
            raise InflateError("the zlib stream ended")
        # A flush without output belongs to the message that follows.
        return raw or None


_BY_NAME: dict[str, Callable[[int], Inflate]] = {
    "zstd-stream": ZstdInflate,
    "zlib-stream": ZlibInflate,
    "none": PlainInflate,
}


def open_inflate(compression: str, limit: int = INFLATED_BYTES_MAX) -> Inflate:
    """A fresh context for a new connection. Raises ValueError for an unknown compression or too low a limit."""
    if limit < INFLATED_BYTES_MIN:
        raise ValueError(f"the limit for inflated messages must be at least {INFLATED_BYTES_MIN} bytes")
    try:
        return _BY_NAME[compression](limit)
    except KeyError:
        raise ValueError(f"unknown compression {compression!r}; known: {', '.join(_BY_NAME)}") from None
