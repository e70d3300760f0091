"""What a bot receives of hidden channels, and when visibility changes; what bots of one world receive."""

import random
from typing import Any

import pytest

from sandwich_simulator import BotConfig
from sandwich_simulator.action_context import ActionContext
from sandwich_simulator.actions import guilds, talk, threads, voice
from sandwich_simulator.config import ConfigError
from sandwich_simulator.entities import CATEGORY, FORUM, PRIVATE_THREAD, TEXT, VOICE, Json
from sandwich_simulator.events import Event
from sandwich_simulator.gateway import Bot
from sandwich_simulator.guild_state import GuildState
from sandwich_simulator.intents import ALL_INTENTS, GUILD_MEMBERS
from sandwich_simulator.visibility import HIDDEN_NAME, OBFUSCATED, VIEW_CHANNEL, redacted

from .fake_gateway import Fake, names, taken
from .gateway_client import identify_payload

TOKEN = "a-token"
CLOSED = {"type": 0, "allow": "0", "deny": str(VIEW_CHANNEL)}


class Watched(Fake):
    """A fake gateway with one bot in one guild; no channel is hidden."""

    def __init__(self, intents: int = ALL_INTENTS, **fields: Any) -> None:
        known: dict[str, Any] = {"guilds": 1, "hidden_channels": 0.0, "token": TOKEN}
        super().__init__(BotConfig(**(known | fields)))
        self.connection = self.live(intents=intents)
        taken(self.connection)

    @property
    def guild(self) -> GuildState:
        return guild_of(self.bot)

    def publish(self, *events: Event) -> list[Json]:
        """Publishes events and returns what the bot receives."""
        for event in events:
            self.gateway.publish(self.bot, event, self.now)
        return taken(self.connection)

    def action(self) -> ActionContext:
        return ActionContext(self.bot.world, self.guild, random.Random(1), self.now.wall_ms)

    def close(self, channel_id: str, *, to: bool = True) -> list[Json]:
        """Hides a channel from @everyone, or shows it."""
        channel = self.guild.channels[channel_id]
        channel["permission_overwrites"] = [CLOSED | {"id": self.guild.id}] if to else []
        return self.publish(self.event("CHANNEL_UPDATE", {**channel, "guild_id": self.guild.id}))

    def event(self, name: str, data: Json) -> Event:
        return Event(name, data, int(self.guild.id))


def guild_of(bot: Bot) -> GuildState:
    return bot.world.guild(next(iter(bot.world.guild_ids)))


def test_a_redacted_channel_keeps_only_its_position_and_parent() -> None:
    fake = Watched()
    channel = fake.guild.channels[fake.guild.channels_of(TEXT)[0]]
    channel["last_pin_timestamp"] = "t"
    shown = redacted(channel, fake.guild.id)
    assert {key: shown[key] for key in ("id", "type", "position", "parent_id")} == {
        key: channel[key] for key in ("id", "type", "position", "parent_id")
    }
    assert (shown["name"], shown["flags"], shown["topic"]) == (HIDDEN_NAME, OBFUSCATED, None)
    assert shown["permission_overwrites"] == [{"id": fake.guild.id, **CLOSED}]
    assert "last_pin_timestamp" not in shown


def test_a_lost_channel_is_sent_redacted_and_then_sends_nothing() -> None:
    fake = Watched()
    channel = fake.guild.channels_of(TEXT)[0]
    (update,) = fake.close(channel)
    assert (update["t"], update["d"]["name"], update["d"]["guild_id"]) == ("CHANNEL_UPDATE", HIDDEN_NAME, fake.guild.id)
    said = talk.message_of(fake.action(), channel, fake.action().someone(), "secret")
    typing = {"channel_id": channel, "guild_id": fake.guild.id}
    assert fake.publish(fake.event("MESSAGE_CREATE", said), fake.event("TYPING_START", typing)) == []
    thread = next(iter(fake.guild.threads.values()))
    thread["parent_id"] = channel
    assert fake.publish(fake.event("THREAD_UPDATE", thread)) == []
    state = {"user_id": "1", "channel_id": channel, "guild_id": fake.guild.id}
    assert names(fake.publish(fake.event("VOICE_STATE_UPDATE", state))) == ["VOICE_STATE_UPDATE"]


