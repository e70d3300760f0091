"""Requests to a cluster over NATS, wire contract version 1.

A request is a JSON object, sent to `sandwich.<app>.rpc.<verb>` with a reply inbox. The answer is
`{"v":1,"ok":true,"result":...}` or `{"v":1,"ok":false,"error":{"code":...,"message":...,"retry_after":seconds}}`. One
that is long comes in parts: `Sandwich-Part: i/n` on each message, in order; put together, it is a zstd frame when the
parts say `Content-Encoding: zstd`. NATS itself answers with status 503 when nobody has the shard at this moment: try
again.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import zstandard

from sandwich_sdk.wire.frame import inflate
from sandwich_sdk.wire.headers import CONTENT_ENCODING, PART, UNREADABLE, WireError

RPC_VERSION: Final = 1
COMPRESS_ABOVE: Final = 64 * 1024
ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024

INVALID: Final = "invalid"
NOT_FOUND: Final = "not_found"
REFUSED: Final = "refused"
LIMITED: Final = "limited"
UNAVAILABLE: Final = "unavailable"
TIMEOUT: Final = "timeout"

VERBS: Final = (
    "where_is_guild", "mutual_guilds", "permissions", "fetch_guild", "fetch_channel", "fetch_channels", "fetch_thread",
    "fetch_threads", "fetch_role", "fetch_roles", "fetch_emojis", "fetch_stickers", "fetch_member", "fetch_members",
    "fetch_user", "fetch_voice_state", "fetch_voice_states", "fetch_scheduled_events", "fetch_stages", "fetch_sounds",
    "request_members", "update_presence", "update_voice_state", "request_sounds", "request_channel_info", "relay",
)  # fmt: skip
"""What may be asked. The `fetch_` verbs, `where_is_guild`, `mutual_guilds` and `permissions` read the cache."""


class RpcError(Exception):
    """A request that was not carried out.

    code         invalid (the request is wrong), not_found, refused (Discord or the configuration does not allow it),
                 limited (try again after `retry_after` seconds), unavailable (Redis or the shard is away), timeout
    retry_after  seconds, None where trying again later does not help by itself
    """

    def __init__(self, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class _Error(msgspec.Struct):
    code: str
    message: str
    retry_after: float | None = None


class _Reply(msgspec.Struct):
    ok: bool
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _Error | None = None


_decode = msgspec.json.Decoder(_Reply).decode
_compressor = zstandard.ZstdCompressor(level=1)


def encode_result(result: bytes) -> bytes:
    """The answer whose result is this JSON."""
    return b'{"v":1,"ok":true,"result":%b}\n' % result


def encode_error(error: RpcError) -> bytes:
    """The answer that says why nothing was done."""
    told: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.retry_after is not None:
        told["retry_after"] = round(error.retry_after, 3)
    return msgspec.json.encode({"v": RPC_VERSION, "ok": False, "error": told})


def parts(answer: bytes, part_bytes: int) -> Iterator[tuple[bytes, dict[str, str] | None]]:
    """The messages that carry an answer, none above `part_bytes`."""
    if len(answer) <= min(COMPRESS_ABOVE, part_bytes):
        yield answer, None
        return
    packed = _compressor.compress(answer)
    total = -(-len(packed) // part_bytes)
    for index in range(total):
        headers = {PART: f"{index + 1}/{total}", CONTENT_ENCODING: "zstd"}
        yield packed[index * part_bytes : (index + 1) * part_bytes], headers


class Answer:
    """Puts the messages of one answer together."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._is_packed = False

    def add(self, payload: bytes, headers: Mapping[str, str] | None) -> bool:
        """Take the next message; True once the answer is whole. Raises WireError when one is missing."""
        index, _, total = (headers or {}).get(PART, "1/1").partition("/")
        if not (index.isdecimal() and total.isdecimal()) or int(index) != len(self._parts) + 1:
            raise WireError("an answer's parts are not in order")
        self._parts.append(payload)
        self._is_packed = (headers or {}).get(CONTENT_ENCODING) == "zstd"
        return int(index) == int(total)

    def result(self) -> bytes:
        """The result's JSON. Raises RpcError when the request was not carried out, WireError for damage."""
        body = b"".join(self._parts)
        try:
            reply = _decode(inflate(body, limit=ANSWER_BYTES_MAX) if self._is_packed else body)
        except UNREADABLE as error:
            raise WireError(f"not an answer: {error}") from None
        if reply.ok:
            return bytes(reply.result)
        told = reply.error or _Error(UNAVAILABLE, "no reason given")
        raise RpcError(told.code, told.message, told.retry_after)
