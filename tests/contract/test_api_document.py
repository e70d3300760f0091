"""Requests made from the OpenAPI document, to the real application over etcd and NATS: every answer is documented."""

import asyncio
import copy
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
import requests
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_node.api.live.event_stream import EVENT_STREAM
from sandwich_node.api.openapi import document, operation_id
from sandwich_node.api.routing import Route
from sandwich_node.api.table import ROUTES
from sandwich_node.dev.embedded import EmbeddedEtcd, EmbeddedNats
from tests.support.api import KEYS, StoredFacts, api_over
from tests.support.api_cluster import KEY, answers, secrets, store_cluster
from tests.support.api_rpc import GUILD, USER, Cluster
from tests.support.live import live_parts
from tests.support.publisher import Publisher
from tests.unit.coordinator.test_adding import Discord

pytestmark = pytest.mark.contract
EXAMPLES = 12
URL_MAX = 8000
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
VALUES = {
    "app": ["welcomer", "music", "nope"], "node": ["alpha", "beta", "nope"], "shard": ["0", "9"], "number": ["1", "x"],
    "guild_id": [GUILD, "x"], "user_id": [USER, "0"], "collection": ["channels", "roles", "nope"],
    "item_id": ["7", "x"], "webhook": ["alerts", "nope"], "token": ["laptop", "nope"], "user": [USER, "x"],
    "group": ["workers", "nope", "*"],
}  # fmt: skip
"""Values of paths, most of which exist: random ones would test little but 404."""


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[tuple[str, str]]:
    """The API's address, and the sealed token that no answer may have."""
    discord = Discord()
    fake = web.Application()
    fake.router.add_get("/{path:.*}", discord.handle)
    runner = web.AppRunner(fake, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    api_url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/v10"
    async with EmbeddedEtcd(directory / "etcd") as etcd, EmbeddedNats(directory / "nats") as server:
        store = EtcdStore([etcd.url])
        sealed = await store_cluster(store, api_url=api_url, nats=server.url)
        client = await nats.connect(server.url)
        await Publisher(client, "welcomer").make_stream()
        for app in ("welcomer", "music"):
            await client.subscribe(f"sandwich.{app}.rpc.*", cb=Cluster().answer)
        facts = StoredFacts(store)
        await facts.refresh()
        async with live_parts(facts, key=KEY) as live, api_over(store, key=KEY, live=live) as api:
            api.picture.answers = answers()
            yield str(api.http._base_url), sealed
        await client.close()
        await store.close()
    await runner.cleanup()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The API on a thread of its own: schemathesis waits for each answer."""
    ready: Future[tuple[str, str]] = Future()
    loop = asyncio.new_event_loop()
    ends = asyncio.Event()

    async def main() -> None:
        try:
            async with serving(tmp_path_factory.mktemp("api")) as found:
                ready.set_result(found)
                await ends.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    try:
        yield ready.result(timeout=60)
    finally:
        loop.call_soon_threadsafe(ends.set)
        thread.join(timeout=60)
        loop.close()


def _document() -> dict[str, Any]:
    made = copy.deepcopy(document(ROUTES, "1"))
    for operations in made["paths"].values():
        for operation in operations.values():
            for parameter in operation["parameters"]:
                if parameter["in"] == "path":
                    parameter["schema"] = {"type": "string", "enum": VALUES[parameter["name"]]}
                if parameter["name"] == "Prefer":
                    # No node does what is stored, so that each wait would last to its end.
                    parameter["schema"] = {"type": "string", "enum": ["wait=0", "respond-async"]}
    return made


SCHEMA = schemathesis.openapi.from_dict(_document())


@pytest.mark.parametrize("route", [route for route in ROUTES if route.media_type != EVENT_STREAM], ids=operation_id)
def test_every_answer_to_requests_made_from_the_document_is_documented(route: Route, served: tuple[str, str]) -> None:
    url, sealed = served
    operation = SCHEMA[route.path][route.method]
    session = requests.Session()
    made = [operation.as_strategy(generation_mode=GenerationMode.POSITIVE)]
    if route.body is not None or route.query.model_fields:
        made.append(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))

    @given(case=st.one_of(made))
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Any) -> None:
        sent = case.as_transport_kwargs(base_url=f"{url}api/v1")
        # aiohttp refuses a longer address before it is ours.
        assume(len(requests.Request("GET", sent["url"], params=sent.get("params")).prepare().url or "") < URL_MAX)
        response = case.call(base_url=f"{url}api/v1", session=session, timeout=60)
        case.validate_response(response, checks=CHECKS)
        # Redis is not there: what needs it says so. The answers to questions may be any error of the cluster's.
        assert response.status_code < 500 or (
            response.status_code in (503, 504) and ("unavailable" in route.errors or "removal" in route.path)
        )
        for secret in secrets(sealed):
            assert secret not in response.text

    check()


def test_the_cluster_is_still_whole(served: tuple[str, str]) -> None:
    """Whatever was sent: what is stored can be read."""
    url, _ = served
    assert requests.get(f"{url}api/v1/cluster", timeout=60).status_code == 200
    assert KEYS.cluster == requests.get(f"{url}api/v1/cluster", timeout=60).json()["cluster"]
    assert requests.get(f"{url}api/v1/problems?code=bad-record", timeout=60).json()["items"] == []