def test_a_gained_channel_is_sent_whole_with_its_category_and_threads() -> None:
    fake = Watched()
    (category,) = fake.guild.channels_of(CATEGORY)
    for channel in (category, *(key for key in fake.guild.channels if key != category)):
        fake.close(channel)
    assert set(fake.guild.channels) == fake.guild.views[fake.bot.id].hidden
    parent = fake.guild.channels_of(TEXT)[1]
    thread = next(iter(fake.guild.threads.values()))
    thread["parent_id"] = parent
    received = fake.close(parent, to=False)
    assert [(item["t"], item["d"].get("id")) for item in received] == [
        ("CHANNEL_UPDATE", parent),
        ("CHANNEL_UPDATE", category),
        ("THREAD_LIST_SYNC", None),
    ]
    assert HIDDEN_NAME not in (received[0]["d"]["name"], received[1]["d"]["name"])
    assert received[2]["d"]["channel_ids"] == [parent]
    assert [listed["id"] for listed in received[2]["d"]["threads"]] == [thread["id"]]


def lose_by_role(fake: Watched) -> list[Json]:
    """Hides a channel from all but one role of the bot, then deletes the role."""
    guild, me = fake.guild, fake.bot.id
    channel = guild.channels[guild.channels_of(TEXT)[0]]
    role = next(key for key, role in guild.roles.items() if not role["managed"] and key != guild.id)
    guild.members[me]["roles"] = [*guild.members[me]["roles"], role]
    allowed = {"id": role, "type": 0, "allow": str(VIEW_CHANNEL), "deny": "0"}
    channel["permission_overwrites"] = [CLOSED | {"id": guild.id}, allowed]
    assert names(fake.publish(fake.event("CHANNEL_UPDATE", {**channel, "guild_id": guild.id}))) == ["CHANNEL_UPDATE"]
    del guild.roles[role]
    guild.members[me]["roles"].remove(role)
    return fake.publish(fake.event("GUILD_ROLE_DELETE", {"role_id": role, "guild_id": guild.id}))


def test_a_channel_lost_by_a_deleted_role_is_sent_redacted() -> None:
    received = lose_by_role(Watched())
    assert names(received) == ["GUILD_ROLE_DELETE", "CHANNEL_UPDATE"]
    assert received[1]["d"]["name"] == HIDDEN_NAME


def test_a_silently_lost_channel_is_unchanged_until_its_next_change() -> None:
    fake = Watched(redacts_lost_access=False)
    assert names(lose_by_role(fake)) == ["GUILD_ROLE_DELETE"]
    held = fake.guild.views[fake.bot.id]
    (channel,) = held.stale
    (update,) = fake.publish(fake.event("CHANNEL_UPDATE", {**fake.guild.channels[channel], "guild_id": fake.guild.id}))
    assert update["d"]["name"] == HIDDEN_NAME
    assert (held.stale, held.uncertain) == (set(), {channel})
    other = fake.guild.channels_of(TEXT)[1]
    assert fake.close(other) == []


def test_a_new_hidden_channel_is_sent_once_and_a_deleted_one_redacted() -> None:
    fake = Watched()
    made = {**fake.guild.channels[fake.guild.channels_of(FORUM)[0]], "id": "123", "parent_id": None}
    made["permission_overwrites"] = [CLOSED | {"id": fake.guild.id}]
    fake.guild.channels["123"] = made
    (created,) = fake.publish(fake.event("CHANNEL_CREATE", {**made, "guild_id": fake.guild.id}))
    assert created["d"]["name"] == HIDDEN_NAME
    blind = fake.guild.unseen_by("123")
    del fake.guild.channels["123"]
    (deleted,) = fake.publish(Event("CHANNEL_DELETE", {**made, "guild_id": "1"}, int(fake.guild.id), unseen_by=blind))
    assert deleted["d"]["name"] == HIDDEN_NAME


def test_a_bot_removed_from_a_private_thread_receives_the_removal_and_nothing_after_it() -> None:
    fake = Watched()
    guild, me = fake.guild, fake.bot.id
    thread = next(iter(guild.threads.values()))
    thread["type"] = PRIVATE_THREAD
    assert fake.publish(fake.event("THREAD_UPDATE", thread)) == []
    received = fake.publish(*threads._bot_added(fake.action(), thread["id"], me))
    assert names(received) == ["THREAD_CREATE", "THREAD_MEMBERS_UPDATE"]
    assert received[0]["d"]["member"]["flags"] == 1
    assert names(fake.publish(fake.event("THREAD_UPDATE", thread))) == ["THREAD_UPDATE"]
    action = fake.action()
    events = next(
        made
        for _ in range(200)
        if (made := list(threads.membership(action))) and me in made[0].data.get("removed_member_ids", ())
    )
    assert names(fake.publish(*events)) == ["THREAD_MEMBERS_UPDATE"]
    assert fake.publish(fake.event("THREAD_UPDATE", thread)) == []


