"""Frames from NATS JetStream: one connection, and for each application its group, plain or ordered, and its replays.

A replay is a dead letter that somebody sent back to the group (`sandwich dead replay`). It comes through a durable of
its own, in a stream of its own; whoever replays makes both, and the workers look for them now and then.
"""

import asyncio
import logging
import time
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from sandwich_sdk.dead_letter_store import JetStreamDeadLetters
from sandwich_sdk.delivery import DeadLetters, Delivery, Intake
from sandwich_sdk.errors import LOST, Unreachable, reason
from sandwich_sdk.groups import Group, SourceOptions
from sandwich_sdk.ordered import OrderedGroup
from sandwich_sdk.pull_consumer import AckAddress, NatsReply, Place, Pull, Spot
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.dead import REPLAY_SUBJECT
from sandwich_sdk.wire.headers import WireError

_log = logging.getLogger(__name__)

API_TIMEOUT_S = 5.0
REPLAY_LOOK_S = 5.0
REPLAYS_ASKED = 8
REFUSALS_TOLD_MAX = 5


class JetStreamSource:
    """Implements `Source` over one connection that reconnects for ever."""

    def __init__(self, options: SourceOptions) -> None:
        self._options = options
        self._client = Client()
        self._jetstream = JetStreamContext(self._client, timeout=API_TIMEOUT_S, domain=options.domain)
        self._letters = JetStreamDeadLetters(self._client, self._jetstream, options.group)
        self._closing = False
        self._told = False
        self._refusals = 0

    @property
    def letters(self) -> DeadLetters:
        """See `Source.letters`."""
        return self._letters

    async def open(self) -> None:
        """Connect, waiting for NATS as long as `connect_timeout_s` says. Raises Unreachable."""
        options = self._options
        try:
            async with asyncio.timeout(options.connect_timeout_s):
                await self._client.connect(
                    servers=list(options.servers),
                    name=f"sandwich-sdk {options.group}",
                    max_reconnect_attempts=-1,
                    connect_timeout=2,
                    reconnect_time_wait=0.5,  # type: ignore[arg-type]  # annotated int, used as seconds
                    ping_interval=10,
                    max_outstanding_pings=2,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnect,
                    reconnected_cb=self._on_reconnect,
                    **options.connection,
                )
        except TimeoutError:
            raise Unreachable(f"NATS did not answer within {options.connect_timeout_s} s at {self._where()}") from None
        except (nats.errors.Error, OSError, ValueError) as error:
            raise Unreachable(f"NATS at {self._where()}: {reason(error)}") from None
        self._told = False

    def _where(self) -> str:
        """The servers in words, without the credentials a URL may carry."""
        urls = [server if "://" in server else f"nats://{server}" for server in self._options.servers]
        return ", ".join(urlsplit(url).netloc.rpartition("@")[2] for url in urls)

    async def _on_error(self, error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            if self._refusals < REFUSALS_TOLD_MAX:
                self._refusals += 1
                _log.warning("NATS at %s: %s", self._where(), reason(error))
        elif not self._told:
            self._told = True
            _log.warning("NATS at %s: %s; trying again until it answers", self._where(), reason(error))

    async def _on_disconnect(self) -> None:
        if not self._closing:
            _log.warning("NATS at %s: connection lost", self._where())

    async def _on_reconnect(self) -> None:
        self._told = False
        _log.warning("NATS at %s: connected again", self._where())

    async def feed(self, intake: Intake) -> None:
        """Pull every application's frames for ever. Raises GroupConflict."""
        async with asyncio.TaskGroup() as tasks:
            for app in self._options.apps:
                if self._options.ordered:
                    tasks.create_task(self._ordered(app, intake).run())
                else:
                    tasks.create_task(self._plain(app, intake).run())
                tasks.create_task(self._replays(app, intake).run())

    def _ordered(self, app: str, intake: Intake) -> OrderedGroup:
        take = partial(self._take, app, subjects.stream_name(app), intake)
        return OrderedGroup(self._client, self._jetstream, self._options, app, intake=intake, take=take)

    def _plain(self, app: str, intake: Intake) -> Pull:
        group, place, stream = Group(self._jetstream, self._options, app), Place(), subjects.stream_name(app)
        return Pull(
            client=self._client,
            stream=stream,
            durable=self._options.group,
            name=app,
            prepare=lambda: group.ensure(place.passed),
            room=lambda: intake.room(stream),
            take=partial(self._take, app, stream, intake, place),
            api=self._options.api,
        )

    def _replays(self, app: str, intake: Intake) -> Pull:
        stream = subjects.replay_stream_name(app)

        async def prepare() -> None:
            """Who replays makes the durable."""

        async def room() -> int:
            return min(await intake.room(stream), REPLAYS_ASKED)

        return Pull(
            client=self._client,
            stream=stream,
            durable=self._options.group,
            name="",
            prepare=prepare,
            room=room,
            take=partial(self._take, app, stream, intake, Place()),
            retry_max_s=REPLAY_LOOK_S,
            api=self._options.api,
        )

    async def _take(
        self, app: str, stream: str, intake: Intake, place: Place, message: Msg, address: AckAddress
    ) -> None:
        spot = Spot(address.published_ns, address.stream_seq)
        reply = NatsReply(self._client, message.reply, place, spot)
        place.take(spot)
        # One of an ordered group stays in hand until nobody listens for the next: it would only come to us again.
        if self._closing or (intake.stopping and not place.in_turn):
            await reply.nak(0)
            return
        replay = message.subject if stream == subjects.replay_stream_name(app) else ""
        intake.push(
            Delivery(
                app=app,
                stream=stream,
                subject=(message.headers or {}).get(REPLAY_SUBJECT, message.subject) if replay else message.subject,
                headers=message.headers,
                payload=message.data,
                stream_seq=address.stream_seq,
                tries=address.tries,
                reply=reply,
                received_ns=time.time_ns(),
                published_ns=address.published_ns,
                replay=replay,
            )
        )

    async def following(self, delivery: Delivery, after: int) -> Delivery | None:
        """See `Source.following`."""
        chain = delivery.replay
        if not chain:
            try:
                _, app, _, _, group, shard = delivery.subject.split(".")
                chain = subjects.chain_filter(app, int(group), int(shard))
            except ValueError:
                raise WireError(f"parts of a frame on {delivery.subject}, which is no shard's subject") from None
        try:
            found = await self._jetstream.get_msg(delivery.stream, seq=after + 1, subject=chain, next=True)
        except nats.js.errors.NotFoundError:
            return None
        assert found.subject is not None
        assert found.seq is not None
        return replace(
            delivery,
            subject=delivery.subject if delivery.replay else found.subject,
            headers=found.headers,
            payload=found.data or b"",
            stream_seq=found.seq,
            tries=1,
        )

    async def close(self) -> None:
        """See `Source.close`. What is still under way to us is handed back as it arrives."""
        self._closing = True
        if self._client.is_closed:
            return
        try:
            async with asyncio.timeout(API_TIMEOUT_S):
                if self._client.is_connected:
                    await self._client.flush(2)
                await self._client.close()
        except LOST as error:
            _log.warning("NATS: the connection did not close cleanly: %s", reason(error))
