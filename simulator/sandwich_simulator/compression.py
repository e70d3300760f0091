"""How one gateway message becomes one WebSocket frame: the four compressions Discord offers (section 3)."""

import zlib
from typing import Protocol

import zstandard

TEXT = 0x1
BINARY = 0x2
ZSTD_WINDOW_LOG = 18  # seen on the wire: window byte 0x40
ZSTD_LEVEL = 1
ZLIB_LEVEL = 6
PAYLOAD_BYTES_MIN = 512
TRANSPORTS = frozenset({"", "zlib-stream", "zstd-stream"})


class Compressor(Protocol):
    """One connection's outgoing half: a message in, the frame's opcode and bytes out."""

    def encode(self, payload: bytes) -> tuple[int, bytes]: ...


class Plain:
    """No compression: JSON arrives as text."""

    def encode(self, payload: bytes) -> tuple[int, bytes]:
        return TEXT, payload


class PayloadZlib:
    """IDENTIFY's `compress: true`: every large payload is a zlib blob of its own, small ones stay text."""

    def encode(self, payload: bytes) -> tuple[int, bytes]:
        if len(payload) < PAYLOAD_BYTES_MIN:
            return TEXT, payload
        return BINARY, zlib.compress(payload, ZLIB_LEVEL)


class ZlibStream:
    """One deflate context a connection, flushed after every message."""

    def __init__(self) -> None:
        self._context = zlib.compressobj(ZLIB_LEVEL)

    def encode(self, payload: bytes) -> tuple[int, bytes]:
        return BINARY, self._context.compress(payload) + self._context.flush(zlib.Z_SYNC_FLUSH)


class ZstdStream:
    """One zstd frame a connection that never ends; every message is flushed as whole blocks."""

    def __init__(self) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            ZSTD_LEVEL, window_log=ZSTD_WINDOW_LOG, write_content_size=False
        )
        self._context = zstandard.ZstdCompressor(compression_params=parameters).compressobj()

    def encode(self, payload: bytes) -> tuple[int, bytes]:
        return BINARY, self._context.compress(payload) + self._context.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


def transport_compressor(name: str) -> Compressor:
    """The compressor of a connection's `compress` query parameter ("" = none). KeyError on any other name."""
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