def test_without_guild_members_a_bot_receives_only_its_own_thread_membership() -> None:
    fake = Watched(intents=ALL_INTENTS & ~GUILD_MEMBERS)
    thread, me = next(iter(fake.guild.threads)), fake.bot.id
    data = {"id": thread, "guild_id": fake.guild.id, "member_count": 3}
    assert fake.publish(fake.event("THREAD_MEMBERS_UPDATE", data | {"removed_member_ids": ["1"]})) == []
    added = [{"user_id": "1"}, {"user_id": me}]
    both = data | {"added_members": added, "removed_member_ids": ["2"]}
    (received,) = fake.publish(fake.event("THREAD_MEMBERS_UPDATE", both))
    assert received["d"] == data | {"added_members": [{"user_id": me}]}


def test_full_or_hidden_voice_channels_give_no_answer() -> None:
    fake = Watched()
    guild, (first, second) = fake.guild, fake.guild.channels_of(VOICE)
    join = {"guild_id": guild.id, "channel_id": second, "self_mute": True}
    for who in fake.action().people[:3]:
        fake.publish(*voice.move(fake.action(), who, second))
    assert guild.channels[second]["user_limit"] == 3
    assert fake.send(fake.connection, 4, join) == []
    fake.close(first)
    assert fake.send(fake.connection, 4, join | {"channel_id": first}) == []
    fake.publish(*voice.move(fake.action(), fake.action().people[0], None))
    received = fake.send(fake.connection, 4, join)
    assert names(received) == ["VOICE_STATE_UPDATE", "VOICE_SERVER_UPDATE"]
    assert received[0]["d"]["self_mute"] is True


def test_a_voice_channel_has_a_start_time_while_users_are_in_it() -> None:
    fake = Watched()
    guild, channel = fake.guild, fake.guild.channels_of(VOICE)[1]
    one, other, *_ = fake.action().people
    received = fake.publish(*voice.move(fake.action(), one, channel))
    assert names(received) == ["VOICE_STATE_UPDATE", "VOICE_CHANNEL_START_TIME_UPDATE"]
    assert received[1]["d"]["voice_start_time"] == fake.now.wall_ms // 1000
    assert names(fake.publish(*voice.move(fake.action(), other, channel))) == ["VOICE_STATE_UPDATE"]
    guild.voice_info[channel]["status"] = "chess"
    (info,) = fake.send(fake.connection, 43, {"guild_id": guild.id, "fields": ["status"]})
    assert {"id": channel, "status": "chess"} in info["d"]["channels"]
    fake.publish(*voice.move(fake.action(), one, None))
    received = fake.publish(*voice.move(fake.action(), other, None))
    assert [item["d"].get("voice_start_time", item["d"].get("status")) for item in received[1:]] == [None, None]


def test_the_fault_shuffles_chunks() -> None:
    fake = Fake(BotConfig(token=TOKEN, guilds=1, members_per_guild=2100))
    connection = fake.live()
    fake.gateway.faults.shuffle_chunks(fake.mono + 10)
    guild_id = str(next(iter(fake.bot.world.guild_ids)))
    chunks = fake.send(connection, 8, {"guild_id": guild_id, "query": "", "limit": 0})
    assert [chunk["d"]["chunk_index"] for chunk in chunks] == [2, 1, 0]


def test_more_than_a_hundred_ids_are_a_violation_and_numbers_stay_numbers() -> None:
    fake = Fake()
    guild_id = str(next(iter(fake.bot.world.guild_ids)))
    connection = fake.live()
    (chunk,) = fake.send(connection, 8, {"guild_id": guild_id, "user_ids": [7, "x", 7]})
    assert chunk["d"]["not_found"] == [7, "x"]
    (chunk,) = fake.send(connection, 8, {"guild_id": guild_id, "user_ids": [str(n) for n in range(101)]})
    assert len(chunk["d"]["not_found"]) == 100
    assert fake.gateway.ledger.count("violation", outcome="request_members_ids") == 1


def test_outages_are_sent_as_stubs_when_configured() -> None:
    fake = Fake(BotConfig(token=TOKEN, guilds=2, outage_stubs=True))
    guild_id = next(iter(fake.bot.world.guild_ids))
    fake.bot.world.guild(guild_id).unavailable = True
    received = {item["d"]["id"]: item["d"] for item in taken(fake.live()) if item["t"] == "GUILD_CREATE"}
    assert received[str(guild_id)] == {"unavailable": True, "id": str(guild_id)}
    assert len(received) == 2


