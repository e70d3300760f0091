"""discord.py's cache is compared where it can be right, and a wrong value in ours is found."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from verification.cache_check.compare import Comparison
from verification.cache_check.discordpy_oracle import DiscordPyOracle
from verification.cache_check.reading import Cached

APP, GUILD, SECOND, BOT, ADA, ROLE, CHANNEL, THREAD = "welcomer", "1000", "1001", "9", "5", "4000", "2000", "3000"


def user(key: str) -> dict[str, Any]:
    return {"id": key, "username": f"u{key}", "discriminator": "0", "global_name": None, "avatar": None}


def member(key: str, **more: Any) -> dict[str, Any]:
    return {"user": user(key), "nick": None, "roles": [], "joined_at": "2021-01-01T00:00:00+00:00", "flags": 0, **more}


def channel(**more: Any) -> dict[str, Any]:
    return {"id": CHANNEL, "type": 0, "name": "openings", "position": 1, "permission_overwrites": [], **more}


def thread(**more: Any) -> dict[str, Any]:
    since = "2021-01-01T00:00:00+00:00"
    meta = {"archived": False, "auto_archive_duration": 60, "archive_timestamp": since, "locked": False}
    made = {"id": THREAD, "guild_id": GUILD, "parent_id": CHANNEL, "owner_id": ADA, "type": 11, "name": "sicilian"}
    return {**made, "message_count": 0, "member_count": 1, "thread_metadata": meta, **more}


def guild(**more: Any) -> dict[str, Any]:
    roles = [
        {"id": key, "name": f"role {key}", "permissions": "1024", "position": 0, "color": 0, "colors": {}}
        for key in (GUILD, ROLE)
    ]
    lists = {"roles": roles, "channels": [channel()], "threads": [thread()], "emojis": [], "stickers": []}
    people = {"members": [member(BOT), member(ADA, nick="Ada", roles=[ROLE])], "member_count": 2}
    return {"id": GUILD, "name": "Chess", "owner_id": ADA, "unavailable": False, **lists, **people, **more}


def ready(*guilds: str) -> dict[str, Any]:
    listed = [{"id": key, "unavailable": True} for key in guilds]
    return {"user": user(BOT), "guilds": listed, "shard": [0, 1], "application": {"id": "8", "flags": 0}}


def cache() -> Cached:
    made = guild()
    cached = Cached(guilds={GUILD: made}, apps={GUILD: {APP}})
    for name in ("channels", "threads", "roles"):
        cached.collections[name][GUILD] = {one["id"]: one for one in made[name]}
    cached.collections["members"][GUILD] = {one["user"]["id"]: one for one in made["members"]}
    return cached


def oracle(*events: tuple[str, dict[str, Any]]) -> DiscordPyOracle:
    made = DiscordPyOracle(APP, 1)
    for name, data in (("READY", ready(GUILD)), ("GUILD_CREATE", guild()), *events):
        made.take(name, msgspec.json.encode({"t": name, "s": 1, "op": 0, "d": data}))
    return made


def found(second: DiscordPyOracle, cached: Cached, *, is_shared: bool = False) -> dict[str, int]:
    comparison = Comparison()
    second.compare(comparison, cached, is_shared=is_shared)
    assert comparison.compared
    return {kind: count for kind, count in comparison.different.items() if count}


async def test_equal_caches_have_no_differences() -> None:
    assert found(oracle(), cache()) == {}


def of(name: str) -> Callable[[Cached], dict[str, Any]]:
    return lambda cached: cached.collections[name][GUILD]


@pytest.mark.parametrize("name", ["channels", "threads", "roles", "members"])
async def test_missing_and_extra_values_are_found(name: str) -> None:
    cached = cache()
    objects = of(name)(cached)
    objects["7777"] = next(iter(objects.values()))
    assert found(oracle(), cached) == {f"discord.py {name}": 1}
    objects.clear()
    assert set(found(oracle(), cached)) >= {f"discord.py {name}"}


@pytest.mark.parametrize(
    ("name", "key", "change"),
    [
        ("channels", CHANNEL, {"name": "endgames"}),
        ("channels", CHANNEL, {"position": 3}),
        ("roles", ROLE, {"permissions": "0"}),
        ("members", ADA, {"nick": None}),
        ("members", ADA, {"roles": []}),
    ],
)
async def test_a_changed_field_is_found(name: str, key: str, change: dict[str, Any]) -> None:
    cached = cache()
    of(name)(cached)[key] |= change
    assert found(oracle(), cached) == {f"discord.py {name}": 1}


async def test_another_name_and_another_guild_are_found() -> None:
    cached = cache()
    cached.guilds[GUILD] = cached.guilds[GUILD] | {"name": "Go"}
    cached.guilds[SECOND], cached.apps[SECOND] = {"id": SECOND}, {APP}
    assert found(oracle(), cached) == {"discord.py guilds": 2}


async def test_a_guild_that_ready_does_not_list_is_left_out_until_it_is_sent_again() -> None:
    without = oracle(("READY", ready()))
    comparison = Comparison()
    without.compare(comparison, cache(), is_shared=False)
    assert not comparison.compared
    again = oracle(("READY", ready()), ("GUILD_CREATE", guild(name="Go")))
    assert found(again, cache()) == {"discord.py guilds": 1}


async def test_a_guild_in_an_outage_may_be_missing_but_not_be_wrong() -> None:
    down = oracle(("GUILD_DELETE", {"id": GUILD, "unavailable": True}))
    assert found(down, cache()) == {}
    renamed = cache()
    renamed.guilds[GUILD]["name"] = "Go"
    assert found(down, renamed) == {"discord.py guilds": 1}
    comparison = Comparison()
    down.compare(comparison, Cached(), is_shared=False)
    assert not comparison.compared
    assert found(oracle(), Cached()) == {"discord.py guilds": 1}


async def test_only_objects_deleted_during_an_outage_are_left_out() -> None:
    back = oracle(
        ("GUILD_DELETE", {"id": GUILD, "unavailable": True}),
        ("GUILD_CREATE", guild(threads=[], channels=[], members=[member(BOT)])),
    )
    cached = cache()
    for name in ("channels", "threads"):
        of(name)(cached).clear()
    del of("members")(cached)[ADA]
    assert found(back, cached) == {}
    of("roles")(cached).clear()
    assert found(back, cached) == {"discord.py roles": 2}


async def test_threads_of_a_lost_channel_are_left_out() -> None:
    hidden = channel(name="___hidden___", flags=1 << 17, guild_id=GUILD)
    lost = oracle(("CHANNEL_UPDATE", hidden))
    cached = cache()
    of("channels")(cached)[CHANNEL] = hidden
    of("threads")(cached).clear()
    assert found(lost, cached) == {}


async def test_in_a_shared_namespace_the_cache_may_have_more_but_not_less() -> None:
    cached = cache()
    of("threads")(cached)["3001"] = thread(id="3001")
    assert found(oracle(), cached, is_shared=True) == {}
    of("threads")(cached).clear()
    assert found(oracle(), cached, is_shared=True) == {"discord.py threads": 1}
