"""The cluster, its applications, groups and shards over the API."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from sandwich_coordinator.access.roles import Identity, Role
from sandwich_coordinator.status import ConsumerStatus, NodeStatus
from sandwich_coordinator.store.base import Compare, Delete, Put
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import AppRecord, RolloutRecord, ShardsSpec
from sandwich_node import nats_connection
from sandwich_node.api.table import ROUTES
from tests.support.api import KEYS, Api, api_over
from tests.support.api_cluster import KEY, answers, secrets, store_cluster
from tests.unit.coordinator.test_adding import Discord, discord

__all__ = ["discord"]
NEW_TOKEN = "MTAwMDAwMDAwMDAyMDAw.GbbbbY.canary-of-the-new-bot-9876543210"
VIEWER_OF_MUSIC = Identity("token", "m", Role.VIEWER, frozenset({"music"}))


@pytest.fixture
async def api(discord: Discord) -> AsyncIterator[Api]:
    store = MemoryStore()
    await store_cluster(store, api_url=discord.url)
    async with api_over(store, key=KEY) as api:
        api.picture.answers = answers()
        yield api


async def record(api: Api, app: str = "welcomer") -> AppRecord:
    item = await api.cluster.store.get(KEYS.app(app))
    assert item is not None
    return msgspec.json.decode(item.value, type=AppRecord)


async def edit(api: Api, key: str, value: bytes) -> None:
    await api.cluster.store.txn((), (Put(key, value),))


# --- the cluster ----------------------------------------------------------------------------------------------------


async def test_the_cluster_in_figures(api: Api) -> None:
    status, found = await api("GET", "/cluster")
    assert status == 200
    assert (found["leader"], found["nodes"], found["nodes_answering"], found["apps"]) == ("alpha", 2, 1, 2)
    assert (found["shards_wanted"], found["shards_live"], found["guilds"], found["healthy"]) == (4, 4, 20, False)
    assert found["problems"]["critical"] == 1


async def test_the_latency_of_the_cluster_is_that_of_its_shards(api: Api) -> None:
    _, found = await api("GET", "/cluster")
    # The other shard of the node has measured none.
    assert found["latency"] == {"median_ms": 40.0, "worst_ms": 40.0, "app": "welcomer", "group": 0, "shard": 0}
    api.identity = VIEWER_OF_MUSIC
    assert (await api("GET", "/cluster"))[1]["latency"] is None


async def all_pages(api: Api, path: str, *lists: str) -> tuple[list[int], dict[str, Any]]:
    """How many items each page has, and the lists of all pages together."""
    sizes: list[int] = []
    together: dict[str, Any] = {}
    after: str | None = ""
    while after is not None:
        _, page = await api("GET", f"{path}{'&' if '?' in path else '?'}limit=2&after={after}")
        after = page["next"]
        sizes.append(sum(len(page[name]) for name in lists))
        for name in lists:
            known = together.setdefault(name, type(page[name])())
            known.update(page[name]) if isinstance(known, dict) else known.extend(page[name])
    return sizes, together


async def test_what_happened_lately_comes_in_pages_of_both_lists_newest_first(api: Api) -> None:
    alpha = api.picture.answers["alpha"]
    assert isinstance(alpha, NodeStatus)
    (failover,), (loss,) = alpha.failovers, alpha.losses
    failovers = [msgspec.structs.replace(failover, at=at, shard=3) for at in (700.0, 100.0, 400.0)]
    losses = [msgspec.structs.replace(loss, at=at, shard=shard) for at, shard in ((500.0, 0), (500.0, 1), (600.0, 0))]
    more = msgspec.structs.replace(alpha, failovers=failovers, losses=losses)
    api.picture.answers["alpha"] = more
    sizes, found = await all_pages(api, "/recent", "failovers", "losses")
    assert sizes == [2, 2, 2]
    assert [one["at"] for one in found["failovers"]] == [700.0, 400.0, 100.0]
    assert [one["at"] for one in found["losses"]] == [600.0, 500.0, 500.0]
    assert sorted(one["shard"] for one in found["losses"]) == [0, 0, 1]
    # What is new moves nothing on the pages behind.
    _, page = await api("GET", "/recent?limit=2")
    new = msgspec.structs.replace(failover, at=900.0)
    api.picture.answers["alpha"] = msgspec.structs.replace(more, failovers=[*failovers, new])
    _, rest = await api("GET", f"/recent?limit=10&after={page['next']}")
    assert [one["at"] for one in (*rest["losses"], *rest["failovers"])] == [500.0, 500.0, 400.0, 100.0]


async def test_consumer_groups_come_in_pages_with_the_dead_letters_of_their_application(api: Api) -> None:
    alpha = api.picture.answers["alpha"]
    assert isinstance(alpha, NodeStatus)
    names = (("music", "b"), ("welcomer", "w"), ("music", "a"))
    groups = [ConsumerStatus(app=app, group=group, lag=0) for app, group in names]
    letters = {"welcomer": 3, "music": 1}
    api.picture.answers["alpha"] = msgspec.structs.replace(alpha, consumers=groups, dead_letters=letters)
    sizes, found = await all_pages(api, "/consumers", "consumers", "dead_letters")
    assert sizes == [2, 2, 1]
    assert [(one["app"], one["group"]) for one in found["consumers"]] == [
        ("music", "a"),
        ("music", "b"),
        ("welcomer", "w"),
    ]
    assert found["dead_letters"] == letters
    sizes, found = await all_pages(api, "/apps/music/consumers", "consumers", "dead_letters")
    assert (sizes, found["dead_letters"]) == ([2, 1], {"music": 1})
    sizes, found = await all_pages(api, "/consumers?app=welcomer", "consumers", "dead_letters")
    assert (sizes, found["dead_letters"]) == ([2], {"welcomer": 3})


async def test_an_identity_with_a_scope_sees_its_own_applications_only(api: Api) -> None:
    api.identity = VIEWER_OF_MUSIC
    _, found = await api("GET", "/cluster")
    assert (found["apps"], found["guilds"], found["leader"], found["nodes"]) == (1, 0, None, None)
    assert found["problems"] == {"critical": 0, "warning": 0, "notice": 1}
    assert [one["app"] for one in (await api("GET", "/apps"))[1]["items"]] == ["music"]
    assert [one["code"] for one in (await api("GET", "/problems"))[1]["items"]] == ["app-paused"]
    for path in ("/shards", "/pins", "/budgets"):
        assert (await api("GET", path))[1]["items"] == []
    assert (await api("GET", "/recent"))[1] == {"failovers": [], "losses": [], "next": None}
    for path in ("/apps/welcomer", "/apps/welcomer/groups", "/apps/welcomer/shards/0", "/shards?app=welcomer"):
        status, problem = await api("GET", path)
        assert (status, problem["code"]) == (404, "not-found")
        assert "music" not in problem["detail"]


async def test_problems_are_filtered_and_paged(api: Api) -> None:
    _, page = await api("GET", "/problems?limit=1")
    assert page["items"][0]["code"] == "node-unreachable"
    _, rest = await api("GET", f"/problems?after={page['next']}")
    assert page["items"][0] not in rest["items"]
    assert {one["severity"] for one in rest["items"]} <= {"warning", "notice"}
    for query, codes in (
        ("severity=notice", ["app-paused"]),
        ("app=music", ["app-paused"]),
        ("node=beta", ["node-unreachable"]),
        ("code=shard-count-pending", ["shard-count-pending"]),
    ):
        assert [one["code"] for one in (await api("GET", f"/problems?{query}"))[1]["items"]] == codes, query
    assert (await api("GET", "/problems?severity=bad"))[0] == 422


async def test_session_starts_are_shown_by_bot_and_without_its_token(api: Api) -> None:
    _, page = await api("GET", "/budgets")
    budget = page["items"][0]
    assert (budget["apps"], budget["bot_name"], budget["remaining"]) == (["welcomer"], "Welcomer", 900)
    assert (budget["total"], budget["reserve"], budget["max_concurrency"], budget["starts"]) == (1000, 200, 1, [])


# --- applications ---------------------------------------------------------------------------------------------------


async def test_an_application_is_shown_as_cluster_yml_has_it(api: Api) -> None:
    status, found = await api("GET", "/apps/welcomer")
    assert status == 200
    assert found["configuration"]["token"] == {"env": "WELCOMER_TOKEN"}
    assert (found["effective"]["cache"]["members"], "cache.members" in found["defaults"]) == (True, True)
    assert (found["group"], found["proposal"]["count"], found["status"]["shards"]) == (0, 8, {"live": 4})
    assert (await api("GET", "/apps/nope"))[0] == 404


async def test_an_application_is_added_and_its_token_is_sealed(api: Api, discord: Discord) -> None:
    body: dict[str, Any] = {"name": "greeter", "token": NEW_TOKEN, "config": {"intents": ["GUILDS"], "paused": True}}
    status, found = await api("POST", "/apps?dry_run=true", body)
    assert (status, found["written"], found["bot"]["name"]) == (200, False, "greeter")
    assert await api.cluster.store.get(KEYS.app("greeter")) is None
    status, found = await api("POST", "/apps", body)
    assert (status, found["written"]) == (201, True)
    assert KEY.unseal("greeter", (await record(api, "greeter")).token) == NEW_TOKEN
    assert discord.seen == [f"Bot {NEW_TOKEN}"] * 6
    assert (await api("GET", "/apps/greeter"))[1]["revision"] == found["revision"]
    status, problem = await api("POST", "/apps", body)
    assert (status, problem["code"]) == (409, "refused")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"name": "Bad Name"}, "Bad Name"),
        ({"token": "two words"}, "token"),
        ({"token": {"env": "X"}}, "token"),
        ({"config": {}}, "intents"),
        ({"config": {"intents": ["GUILDS"], "colour": 1}}, "colour"),
        ({"config": {"intents": ["GUILDS"], "token": {"literal": NEW_TOKEN}}}, "config.token"),
        ({"config": {"intents": ["GUILDS"], "events": {"ignore": ["GUILD_CREATE"]}}}, "GUILD_CREATE"),
    ],
)
async def test_a_bad_application_is_refused_by_its_place_and_nothing_is_stored(
    api: Api, change: dict[str, Any], part: str
) -> None:
    body = {"name": "greeter", "token": NEW_TOKEN, "config": {"intents": ["GUILDS"]}, **change}
    before = (await api.cluster.store.list(KEYS.prefix)).items
    status, problem = await api("POST", "/apps", body)
    assert (status, problem["code"]) == (422, "invalid")
    assert part in str(problem)
    assert NEW_TOKEN not in str(problem)
    assert (await api.cluster.store.list(KEYS.prefix)).items == before


async def test_a_token_that_discord_refuses_is_not_stored_unless_it_is_not_asked(api: Api, discord: Discord) -> None:
    discord.status = 401
    body = {"name": "greeter", "token": NEW_TOKEN, "config": {"intents": ["GUILDS"]}}
    status, problem = await api("POST", "/apps", body)
    assert (status, problem["code"]) == (409, "refused")
    assert NEW_TOKEN not in str(problem)
    assert (await api("POST", "/apps", {**body, "check": False}))[0] == 201


async def test_keys_are_changed_and_the_change_is_shown_first(api: Api) -> None:
    body = {"set": {"cache.presences": True, "large_threshold": 100}}
    _, shown = await api("PATCH", "/apps/welcomer?dry_run=true", body)
    assert shown["written"] is False
    assert {one["path"] for one in shown["changes"]} == {"cache.presences", "large_threshold"}
    assert [one["path"] for one in shown["warnings"]] == ["cache.presences"]
    assert (await record(api)).large_threshold == 50
    _, done = await api("PATCH", "/apps/welcomer", body)
    assert (done["written"], done["new_sessions"]) == (True, None)
    assert (await record(api)).cache.presences is True
    _, again = await api("PATCH", "/apps/welcomer", body)
    assert (again["written"], again["changes"]) == (False, [])


async def test_a_change_that_starts_sessions_says_what_they_cost_and_wants_consent(api: Api) -> None:
    body: dict[str, Any] = {"set": {"intents": ["GUILDS", "GUILD_MESSAGES"]}}
    _, shown = await api("PATCH", "/apps/welcomer?dry_run=true", body)
    assert shown["new_sessions"]["session_starts"] == 4
    assert shown["changes"] == [
        {"path": "intents", "before": ["GUILDS"], "after": ["GUILDS", "GUILD_MESSAGES"], "is_secret": False}
    ]
    status, problem = await api("PATCH", "/apps/welcomer", body)
    assert (status, problem["code"]) == (409, "refused")
    assert (await record(api)).intents == 1
    assert (await api("PATCH", "/apps/welcomer", {**body, "new_sessions": True}))[0] == 200
    assert (await record(api)).intents == 513


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"colour": 1}, "colour"),
        ({"cache.": 1}, "cache."),
        ({"token": "x"}, "PUT"),
        ({"token.literal": "x"}, "PUT"),
        ({NEW_TOKEN: 1}, "a token is no key"),
        ({"large_threshold": 1}, "large_threshold"),
        ({}, "set"),
    ],
)
async def test_a_bad_change_is_refused_by_its_place(api: Api, values: dict[str, Any], part: str) -> None:
    before = await record(api)
    status, problem = await api("PATCH", "/apps/welcomer", {"set": values})
    assert (status, problem["code"]) == (422, "invalid")
    assert part in str(problem)
    assert NEW_TOKEN[:12] not in str(problem)
    assert await record(api) == before


async def test_a_change_of_what_was_changed_meanwhile_is_refused(api: Api) -> None:
    async with api.http.get("/api/v1/apps/welcomer") as response:
        etag = response.headers["ETag"]
        revision = (await response.json())["revision"]
    assert etag.startswith(f'"{revision}-')
    assert (await api("PATCH", "/apps/welcomer", {"set": {"route": "a"}}, If_Match=etag))[0] == 200
    status, problem = await api("PATCH", "/apps/welcomer", {"set": {"route": "b"}}, If_Match=etag)
    assert (status, problem["code"]) == (412, "stale")
    status, _ = await api("POST", "/apps/welcomer/scale", {"shards": 8}, If_Match=etag)
    assert status == 412
    assert (await record(api)).route == "a"
    assert (await api("PATCH", "/apps/welcomer", {"set": {"route": "b"}}, If_Match="x"))[0] == 400


async def test_a_writer_between_the_check_and_the_write_makes_it_stale(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The revision is a guard of the transaction itself."""
    store = api.store
    assert isinstance(store, MemoryStore)
    _, shown = await api("GET", "/apps/welcomer")
    txn = store.txn
    changed = msgspec.structs.replace(await record(api), large_threshold=77)

    async def late(compares: Any, writes: Any) -> Any:
        monkeypatch.setattr(store, "txn", txn)
        assert Compare(KEYS.app("welcomer"), "mod_revision", shown["revision"]) in compares
        await edit(api, KEYS.app("welcomer"), changed.encode())
        return await txn(compares, writes)

    monkeypatch.setattr(store, "txn", late)
    status, _ = await api("PATCH", "/apps/welcomer", {"set": {"route": "b"}}, If_Match=f'"{shown["revision"]}"')
    assert (status, await record(api)) == (412, changed)


