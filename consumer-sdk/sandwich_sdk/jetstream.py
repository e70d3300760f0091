"""Frames from NATS JetStream: one connection; for each application its group (plain or ordered) and its replays.

A replay is a dead letter that an operator sent back to the group (`sandwich dead replay`). Replays have a stream and a
durable of their own. The replay command creates both; the workers poll for them.
"""

import asyncio
import logging
import time
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from sandwich_sdk.cancellation import honour_cancel
from sandwich_sdk.dead_letter_store import JetStreamDeadLetters
from sandwich_sdk.delivery import DeadLetters, Delivery, Intake
from sandwich_sdk.errors import LOST, Unreachable, reason
from sandwich_sdk.groups import Group, SourceOptions
from sandwich_sdk.nats_client import ReconnectingClient
from sandwich_sdk.ordered import OrderedGroup
from sandwich_sdk.pull_consumer import AckAddress, AckFloor, NatsReply, PullConsumer, StreamPosition
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.dead import REPLAY_SUBJECT
from sandwich_sdk.wire.headers import WireError

_log = logging.getLogger(__name__)

API_TIMEOUT_S = 5.0
REPLAY_POLL_S = 5.0
REPLAYS_PER_REQUEST = 8
REFUSALS_LOGGED_MAX = 5


class JetStreamSource:
    """Implements `Source` over one connection that reconnects without limit."""

    def __init__(self, options: SourceOptions) -> None:
        self._options = options
        self._client = ReconnectingClient()
        self._jetstream = JetStreamContext(self._client, timeout=API_TIMEOUT_S, domain=options.domain)
        self._dead_letters = JetStreamDeadLetters(self._client, self._jetstream, options.group)
        self._ordered_groups: dict[str, OrderedGroup] = {}
        self._closing = False
        self._warned = False
        self._refusals = 0

    @property
    def dead_letters(self) -> DeadLetters:
        """See `Source.dead_letters`."""
        return self._dead_letters

    async def open(self) -> None:
        """Connect; wait for NATS at most `connect_timeout_s`. Raises Unreachable."""
        options = self._options
        try:
            async with asyncio.timeout(options.connect_timeout_s):
                await self._client.connect(
                    servers=list(options.servers),
                    name=f"sandwich-sdk {options.group}",
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnect,
                    reconnected_cb=self._on_reconnect,
                    **options.connection,
                )
        except TimeoutError:
            raise Unreachable(f"NATS did not answer within {options.connect_timeout_s} s at {self._where()}") from None
        except (nats.errors.Error, OSError, ValueError) as error:
            raise Unreachable(f"NATS at {self._where()}: {reason(error)}") from None
        self._warned = False

    def _where(self) -> str:
        """The servers as text, without credentials that a URL may contain."""
        urls = [server if "://" in server else f"nats://{server}" for server in self._options.servers]
        return ", ".join(urlsplit(url).netloc.rpartition("@")[2] for url in urls)

    async def _on_error(self, error: Exception) -> None:
        # Called by `connect`, too, which tries again for ever.
        honour_cancel()
        if "permissions violation" in str(error).lower():
            if self._refusals < REFUSALS_LOGGED_MAX:
                self._refusals += 1
                _log.warning("NATS at %s: %s", self._where(), reason(error))
        elif not self._warned:
            self._warned = True
            _log.warning("NATS at %s: %s; retrying until it answers", self._where(), reason(error))

    async def _on_disconnect(self) -> None:
        if not self._closing:
            _log.warning("NATS at %s: connection lost", self._where())

    async def _on_reconnect(self) -> None:
        self._warned = False
        _log.warning("NATS at %s: connected again", self._where())

    async def feed(self, intake: Intake) -> None:
        """Pull the frames of all applications until cancelled. Raises GroupConflict."""
        async with asyncio.TaskGroup() as tasks:
            for app in self._options.apps:
                if self._options.ordered:
                    tasks.create_task(self._ordered(app, intake).run())
                else:
                    tasks.create_task(self._plain(app, intake).run())
                tasks.create_task(self._replays(app, intake).run())

    def _ordered(self, app: str, intake: Intake) -> OrderedGroup:
        take = partial(self._take, app, subjects.stream_name(app), intake)
        group = OrderedGroup(self._client, self._jetstream, self._options, app, intake=intake, take=take)
        self._ordered_groups[app] = group
        return group

    def _plain(self, app: str, intake: Intake) -> PullConsumer:
        group, ack_floor, stream = Group(self._jetstream, self._options, app), AckFloor(), subjects.stream_name(app)
        return PullConsumer(
            client=self._client,
            stream=stream,
            durable=self._options.group,
            name=app,
            prepare=lambda: group.ensure(ack_floor.position),
            room=lambda: intake.room(stream),
            take=partial(self._take, app, stream, intake, ack_floor),
            api=self._options.api,
        )

    def _replays(self, app: str, intake: Intake) -> PullConsumer:
        stream = subjects.replay_stream_name(app)

        async def prepare() -> None:
            """The replay command creates the durable."""

        async def room() -> int:
            return min(await intake.room(stream), REPLAYS_PER_REQUEST)

        return PullConsumer(
            client=self._client,
            stream=stream,
            durable=self._options.group,
            name="",
            prepare=prepare,
            room=room,
            take=partial(self._take, app, stream, intake, AckFloor()),
            retry_max_s=REPLAY_POLL_S,
            api=self._options.api,
        )

    async def _take(
        self, app: str, stream: str, intake: Intake, ack_floor: AckFloor, message: Msg, address: AckAddress
    ) -> None:
        position = StreamPosition(address.published_ns, address.stream_seq)
        reply = NatsReply(self._client, message.reply, ack_floor, position)
        ack_floor.take(position)
        # Ordered: keep it until we have unsubscribed. Handed back earlier, it would be delivered to us again.
        if self._closing or (intake.stopping and not ack_floor.one_at_a_time):
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
                raise WireError(
                    f"parts of a frame on {delivery.subject}, which is not the subject of a shard"
                ) from None
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

    def keep(self, delivery: Delivery) -> bool:
        """See `Source.keep`. A plain group keeps no order over shards, and a replay is out of order anyway."""
        group = self._ordered_groups.get(delivery.app)
        return group is not None and not delivery.replay and group.keep(delivery)

    async def close(self) -> None:
        """See `Source.close`. Frames that still arrive are handed back."""
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
