"""Payload of a frame: one zstd frame of newline-delimited JSON, one event on each line."""

import hashlib

import zstandard

from sandwich_sdk.wire.headers import WireError

FRAME_BYTES_MAX = 512 * 1024 * 1024
"""Upper bound for one inflated frame: far above any event of Discord, and low enough to stop a decompression bomb."""

_READ_BYTES = 1024 * 1024


def session_hash(session_id: str) -> str:
    """The public name of a Discord session. The session id is not published: with the token it resumes the session."""
    return hashlib.sha256(session_id.encode()).hexdigest()[:16]


def inflate(payload: bytes, *, limit: int = FRAME_BYTES_MAX) -> bytes:
    """Inflate a frame's payload. Raises WireError when it is corrupt, truncated or inflates beyond `limit`."""
    chunks = []
    size = 0
    try:
        with zstandard.ZstdDecompressor().stream_reader(payload) as reader:
            while chunk := reader.read(_READ_BYTES):
                size += len(chunk)
                if size > limit:
                    raise WireError(f"frame inflates beyond {limit} bytes")
                chunks.append(chunk)
    except (zstandard.ZstdError, MemoryError) as error:
        raise WireError(f"corrupt frame: {error}") from error
    inflated = b"".join(chunks)
    if not inflated.endswith(b"\n"):
        raise WireError("truncated frame")
    return inflated


def split_events(inflated: bytes) -> list[bytes]:
    """The events of an inflated frame, each as its JSON bytes."""
    return inflated[:-1].split(b"\n") if inflated else []
