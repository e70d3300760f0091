"""Pulls the frames of one durable: pull requests, their results, and how a delivery is answered."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from sandwich_sdk.backoff import Backoff
from sandwich_sdk.cancellation import honour_cancel
from sandwich_sdk.errors import LOST, reason

_log = logging.getLogger(__name__)

ACK_TIMEOUT_S = 5.0
RETRY_FIRST_S = 0.2
RETRY_MAX_S = 5.0
PULL_EXPIRES_S = 30.0
HEARTBEAT_S = 1.0
SILENCE_MAX_S = 2.5
END_TIMEOUT_S = 2.0

_PULL_ENDED = ("404", "408")
_HEARTBEAT = "100"
_NO_RESPONDERS = "503"


@dataclass(frozen=True, slots=True)
class AckAddress:
    """The fields of a JetStream reply subject (ADR-15). `published_ns`: when the stream stored the message."""

    tries: int
    stream_seq: int
    published_ns: int

    @classmethod
    def parse(cls, reply: str) -> "AckAddress":
        """Read `$JS.ACK.` with 9 tokens, or 12 with domain and account. Raises ValueError."""
        tokens = reply.split(".")
        if len(tokens) < 9 or tokens[:2] != ["$JS", "ACK"]:
            raise ValueError("not a JetStream delivery")
        tries, stream_seq, _, published_ns = tokens[4:8] if len(tokens) == 9 else tokens[6:10]
        return cls(int(tries), int(stream_seq), int(published_ns))


class StreamPosition(NamedTuple):
    """A frame's position in a stream: when it was stored (Unix ns), and its sequence.

    The time comes first: a stream that was deleted and created again counts sequences from 1 again.
    """

    published_ns: int
    seq: int


NOWHERE = StreamPosition(0, 0)
"""Before all frames: none was delivered."""


@dataclass(slots=True)
class AckFloor:
    """A durable's ack floor as this process knows it. If the durable has to be created again, it starts there.

    one_at_a_time   the durable delivers a frame only when the one before is settled
    last_delivered  the last frame that was delivered to us
    unacknowledged  frames that were delivered to us and are not settled
    """

    one_at_a_time: bool = False
    last_delivered: StreamPosition = NOWHERE
    unacknowledged: set[StreamPosition] = field(default_factory=set)

    def take(self, position: StreamPosition) -> None:
        """A frame was delivered to us."""
        self.last_delivered = max(self.last_delivered, position)
        if self.one_at_a_time:
            self.unacknowledged = {position}
        else:
            self.unacknowledged.add(position)

    def settle(self, position: StreamPosition, *, redeliver: bool) -> None:
        """We answered the frame. `redeliver`: with a request to deliver it again."""
        if not (self.one_at_a_time and redeliver):
            self.unacknowledged.discard(position)

    @property
    def position(self) -> StreamPosition:
        """The last frame up to which all are settled: a new durable starts behind it. NOWHERE before any frame."""
        if not self.unacknowledged:
            return self.last_delivered
        first = min(self.unacknowledged)
        return StreamPosition(first.published_ns, first.seq - 1)


class NatsReply:
    """Answers one delivery through its reply subject."""

    __slots__ = ("_ack_floor", "_client", "_position", "_subject")

    def __init__(self, client: Client, subject: str, ack_floor: AckFloor, position: StreamPosition) -> None:
        self._client = client
        self._subject = subject
        self._ack_floor = ack_floor
        self._position = position

    async def ack(self, *, confirm: bool) -> None:
        """See `Reply.ack`."""
        self._ack_floor.settle(self._position, redeliver=False)
        if confirm:
            await self._client.request(self._subject, b"+ACK", timeout=ACK_TIMEOUT_S)
        else:
            await self._client.publish(self._subject, b"+ACK")

    async def nak(self, delay_s: float) -> None:
        """See `Reply.nak`."""
        self._ack_floor.settle(self._position, redeliver=True)
        delay = json.dumps({"delay": int(delay_s * 1e9)}) if delay_s > 0 else ""
        await self._client.publish(self._subject, f"-NAK {delay}".rstrip().encode())

    async def term(self) -> None:
        """See `Reply.term`."""
        self._ack_floor.settle(self._position, redeliver=False)
        await self._client.publish(self._subject, b"+TERM")

    async def progress(self) -> None:
        """See `Reply.progress`."""
        await self._client.publish(self._subject, b"+WPI")


@dataclass(slots=True, kw_only=True)
class PullConsumer:
    """Requests frames from one durable until `wanted` is False or the task is cancelled.

    Ending a request early is a risk: a frame that the server sends at the moment we unsubscribe is dropped, and is not
    delivered again before `ack_wait` has passed. A durable that delivers one frame at a time sends nothing while we
    hold a frame. So with `wanted` False the request ends at its next frame. Cancelling takes the risk, unless we hold
    a frame.

    name         what is read, for the log; "" to log no failures
    prepare      finds or creates the durable; raises an error of `LOST` to be called again later
    room         waits until there is room; returns how many frames may come, 0 to end
    take         takes a delivery
    retry_max_s  the longest pause after a failure
    api          prefix of the subjects of JetStream's API
    wanted       False: unsubscribe at the next frame, which is still taken, or when the request ends
    """

    client: Client
    stream: str
    durable: str
    name: str
    prepare: Callable[[], Awaitable[None]]
    room: Callable[[], Awaitable[int]]
    take: Callable[[Msg, AckAddress], Awaitable[None]]
    retry_max_s: float = RETRY_MAX_S
    api: str = "$JS.API"
    wanted: bool = True
    _outstanding: int = 0
    _received_at: float = 0.0
    _failure: str = ""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _subscription: Subscription | None = None
    _ending: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Raises GroupConflict, if `prepare` does."""
        inbox = self.client.new_inbox()
        self._subscription = await self.client.subscribe(inbox, cb=self._on_message)
        try:
            await self._request_until_ended(inbox)
        finally:
            await self._end()

    @property
    def _is_running(self) -> bool:
        return self.wanted and self._ending is None

    async def _request_until_ended(self, inbox: str) -> None:
        backoff = Backoff(RETRY_FIRST_S, self.retry_max_s)
        pause_s = 0.0
        while self._is_running:
            honour_cancel()
            if pause_s:
                await asyncio.sleep(pause_s)
            try:
                await self.prepare()
                while self._is_running and (room := await self.room()):
                    honour_cancel()
                    await self._request(inbox, room)
                    if backoff.failures and self.name:
                        _log.info("events of %s arrive", self.name)
                    backoff.succeeded()
                return
            except LOST as error:
                if not backoff.failures and self.name:
                    _log.warning("waiting for events of %s: %s", self.name, reason(error))
                pause_s = backoff.next_s()

    async def _request(self, inbox: str, batch: int) -> None:
        """One pull request, until it is used up. Raises an error of `LOST` when it has to be repeated."""
        loop = asyncio.get_running_loop()
        self._outstanding = batch
        self._failure = ""
        self._received_at = loop.time()
        self._wake.clear()
        request = {
            "batch": batch,
            "expires": int(PULL_EXPIRES_S * 1e9),
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
        }
        subject = f"{self.api}.CONSUMER.MSG.NEXT.{self.stream}.{self.durable}"
        await self.client.publish(subject, json.dumps(request).encode(), reply=inbox)
        while not self._wake.is_set():
            try:
                async with asyncio.timeout(SILENCE_MAX_S):
                    await self._wake.wait()
            except TimeoutError:
                # No heartbeat: the request was lost with its connection or its server.
                if loop.time() - self._received_at >= SILENCE_MAX_S:
                    raise
        if self._failure:
            raise nats.errors.Error(self._failure)

    async def _on_message(self, message: Msg) -> None:
        self._received_at = asyncio.get_running_loop().time()
        if not message.reply:
            self._on_status(message)
        elif message.reply.startswith("$JS.ACK."):
            self._outstanding -= 1
            if not self.wanted:
                await self._unsubscribe()
            await self.take(message, AckAddress.parse(message.reply))
        if self._outstanding <= 0 or self._failure:
            self._wake.set()

    def _on_status(self, message: Msg) -> None:
        headers = message.headers or {}
        status = headers.get("Status", "")
        if status == _HEARTBEAT:
            return
        self._outstanding = 0
        if status not in _PULL_ENDED:
            text = headers.get("Description") if status != _NO_RESPONDERS else ""
            self._failure = text or f"no consumer answers ({status})"

    async def _unsubscribe(self) -> None:
        """Make the server drop the rest of our request. Frames that it has already sent are still taken."""
        if self._ending is None and self._subscription is not None:
            # Never cancelled: a PONG for a flush that was cancelled ends nats-py's read loop.
            self._ending = asyncio.create_task(_drain(self._subscription))
            # Its first step sends UNSUB, so that the server gets it before our answer to the frame in hand.
            await asyncio.sleep(0)
            self._outstanding = 0

    async def _end(self) -> None:
        if not self.client.is_connected:
            return
        await self._unsubscribe()
        if self._ending is not None:
            await asyncio.wait([self._ending], timeout=END_TIMEOUT_S)


async def _drain(subscription: Subscription) -> None:
    try:
        await subscription.drain()  # type: ignore[no-untyped-call]
    except LOST as error:
        _log.debug("a pull request was not cancelled: %s", type(error).__name__)