async def test_an_answer_that_is_known_is_not_sent_again(api: Api) -> None:
    etags = {}
    for path in ("/apps/welcomer", "/shards", "/nodes"):
        async with api.http.get(f"/api/v1{path}") as response:
            etags[path] = etag = response.headers["ETag"]
        for known in (etag, f'W/{etag}, "x"', "*"):
            async with api.http.get(f"/api/v1{path}", headers={"If-None-Match": known}) as response:
                assert (response.status, await response.read()) == (304, b"")
                assert response.headers["ETag"] == etag
    await api("PATCH", "/apps/welcomer", {"set": {"route": "b"}})
    statuses = {}
    for path, etag in etags.items():
        async with api.http.get(f"/api/v1{path}", headers={"If-None-Match": etag}) as response:
            statuses[path] = response.status
    assert statuses == {"/apps/welcomer": 200, "/shards": 304, "/nodes": 304}


async def test_a_token_is_replaced_by_one_of_the_same_bot(api: Api, discord: Discord) -> None:
    status, problem = await api("PUT", "/apps/welcomer/token", {"token": NEW_TOKEN})
    assert (status, problem["code"]) == (409, "refused")
    assert "another bot" in problem["detail"]
    discord.bot = "80351110224678912"
    _, shown = await api("PUT", "/apps/welcomer/token?dry_run=true", {"token": NEW_TOKEN})
    assert (shown["written"], shown["new_sessions"]["session_starts"]) == (False, 4)
    _, done = await api("PUT", "/apps/welcomer/token", {"token": NEW_TOKEN})
    assert done["changes"] == [{"path": "token", "before": None, "after": None, "is_secret": True}]
    assert KEY.unseal("welcomer", (await record(api)).token) == NEW_TOKEN


