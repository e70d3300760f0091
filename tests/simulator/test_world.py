"""Whoever applies the events to a GUILD_CREATE ends up with the simulator's own state: its promise to caches."""

import random
from typing import Any

import msgspec
import pytest

from sandwich_simulator import BotConfig
from sandwich_simulator.gateway import Event
from sandwich_simulator.intents import ALL_INTENTS
from sandwich_simulator.mix import WEIGHTS, Mix
from sandwich_simulator.world import World, guild_create

COLLECTIONS = {
    "roles": "id",
    "emojis": "id",
    "stickers": "id",
    "channels": "id",
    "threads": "id",
    "stage_instances": "id",
    "guild_scheduled_events": "id",
    "soundboard_sounds": "sound_id",
    "voice_states": "user_id",
}
KEYED = {
    "GUILD_ROLE": ("roles", "role_id"),
    "CHANNEL": ("channels", "id"),
    "THREAD": ("threads", "id"),
    "STAGE_INSTANCE": ("stage_instances", "id"),
    "GUILD_SCHEDULED_EVENT": ("guild_scheduled_events", "id"),
    "GUILD_SOUNDBOARD_SOUND": ("soundboard_sounds", "sound_id"),
}
WALL_MS = 1_750_000_000_000


class Cache:
    """The smallest cache that follows the documented effects of events."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.guilds: dict[int, dict[str, Any]] = {}
        for guild_id in world.guild_ids:
            self.create(guild_id)

    def create(self, guild_id: int) -> None:
        guild = self._world.guild(guild_id)
        made = guild_create(guild, bits=ALL_INTENTS, large_threshold=250, self_id=self._world.me["id"], joined=True)
        data = msgspec.json.decode(msgspec.json.encode(made))
        for name, key in COLLECTIONS.items():
            data[name] = {item[key]: item for item in data[name]}
        for name in ("members", "presences"):
            data[name] = {item["user"]["id"]: item for item in data[name]}
        self.guilds[guild_id] = data

    def apply(self, event: Event) -> None:
        assert event.guild_id is not None
        d = msgspec.json.decode(msgspec.json.encode(event.data))
        if event.name == "GUILD_CREATE":
            self.create(event.guild_id)
        elif event.name == "GUILD_DELETE":
            if not d.get("unavailable"):
                del self.guilds[event.guild_id]
        else:
            self._apply(event.name, d, self.guilds[event.guild_id])

    def _apply(self, name: str, d: dict[str, Any], guild: dict[str, Any]) -> None:
        kind, _, verb = name.rpartition("_")
        if kind in KEYED:
            self._entity(kind, verb, d, guild)
        elif kind == "GUILD_MEMBER":
            self._member(verb, d, guild)
        elif name == "VOICE_STATE_UPDATE":
            state = {key: value for key, value in d.items() if key not in ("guild_id", "member")}
            guild["voice_states"].pop(d["user_id"], None)
            if d["channel_id"] is not None:
                guild["voice_states"][d["user_id"]] = state
        elif name == "PRESENCE_UPDATE":
            guild["presences"].pop(d["user"]["id"], None)
            if d["status"] != "offline":
                guild["presences"][d["user"]["id"]] = {key: value for key, value in d.items() if key != "guild_id"}
        elif name == "GUILD_EMOJIS_UPDATE":
            guild["emojis"] = {emoji["id"]: emoji for emoji in d["emojis"]}
        elif name == "GUILD_UPDATE":
            lists = {key: {item["id"]: item for item in d.pop(key)} for key in ("roles", "emojis", "stickers")}
            guild.update(d, **lists)
        elif name.startswith("MESSAGE_"):
            self._message(name, d, guild)

    def _entity(self, kind: str, verb: str, d: dict[str, Any], guild: dict[str, Any]) -> None:
        collection, key = KEYED[kind]
        item = {k: v for k, v in d.get("role", d).items() if k != "newly_created"}
        if collection == "channels":
            item.pop("guild_id", None)
        if verb != "DELETE":
            guild[collection][item[COLLECTIONS[collection]]] = item
            if verb == "CREATE" and kind == "THREAD" and guild["channels"][item["parent_id"]]["type"] == 15:
                guild["channels"][item["parent_id"]]["last_message_id"] = item["id"]
            return
        gone = guild[collection].pop(d[key])
        if kind == "GUILD_ROLE":
            for member in guild["members"].values():
                member["roles"] = [role for role in member["roles"] if role != gone["id"]]
        elif kind == "CHANNEL":
            guild["threads"] = {k: t for k, t in guild["threads"].items() if t["parent_id"] != gone["id"]}

    def _member(self, verb: str, d: dict[str, Any], guild: dict[str, Any]) -> None:
        user_id = d["user"]["id"]
        if verb == "REMOVE":
            guild["member_count"] -= 1
            for name in ("members", "presences", "voice_states"):
                guild[name].pop(user_id, None)
        else:
            guild["member_count"] += verb == "ADD"
            guild["members"][user_id] = {key: value for key, value in d.items() if key != "guild_id"}

    def _message(self, name: str, d: dict[str, Any], guild: dict[str, Any]) -> None:
        place = guild["threads"].get(d["channel_id"]) or guild["channels"][d["channel_id"]]
        if name == "MESSAGE_CREATE":
            place["last_message_id"] = d["id"]
        if d["channel_id"] in guild["threads"]:
            if name == "MESSAGE_CREATE":
                place["message_count"] += 1
                place["total_message_sent"] += 1
            elif name.startswith("MESSAGE_DELETE"):
                place["message_count"] = max(0, place["message_count"] - len(d.get("ids", "1")))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_cache_that_applies_the_events_equals_the_world(seed: int) -> None:
    world = World(BotConfig(token="t", guilds=4, members_per_guild=12), seed=seed)
    cache, mix = Cache(world), Mix(world, random.Random(seed))
    seen: set[str] = set()
    for moment in range(6000):
        for event in mix.next_events(WALL_MS + moment):
            seen.add(event.name)
            cache.apply(event)
    known = dict(cache.guilds)
    assert known.keys() == world.guild_ids.keys()
    for guild_id in world.guild_ids:
        if not world.is_unavailable(guild_id):
            cache.create(guild_id)
            assert known[guild_id] == cache.guilds[guild_id]
    assert {"MESSAGE_CREATE", "GUILD_CREATE", "GUILD_DELETE", "CHANNEL_DELETE", "GUILD_ROLE_DELETE"} <= seen
    assert len(seen) > len(WEIGHTS)
