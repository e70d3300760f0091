"""The API's connection to NATS is shared, and closed when it is no longer needed."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from sandwich_coordinator.config import ClusterSettings, NatsSettings, RedisSettings
from sandwich_node.api import messaging
from sandwich_node.api.messaging import Messaging


class Connection:
    """In place of a connection to NATS. Closing one takes until `may_close`."""

    made: list["Connection"]
    may_close: asyncio.Event
    is_connected = True

    def __init__(self, options: object, *, name: str) -> None:
        self.options = options
        self.client = self
        self.closed = asyncio.Event()
        self.made.append(self)

    async def connect(self) -> None:
        await asyncio.sleep(0)

    async def close(self) -> None:
        await self.may_close.wait()
        self.closed.set()

    @property
    def is_closed(self) -> bool:
        return self.closed.is_set()


def settings(nats: str) -> ClusterSettings:
    return ClusterSettings(nats=NatsSettings(servers=[nats]), redis=RedisSettings(url="redis://one:6379/0"))


class Cluster:
    """`settings` are those of the cluster now."""

    settings = settings("nats://one:4222")


@pytest.fixture
async def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    Connection.made, Connection.may_close = [], asyncio.Event()
    Connection.may_close.set()
    monkeypatch.setattr("sandwich_node.nats_connection.NatsConnection", Connection)
    return Cluster()


@pytest.fixture
async def shared(cluster: Cluster) -> AsyncIterator[Messaging]:
    found = Messaging(lambda: cluster.settings, None)
    yield found
    Connection.may_close.set()
    await found.close()
    assert all(one.is_closed for one in Connection.made)


async def use(shared: Messaging) -> None:
    async with shared.client():
        await asyncio.sleep(0)


async def test_requests_share_a_connection_that_is_closed_after_a_while(
    shared: Messaging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messaging, "IDLE_S", 0.0)
    async with shared.client():
        await asyncio.gather(use(shared), use(shared))
        await asyncio.sleep(0.01)
        assert [one.is_closed for one in Connection.made] == [False]
    async with asyncio.timeout(60):
        await Connection.made[0].closed.wait()


async def test_a_connection_with_old_settings_is_closed_also_while_others_come_and_go(
    shared: Messaging, cluster: Cluster
) -> None:
    """Its closing takes a moment, in which requests use the newer one."""
    Connection.may_close.clear()
    async with shared.client():
        cluster.settings = settings("nats://two:4222")
        await use(shared)
    await use(shared)
    await use(shared)
    Connection.may_close.set()
    async with asyncio.timeout(60):
        await Connection.made[0].closed.wait()
    assert [one.is_closed for one in Connection.made] == [True, False]
