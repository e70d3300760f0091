"""Between a source of frames and the consumer: a delivery, how it is answered, and the queue of deliveries."""

import asyncio
import heapq
import itertools
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sandwich_sdk.event import Event
from sandwich_sdk.progress import FrameKey, FrameProgress
from sandwich_sdk.wire.dead import DeadLetter
from sandwich_sdk.wire.headers import FrameHeaders


class Reply(Protocol):
    """Answers a delivery. Methods may raise OSError or the transport's own error."""

    async def ack(self, *, confirm: bool) -> None:
        """Handled: not delivered again. `confirm`: wait until the server confirms it."""

    async def nak(self, delay_s: float) -> None:
        """Not handled: delivered again after `delay_s` seconds."""

    async def term(self) -> None:
        """Given up: not delivered again."""

    async def progress(self) -> None:
        """Still being handled: the server restarts its `ack_wait`."""


@dataclass(slots=True, kw_only=True)
class Delivery:
    """One message of a stream, delivered for the `tries`-th time.

    replay   the subject of a replayed dead letter, "" for a frame of the event stream
    subject  the subject that the frame was published on
    """

    app: str
    stream: str
    subject: str
    headers: Mapping[str, str] | None
    payload: bytes
    stream_seq: int
    tries: int
    reply: Reply
    received_ns: int | None = None
    published_ns: int | None = None
    replay: str = ""

    @property
    def key(self) -> FrameKey:
        """The frame's identity, the same in each delivery. It has the time: a stream created again counts from 1."""
        return self.stream, self.stream_seq, self.published_ns or 0

    @property
    def chain(self) -> str:
        """The shard that the frame belongs to."""
        return ".".join((self.app, *self.subject.split(".")[-2:]))

    @property
    def token(self) -> str:
        """The frame's name in its tries and dead letters. Unique even if the stream is created again."""
        return f"{'replay-' if self.replay else ''}{self.stream_seq}-{self.published_ns or 0}"


@dataclass(slots=True)
class OpenFrame:
    """A frame that is being handled: its events, and which of them this process has handled.

    `cursor`: offset of the event that was handed to the caller; -1: none.
    """

    delivery: Delivery
    headers: FrameHeaders
    events: list[Event]
    done: FrameProgress = field(default_factory=FrameProgress)
    cursor: int = -1


class DeadLetters(Protocol):
    """Stores dead letters and tries of a consumer group. Methods may raise OSError or the transport's own error."""

    async def load_tries(self, delivery: Delivery) -> dict[str, int]:
        """Tries of this frame's events by event id, as the workers of the group saved them."""

    async def save_tries(self, delivery: Delivery, tries: Mapping[str, int]) -> None:
        """Save the tries of this frame's events, for the worker that receives the frame next."""

    async def store(
        self, delivery: Delivery, dead_letter: DeadLetter, frame: Mapping[str, str], payload: bytes
    ) -> None:
        """Store a dead letter. Returns when it is stored."""


class Source(Protocol):
    """Where deliveries come from: JetStream, or memory in tests."""

    @property
    def dead_letters(self) -> DeadLetters:
        """Where dead letters and tries are stored."""

    async def open(self) -> None:
        """Connect. Raises ConsumerError."""

    async def feed(self, intake: "Intake") -> None:
        """Push deliveries while there is room. Returns when no more will come. Raises ConsumerError."""

    async def following(self, delivery: Delivery, after: int) -> Delivery | None:
        """The next message of the delivery's chain after stream sequence `after`; None when there is none yet."""

    def keep(self, delivery: Delivery) -> bool:
        """Whether the source keeps this `switch` frame: it acknowledges and settles it after the old frames."""

    async def close(self) -> None:
        """Hand back frames that were fetched and not pushed, and disconnect. Does not raise for a lost connection."""


