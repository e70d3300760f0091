"""Writes an application's frames by the SDK's wire contract, and waits until consumers have handled them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable

import zstandard
from nats.aio.client import Client
from nats.js.api import StreamConfig

from sandwich_sdk import Consumer
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.headers import FrameHeaders

DEADLINE_S = 60.0
"""A generous deadline for something that takes no time on a quiet machine."""


class Publisher:
    """Writes one shard's frames. Event n has the data {"n": n}."""

    def __init__(self, client: Client, app: str = "bot", *, shard: int = 0) -> None:
        self.client = client
        self.app = app
        self.shard = shard
        self.session = f"abc{shard}" if shard else "abc"
        self.seq = 0

    async def make_stream(self) -> None:
        config = StreamConfig(name=subjects.stream_name(self.app), subjects=subjects.stream_subjects(self.app))
        await self.client.jetstream().add_stream(config)

    def frame(self, count: int, *, types: tuple[str, ...] = ("A",), pad: bytes = b"") -> tuple[FrameHeaders, bytes]:
        lines = []
        for n in range(self.seq + 1, self.seq + 1 + count):
            line = {"t": types[n % len(types)], "s": n, "op": 0, "d": {"n": n, "pad": pad.decode()}}
            meta = {"v": 1, "app": self.app, "bot": "1", "route": "r", "shard": [0, self.shard, 64]}
            meta["id"] = f"{self.session}:{n}"
            lines.append(json.dumps({**line, "__sandwich": meta}).encode() + b"\n")
        first, self.seq = self.seq + 1, self.seq + count
        headers = FrameHeaders(
            session=self.session, first_seq=first, last_seq=self.seq, count=count, epoch=1, types=frozenset(types)
        )
        return headers, zstandard.ZstdCompressor().compress(b"".join(lines))

    async def send(self, headers: dict[str, str], payload: bytes, *, lane: str = "all") -> int:
        subject = subjects.events_subject(self.app, lane, 0, self.shard)
        return (await self.client.jetstream().publish(subject, payload, headers=headers)).seq

    async def events(self, count: int, *, types: tuple[str, ...] = ("A",), lane: str = "all") -> int:
        headers, payload = self.frame(count, types=types)
        return await self.send(headers.encode(), payload, lane=lane)

    async def control(self, kind: str, note: bytes = b"", *, epoch: int = 1) -> None:
        headers = FrameHeaders(
            session=self.session, first_seq=self.seq, last_seq=self.seq, count=0, epoch=epoch, kind=kind
        )
        await self.send(headers.encode(), note)

    async def unsettled(self, group: str) -> int:
        info = await self.client.jetstream().consumer_info(subjects.stream_name(self.app), group)
        return (info.num_ack_pending or 0) + (info.num_pending or 0)


async def until(condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def settled(publisher: Publisher, group: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await publisher.unsettled(group):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(*consumers: Consumer) -> AsyncIterator[None]:
    async with asyncio.timeout(2 * DEADLINE_S), asyncio.TaskGroup() as tasks:
        for consumer in consumers:
            tasks.create_task(consumer.run(handle_signals=False))
        try:
            yield
        finally:
            for consumer in consumers:
                await consumer.close()


async def take(consumer: Consumer, count: int) -> list[int]:
    """The next events. Another task ends the loop, so that the last event counts as handled."""
    seen: list[int] = []
    async with asyncio.timeout(2 * DEADLINE_S), asyncio.TaskGroup() as tasks:
        async for event in consumer:
            seen.append(event.data["n"])
            if len(seen) == count:
                tasks.create_task(consumer.close())
    return seen