async def test_a_new_token_is_tested_once(api: Api, discord: Discord) -> None:
    discord.bot = "80351110224678912"
    body = {"set": {"route": "b"}, "token": NEW_TOKEN, "new_sessions": True}
    status, done = await api("PATCH", "/apps/welcomer", body)
    assert (status, done["written"], done["bot"]["id"]) == (200, True, discord.bot)
    assert len(discord.seen) == 3


async def test_new_sessions_that_no_node_has_room_for_begin_only_by_force(api: Api, discord: Discord) -> None:
    for item in (await api.cluster.store.list(KEYS.nodes)).items:
        full = {**msgspec.json.decode(item.value), "max_shards": 2}
        await api.cluster.store.txn((), (Put(item.key, msgspec.json.encode(full), item.lease),))
    discord.bot = "80351110224678912"
    changes: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("PATCH", "/apps/welcomer", {"set": {"intents": ["GUILDS", "GUILD_MESSAGES"]}, "new_sessions": True}),
        ("PUT", "/apps/welcomer/token", {"token": NEW_TOKEN}),
    )
    for method, path, body in changes:
        before = await record(api)
        _, shown = await api(method, f"{path}?dry_run=true", body)
        assert shown["new_sessions"]["shards_without_room"] == 4
        status, problem = await api(method, path, body)
        assert (status, problem["code"]) == (409, "refused")
        assert "no node has room for 4 of the 4 new shards" in problem["detail"]
        assert await record(api) == before
        assert (await api(method, path, {**body, "force": True}))[1]["written"] is True


