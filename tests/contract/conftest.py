"""A nats-server for each test, and a writer of frames."""

from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest

from sandwich_node.dev.embedded import EmbeddedNats
from tests.support.publisher import Publisher


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    async with EmbeddedNats(tmp_path / "nats") as server:
        yield server


@pytest.fixture
async def publisher(server: EmbeddedNats) -> AsyncIterator[Publisher]:
    client = await nats.connect(server.url)
    publisher = Publisher(client)
    await publisher.make_stream()
    yield publisher
    await client.close()
