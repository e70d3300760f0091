"""Readers read from Redis what the nodes wrote."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_coordinator.intents import ALL, INTENTS
from sandwich_coordinator.types import CacheSpec
from sandwich_node.cache.batch import Batch, EventOps
from sandwich_node.cache.operations import Translator
from sandwich_node.cache.options import RedisOptions
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.cache.settings import CacheWriter
from sandwich_node.dev.embedded import EmbeddedRedis
from sandwich_sdk.cache import Cache, MemberPage
from sandwich_sdk.cache.testing import FakeCache
from tests.contract.test_cache_reader import NOTHING, QUESTIONS
from tests.support.cache_layout import ADA, BOB, CHANNEL, GUILD, OTHER_GUILD, THREAD, VOICE, member, rich_guild, user
from tests.support.starvation import PATIENT_S

pytestmark = pytest.mark.contract
NS, BOT = "shared", "9"


@dataclass
class Node:
    """A shard of an application that writes to the cache."""

    store: RedisCache
    app: str
    shard: int = 7
    bot: str = BOT
    seq: int = 0
    writer: CacheWriter = field(init=False)

    def __post_init__(self) -> None:
        settings = CacheSpec(namespace=NS, presences=True, messages_per_channel=50)
        self.writer = CacheWriter(
            shard=ShardId(self.app, 3, self.shard), fence=Fence(1), bot=self.bot, intents=ALL, settings=settings
        )

    async def receive(self, *events: tuple[str, dict[str, Any]]) -> None:
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
        store = RedisCache(RedisOptions(url=server.url, timeout_s=PATIENT_S), clock=time.monotonic)
        yield Sides(Node(store, "music"), Node(store, "other", shard=1, bot="10"), cache)
        await store.close()


def recent_message(number: int) -> dict[str, Any]:
    """A message recent enough to be cached; its id contains its time."""
    made = int(time.time() * 1000) - 1_420_070_400_000 - 1000 + number
    return {"id": str(made << 22), "channel_id": CHANNEL, "guild_id": GUILD, "content": f"move {number}"}


async def test_every_method_returns_the_same_as_from_a_cache_filled_by_hand(sides: Sides) -> None:
    fake = FakeCache(namespace=NS)
    fake.put_guild(rich_guild(), app="music", group=3, shard=7)
    await sides.node.receive(("GUILD_CREATE", rich_guild()))
    for name, question in QUESTIONS.items():
        if name.startswith("message"):
            continue
        answer, expected = await question(sides.cache), await question(fake)
        if isinstance(answer, MemberPage):
            answer, expected = sorted(answer, key=repr), sorted(expected, key=repr)
        assert answer == expected, name
        assert answer not in NOTHING, name


async def test_messages_are_returned_newest_first_and_not_after_their_deletion(sides: Sides) -> None:
    channel = {"id": CHANNEL, "type": 0}
    first, second, third = (recent_message(number) for number in range(3))
    await sides.node.receive(("GUILD_CREATE", {"id": GUILD, "channels": [channel]}))
    await sides.node.receive(*(("MESSAGE_CREATE", one) for one in (first, second, third)))
    await sides.node.receive(("MESSAGE_DELETE", {name: second[name] for name in ("id", "channel_id", "guild_id")}))
    assert [one.content for one in await sides.cache.messages(GUILD, CHANNEL)] == ["move 2", "move 0"]
    assert [one.content for one in await sides.cache.messages(GUILD, CHANNEL, limit=1)] == ["move 2"]
    assert await sides.cache.message(GUILD, CHANNEL, second["id"]) is None
    kept: object = await sides.cache.message(GUILD, CHANNEL, third["id"])
    assert kept == third


async def test_deleted_objects_are_not_returned(sides: Sides) -> None:
    cache = sides.cache
    await sides.node.receive(("GUILD_CREATE", rich_guild()))
    await sides.node.receive(
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


async def test_an_outage_keeps_a_guild_and_leaving_deletes_it(sides: Sides) -> None:
    cache = sides.cache
    await sides.node.receive(("GUILD_CREATE", rich_guild()))
    await sides.node.receive(("GUILD_DELETE", {"id": GUILD, "unavailable": True}))
    guild = await cache.guild(GUILD)
    assert guild is not None
    assert (guild.unavailable, guild.name, await cache.mutual_guilds(ADA)) == (True, "Chess", [GUILD])
    await sides.node.receive(("GUILD_DELETE", {"id": GUILD}))
    for name, question in QUESTIONS.items():
        assert await question(cache) in NOTHING, name


async def test_a_shared_guild_stays_until_the_last_application_leaves(sides: Sides) -> None:
    cache = sides.cache
    for node in (sides.node, sides.other):
        await node.receive(("GUILD_CREATE", rich_guild()))
    await sides.node.receive(("GUILD_CREATE", rich_guild(OTHER_GUILD)))
    assert await cache.guild_apps(GUILD) == {"music", "other"}
    assert await cache.mutual_guilds(ADA, app="music") == [GUILD, OTHER_GUILD]
    assert await cache.mutual_guilds(ADA, app="other") == [GUILD]
    await sides.node.receive(("GUILD_DELETE", {"id": GUILD}))
    assert await cache.guild_apps(GUILD) == {"other"}
    assert await cache.mutual_guilds(ADA, app="music") == [OTHER_GUILD]
    assert await cache.mutual_guilds(ADA) == [GUILD, OTHER_GUILD]
    assert (await cache.where_is_guild(GUILD, "music"), await cache.where_is_guild(GUILD, "other")) == (None, (3, 1))
    await sides.other.receive(("GUILD_DELETE", {"id": GUILD}))
    assert await cache.guild(GUILD) is None
    assert await cache.mutual_guilds(ADA) == [OTHER_GUILD]


def hidden(channel: str, **more: Any) -> dict[str, Any]:
    """A channel as Discord shows it to a bot that may not view it."""
    return {"id": channel, "guild_id": GUILD, "type": 0, "name": "___hidden___", "flags": 1 << 17, **more}


def shown(channel: str, **more: Any) -> dict[str, Any]:
    return {"id": channel, "guild_id": GUILD, "type": 0, "name": "openings", "flags": 0, **more}


def thread_in(channel: str, **more: Any) -> dict[str, Any]:
    state = {"thread_metadata": {"archived": False}, "message_count": 3, "total_message_sent": 3, "member_count": 1}
    return {"id": THREAD, "guild_id": GUILD, "type": 11, "parent_id": channel, "last_message_id": None, **state, **more}


async def names(cache: Cache) -> set[str]:
    return {channel["name"] for channel in await cache.channels(GUILD) if channel.id == CHANNEL}


async def test_objects_in_a_channel_are_deleted_when_the_bot_may_no_longer_view_it(sides: Sides) -> None:
    message = recent_message(1)
    await sides.node.receive(
        ("GUILD_CREATE", rich_guild()),
        ("CHANNEL_UPDATE", shown(CHANNEL)),
        ("THREAD_CREATE", thread_in(CHANNEL)),
        ("MESSAGE_CREATE", message),
        ("CHANNEL_UPDATE", hidden(CHANNEL)),
    )
    assert await names(sides.cache) == {"___hidden___"}
    assert await sides.cache.thread(GUILD, THREAD) is None
    assert await sides.cache.messages(GUILD, CHANNEL) == []


async def test_a_shared_channel_is_as_discord_sends_it_to_an_application_that_sees_it(sides: Sides) -> None:
    for node in (sides.node, sides.other):
        await node.receive(("GUILD_CREATE", rich_guild() | {"channels": [shown(CHANNEL)], "threads": []}))
    await sides.node.receive(("THREAD_CREATE", thread_in(CHANNEL)), ("MESSAGE_CREATE", recent_message(1)))
    await sides.other.receive(("CHANNEL_UPDATE", hidden(CHANNEL)))
    await sides.other.receive(("GUILD_CREATE", rich_guild() | {"channels": [hidden(CHANNEL)], "threads": []}))
    assert await names(sides.cache) == {"openings"}
    assert await sides.cache.thread(GUILD, THREAD) is not None
    assert len(await sides.cache.messages(GUILD, CHANNEL)) == 1
    await sides.node.receive(("CHANNEL_UPDATE", hidden(CHANNEL)))
    assert await names(sides.cache) == {"___hidden___"}
    assert await sides.cache.thread(GUILD, THREAD) is None
    assert await sides.cache.messages(GUILD, CHANNEL) == []


async def test_objects_that_only_the_leaving_application_saw_are_deleted(sides: Sides) -> None:
    await sides.node.receive(("GUILD_CREATE", rich_guild() | {"channels": [shown(CHANNEL)], "threads": []}))
    await sides.node.receive(("THREAD_CREATE", thread_in(CHANNEL)), ("MESSAGE_CREATE", recent_message(1)))
    await sides.other.receive(("GUILD_CREATE", rich_guild() | {"channels": [hidden(CHANNEL)], "threads": []}))
    await sides.node.receive(("GUILD_DELETE", {"id": GUILD}))
    assert await names(sides.cache) == {"___hidden___"}
    assert await sides.cache.thread(GUILD, THREAD) is None
    assert await sides.cache.messages(GUILD, CHANNEL) == []


async def test_a_slower_stream_does_not_set_the_counts_of_a_thread_back(sides: Sides) -> None:
    for node in (sides.node, sides.other):
        await node.receive(("GUILD_CREATE", rich_guild() | {"channels": [shown(CHANNEL)], "threads": []}))
    posted = recent_message(1) | {"channel_id": THREAD}
    events = [
        ("THREAD_CREATE", thread_in(CHANNEL)),
        ("MESSAGE_CREATE", posted),
        ("MESSAGE_DELETE", {"id": posted["id"], "channel_id": THREAD, "guild_id": GUILD}),
        ("THREAD_MEMBERS_UPDATE", {"id": THREAD, "guild_id": GUILD, "member_count": 2}),
    ]
    await sides.node.receive(*events)
    await sides.other.receive(*events)
    thread = await sides.cache.thread(GUILD, THREAD)
    assert thread is not None
    assert (thread["message_count"], thread["total_message_sent"], thread["member_count"]) == (3, 4, 2)
    # When the first application no longer sees the thread, the other one continues with its own position.
    later = recent_message(2) | {"channel_id": THREAD}
    await sides.node.receive(("MESSAGE_CREATE", later), ("CHANNEL_UPDATE", hidden(CHANNEL)))
    await sides.other.receive(("MESSAGE_CREATE", later))
    thread = await sides.cache.thread(GUILD, THREAD)
    assert thread is not None
    assert (thread["message_count"], thread["total_message_sent"]) == (4, 5)


async def test_the_first_message_of_a_post_is_not_counted(sides: Sides) -> None:
    await sides.node.receive(("GUILD_CREATE", rich_guild()), ("THREAD_CREATE", thread_in(CHANNEL)))
    await sides.node.receive(("MESSAGE_DELETE", {"id": THREAD, "channel_id": THREAD, "guild_id": GUILD}))
    thread = await sides.cache.thread(GUILD, THREAD)
    assert thread is not None
    assert thread["message_count"] == 3


async def test_a_bot_that_has_left_is_not_a_member_even_if_its_slower_stream_says_so(sides: Sides) -> None:
    mine = member(sides.other.bot, "robot")
    for node in (sides.node, sides.other):
        await node.receive(("GUILD_CREATE", rich_guild()))
    await sides.node.receive(("GUILD_MEMBER_REMOVE", {"guild_id": GUILD, "user": mine["user"]}))
    await sides.other.receive(("GUILD_MEMBER_UPDATE", mine | {"guild_id": GUILD}), ("GUILD_DELETE", {"id": GUILD}))
    assert await sides.cache.member(GUILD, sides.other.bot) is None
    assert await sides.cache.mutual_guilds(sides.other.bot) == []


async def test_a_guild_that_is_unavailable_when_the_bot_joins_is_found(sides: Sides) -> None:
    await sides.node.receive(("GUILD_CREATE", {"id": GUILD, "unavailable": True}))
    assert await sides.cache.where_is_guild(GUILD, "music") == (3, 7)


async def test_messages_of_an_uncached_thread_are_deleted_when_a_guild_create_has_no_such_thread(sides: Sides) -> None:
    await sides.node.receive(("GUILD_CREATE", rich_guild() | {"threads": []}))
    await sides.node.receive(("MESSAGE_CREATE", recent_message(1) | {"channel_id": THREAD}))
    await sides.node.receive(("MESSAGE_CREATE", recent_message(2)))
    await sides.node.receive(("GUILD_CREATE", rich_guild() | {"threads": []}))
    assert await sides.cache.messages(GUILD, THREAD) == []
    assert len(await sides.cache.messages(GUILD, CHANNEL)) == 1


async def test_messages_are_deleted_even_if_the_cache_has_no_record_of_who_saw_the_channel(sides: Sides) -> None:
    await sides.node.receive(("GUILD_CREATE", rich_guild() | {"channels": []}), ("MESSAGE_CREATE", recent_message(1)))
    await sides.node.receive(("GUILD_CREATE", rich_guild() | {"channels": [hidden(CHANNEL)]}))
    assert await sides.cache.messages(GUILD, CHANNEL) == []


@pytest.mark.parametrize("is_early", [True, False])
async def test_a_bot_without_cached_members_that_is_added_is_counted_once_in_either_order(
    sides: Sides, is_early: bool
) -> None:
    counting, added = sides.node, sides.other
    added.writer = replace(added.writer, intents=ALL & ~INTENTS["GUILD_MEMBERS"])
    guild = rich_guild()
    await counting.receive(("GUILD_CREATE", guild))
    own = member(added.bot, "robot")
    comes = {**guild, "members": [own], "member_count": guild["member_count"] + 1}
    joins = {**own, "guild_id": GUILD}
    if is_early:
        await added.receive(("GUILD_CREATE", comes))
        await counting.receive(("GUILD_MEMBER_ADD", joins))
    else:
        await counting.receive(("GUILD_MEMBER_ADD", joins))
        await added.receive(("GUILD_CREATE", comes))
    await counting.receive(("GUILD_MEMBER_ADD", joins))
    found = await sides.cache.guild(GUILD)
    assert found is not None
    assert found.member_count == guild["member_count"] + 1


@pytest.mark.parametrize("comes_as", ["GUILD_CREATE", "GUILD_SCHEDULED_EVENT_CREATE"])
async def test_a_slower_stream_does_not_set_the_user_count_of_a_scheduled_event_back(
    sides: Sides, comes_as: str
) -> None:
    counting, slower = sides.node, sides.other
    guild = rich_guild()
    event = guild["guild_scheduled_events"][0]
    for node in (counting, slower):
        await node.receive(("GUILD_CREATE", guild))
    interest = {"guild_id": GUILD, "guild_scheduled_event_id": event["id"], "user_id": ADA}
    await counting.receive(("GUILD_SCHEDULED_EVENT_USER_ADD", interest))
    await slower.receive((comes_as, guild if comes_as == "GUILD_CREATE" else event))
    (found,) = await sides.cache.scheduled_events(GUILD)
    assert found["user_count"] == event["user_count"] + 1
    await counting.receive((comes_as, guild if comes_as == "GUILD_CREATE" else event))
    (found,) = await sides.cache.scheduled_events(GUILD)
    assert found["user_count"] == event["user_count"]


async def test_after_a_loss_an_application_writes_a_guild_only_after_it_received_the_guild_again(sides: Sides) -> None:
    first, slower = sides.node, sides.other
    posted = [recent_message(number) | {"channel_id": THREAD} for number in (1, 2, 3)]
    guild_again = rich_guild() | {
        "channels": [shown(CHANNEL)],
        "threads": [thread_in(CHANNEL, last_message_id=posted[0]["id"], total_message_sent=4, message_count=4)],
    }
    # Redis was emptied. Of the two applications in the guild, the first received it again. The events that the other
    # one receives now are older.
    await first.receive(("GUILD_CREATE", guild_again), ("MESSAGE_CREATE", posted[1]))
    await slower.receive(
        ("THREAD_UPDATE", thread_in(CHANNEL)),
        ("CHANNEL_UPDATE", shown(CHANNEL, name="of yesterday")),
        ("GUILD_MEMBER_REMOVE", {"guild_id": GUILD, "user": user(ADA, "ada")}),
        ("MESSAGE_CREATE", posted[1]),
    )
    assert await names(sides.cache) == {"openings"}
    assert await sides.cache.member(GUILD, ADA) is not None
    await slower.receive(("GUILD_CREATE", guild_again), ("MESSAGE_CREATE", posted[1]))
    await first.receive(("MESSAGE_CREATE", posted[2]))
    thread = await sides.cache.thread(GUILD, THREAD)
    assert thread is not None
    assert (thread["total_message_sent"], thread.last_message_id) == (6, posted[2]["id"])
    assert await sides.cache.guild_apps(GUILD) == {first.app, slower.app}
    assert len(await sides.cache.messages(GUILD, THREAD)) == 2


async def test_a_guild_create_for_a_bot_without_cached_members_does_not_set_members_back(sides: Sides) -> None:
    counting, added = sides.node, sides.other
    added.writer = replace(added.writer, intents=ALL & ~INTENTS["GUILD_MEMBERS"])
    await counting.receive(("GUILD_CREATE", rich_guild() | {"members": [member(ADA, "ada")]}))
    await counting.receive(
        ("GUILD_MEMBER_UPDATE", member(ADA, "ada lovelace") | {"guild_id": GUILD, "nick": "countess"})
    )
    await added.receive(("GUILD_CREATE", rich_guild() | {"members": [member(ADA, "ada"), member(added.bot, "robot")]}))
    found = await sides.cache.member(GUILD, ADA)
    assert found is not None
    assert found.user is not None
    assert (found.nick, found.user.username) == ("countess", "ada lovelace")
    assert await sides.cache.member(GUILD, added.bot) is not None
    assert await sides.cache.mutual_guilds(added.bot) == [GUILD]


@dataclass
class Voiced:
    """Two applications in a guild with a voice channel; `status` is its cached status."""

    sides: Sides
    guild: dict[str, Any] = field(default_factory=lambda: rich_guild() | {"channels": [shown(VOICE, type=2)]})

    async def begin(self, status: str) -> None:
        update = {"id": VOICE, "guild_id": GUILD, "status": status}
        for node in (self.sides.node, self.sides.other):
            await node.receive(("GUILD_CREATE", self.guild))
        for node in (self.sides.node, self.sides.other):
            await node.receive(("VOICE_CHANNEL_STATUS_UPDATE", update))

    async def status(self) -> str | None:
        channel = await self.sides.cache.channel(GUILD, VOICE)
        assert channel is not None
        return channel.raw.get("status")


async def test_a_voice_channels_status_stays_while_one_application_would_receive_its_end(sides: Sides) -> None:
    voiced = Voiced(sides)
    await voiced.begin("blitz")
    await sides.other.receive(("GUILD_CREATE", voiced.guild), ("CHANNEL_CREATE", shown(VOICE, type=2)))
    assert await voiced.status() == "blitz"
    # Now both applications may have missed it.
    await sides.node.receive(("GUILD_CREATE", voiced.guild))
    assert await voiced.status() is None


async def test_an_application_that_does_not_see_a_voice_channel_or_has_left_is_not_authoritative_for_its_status(
    sides: Sides,
) -> None:
    voiced = Voiced(sides)
    await voiced.begin("blitz")
    await sides.other.receive(("CHANNEL_UPDATE", hidden(VOICE)), ("CHANNEL_UPDATE", shown(VOICE, type=2)))
    assert await voiced.status() == "blitz"
    await sides.node.receive(("GUILD_CREATE", voiced.guild))
    assert await voiced.status() is None
    await voiced.begin("rapid")
    await sides.other.receive(("GUILD_DELETE", {"id": GUILD}))
    await sides.node.receive(("GUILD_CREATE", voiced.guild))
    assert await voiced.status() is None


@pytest.mark.parametrize("comes_as", ["GUILD_CREATE", "CHANNEL_CREATE", "CHANNEL_UPDATE"])
async def test_a_slower_stream_does_not_set_a_channels_last_message_back(sides: Sides, comes_as: str) -> None:
    first, latest = recent_message(1), recent_message(2)
    channel = shown(CHANNEL, last_message_id=first["id"])
    guild = rich_guild() | {"channels": [channel]}
    for node in (sides.node, sides.other):
        await node.receive(("GUILD_CREATE", guild))
    await sides.node.receive(("MESSAGE_CREATE", latest))
    await sides.other.receive((comes_as, guild if comes_as == "GUILD_CREATE" else channel))
    found = await sides.cache.channel(GUILD, CHANNEL)
    assert found is not None
    assert found.last_message_id == latest["id"]
