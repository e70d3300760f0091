"""Status messages, wire contract version 1: published on `sandwich.<app>.status`, one JSON object in each message.

For alarms and dashboards. Messages are published once and not stored: `sandwich cluster status` is authoritative.
`at` is Unix seconds. A reader ignores kinds and fields that it does not know.
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
    """A shard was lost and is live again: `how` is "resumed" or "identified".

    took_s    seconds since the loss was noticed
    silent_s  seconds since the last frame in the stream: an upper bound of the interruption, as a quiet shard stores no
              frames either; None when the stream held no frame
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
    """A session (its public name) cannot be resumed: events after `last_seq` are lost, their number is unknown."""

    group: int
    shard: int
    node: str
    session: str
    last_seq: int
    reason: str


class StreamRemade(_Message, frozen=True, kw_only=True, tag="stream"):
    """The stream was deleted while its shards ran, and `node` created it again: unread events are lost."""

    node: str
    stream: str


StatusMessage = ShardChanged | GroupChanged | ApplicationChanged | Failover | EventsLost | StreamRemade

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(StatusMessage)


def encode_status(message: StatusMessage) -> bytes:
    """The message as published."""
    return _encoder.encode(message)


def decode_status(body: bytes) -> StatusMessage:
    """Read a published message. Raises WireError for a kind this version does not know, or a corrupt message."""
    try:
        message: StatusMessage = _decoder.decode(body)
    except UNREADABLE as error:
        raise WireError(f"not a status message: {error}") from None
    return message
