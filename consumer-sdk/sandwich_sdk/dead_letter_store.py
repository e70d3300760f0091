"""Dead letters and notes of tries in JetStream. A stream of theirs that is missing is made, where that is allowed."""

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
from sandwich_sdk.streams import STREAM_EXISTS, letters_stream, notes_stream
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

    async def recall(self, delivery: Delivery) -> dict[str, int]:
        """See `DeadLetters.recall`."""
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

    async def note(self, delivery: Delivery, tries: Mapping[str, int]) -> None:
        """See `DeadLetters.note`."""
        subject = subjects.tries_subject(delivery.app, self._group, delivery.token)
        await self._publish(notes_stream, delivery.app, subject, msgspec.json.encode(tries), {})

    async def bury(self, delivery: Delivery, letter: DeadLetter, frame: Mapping[str, str], payload: bytes) -> None:
        """See `DeadLetters.bury`."""
        subject = subjects.dead_subject(delivery.app, self._group)
        # The frame's name is part of it: an event that fails again after a replay is another letter.
        message_id = f"{self._group}/{delivery.token}/{letter.id or 'frame'}"
        headers = {**frame, **letter.encode(), MESSAGE_ID: message_id}
        for own, piece in pieces(headers, payload, piece_bytes(self._client.max_payload)):
            await self._publish(letters_stream, delivery.app, subject, piece, own)

    async def _publish(
        self,
        stream_of: Callable[[str], StreamConfig],
        app: str,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str],
    ) -> None:
        """Publish and have it stored; the stream is made when nobody answers for the subject."""
        self._check()
        try:
            await self._jetstream.publish(subject, payload, headers=dict(headers))
        except nats.js.errors.NoStreamResponseError:
            await self._make(stream_of(app), app)
            await self._publish_to_new(subject, payload, headers)

    async def _publish_to_new(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """A replicated stream answers only when its servers have chosen a leader for it."""
        for wait_s in NEW_STREAM_WAITS_S:
            try:
                await self._jetstream.publish(subject, payload, headers=dict(headers))
                return
            except nats.js.errors.NoStreamResponseError:
                await asyncio.sleep(wait_s)
        await self._jetstream.publish(subject, payload, headers=dict(headers))

    async def _make(self, stream: StreamConfig, app: str) -> None:
        events = (await self._jetstream.stream_info(subjects.stream_name(app))).config
        try:
            await self._jetstream.add_stream(stream, num_replicas=events.num_replicas)
        except nats.js.errors.APIError as error:
            if error.err_code != STREAM_EXISTS:
                raise
        else:
            _log.info("stream %s was made", stream.name)

    def _check(self) -> None:
        """A request would wait for the connection until its time is out, and the event's shard with it."""
        if not self._client.is_connected:
            raise nats.errors.ConnectionReconnectingError


def piece_bytes(max_payload: int) -> int:
    """How much of a letter one message takes, under the server's `max_payload`."""
    return max(max_payload - PIECE_RESERVE_BYTES, max_payload // 2)