async def test_an_application_is_paused_and_resumed(api: Api) -> None:
    status, outcome = await api("POST", "/apps/welcomer/pause")
    assert (status, outcome["reached"]) == (202, False)
    assert outcome["progress"][0]["kind"] == "AppPaused"
    assert (await api("GET", "/apps/welcomer"))[1]["status"]["state"] == "paused"
    assert (await api("POST", "/apps/welcomer/resume"))[0] == 200
    assert (await record(api)).paused is False


# --- groups ---------------------------------------------------------------------------------------------------------


async def test_the_groups_with_what_is_proposed(api: Api) -> None:
    _, found = await api("GET", "/apps/welcomer/groups")
    group = found["groups"][0]
    assert (group["group"], group["count"], group["ids"], group["serves"]) == (0, 4, "0-3", True)
    assert (group["shards"], found["change"], found["proposal"]["count"]) == ({"live": 4}, None, 8)
    assert (await api("GET", "/apps/music/groups"))[1]["groups"] == []


async def test_a_scale_shows_its_cost_is_stored_and_taken_back(api: Api) -> None:
    _, shown = await api("POST", "/apps/welcomer/scale?dry_run=true", {"shards": 8})
    assert (shown["written"], shown["new_sessions"]["session_starts"], shown["new_sessions"]["begins_now"]) == (
        False, 8, True,
    )  # fmt: skip
    assert (await record(api)).shards.count == 4
    status, outcome = await api("POST", "/apps/welcomer/scale", {"shards": 8})
    assert (status, outcome["reached"], outcome["written"]) == (202, False, True)
    assert (await record(api)).shards.count == 8
    assert (await api("POST", "/apps/welcomer/scale/cancel"))[1] == {"cancelled": True}
    assert (await record(api)).shards.count == 4
    assert (await api("POST", "/apps/welcomer/scale/cancel"))[1] == {"cancelled": False}