def test_a_silent_guild_appears_only_in_ready() -> None:
    fake = Fake(BotConfig(token=TOKEN, guilds=3, silent_guilds=1.0))
    (ready,) = [item for item in fake.send(fake.connect(), 2, identify_payload(TOKEN)) if item["t"] == "READY"]
    assert len(ready["d"]["guilds"]) == 3
    fake.mono += 5
    assert taken(fake.live()) == []
    assert all(fake.bot.world.is_unavailable(guild_id) for guild_id in fake.bot.world.guild_ids)


class TwoBots(Fake):
    """Two bots in one world; the second one is in the first guild of two."""

    def __init__(self) -> None:
        known: dict[str, Any] = {"world": "w", "hidden_channels": 0.0}
        super().__init__(
            BotConfig(token=TOKEN, guilds=2, **known),
            BotConfig(token="other", guilds=1, **known),
            identify_interval_s=0.0,
        )
        self.one, self.two = self.gateway.bots.values()
        self.first = self.live()
        self.also = self.live(token="other")
        taken(self.first), taken(self.also)

    def publish(self, bot: Bot, *events: Event) -> tuple[list[Any], list[Any]]:
        for event in events:
            self.gateway.publish(bot, event, self.now)
        return names(taken(self.first)), names(taken(self.also))


def test_bots_of_one_world_share_guilds_and_receive_the_same_events() -> None:
    fake = TwoBots()
    both, alone = fake.one.world.guild_ids
    assert list(fake.two.world.guild_ids) == [both]
    guild = guild_of(fake.two)
    assert {fake.one.id, fake.two.id} <= set(guild.members)
    assert fake.two.id not in fake.one.world.guild(alone).members
    typing = {"channel_id": guild.channels_of(TEXT)[0], "guild_id": guild.id}
    assert fake.publish(fake.one, Event("TYPING_START", typing, both)) == (["TYPING_START"], ["TYPING_START"])
    assert fake.publish(fake.one, Event("USER_UPDATE", {}, None)) == (["USER_UPDATE"], [])


def test_a_bot_that_joins_or_leaves_does_not_affect_the_others() -> None:
    fake = TwoBots()
    guild, both = guild_of(fake.two), next(iter(fake.two.world.guild_ids))
    count = guild.base["member_count"]
    left = fake.publish(
        fake.two, *guilds.leave(ActionContext(fake.two.world, guild, random.Random(1), fake.now.wall_ms))
    )
    assert left[0] == ["GUILD_MEMBER_REMOVE", "GUILD_ROLE_DELETE"]
    assert set(left[1]) <= {"GUILD_DELETE", "GUILD_MEMBER_REMOVE"}
    assert (fake.one.world.has_guild(both), fake.two.world.has_guild(both)) == (True, False)
    assert guild.base["member_count"] == count - 1
    came = fake.publish(
        fake.two, *guilds.arrive(ActionContext(fake.two.world, guild, random.Random(1), fake.now.wall_ms))
    )
    assert came == (["GUILD_ROLE_CREATE", "GUILD_MEMBER_ADD"], ["GUILD_CREATE"])
    assert guild.base["member_count"] == count


def test_channels_are_hidden_for_each_bot_separately() -> None:
    fake = TwoBots()
    guild = guild_of(fake.two)
    channel = guild.channels[guild.channels_of(TEXT)[0]]
    (own,) = (role for role in guild.members[fake.one.id]["roles"] if guild.roles[role]["managed"])
    allowed = {"id": own, "type": 0, "allow": str(VIEW_CHANNEL), "deny": "0"}
    channel["permission_overwrites"] = [CLOSED | {"id": guild.id}, allowed]
    fake.gateway.publish(fake.one, Event("CHANNEL_UPDATE", {**channel, "guild_id": guild.id}, int(guild.id)), fake.now)
    (mine,), (theirs,) = taken(fake.first), taken(fake.also)
    assert (mine["d"]["name"], theirs["d"]["name"]) == (channel["name"], HIDDEN_NAME)


def test_configured_shares_are_met() -> None:
    for fields in ({"hidden_channels": 1.5}, {"silent_guilds": -1.0}, {"messages_kept": 0}):
        with pytest.raises(ConfigError):
            BotConfig(token=TOKEN, **fields)
