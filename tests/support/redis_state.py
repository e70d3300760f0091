"""The content of a Redis as Python objects, to compare with the model."""

import json
from typing import Any

from sandwich_node.cache.settings import LETTERS
from tests.support.cache_model import CacheModel

BOOKKEEPING = (
    *(":by", ":gone", ":early", ":previous", ":talking", ":order", ":waiting", ":leaving"),
    *(":seen", ":own", ":unseen", ":voiced"),
)


async def read_namespace(client: Any, namespace: str) -> dict[str, Any]:
    """All keys of a namespace that readers may use; hashes and sets as dicts and sets."""
    found: dict[str, Any] = {}
    async for key in client.scan_iter(match="sw:*", count=1000):
        name = key.decode()
        if f"sw:{namespace}:" not in name and f"sw:{{{namespace}:" not in name:
            continue
        if name.endswith(BOOKKEEPING) or "writer:" in name or (":guilds:" in name and not name.endswith("}")):
            continue
        kind = (await client.type(key)).decode()
        if kind == "string":
            found[name] = json.loads(await client.get(key))
        elif kind == "set":
            found[name] = {item.decode() for item in await client.smembers(key)}
        else:
            held = await client.hgetall(key)
            is_json = ":guilds:" not in name
            found[name] = {k.decode(): json.loads(v) if is_json else v.decode() for k, v in held.items()}
    return found


def expected(model: CacheModel, namespace: str) -> dict[str, Any]:
    """The model's content in the same form."""
    made: dict[str, Any] = {}
    for guild_id, guild in model.guilds.items():
        prefix = f"sw:{{{namespace}:{guild_id}}}:"
        made[prefix + "guild"] = guild.guild
        made[prefix + "apps"] = guild.apps
        made |= {prefix + name: guild.of[letter] for letter, name in LETTERS.items()}
        made |= {f"{prefix}messages:{channel}": held for channel, held in guild.messages.items()}
    made |= {f"sw:{namespace}:user:{{{key}}}": user for key, user in model.users.items()}
    made |= {f"sw:{namespace}:mutual:{{{key}}}": shares for key, shares in model.mutual.items()}
    made |= {f"sw:{namespace}:guilds:{{{app}}}": held for app, held in model.locations.items()}
    return {key: value for key, value in made.items() if value}
