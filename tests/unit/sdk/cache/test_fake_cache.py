"""The fake cache for users' tests; tests/contract/test_cache_reader.py compares its answers with Redis."""

import logging

import pytest

from sandwich_sdk.cache import CacheUnavailable, corruption
from sandwich_sdk.cache.testing import FakeCache
from tests.support.cache_layout import ADA, BOB, CHANNEL, GUILD, MESSAGES, OTHER_GUILD, member, message, rich_guild


async def test_a_guild_is_put_changed_and_removed() -> None:
    cache = FakeCache(namespace="music")
    cache.put_guild(rich_guild(), shard=4)
    assert await cache.mutual_guilds(ADA) == [GUILD]
    assert await cache.where_is_guild(GUILD, "music") == (1, 4)
    cache.put_guild({"id": GUILD, "name": "Go", "members": [member(BOB, "bob")]}, shard=4)
    guild = await cache.guild(GUILD)
    assert guild is not None
    assert (guild.name, await cache.channels(GUILD)) == ("Go", [])
    assert (await cache.mutual_guilds(ADA), await cache.mutual_guilds(BOB)) == ([], [GUILD])
    cache.remove_guild(GUILD)
    assert (await cache.guild(GUILD), await cache.mutual_guilds(BOB), await cache.guild_count("music")) == (None, [], 0)
    cache.remove_guild(GUILD)


async def test_a_guild_of_two_applications_is_deleted_with_the_last() -> None:
    cache = FakeCache(namespace="shared")
    for app in ("music", "other"):
        cache.put_guild(rich_guild(), app=app)
    cache.put_guild(rich_guild(OTHER_GUILD), app="other")
    assert await cache.guild_apps(GUILD) == {"music", "other"}
    cache.remove_guild(int(GUILD), app="music")
    assert await cache.mutual_guilds(ADA) == [GUILD, OTHER_GUILD]
    assert await cache.mutual_guilds(ADA, app="music") == []
    cache.remove_guild(GUILD, app="other")
    assert await cache.mutual_guilds(ADA) == [OTHER_GUILD]


async def test_messages_are_put_in_any_order_and_returned_newest_first() -> None:
    cache = FakeCache()
    cache.put_guild(rich_guild())
    for number in (1, 0, 2):
        cache.put_message(message(number))
    assert [one.id for one in await cache.messages(GUILD, CHANNEL, limit=2)] == [MESSAGES[2], MESSAGES[1]]


async def test_namespaces_are_separate() -> None:
    cache = FakeCache(namespace="one")
    other = cache.in_namespace("two")
    other.put_guild(rich_guild())
    assert await cache.guild(GUILD) is None
    assert await other.guild_apps(GUILD) == {"two"}
    assert await cache.mutual_guilds(ADA, namespaces=["one", "two"]) == [GUILD]


async def test_a_cache_that_is_away_raises_instead_of_returning_nothing() -> None:
    async with FakeCache() as cache:
        cache.is_away = True
        with pytest.raises(CacheUnavailable, match="the server is away"):
            await cache.guild(GUILD)
        cache.is_away = False
        assert (await cache.guild(GUILD), cache.is_away) == (None, False)


def test_a_corrupt_value_is_logged_once_for_each_key_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(corruption, "_reported", set())
    monkeypatch.setattr(corruption, "REPORTED_MAX", 3)
    with caplog.at_level(logging.WARNING):
        for number in (1, 1, 2, 1, 3, 4, 5):
            corruption.report(f"sw:{number}", "a value that is wrong")
    logged = [record.getMessage() for record in caplog.records]
    assert logged[:3] == [f"the cache's key sw:{n}: a value that is wrong; treated as missing" for n in (1, 2, 3)]
    assert logged[3:] == ["the cache has 3 corrupt keys; further ones are not logged"]
