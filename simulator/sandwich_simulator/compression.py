"""Turns a gateway message into a WebSocket frame, with Discord's compressions (docs/design/protocol.md, section 3)."""

import zlib
from typing import Protocol

import zstandard

TEXT = 0x1
BINARY = 0x2
ZSTD_WINDOW_LOG = 18  # observed on the wire: window byte 0x40
ZSTD_LEVEL = 1
ZLIB_LEVEL = 6
PAYLOAD_BYTES_MIN = 512
TRANSPORTS = frozenset({"", "zlib-stream", "zstd-stream"})


class Compressor(Protocol):
    """The outgoing direction of one connection: a message in, the frame's opcode and bytes out."""

    def encode(self, payload: bytes) -> tuple[int, bytes]: ...


class Plain:
    """No compression: JSON is sent as text."""

    def encode(self, payload: bytes) -> tuple[int, bytes]:
        return TEXT, payload


class PayloadZlib:
    """`compress: true` in IDENTIFY: each large payload is a separate zlib blob; small ones stay text."""

    def encode(self, payload: bytes) -> tuple[int, bytes]:
        if len(payload) < PAYLOAD_BYTES_MIN:
            return TEXT, payload
        return BINARY, zlib.compress(payload, ZLIB_LEVEL)


class ZlibStream:
    """One deflate context per connection, flushed after each message."""

    def __init__(self) -> None:
        self._context = zlib.compressobj(ZLIB_LEVEL)

    def encode(self, payload: bytes) -> tuple[int, bytes]:
        return BINARY, self._context.compress(payload) + self._context.flush(zlib.Z_SYNC_FLUSH)


class ZstdStream:
    """One endless zstd frame per connection; each message is flushed as whole blocks."""

    def __init__(self) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            ZSTD_LEVEL, window_log=ZSTD_WINDOW_LOG, write_content_size=False
        )
        self._context = zstandard.ZstdCompressor(compression_params=parameters).compressobj()

    def encode(self, payload: bytes) -> tuple[int, bytes]:
        return BINARY, self._context.compress(payload) + self._context.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


def transport_compressor(name: str) -> Compressor:
    """The compressor for the query parameter `compress` ("" = none). KeyError for an unknown name."""
    kinds: dict[str, type[Compressor]] = {"": Plain, "zlib-stream": ZlibStream, "zstd-stream": ZstdStream}
    return kinds[name]()


def websocket_frame(opcode: int, data: bytes) -> bytes:
    """One unmasked, final WebSocket frame (RFC 6455, 5.2)."""
    size = len(data)
    if size < 126:
        head = bytes((0x80 | opcode, size))
    elif size < 0x10000:
        head = bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big")
    return head + data
