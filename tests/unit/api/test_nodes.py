import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from sandwich_coordinator.access.roles import Identity, Role
from sandwich_coordinator.status import AppStatus, NodeStatus
from sandwich_coordinator.store.base import Delete, Put
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import ClaimRecord, NodeRecord
from sandwich_node.api import server
from tests.support.api import KEYS, Api, api_over

VIEWER = Identity("token", "v", Role.VIEWER)
OPERATOR = Identity("token", "o", Role.OPERATOR)


def registered(name: str, lease: int, **more: object) -> Put:
    record = NodeRecord(node=name, instance=f"i-{name}", address=f"10.0.0.1:{lease}", version="1", **more)  # type: ignore[arg-type]
    return Put(KEYS.node(name), record.encode(), lease)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    store = MemoryStore()
    lease = await store.grant(60)
    await store.txn((), [registered("alpha", lease), registered("beta", lease, max_shards=7)])
    async with api_over(store) as api:
        yield api


async def state(api: Api, node: str) -> str:
    return str((await api("GET", f"/nodes/{node}"))[1]["state"])


async def test_nodes_are_listed_in_pages_with_what_each_says_of_itself(api: Api) -> None:
    api.identity = VIEWER
    api.picture.answers = {
        "alpha": NodeStatus(node="alpha", instance="i", version="1", uptime_s=1, apps={"w": AppStatus(guilds=5)}),
        "beta": "connection refused",
    }
    status, page = await api("GET", "/nodes?limit=1")
    assert (status, page["next"]) == (200, "alpha")
    assert (page["items"][0]["guilds"], page["items"][0]["answers"]) == (5, True)
    status, page = await api("GET", "/nodes?limit=1&after=alpha")
    assert (page["next"], page["items"][0]["error"], page["items"][0]["max_shards"]) == (None, "connection refused", 7)


async def test_an_operator_cordons_and_the_next_read_shows_it(api: Api) -> None:
    api.identity = OPERATOR
    assert (await api("POST", "/nodes/alpha/cordon"))[0] == 200
    assert await state(api, "alpha") == "cordoned"
    assert (await api("POST", "/nodes/alpha/uncordon"))[0] == 200
    assert await state(api, "alpha") == "ready"
    assert [entry[:2] for entry in api.recorded] == [
        ("o", "POST /nodes/{node}/cordon"),
        ("o", "POST /nodes/{node}/uncordon"),
    ]
    assert [(one.before, one.after) for one in api.changes] == [
        ({"state": "ready"}, {"state": "cordoned"}),
        ({"state": "cordoned"}, {"state": "ready"}),
    ]


async def test_a_viewer_changes_nothing(api: Api) -> None:
    api.identity = VIEWER
    status, problem = await api("POST", "/nodes/alpha/cordon")
    assert (status, problem["code"], problem["type"]) == (403, "forbidden", "urn:sandwich:error:forbidden")
    assert await state(api, "alpha") == "ready"
    assert [entry[:2] for entry in api.recorded] == [("v", "POST /nodes/{node}/cordon")]


async def test_who_is_limited_to_an_application_neither_lists_nor_drains_nodes(api: Api) -> None:
    api.identity = Identity("token", "x", Role.ADMIN, frozenset({"welcomer"}))
    assert (await api("GET", "/nodes"))[0] == 403
    assert (await api("POST", "/nodes/alpha/drain", {}))[0] == 403


async def test_a_drain_is_accepted_at_once_and_followed_on_request(api: Api) -> None:
    status, outcome = await api("POST", "/nodes/alpha/drain", {})
    assert (status, outcome["reached"]) == (200, True)
    assert outcome["progress"][0] == {"kind": "NodeStateSet", "node": "alpha", "before": "ready", "after": "draining"}
    async with api.http.post(
        "/api/v1/nodes/beta/drain", json={"force": True}, headers={"Accept": "application/x-ndjson"}
    ) as response:
        lines = [json.loads(line) async for line in response.content]
    assert [next(iter(line)) for line in lines] == ["progress", "progress", "progress", "progress", "result"]
    assert lines[-1]["result"]["reached"] is True


async def test_progress_ends_for_whom_may_not_follow_it_any_longer(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node stays draining, and the audit log does not say that its end was seen."""
    monkeypatch.setattr(server, "STREAM_CHECK_S", 0.0)
    lease = await api.store.grant(60)
    claims = [
        ClaimRecord(app="w", group=1, shard=shard, node="alpha", instance="i-alpha", worker=0, state="live")
        for shard in range(2)
    ]
    await api.store.txn((), [Put(KEYS.claim("w", 1, one.shard), one.encode(), lease) for one in claims])
    async with (
        asyncio.timeout(60),
        api.http.post("/api/v1/nodes/alpha/drain", json={}, headers={"Accept": "application/x-ndjson"}) as response,
    ):
        assert "NodeStateSet" in (await response.content.readline()).decode()
        api.identity = VIEWER
        # Another line of progress, before which it is asked who follows.
        await api.store.txn((), (Delete(KEYS.claim("w", 1, 0)),))
        assert b"result" not in await response.content.read()
    await api.cluster.settle()
    assert await state(api, "alpha") == "draining"
    ((_, _, error),) = api.recorded
    assert "its end not awaited" in error


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/nodes/nope/cordon", None, 404, "not-found"),
        ("GET", "/nodes?limit=0", None, 422, "invalid"),
        ("GET", "/nodes?limit=many", None, 422, "invalid"),
        ("GET", "/nodes?colour=red", None, 422, "invalid"),
        ("POST", "/nodes/alpha/drain", {"forced": True}, 422, "invalid"),
        ("POST", "/nodes/alpha/drain", [1], 422, "invalid"),
        ("GET", "/nothing", None, 404, "not-found"),
        ("PUT", "/nodes", {}, 405, "method-not-allowed"),
        ("DELETE", "/nodes/alpha", None, 409, "refused"),
    ],
)
async def test_bad_requests_are_problems(
    api: Api, method: str, path: str, body: object, status: int, code: str
) -> None:
    found, problem = await api(method, path, body)
    assert (found, problem["code"], problem["status"]) == (status, code, status)
    assert problem["detail"]
    assert await state(api, "alpha") == "ready"


async def test_a_body_that_is_not_json_is_refused(api: Api) -> None:
    for raw, kind, status in ((b"{", "application/json", 400), (b"{}", "text/plain", 415)):
        async with api.http.post("/api/v1/nodes/alpha/drain", data=raw, headers={"Content-Type": kind}) as response:
            assert response.status == status
    async with api.http.post(
        "/api/v1/nodes/alpha/drain", data=b" " * 2_000_000, headers={"Content-Type": "application/json"}
    ) as response:
        assert (response.status, (await response.json(content_type=None))["code"]) == (413, "too-large")
