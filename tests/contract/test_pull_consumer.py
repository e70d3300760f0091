"""A one-at-a-time durable on a real nats-server: no frame is sent to a worker that has unsubscribed."""

import asyncio
from collections.abc import AsyncIterator

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig

from sandwich_node.dev.embedded import EmbeddedNats
from sandwich_sdk.pull_consumer import AckAddress, PullConsumer
from tests.support.publisher import Publisher, until

pytestmark = pytest.mark.contract
STREAM, DURABLE = "SANDWICH_bot", "o@0"


class Reader:
    """A pull consumer, and a log of its frames (by sequence) and "unsub", in order."""

    def __init__(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client = client
        self.log: list[int | str] = []
        self.room = 8
        send_unsubscribe = client._send_unsubscribe

        async def record_unsubscribe(sid: int, limit: int = 0) -> None:
            self.log.append("unsub")
            await send_unsubscribe(sid, limit)

        monkeypatch.setattr(client, "_send_unsubscribe", record_unsubscribe)
        self.pull = PullConsumer(
            client=client,
            stream=STREAM,
            durable=DURABLE,
            name="",
            prepare=self._ready,
            room=self._room,
            take=self._take,
        )

    async def _ready(self) -> None:
        await self.client.jetstream().add_consumer(
            STREAM, ConsumerConfig(name=DURABLE, durable_name=DURABLE, max_ack_pending=1)
        )

    async def _room(self) -> int:
        return self.room

    async def _take(self, message: Msg, address: AckAddress) -> None:
        self.log.append(address.stream_seq)
        await self.client.publish(message.reply, b"+ACK")


@pytest.fixture
async def reader(server: EmbeddedNats, publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reader]:
    client = await nats.connect(server.url)
    yield Reader(client, monkeypatch)
    await client.close()


async def test_a_pull_that_is_not_wanted_any_more_unsubscribes_before_its_next_frame_can_be_acknowledged(
    publisher: Publisher, reader: Reader
) -> None:
    async with asyncio.timeout(60):
        running = asyncio.create_task(reader.pull.run())
        await publisher.events(1)
        await until(lambda: reader.log == [1])
        reader.pull.wanted = False
        await asyncio.wait([running], timeout=0.1)
        assert not running.done()
        await publisher.events(1)
        await publisher.events(1)
        await running
        # The server processes acknowledgements in another thread than requests.
        state = publisher.client.jetstream()
        while (info := await state.consumer_info(STREAM, DURABLE)).num_ack_pending:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert reader.log == [1, "unsub", 2]
    assert info.num_pending == 1


async def test_a_pull_that_is_wanted_again_in_time_continues(publisher: Publisher, reader: Reader) -> None:
    async with asyncio.timeout(60):
        running = asyncio.create_task(reader.pull.run())
        await publisher.events(1)
        await until(lambda: reader.log == [1])
        reader.pull.wanted = False
        await asyncio.sleep(0)
        reader.pull.wanted = True
        for _ in range(20):
            await publisher.events(1)
        await until(lambda: len(reader.log) == 21)
        running.cancel()
        await asyncio.wait([running])
    assert reader.log == [*range(1, 22), "unsub"]


async def test_a_pull_ends_when_room_is_0(publisher: Publisher, reader: Reader) -> None:
    reader.room = 0
    async with asyncio.timeout(60):
        await reader.pull.run()
    assert reader.log == ["unsub"]
