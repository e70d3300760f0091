"""One node asks another over a real HTTP server: both sides of the signature, and who may read which page."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

import aiohttp
import pytest

from sandwich_coordinator.addresses import Address
from sandwich_coordinator.operations.node_requests import NodeSilent, ask_node
from sandwich_coordinator.operations.snapshot import ask_nodes
from sandwich_coordinator.status import NodeStatus
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import NodeRecord
from sandwich_node.api.access import Access
from sandwich_node.http.app import make_app, serve
from sandwich_node.http.node_requests import BetweenNodes
from sandwich_node.http.pages import page_guards
from tests.support.api import FixedPicture, StoredFacts, settling_cluster

KEY = "k" * 64
PUBLIC = "10.0.0.1"


class Facts(StoredFacts):
    def __init__(self, node: str = "a") -> None:
        super().__init__(MemoryStore())
        self.node = node

    def status(self) -> NodeStatus:
        return NodeStatus(node=self.node, instance="i", version="1", uptime_s=1.0)


@asynccontextmanager
async def a_node(
    host: str, *, key: str = KEY, node: str = "a", clock: Callable[[], float] = time.time
) -> AsyncIterator[NodeRecord]:
    """A node that believes to listen on `host`; its registration."""
    facts = Facts(node)
    cluster = settling_cluster(MemoryStore(), facts, FixedPicture())
    app = make_app(facts, page_guards(Access(cluster, host), BetweenNodes(key, wall=clock), host))
    async with serve(app, Address("127.0.0.1", 0)) as port:
        yield NodeRecord(node="a", instance="i", address=f"127.0.0.1:{port}", version="1", status_key=KEY)


def off_by(seconds: float) -> Callable[[], float]:
    return lambda: time.time() + seconds


async def answer_of(record: NodeRecord) -> NodeStatus | str:
    view = SimpleNamespace(nodes={record.node: SimpleNamespace(record=record)})
    async with aiohttp.ClientSession() as http:
        return (await ask_nodes(http, view))[record.node]  # type: ignore[arg-type]


async def get(record: NodeRecord, path: str, **headers: str) -> int:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://{record.address}{path}", headers=headers) as response,
    ):
        return response.status


@pytest.mark.parametrize("host", ["127.0.0.1", PUBLIC])
async def test_a_node_answers_what_is_signed(host: str) -> None:
    async with a_node(host) as record:
        answer = await answer_of(record)
        assert isinstance(answer, NodeStatus)
        assert answer.node == "a"


async def test_a_node_logs_once_that_its_clock_differs_from_that_of_who_asks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for difference, said in ((-3600.0, 1), (10.0, 0)):
        caplog.clear()
        async with a_node("127.0.0.1", clock=off_by(difference)) as record:
            for _ in range(2):
                assert isinstance(await answer_of(record), NodeStatus)
        lines = [line.getMessage() for line in caplog.records if "clock" in line.getMessage()]
        assert len(lines) == said
        assert all(line.startswith("the clock of this machine is 1h 0m behind that of 127.0.0.1") for line in lines)


async def test_a_stranger_reads_only_what_is_open() -> None:
    async with a_node(PUBLIC) as record:
        found = [await get(record, f"/{page}") for page in ("healthz", "readyz", "metrics", "status")]
        assert found == [200, 200, 401, 401]
    async with a_node("127.0.0.1") as record:
        found = [await get(record, f"/{page}") for page in ("healthz", "readyz", "metrics", "status")]
        assert found == [200, 200, 200, 200]


async def test_a_used_request_is_not_answered_again() -> None:
    async with a_node(PUBLIC) as record:
        headers: list[str] = []
        trace = aiohttp.TraceConfig()

        async def note(_session: object, _context: object, params: aiohttp.TraceRequestStartParams) -> None:
            headers.append(params.headers["Authorization"])

        trace.on_request_start.append(note)
        async with aiohttp.ClientSession(trace_configs=[trace]) as http:
            await ask_node(http, record, "/status", query={"since": "1 2"})
        assert await get(record, "/status?since=1%202", Authorization=headers[0]) == 401
        assert await get(record, "/status", Authorization=headers[0]) == 401


async def test_who_does_not_have_the_key_does_not_speak_as_the_node() -> None:
    async with a_node("127.0.0.1", key="another") as record:
        assert await answer_of(record) == "its answer is not authentic"
    async with a_node(PUBLIC, key="another") as record:
        assert await answer_of(record) == "HTTP 401, and the answer is not authentic"


async def test_another_node_at_the_address_is_named() -> None:
    async with a_node("127.0.0.1", key="another", node="b") as record:
        answer = await answer_of(record)
        assert isinstance(answer, NodeStatus)
        assert answer.node == "b"


async def test_a_node_of_an_older_version_is_asked_plainly() -> None:
    async with a_node("127.0.0.1") as record:
        old = NodeRecord(node="a", instance="i", address=record.address, version="0")
        assert isinstance(await answer_of(old), NodeStatus)


async def test_an_answer_that_is_too_large_is_refused() -> None:
    async with a_node("127.0.0.1") as record, aiohttp.ClientSession() as http:
        with pytest.raises(NodeSilent, match="too large"):
            await ask_node(http, record, "/status", bytes_max=10)
