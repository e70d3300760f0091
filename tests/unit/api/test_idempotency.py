"""A change with an Idempotency-Key is carried out once, whichever node gets the request again."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from sandwich_coordinator.access.roles import Identity, Role
from sandwich_coordinator.operations.errors import OutcomeUnknown, Refused, Unavailable
from sandwich_coordinator.store.base import StoreAmbiguous, StoreUnavailable
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_node.api import idempotency
from sandwich_node.api.models import Model
from sandwich_node.api.problem_details import UNKNOWN, ApiError
from sandwich_node.api.routing import Call, Reply, Route
from tests.support.api import KEYS, Api, api_over
from tests.support.api_cluster import KEY
from tests.support.interfering_store import InterferingStore
from tests.support.publisher import until

CANARY = "swt_canary-of-a-token-shown-once"


class Wanted(Model):
    what: str = "x"


class Done(Model):
    count: int
    secret: str = CANARY


class Work:
    """Handlers that count how often they run."""

    def __init__(self) -> None:
        self.ran = 0
        self.error: Exception | None = None
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.begun = asyncio.Event()
        self.size = 0

    async def run(self, call: Call) -> Reply:
        self.ran += 1
        count = self.ran
        self.begun.set()
        await self.goes_on.wait()
        if self.error is not None:
            raise self.error
        return Reply(Done(count=count, secret=CANARY + "x" * self.size), revision=7, status=201)

    async def empty(self, _call: Call) -> None:
        self.ran += 1

    @property
    def routes(self) -> tuple[Route, ...]:
        more: dict[str, Any] = {"method": "POST", "summary": "s", "role": Role.OPERATOR, "tag": "t"}
        return (
            Route(path="/work", handler=self.run, body=Wanted, result=Done, **more),
            Route(path="/slow", handler=self.run, result=Done, takes_time=True, **more),
            Route(path="/empty", handler=self.empty, status=204, **more),
        )


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
async def nodes(work: Work) -> AsyncIterator[tuple[Api, Api]]:
    store = MemoryStore()
    async with api_over(store, routes=work.routes, key=KEY) as one, api_over(store, routes=work.routes, key=KEY) as two:
        yield one, two


async def test_a_request_that_is_sent_again_to_another_node_gets_the_same_answer(
    nodes: tuple[Api, Api], work: Work
) -> None:
    answers = []
    for node in nodes:
        async with node.http.post("/api/v1/work", json={}, headers={"Idempotency-Key": "k"}) as response:
            answers.append((response.status, await response.read(), response.headers["ETag"]))
            assert response.content_type == "application/json"
            assert ("Idempotency-Replayed" in response.headers) == (node is nodes[1])
    assert answers[0] == answers[1]
    assert work.ran == 1
    assert len(nodes[1].recorded) == 0
    for _ in range(2):
        assert await nodes[0]("POST", "/empty", Idempotency_Key="e") == (204, None)
    assert work.ran == 2


async def test_keys_are_of_one_identity_and_one_request(nodes: tuple[Api, Api], work: Work) -> None:
    one, two = nodes
    assert (await one("POST", "/work", {}, Idempotency_Key="k"))[0] == 201
    for path, body in (("/work", {"what": "y"}), ("/work?x=1", {}), ("/slow", None)):
        status, problem = await two("POST", path, body, Idempotency_Key="k")
        assert (status, problem["code"]) == (422, "invalid")
    two.identity = Identity("token", "another", Role.ADMIN)
    assert (await two("POST", "/work", {"what": "y"}, Idempotency_Key="k"))[1]["count"] == 2
    assert (await two("POST", "/work", {}))[1]["count"] == 3
    for bad in ("", "a b", "x" * 256):
        assert (await one("POST", "/work", {}, Idempotency_Key=bad))[0] == 400
    status, _ = await one("POST", "/slow", Idempotency_Key="n", Accept="application/x-ndjson")
    assert (status, work.ran) == (400, 3)


async def test_requests_at_the_same_time_run_once(nodes: tuple[Api, Api], work: Work) -> None:
    one, two = nodes
    work.goes_on.clear()
    first = asyncio.create_task(one("POST", "/work", {}, Idempotency_Key="k"))
    async with asyncio.timeout(60):
        await work.begun.wait()
    async with two.http.post("/api/v1/work", json={}, headers={"Idempotency-Key": "k"}) as response:
        assert (response.status, (await response.json())["code"]) == (409, "in-progress")
        assert response.headers["Retry-After"] == "1"
    work.goes_on.set()
    assert (await first)[0] == 201
    assert (await two("POST", "/work", {}, Idempotency_Key="k"))[1]["count"] == 1
    assert work.ran == 1


async def test_a_refusal_is_kept_and_a_failure_is_not(nodes: tuple[Api, Api], work: Work) -> None:
    one, two = nodes
    work.error = Refused("no")
    assert (await one("POST", "/work", {}, Idempotency_Key="r"))[0] == 409
    work.error = Unavailable("down")
    assert (await one("POST", "/work", {}, Idempotency_Key="u"))[0] == 503
    work.error = None
    assert (await two("POST", "/work", {}, Idempotency_Key="r"))[1]["detail"] == "no"
    assert (await two("POST", "/work", {}, Idempotency_Key="u"))[0] == 201


@pytest.mark.parametrize(
    "error",
    [OutcomeUnknown("who knows"), StoreAmbiguous("late"), ApiError("no-answer", "late"), RuntimeError("a fault")],
)
async def test_what_may_have_been_carried_out_is_not_repeated_at_once(
    nodes: tuple[Api, Api], work: Work, error: Exception
) -> None:
    one, two = nodes
    store = one.store
    assert isinstance(store, MemoryStore)
    work.error = error
    assert (await one("POST", "/work", {}, Idempotency_Key="k"))[1]["code"] in UNKNOWN
    work.error = None
    assert (await two("POST", "/work", {}, Idempotency_Key="k"))[1]["code"] == "in-progress"
    assert work.ran == 1
    store.advance(idempotency.LEASE_S + 1)
    assert (await two("POST", "/work", {}, Idempotency_Key="k"))[0] == 201


async def test_a_key_is_taken_for_as_long_as_its_change_lasts(
    nodes: tuple[Api, Api], work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = nodes
    store = one.store
    assert isinstance(store, MemoryStore)
    monkeypatch.setattr(idempotency, "LEASE_S", 1)
    renewed, renew = asyncio.Semaphore(0), store.keep_alive

    async def keep_alive(lease: int) -> float:
        left_s = await renew(lease)
        renewed.release()
        return left_s

    monkeypatch.setattr(store, "keep_alive", keep_alive)
    work.goes_on.clear()
    first = asyncio.create_task(one("POST", "/work", {}, Idempotency_Key="k"))
    for _ in range(3):
        async with asyncio.timeout(60):
            await renewed.acquire()
        store.advance(0.9)
        assert (await two("POST", "/work", {}, Idempotency_Key="k"))[1]["code"] == "in-progress"
        async with asyncio.timeout(60):
            await renewed.acquire()
    work.goes_on.set()
    assert (await first)[0] == 201
    assert (await two("POST", "/work", {}, Idempotency_Key="k"))[1]["count"] == 1


async def test_a_node_that_dies_blocks_a_key_for_its_lease_only(nodes: tuple[Api, Api], work: Work) -> None:
    one, two = nodes
    store = one.store
    assert isinstance(store, MemoryStore)
    await one.cluster.answers.begin(one.identity, "k", b"POST\0/api/v1/work\0\0{}")
    assert (await two("POST", "/work", {}, Idempotency_Key="k"))[1]["code"] == "in-progress"
    store.advance(idempotency.LEASE_S + 1)
    assert (await two("POST", "/work", {}, Idempotency_Key="k"))[0] == 201


async def test_an_answer_is_kept_for_a_day_sealed_and_outside_what_nodes_mirror(
    nodes: tuple[Api, Api], work: Work
) -> None:
    one, two = nodes
    store = one.store
    assert isinstance(store, MemoryStore)
    await one("POST", "/work", {}, Idempotency_Key="k")
    assert (await store.list(KEYS.prefix)).items == ()
    (kept,) = (await store.list(KEYS.requests)).items
    assert CANARY.encode() not in kept.value
    store.advance(24 * 3600)
    assert (await two("POST", "/work", {}, Idempotency_Key="k"))[1]["count"] == 1
    store.advance(3601)
    assert (await two("POST", "/work", {}, Idempotency_Key="k"))[1]["count"] == 2


async def test_what_is_kept_is_bounded(nodes: tuple[Api, Api], work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = nodes
    work.size = idempotency.BODY_BYTES_MAX
    assert (await one("POST", "/work", {}, Idempotency_Key="long"))[0] == 201
    status, problem = await two("POST", "/work", {}, Idempotency_Key="long")
    assert (status, problem["code"]) == (409, "refused")
    monkeypatch.setattr(idempotency, "ANSWERS_PER_TURN_MAX", 1)
    async with one.http.post("/api/v1/work", json={}, headers={"Idempotency-Key": "more"}) as response:
        assert response.status == 429
        assert int(response.headers["Retry-After"]) <= 3600
    assert (await one("POST", "/work", {}, Idempotency_Key="long"))[1]["code"] == "refused"
    assert work.ran == 1
    assert (await one("POST", "/work", {}))[0] == 201


async def test_answers_that_end_together_have_the_lease_of_their_hour(
    nodes: tuple[Api, Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that end while it is granted, and those after it was not: an answer without one is kept for ever."""
    one, _ = nodes
    store = one.store
    assert isinstance(store, MemoryStore)
    granting, go_on = asyncio.Event(), asyncio.Event()
    grant, turn = store.grant, one.cluster.answers._turn
    turns, long_leases = 0, 0

    async def counted() -> int:
        nonlocal turns
        turns += 1
        return await turn()

    async def slow(ttl: int) -> int:
        nonlocal long_leases
        if ttl < idempotency.KEPT_S:
            return await grant(ttl)
        long_leases += 1
        granting.set()
        await go_on.wait()
        return await grant(ttl)

    async def failing(ttl: int) -> int:
        if ttl < idempotency.KEPT_S:
            return await grant(ttl)
        raise StoreUnavailable("down")

    async with asyncio.timeout(60):
        monkeypatch.setattr(store, "grant", failing)
        assert (await one("POST", "/empty", Idempotency_Key="0"))[0] == 204
        monkeypatch.setattr(store, "grant", slow)
        monkeypatch.setattr(one.cluster.answers, "_turn", counted)
        requests = [asyncio.create_task(one("POST", "/empty", Idempotency_Key=key)) for key in "123"]
        await granting.wait()
        await until(lambda: turns == len(requests))
        go_on.set()
        assert [status for status, _ in await asyncio.gather(*requests)] == [204] * 3
    kept = (await store.list(KEYS.requests)).items
    assert len(kept) == 4
    assert all(item.lease for item in kept)
    assert long_leases == 1


