"""`Cache` against a real Redis and a real Redis Cluster, filled as in the contract."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster

from sandwich_node.dev.embedded import EmbeddedRedis
from sandwich_sdk.cache import Cache, MemberPage, connection, corruption, reader, search
from sandwich_sdk.cache.permissions import Permissions as P
from sandwich_sdk.cache.testing import FakeCache, guild_layout, message_layout
from sandwich_sdk.wire import cache_keys
from tests.support.cache_layout import (
    ADA,
    BOB,
    CHANNEL,
    EMOJI,
    EVENT,
    GUILD,
    MESSAGES,
    OTHER_GUILD,
    OWNER,
    ROLE,
    STICKER,
    THREAD,
    VOICE,
    member,
    message,
    rich_guild,
    store,
)  # fmt: skip
from tests.support.redis_cluster import redis_cluster

pytestmark = [pytest.mark.contract, pytest.mark.asyncio(loop_scope="module")]
Server = tuple[type[Any], str]
APP, NS = "music", "shared"
QUESTIONS: dict[str, Callable[[Cache], Awaitable[Any]]] = {
    "where": lambda cache: cache.where_is_guild(GUILD, APP),
    "guild_ids": lambda cache: cache.guild_ids(APP),
    "guild_count": lambda cache: cache.guild_count(APP),
    "mutual": lambda cache: cache.mutual_guilds(ADA),
    "mutual of app": lambda cache: cache.mutual_guilds(ADA, app=APP),
    "guild": lambda cache: cache.guild(GUILD),
    "guilds": lambda cache: cache.guilds([OTHER_GUILD, GUILD]),
    "guild_apps": lambda cache: cache.guild_apps(GUILD),
    "sizes": lambda cache: cache.sizes(GUILD),
    "channel": lambda cache: cache.channel(GUILD, CHANNEL),
    "channels": lambda cache: cache.channels(GUILD),
    "thread": lambda cache: cache.thread(GUILD, THREAD),
    "threads": lambda cache: cache.threads(GUILD),
    "role": lambda cache: cache.role(GUILD, ROLE),
    "roles": lambda cache: cache.roles(GUILD),
    "emoji": lambda cache: cache.emoji(GUILD, EMOJI),
    "emojis": lambda cache: cache.emojis(GUILD),
    "sticker": lambda cache: cache.sticker(GUILD, STICKER),
    "stickers": lambda cache: cache.stickers(GUILD),
    "voice_state": lambda cache: cache.voice_state(GUILD, ADA),
    "voice_states": lambda cache: cache.voice_states(GUILD),
    "presence": lambda cache: cache.presence(GUILD, ADA),
    "event": lambda cache: cache.scheduled_event(GUILD, EVENT),
    "events": lambda cache: cache.scheduled_events(GUILD),
    "stages": lambda cache: cache.stages(GUILD),
    "sounds": lambda cache: cache.sounds(GUILD),
    "message": lambda cache: cache.message(GUILD, CHANNEL, MESSAGES[0]),
    "messages": lambda cache: cache.messages(GUILD, CHANNEL),
    "member": lambda cache: cache.member(GUILD, ADA),
    "members": lambda cache: cache.members(GUILD),
    "members by id": lambda cache: cache.members(GUILD, ids=[BOB, ADA, OTHER_GUILD]),
    "members by name": lambda cache: cache.members(GUILD, query="coun"),
    "permissions": lambda cache: cache.permissions(GUILD, ADA, THREAD),
    "user": lambda cache: cache.user(ADA),
}
"""Calls of all methods of Cache. The last one is not about a guild."""
NOTHING: tuple[object, ...] = (None, [], 0, frozenset(), MemberPage())


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["single", "cluster"])
async def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    directory = Path(tmp_path_factory.mktemp("redis"))
    if request.param == "single":
        async with EmbeddedRedis(directory) as redis_server:
            yield redis.Redis, redis_server.url
    else:
        async with redis_cluster(directory, 2) as servers:
            yield RedisCluster, servers[0].url


class Filled:
    """A cache, and a client that writes to the same server."""

    def __init__(self, cache: Cache, client: Any) -> None:
        self.cache = cache
        self.client = client

    async def put(self, guild: dict[str, Any], *, namespace: str = NS, app: str = APP, **where: int) -> None:
        await store(self.client, guild_layout(namespace, guild, app=app, **where))


@pytest_asyncio.fixture(loop_scope="module")
async def filled(server: Server) -> AsyncIterator[Filled]:
    kind, url = server
    async with kind.from_url(url) as client, Cache(url, namespace=NS, timeout=10) as cache:
        await client.flushall()
        yield Filled(cache, client)


async def test_every_method_returns_the_same_as_from_the_fake_cache(filled: Filled) -> None:
    fake = FakeCache(namespace=NS)
    fake.put_guild(rich_guild(), app=APP, group=3, shard=7)
    await filled.put(rich_guild(), group=3, shard=7)
    for number in range(3):
        fake.put_message(message(number))
        await store(filled.client, message_layout(NS, message(number)))
    for name, question in QUESTIONS.items():
        answer, expected = await question(filled.cache), await question(fake)
        if isinstance(answer, MemberPage):
            answer, expected = sorted(answer, key=repr), sorted(expected, key=repr)
        assert answer == expected, name
        assert answer not in NOTHING, name


async def test_the_results_are_typed_and_correct(filled: Filled) -> None:
    cache = filled.cache
    await filled.put(rich_guild(), group=3, shard=7)
    assert await cache.where_is_guild(GUILD, APP) == (3, 7)
    guild = await cache.guild(int(GUILD))
    assert guild is not None
    assert (guild.name, guild.unavailable, guild.features) == ("Chess", False, ("COMMUNITY",))
    assert "channels" not in guild
    assert [channel.name for channel in await cache.channels(GUILD)] == ["general", "Voice"]
    assert [role.name for role in await cache.roles(GUILD)] == ["@everyone", "mod"]
    ada = await cache.member(GUILD, ADA)
    assert ada is not None
    assert (ada.nick, ada.user and ada.user.global_name, ada.roles, ada.guild_id) == ("Countess", "Ada", (ROLE,), GUILD)
    assert await cache.permissions(GUILD, ADA, VOICE) == P.VIEW_CHANNEL | P.SEND_MESSAGES | P.MANAGE_MESSAGES
    sizes = await cache.sizes(GUILD)
    assert sizes is not None
    assert (sizes["channels"], sizes["members"], sizes["presences"]) == (2, 3, 1)


async def test_an_empty_server_returns_nothing(filled: Filled) -> None:
    for name, question in QUESTIONS.items():
        assert await question(filled.cache) in NOTHING, name


async def test_nothing_of_a_guild_that_was_left_is_returned_even_if_keys_remain(filled: Filled) -> None:
    await filled.put(rich_guild())
    await store(filled.client, message_layout(NS, message(0)))
    await filled.client.delete(cache_keys.apps_key(NS, GUILD))
    await filled.client.delete(cache_keys.locations_key(NS, APP))
    for name, question in list(QUESTIONS.items())[:-1]:
        assert await question(filled.cache) in NOTHING, name


async def test_mutual_guilds_of_one_application_one_namespace_and_all(filled: Filled) -> None:
    cache = filled.cache
    for number in range(1, 6):
        await filled.put(rich_guild(str(number)), app=APP if number % 2 else "other")
    await filled.put(rich_guild("3"), app="other")
    await filled.put(rich_guild("7"), namespace="apart", app="apart")
    await filled.put(rich_guild("3"), namespace="apart", app="apart")
    assert await cache.mutual_guilds(ADA) == ["1", "2", "3", "4", "5"]
    assert await cache.mutual_guilds(int(ADA), app=APP) == ["1", "3", "5"]
    assert await cache.mutual_guilds(ADA, app="other") == ["2", "3", "4"]
    assert await cache.mutual_guilds(ADA, app="absent") == []
    assert await cache.mutual_guilds(ADA, namespaces=["apart", NS, "empty"]) == ["1", "2", "3", "4", "5", "7"]
    assert await cache.mutual_guilds(ADA, app="apart", namespaces=["apart", NS]) == ["3", "7"]
    assert await cache.mutual_guilds(ADA, namespaces=[]) == []
    assert await cache.in_namespace("apart").mutual_guilds(ADA) == ["3", "7"]
    await filled.client.delete(cache_keys.apps_key(NS, 4))
    assert await cache.mutual_guilds(ADA) == ["1", "2", "3", "5"]
    assert [guild.id for guild in await cache.guilds(["5", "4", "9", "1"])] == ["5", "1"]


async def test_many_guilds_are_requested_in_pages(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "KEYS_MAX", 2)
    monkeypatch.setattr(reader, "SCAN_PAGE", 2)
    ids = [str(number) for number in range(1, 8)]
    for guild in ids:
        await filled.put({"id": guild, "members": [member(ADA, "ada")]}, shard=int(guild) % 3)
    await filled.client.delete(cache_keys.apps_key(NS, 6))
    assert await filled.cache.mutual_guilds(ADA) == [guild for guild in ids if guild != "6"]
    assert [guild.id for guild in await filled.cache.guilds(ids)] == [guild for guild in ids if guild != "6"]
    assert await filled.cache.guild_ids(APP) == ids
    assert await filled.cache.guild_count(APP) == 7


async def test_members_are_found_by_their_names(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {100 + n: f"{'even' if n % 2 == 0 else 'odd'}{n}" for n in range(700)}
    people = [member(str(user), name) for user, name in names.items()]
    people[0]["nick"] = "ÀÉß nick"
    await filled.put({"id": GUILD, "members": people})
    cache = filled.cache
    found = await cache.members(GUILD, query="EVEN1", limit=1000)
    wanted = {name for name in names.values() if name.startswith("even1")}
    assert {one["user"]["username"] for one in found} == wanted
    assert found.complete
    assert [one.user_id for one in await cache.members(GUILD, query="àéSS")] == ["100"]
    some = await cache.members(GUILD, query="odd", limit=10)
    assert (len(some), some.complete) == (10, False)
    everyone = await cache.members(GUILD, limit=1000)
    assert ({one.user_id for one in everyone}, everyone.complete) == (set(map(str, names)), True)
    assert not (await cache.members(GUILD, limit=699)).complete
    assert (await cache.members(GUILD, limit=700)).complete
    listed = await cache.members(GUILD, ids=["300", "99", 101, "300"])
    assert [one.display_name for one in listed] == ["Even200", "Odd1"]
    monkeypatch.setattr(search, "SCANNED_MAX", 100)
    assert not (await cache.members(GUILD, query="absent")).complete


async def test_a_member_without_a_cached_user_has_its_own_user_or_only_an_id(filled: Filled) -> None:
    await filled.put({"id": GUILD, "members": [member(ADA, "ada"), member(BOB, "bob")]})
    members = cache_keys.collection_key(NS, GUILD, cache_keys.MEMBERS)
    await filled.client.delete(cache_keys.user_key(NS, ADA))
    await filled.client.hset(members, BOB, b'{"user":{"id":"%b","username":"inline"}}' % BOB.encode())
    await filled.client.delete(cache_keys.user_key(NS, BOB))
    ada, bob = await filled.cache.member(GUILD, ADA), await filled.cache.member(GUILD, BOB)
    assert ada is not None
    assert (ada.user_id, ada.user) == (ADA, None)
    assert bob is not None
    assert bob.display_name == "inline"
    assert await filled.cache.user(ADA) is None


POISON = [b"", b"[]", b"not json", b'{"id":', b"\xff\xfe\x00", b'{"a":' * 20_000, b"12", b'"x"']


@pytest.mark.parametrize("value", POISON, ids=range(len(POISON)))
async def test_a_corrupt_value_is_treated_as_missing_and_logged_once(
    filled: Filled, value: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(corruption, "_reported", set())
    await filled.put(rich_guild())
    await store(filled.client, message_layout(NS, message(0)))
    base = cache_keys.guild_prefix(NS, GUILD)
    for key in [key async for key in filled.client.scan_iter(match=f"{base}*")]:
        if await filled.client.type(key) == b"hash":
            for field in await filled.client.hkeys(key):
                await filled.client.hset(key, field, value)
            await filled.client.hset(key, b"\xff", value)
    for key in (cache_keys.guild_key(NS, GUILD), cache_keys.user_key(NS, ADA)):
        await filled.client.set(key, value)
    await filled.client.hset(cache_keys.locations_key(NS, APP), GUILD, value)
    await filled.client.sadd(cache_keys.mutual_key(NS, ADA), b"\xff", b"", b"-1", b"1" * 30)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            for name, question in QUESTIONS.items():
                if name not in ("mutual", "mutual of app", "guild_apps", "guild_ids", "guild_count", "sizes"):
                    assert await question(filled.cache) in NOTHING, name
            assert await filled.cache.mutual_guilds(ADA) == [GUILD]
    logged = [record.getMessage() for record in caplog.records]
    assert len(logged) == len(set(logged)) == len({text.split()[3] for text in logged})
    assert any(f"{base}channels" in text and "treated as missing" in text for text in logged)


async def test_a_key_of_another_type_is_treated_as_missing_and_logged_once(
    filled: Filled, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(corruption, "_reported", set())
    await filled.put(rich_guild())
    await store(filled.client, message_layout(NS, message(0)))
    for key in [key async for key in filled.client.scan_iter(match="sw:*")]:
        await filled.client.delete(key)
        await filled.client.rpush(key, "x")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            for name, question in QUESTIONS.items():
                answer = await question(filled.cache)
                assert answer in NOTHING or set(answer.values()) == {0}, name
    logged = [record.getMessage() for record in caplog.records]
    assert logged
    assert len(logged) == len(set(logged))


async def test_an_unavailable_guild_is_unchanged_except_for_its_flag(filled: Filled) -> None:
    await filled.put(rich_guild() | {"unavailable": True})
    guild = await filled.cache.guild(GUILD)
    assert guild is not None
    assert (guild.unavailable, guild.name) == (True, "Chess")
    assert await filled.cache.mutual_guilds(OWNER) == [GUILD]


async def test_a_cancelled_request_leaves_no_answer_for_the_next_one(filled: Filled) -> None:
    guilds = [str(number) for number in range(1, 31)]
    for guild in guilds:
        await filled.put({"id": guild, "name": f"name {guild}"})

    async def ask(guild: str, patience_s: float) -> None:
        found = None
        try:
            async with asyncio.timeout(patience_s):
                found = await filled.cache.guild(guild)
        except TimeoutError:
            return
        assert found is not None
        assert (found.id, found.name) == (guild, f"name {guild}")

    for turn in range(20):
        async with asyncio.TaskGroup() as tasks:
            for number, guild in enumerate(guilds):
                tasks.create_task(ask(guild, 0.0002 * (number + turn)))
    for guild in guilds:
        await ask(guild, 5)
