import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sandwich_coordinator.access.roles import Identity, Role
from sandwich_coordinator.operations.webhooks import HOOKS_MAX, open_destination
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.store.base import Put
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import AppRecord
from tests.support.api import KEYS, Api, api_over
from tests.support.hook_server import hook_server

URL = "https://discord.com/api/webhooks/123456789012345678/" + "hush" * 17
KEY = ClusterKey(b"k" * 32)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    store = MemoryStore()
    await store.txn((), [Put(KEYS.app("x"), AppRecord(app="x", token="", token_hash="h", intents=1).encode())])
    async with api_over(store, key=KEY) as api:
        yield api


async def test_a_webhook_is_made_changed_and_removed_and_its_url_is_never_shown(api: Api) -> None:
    answers: list[Any] = []
    status, made = await api("POST", "/webhooks", {"name": "alerts", "url": URL, "apps": ["x"]})
    answers.append(made)
    assert (status, made["type"], made["host"], made["ends_in"]) == (201, "discord", "discord.com", "hush")
    assert made["events"] == ["problems", "budget", "nodes", "apps", "losses"]
    tag = f'"{made["revision"]}"'
    status, changed = await api("PATCH", "/webhooks/alerts", {"min_severity": "critical"}, If_Match=tag)
    answers.append(changed)
    assert (status, changed["min_severity"], changed["apps"]) == (200, "critical", ["x"])
    status, stale = await api("PATCH", "/webhooks/alerts", {"min_severity": "notice"}, If_Match=tag)
    assert (status, stale["code"]) == (412, "stale")
    answers += [(await api("GET", "/webhooks"))[1], (await api("GET", "/webhooks/alerts"))[1]]
    view = api.cluster.view()
    assert open_destination(view.webhooks["alerts"].record, KEY).url == URL
    assert URL.encode() not in view.webhooks["alerts"].record.encode()
    assert (await api("DELETE", "/webhooks/alerts"))[0] == 204
    assert (await api("GET", "/webhooks/alerts"))[0] == 404
    assert "hushhush" not in json.dumps(answers)
    assert "hushhush" not in str(api.recorded)
    assert [entry[1] for entry in api.recorded] == [
        "POST /webhooks",
        "PATCH /webhooks/{webhook}",
        "PATCH /webhooks/{webhook}",
        "DELETE /webhooks/{webhook}",
    ]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"name": "a", "url": "http://hushhush.example.com/"}, 422, "url"),
        ({"name": "a", "url": "https://127.0.0.1/hushhush"}, 422, "url"),
        ({"name": "a", "url": "https://example.com/hushhush", "type": "discord"}, 422, "url"),
        ({"name": "A b", "url": URL}, 422, "name"),
        ({"name": "a", "url": URL, "events": []}, 422, "events"),
        ({"name": "a", "url": URL, "events": ["parties"]}, 422, "events[0]"),
        ({"name": "a", "url": URL, "template": "$hushhush"}, 422, "template"),
        ({"name": "a", "url": URL, "secret": "s" * 20}, 422, "secret"),
        ({"name": "a", "url": "https://example.com/", "secret": "short"}, 422, "secret"),
        ({"name": "a", "url": URL, "apps": ["nope"]}, 404, "apps"),
        ({"name": "a", "url": "hushhush" * 300}, 422, "url"),
        ({"name": "a"}, 422, "url"),
    ],
)
async def test_a_webhook_that_cannot_be_is_refused_without_its_url(
    api: Api, body: dict[str, Any], status: int, field: str
) -> None:
    found, problem = await api("POST", "/webhooks", body)
    assert found == status
    assert problem["detail"]
    assert [one["path"] for one in problem["errors"]] == [field]
    if "template" not in body:
        assert "hushhush" not in json.dumps(problem)
    assert (await api("GET", "/webhooks"))[1]["items"] == []


async def test_names_are_taken_once_and_there_is_a_limit(api: Api) -> None:
    for number in range(HOOKS_MAX):
        assert (await api("POST", "/webhooks", {"name": f"h{number}", "url": URL}))[0] == 201
    assert (await api("POST", "/webhooks", {"name": "h0", "url": URL}))[0] == 409
    assert (await api("POST", "/webhooks", {"name": "more", "url": URL}))[0] == 409


async def test_a_test_message_says_whether_it_arrived(api: Api) -> None:
    async with hook_server(answers=[(500, {}, ""), (204, {}, "")]) as server:
        body = {"name": "h", "url": server.url, "allow_private": True, "secret": "s" * 16}
        assert (await api("POST", "/webhooks", body))[1]["signed"] is True
        assert (await api("POST", "/webhooks/h/test"))[1] == {"delivered": False, "detail": "HTTP 500"}
        assert (await api("POST", "/webhooks/h/test"))[1] == {"delivered": True, "detail": ""}
        assert json.loads(server.received[1][1])["notices"][0]["summary"] == "this is a test"
        changed = (await api("PATCH", "/webhooks/h", {"secret": ""}))[1]
        assert (changed["signed"], changed["allow_private"]) == (False, True)


async def test_only_an_admin_of_the_whole_cluster_manages_webhooks(api: Api) -> None:
    await api("POST", "/webhooks", {"name": "h", "url": URL})
    for identity in (Identity("token", "o", Role.OPERATOR), Identity("token", "x", Role.ADMIN, frozenset({"x"}))):
        api.identity = identity
        assert (await api("GET", "/webhooks"))[0] == 403
        assert (await api("GET", "/webhooks/h"))[0] == 403
        assert (await api("POST", "/webhooks", {"name": "g", "url": URL}))[0] == 403
        assert (await api("POST", "/webhooks/h/test"))[0] == 403
        assert (await api("DELETE", "/webhooks/h"))[0] == 403