class Intake:
    """Deliveries that are not settled: at most `limit` for each stream. Only one of each shard is handled at a time.

    The one that arrived first is handled first: with one handler, frames are handled in the order of the stream.
    If a frame is delivered again while it is held, only its reply is replaced.
    """

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._held: dict[FrameKey, Delivery] = {}
        self._by_stream: Counter[str] = Counter()
        self._chains: dict[str, deque[Delivery]] = {}
        self._ready: list[tuple[int, str]] = []
        """Heap of the chains whose first delivery can be handled, by its arrival."""
        self._arrivals = itertools.count()
        self._arrived: dict[FrameKey, tuple[int, float]] = {}
        """For each held delivery: its number, and when it arrived (the loop's clock)."""
        self._begun: set[FrameKey] = set()
        self._delayed = 0
        self._changed = asyncio.Event()
        self._error: BaseException | None = None
        self._ended = False
        self.stopping = False
        self.idle = 0
        self.patient = True
        """False: a delivery to retry later is ready at once (tests)."""

    @property
    def held(self) -> list[Delivery]:
        """Everything not settled, oldest first."""
        return list(self._held.values())

    def push(self, delivery: Delivery) -> None:
        """Add one delivery. The source requests no more than `room`, which bounds the number of deliveries held."""
        key, name = delivery.key, delivery.chain
        held = self._held.get(key)
        if held is not None:
            held.reply = delivery.reply
            return
        self._held[key] = delivery
        self._by_stream[delivery.stream] += 1
        self._arrived[key] = next(self._arrivals), asyncio.get_running_loop().time()
        chain = self._chains.setdefault(name, deque())
        chain.append(delivery)
        if len(chain) == 1:
            self._make_ready(name)

    async def room(self, stream: str) -> int:
        """Wait until at least half of the limit is free. Returns how many more may be pushed, 0 when stopping."""
        while not self.stopping and not self._is_half_free(stream):
            await self._change()
        return 0 if self.stopping else self._limit - self._by_stream[stream]

    def _is_half_free(self, stream: str) -> bool:
        held = self._by_stream[stream]
        return held < self._limit and held * 2 <= self._limit

    async def next(self) -> Delivery | None:
        """The next delivery of a shard of which none is being handled; None once ended or stopping.

        Raises the error of a source that failed.
        """
        self.idle += 1
        try:
            while self.stopping or not self._ready:
                if self.stopping or (self._ended and (self._error or not self._waiting)):
                    if self._error is not None:
                        raise self._error
                    return None
                await self._change()
        finally:
            self.idle -= 1
        _, chain = heapq.heappop(self._ready)
        delivery = self._chains[chain][0]
        self._begun.add(delivery.key)
        return delivery

    @property
    def _waiting(self) -> int:
        return len(self._held) - len(self._begun) + self._delayed

    def retry_later(self, delivery: Delivery, delay_s: float) -> None:
        """Return the delivery from `next` again after `delay_s`. Until then it is held and its shard waits."""
        self._delayed += 1
        delay_s = delay_s if self.patient else 0.0
        asyncio.get_running_loop().call_later(delay_s, self._resume, delivery)

    def _resume(self, delivery: Delivery) -> None:
        self._delayed -= 1
        if delivery.key in self._held:
            self._make_ready(delivery.chain)

    def overdue(self, stream: str, after_s: float) -> list[Delivery]:
        """The stream's deliveries that have waited for `after_s` and that no handler has begun with."""
        before = asyncio.get_running_loop().time() - after_s
        return [
            delivery
            for key, delivery in self._held.items()
            if delivery.stream == stream and key not in self._begun and self._arrived[key][1] <= before
        ]

    def settle(self, delivery: Delivery) -> None:
        """The delivery was answered: free its room, and let its shard continue."""
        key, name = delivery.key, delivery.chain
        if self._held.pop(key, None) is None:
            return
        self._by_stream[delivery.stream] -= 1
        self._begun.discard(key)
        number, _ = self._arrived.pop(key)
        chain = self._chains[name]
        was_first = chain[0].key == key
        chain.remove(delivery)
        if not chain:
            del self._chains[name]
        if was_first and (number, name) in self._ready:
            self._ready.remove((number, name))
            heapq.heapify(self._ready)
        if was_first and chain:
            self._make_ready(name)
        self._changed.set()

    def _make_ready(self, chain: str) -> None:
        number, _ = self._arrived[self._chains[chain][0].key]
        heapq.heappush(self._ready, (number, chain))
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def settled(self) -> None:
        """Wait until nothing is held."""
        while self._held:
            await self._change()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more will be pushed; with `error`, `next` raises it."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._changed.set()

    def stop(self) -> None:
        """Return no more deliveries. Those that wait stay held, so that the caller can hand them back."""
        self.stopping = True
        self.end()
        self._changed.set()
