"""Many requests at once, and bodies that are huge, slow, deep, or changed by two at the same time."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from yarl import URL

from sandwich_coordinator.operations.snapshot_json import decode_snapshot
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import AppRecord
from sandwich_node.api import server
from sandwich_node.api.resources import snapshot
from sandwich_node.api.routing import Call, Stream
from tests.support.api import KEYS, Api, api_over
from tests.support.api_cluster import KEY, answers, store_cluster

APP = "/api/v1/apps/welcomer"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    store = MemoryStore()
    await store_cluster(store)
    async with api_over(store, key=KEY) as api:
        api.picture.answers = answers()
        yield api


async def record(api: Api) -> AppRecord:
    item = await api.cluster.store.get(KEYS.app("welcomer"))
    assert item is not None
    return msgspec.json.decode(item.value, type=AppRecord)


async def test_a_thousand_requests_at_once_are_all_answered(api: Api) -> None:
    paths = ["/cluster", "/apps", "/apps/welcomer", "/shards", "/problems", "/nodes", "/openapi.json", "/nothing"]
    async with asyncio.timeout(120):
        found = await asyncio.gather(*(api("GET", paths[number % len(paths)]) for number in range(1000)))
    assert sum(status == 200 for status, _ in found) == 875
    assert sum(status == 404 for status, _ in found) == 125


async def test_of_changes_at_once_each_is_applied_or_refused(api: Api) -> None:
    """None is lost: what is stored in the end is what the requests that were carried out have set."""
    values = [f"cache.{name}" for name in ("threads", "stickers", "stages", "sounds", "emojis", "voice_states")]
    found = await asyncio.gather(*(api("PATCH", "/apps/welcomer", {"set": {path: False}}) for path in values))
    stored = (await record(api)).cache
    for path, (status, _) in zip(values, found, strict=True):
        assert status in (200, 409)
        assert getattr(stored, path.partition(".")[2]) == (status != 200)
    assert 200 in {status for status, _ in found}


async def test_of_two_changes_of_one_revision_one_is_stale(api: Api) -> None:
    async with api.http.get(APP) as response:
        etag = response.headers["ETag"]
    found = await asyncio.gather(
        *(api("PATCH", "/apps/welcomer", {"set": {"route": name}}, If_Match=etag) for name in ("a", "b"))
    )
    assert sorted(status for status, _ in found) == [200, 412]
    (won,) = [name for name, (status, _) in zip("ab", found, strict=True) if status == 200]
    assert (await record(api)).route == won


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b'{"set": {"route": "%s"}}' % (b"x" * 1_100_000), 413),
        (b'{"set": {"presence": %s%s}}' % (b"[" * 100_000, b"]" * 100_000), 400),
        (b'{"set": {"presence": %s1%s}}' % (b'{"a":' * 150, b"}" * 150), 422),
        (b'{"set": {"route": "\\ud800"}}', 400),
        (b'{"set": {"route": "\xff"}}', 400),
        (b'{"set": {"weight": NaN}}', 422),
        (b'{"set": {"weight": 1e999}}', 422),
        (b'{"set": {"large_threshold": %s}}' % (b"9" * 5000), 400),
        (b'{"set": {"a.%s": 1}}' % (b"b." * 10_000 + b"b"), 422),
        (b'{"set": {"route": 1}, "set": {"weight": 0}}', 422),
        (b"", 422),
        (b"null", 422),
    ],
)
async def test_a_body_that_cannot_be_used_changes_nothing(api: Api, raw: bytes, status: int) -> None:
    before = await record(api)
    async with api.http.patch(APP, data=raw, headers=JSON) as response:
        problem = await response.json(content_type=None)
        assert (response.status, problem["status"]) == (status, status)
    assert len(str(problem)) < 10_000
    assert await record(api) == before


async def test_a_body_that_does_not_arrive_is_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BODY_TIMEOUT_S", 0.05)
    goes_on = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await goes_on.wait()

    async with api.http.patch(APP, data=body(), headers=JSON) as response:
        assert (response.status, (await response.json(content_type=None))["code"]) == (408, "too-slow")
        goes_on.set()


@pytest.mark.parametrize(
    ("query", "status"),
    [("limit=1&limit=2", 422), ("limit=1e2", 422), ("after=" + "x" * 513, 422), ("after=%00", 200), ("x", 422)],
)
async def test_bad_queries_are_refused(api: Api, query: str, status: int) -> None:
    found: tuple[int, Any] = await api("GET", f"/shards?{query}")
    assert found[0] == status


async def raw_answer(api: Api, head: str) -> bytes:
    """All bytes that the server sends for a request, until it closes the connection."""
    url = URL(api.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        writer.write(f"{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("path", ["/snapshot", "/cluster", "/apps/nope", "/nope"])
async def test_an_answer_to_head_has_no_body(api: Api, path: str) -> None:
    found = [await raw_answer(api, f"{method} /api/v1{path} HTTP/1.1") for method in ("HEAD", "GET")]
    (head, body), (get_head, get_body) = (answer.split(b"\r\n\r\n", 1) for answer in found)
    assert body == b""
    assert get_body != b""
    assert head.partition(b"\r\n")[0] == get_head.partition(b"\r\n")[0]


async def test_the_snapshot_of_a_large_cluster_comes_in_pieces(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader has its time for each of them."""
    monkeypatch.setattr(snapshot, "PIECE_BYTES", 1000)
    (route,) = snapshot.ROUTES
    stream = await route.handler(Call(cluster=api.cluster, identity=api.identity))
    assert isinstance(stream, Stream)
    pieces = [piece async for piece in stream.chunks]
    assert [len(piece) for piece in pieces[:-1]] == [1000] * (len(pieces) - 1)
    assert len(pieces) > 3
    assert decode_snapshot(b"".join(pieces)).view.apps.keys() == {"welcomer", "music"}
