"""The cache's content in Redis, read without the SDK's reader."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio as redis

from verification.cache_check.truth import Json, Objects


@dataclass(slots=True)
class Cached:
    """The content of one namespace."""

    guilds: dict[str, Json] = field(default_factory=dict)
    collections: dict[str, dict[str, Objects]] = field(default_factory=lambda: defaultdict(dict))
    apps: dict[str, set[str]] = field(default_factory=dict)
    users: Objects = field(default_factory=dict)
    mutual: dict[str, set[str]] = field(default_factory=dict)
    located: dict[str, set[str]] = field(default_factory=dict)
    messages: dict[str, dict[str, Objects]] = field(default_factory=lambda: defaultdict(dict))
    """By guild and channel."""


async def read_cache(url: str, namespace: str) -> Cached:
    """Read a whole namespace by the contract's key names."""
    cached = Cached()
    async with redis.Redis.from_url(url, decode_responses=True) as client:
        async for key in client.scan_iter(match=f"sw:*{namespace}:*", count=1000):
            if key.startswith(f"sw:{{{namespace}:"):
                guild, _, name = key.removeprefix(f"sw:{{{namespace}:").partition("}:")
                await _guild_key(client, cached, key, guild, name)
            elif key.startswith(f"sw:{namespace}:"):
                kind, _, rest = key.removeprefix(f"sw:{namespace}:").partition(":")
                await _other_key(client, cached, key, kind, rest)
    return cached


async def _guild_key(client: Any, cached: Cached, key: str, guild: str, name: str) -> None:
    if name == "guild":
        cached.guilds[guild] = json.loads(await client.get(key))
    elif name == "apps":
        cached.apps[guild] = await client.smembers(key)
    elif name.startswith("messages:") and not name.endswith(":order"):
        values = await client.hgetall(key)
        cached.messages[guild][name.removeprefix("messages:")] = {field: json.loads(v) for field, v in values.items()}
    elif await client.type(key) == "hash" and ":" not in name:
        values = await client.hgetall(key)
        if all(value.startswith("{") for value in values.values()):
            cached.collections[name][guild] = {field: json.loads(value) for field, value in values.items()}


async def _other_key(client: Any, cached: Cached, key: str, kind: str, rest: str) -> None:
    if not (rest.startswith("{") and rest.endswith("}")):
        return
    if kind == "user":
        cached.users[rest[1:-1]] = json.loads(await client.get(key))
    elif kind == "mutual":
        cached.mutual[rest[1:-1]] = await client.smembers(key)
    elif kind == "guilds":
        cached.located[rest[1:-1]] = set(await client.hkeys(key))
