"""Who may do what over HTTP: every route for every role and scope; tokens, web sessions, other sites, limits."""

import asyncio
import collections
import itertools
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from sandwich_coordinator.access.roles import Role, RoleName
from sandwich_coordinator.operations.access import remove_user, revoke_token, set_user
from sandwich_coordinator.operations.audit import read_entries
from sandwich_coordinator.operations.errors import NotReached, OutcomeUnknown
from sandwich_node.api import server
from sandwich_node.api.access import FAILURES
from sandwich_node.api.first_admin import offer_first_admin
from sandwich_node.api.models import Empty, Outcome
from sandwich_node.api.problem_details import ApiError
from sandwich_node.api.routing import Call, Route, Stream
from sandwich_node.api.server import PREFIX
from sandwich_node.api.table import ROUTES
from sandwich_node.api.work import IN_WORK_MAX, WAITING_MAX
from tests.support.access import KEY, Node, a_node
from tests.support.api import KEYS

USER = "613425648685547541"
ROLES = {"viewer": Role.VIEWER, "operator": Role.OPERATOR, "admin": Role.ADMIN}
SCOPES: dict[str, list[str] | None] = {"cluster": None, "welcomer": ["welcomer"], "other": ["other"]}


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with a_node() as node:
        yield node


def expected(route: Route, role: Role | None, scope: str) -> int | None:
    """The refusal of a request about `welcomer`; None: it is not refused for who asks."""
    if route.role is None:
        return None
    if role is None:
        return 401
    if role < route.role:
        return 403
    if scope == "cluster":
        return None
    if route.is_of_app:
        return None if scope == "welcomer" else 404
    return 403 if route.cluster_wide or route.method != "GET" else None


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_every_route_is_for_its_role_and_scope_alone(route: Route) -> None:
    """Bodies are left out, so that what is allowed ends at the body and changes little."""
    path = PREFIX + route.path.replace("{app}", "welcomer").replace("{", "x-").replace("}", "")
    async with a_node() as node:
        statuses: dict[tuple[str, str], int] = {}
        tokens = {
            (name, scope): await node.token(f"{name} {scope}", name, apps)  # type: ignore[arg-type]
            for name, (scope, apps) in itertools.product(ROLES, SCOPES.items())
        }
        headers = {identity: {"Authorization": f"Bearer {text}"} for identity, text in tokens.items()}
        for identity, sent in {("none", "cluster"): {}, **headers}.items():
            async with node.http.request(route.method, node.url + path, headers=sent) as response:
                statuses[identity] = response.status
    for (name, scope), status in statuses.items():
        refusal = expected(route, ROLES.get(name), scope)
        if refusal is None:
            assert status not in (401, 403), (name, scope)
        else:
            assert status == refusal, (name, scope)


async def test_a_token_that_is_taken_away_stops_at_once(node: Node) -> None:
    text = await node.token("ci", "viewer")
    assert (await node.ask("GET", "/api/v1/me", Authorization=f"bearer {text}"))[1] == {
        "kind": "token",
        "name": "ci",
        "role": "viewer",
        "apps": None,
    }
    await revoke_token(node.store, KEYS, "ci")
    await node.facts.refresh()
    assert (await node.ask("GET", "/api/v1/me", Authorization=f"Bearer {text}"))[0] == 401


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer swt_a_b", "Sandwich-Node nonce=1, mac=2"]
)
async def test_another_header_is_refused_with_how_to_do_it(node: Node, header: str) -> None:
    async with node.http.get(f"{node.url}/api/v1/me", headers={"Authorization": header}) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_session_does_what_its_user_may_now(node: Node) -> None:
    cookie = f"sandwich={await node.session(USER)}"
    assert (await node.ask("GET", "/api/v1/me", Cookie=cookie))[0] == 401
    roles: tuple[RoleName, ...] = ("viewer", "admin")
    for role in roles:
        await set_user(node.store, KEYS, KEY, user=USER, role=role, now=node.wall)
        await node.facts.refresh()
        assert (await node.ask("GET", "/api/v1/me", Cookie=cookie))[1]["role"] == role
    await remove_user(node.store, KEYS, USER)
    await node.facts.refresh()
    assert (await node.ask("GET", "/api/v1/me", Cookie=cookie))[0] == 401


