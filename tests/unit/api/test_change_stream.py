from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from sandwich_coordinator.access.roles import Identity, Role
from sandwich_coordinator.store.base import Put
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import NodeRecord
from sandwich_node.api.live.event_stream import FIRST, Reader
from tests.support.api import KEYS, Api, StoredFacts, api_over
from tests.support.live import live_parts, next_of, reading_of


def registered(name: str, lease: int) -> Put:
    record = NodeRecord(node=name, instance=f"i-{name}", address="10.0.0.1:1", version="1")
    return Put(KEYS.node(name), record.encode(), lease)


@asynccontextmanager
async def streaming(store: MemoryStore, *, readers_max: int = 200) -> AsyncIterator[tuple[Api, StoredFacts]]:
    """The API with a stream of changes."""
    facts = StoredFacts(store)
    await facts.refresh()
    async with live_parts(facts, readers_max=readers_max) as live, api_over(store, live=live) as api:
        yield api, facts


def reading(api: Api, **headers: str) -> AbstractAsyncContextManager[AsyncIterator[dict[str, Any]]]:
    return reading_of(api, "/changes", **headers)


async def test_a_snapshot_then_changes_then_resumed() -> None:
    store = MemoryStore()
    lease = await store.grant(60)
    await store.txn((), [registered("a", lease)])
    async with streaming(store) as (api, facts):
        async with reading(api) as events:
            first = await next_of(events, "snapshot")
            assert first["data"]["objects"]["node/a"]["state"] == "ready"
            assert "problem/no-leader/cluster" in first["data"]["objects"]
            await store.txn((), [registered("b", lease)])
            await facts.refresh()
            change = await next_of(events, "changes")
            assert [one["object"] for one in change["data"]["changes"]] == ["node/b"]
        facts.recent().restart(int(change["id"].partition("-")[0]))
        async with reading(api, Last_Event_ID=change["id"]) as events:
            again = await next_of(events, "resumed")
            assert again["data"]["changes"] == []
            assert "problem/no-leader/cluster" in again["data"]["problems"]


@pytest.mark.parametrize("last", ["0-all", "999999-all", "1-other", "nonsense", "-1-all", "9" * 30 + "-all"])
async def test_an_id_that_cannot_be_resumed_gets_a_snapshot(last: str) -> None:
    store = MemoryStore()
    await store.txn((), [registered("a", await store.grant(60))])
    async with streaming(store) as (api, _), reading(api, Last_Event_ID=last) as events:
        assert "node/a" in (await next_of(events, "snapshot"))["data"]["objects"]


async def test_a_limited_identity_sees_nothing_of_the_cluster() -> None:
    store = MemoryStore()
    await store.txn((), [registered("a", await store.grant(60))])
    async with streaming(store) as (api, _):
        api.identity = Identity("token", "x", Role.VIEWER, frozenset({"x"}))
        async with reading(api) as events:
            assert (await next_of(events, "snapshot"))["data"] == {"objects": {}, "figures": {}}


async def test_more_readers_than_there_is_room_for_are_refused() -> None:
    async with streaming(MemoryStore(), readers_max=1) as (api, _), reading(api) as events:
        await next_of(events, "snapshot")
        status, problem = await api("GET", "/changes")
        assert (status, problem["code"]) == (503, "unavailable")


async def test_a_reader_that_does_not_keep_up_is_cut_off() -> None:
    reader = Reader(chunks_max=2)
    for _ in range(3):
        reader.put(b"x")
    assert reader.is_cut
    assert [chunk async for chunk in reader.chunks()] == [FIRST]


async def test_what_waits_is_sent_together() -> None:
    reader = Reader()
    reader.put(b"a")
    reader.put(b"b")
    chunks = reader.chunks()
    assert [await anext(chunks), await anext(chunks)] == [FIRST, b"ab"]
    reader.cut()
    assert [chunk async for chunk in chunks] == []


async def test_a_node_without_streams_says_so() -> None:
    async with api_over(MemoryStore()) as api:
        assert (await api("GET", "/changes"))[0] == 503
