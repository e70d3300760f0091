"""Members, users, presences, voice states: from event to operations. Pure."""

import msgspec
from msgspec import UNSET, Raw, UnsetType

from sandwich_node.cache import payloads as pl
from sandwich_node.cache.context import PUT_BYTES_MAX, Context, Op, Stored, identified, puts, snowflake
from sandwich_node.cache.json_patch import add, with_guild, with_user_id, without

_object = msgspec.json.Decoder(pl.AnyObject).decode
_member = msgspec.json.Decoder(pl.Member).decode
_members = msgspec.json.Decoder(pl.Members).decode
_presence = msgspec.json.Decoder(pl.Presence).decode
_voice_state = msgspec.json.Decoder(pl.VoiceState).decode


def member_ops(context: Context, guild: str, items: list[Raw]) -> list[Op]:
    """Operations that store many members and their users, in pieces."""
    made: list[Op] = []
    piece: list[str | bytes] = []
    size = 0
    split = context.readable("members", items, lambda item: context.split_user(item, bytes(_member(item).user)))
    for member in split:
        piece += member
        size += len(member[1]) + len(member[2])
        if size > PUT_BYTES_MAX:
            made.append(("members", guild, *piece))
            piece, size = [], 0
    if piece:
        made.append(("members", guild, *piece))
    return made


def member_add(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_MEMBER_ADD, possibly of a member that is already cached."""
    found = _member(data)
    guild = snowflake(found.guild_id)
    user = bytes(found.user)
    if "m" not in context.letters:
        return (("join", guild, snowflake(identified(user).id), b"", b""),)
    return (("join", guild, *context.split_user(data, user)),)


def member_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_MEMBER_UPDATE merges. Discord also sends it when a user changes their name."""
    found = _member(data)
    return (("member_set", snowflake(found.guild_id), *context.split_user(data, bytes(found.user)), b""),)


def member_remove(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_MEMBER_REMOVE also removes the member's presence and voice state."""
    found = _member(data)
    user = snowflake(identified(found.user).id)
    return (("member_del", snowflake(found.guild_id), user, b"", "1" if "m" in context.letters else "0"),)


def members_chunk(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_MEMBERS_CHUNK adds members and removes none."""
    found = _members(data)
    guild = snowflake(found.guild_id)
    members = context.listed("members", found.members) if "m" in context.letters else None
    ops = member_ops(context, guild, members or [])
    presences = context.listed("presences", found.presences) if "p" in context.letters else None
    ops += puts("put", guild, "p", shown_presences(context, presences or []), replace=False)
    return tuple(ops)


def learn_ops(context: Context, guild: str, author: bytes | None, member: bytes) -> tuple[Op, ...]:
    """The operation that stores a member found in another event. A message's member lacks its user, the author."""
    if author is None:
        user_raw: Raw | bytes = _member(member).user
    else:
        user_raw = author
        _object(member)
        member = add(member, b'"user":' + author)
    return (("learn", guild, *context.split_user(member, bytes(user_raw))),)


def shown_presences(context: Context, items: list[Raw]) -> list[Stored]:
    """The presences to store: those that are not offline."""
    found = context.readable("presences", items, _presence_item)
    return [item for item in found if item is not None]


def _presence_item(data: bytes) -> Stored | None:
    found = _presence(data)
    user = bytes(found.user)
    user_id = snowflake(identified(user).id)
    return None if found.status == "offline" else (user_id, with_user_id(data, user, user_id))


def presence_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """PRESENCE_UPDATE. Any field but the user's id may be absent. It also carries a user's new name."""
    found = _presence(data)
    guild = snowflake(found.guild_id)
    user = bytes(found.user)
    user_id = snowflake(identified(user).id)
    ops: list[Op] = []
    if "p" in context.letters:
        if found.status == "offline":
            ops.append(("del", guild, "p", user_id))
        else:
            ops.append(("set", guild, "p", "m", user_id, with_user_id(data, user, user_id)))
    if context.keeps_users and user != b'{"id":"%b"}' % user_id.encode():
        ops.append(("user_patch", user_id, user))
    return tuple(ops)


def voice_states(context: Context, guild: str, items: list[Raw]) -> list[Stored]:
    """The voice states to store: those with a channel."""
    found = context.readable("voice_states", items, lambda item: _voice_item(_voice_state(item), item, guild))
    return [item for item in found if item is not None]


def _voice_item(found: pl.VoiceState, data: bytes, guild: str) -> Stored | None:
    """The voice state with `guild_id` and without `member`; None when it has no channel."""
    user_id = snowflake(found.user_id)
    if found.channel_id is None:
        return None
    if not isinstance(found.member, UnsetType):
        data = without(data, b'"member":' + bytes(found.member))
    return user_id, with_guild(data, guild) if found.guild_id is UNSET else data


def voice_state_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """VOICE_STATE_UPDATE; one without a channel ends the voice state."""
    found = _voice_state(data)
    if found.guild_id is UNSET:
        return ()
    guild = snowflake(found.guild_id)
    stored = _voice_item(found, data, guild)
    if stored is None:
        return (("del", guild, "v", snowflake(found.user_id)),)
    return (("set", guild, "v", "r", *stored),)


def user_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """USER_UPDATE is about the bot itself."""
    return (("user_set", snowflake(identified(data).id), data),)
