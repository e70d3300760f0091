"""Reads that follow from one snapshot are written once, and never shown to another role or scope."""

from collections.abc import AsyncIterator

import pytest

from sandwich_coordinator.access.roles import Identity, Role
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.view import ClusterView
from sandwich_node.api import snapshot_answers
from sandwich_node.api.models import Empty, Model
from sandwich_node.api.routing import Call, Reply, Route
from sandwich_node.api.snapshot_answers import SnapshotAnswers, Written
from sandwich_node.api.table import ROUTES
from tests.support.api import Api, FixedPicture, api_over


class Steady(FixedPicture):
    """The same snapshot while the view is the same."""

    made: Snapshot | None = None

    async def snapshot(self, view: ClusterView) -> Snapshot:
        if self.made is None or self.made.view is not view:
            self.made = await super().snapshot(view)
        return self.made


class Found(Model):
    ran: int
    role: str


class Handler:
    ran = 0

    async def __call__(self, call: Call) -> Reply:
        await call.cluster.picture.snapshot(call.cluster.view())
        self.ran += 1
        assert call.identity.role is not None
        return Reply(Found(ran=self.ran, role=call.identity.role.label), revision=7)


class Query(Empty):
    app: str | None = None


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
async def api(handler: Handler) -> AsyncIterator[Api]:
    route = Route(
        method="GET",
        path="/found",
        summary="s",
        role=Role.VIEWER,
        handler=handler,
        tag="t",
        query=Query,
        result=Found,
        is_of_snapshot=True,
    )
    async with api_over(MemoryStore(), routes=[route], picture=Steady()) as found:
        yield found


async def test_clients_that_ask_the_same_have_one_answer(api: Api) -> None:
    assert [(await api("GET", "/found"))[1]["ran"] for _ in range(3)] == [1, 1, 1]
    async with api.http.get("/api/v1/found") as response:
        etag = response.headers["ETag"]
    assert etag.startswith('"7-')
    assert (await api("GET", "/found", If_None_Match=etag))[0] == 304
    assert (await api("GET", "/found?app=x"))[1]["ran"] == 2
    assert (await api("GET", "/found?app=x"))[1]["ran"] == 2
    assert (await api("GET", "/found?nope=x"))[0] == 422


async def test_an_answer_is_of_one_role_and_one_scope(api: Api) -> None:
    seen = set()
    for identity in (
        Identity("token", "a", Role.ADMIN),
        Identity("token", "a", Role.VIEWER),
        Identity("token", "a", Role.VIEWER, frozenset({"x"})),
        Identity("token", "a", Role.VIEWER, frozenset({"x", "y"})),
    ):
        api.identity = identity
        _, found = await api("GET", "/found")
        assert identity.role is not None
        assert found["role"] == identity.role.label
        seen.add(found["ran"])
    assert seen == {1, 2, 3, 4}
    # Another client of the same role and scope shows nothing that this one may not see.
    api.identity = Identity("user", "b", Role.VIEWER, frozenset({"x"}))
    assert (await api("GET", "/found"))[1]["ran"] == 3


async def test_a_fault_while_nodes_are_asked_is_a_problem_like_any_other(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_view: ClusterView) -> Snapshot:
        raise RuntimeError

    monkeypatch.setattr(api.cluster.picture, "snapshot", broken)
    status, problem = await api("GET", "/found")
    assert (status, problem["code"]) == (500, "internal")


async def test_an_answer_ends_with_its_snapshot(api: Api) -> None:
    assert (await api("GET", "/found"))[1]["ran"] == 1
    await api.cluster.settle()
    assert (await api("GET", "/found"))[1]["ran"] == 2


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch, api: Api) -> None:
    monkeypatch.setattr(snapshot_answers, "ANSWERS_MAX", 2)
    monkeypatch.setattr(snapshot_answers, "BYTES_MAX", 10)
    snapshot = await api.cluster.picture.snapshot(api.cluster.view())
    answers = SnapshotAnswers()
    for name, body in (("long", b"x" * 11), ("a", b"x" * 6), ("b", b"x" * 4), ("c", b"")):
        answers.keep(snapshot, name, Written(200, {}, body))
    assert [answers.get(snapshot, name) is not None for name in ("long", "a", "b", "c")] == [False, True, True, False]


def test_routes_of_the_snapshot_only_read() -> None:
    found = [route for route in ROUTES if route.is_of_snapshot]
    assert {route.path for route in found} >= {"/cluster", "/apps", "/shards", "/nodes", "/problems"}
    for route in found:
        assert (route.method, route.media_type, route.body) == ("GET", "application/json", None)
        assert route.role is not None
