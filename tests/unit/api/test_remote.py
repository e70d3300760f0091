"""`sandwich --api`: the same operations through a node, with the same errors."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandwich_coordinator.access.roles import ANONYMOUS, Identity, Role
from sandwich_coordinator.cli.cluster_through_api import ThroughApi
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.remote import ApiAddress, api_address, open_api
from sandwich_coordinator.operations.errors import NotFound, Refused, Unavailable
from sandwich_coordinator.operations.progress import Drained, NodeStateSet, Progress
from sandwich_coordinator.store.memory import MemoryStore
from tests.support.api import Api, api_over
from tests.support.servers import listening, says
from tests.unit.api.test_nodes import registered


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    store = MemoryStore()
    lease = await store.grant(60)
    await store.txn((), [registered("alpha", lease), registered("beta", lease)])
    async with api_over(store) as api:
        yield api


@pytest.fixture
async def cluster(api: Api) -> AsyncIterator[ThroughApi]:
    async with open_api(ApiAddress(url=str(api.http._base_url).rstrip("/"), token="t")) as remote:
        yield ThroughApi(remote)


async def test_nodes_are_operated_and_progress_is_the_same(cluster: ThroughApi) -> None:
    seen: list[Progress] = []
    await cluster.change_state("alpha", "cordoned", report=seen.append)
    assert seen == [NodeStateSet("alpha", "ready", "cordoned")]
    await cluster.drain("beta", force=True, timeout_s=5, report=seen.append)
    assert (seen[1], seen[-1]) == (NodeStateSet("beta", "ready", "draining"), Drained("beta"))
    view = (await cluster.snapshot()).view
    assert {name: entry.record.state for name, entry in view.nodes.items()} == {"alpha": "cordoned", "beta": "draining"}


async def test_errors_come_back_as_they_were_raised(cluster: ThroughApi, api: Api) -> None:
    with pytest.raises(NotFound, match=r"there is no node alfa \(did you mean alpha\?\); there are: alpha, beta"):
        await cluster.change_state("alfa", "cordoned", report=print)
    with pytest.raises(Refused, match="is registered: stop it first"):
        await cluster.forget("alpha")
    with pytest.raises(NotFound):
        await cluster.forget("../alpha?x=1")
    api.identity = Identity("token", "v", Role.VIEWER)
    with pytest.raises(CommandError, match="needs the role operator; you have viewer"):
        await cluster.change_state("alpha", "cordoned", report=print)
    api.identity = ANONYMOUS
    with pytest.raises(CommandError, match="SANDWICH_API_TOKEN"):
        await cluster.snapshot()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
async def test_something_else_at_the_address_is_said(answer: bytes) -> None:
    async with listening(says(b"", answer)) as port, open_api(ApiAddress(url=f"http://127.0.0.1:{port}")) as remote:
        with pytest.raises(Unavailable):
            await ThroughApi(remote).snapshot()


async def test_a_page_of_another_server_is_no_answer() -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"
    async with listening(says(b"", page)) as port, open_api(ApiAddress(url=f"http://127.0.0.1:{port}")) as remote:
        with pytest.raises(Unavailable, match="that is not Sandwich's API"):
            await remote.get("/apps/x")


@pytest.mark.parametrize("code", ["busy", "no-answer"])
async def test_a_node_that_cannot_answer_is_not_a_refusal(code: str) -> None:
    body = json.dumps({"code": code, "detail": "too many requests at once"}).encode()
    answer = b"HTTP/1.1 503 Busy\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n%b"
    served = says(b"", answer % (len(body), body))
    async with listening(served) as port, open_api(ApiAddress(url=f"http://127.0.0.1:{port}")) as remote:
        with pytest.raises(Unavailable, match="too many"):
            await remote.get("/apps/x")


async def test_an_address_without_a_server_is_said() -> None:
    async with open_api(ApiAddress(url="http://127.0.0.1:1")) as remote:
        with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:1 cannot be asked"):
            await ThroughApi(remote).snapshot()


def test_the_token_comes_from_a_private_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDWICH_API_TOKEN", "from-env")
    assert api_address("http://a:1/", None, None) == ApiAddress(url="http://a:1", token="from-env")
    file = tmp_path / "token"
    file.write_text("from-file\n")
    file.chmod(0o644)
    with pytest.raises(CommandError, match="--api-token-file"):
        api_address("http://a:1", file, None)
    file.chmod(0o600)
    address = api_address("http://a:1", file, None)
    assert address.token == "from-file"
    assert "from-file" not in repr(address)
    with pytest.raises(CommandError, match="--api"):
        api_address("a:5469", None, None)
