"""The logs of all nodes, asked over HTTP with signed requests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from sandwich_coordinator.access.roles import Identity, Role
from sandwich_coordinator.addresses import Address
from sandwich_coordinator.store.base import Put
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import NodeRecord
from sandwich_node.api.live import cluster_logs
from sandwich_node.api.live.cluster_logs import PATH, logs_page
from sandwich_node.http.app import serve
from sandwich_node.http.node_requests import BetweenNodes
from sandwich_node.log_lines import LogLine, LogRing
from tests.support.api import KEYS, Api, StoredFacts, api_over
from tests.support.live import live_parts, next_of, reading_of
from tests.support.publisher import until

SECRET = "5" * 64


@dataclass
class Two:
    """Node a, which is asked, and node b at the address `other`. Node c does not answer."""

    api: Api
    other: str
    a: LogRing
    b: LogRing


def line(message: str, at: float, app: str = "", **more: object) -> LogLine:
    return LogLine(at=at, level="warning", logger="x", message=message, app=app, **more)  # type: ignore[arg-type]


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    store = MemoryStore()
    lease = await store.grant(60)
    a, b = LogRing(1000), LogRing(5)
    async with AsyncExitStack() as stack:
        app = web.Application()
        app.router.add_get(PATH, BetweenNodes(SECRET).only(logs_page(b)))
        other = f"127.0.0.1:{await stack.enter_async_context(serve(app, Address('127.0.0.1', 0)))}"
        for name, address in (("a", "127.0.0.1:9"), ("b", other), ("c", "127.0.0.1:9")):
            record = NodeRecord(node=name, instance="i", address=address, version="1", status_key=SECRET)
            await store.txn((), [Put(KEYS.node(name), record.encode(), lease)])
        facts = StoredFacts(store)
        await facts.refresh()
        live = await stack.enter_async_context(live_parts(facts, ring=a))
        yield Two(await stack.enter_async_context(api_over(store, live=live)), other, a, b)


async def test_lines_of_all_nodes_by_time_and_who_is_silent(two: Two) -> None:
    two.a.add(line("first", 1.0))
    two.b.add(line("second", 2.0, worker=1))
    two.a.add(line("third", 3.0))
    status, page = await two.api("GET", "/logs")
    assert status == 200
    shown = [(each["node"], each["message"], each["worker"]) for each in page["lines"]]
    assert shown == [("a", "first", None), ("b", "second", 1), ("a", "third", None)]
    assert list(page["silent"]) == ["c"]
    _, page = await two.api("GET", "/logs?node=b&limit=1")
    assert [each["message"] for each in page["lines"]] == ["second"]
    assert page["silent"] == {}


async def test_a_limited_identity_sees_lines_of_its_applications(two: Two) -> None:
    two.a.add(line("of x", 1.0, "x"))
    two.b.add(line("of x, too", 2.0, "x"))
    two.b.add(line("of y", 3.0, "y"))
    two.b.add(line("of the node", 4.0))
    two.api.identity = Identity("token", "t", Role.OPERATOR, frozenset({"x"}))
    _, page = await two.api("GET", "/logs")
    assert [each["message"] for each in page["lines"]] == ["of x", "of x, too"]
    assert page["silent"] == {}
    assert (await two.api("GET", "/logs?app=y"))[0] == 404
    # Whether there is such a node is not shown: c is one.
    for name in ("c", "nope"):
        assert await two.api("GET", f"/logs?node={name}") == (200, {"lines": [], "silent": {}})
    two.api.identity = Identity("token", "t", Role.VIEWER)
    assert (await two.api("GET", "/logs"))[0] == 403


@pytest.mark.parametrize(
    ("query", "status"), [("node=nope", 404), ("limit=0", 422), ("level=loud", 422), ("since=nan", 422), ("q=1", 422)]
)
async def test_bad_questions_are_refused(two: Two, query: str, status: int) -> None:
    assert (await two.api("GET", f"/logs?{query}"))[0] == status


async def test_no_stranger_reads_the_log_of_a_node(two: Two) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"http://{two.other}{PATH}") as response:
        assert response.status == 401


async def test_new_lines_are_followed_on_all_nodes(two: Two) -> None:
    two.b.add(line("old", 1.0))
    async with reading_of(two.api, "/logs/live?level=warning") as events:
        found: list[dict[str, object]] = []
        # Lines count from the first look at each node: more are written until one of each has arrived.
        while {each["node"] for each in found} != {"a", "b"}:
            two.a.add(line("new", 2.0))
            two.b.add(line("new", 2.0))
            found.append((await next_of(events, "line"))["data"])
    assert {each["message"] for each in found} == {"new"}


async def following(events: AsyncIterator[dict[str, Any]], ring: LogRing, **more: object) -> None:
    """Until a line has come: they count from the first look at a node."""

    async def write() -> None:
        while True:
            ring.add(line("first", 1.0, **more))  # type: ignore[arg-type]
            await asyncio.sleep(0.01)

    writing = asyncio.create_task(write())
    try:
        assert (await next_of(events, "line"))["data"]["message"] == "first"
    finally:
        writing.cancel()


async def test_many_lines_at_once_do_not_cut_a_reader_off(two: Two) -> None:
    async with reading_of(two.api, "/logs/live?node=a") as events:
        await following(events, two.a)
        for number in range(400):
            two.a.add(line(str(number), 2.0 + number))
        found: list[str] = []
        while "399" not in found:
            found.append((await next_of(events, "line"))["data"]["message"])
    assert [message for message in found if message != "first"] == [str(number) for number in range(400)]


async def test_lines_that_were_skipped_are_hidden_from_who_is_limited_to_some_applications(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event names a node, and may be about lines of others only."""
    monkeypatch.setattr(cluster_logs, "POLL_LINES_MAX", 3)
    async with reading_of(two.api, "/logs/live?node=a") as everything:
        two.api.identity = Identity("token", "x", Role.OPERATOR, frozenset({"x"}))
        async with reading_of(two.api, "/logs/live?node=a") as limited:
            await following(limited, two.a, app="x")
            two.api.identity = Identity("token", "t", Role.ADMIN)
            for number in range(9):
                two.a.add(line(str(number), 2.0, app="y"))
            two.a.add(line("last", 3.0, app="x"))
            assert (await next_of(everything, "skipped"))["data"]["node"] == "a"
            kinds: list[str] = []
            async for event in limited:
                kinds.append(event["event"])
                if event["data"].get("message") == "last":
                    break
    assert set(kinds) == {"line"}


async def test_the_lines_between_two_readers_are_no_news_to_the_second(two: Two) -> None:
    logs = two.api.cluster.live_parts().logs
    async with reading_of(two.api, "/logs/live?node=a") as events:
        await following(events, two.a)
    await until(lambda: not logs._audience.subscribers)
    for number in range(20):
        two.a.add(line(f"between {number}", 2.0))
    async with reading_of(two.api, "/logs/live?node=a") as events:
        await following(events, two.a)


async def test_only_nodes_that_are_followed_are_asked(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = two.api.cluster.live_parts().logs
    asked: list[str] = []
    ask_one = logs._ask_one

    async def counted(name: str, question: Any) -> Any:
        asked.append(name)
        return await ask_one(name, question)

    monkeypatch.setattr(logs, "_ask_one", counted)
    async with reading_of(two.api, "/logs/live?node=b") as events:
        await following(events, two.b)
    assert set(asked) == {"b"}
