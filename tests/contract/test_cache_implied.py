"""Implied changes, late events and corrupt events: the state of Redis afterwards."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis.asyncio as redis

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_coordinator.intents import ALL
from sandwich_coordinator.types import CacheSpec
from sandwich_node.cache.batch import Batch, EventOps
from sandwich_node.cache.operations import Translator
from sandwich_node.cache.options import RedisOptions
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.cache.settings import CacheWriter
from sandwich_node.dev.embedded import EmbeddedRedis
from sandwich_sdk.wire.cache_keys import collection_key, guild_key, messages_key, mutual_key, user_key
from tests.support.cache_layout import (
    ADA,
    BOB,
    CHANNEL,
    EVENT,
    GUILD,
    OTHER_GUILD,
    STAGE,
    THREAD,
    VOICE,
    member,
    rich_guild,
    user,
)
from tests.support.starvation import PATIENT_S

pytestmark = pytest.mark.contract
NS = "music"
EVERYTHING = CacheSpec(namespace=NS, presences=True, messages_per_channel=50)
NEW_MESSAGE = str((int(time.time() * 1000) - 1_420_070_400_000 - 1000) << 22)


class Shard:
    """A shard that writes, and reads of the result."""

    def __init__(self, url: str, client: redis.Redis) -> None:
        self.store = RedisCache(RedisOptions(url=url, timeout_s=PATIENT_S), clock=time.monotonic)
        self.client = client
        self.seq = 0
        self.keep(EVERYTHING)

    def keep(self, settings: CacheSpec) -> None:
        """Use these settings from now on."""
        self.writer = CacheWriter(shard=ShardId(NS, 3, 7), fence=Fence(1), bot="9", intents=ALL, settings=settings)
        self.translator = Translator(self.writer)

    async def receive(self, event_type: str, data: Any) -> dict[str, Any]:
        """Apply an event; returns the fields that are added to it."""
        self.seq += 1
        ops = self.translator.translate(event_type, msgspec.json.encode(data))
        made = (EventOps(self.seq, ops, 100),)
        applied = await self.store.apply(Batch(writer=self.writer, session="s", confirmed=0, events=made))
        assert (applied.failed, applied.damaged) == (0, 0), applied.failure
        extra = applied.extras.get(self.seq)
        return msgspec.json.decode(b"{%b}" % extra.fields()) if extra else {}

    async def ids(self, collection: str, guild: str = GUILD) -> set[str]:
        """The ids in a collection."""
        held: list[Any] = await self.client.hkeys(collection_key(NS, guild, collection))
        return {key.decode() for key in held}

    async def messages(self, place: str) -> dict[str, Any]:
        """The messages of a channel or thread."""
        held: dict[Any, Any] = await self.client.hgetall(messages_key(NS, GUILD, place))
        return {key.decode(): msgspec.json.decode(value) for key, value in held.items()}

    async def shares(self, user_id: str) -> set[str]:
        """The guilds that a user is in."""
        guilds: set[Any] = await self.client.smembers(mutual_key(NS, user_id))
        return {guild.decode() for guild in guilds}


@pytest.fixture
async def shard(tmp_path: Path) -> AsyncIterator[Shard]:
    async with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        made = Shard(server.url, client)
        yield made
        await made.store.close()


def guild(**more: Any) -> dict[str, Any]:
    """A GUILD_CREATE with objects in the voice channel, and some in other channels."""
    made = rich_guild()
    made["guild_scheduled_events"] = [
        {"id": EVENT, "guild_id": GUILD, "channel_id": VOICE, "status": 1, "description": f'"channel_id":"{CHANNEL}"'},
        {"id": "70", "guild_id": GUILD, "channel_id": None, "status": 2},
    ]
    return made | more


async def test_a_deleted_voice_channel_deletes_its_events_stages_and_voice_states(shard: Shard) -> None:
    await shard.receive("GUILD_CREATE", guild())
    await shard.receive("CHANNEL_DELETE", {"id": CHANNEL, "guild_id": GUILD, "type": 0})
    assert await shard.ids("events") == {EVENT, "70"}, "only what is in the channel, whatever a description says"
    added = await shard.receive("CHANNEL_DELETE", {"id": VOICE, "guild_id": GUILD, "type": 2})
    assert added["before"]["id"] == VOICE
    assert await shard.ids("events") == {"70"}
    assert await shard.ids("stages") == set()
    assert await shard.ids("voice") == set()


async def test_a_deleted_text_channel_deletes_its_threads_and_all_their_messages(shard: Shard) -> None:
    await shard.receive("GUILD_CREATE", guild())
    for place in (CHANNEL, THREAD):
        await shard.receive("MESSAGE_CREATE", message(place))
    await shard.receive("CHANNEL_DELETE", {"id": CHANNEL, "guild_id": GUILD, "type": 0})
    assert await shard.ids("threads") == set()
    assert [await shard.messages(place) for place in (CHANNEL, THREAD)] == [{}, {}]
    assert await shard.ids("channels") == {VOICE}


@pytest.mark.parametrize("kept", ["scheduled_events", "stages", "voice_states"])
async def test_objects_in_a_deleted_channel_are_deleted_even_if_channels_are_not_cached(
    shard: Shard, kept: str
) -> None:
    names = ("channels", "threads", "scheduled_events", "stages", "voice_states")
    shard.keep(CacheSpec(namespace=NS, **{name: name == kept for name in names}))
    await shard.receive("GUILD_CREATE", guild())
    collection = {"scheduled_events": "events", "voice_states": "voice"}.get(kept, kept)
    assert await shard.ids(collection)
    assert not shard.translator.reports_before("CHANNEL_DELETE")
    assert await shard.receive("CHANNEL_DELETE", {"id": VOICE, "guild_id": GUILD, "type": 2}) == {}
    assert await shard.ids(collection) - {"70"} == set()


async def test_messages_are_deleted_with_their_thread_even_if_threads_are_not_cached(shard: Shard) -> None:
    shard.keep(CacheSpec(namespace=NS, channels=False, threads=False, messages_per_channel=50))
    await shard.receive("GUILD_CREATE", guild())
    await shard.receive("MESSAGE_CREATE", message(THREAD))
    assert await shard.messages(THREAD)
    await shard.receive("THREAD_DELETE", {"id": THREAD, "guild_id": GUILD, "parent_id": CHANNEL, "type": 11})
    assert await shard.messages(THREAD) == {}


@pytest.mark.parametrize("members", [True, False])
async def test_a_removed_member_deletes_presence_and_voice_state(shard: Shard, members: bool) -> None:
    shard.keep(CacheSpec(namespace=NS, presences=True, guilds=False, members=members, users=members))
    await shard.receive("GUILD_CREATE", guild())
    assert (await shard.ids("voice"), await shard.ids("presences")) == ({ADA}, {ADA})
    added = await shard.receive("GUILD_MEMBER_REMOVE", {"guild_id": GUILD, "user": user(ADA, "ada")})
    assert ("before" in added) == members == shard.translator.reports_before("GUILD_MEMBER_REMOVE")
    assert (await shard.ids("voice"), await shard.ids("presences")) == (set(), set())


@pytest.mark.parametrize("roles_kept", [True, False])
async def test_members_lose_a_deleted_role_even_in_a_large_guild(shard: Shard, roles_kept: bool) -> None:
    shard.keep(CacheSpec(namespace=NS, roles=roles_kept, users=False))
    people = [member(str(n), "x" * 200, roles=["70", "7", "71"] if n % 2 else ["70"]) for n in range(1, 3001)]
    people[0]["nick"] = '"roles":["7"]'
    await shard.receive("GUILD_CREATE", guild(members=people, roles=[{"id": "7"}, {"id": "70"}, {"id": "71"}]))
    calls = shard.store.counters.calls
    added = await shard.receive("GUILD_ROLE_DELETE", {"guild_id": GUILD, "role_id": "7"})
    assert added == ({"before": {"id": "7"}} if roles_kept else {})
    assert shard.store.counters.calls - calls > 2, "in steps"
    held: dict[Any, Any] = await shard.client.hgetall(collection_key(NS, GUILD, "members"))
    now = {key.decode(): msgspec.json.decode(value) for key, value in held.items()}
    for one in people:
        one["roles"] = [role for role in one["roles"] if role != "7"]
    assert now == {one["user"]["id"]: one for one in people}


async def test_children_of_a_deleted_category_change_only_by_their_own_updates(shard: Shard) -> None:
    """Discord sends a CHANNEL_UPDATE for each child: nothing is implied."""
    child = {"id": CHANNEL, "type": 0, "guild_id": GUILD, "parent_id": "77"}
    await shard.receive("GUILD_CREATE", guild(channels=[{"id": "77", "type": 4}, child], threads=[]))
    await shard.receive("CHANNEL_DELETE", {"id": "77", "guild_id": GUILD, "type": 4})
    assert await shard.ids("channels") == {CHANNEL}
    added = await shard.receive("CHANNEL_UPDATE", child | {"parent_id": None})
    assert added["before"]["parent_id"] == "77"


LATE = {
    "GUILD_MEMBER_UPDATE": member(ADA, "ada", nick="late") | {"guild_id": GUILD},
    "PRESENCE_UPDATE": {"user": {"id": ADA}, "guild_id": GUILD, "status": "online", "activities": []},
    "VOICE_STATE_UPDATE": {"user_id": ADA, "guild_id": GUILD, "channel_id": VOICE, "session_id": "s"},
}


@pytest.mark.parametrize("late", LATE)
async def test_a_late_event_does_not_bring_back_a_member_who_left(shard: Shard, late: str) -> None:
    await shard.receive("GUILD_CREATE", guild())
    await shard.receive("GUILD_MEMBER_REMOVE", {"guild_id": GUILD, "user": user(ADA, "ada")})
    assert await shard.receive(late, LATE[late]) == {"before": None}
    for collection in ("members", "presences", "voice"):
        assert ADA not in await shard.ids(collection)
    assert await shard.shares(ADA) == set()
    assert await shard.client.get(user_key(NS, ADA)) is None


@pytest.mark.parametrize("again", ["GUILD_MEMBER_ADD", "GUILD_MEMBERS_CHUNK", "GUILD_CREATE"])
async def test_a_user_who_joins_again_is_a_normal_member(shard: Shard, again: str) -> None:
    await shard.receive("GUILD_CREATE", guild())
    await shard.receive("GUILD_MEMBER_REMOVE", {"guild_id": GUILD, "user": user(ADA, "ada")})
    back = {
        "GUILD_MEMBER_ADD": member(ADA, "ada") | {"guild_id": GUILD},
        "GUILD_MEMBERS_CHUNK": {"guild_id": GUILD, "members": [member(ADA, "ada")]},
        "GUILD_CREATE": guild(unavailable=False),
    }
    await shard.receive(again, back[again])
    for late, data in LATE.items():
        await shard.receive(late, data)
    for collection in ("members", "presences", "voice"):
        assert ADA in await shard.ids(collection), collection
    assert await shard.shares(ADA) == {GUILD}


async def test_a_user_who_left_one_guild_is_still_a_member_of_another(shard: Shard) -> None:
    await shard.receive("GUILD_CREATE", guild())
    await shard.receive("GUILD_CREATE", {"id": OTHER_GUILD, "members": [member(ADA, "ada")]})
    await shard.receive("GUILD_MEMBER_REMOVE", {"guild_id": GUILD, "user": user(ADA, "ada")})
    await shard.receive("GUILD_MEMBER_UPDATE", member(ADA, "ada", nick="there") | {"guild_id": OTHER_GUILD})
    assert await shard.shares(ADA) == {OTHER_GUILD}
    assert ADA in await shard.ids("members", OTHER_GUILD)


@pytest.mark.parametrize("status", [3, 4])
async def test_a_scheduled_event_that_has_ended_is_deleted_and_not_added_again(shard: Shard, status: int) -> None:
    await shard.receive("GUILD_CREATE", guild())
    ended = {"id": EVENT, "guild_id": GUILD, "channel_id": VOICE, "status": status}
    added = await shard.receive("GUILD_SCHEDULED_EVENT_UPDATE", ended)
    assert added["before"]["status"] == 1
    assert await shard.ids("events") == {"70"}
    await shard.receive("GUILD_SCHEDULED_EVENT_CREATE", ended)
    await shard.receive("GUILD_CREATE", guild(guild_scheduled_events=[ended]))
    assert await shard.ids("events") == set()
    await shard.receive("GUILD_SCHEDULED_EVENT_UPDATE", ended | {"status": 1})
    assert await shard.ids("events") == {EVENT}, "the next one of a series"


def message(place: str, **more: Any) -> dict[str, Any]:
    made = {"id": NEW_MESSAGE, "channel_id": place, "guild_id": GUILD, "content": "e4", "author": user(BOB, "bob")}
    return made | more


async def test_a_whole_message_update_replaces_and_a_partial_one_merges(shard: Shard) -> None:
    await shard.receive("GUILD_CREATE", guild())
    await shard.receive("MESSAGE_CREATE", message(CHANNEL, poll={"question": {}}))
    partial = {"id": NEW_MESSAGE, "channel_id": CHANNEL, "guild_id": GUILD, "embeds": [{"url": "x"}]}
    added = await shard.receive("MESSAGE_UPDATE", partial)
    assert "embeds" not in added["before"]
    kept = message(CHANNEL, poll={"question": {}}, embeds=[{"url": "x"}])
    assert await shard.messages(CHANNEL) == {NEW_MESSAGE: kept}
    assert await shard.receive("MESSAGE_UPDATE", message(CHANNEL, content="e5")) == {"before": kept}
    assert await shard.messages(CHANNEL) == {NEW_MESSAGE: message(CHANNEL, content="e5")}
    unknown = str(int(NEW_MESSAGE) + 1)
    assert await shard.receive("MESSAGE_UPDATE", partial | {"id": unknown}) == {"before": None}
    assert set(await shard.messages(CHANNEL)) == {NEW_MESSAGE}, "half a message is none"


async def test_a_voice_state_without_a_channel_is_not_cached(shard: Shard) -> None:
    states = [{"user_id": ADA, "channel_id": None}, {"user_id": BOB, "channel_id": VOICE}, {"user_id": "5"}]
    await shard.receive("GUILD_CREATE", guild(voice_states=states))
    assert await shard.ids("voice") == {BOB}


async def test_null_lists_of_a_thread_sync_count_as_absent(shard: Shard) -> None:
    await shard.receive("GUILD_CREATE", guild())
    new = {"id": "500", "type": 11, "parent_id": CHANNEL, "guild_id": GUILD}
    await shard.receive("THREAD_LIST_SYNC", {"guild_id": GUILD, "channel_ids": None, "threads": [new], "members": None})
    assert await shard.ids("threads") == {"500"}, "without channels it is about all of them"
    assert shard.translator.lost == ()


LISTS = {
    "roles": "roles",
    "emojis": "emojis",
    "stickers": "stickers",
    "channels": "channels",
    "threads": "threads",
    "members": "members",
    "presences": "presences",
    "voice_states": "voice",
    "stage_instances": "stages",
    "guild_scheduled_events": "events",
    "soundboard_sounds": "sounds",
}
DAMAGED: tuple[Any, ...] = (
    None,
    7,
    "x",
    [],
    {},
    {"id": None},
    {"user": None},
    {"user": {"id": "x"}},
    {"user_id": 7, "channel_id": "1"},
)


@pytest.mark.parametrize("damaged", LISTS)
async def test_corrupt_parts_of_a_guild_do_not_affect_the_rest(shard: Shard, damaged: str) -> None:
    whole = guild()
    await shard.receive("GUILD_CREATE", whole)
    there = {name: await shard.ids(collection) for name, collection in LISTS.items()}
    assert all(there.values())
    broken: object
    for broken in (None, 7, "x", {}):
        await shard.receive("GUILD_CREATE", whole | {damaged: broken})
        assert shard.translator.lost == (damaged,)
        assert {name: await shard.ids(collection) for name, collection in LISTS.items()} == there
    await shard.receive("GUILD_DELETE", {"id": GUILD})
    await shard.receive("GUILD_CREATE", whole | {damaged: [*DAMAGED, *whole[damaged], *DAMAGED]})
    assert shard.translator.lost == (damaged,) * 2 * len(DAMAGED)
    assert {name: await shard.ids(collection) for name, collection in LISTS.items()} == there
    assert await shard.client.exists(guild_key(NS, GUILD))


SIBLINGS = {
    "GUILD_UPDATE": ({"id": GUILD, "name": "x", "roles": [None, {"id": "1"}], "emojis": None}, "roles", {"1"}),
    "GUILD_EMOJIS_UPDATE": ({"guild_id": GUILD, "emojis": [7, {"id": "1"}]}, "emojis", {"1"}),
    "GUILD_STICKERS_UPDATE": ({"guild_id": GUILD, "stickers": [{"id": 1}, {"id": "1"}]}, "stickers", {"1"}),
    "SOUNDBOARD_SOUNDS": ({"guild_id": GUILD, "soundboard_sounds": [{}, {"sound_id": "1"}]}, "sounds", {"1"}),
    "GUILD_MEMBERS_CHUNK": (
        {"guild_id": GUILD, "members": [None, member("1", "x"), {"user": 7}], "presences": None},
        "members",
        {"1"},
    ),
    "THREAD_LIST_SYNC": (
        {"guild_id": GUILD, "threads": [None, {"id": "1", "parent_id": CHANNEL}], "members": [7]},
        "threads",
        {"1"},
    ),
    "THREAD_MEMBERS_UPDATE": ({"id": THREAD, "guild_id": GUILD, "added_members": [7, None]}, "threads", {THREAD}),
    "CHANNEL_INFO": ({"guild_id": GUILD, "channels": [None, {"id": VOICE, "status": "s"}]}, "channels", {VOICE}),
}


@pytest.mark.parametrize("event_type", SIBLINGS)
async def test_corrupt_entries_of_other_lists_do_not_affect_the_rest(shard: Shard, event_type: str) -> None:
    data, collection, wanted = SIBLINGS[event_type]
    await shard.receive("GUILD_CREATE", guild())
    await shard.receive(event_type, data)
    assert shard.translator.lost
    assert wanted <= await shard.ids(collection)
    assert not await shard.ids(collection) & {"None", "null", "7"}


async def test_a_corrupt_member_in_a_message_does_not_affect_the_message(shard: Shard) -> None:
    shard.writer = replace(shard.writer, intents=0)
    shard.translator = Translator(shard.writer)
    await shard.receive("GUILD_CREATE", guild())
    await shard.receive("MESSAGE_CREATE", message(CHANNEL, member=7))
    assert shard.translator.lost == ("member",)
    assert set(await shard.messages(CHANNEL)) == {NEW_MESSAGE}
    assert STAGE in await shard.ids("stages")
