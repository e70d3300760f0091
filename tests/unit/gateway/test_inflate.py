"""Transport compression: vectors of our own making, corruption, bombs."""

import random
import subprocess
import sys
import zlib

import pytest
import zstandard

from sandwich_node.gateway.inflate import INFLATED_BYTES_MIN, Inflate, InflateError, open_inflate

MIB = 1024 * 1024
HELLO = b'{"t":null,"s":null,"op":10,"d":{"heartbeat_interval":41250}}'

BOMB_UNDER_A_MEMORY_LIMIT = """
import resource, sys, zlib, zstandard
from sandwich_node.gateway.inflate import InflateError, open_inflate
kind = sys.argv[1]
if kind == "zstd-stream":
    stream = zstandard.ZstdCompressor(level=3).compressobj()
    block = bytes(1 << 20)
    bomb = b"".join(stream.compress(block) for _ in range(512)) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
else:
    stream = zlib.compressobj(1)
    block = bytes(1 << 20)
    bomb = b"".join(stream.compress(block) for _ in range(256)) + stream.flush(zlib.Z_SYNC_FLUSH)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    open_inflate(kind, 64 << 20).feed(bomb)
except InflateError as error:
    print(len(bomb), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, error)
"""


class Deflater:
    """The server's side of a compression."""

    def __init__(self, kind: str) -> None:
        self._zstd = zstandard.ZstdCompressor().compressobj() if kind == "zstd-stream" else None
        self._zlib = zlib.compressobj() if kind == "zlib-stream" else None

    def message(self, raw: bytes) -> bytes:
        if self._zstd is not None:
            return self._zstd.compress(raw) + self._zstd.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        if self._zlib is not None:
            return self._zlib.compress(raw) + self._zlib.flush(zlib.Z_SYNC_FLUSH)
        return raw


def messages() -> list[bytes]:
    rng = random.Random(1)
    sizes = [2, 60, 750, 750, 70_000, 300_000, 3 * MIB, 10, 750]
    return [rng.randbytes(size // 2).hex().encode() for size in sizes]


@pytest.mark.parametrize("kind", ["zstd-stream", "zlib-stream", "none"])
def test_every_message_comes_out_as_it_went_in(kind: str) -> None:
    server, inflate = Deflater(kind), open_inflate(kind)
    for raw in messages():
        assert inflate.feed(server.message(raw)) == raw


@pytest.mark.parametrize("kind", ["zstd-stream", "zlib-stream"])
def test_a_message_as_large_as_the_limit_passes_and_one_byte_more_does_not(kind: str) -> None:
    server, inflate = Deflater(kind), open_inflate(kind, 2 * MIB)
    assert inflate.feed(server.message(bytes(2 * MIB))) == bytes(2 * MIB)
    with pytest.raises(InflateError, match="limit"):
        inflate.feed(server.message(random.Random(1).randbytes(2 * MIB + 1)))


def test_a_zlib_message_may_come_in_pieces_of_one_byte_with_its_suffix_split() -> None:
    server, inflate = Deflater("zlib-stream"), open_inflate("zlib-stream")
    for raw in (HELLO, b"x" * 5000):
        whole = server.message(raw)
        outs = [inflate.feed(whole[i : i + 1]) for i in range(len(whole))]
        assert outs[:-1] == [None] * (len(whole) - 1)
        assert outs[-1] == raw


def test_a_zlib_message_without_an_end_is_bounded() -> None:
    inflate = open_inflate("zlib-stream", INFLATED_BYTES_MIN)
    for _ in range(10):
        assert inflate.feed(b"\x01" * 100_000) is None
    with pytest.raises(InflateError, match="without an end"):
        inflate.feed(b"\x01" * 100_000)


def _after_hello(kind: str) -> tuple[Deflater, Inflate]:
    server, inflate = Deflater(kind), open_inflate(kind)
    assert inflate.feed(server.message(HELLO)) == HELLO
    return server, inflate


@pytest.mark.parametrize("kind", ["zstd-stream", "zlib-stream"])
def test_garbage_is_an_inflate_error(kind: str) -> None:
    _, inflate = _after_hello(kind)
    with pytest.raises(InflateError):
        inflate.feed(b"\xfe garbage \x00\x00\xff\xff")


def test_a_truncated_zstd_message_never_gives_the_whole() -> None:
    for cut in (1, 3, 40):
        server, inflate = _after_hello("zstd-stream")
        raw = random.Random(1).randbytes(400).hex().encode()
        with pytest.raises(InflateError):
            inflate.feed(server.message(raw)[:-cut])


def test_a_zstd_frame_that_ends_with_its_message_is_followed_by_a_new_one() -> None:
    inflate, compressor = open_inflate("zstd-stream"), zstandard.ZstdCompressor()
    for raw in (HELLO, b"x" * 5000, HELLO):
        assert inflate.feed(compressor.compress(raw)) == raw
    with pytest.raises(InflateError, match="ends within"):
        inflate.feed(compressor.compress(HELLO) + compressor.compress(HELLO))


def test_a_window_that_would_need_much_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(InflateError):
        open_inflate("zstd-stream").feed(stream.compress(HELLO) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))


@pytest.mark.parametrize("kind", ["zstd-stream", "zlib-stream"])
def test_a_bomb_is_refused_without_the_memory_it_asks_for(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BOMB_UNDER_A_MEMORY_LIMIT, kind], capture_output=True, text=True, timeout=60, check=True
    )
    bomb_bytes, grown_mib, message = done.stdout.split(maxsplit=2)
    assert int(bomb_bytes) < 1_500_000
    assert int(grown_mib) < 128
    assert "limit of 67108864 bytes" in message


def test_the_limit_and_the_compression_are_checked() -> None:
    with pytest.raises(ValueError, match="at least"):
        open_inflate("zstd-stream", 1000)
    with pytest.raises(ValueError, match="brotli"):
        open_inflate("brotli")
    with pytest.raises(InflateError):
        open_inflate("none", INFLATED_BYTES_MIN).feed(bytes(INFLATED_BYTES_MIN + 1))
