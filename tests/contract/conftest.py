"""A nats-server for each test, and a writer of frames."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
    async with _publisher(server) as publisher:
        yield publisher


@pytest.fixture
async def welcomer(server: EmbeddedNats) -> AsyncIterator[Publisher]:
    """Of the application `welcomer`."""
    async with _publisher(server, "welcomer") as publisher:
        yield publisher


@asynccontextmanager
async def _publisher(server: EmbeddedNats, *app: str) -> AsyncIterator[Publisher]:
    client = await nats.connect(server.url)
    publisher = Publisher(client, *app)
    await publisher.make_stream()
    try:
        yield publisher
    finally:
        await client.close()
