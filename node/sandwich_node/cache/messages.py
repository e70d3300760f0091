"""Messages of guilds: from event to operations. Pure."""

import msgspec
from msgspec import UNSET, UnsetType

from sandwich_node.cache import payloads as pl
from sandwich_node.cache.context import BadEvent, Context, Op, snowflake

_message = msgspec.json.Decoder(pl.Message).decode
_change = msgspec.json.Decoder(pl.MessageChange).decode
_messages = msgspec.json.Decoder(pl.Messages).decode

_DISCORD_EPOCH_MS = 1_420_070_400_000


def _created_ms(message_id: str) -> int:
    if len(message_id) > 20:
        raise BadEvent("a message's id is not a Discord id")
    return (int(snowflake(message_id)) >> 22) + _DISCORD_EPOCH_MS


NEW, CHANGED, PARTIAL = "0", "1", "m"
"""The kind of a message: a new one, the current state of a known one, or only its changed fields."""


def _stored(context: Context, found: pl.Message | pl.MessageChange, guild: str, data: bytes, how: str) -> Op:
    settings = context.settings
    return (
        *("message", guild, snowflake(found.channel_id), found.id, str(_created_ms(found.id)), data),
        *(str(settings.messages_per_channel), str(settings.messages_ttl_s * 1000), how),
    )


def message_create(context: Context, data: bytes) -> tuple[Op, ...]:
    """MESSAGE_CREATE is the last message of its channel or thread, and raises a thread's count."""
    found = _message(data)
    if found.guild_id is UNSET:
        return ()
    guild = snowflake(found.guild_id)
    ops: list[Op] = []
    if context.settings.messages_per_channel:
        ops.append(_stored(context, found, guild, data, NEW))
    if context.letters.intersection("ct"):
        ops.append(("posted", guild, snowflake(found.channel_id), snowflake(found.id)))
    return tuple(ops)


def message_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """MESSAGE_UPDATE contains the whole message, which may be uncached. Absent fields are removed.

    Until July 2024 it contained only the changed fields. An event of that form is merged into the cached message.
    """
    found = _change(data)
    if found.guild_id is UNSET or not context.settings.messages_per_channel:
        return ()
    how = PARTIAL if found.author is UNSET or found.content is UNSET else CHANGED
    return (_stored(context, found, snowflake(found.guild_id), data, how),)


def message_delete(context: Context, data: bytes) -> tuple[Op, ...]:
    """MESSAGE_DELETE."""
    found = _message(data)
    return () if found.guild_id is UNSET else _deleted(context, found.guild_id, found.channel_id, [found.id], "0")


def message_delete_bulk(context: Context, data: bytes) -> tuple[Op, ...]:
    """MESSAGE_DELETE_BULK."""
    found = _messages(data)
    ids = [message for message in found.ids if isinstance(message, str)]
    context.lost.extend("ids" for _ in range(len(found.ids) - len(ids)))
    return () if found.guild_id is UNSET else _deleted(context, found.guild_id, found.channel_id, ids, "1")


def _deleted(
    context: Context, guild_id: str | UnsetType, channel_id: str, ids: list[str], is_list: str
) -> tuple[Op, ...]:
    where = snowflake(guild_id), snowflake(channel_id)
    ops: list[Op] = []
    if context.settings.messages_per_channel:
        ops.append(("message_del", *where, is_list, *ids))
    # The starting message of a thread has the thread's id, and the thread does not count it.
    counted = [message for message in ids if message != channel_id]
    if "t" in context.letters and counted:
        ops.append(("unposted", *where, *counted))
    return tuple(ops)
