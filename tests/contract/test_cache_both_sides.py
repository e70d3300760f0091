"""What the nodes write into Redis is what readers read there."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandwich_coordinator.intents import ALL
from sandwich_coordinator.types import CacheSpec
from sandwich_node.cache.batch import Batch, EventOps
from sandwich_node.cache.operations import Translator
from sandwich_node.cache.options import RedisOptions
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.cache.settings import Writer
from sandwich_node.dev.embedded import EmbeddedRedis
from sandwich_sdk.cache import Cache, MemberPage
from sandwich_sdk.cache.testing import FakeCache
from tests.contract.test_cache_reader import NOTHING, QUESTIONS
from tests.support.cache_layout import ADA, BOB, CHANNEL, GUILD, OTHER_GUILD, THREAD, VOICE, member, rich_guild, user

pytestmark = pytest.mark.contract
NS, BOT = "shared", "9"


@dataclass
class Node:
    """A shard of an application that writes to the cache."""

    store: RedisCache
    app: str
    shard: int = 7
    seq: int = 0
    writer: Writer = field(init=False)

    def __post_init__(self) -> None:
        settings = CacheSpec(namespace=NS, presences=True, messages_per_channel=50)
        self.writer = Writer(app=self.app, group=3, shard=self.shard, fence=1, bot=BOT, intents=ALL, settings=settings)

    async def tell(self, *events: tuple[str, dict[str, Any]]) -> None:
        translator = Translator(self.writer)
        made = []
        for name, data in events:
            self.seq += 1
            ops = translator.translate(name, msgspec.json.encode(data))
            assert ops, name
            made.append(EventOps(self.seq, ops, 100))
        applied = await self.store.apply(Batch(writer=self.writer, session="session", confirmed=0, events=tuple(made)))
        assert (applied.failed, applied.damaged, applied.newer) == (0, 0, 0), applied.failure


@dataclass
class Sides:
    node: Node
    other: Node
    cache: Cache


@pytest.fixture
async def sides(tmp_path: Path) -> AsyncIterator[Sides]:
    async with EmbeddedRedis(tmp_path) as server, Cache(server.url, namespace=NS) as cache:
        store = RedisCache(RedisOptions(url=server.url), clock=time.monotonic)
        yield Sides(Node(store, "music"), Node(store, "other", shard=1), cache)
        await store.close()


def recent_message(number: int) -> dict[str, Any]:
    """One that is young enough to be kept; its id says when it was written."""
    made = int(time.time() * 1000) - 1_420_070_400_000 - 1000 + number
    return {"id": str(made << 22), "channel_id": CHANNEL, "guild_id": GUILD, "content": f"move {number}"}


async def test_every_question_is_answered_as_after_filling_the_cache_by_hand(sides: Sides) -> None:
    fake = FakeCache(namespace=NS)
    fake.put_guild(rich_guild(), app="music", group=3, shard=7)
    await sides.node.tell(("GUILD_CREATE", rich_guild()))
    for name, question in QUESTIONS.items():
        if name.startswith("message"):
            continue
        answer, expected = await question(sides.cache), await question(fake)
        if isinstance(answer, MemberPage):
            answer, expected = sorted(answer, key=repr), sorted(expected, key=repr)
        assert answer == expected, name
        assert answer not in NOTHING, name


async def test_messages_come_newest_first_and_go_when_deleted(sides: Sides) -> None:
    channel = {"id": CHANNEL, "type": 0}
    first, second, third = (recent_message(number) for number in range(3))
    await sides.node.tell(("GUILD_CREATE", {"id": GUILD, "channels": [channel]}))
    await sides.node.tell(*(("MESSAGE_CREATE", one) for one in (first, second, third)))
    await sides.node.tell(("MESSAGE_DELETE", {name: second[name] for name in ("id", "channel_id", "guild_id")}))
    assert [one.content for one in await sides.cache.messages(GUILD, CHANNEL)] == ["move 2", "move 0"]
    assert [one.content for one in await sides.cache.messages(GUILD, CHANNEL, limit=1)] == ["move 2"]
    assert await sides.cache.message(GUILD, CHANNEL, second["id"]) is None
    assert await sides.cache.message(GUILD, CHANNEL, third["id"]) == third


async def test_what_was_deleted_is_not_told(sides: Sides) -> None:
    cache = sides.cache
    await sides.node.tell(("GUILD_CREATE", rich_guild()))
    await sides.node.tell(
        ("GUILD_MEMBER_REMOVE", {"guild_id": GUILD, "user": user(ADA, "ada")}),
        ("CHANNEL_DELETE", {"id": CHANNEL, "guild_id": GUILD, "type": 0}),
        ("GUILD_MEMBER_ADD", member("77", "new") | {"guild_id": GUILD}),
        ("VOICE_STATE_UPDATE", {"guild_id": GUILD, "user_id": BOB, "channel_id": VOICE, "session_id": "s"}),
    )
    assert await cache.mutual_guilds(ADA) == []
    assert (await cache.member(GUILD, ADA), await cache.user(ADA), await cache.voice_state(GUILD, ADA)) == (None,) * 3
    assert (await cache.channel(GUILD, CHANNEL), await cache.thread(GUILD, THREAD)) == (None, None)
    assert await cache.permissions(GUILD, BOB, THREAD) is None
    assert await cache.mutual_guilds("77") == [GUILD]
    found = await cache.member(GUILD, "77")
    assert found is not None
    assert found.display_name == "New"
    assert [state.user_id for state in await cache.voice_states(GUILD)] == [BOB]


async def test_an_outage_keeps_a_guild_and_leaving_takes_it_away(sides: Sides) -> None:
    cache = sides.cache
    await sides.node.tell(("GUILD_CREATE", rich_guild()))
    await sides.node.tell(("GUILD_DELETE", {"id": GUILD, "unavailable": True}))
    guild = await cache.guild(GUILD)
    assert guild is not None
    assert (guild.unavailable, guild.name, await cache.mutual_guilds(ADA)) == (True, "Chess", [GUILD])
    await sides.node.tell(("GUILD_DELETE", {"id": GUILD}))
    for name, question in QUESTIONS.items():
        assert await question(cache) in NOTHING, name


async def test_a_shared_guild_stays_until_the_last_application_leaves(sides: Sides) -> None:
    cache = sides.cache
    for node in (sides.node, sides.other):
        await node.tell(("GUILD_CREATE", rich_guild()))
    await sides.node.tell(("GUILD_CREATE", rich_guild(OTHER_GUILD)))
    assert await cache.guild_apps(GUILD) == {"music", "other"}
    assert await cache.mutual_guilds(ADA, app="music") == [GUILD, OTHER_GUILD]
    assert await cache.mutual_guilds(ADA, app="other") == [GUILD]
    await sides.node.tell(("GUILD_DELETE", {"id": GUILD}))
    assert await cache.guild_apps(GUILD) == {"other"}
    assert await cache.mutual_guilds(ADA, app="music") == [OTHER_GUILD]
    assert await cache.mutual_guilds(ADA) == [GUILD, OTHER_GUILD]
    assert (await cache.where_is_guild(GUILD, "music"), await cache.where_is_guild(GUILD, "other")) == (None, (3, 1))
    await sides.other.tell(("GUILD_DELETE", {"id": GUILD}))
    assert await cache.guild(GUILD) is None
    assert await cache.mutual_guilds(ADA) == [OTHER_GUILD]
