"""A client that writes to etcd without the cluster key gets no token, with real processes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from sandwich_coordinator.config import ClusterSettings
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.store.base import Put
from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import BudgetRecord, Record, SessionRecord
from sandwich_node.dev.cluster import DevBot, DevCluster, dev_cluster
from tests.e2e.test_bad_input import live, until

pytestmark = pytest.mark.e2e

BOT = DevBot(app="welcomer", token="MTAwMDAwMDAwMDAx.GaaaaX.canary", guilds=4, shards=2, recommended=2)
KEYS = Keys()
STRANGER = "127.0.0.2"
"""A host name on this machine that is not the simulator's."""


@asynccontextmanager
async def stranger() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that never answers; yields its port and the received data."""
    seen: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            seen.append(await reader.read(4096))
        finally:
            writer.close()

    server = await asyncio.start_server(take, STRANGER, 0)
    async with server:
        yield server.sockets[0].getsockname()[1], seen


class Writer:
    """An attacker with write access to etcd and without the key."""

    def __init__(self, store: EtcdStore) -> None:
        self.store = store

    async def change(self, prefix: str, kind: type[Record], **fields: Any) -> None:
        """Change fields in all records under a prefix."""
        for item in (await self.store.list(prefix)).items:
            record = msgspec.structs.replace(msgspec.json.decode(item.value, type=kind), **fields)
            await self.store.txn((), (Put(item.key, record.encode()),))

    async def settings(self, edit: Callable[[ClusterSettings], ClusterSettings]) -> None:
        """Change the configuration, with the proof if `edit` changes it."""
        item = await self.store.get(KEYS.config)
        assert item is not None
        await self.store.txn((), (Put(KEYS.config, edit(ClusterSettings.decode(item.value)).encode()),))


@pytest.mark.long
async def test_a_writer_without_the_key_cannot_redirect_a_token_to_another_server() -> None:
    async with dev_cluster((BOT,), nodes=1, rate=0.0) as cluster, stranger() as (port, seen):
        await until("two live shards", lambda: live(cluster, 2))
        store = EtcdStore([cluster.etcd.url])
        try:
            await _gateway_and_resume_url(cluster, Writer(store), f"ws://{STRANGER}:{port}")
            await _api_url(cluster, Writer(store), f"http://{STRANGER}:{port}/api/v10")
            await _another_key(cluster, store)
        finally:
            await store.close()
        assert seen == []
        await until("two live shards", lambda: live(cluster, 2))


async def _gateway_and_resume_url(cluster: DevCluster, writer: Writer, evil: str) -> None:
    (budget,) = (await writer.store.list(KEYS.budgets)).items
    url = msgspec.json.decode(budget.value, type=BudgetRecord).url
    await writer.change(KEYS.budgets, BudgetRecord, url=evil)
    await writer.change(KEYS.sessions, SessionRecord, resume_url=evil)
    await cluster.run_cli("shard", "restart", "welcomer", "0-1", "--timeout", "1")

    async def refused() -> bool:
        code, text = await cluster.run_cli("cluster", "status")
        return code == 1 and f"the gateway's address names the host {STRANGER}" in text

    await until("the refused gateway in the status", refused)
    await writer.change(KEYS.budgets, BudgetRecord, url=url)
    await until("two live shards", lambda: live(cluster, 2))
    (stats,) = (await cluster.simulator("stats"))["bots"].values()
    assert (stats["identifies"], stats["resumes_ok"]) == (2, 2), "the sessions are resumed at the gateway's own address"


async def _api_url(cluster: DevCluster, writer: Writer, evil: str) -> None:
    await cluster.nodes["a"].stop(30.0)
    await writer.settings(
        lambda settings: msgspec.structs.replace(
            settings, discord=msgspec.structs.replace(settings.discord, api_url=evil)
        )
    )
    refused = await cluster.start_node("b")
    async with asyncio.timeout(30):
        assert await refused.process.wait() == 1
    assert "were changed by something that has no cluster key" in refused.tail()
    await writer.settings(lambda settings: msgspec.structs.replace(settings, proof=""))
    waiting = await cluster.start_node("c")

    async def waits() -> bool:
        return "are not authenticated with the cluster key" in waiting.log.read_text()

    await until("the node waits for the proof", waits)
    code, exported = await cluster.run_cli("cluster", "export")
    assert (code, evil in exported) == (1, False)
    code, output = await cluster.run_cli("cluster", "apply", "-f", str(cluster.directory / "cluster.yml"))
    assert (code, f"discord.api_url: {evil} ->" in output) == (0, True), output
    await until("two live shards", lambda: live(cluster, 2))


async def _another_key(cluster: DevCluster, store: EtcdStore) -> None:
    before = await store.list(KEYS.apps)
    own, cluster.env["SANDWICH_CLUSTER_KEY"] = cluster.env["SANDWICH_CLUSTER_KEY"], ClusterKey.generate().to_base64()
    file = str(cluster.directory / "cluster.yml")
    try:
        code, output = await cluster.run_cli("cluster", "apply", "-f", file)
        assert (code, ClusterKey.from_base64(own).key_id in output, "--rekey" in output) == (1, True, True), output
        assert (await cluster.run_cli("cluster", "export"))[0] == 1
    finally:
        cluster.env["SANDWICH_CLUSTER_KEY"] = own
    code, output = await cluster.run_cli("cluster", "apply", "-f", file, "--insecure-plaintext")
    assert (code, "no cluster key" in output) == (1, True), output
    assert (await store.list(KEYS.apps)).items == before.items