@pytest.mark.parametrize(
    "body",
    [{}, {"shards": 0}, {"shards": True}, {"shards": "many"}, {"shards": 8, "ids": "9"}, {"shards": 8, "ids": "x"}],
)
async def test_a_bad_shard_count_is_refused(api: Api, body: dict[str, Any]) -> None:
    status, problem = await api("POST", "/apps/welcomer/scale", body)
    assert (status, problem["code"]) == (422, "invalid")
    assert (await record(api)).shards.count == 4


async def test_a_proposal_is_taken_for_an_automatic_count_only(api: Api) -> None:
    assert (await api("POST", "/apps/welcomer/scale/accept"))[0] == 409
    automatic = msgspec.structs.replace(await record(api), shards=ShardsSpec())
    await edit(api, KEYS.app("welcomer"), automatic.encode())
    _, shown = await api("POST", "/apps/welcomer/scale/accept?dry_run=true")
    assert shown["new_sessions"]["shards_after"] == 8
    assert (await api("POST", "/apps/welcomer/scale/accept"))[0] == 202
    item = await api.cluster.store.get(KEYS.rollout("welcomer"))
    assert item is not None
    assert msgspec.json.decode(item.value, type=RolloutRecord).auto_count == 8


async def test_a_restart_gives_new_sessions_or_reconnects_some_shards(api: Api) -> None:
    _, shown = await api("POST", "/apps/welcomer/restart?dry_run=true", {})
    assert (shown["new_sessions"]["reasons"], shown["new_sessions"]["at_once"]) == (["a restart was asked for"], False)
    _, shown = await api("POST", "/apps/welcomer/restart?dry_run=true", {"hard": True})
    assert shown["new_sessions"]["at_once"] is True
    assert (await api("POST", "/apps/welcomer/restart", {"hard": True, "shards": "0"}))[0] == 422
    assert (await api("POST", "/apps/welcomer/restart", {"shards": "0-1"}))[0] == 202
    assert len((await api.cluster.store.list(KEYS.restarts)).items) == 2
    assert (await api("POST", "/apps/music/restart", {}))[1]["code"] == "refused"


