"""Names of the cache's keys in Redis, cache contract version 1, and the content of each value. Pure.

Every key that a reader may read is defined here and nowhere else. Values are Discord's JSON objects, as bytes:

guild      Discord's guild without its lists: roles, emojis, stickers, and fields that only GUILD_CREATE has
           (channels ...); always with `unavailable`: true during an outage, which leaves the rest unchanged
channels   id -> channel, always with `guild_id`; a voice channel also with `status`, `voice_start_time` once received
threads    id -> active thread, with the bot's own `member` when it takes part
roles, emojis, stickers, events, stages
           id -> object (events: guild scheduled events; stages: stage instances)
sounds     sound id -> soundboard sound
members    user id -> member whose `user` is only `{"id": "..."}`: the whole user is under `user_key`. An application
           that does not cache users leaves `user` whole
voice      user id -> voice state, always with `guild_id`, never with `member`; only users in a channel
presences  user id -> presence whose `user` is only `{"id": "..."}`; only users who are not offline
user       Discord's user. Kept while the user is in a guild of the namespace
messages   message id -> message; `message_order_key` holds the ids, oldest first

`locations_key` maps a guild's id to `<group>:<shard>`.
"""

from functools import lru_cache
from typing import Final

from sandwich_sdk.wire.subjects import check_name

CACHE_VERSION: Final = 1
LOCATION_LENGTH_MAX: Final = 32

CHANNELS: Final = "channels"
THREADS: Final = "threads"
ROLES: Final = "roles"
EMOJIS: Final = "emojis"
STICKERS: Final = "stickers"
MEMBERS: Final = "members"
VOICE: Final = "voice"
PRESENCES: Final = "presences"
EVENTS: Final = "events"
STAGES: Final = "stages"
SOUNDS: Final = "sounds"

COLLECTIONS: Final = (
    CHANNELS, THREADS, ROLES, EMOJIS, STICKERS, MEMBERS, VOICE, PRESENCES, EVENTS, STAGES, SOUNDS,
)  # fmt: skip
"""The collections of a guild, each a hash from id to JSON."""


@lru_cache(maxsize=1024)
def check_namespace(value: str) -> str:
    """Return `value` when it may name a namespace, else raise ValueError."""
    return check_name(value, what="cache namespace")


def _id(value: str | int) -> str:
    """An id as part of a key. Raises ValueError for anything but digits: input must not choose the key."""
    text = str(value)
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text[:40]!r} is not a Discord id")
    return text


def guild_prefix(namespace: str, guild: str | int) -> str:
    """Prefix of all keys of a guild; the braces keep them on one slot of a Redis Cluster."""
    return f"sw:{{{check_namespace(namespace)}:{_id(guild)}}}:"


def guild_key(namespace: str, guild: str | int) -> str:
    """String: the guild without its collections."""
    return guild_prefix(namespace, guild) + "guild"


def collection_key(namespace: str, guild: str | int, collection: str) -> str:
    """Hash from id to JSON; `collection` is one of COLLECTIONS. Raises ValueError for another."""
    if collection not in COLLECTIONS:
        raise ValueError(f"{collection!r} is not a collection of a guild")
    return guild_prefix(namespace, guild) + collection


def apps_key(namespace: str, guild: str | int) -> str:
    """Set: the applications in this guild. The guild is deleted when the last one leaves."""
    return guild_prefix(namespace, guild) + "apps"


def messages_key(namespace: str, guild: str | int, channel: str | int) -> str:
    """Hash from message id to message, for one channel or thread. It expires after the last message."""
    return f"{guild_prefix(namespace, guild)}messages:{_id(channel)}"


def message_order_key(namespace: str, guild: str | int, channel: str | int) -> str:
    """Sorted set: ids of the cached messages of a channel; the score is their creation, in Unix milliseconds."""
    return f"{guild_prefix(namespace, guild)}messages:{_id(channel)}:order"


def prefixes_key(namespace: str, guild: str | int) -> str:
    """Set: the guild's own command prefixes. Written by the bot's owner, read by nodes; not deleted with the guild."""
    return guild_prefix(namespace, guild) + "prefixes"


def user_key(namespace: str, user: str | int) -> str:
    """String: the user."""
    return f"sw:{check_namespace(namespace)}:user:{{{_id(user)}}}"


def mutual_key(namespace: str, user: str | int) -> str:
    """Set: ids of the cached guilds that the user is in."""
    return f"sw:{check_namespace(namespace)}:mutual:{{{_id(user)}}}"


def locations_key(namespace: str, app: str) -> str:
    """Hash from guild id to `<group>:<shard>`: the guild's shard. HLEN is the number of guilds."""
    return f"sw:{check_namespace(namespace)}:guilds:{{{check_name(app, what='application')}}}"


def location(group: int, shard: int) -> str:
    """The value that `locations_key` holds for a guild."""
    return f"{group:d}:{shard:d}"


def parse_location(value: bytes | str) -> tuple[int, int]:
    """Read (group, shard) from what `locations_key` holds. Raises ValueError for anything else."""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    group, _, shard = text.partition(":")
    if not (text.isascii() and group.isdecimal() and shard.isdecimal() and len(text) <= LOCATION_LENGTH_MAX):
        raise ValueError("a location is <group>:<shard>")
    return int(group), int(shard)