async def test_nothing_runs_when_the_store_does_not_take_the_key(work: Work) -> None:
    store = InterferingStore()
    async with api_over(store, routes=work.routes, key=KEY) as api:
        store.fail(StoreAmbiguous("lost"), times=1)
        assert (await api("POST", "/work", {}, Idempotency_Key="k"))[1]["code"] == "outcome-unknown"
    assert work.ran == 0


async def test_a_cluster_without_a_key_keeps_answers_too(work: Work) -> None:
    async with api_over(MemoryStore(), routes=work.routes) as api:
        for _ in range(2):
            assert (await api("POST", "/work", {}, Idempotency_Key="k"))[1]["count"] == 1


async def test_a_request_that_a_stopping_node_gives_up_keeps_its_key_for_the_lease(
    nodes: tuple[Api, Api], work: Work
) -> None:
    """Whether the change was made is not known, so that the same request is not carried out at once."""
    one, two = nodes
    store = one.store
    assert isinstance(store, MemoryStore)
    work.error = asyncio.CancelledError()  # type: ignore[assignment]  # as a handler that is cancelled ends
    with pytest.raises(aiohttp.ClientError):
        await one("POST", "/work", {}, Idempotency_Key="k")
    work.error = None
    assert (await two("POST", "/work", {}, Idempotency_Key="k"))[1]["code"] == "in-progress"
    store.advance(idempotency.LEASE_S + 1)
    assert (await two("POST", "/work", {}, Idempotency_Key="k"))[0] == 201