async def a_user(node: Node) -> str:
    await set_user(node.store, KEYS, KEY, user=USER, role="operator", now=node.wall)
    return f"sandwich={await node.session(USER)}"


SAME = {"Sec_Fetch_Site": "same-origin", "X_Sandwich_Request": "1"}
CORDON = "/api/v1/nodes/nope/cordon"


async def test_a_session_ends_at_its_time_by_signing_out_and_on_every_node(node: Node) -> None:
    cookie = await a_user(node)
    async with a_node(store=node.store) as other:
        assert (await other.ask("GET", "/api/v1/me", Cookie=cookie))[0] == 200
        assert (await node.ask("POST", "/auth/logout", Cookie=cookie, **SAME))[0] == 204
        await other.facts.refresh()
        for each in (node, other):
            assert (await each.ask("GET", "/api/v1/me", Cookie=cookie))[0] == 401
    cookie = await a_user(node)
    node.wall += 12 * 3600 + 1
    assert (await node.ask("GET", "/api/v1/me", Cookie=cookie))[0] == 401


async def test_a_page_of_another_site_changes_nothing(node: Node) -> None:
    cookie = await a_user(node)
    origin = node.url
    refused: list[dict[str, str]] = [
        {},
        {"X_Sandwich_Request": "1"},
        {"Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "cross-site", "X_Sandwich_Request": "1"},
        {"Sec_Fetch_Site": "same-site", "X_Sandwich_Request": "1"},
        {"Sec_Fetch_Site": "none", "X_Sandwich_Request": "1"},
        {"Origin": "https://stranger.example", "X_Sandwich_Request": "1"},
        {"Origin": "null", "X_Sandwich_Request": "1"},
        {"Origin": origin + ".stranger.example", "X_Sandwich_Request": "1"},
        {"Origin": origin, "Sec_Fetch_Site": "cross-site", "X_Sandwich_Request": "1"},
        {"Origin": "https://stranger.example", "Sec_Fetch_Site": "same-origin", "X_Sandwich_Request": "1"},
    ]
    for headers in refused:
        for path in (CORDON, "/auth/logout"):
            assert (await node.ask("POST", path, Cookie=cookie, **headers))[0] == 403, (path, headers)
    assert (await node.ask("GET", "/api/v1/me", Cookie=cookie, Sec_Fetch_Site="cross-site"))[0] == 403
    allowed = [SAME, {"Origin": origin, "X_Sandwich_Request": "1"}, {**SAME, "Origin": origin}]
    for headers in allowed:
        assert (await node.ask("POST", CORDON, Cookie=cookie, **headers))[0] == 404, headers
    # A token is sent by no browser on its own.
    token = await node.token("ci", "operator")
    assert (await node.ask("POST", CORDON, Authorization=f"Bearer {token}"))[0] == 404


async def test_no_answer_allows_other_sites_to_read_it(node: Node) -> None:
    async with node.http.options(f"{node.url}/api/v1/me", headers={"Origin": "https://stranger.example"}) as response:
        assert response.status == 204
        assert not [name for name in response.headers if name.lower().startswith("access-control")]


async def test_over_https_the_cookie_is_the_one_that_only_https_sets(node: Node) -> None:
    cookie = await a_user(node)
    await node.use(public_url="https://sandwich.example.com")
    assert (await node.ask("GET", "/api/v1/me", Cookie=cookie))[0] == 401
    secure = cookie.replace("sandwich=", "__Host-sandwich=")
    assert (await node.ask("GET", "/api/v1/me", Cookie=secure))[0] == 200
    same = {"Origin": "https://sandwich.example.com", "X_Sandwich_Request": "1"}
    assert (await node.ask("POST", CORDON, Cookie=secure, **same))[0] == 404
    assert (await node.ask("POST", CORDON, Cookie=secure, **{**same, "Origin": node.url}))[0] == 403


async def test_the_api_is_on_where_only_this_machine_reaches_it() -> None:
    async with a_node(host="10.0.0.1") as node:
        token = await node.token("ci", "viewer")
        headers = {"Authorization": f"Bearer {token}"}
        for enabled, status in (("auto", 404), (False, 404), (True, 200)):
            await node.use(enabled=enabled)
            assert (await node.ask("GET", "/api/v1/me", **headers))[0] == status
        assert [(await node.ask("GET", f"/{page}", **headers))[0] for page in ("metrics", "status")] == [200, 200]
        assert [(await node.ask("GET", f"/{page}"))[0] for page in ("metrics", "status", "healthz")] == [401, 401, 200]
        limited = await node.token("limited", "viewer", ["welcomer"])
        assert (await node.ask("GET", "/metrics", Authorization=f"Bearer {limited}"))[0] == 401
        await node.use(open=["metrics"])
        assert [(await node.ask("GET", f"/{page}"))[0] for page in ("metrics", "status", "healthz")] == [200, 401, 401]


async def test_failures_are_limited_and_what_is_genuine_still_passes(node: Node) -> None:
    token = await node.token("ci", "viewer")
    found = [(await node.ask("GET", "/api/v1/me", Authorization="Bearer swt_a_b"))[0] for _ in range(FAILURES + 2)]
    assert found == [401] * FAILURES + [429] * 2
    async with node.http.get(f"{node.url}/api/v1/me", headers={"Authorization": "Bearer x"}) as response:
        assert int(response.headers["Retry-After"]) >= 1
    assert (await node.ask("GET", "/api/v1/me", Authorization=f"Bearer {token}"))[0] == 200


async def test_a_flood_is_turned_away() -> None:
    go_on, entered = asyncio.Event(), asyncio.Semaphore(0)

    async def handler(_call: Call) -> Empty:
        entered.release()
        await go_on.wait()
        return Empty()

    slow = Route(method="GET", path="/slow", summary="", role=None, handler=handler, tag="", result=Empty)
    async with a_node(routes=[slow]) as node:
        waiting = [asyncio.create_task(node.ask("GET", "/api/v1/slow")) for _ in range(IN_WORK_MAX)]
        for _ in waiting:
            await entered.acquire()
        status, problem = await node.ask("GET", "/api/v1/slow")
        assert (status, problem["code"]) == (503, "busy")
        assert (await node.ask("GET", "/healthz"))[0] == 200
        go_on.set()
        assert {status for status, _ in await asyncio.gather(*waiting)} == {200}
        assert (await node.ask("GET", "/api/v1/slow"))[0] == 200


async def test_who_waits_for_the_end_of_a_change_keeps_no_other_request_out() -> None:
    go_on, entered = asyncio.Event(), asyncio.Semaphore(0)

    async def handler(_call: Call) -> Outcome:
        entered.release()
        await go_on.wait()
        return Outcome(reached=True, progress=[])

    async def quick(_call: Call) -> Empty:
        return Empty()

    routes = [
        Route(
            method="POST",
            path="/change",
            summary="",
            role=None,
            handler=handler,
            tag="",
            result=Outcome,
            takes_time=True,
        ),
        Route(method="GET", path="/quick", summary="", role=None, handler=quick, tag="", result=Empty),
    ]
    async with a_node(routes=routes) as node:
        waiting = [
            asyncio.create_task(node.ask("POST", "/api/v1/change", Prefer="wait=60")) for _ in range(WAITING_MAX)
        ]
        for _ in waiting:
            await entered.acquire()
        status, problem = await node.ask("POST", "/api/v1/change", Prefer="wait=1")
        assert (status, problem["code"]) == (503, "busy")
        assert (await node.ask("GET", "/api/v1/quick"))[0] == 200
        go_on.set()
        assert {status for status, _ in await asyncio.gather(*waiting)} == {200}
        assert (await node.ask("POST", "/api/v1/change", Prefer="wait=1"))[0] == 200


@pytest.mark.parametrize("change", ["removed", "limited"])
async def test_a_stream_ends_when_its_reader_may_less(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.setattr(server, "STREAM_CHECK_S", 0.0)
    chunks: asyncio.Queue[bytes] = asyncio.Queue()

    async def read() -> AsyncGenerator[bytes, None]:
        while True:
            yield await chunks.get()

    async def handler(_call: Call) -> Stream:
        return Stream(read(), "text/event-stream")

    live = Route(method="GET", path="/live", summary="", role=Role.VIEWER, handler=handler, tag="")
    async with a_node(routes=[live]) as node, asyncio.timeout(10):
        headers = {"Cookie": await a_user(node)}
        async with node.http.get(f"{node.url}/api/v1/live", headers=headers) as response:
            chunks.put_nowait(b"one")
            assert await response.content.readany() == b"one"
            if change == "removed":
                await remove_user(node.store, KEYS, USER)
            else:
                apps = ["welcomer"]
                await set_user(node.store, KEYS, KEY, user=USER, role="operator", apps=apps, now=node.wall)
            await node.facts.refresh()
            chunks.put_nowait(b"two")
            assert await response.content.read() == b""


async def test_tokens_and_users_over_the_api(node: Node) -> None:
    headers = {"Authorization": f"Bearer {await node.token('root', 'admin')}"}
    body = {"name": "ci", "role": "operator", "apps": ["welcomer"], "expires_in_s": 60}
    status, made = await node.ask("POST", "/api/v1/tokens", body, **headers)
    assert (status, made["created_by"], made["usable"]) == (201, "token:root", True)
    assert (await node.ask("POST", "/api/v1/tokens", body, **headers))[0] == 409
    status, page = await node.ask("GET", "/api/v1/tokens", **headers)
    assert sorted(item["name"] for item in page["items"]) == ["ci", "root"]
    assert made["token"] not in str(page)
    assert (await node.ask("DELETE", "/api/v1/tokens/ci", **headers))[0] == 204
    assert (await node.ask("PUT", f"/api/v1/users/{USER}", {"role": "viewer"}, **headers))[1]["role"] == "viewer"
    assert (await node.ask("PUT", "/api/v1/users/abc", {"role": "viewer"}, **headers))[0] == 422
    assert [item["user"] for item in (await node.ask("GET", "/api/v1/users", **headers))[1]["items"]] == [USER]
    assert (await node.ask("DELETE", f"/api/v1/users/{USER}", **headers))[0] == 204
    entries = (await node.ask("GET", "/api/v1/audit?who=root&limit=3", **headers))[1]
    assert [(entry["what"], entry["result"], entry["client"]) for entry in entries["items"]] == [
        ("DELETE /users/{user}", "done", "127.0.0.1"),
        ("PUT /users/{user}", "invalid", "127.0.0.1"),
        ("PUT /users/{user}", "done", "127.0.0.1"),
    ]
    rest = (await node.ask("GET", f"/api/v1/audit?after={entries['next']}", **headers))[1]
    assert [entry["what"] for entry in rest["items"]] == ["DELETE /tokens/{token}", "POST /tokens", "POST /tokens"]
    assert rest["items"][2]["after"]["name"] == "ci"
    assert made["token"].rpartition("_")[2] not in str(rest)
    assert (await node.ask("GET", "/api/v1/audit?app=welcomer", **headers))[1]["items"] == []


async def test_a_refusal_is_recorded_and_cannot_fill_the_log(node: Node) -> None:
    headers = {"Authorization": f"Bearer {await node.token('v', 'viewer')}"}
    for _ in range(30):
        assert (await node.ask("POST", CORDON, **headers))[0] == 403
    await node.ask("POST", CORDON)
    entries = await read_entries(node.store, KEYS)
    assert {(entry.who, entry.result) for entry in entries} == {("token:v", "forbidden")}
    assert len(entries) == 10


@pytest.mark.parametrize("error", [NotReached("later"), OutcomeUnknown("who knows"), ApiError("no-answer", "late")])
async def test_changes_that_may_have_been_made_are_all_recorded_after_many_refusals(error: Exception) -> None:
    async def handler(_call: Call) -> Empty:
        raise error

    route = Route(method="POST", path="/x", summary="", role=Role.OPERATOR, handler=handler, tag="", result=Empty)
    async with a_node(routes=[route]) as node:
        refused = {"Authorization": f"Bearer {await node.token('t', 'operator')}"}
        for _ in range(12):
            assert (await node.ask("POST", "/api/v1/x?nope=1", **refused))[0] == 422
        for _ in range(12):
            assert (await node.ask("POST", "/api/v1/x", **refused))[0] in (503, 504)
        entries = await read_entries(node.store, KEYS)
    assert Counter(entry.result == "invalid" for entry in entries) == {True: 10, False: 12}


async def test_a_dry_run_is_not_recorded(node: Node) -> None:
    headers = {"Authorization": f"Bearer {await node.token('root', 'admin')}"}
    assert (await node.ask("POST", "/api/v1/rebalance?dry_run=true", **headers))[0] == 200
    assert (await node.ask("POST", "/api/v1/apps?dry_run=true", {"name": "x"}, **headers))[0] == 422
    restart = {"new_sessions": True, "hard": "maybe"}
    assert (await node.ask("POST", "/api/v1/apps/welcomer/restart?dry_run=true", restart, **headers))[0] == 422
    assert await read_entries(node.store, KEYS) == []
    assert (await node.ask("POST", "/api/v1/apps?dry_run=false", {"name": "x"}, **headers))[0] == 422
    assert [entry.what for entry in await read_entries(node.store, KEYS)] == ["POST /apps"]


async def test_what_programs_do_often_cannot_fill_the_log_and_questions_are_not_in_it() -> None:
    async def handler(_call: Call) -> Empty:
        return Empty()

    routes = [
        Route(method="POST", path=f"/{kind}", summary="", role=Role.OPERATOR, handler=handler, tag="", audited=kind)
        for kind in ("all", "some", "none")
    ]
    async with a_node(routes=routes) as node:
        headers = {name: {"Authorization": f"Bearer {await node.token(name, 'operator')}"} for name in ("a", "b")}
        for route in routes:
            for _ in range(30):
                assert (await node.ask("POST", PREFIX + route.path, **headers["a"]))[0] == 200
        assert (await node.ask("POST", f"{PREFIX}/some", **headers["b"]))[0] == 200
        entries = await read_entries(node.store, KEYS)
    found = collections.Counter((entry.who, entry.what) for entry in entries)
    assert found == {("token:a", "POST /all"): 30, ("token:a", "POST /some"): 10, ("token:b", "POST /some"): 1}


def test_of_every_change_but_acting_for_a_bot_each_request_is_recorded() -> None:
    guild = "/apps/{app}/guilds/{guild_id}"
    assert {route.path: route.audited for route in ROUTES if route.audited != "all"} == {
        f"{guild}/request_members": "none",
        f"{guild}/request_sounds": "none",
        f"{guild}/request_channel_info": "none",
        f"{guild}/voice_state": "some",
        "/apps/{app}/presence": "some",
        "/apps/{app}/events": "some",
    }


async def test_no_secret_of_a_body_goes_anywhere(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    canary = "MTk4NjIyNDgzNDcxOTI1MjQ4.Cl2FMQ.ZnCjm1XVW7vRze4b7Cq4se7kKWs"
    headers = {"Authorization": f"Bearer {await node.token('root', 'admin')}"}
    caplog.set_level(logging.DEBUG)
    answers = [
        await node.ask("POST", "/api/v1/tokens", {"name": canary, "role": canary}, **headers),
        await node.ask("POST", "/api/v1/tokens", {"name": "a", "role": "viewer", canary: canary}, **headers),
        await node.ask("PUT", f"/api/v1/users/{USER}", {"role": "viewer", "apps": [canary]}, **headers),
    ]
    assert [status for status, _ in answers] == [422, 422, 404]
    assert canary not in str(answers)
    stored = b"".join(item.value for item in (await node.store.list("/")).items)
    assert canary.encode() not in stored
    assert canary not in caplog.text


async def test_the_first_admins_token_is_shown_once_and_ends_with_the_next_admin(node: Node) -> None:
    shown: list[str] = []
    async with a_node(store=node.store) as other, asyncio.timeout(60):
        await asyncio.gather(*(offer_first_admin(each.access, "127.0.0.1", shown.append) for each in (node, other)))
    assert len(shown) == 1
    await node.facts.refresh()
    headers = {"Authorization": f"Bearer {shown[0]}"}
    status, made = await node.ask("POST", "/api/v1/tokens", {"name": "mine", "role": "admin"}, **headers)
    assert status == 201
    assert (await node.ask("GET", "/api/v1/me", **headers))[0] == 401
    assert (await node.ask("GET", "/api/v1/me", Authorization=f"Bearer {made['token']}"))[1]["role"] == "admin"
