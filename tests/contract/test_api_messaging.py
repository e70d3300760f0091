"""What the HTTP API asks NATS for: consumer groups, dead letters, questions, commands, removal."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import nats
import pytest

from sandwich_coordinator.access.roles import Identity, Role
from sandwich_coordinator.store.base import Delete, Put
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import CacheSpec, GroupNumberRecord, RemovalRecord
from sandwich_node.api import messaging
from sandwich_node.dev.embedded import EmbeddedNats
from sandwich_sdk import Consumer, Event
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.rpc import RpcError
from tests.support.api import KEYS, Api, api_over
from tests.support.api_cluster import KEY, answers, store_cluster
from tests.support.api_rpc import GUILD, OTHER, USER, Cluster
from tests.support.publisher import Publisher, running, until

pytestmark = pytest.mark.contract


@asynccontextmanager
async def api_with(url: str) -> AsyncIterator[Api]:
    store = MemoryStore()
    await store_cluster(store, nats=url)
    async with api_over(store, key=KEY) as api:
        api.picture.answers = answers()
        yield api


@pytest.fixture
async def api(server: EmbeddedNats) -> AsyncIterator[Api]:
    async with api_with(server.url) as api:
        yield api


async def dead(server: EmbeddedNats, publisher: Publisher, count: int, group: str = "g") -> None:
    """Make `count` dead letters of a group."""
    consumer = Consumer(server.url, app="welcomer", group=group, start="all", nak_delay=0.01, max_tries=1)
    failed: list[Any] = []
    consumer.on_error(failed.append)

    @consumer.on_any
    async def handle(_event: Event) -> None:
        raise ValueError("cannot bear it")

    await publisher.events(count)
    async with running(consumer):
        await until(lambda: len(failed) == count)


# --- dead letters and consumer groups -------------------------------------------------------------------------------


async def test_dead_letters_are_listed_in_pages_shown_replayed_and_discarded(
    api: Api, server: EmbeddedNats, welcomer: Publisher
) -> None:
    assert (await api("GET", "/apps/welcomer/dead_letters"))[1] == {"items": [], "next": None, "total": 0}
    await dead(server, welcomer, 5)
    _, page = await api("GET", "/apps/welcomer/dead_letters?limit=2")
    numbers = [one["number"] for one in page["items"]]
    assert (numbers, page["next"]) == ([5, 4], "4")
    assert (page["items"][0]["error"], page["items"][0]["tries"], page["items"][0]["shard"]) == (
        "ValueError: cannot bear it", 1, 0,
    )  # fmt: skip
    _, page = await api("GET", "/apps/welcomer/dead_letters?limit=3&after=4")
    assert ([one["number"] for one in page["items"]], page["next"]) == ([3, 2, 1], None)
    assert (await api("GET", "/apps/welcomer/dead_letters?group=other"))[1]["items"] == []
    _, letter = await api("GET", "/apps/welcomer/dead_letters/2")
    assert (letter["event"]["d"]["n"], letter["letter"]["id"]) == (2, "abc:2")
    _, done = await api("POST", "/apps/welcomer/dead_letters/replay", {"letters": ["2", "abc:3"]})
    assert done == {"replayed": 2, "left": 0, "not_read": []}
    _, done = await api("POST", "/apps/welcomer/dead_letters/discard", {"all": True, "group": "g"})
    assert done == {"discarded": 3, "left": 0}
    assert (await api("GET", "/apps/welcomer/dead_letters/2"))[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "replay", {}, 422),
        ("POST", "replay", {"letters": ["1"], "all": True}, 422),
        ("POST", "discard", {"letters": ["77"]}, 404),
        ("POST", "discard", {"letters": [1]}, 422),
        ("GET", "x", None, 404),
        ("GET", "99999999999999999999", None, 404),
    ],
)
async def test_bad_choices_of_dead_letters_are_refused(
    api: Api, welcomer: Publisher, method: str, path: str, body: Any, status: int
) -> None:
    assert (await api(method, f"/apps/welcomer/dead_letters/{path}", body))[0] == status
    assert (await api("GET", "/apps/welcomer/dead_letters?after=x"))[0] == 422
    assert (await api("GET", "/apps/nope/dead_letters"))[0] == 404


async def test_a_consumer_group_is_made(api: Api, welcomer: Publisher) -> None:
    body = {"group": "workers", "start": "2026-01-31T12:00:00Z"}
    assert (await api("POST", "/apps/welcomer/consumers", body))[1] == {"app": "welcomer", "group": "workers"}
    info = await welcomer.client.jetstream().consumer_info(subjects.stream_name("welcomer"), "workers")
    assert info.config.durable_name == "workers"
    for bad in ({"group": "a b"}, {"group": "x", "start": "2026-01-31T12:00:00"}, {"group": "x", "start": "soon"}):
        assert (await api("POST", "/apps/welcomer/consumers", bad))[0] == 422
    status, problem = await api("POST", "/apps/music/consumers", {"group": "x"})
    assert (status, problem["code"]) == (404, "not-found")
    status, problem = await api("POST", "/apps/welcomer/consumers", {"group": "workers", "ordered": True})
    assert (status, problem["code"]) == (409, "refused")


async def test_consumer_groups_are_listed_as_jetstream_has_them_and_removed(
    api: Api, server: EmbeddedNats, welcomer: Publisher
) -> None:
    await dead(server, welcomer, 2, group="old")
    for group in ("a", "b"):
        await api("POST", "/apps/welcomer/consumers", {"group": group, "start": "all"})
    _, page = await api("GET", "/apps/welcomer/consumer_groups?limit=2")
    assert ([(one["group"], one["lag"]) for one in page["items"]], page["next"]) == ([("a", 1), ("b", 1)], "b")
    _, page = await api("GET", "/apps/welcomer/consumer_groups?after=b")
    (old,) = page["items"]
    assert (old["group"], old["lag"], old["dead_letters"], old["reads"], page["next"]) == ("old", 0, 2, False, None)
    api.identity = Identity("token", "v", Role.VIEWER)
    assert (await api("DELETE", "/apps/welcomer/consumers/old"))[0] == 403
    api.identity = Identity("token", "o", Role.OPERATOR, frozenset({"music"}))
    assert (await api("DELETE", "/apps/welcomer/consumers/old"))[0] == 404
    assert (await api("GET", "/apps/welcomer/consumer_groups"))[0] == 404
    api.identity = Identity("token", "o", Role.OPERATOR)
    api.recorded.clear()
    status, removed = await api("DELETE", "/apps/welcomer/consumers/old")
    assert (status, removed["group"], removed["dead_letters"]) == (200, "old", 2)
    assert api.recorded == [("o", "DELETE /apps/{app}/consumers/{group}", "")]
    assert api.changes[-1].before["dead_letters"] == 2
    status, problem = await api("DELETE", "/apps/welcomer/consumers/old")
    assert (status, problem["detail"]) == (404, "there is no consumer group old; there are: a, b")
    assert (await api("GET", "/apps/welcomer/dead_letters"))[1]["total"] == 0
    consumer = Consumer(server.url, app="welcomer", group="a")
    handled: list[Event] = []

    @consumer.on_any
    async def handle(event: Event) -> None:
        handled.append(event)

    async with running(consumer):
        await until(lambda: bool(handled))
        status, problem = await api("DELETE", "/apps/welcomer/consumers/a")
        assert (status, problem["code"], "--force" in problem["detail"]) == (409, "refused", True)
    assert (await api("DELETE", "/apps/welcomer/consumers/b?force=true", Idempotency_Key="once"))[0] == 200
    assert (await api("DELETE", "/apps/welcomer/consumers/b?force=true", Idempotency_Key="once"))[0] == 200


# --- questions and commands -----------------------------------------------------------------------------------------


@pytest.fixture
async def cluster(server: EmbeddedNats) -> AsyncIterator[Cluster]:
    client = await nats.connect(server.url)
    found = Cluster()
    for app in ("welcomer", "music"):
        await client.subscribe(f"sandwich.{app}.rpc.*", cb=found.answer)
    await client.flush()
    yield found
    await client.close()


async def test_a_guild_is_found_with_the_node_of_its_shard(api: Api, cluster: Cluster) -> None:
    location = {"app": "welcomer", "group": 0, "shard": 1, "state": "live", "node": "alpha"}
    _, found = await api("GET", f"/guilds/{GUILD}")
    assert found == {"guild_id": GUILD, "locations": [location], "unanswered": []}
    _, found = await api("GET", f"/apps/welcomer/guilds/{GUILD}")
    assert (found["guild"]["name"], found["location"]) == ("Discord Testers", location)
    assert (await api("GET", f"/apps/music/guilds/{GUILD}"))[0] == 404
    assert (await api("GET", "/guilds/general"))[0] == 404


async def test_the_servers_that_a_user_shares_with_the_bots(api: Api, cluster: Cluster) -> None:
    _, found = await api("GET", f"/users/{USER}/mutual_guilds?names=true")
    assert found["guilds"] == [
        {"guild_id": GUILD, "apps": ["music", "welcomer"], "name": "Discord Testers", "icon": "abc"},
        {"guild_id": OTHER, "apps": ["welcomer"], "name": "Discord Testers", "icon": "abc"},
    ]
    _, found = await api("GET", f"/users/{USER}/mutual_guilds?app=music")
    assert found["guilds"] == [{"guild_id": GUILD, "apps": ["music"], "name": None, "icon": None}]
    assert len((await api("GET", f"/apps/welcomer/users/{USER}/mutual_guilds"))[1]["guilds"]) == 2
    api.identity = Identity("token", "m", Role.VIEWER, frozenset({"music"}))
    assert [one["apps"] for one in (await api("GET", f"/users/{USER}/mutual_guilds"))[1]["guilds"]] == [["music"]]
    assert (await api("GET", f"/users/{USER}/mutual_guilds?app=welcomer"))[0] == 404
    assert (await api("GET", f"/guilds/{GUILD}"))[0] == 404


async def test_what_the_cache_has_of_a_guild(api: Api, cluster: Cluster) -> None:
    guild = f"/apps/welcomer/guilds/{GUILD}"
    assert (await api("GET", f"{guild}/channels"))[1]["items"] == [{"id": "1", "name": "general"}]
    assert (await api("GET", f"{guild}/roles/7"))[1]["item"]["name"] == "mods"
    assert (await api("GET", f"{guild}/members?query=a"))[1]["complete"] is True
    assert (await api("GET", f"{guild}/members?user_ids={USER},{GUILD}"))[0] == 200
    assert cluster.requests[-1] == ("welcomer", "fetch_members", {"guild_id": GUILD, "user_ids": [USER, GUILD]})
    assert (await api("GET", f"{guild}/members/{USER}/permissions?channel_id=1"))[1]["permissions"] == "8"
    assert cluster.requests[-1][2] == {"guild_id": GUILD, "user_id": USER, "channel_id": "1"}
    assert (await api("GET", f"/apps/welcomer/users/{USER}"))[1]["user"]["username"] == "ada"
    for path, status in (("colours", 404), ("emojis/1", 404), ("roles/x", 404), ("members?user_ids=a", 422)):
        assert (await api("GET", f"{guild}/{path}"))[0] == status, path


async def test_commands_of_a_bot(api: Api, cluster: Cluster) -> None:
    api.identity = Identity("token", "o", Role.OPERATOR)
    guild = f"/apps/welcomer/guilds/{GUILD}"
    for path, body, verb, sent in (
        (f"{guild}/request_members", {"query": "a", "limit": 5}, "request_members", {"query": "a", "limit": 5}),
        (f"{guild}/request_sounds", None, "request_sounds", {"guild_id": GUILD}),
        (f"{guild}/request_channel_info", {"fields": ["status"]}, "request_channel_info", {"fields": ["status"]}),
        (f"{guild}/voice_state", {"channel_id": None}, "update_voice_state", {"channel_id": None}),
        ("/apps/welcomer/presence", {"status": "dnd"}, "update_presence", {"status": "dnd"}),
        ("/apps/welcomer/events", {"type": "SONG", "data": {"n": 1}, "guild_id": GUILD}, "relay", {"data": {"n": 1}}),
    ):
        status, _ = await api("POST", path, body)
        app, asked, fields = cluster.requests[-1]
        assert (status, app, asked) == (200, "welcomer", verb)
        assert sent.items() <= fields.items()
    # What only asks is not.
    assert [done for _, done, _ in api.recorded] == [
        "POST /apps/{app}/guilds/{guild_id}/voice_state",
        "POST /apps/{app}/presence",
        "POST /apps/{app}/events",
    ]
    count = len(cluster.requests)
    for path, bad in (
        (f"{guild}/voice_state", {}),
        ("/apps/welcomer/events", {"type": "song", "data": 1}),
        ("/apps/welcomer/presence", {"status": "asleep"}),
    ):
        assert (await api("POST", path, bad))[0] == 422
    api.identity = Identity("token", "v", Role.VIEWER)
    assert (await api("POST", f"{guild}/request_sounds"))[0] == 403
    assert len(cluster.requests) == count


@pytest.mark.parametrize(
    ("code", "status", "named"),
    [
        ("invalid", 422, "invalid"),
        ("refused", 409, "refused"),
        ("limited", 429, "too-many-requests"),
        ("unavailable", 503, "unavailable"),
        ("timeout", 504, "no-answer"),
    ],
)
async def test_errors_of_the_cluster_are_problems(
    api: Api, cluster: Cluster, code: str, status: int, named: str
) -> None:
    cluster.error = RpcError(code, "the reason")
    found, problem = await api("GET", f"/apps/welcomer/users/{USER}")
    assert (found, problem["code"], problem["detail"]) == (status, named, "the reason")


@pytest.mark.parametrize("code", ["unavailable", "timeout", "limited"])
async def test_an_application_that_does_not_answer_is_named(api: Api, cluster: Cluster, code: str) -> None:
    cluster.errors["music"] = RpcError(code, "the reason")
    _, found = await api("GET", f"/guilds/{GUILD}")
    assert ([one["app"] for one in found["locations"]], found["unanswered"]) == (["welcomer"], ["music"])
    _, found = await api("GET", f"/users/{USER}/mutual_guilds")
    assert ([one["apps"] for one in found["guilds"]], found["unanswered"]) == ([["welcomer"]] * 2, ["music"])
    cluster.errors["music"] = RpcError("refused", "it keeps no cache")
    assert (await api("GET", f"/users/{USER}/mutual_guilds"))[1]["unanswered"] == []
    cluster.error = RpcError("unavailable", "Redis does not answer")
    for path in (f"/guilds/{GUILD}", f"/users/{USER}/mutual_guilds"):
        status, problem = await api("GET", path)
        assert (status, problem["detail"]) == (503, "Redis does not answer")


async def test_an_application_whose_nodes_are_gone_is_named(api: Api, server: EmbeddedNats) -> None:
    client = await nats.connect(server.url)
    await client.subscribe("sandwich.welcomer.rpc.*", cb=Cluster().answer)
    await client.flush()
    _, found = await api("GET", f"/guilds/{GUILD}")
    assert ([one["app"] for one in found["locations"]], found["unanswered"]) == (["welcomer"], ["music"])
    _, found = await api("GET", f"/users/{USER}/mutual_guilds")
    assert found["unanswered"] == ["music"]
    status, problem = await api("GET", f"/apps/music/guilds/{GUILD}")
    assert (status, problem["code"]) == (503, "unavailable")
    assert "no node serves music" in problem["detail"]
    await client.close()


# --- the connection -------------------------------------------------------------------------------------------------


async def test_without_nats_a_request_fails_soon_and_says_where() -> None:
    async with api_with("nats://127.0.0.1:1") as api, asyncio.timeout(60):
        found = await asyncio.gather(*(api("GET", "/apps/welcomer/dead_letters") for _ in range(20)))
        for status, problem in found:
            assert (status, problem["code"]) == (503, "unavailable")
            assert "127.0.0.1:1" in problem["detail"]
        assert (await api("GET", f"/users/{USER}/mutual_guilds"))[0] == 503
        assert (await api("GET", "/apps/welcomer"))[0] == 200


async def test_all_requests_share_one_connection_which_ends_when_no_request_uses_it(
    api: Api, server: EmbeddedNats, welcomer: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messaging, "IDLE_S", 0.05)
    await asyncio.gather(*(api("GET", "/apps/welcomer/dead_letters") for _ in range(20)))
    opened = api.cluster.messaging._open
    assert opened is not None
    await until(lambda: api.cluster.messaging._open is None and opened.connection.client.is_closed)
    assert (await api("GET", "/apps/welcomer/dead_letters"))[0] == 200


# --- removal --------------------------------------------------------------------------------------------------------


async def test_a_removal_is_surveyed_refused_while_it_is_read_and_begun(
    api: Api, server: EmbeddedNats, welcomer: Publisher
) -> None:
    status, problem = await api("GET", "/apps/welcomer/removal")
    assert (status, "127.0.0.1:1" in problem["detail"]) == (503, True)
    await api("PATCH", "/apps/welcomer", {"set": {"cache.enabled": False}})
    _, found = await api("GET", "/apps/welcomer/removal")
    assert (found["shards_live"], found["guilds"], found["stored"]) == (4, None, None)
    consumer = Consumer(server.url, app="welcomer", group="g", start="all")
    handled: list[Event] = []

    @consumer.on_any
    async def handle(event: Event) -> None:
        handled.append(event)

    await welcomer.events(1)
    async with running(consumer):
        await until(lambda: bool(handled))
        status, problem = await api("DELETE", "/apps/welcomer?confirm=welcomer")
    assert (status, problem["code"]) == (409, "refused")
    for query in ("", "?confirm=music"):
        assert (await api("DELETE", f"/apps/welcomer{query}"))[0] == 422
    status, outcome = await api("DELETE", "/apps/welcomer?confirm=welcomer&force=true&delete_stream=true")
    assert (status, outcome["reached"]) == (202, False)
    removal = await api.cluster.store.get(KEYS.removal("welcomer"))
    assert removal is not None
    record = msgspec.json.decode(removal.value, type=RemovalRecord)
    assert (record.delete_stream, record.cache) == (True, CacheSpec(enabled=False))
    number = Put(KEYS.group_number("welcomer"), GroupNumberRecord(newest=3).encode())
    gone = [Delete(KEYS.claims, prefix=True), Delete(KEYS.groups, prefix=True), Delete(KEYS.sessions, prefix=True)]
    await api.cluster.store.txn((), [number, *gone])
    # The node goes on with it by itself.
    async with asyncio.timeout(60):
        while await api.cluster.store.get(KEYS.removal("welcomer")) is not None:  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(0.05)
    assert (await api("DELETE", "/apps/welcomer?confirm=welcomer&force=true"))[0] == 404
    assert [one.config.name for one in await welcomer.client.jetstream().streams_info()] == []
    assert await api.cluster.store.get(KEYS.group_number("welcomer")) is None
