"""Between a source of frames and the consumer: one delivery, how it is answered, and where deliveries wait."""

import asyncio
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class Reply(Protocol):
    """How the stream is told what became of a delivery. May raise OSError or the transport's own error."""

    async def ack(self, *, confirm: bool) -> None:
        """Handled: never again. `confirm` waits until the server says so."""

    async def nak(self, delay_s: float) -> None:
        """Not handled: again after `delay_s` seconds."""

    async def term(self) -> None:
        """Given up: never again."""

    async def progress(self) -> None:
        """Still being handled: the server's clock starts again."""


@dataclass(slots=True, kw_only=True)
class Delivery:
    """One message of an application's stream, delivered for the `tries`-th time."""

    app: str
    subject: str
    headers: Mapping[str, str] | None
    payload: bytes
    stream_seq: int
    tries: int
    reply: Reply
    received_ns: int | None = None
    published_ns: int | None = None

    @property
    def key(self) -> tuple[str, int, int]:
        """The frame's identity: the same for each delivery of it. A stream made again counts from 1 again."""
        return self.app, self.stream_seq, self.published_ns or 0


class Source(Protocol):
    """Where deliveries come from: JetStream, or memory in tests."""

    async def open(self) -> None:
        """Connect. Raises ConsumerError."""

    async def feed(self, intake: "Intake") -> None:
        """Push deliveries while there is room. Returns when there will never be another. Raises ConsumerError."""

    async def following(self, delivery: Delivery, after: int) -> Delivery | None:
        """The next message of the delivery's chain behind stream sequence `after`, None when there is none yet."""

    async def close(self) -> None:
        """Hand back what was fetched and not pushed, and disconnect. Never raises for a dead connection."""


class Intake:
    """Deliveries taken and not yet settled: at most `limit` an application, in `lanes` queues by shard.

    A frame delivered again while it is still held only renews how it is answered.
    """

    def __init__(self, *, limit: int, lanes: int) -> None:
        self._limit = limit
        self._queues: list[asyncio.Queue[Delivery | None]] = [asyncio.Queue() for _ in range(lanes)]
        self._held: dict[tuple[str, int, int], Delivery] = {}
        self._by_app: Counter[str] = Counter()
        self._room = asyncio.Event()
        self._error: BaseException | None = None
        self.stopping = False
        self._ended = False

    @property
    def held(self) -> list[Delivery]:
        """Everything not settled, oldest first."""
        return list(self._held.values())

    def push(self, delivery: Delivery) -> None:
        """Take one delivery. The source asks for no more than `room`, which bounds the queues."""
        held = self._held.get(delivery.key)
        if held is not None:
            held.reply = delivery.reply
            return
        self._held[delivery.key] = delivery
        self._by_app[delivery.app] += 1
        lane = 0
        if len(self._queues) > 1:
            group_and_shard = ".".join(delivery.subject.split(".")[-2:])
            lane = zlib.crc32(f"{delivery.app}.{group_and_shard}".encode()) % len(self._queues)
        self._queues[lane].put_nowait(delivery)

    async def room(self, app: str) -> int:
        """Wait until at least half of the limit is free; how many more may be pushed."""
        while self._by_app[app] * 2 > self._limit or self._by_app[app] >= self._limit:
            self._room.clear()
            await self._room.wait()
        return self._limit - self._by_app[app]

    async def next(self, lane: int = 0) -> Delivery | None:
        """The lane's next delivery; None once ended or stopping. Raises what the source failed with."""
        queue = self._queues[lane]
        delivery = None if self.stopping else await queue.get()
        if delivery is None or self.stopping:
            if self._error is not None:
                raise self._error
            queue.put_nowait(None)
            return None
        return delivery

    def settle(self, delivery: Delivery) -> None:
        """The delivery was answered: its room is free."""
        if self._held.pop(delivery.key, None) is not None:
            self._by_app[delivery.app] -= 1
            self._room.set()

    async def settled(self) -> None:
        """Wait until nothing is held."""
        while self._held:
            self._room.clear()
            await self._room.wait()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more will be pushed; with `error`, `next` raises it."""
        if not self._ended:
            self._ended = True
            self._error = error
            for queue in self._queues:
                queue.put_nowait(None)

    def stop(self) -> None:
        """Hand out nothing more; what is queued stays held, for its owner to hand back."""
        self.stopping = True
        self.end()
