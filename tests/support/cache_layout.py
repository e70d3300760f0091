"""A hand-written cache in the layout of docs/guide/cache.md, and a guild for it."""

from typing import Any

import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster

from sandwich_sdk.cache.testing import Layout

GUILD, OTHER_GUILD = "81384788765712384", "613425648685547541"
OWNER, ADA, BOB = "80351110224678912", "53908099506183680", "41771983444115456"
CHANNEL, VOICE, THREAD = "81384788765712385", "81384788765712386", "81384788765712387"
ROLE, EMOJI, STICKER, EVENT, STAGE, SOUND = (str(int(GUILD) + n) for n in range(10, 16))
MESSAGES = tuple(str(int(GUILD) + (n << 22)) for n in range(1, 4))


def user(user_id: str, name: str) -> dict[str, Any]:
    return {"id": user_id, "username": name, "global_name": name.title(), "avatar": None}


def member(user_id: str, name: str, **more: Any) -> dict[str, Any]:
    return {"user": user(user_id, name), "roles": [], "joined_at": "2021-01-01T00:00:00+00:00", "flags": 0} | more


def rich_guild(guild: str = GUILD) -> dict[str, Any]:
    """A GUILD_CREATE with one object of each kind."""
    return {
        "id": guild,
        "name": "Chess",
        "owner_id": OWNER,
        "member_count": 3,
        "features": ["COMMUNITY"],
        "channels": [
            {"id": VOICE, "type": 2, "name": "Voice", "position": 2},
            {"id": CHANNEL, "type": 0, "name": "general", "position": 1, "topic": 'é"}{', "permission_overwrites": []},
        ],
        "threads": [{"id": THREAD, "type": 11, "name": "endgames", "parent_id": CHANNEL, "member": {"flags": 1}}],
        "roles": [
            {"id": ROLE, "name": "mod", "permissions": str(1 << 13), "position": 1},
            {"id": guild, "name": "@everyone", "permissions": str(1 << 10 | 1 << 11), "position": 0},
        ],
        "emojis": [{"id": EMOJI, "name": "pawn", "animated": False, "roles": []}],
        "stickers": [{"id": STICKER, "name": "rook", "format_type": 1}],
        "members": [member(OWNER, "owner"), member(ADA, "ada", nick="Countess", roles=[ROLE]), member(BOB, "bob")],
        "voice_states": [{"user_id": ADA, "channel_id": VOICE, "session_id": "s", "member": member(ADA, "ada")}],
        "presences": [{"user": {"id": ADA}, "status": "idle", "activities": [], "client_status": {"web": "idle"}}],
        "guild_scheduled_events": [{"id": EVENT, "guild_id": guild, "name": "Cup", "status": 1, "user_count": 2}],
        "stage_instances": [{"id": STAGE, "guild_id": guild, "channel_id": VOICE, "topic": "final"}],
        "soundboard_sounds": [{"sound_id": SOUND, "name": "check", "volume": 1, "emoji_name": "♟"}],
    }


def message(number: int) -> dict[str, Any]:
    return {"id": MESSAGES[number], "channel_id": CHANNEL, "guild_id": GUILD, "content": f"move {number}"}


async def store(client: redis.Redis | RedisCluster, layout: Layout) -> None:
    """Write the layout's keys into Redis; other keys stay."""
    for key, value in layout.items():
        if isinstance(value, bytes):
            await client.execute_command("SET", key, value)
        elif isinstance(value, set):
            await client.execute_command("SADD", key, *value)
        elif isinstance(next(iter(value.values())), int):
            await client.execute_command("ZADD", key, *(part for item, at in value.items() for part in (at, item)))
        else:
            await client.execute_command("HSET", key, *(part for pair in value.items() for part in pair))
