"""Status messages, wire contract version 1: what is told on `sandwich.<app>.status`, as one JSON object a message.

Told once, to whoever listens, and not stored: for alarms and dashboards. The truth is in `sandwich cluster status`.
`at` is Unix seconds. A reader ignores kinds and fields it does not know.
"""

import msgspec

from sandwich_sdk.wire.headers import UNREADABLE, WireError


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    at: float
    app: str
    v: int = 1


class ShardChanged(_Message, frozen=True, kw_only=True, tag="shard"):
    """A shard is connecting, identifying, resuming, live, draining, failed, or released (by `node`)."""

    group: int
    shard: int
    node: str
    state: str
    reason: str = ""


class GroupChanged(_Message, frozen=True, kw_only=True, tag="group"):
    """A shard group is waiting, starting, live, degraded, failed, paused, closing, or removed."""

    group: int
    count: int
    state: str
    reason: str = ""


class ApplicationChanged(_Message, frozen=True, kw_only=True, tag="application"):
    """An application was added, changed, paused, resumed or removed."""

    state: str


class Failover(_Message, frozen=True, kw_only=True, tag="failover"):
    """A shard was lost at one place and is back: `how` is "resumed" or "identified".

    `took_s` counts from when the loss was noticed. `silent_s` counts from the last frame in the stream: at most so long
    was nothing stored; a quiet shard stores nothing either. None when the stream held no frame.
    """

    group: int
    shard: int
    source: str
    node: str
    cause: str
    how: str
    replayed: int
    took_s: float
    silent_s: float | None = None


class EventsLost(_Message, frozen=True, kw_only=True, tag="loss"):
    """A session (its public name) cannot be resumed: what came after `last_seq` is lost, how much is not known."""

    group: int
    shard: int
    node: str
    session: str
    last_seq: int
    reason: str


class StreamRemade(_Message, frozen=True, kw_only=True, tag="stream"):
    """The stream was deleted while its shards ran, and `node` made it again: what no consumer had read is lost."""

    node: str
    stream: str


StatusMessage = ShardChanged | GroupChanged | ApplicationChanged | Failover | EventsLost | StreamRemade

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(StatusMessage)


def encode_status(message: StatusMessage) -> bytes:
    """The message as published."""
    return _encoder.encode(message)


def decode_status(body: bytes) -> StatusMessage:
    """Read a published message. Raises WireError for a kind this version does not know, or damage."""
    try:
        message: StatusMessage = _decoder.decode(body)
    except UNREADABLE as error:
        raise WireError(f"not a status message: {error}") from None
    return message
