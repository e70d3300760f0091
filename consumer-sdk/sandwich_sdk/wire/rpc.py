"""Requests to a cluster over NATS, wire contract version 1.

A request is a JSON object, sent to `sandwich.<app>.rpc.<verb>` with a reply inbox. The answer is
`{"v":1,"ok":true,"result":...}` or `{"v":1,"ok":false,"error":{"code":...,"message":...,"retry_after":seconds}}`. A
long answer is sent in parts, in order, with `Sandwich-Part: i/n` on each message. The joined parts are a zstd frame if
they have `Content-Encoding: zstd`. NATS itself answers with status 503 while no node serves the request: retry.
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
"""The requests. The `fetch_` verbs, `where_is_guild`, `mutual_guilds` and `permissions` read the cache."""


class RpcError(Exception):
    """A request that was not carried out.

    code         invalid (the request is wrong), not_found, refused (Discord or the configuration does not allow it),
                 limited (retry after `retry_after` seconds), unavailable (Redis or the shard does not answer), timeout
    retry_after  seconds; None if a later retry does not help by itself
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
    """The answer for a request that was not carried out."""
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.retry_after is not None:
        body["retry_after"] = round(error.retry_after, 3)
    return msgspec.json.encode({"v": RPC_VERSION, "ok": False, "error": body})


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
    """Joins the messages of one answer."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._is_packed = False

    def add(self, payload: bytes, headers: Mapping[str, str] | None) -> bool:
        """Add the next message; True once the answer is complete. Raises WireError when one is missing."""
        index, _, total = (headers or {}).get(PART, "1/1").partition("/")
        if not (index.isdecimal() and total.isdecimal()) or int(index) != len(self._parts) + 1:
            raise WireError("an answer's parts are not in order")
        self._parts.append(payload)
        self._is_packed = (headers or {}).get(CONTENT_ENCODING) == "zstd"
        return int(index) == int(total)

    def result(self) -> bytes:
        """The result's JSON. Raises RpcError when the request was not carried out, WireError when it is corrupt."""
        body = b"".join(self._parts)
        try:
            reply = _decode(inflate(body, limit=ANSWER_BYTES_MAX) if self._is_packed else body)
        except UNREADABLE as error:
            raise WireError(f"not an answer: {error}") from None
        if reply.ok:
            return bytes(reply.result)
        failure = reply.error or _Error(UNAVAILABLE, "no reason given")
        raise RpcError(failure.code, failure.message, failure.retry_after)
