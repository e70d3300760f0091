"""Dead letters and saved tries in JetStream. A stream that is missing is created, where that is allowed."""

import asyncio
import logging
from collections.abc import Callable, Mapping

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from sandwich_sdk.delivery import Delivery
from sandwich_sdk.streams import STREAM_EXISTS, dead_letters_stream, tries_stream
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.dead import MESSAGE_ID, DeadLetter, pieces
from sandwich_sdk.wire.headers import UNREADABLE

_log = logging.getLogger(__name__)

NEW_STREAM_WAITS_S = (0.1, 0.2, 0.4, 0.8)
PIECE_RESERVE_BYTES = 16 * 1024
"""Kept free in each message for headers and protocol."""


class JetStreamDeadLetters:
    """Implements `DeadLetters` for one consumer group."""

    def __init__(self, client: Client, jetstream: JetStreamContext, group: str) -> None:
        self._client = client
        self._jetstream = jetstream
        self._group = group

    async def load_tries(self, delivery: Delivery) -> dict[str, int]:
        """See `DeadLetters.load_tries`."""
        self._check()
        subject = subjects.tries_subject(delivery.app, self._group, delivery.token)
        try:
            found = await self._jetstream.get_last_msg(subjects.tries_stream_name(delivery.app), subject)
        except nats.js.errors.NotFoundError:
            return {}
        try:
            return msgspec.json.decode(found.data or b"{}", type=dict[str, int])
        except UNREADABLE:
            return {}

    async def save_tries(self, delivery: Delivery, tries: Mapping[str, int]) -> None:
        """See `DeadLetters.save_tries`."""
        subject = subjects.tries_subject(delivery.app, self._group, delivery.token)
        await self._publish(tries_stream, delivery.app, subject, msgspec.json.encode(tries), {})

    async def store(
        self, delivery: Delivery, dead_letter: DeadLetter, frame: Mapping[str, str], payload: bytes
    ) -> None:
        """See `DeadLetters.store`."""
        subject = subjects.dead_subject(delivery.app, self._group)
        # The token is part of the id: an event that fails again after a replay is another dead letter.
        message_id = f"{self._group}/{delivery.token}/{dead_letter.id or 'frame'}"
        headers = {**frame, **dead_letter.encode(), MESSAGE_ID: message_id}
        for own, piece in pieces(headers, payload, piece_bytes(self._client.max_payload)):
            await self._publish(dead_letters_stream, delivery.app, subject, piece, own)

    async def _publish(
        self,
        stream_of: Callable[[str], StreamConfig],
        app: str,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str],
    ) -> None:
        """Publish, and return when it is stored. If no stream has the subject, create the stream."""
        self._check()
        try:
            await self._jetstream.publish(subject, payload, headers=dict(headers))
        except nats.js.errors.NoStreamResponseError:
            await self._create(stream_of(app), app)
            await self._publish_to_new(subject, payload, headers)

    async def _publish_to_new(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Publish to a new stream. A replicated one answers only after its servers have elected a leader."""
        for wait_s in NEW_STREAM_WAITS_S:
            try:
                await self._jetstream.publish(subject, payload, headers=dict(headers))
                return
            except nats.js.errors.NoStreamResponseError:
                await asyncio.sleep(wait_s)
        await self._jetstream.publish(subject, payload, headers=dict(headers))

    async def _create(self, stream: StreamConfig, app: str) -> None:
        events = (await self._jetstream.stream_info(subjects.stream_name(app))).config
        try:
            await self._jetstream.add_stream(stream, num_replicas=events.num_replicas)
        except nats.js.errors.APIError as error:
            if error.err_code != STREAM_EXISTS:
                raise
        else:
            _log.info("stream %s was created", stream.name)

    def _check(self) -> None:
        """Fail at once without a connection: a request would wait for its timeout, and the event's shard with it."""
        if not self._client.is_connected:
            raise nats.errors.ConnectionReconnectingError


def piece_bytes(max_payload: int) -> int:
    """Payload bytes of a dead letter in one message, under the server's `max_payload`."""
    return max(max_payload - PIECE_RESERVE_BYTES, max_payload // 2)
