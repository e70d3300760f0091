"""A small world in the simulator's format, and a cache with exactly its content."""

import copy
from typing import Any

from verification.cache_check.reading import Cached
from verification.cache_check.truth import GuildTruth, Json, View

APP, OTHER = "welcomer", "music"
GUILD, CHANNEL, VOICE, THREAD, ROLE, BOT, ADA, BOB = "1000", "2000", "2001", "3000", "4000", "9000", "5000", "5001"
ALL = (1 << 26) - 1
UNTOLD_OF_MEMBERS = ALL & ~(1 << 1 | 1 << 8)


def channel(key: str, **more: Any) -> Json:
    return {"id": key, "name": f"channel {key}", "flags": 0, "type": 0, **more}


def hidden(key: str) -> Json:
    return channel(key, name="___hidden___", flags=1 << 17)


def message(key: str, place: str = CHANNEL) -> Json:
    return {"id": key, "channel_id": place, "content": f"message {key}"}


def member(user: str, **more: Any) -> Json:
    return {"user": {"id": user, "username": f"user {user}"}, "nick": None, "roles": [ROLE], **more}


def state(guild: str = GUILD) -> Json:
    """A guild in the format of the simulator's `guild?as=seen`."""
    return {
        "guild": {"id": guild, "name": "Chess", "member_count": 3, "joined_at": "then"},
        "unavailable": False,
        "channels": {CHANNEL: channel(CHANNEL), VOICE: channel(VOICE, type=2)},
        "threads": {THREAD: {"id": THREAD, "parent_id": CHANNEL, "member_count": 1}},
        "roles": {ROLE: {"id": ROLE, "name": "player"}},
        "emojis": {"6000": {"id": "6000", "name": "pawn"}},
        "stickers": {"6100": {"id": "6100", "name": "rook"}},
        "voice_states": {ADA: {"user_id": ADA, "channel_id": VOICE}},
        "events": {"6200": {"id": "6200", "user_count": 1}},
        "stages": {"6300": {"id": "6300", "topic": "endgames"}},
        "sounds": {"6400": {"sound_id": "6400", "name": "clock"}},
        "members": {user: member(user) for user in (BOT, ADA, BOB)},
        "presences": {ADA: {"user": {"id": ADA}, "status": "idle"}},
        "messages": [message("10"), message("11"), message("12", THREAD)],
        "voice_info": {VOICE: {"status": "blitz"}},
        "changes": {"10": 20, "11": 21, "12": 22, f"{VOICE}:status": 23},
        "forgotten": {},
        "since": {},
        "joined": 1,
        "created": 5,
    }


def view(seen: Json, app: str = APP, bot: str = BOT, intents: int = ALL, began: int = 2) -> View:
    return View(app, bot, intents, began, seen)


def cache_of(*truths: GuildTruth) -> Cached:
    """A cache with the first view of each guild, in the cache's format."""
    cached = Cached()
    for truth in truths:
        seen = copy.deepcopy(truth.state)
        guild = truth.id
        cached.guilds[guild] = seen["guild"] | {"unavailable": seen["unavailable"]}
        cached.apps[guild] = set(truth.apps)
        for app in truth.apps:
            cached.located.setdefault(app, set()).add(guild)
        channels = {key: value | {"guild_id": guild} for key, value in seen["channels"].items()}
        for key, info in seen["voice_info"].items():
            channels[key] |= info
        voice = {key: value | {"guild_id": guild} for key, value in seen["voice_states"].items()}
        members = {key: value | {"user": {"id": key}} for key, value in seen["members"].items()}
        kept = {"channels": channels, "voice": voice, "members": members}
        for name in ("threads", "roles", "emojis", "stickers", "events", "stages", "sounds", "presences"):
            kept[name] = seen[name]
        for name, objects in kept.items():
            cached.collections[name][guild] = objects
        for key, value in seen["members"].items():
            cached.users[key] = value["user"]
            cached.mutual.setdefault(key, set()).add(guild)
        for each in seen["messages"]:
            cached.messages[guild].setdefault(each["channel_id"], {})[each["id"]] = each
    return cached
