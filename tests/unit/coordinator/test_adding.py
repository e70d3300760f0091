"""A new application, and a new token of one: tested against Discord, sealed, refused with the reason."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from aiohttp import web

from sandwich_coordinator.config import AppConfig, ClusterSettings, DiscordSettings, NatsSettings, RedisSettings
from sandwich_coordinator.ids import LeaderTerm
from sandwich_coordinator.operations.applications import AddedApp, AppPlan, NewToken, add_app, change_app, read_app
from sandwich_coordinator.operations.errors import Conflict, Invalid, OperationError, Refused, Unavailable
from sandwich_coordinator.sealing import ClusterKey, SealingError, token_hash
from sandwich_coordinator.store.base import Delete, Put
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.trust import proof_of
from sandwich_coordinator.types import AppRecord, BudgetRecord, GroupRecord, RemovalRecord
from sandwich_simulator.rest import png
from tests.support.interfering_store import InterferingStore

KEYS = Keys()
KEY = ClusterKey.generate()
TOKEN = "MTAwMDAwMDAwMDAx.GaaaaX.canary-of-the-new-bot-0123456789"
GUILD_MEMBERS = 1 << 15


@dataclass
class Discord:
    """Answers for one bot."""

    url: str = ""
    status: int = 200
    flags: int = 0
    shards: int = 2
    guilds: int = 900
    bot: str = "7"
    seen: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        if request.path.startswith("/avatars/"):
            return web.Response(body=png(b"\x30\x60\x90"), content_type="image/png")
        self.seen.append(request.headers["Authorization"])
        if self.status != 200:
            return web.json_response({"message": "no", "retry_after": 3}, status=self.status)
        limit = {"total": 1000, "remaining": 998, "reset_after": 60_000, "max_concurrency": 1}
        bodies: dict[str, dict[str, Any]] = {
            "bot": {"url": "wss://g", "shards": self.shards, "session_start_limit": limit},
            "users": {"id": self.bot, "username": "greeter", "avatar": "0" * 32},
            "applications": {"id": self.bot, "flags": self.flags, "approximate_guild_count": self.guilds},
        }
        path = request.path
        return web.json_response(bodies["bot" if path.endswith("bot") else path.split("/")[-2]])


@asynccontextmanager
async def discord_api() -> AsyncIterator[Discord]:
    found = Discord()
    app = web.Application()
    app.router.add_get("/{path:.*}", found.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/v10"
        yield found
    finally:
        await runner.cleanup()


@pytest.fixture
async def discord() -> AsyncIterator[Discord]:
    async with discord_api() as found:
        yield found


async def configured(url: str) -> InterferingStore:
    store = InterferingStore()
    settings = ClusterSettings(
        nats=NatsSettings(servers=["nats://h"]), redis=RedisSettings(url="r"), discord=DiscordSettings(api_url=url)
    )
    settings = msgspec.structs.replace(settings, proof=proof_of(settings, KEYS.cluster, KEY))
    await store.txn([], [Put(KEYS.config, settings.encode())])
    return store


def config(**values: Any) -> AppConfig:
    return AppConfig.model_validate({"token": {"env": "T"}, "intents": ["GUILDS"], **values})


async def add(store: InterferingStore, name: str = "bot", *, new: NewToken | None = None, **values: Any) -> AddedApp:
    return await add_app(store, KEYS, name, config(**values), new or NewToken(TOKEN, KEY))


async def test_a_new_application_is_stored_sealed_with_what_discord_says(discord: Discord) -> None:
    store = await configured(discord.url)
    added = await add(store, shards={"count": 2})
    assert added.bot is not None
    assert (added.bot.id, added.bot.name, added.bot.limits.guilds, added.bot.limits.remaining) == (
        "7",
        "greeter",
        900,
        998,
    )
    record = await read_app(store, KEYS, "bot")
    assert record == added.record
    assert KEY.unseal("bot", record.token) == TOKEN
    assert record.token_hash == token_hash(TOKEN)
    assert TOKEN not in record.encode().decode()
    assert TOKEN not in repr(NewToken(TOKEN, KEY))
    assert discord.seen == [f"Bot {TOKEN}"] * 3


async def test_a_dry_run_and_no_test_ask_and_write_no_more_than_they_say(discord: Discord) -> None:
    store = await configured(discord.url)
    await add_app(store, KEYS, "bot", config(), NewToken(TOKEN, KEY), dry_run=True)
    assert (await store.list(KEYS.apps)).items == ()
    discord.seen.clear()
    added = await add(store, new=NewToken(TOKEN, KEY, test=False), intents=["GUILDS", "GUILD_MEMBERS"])
    assert (added.bot, discord.seen) == (None, [])
    assert [warning.text for warning in added.warnings] == ["enable GUILD_MEMBERS in Discord's developer portal"]


@pytest.mark.parametrize(
    ("changes", "values", "kind", "words"),
    [
        (
            {"status": 401},
            {},
            Refused,
            "refused the token (401): it is wrong or was reset; nothing was written",
        ),
        ({"status": 429}, {}, Unavailable, "rate limited by Discord for 3 s; --no-check stores it untested"),
        ({"status": 500}, {}, Unavailable, "Discord answered 500"),
        ({}, {"intents": ["GUILD_MEMBERS"]}, Invalid, "apps.bot.intents: GUILD_MEMBERS is not enabled for greeter"),
        ({"guilds": 9000}, {"shards": {"count": 3}}, Invalid, "apps.bot.shards.count: the bot is in 9000 guilds"),
        ({}, {"shards": {"ids": "0-2"}}, Invalid, "apps.bot.shards.ids: bad shard range '0-2': with 2 shards"),
        ({}, {"events": {"ignore": ["CHANNEL_UPDATE"]}}, Invalid, "what is cached of channels becomes wrong"),
    ],
)
async def test_what_would_not_work_is_refused_before_anything_is_stored(
    discord: Discord, changes: dict[str, Any], values: dict[str, Any], kind: type[OperationError], words: str
) -> None:
    store = await configured(discord.url)
    vars(discord).update(changes)
    with pytest.raises(kind) as caught:
        await add(store, **values)
    assert words in str(caught.value)
    assert TOKEN not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert (await store.list(KEYS.apps)).items == ()


async def test_an_intent_that_is_enabled_needs_no_words(discord: Discord) -> None:
    discord.flags = GUILD_MEMBERS
    added = await add(await configured(discord.url), intents=["GUILDS", "GUILD_MEMBERS"])
    assert added.warnings == ()


@pytest.mark.parametrize(("name", "words"), [("Bot", "must be 1 to 32 characters"), ("b/c", "must be 1 to 32")])
async def test_a_name_that_cannot_be_one_is_refused(name: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        await add(await configured("http://127.0.0.1:9"), name)


async def test_a_name_that_is_taken_or_being_removed_is_refused_and_a_shared_token_is_a_warning(
    discord: Discord,
) -> None:
    store = await configured(discord.url)
    await add(store)
    with pytest.raises(Refused, match="there is an application bot already: sandwich app set bot changes it"):
        await add(store)
    twin = await add(store, "twin")
    ((path, text),) = [(warning.path, warning.text) for warning in twin.warnings]
    assert (path, "is also the token of 'bot'" in text) == ("token", True)
    await store.txn([], [Delete(KEYS.app("bot")), Put(KEYS.removal("bot"), RemovalRecord(at=1.0).encode())])
    with pytest.raises(Refused, match="bot is being removed: sandwich app remove bot finishes that"):
        await add(store)


async def test_of_two_operators_who_add_one_name_the_second_is_refused(discord: Discord) -> None:
    store = await configured(discord.url)
    store.other = Put(KEYS.app("bot"), b"{}")
    with pytest.raises(Conflict):
        await add(store)


async def test_another_key_than_the_clusters_and_changed_addresses_get_no_token(discord: Discord) -> None:
    store = await configured(discord.url)
    for key in (ClusterKey.generate(), None):
        with pytest.raises(SealingError, match="sealed with cluster key"):
            await add(store, new=NewToken(TOKEN, key))
    item = await store.get(KEYS.config)
    assert item is not None
    value = json.loads(item.value)
    value["discord"]["api_url"] = "http://127.0.0.1:9/api"
    await store.txn([], [Put(KEYS.config, json.dumps(value).encode())])
    with pytest.raises(SealingError, match="were changed by something that has no cluster key"):
        await add(store)
    await store.txn([], [Delete(KEYS.config)])
    with pytest.raises(Refused, match="the cluster is not configured"):
        await add(store)
    assert discord.seen == []


async def with_budget(store: InterferingStore, **values: Any) -> AppRecord:
    """An application with an older token, whose bot the leader knows."""
    record = AppRecord(app="bot", token=KEY.seal("bot", "old"), token_hash=token_hash("old"), intents=1)
    budget = BudgetRecord(
        url="u", shards=2, total=9, remaining=9, reset_at=0.0, max_concurrency=1, fetched_at=0.0, **values
    )
    await store.txn([], [Put(KEYS.app("bot"), record.encode()), Put(KEYS.budget(record.token_hash), budget.encode())])
    return record


async def set_token(store: InterferingStore) -> AppPlan:
    return await change_app(store, KEYS, "bot", {}, new=NewToken(TOKEN, KEY))


async def test_a_new_token_of_the_same_bot_is_sealed_and_its_value_is_in_no_change(discord: Discord) -> None:
    store = await configured(discord.url)
    await with_budget(store, bot_id="7", bot_name="greeter")
    plan = await set_token(store)
    assert [(change.path, change.before, change.after) for change in plan.changes] == [("token", None, None)]
    record = await read_app(store, KEYS, "bot")
    assert (KEY.unseal("bot", record.token), record.token_hash) == (TOKEN, token_hash(TOKEN))
    assert (await set_token(store)).changes == ()


async def test_the_token_of_another_bot_is_refused(discord: Discord) -> None:
    store = await configured(discord.url)
    await with_budget(store, bot_id="8", bot_name="other")
    with pytest.raises(Refused, match=r"the token of greeter \(7\), and bot is other \(8\): another bot"):
        await set_token(store)
    discord.status = 401
    with pytest.raises(Refused, match="Discord refused the token"):
        await set_token(store)
    assert (await read_app(store, KEYS, "bot")).token_hash == token_hash("old")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"count": 10}, "apps.bot.shards: 10 shards need as many session starts, and Discord allows this bot 9 a day"),
        ({"ids": "3-4"}, "apps.bot.shards.ids: bad shard range '3-4': with 4 shards the last id is 3"),
        ({"count": 0}, "apps.bot.shards.count: must be auto, or a number from 1 to 65536"),
        ({"count": 4, "ids": "2-4"}, "apps.bot.shards.ids: bad shard range '2-4': with 4 shards the last id is 3"),
    ],
)
async def test_shards_that_cannot_run_are_refused_by_what_the_cluster_knows(value: dict[str, Any], words: str) -> None:
    store = await configured("http://127.0.0.1:9")
    await with_budget(store)
    group = GroupRecord(app="bot", group=0, count=4, ids="0-3", term=LeaderTerm(1))
    await store.txn([], [Put(KEYS.group("bot", 0), group.encode())])
    with pytest.raises(Invalid) as caught:
        await change_app(store, KEYS, "bot", {("shards",): value})
    assert words in str(caught.value)
