"""Keeping one durable's frames coming: the pull request, what becomes of it, and how a delivery is answered."""

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
_NOBODY = "503"


@dataclass(frozen=True, slots=True)
class AckAddress:
    """What a JetStream reply subject says (ADR-15): `published_ns` is when the stream stored the message."""

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


class Spot(NamedTuple):
    """A frame's spot in a stream: when it was stored (Unix ns), and its sequence. One made again begins later, at 1."""

    published_ns: int
    seq: int


NOWHERE = Spot(0, 0)


@dataclass(slots=True)
class Place:
    """Where a durable stands, as far as this process knows, should it have to be made again.

    `in_turn`: the durable gives out a frame only when the one before is settled.
    """

    in_turn: bool = False
    seen: Spot = NOWHERE
    open: set[Spot] = field(default_factory=set)

    def take(self, spot: Spot) -> None:
        """A frame was delivered to us."""
        self.seen = max(self.seen, spot)
        if self.in_turn:
            self.open = {spot}
        else:
            self.open.add(spot)

    def settle(self, spot: Spot, *, again: bool) -> None:
        """We answered it. `again`: by handing it back."""
        if not (self.in_turn and again):
            self.open.discard(spot)

    @property
    def passed(self) -> Spot:
        """The last spot that need not come again: behind it a new durable begins. NOWHERE when nothing was seen."""
        if not self.open:
            return self.seen
        first = min(self.open)
        return Spot(first.published_ns, first.seq - 1)


class NatsReply:
    """Answers one delivery through its reply subject."""

    __slots__ = ("_client", "_place", "_spot", "_subject")

    def __init__(self, client: Client, subject: str, place: Place, spot: Spot) -> None:
        self._client = client
        self._subject = subject
        self._place = place
        self._spot = spot

    async def ack(self, *, confirm: bool) -> None:
        """See `Reply.ack`."""
        self._place.settle(self._spot, again=False)
        if confirm:
            await self._client.request(self._subject, b"+ACK", timeout=ACK_TIMEOUT_S)
        else:
            await self._client.publish(self._subject, b"+ACK")

    async def nak(self, delay_s: float) -> None:
        """See `Reply.nak`."""
        self._place.settle(self._spot, again=True)
        delay = json.dumps({"delay": int(delay_s * 1e9)}) if delay_s > 0 else ""
        await self._client.publish(self._subject, f"-NAK {delay}".rstrip().encode())

    async def term(self) -> None:
        """See `Reply.term`."""
        self._place.settle(self._spot, again=False)
        await self._client.publish(self._subject, b"+TERM")

    async def progress(self) -> None:
        """See `Reply.progress`."""
        await self._client.publish(self._subject, b"+WPI")


@dataclass(slots=True, kw_only=True)
class Pull:
    """Asks one durable for frames, until it is not wanted any more or cancelled.

    A request cannot be taken back without risk: a frame that the server is about to send when we stop listening is
    dropped, and comes to nobody before `ack_wait` is over. Of a durable that gives out one frame at a time, nothing is
    on its way while we hold one. So what is not wanted any more ends at its next frame; what is cancelled runs the
    risk, unless its frame is in hand.

    name         what is read, for people; "" to say nothing about trouble
    prepare      finds or makes the durable; raises what means "not now"
    room         waits until there is room; how many frames may come, 0 when none is wanted any more
    take         takes a delivery
    retry_max_s  the longest pause after trouble
    api          what the subjects of JetStream's API begin with
    wanted       False: stop listening at the next frame, which is still taken, or when the request ends
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
    _heard_at: float = 0.0
    _trouble: str = ""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _subscription: Subscription | None = None
    _ending: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Raises GroupConflict, if `prepare` does."""
        inbox = self.client.new_inbox()
        self._subscription = await self.client.subscribe(inbox, cb=self._on_message)
        try:
            await self._ask_for_ever(inbox)
        finally:
            await self._end()

    @property
    def _goes_on(self) -> bool:
        return self.wanted and self._ending is None

    async def _ask_for_ever(self, inbox: str) -> None:
        backoff = Backoff(RETRY_FIRST_S, self.retry_max_s)
        pause_s = 0.0
        while self._goes_on:
            honour_cancel()
            if pause_s:
                await asyncio.sleep(pause_s)
            try:
                await self.prepare()
                while self._goes_on and (room := await self.room()):
                    honour_cancel()
                    await self._ask(inbox, room)
                    if backoff.failures and self.name:
                        _log.info("events of %s arrive", self.name)
                    backoff.succeeded()
                return
            except LOST as error:
                if not backoff.failures and self.name:
                    _log.warning("events of %s are waited for: %s", self.name, reason(error))
                pause_s = backoff.next_s()

    async def _ask(self, inbox: str, batch: int) -> None:
        """One pull request, until it is used up. Raises what is tried again."""
        loop = asyncio.get_running_loop()
        self._outstanding = batch
        self._trouble = ""
        self._heard_at = loop.time()
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
                # Not a beat heard: the request went down with its connection or its server.
                if loop.time() - self._heard_at >= SILENCE_MAX_S:
                    raise
        if self._trouble:
            raise nats.errors.Error(self._trouble)

    async def _on_message(self, message: Msg) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        if not message.reply:
            self._on_status(message)
        elif message.reply.startswith("$JS.ACK."):
            self._outstanding -= 1
            if not self.wanted:
                await self._stop_listening()
            await self.take(message, AckAddress.parse(message.reply))
        if self._outstanding <= 0 or self._trouble:
            self._wake.set()

    def _on_status(self, message: Msg) -> None:
        headers = message.headers or {}
        status = headers.get("Status", "")
        if status == _HEARTBEAT:
            return
        self._outstanding = 0
        if status not in _PULL_ENDED:
            words = headers.get("Description") if status != _NOBODY else ""
            self._trouble = words or f"no consumer answers ({status})"

    async def _stop_listening(self) -> None:
        """Have the server forget what is left of our request; what it has sent is still taken."""
        if self._ending is None and self._subscription is not None:
            # Never cancelled: a PONG for a flush that was cancelled ends nats-py's read loop.
            self._ending = asyncio.create_task(_drain(self._subscription))
            # Its first step is the word to the server, which so comes before any answer to the frame in hand.
            await asyncio.sleep(0)
            self._outstanding = 0

    async def _end(self) -> None:
        if not self.client.is_connected:
            return
        await self._stop_listening()
        if self._ending is not None:
            await asyncio.wait([self._ending], timeout=END_TIMEOUT_S)


async def _drain(subscription: Subscription) -> None:
    try:
        await subscription.drain()  # type: ignore[no-untyped-call]
    except LOST as error:
        _log.debug("a pull request was not taken back: %s", type(error).__name__)
