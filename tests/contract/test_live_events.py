"""Events of an application over HTTP, against a real NATS."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sandwich_coordinator.access.roles import Identity, Role
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_node.api.live.discord_events import Allowance
from sandwich_node.dev.embedded import EmbeddedNats
from sandwich_sdk.wire.headers import GAP
from tests.support.api import Api, StoredFacts, api_over
from tests.support.api_cluster import KEY, store_cluster
from tests.support.live import live_parts, next_of, reading_of
from tests.support.publisher import Publisher, until

pytestmark = pytest.mark.contract


@asynccontextmanager
async def api_with(url: str, **more: Any) -> AsyncIterator[Api]:
    store = MemoryStore()
    await store_cluster(store, nats=url)
    facts = StoredFacts(store)
    await facts.refresh()
    async with live_parts(facts, key=KEY, **more) as live, api_over(store, key=KEY, live=live) as api:
        yield api


async def numbers(events: AsyncIterator[dict[str, Any]], count: int) -> list[int]:
    return [(await next_of(events, "event"))["data"]["d"]["n"] for _ in range(count)]


async def test_events_from_now_on_reach_every_reader_that_wants_them(server: EmbeddedNats, welcomer: Publisher) -> None:
    await welcomer.events(2)
    async with (
        api_with(server.url) as api,
        reading_of(api, "/events?app=welcomer") as everything,
        reading_of(api, "/events?app=welcomer&type=b,c*") as some,
    ):
        # Both are answered: the consumer of the application is there. Readers are added as they begin to read.
        await until(lambda: api.cluster.live_parts().events.places.taken == 2)
        await welcomer.events(4, types=("A", "B"))
        await welcomer.control(GAP)
        assert await numbers(everything, 4) == [3, 4, 5, 6]
        assert (await next_of(everything, "gap"))["data"]["after"] == 6
        assert await numbers(some, 2) == [3, 5]
        consumers = await welcomer.client.jetstream().consumers_info("SANDWICH_welcomer")
        assert [(each.config.durable_name, each.config.mem_storage) for each in consumers] == [(None, True)]


async def test_an_event_in_parts_is_joined(server: EmbeddedNats, welcomer: Publisher) -> None:
    async with api_with(server.url) as api, reading_of(api, "/events?app=welcomer") as events:
        await until(lambda: api.cluster.live_parts().events.places.taken == 1)
        headers, payload = welcomer.frame(1, pad=b"x" * 100)
        whole = headers.encode()
        half = len(payload) // 2
        await welcomer.send({**whole, "Sandwich-Part": "1/2"}, payload[:half])
        await welcomer.send({**whole, "Sandwich-Part": "2/2"}, payload[half:])
        assert await numbers(events, 1) == [1]


async def test_what_is_above_the_rates_is_counted(server: EmbeddedNats, welcomer: Publisher) -> None:
    async with api_with(server.url, sent_per_s=2.0) as api, reading_of(api, "/events?app=welcomer") as events:
        await until(lambda: api.cluster.live_parts().events.places.taken == 1)
        await welcomer.events(50)
        sent = len(await numbers(events, 4))
        skipped = (await next_of(events, "skipped"))["data"]["events"]
        assert sent + skipped <= 50
        assert skipped > 40
    async with api_with(server.url, read_per_s=2.0) as api, reading_of(api, "/events?app=welcomer") as events:
        await until(lambda: api.cluster.live_parts().events.places.taken == 1)
        await welcomer.events(5)
        await welcomer.events(50)
        assert await numbers(events, 5) == [51, 52, 53, 54, 55]
        assert (await next_of(events, "skipped"))["data"]["events"] == 50


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 422), ("app=nope", 404), ("app=music", 404), ("app=welcomer&guild=x", 422), ("app=welcomer&colour=red", 422)],
)
async def test_bad_questions_are_refused(server: EmbeddedNats, query: str, status: int) -> None:
    async with api_with(server.url) as api:
        assert (await api("GET", f"/events?{query}"))[0] == status


async def test_scope_and_role_are_those_of_content(server: EmbeddedNats, welcomer: Publisher) -> None:
    async with api_with(server.url) as api:
        api.identity = Identity("token", "v", Role.VIEWER)
        assert (await api("GET", "/events?app=welcomer"))[0] == 403
        api.identity = Identity("token", "m", Role.OPERATOR, frozenset({"music"}))
        assert (await api("GET", "/events?app=welcomer"))[0] == 404


async def test_without_nats_the_answer_says_so() -> None:
    async with api_with("nats://127.0.0.1:1") as api:
        status, problem = await api("GET", "/events?app=welcomer")
    assert (status, problem["code"]) == (503, "unavailable")
    assert "127.0.0.1:1" in problem["detail"]


async def test_the_consumer_goes_with_its_last_reader(
    server: EmbeddedNats, welcomer: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandwich_node.api.live.discord_events.NEXT_S", 0.05)
    async with api_with(server.url) as api:
        async with reading_of(api, "/events?app=welcomer"):
            await until(lambda: api.cluster.live_parts().events.places.taken == 1)
            events = api.cluster.live_parts().events
            (watcher,) = events._feeds["welcomer"]._watchers
            monkeypatch.setattr("sandwich_node.api.live.discord_events.IDLE_S", 0.0)
            watcher.reader.cut()
            async with asyncio.timeout(20):
                await asyncio.wait([events._feeds["welcomer"].task])
        monkeypatch.undo()
        async with reading_of(api, "/events?app=welcomer") as again:
            await until(lambda: events.places.taken == 1)
            await welcomer.events(1)
            assert await numbers(again, 1) == [1]


def test_an_allowance_saves_two_seconds() -> None:
    allowance = Allowance(10.0)
    assert allowance.take(0.0, 20)
    assert not allowance.take(0.0)
    assert not allowance.take(0.05)
    assert allowance.take(0.2, 15)
    assert not allowance.take(1.0)
    assert sum(allowance.take(100.0) for _ in range(50)) == 20