# --- shards ---------------------------------------------------------------------------------------------------------


async def test_shards_are_listed_with_figures_filters_and_pages(api: Api) -> None:
    _, page = await api("GET", "/shards?limit=3")
    assert [one["shard"] for one in page["items"]] == [0, 1, 2]
    assert (page["items"][1]["state"], page["items"][1]["since"], page["items"][1]["reason"]) == (
        "resuming", 200.0, "4000",
    )  # fmt: skip
    assert (page["items"][2]["latency_ms"], page["items"][2]["node"], page["items"][2]["since"]) == (
        None, "beta", 100.0,
    )  # fmt: skip
    _, page = await api("GET", f"/shards?after={page['next']}")
    assert [(one["shard"], one["pinned_to"]) for one in page["items"]] == [(3, "beta")]
    for query, numbers in (("node=beta", [2, 3]), ("state=resuming", [1]), ("group=7", []), ("app=music", [])):
        assert [one["shard"] for one in (await api("GET", f"/shards?{query}"))[1]["items"]] == numbers, query
    assert [one["shard"] for one in (await api("GET", "/apps/welcomer/shards?state=live"))[1]["items"]] == [0, 2, 3]


async def test_a_shard_that_no_node_runs_is_listed(api: Api) -> None:
    await api.cluster.store.txn((), (Delete(KEYS.claim("welcomer", 0, 2)),))
    await api.cluster.settle()
    _, page = await api("GET", "/shards?state=unclaimed")
    assert [(one["shard"], one["node"], one["worker"]) for one in page["items"]] == [(2, None, None)]


async def test_a_shard_is_shown_with_what_happened_to_it(api: Api) -> None:
    _, found = await api("GET", "/apps/welcomer/shards/1")
    assert (found["shard"]["state"], found["failovers"][0]["cause"], found["losses"]) == ("resuming", "node lost", [])
    assert (await api("GET", "/apps/welcomer/shards/0"))[1]["losses"][0]["last_seq"] == 7
    for name in ("9", "x", "-1", "99999999999", "%F0%9F%8D%9E"):
        assert (await api("GET", f"/apps/welcomer/shards/{name}"))[0] == 404


async def test_shards_are_moved_and_unpinned(api: Api) -> None:
    assert (await api("POST", "/apps/welcomer/shards/move", {"shards": "0", "node": "beta"}))[0] == 202
    _, page = await api("GET", "/apps/welcomer/pins")
    assert [(one["shard"], one["node"]) for one in page["items"]] == [(0, "beta"), (3, "beta")]
    assert (await api("DELETE", "/apps/welcomer/pins?shards=0-1"))[1] == {"shards": "0-1", "pins": 1}
    assert [one["shard"] for one in (await api("GET", "/pins"))[1]["items"]] == [3]
    for body, status in (
        ({"shards": "0", "node": "nope"}, 404),
        ({"shards": "9", "node": "beta"}, 404),
        ({"shards": "a", "node": "beta"}, 422),
        ({"shards": "0"}, 422),
    ):
        assert (await api("POST", "/apps/welcomer/shards/move", body))[0] == status
    assert (await api("DELETE", "/apps/welcomer/pins"))[0] == 422


async def test_the_balance_is_restored(api: Api) -> None:
    _, shown = await api("POST", "/rebalance?dry_run=true")
    assert (shown["written"], shown["moves"]) == (False, [])
    assert len((await api.cluster.store.list(KEYS.pins)).items) == 1
    assert (await api("POST", "/rebalance"))[1]["reached"] is True
    assert (await api.cluster.store.list(KEYS.pins)).items == ()


# --- all of it ------------------------------------------------------------------------------------------------------


async def test_no_answer_has_a_secret(discord: Discord) -> None:
    store = MemoryStore()
    sealed = await store_cluster(store, api_url=discord.url)
    values = {"app": "welcomer", "node": "alpha", "shard": "1"}
    async with api_over(store, key=KEY) as api:
        api.picture.answers = answers()
        for route in ROUTES:
            if route.method == "GET" and route.media_type == "application/json":
                async with api.http.get("/api/v1" + route.path.format_map(_Any(values))) as response:
                    text = await response.text() + str(response.headers)
                assert response.status < 500 or response.status == 503, route.path
                for secret in secrets(sealed):
                    assert secret not in text, route.path


class _Any(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return "1"


async def test_head_and_options_follow_from_the_table(api: Api) -> None:
    async with api.http.head("/api/v1/apps/welcomer") as response:
        assert (response.status, await response.read()) == (200, b"")
        assert "ETag" in response.headers
    async with api.http.options("/api/v1/apps/welcomer") as response:
        assert (response.status, response.headers["Allow"]) == (204, "DELETE, GET, HEAD, OPTIONS, PATCH")
        assert not [name for name in response.headers if name.lower().startswith("access-control")]


async def test_who_is_limited_to_an_application_gets_no_list_of_names(api: Api) -> None:
    api.identity = Identity("token", "w", Role.ADMIN, frozenset({"welcomer", "gone"}))
    for accept in ("application/json", "application/x-ndjson"):
        status, problem = await api(
            "POST", "/apps/welcomer/shards/move", {"shards": "0", "node": "nope"}, Accept=accept
        )
        assert (status, problem["detail"]) == (404, "there is no node nope")
    status, problem = await api("GET", "/apps/gone")
    assert (status, problem["detail"]) == (404, "there is no application gone")


async def test_the_audit_log_gets_what_was_before_and_after(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_connection, "CONNECT_TIMEOUT_S", 0.1)
    for method, path, body, status in (
        ("POST", "/apps/welcomer/shards/move", {"shards": "1-2", "node": "alpha"}, 202),
        ("POST", "/apps/welcomer/pause", None, 202),
        ("POST", "/apps/welcomer/resume", None, 200),
        ("POST", "/apps/welcomer/scale", {"shards": 2}, 202),
        ("POST", "/apps/welcomer/scale/cancel", None, 200),
        # NATS and Redis do not answer.
        ("DELETE", "/apps/music?confirm=music&force=true", None, 503),
    ):
        found = await api(method, path, body)
        assert found[0] == status, (path, found)
    moved, paused, resumed, scaled, cancelled, removed = api.changes
    assert (moved.before, moved.after) == ({"nodes": {"alpha": "1", "beta": "2"}}, {"shards": "1-2", "node": "alpha"})
    assert (paused.before, paused.after) == ({"paused": False}, {"paused": True})
    assert (resumed.before, resumed.after) == ({"paused": True}, {"paused": False})
    assert (scaled.before, scaled.after) == ({"group": 0}, {"change": ["4 shards -> 2 shards"]})
    assert cancelled.before is None
    assert (removed.before["token"], removed.before["paused"]) == ({"env": "MUSIC_TOKEN"}, True)
    assert removed.after == {"removed": True, "keep_cache": False, "delete_stream": False}
