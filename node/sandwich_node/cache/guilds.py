"""READY, guilds and what they list: from event to operations. Pure."""

import msgspec
from msgspec import UNSET, Raw, UnsetType

from sandwich_node.cache import payloads as pl
from sandwich_node.cache.context import Context, Op, by_id, identified, puts, snowflake
from sandwich_node.cache.people import member_ops, presence_item, voice_item
from sandwich_node.cache.splice import with_guild

_ready = msgspec.json.Decoder(pl.Ready).decode
_lists = msgspec.json.Decoder(pl.GuildLists).decode
_gone = msgspec.json.Decoder(pl.GuildGone).decode
_role = msgspec.json.Decoder(pl.RoleIn).decode
_role_gone = msgspec.json.Decoder(pl.RoleGone).decode
_emojis = msgspec.json.Decoder(pl.Emojis).decode
_stickers = msgspec.json.Decoder(pl.Stickers).decode
_sound = msgspec.json.Decoder(pl.Sound).decode
_sounds = msgspec.json.Decoder(pl.Sounds).decode
_in_guild = msgspec.json.Decoder(pl.InGuild).decode
_voice_state = msgspec.json.Decoder(pl.VoiceState).decode

_NOT_IN_GUILD = tuple(name for name in pl.GuildLists.__struct_fields__ if name not in ("id", "unavailable"))
_ABSENT = Raw()


def ready(context: Context, data: bytes) -> tuple[Op, ...]:
    """READY lists all guilds of the shard: one that it does not list was left while nobody looked."""
    found = _ready(data)
    guilds = [snowflake(guild.id) for guild in found.guilds]
    ops: list[Op] = []
    if context.keeps_users:
        user = bytes(found.user)
        ops.append(("user", snowflake(identified(user).id), user, ""))
    return (*ops, ("ready", "", *guilds))


def guild_create(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_CREATE replaces the guild and all it lists; a stub says that the guild is in an outage."""
    found = _lists(data)
    guild = snowflake(found.id)
    if found.unavailable is True:
        return ("guild_stub", guild), ("down", guild)
    ops: list[Op] = [("guild", guild, guild_object(data) if context.settings.guilds else b"")]
    ops += _listed(context, guild, found)
    ops += _created(context, guild, found)
    ops.append(("arrive", guild))
    return tuple(ops)


def guild_object(data: bytes, *, is_new: bool = True) -> bytes:
    """The guild without its lists. A new one is available."""
    fields = pl.decode_fields(data)
    for name in _NOT_IN_GUILD:
        fields.pop(name, _ABSENT)
    if is_new:
        fields["unavailable"] = Raw(b"false")
    return msgspec.json.encode(fields)


def _listed(context: Context, guild: str, found: pl.GuildLists) -> list[Op]:
    ops: list[Op] = []
    for letter, items in (("r", found.roles), ("e", found.emojis), ("s", found.stickers)):
        ops += _replace(context, guild, letter, items)
    return ops


def _replace(context: Context, guild: str, letter: str, items: list[Raw] | UnsetType) -> list[Op]:
    if letter not in context.letters or items is UNSET:
        return []
    return puts("put", guild, letter, items, by_id, replace=True)


def _created(context: Context, guild: str, found: pl.GuildLists) -> list[Op]:
    """What only GUILD_CREATE lists."""

    def located(item: bytes) -> tuple[str | bytes, ...]:
        channel = _in_guild(item)
        return channel.id, with_guild(item, guild) if channel.guild_id is UNSET else item

    def voiced(item: bytes) -> tuple[str | bytes, ...]:
        return voice_item(_voice_state(item), item, guild)

    ops: list[Op] = []
    for letter, items in (("c", found.channels), ("t", found.threads)):
        if letter in context.letters and items is not UNSET:
            # What the bot no longer sees goes first: another application may still see it.
            ops.append(("only", guild, letter, *(_in_guild(bytes(item)).id for item in items)))
            ops += puts("put", guild, letter, items, located, replace=False)
    for letter, items in (("g", found.stage_instances), ("x", found.guild_scheduled_events)):
        ops += _replace(context, guild, letter, items)
    if "o" in context.letters and found.soundboard_sounds is not UNSET:
        ops += puts("put", guild, "o", found.soundboard_sounds, _by_sound_id, replace=True)
    if "v" in context.letters and found.voice_states is not UNSET:
        ops += puts("put", guild, "v", found.voice_states, voiced, replace=True)
    if "p" in context.letters and found.presences is not UNSET:
        shown = [item for item in found.presences if presence_item(item) is not None]
        ops += puts("put", guild, "p", shown, lambda item: presence_item(item) or (), replace=True)
    if "m" in context.letters and found.members is not UNSET:
        ops.append(("members_begin", guild))
        ops += member_ops(context, guild, found.members)
        ops.append(("members_end", guild))
    return ops


def _by_sound_id(item: bytes) -> tuple[str | bytes, ...]:
    return str(_sound(item).sound_id), item


def guild_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_UPDATE merges: it has not what only GUILD_CREATE has."""
    found = _lists(data)
    guild = snowflake(found.id)
    ops = _listed(context, guild, found)
    if context.settings.guilds:
        ops.append(("guild_set", guild, guild_object(data, is_new=False)))
    return tuple(ops)


def guild_delete(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_DELETE with `unavailable` is an outage: all is kept. Without, the bot is out."""
    found = _gone(data)
    guild = snowflake(found.id)
    if found.unavailable is True:
        return ("guild_down", guild), ("down", guild)
    return ("guild_del", guild), ("depart", guild)


def role_create(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_ROLE_CREATE."""
    found = _role(data)
    role = bytes(found.role)
    return (("put", snowflake(found.guild_id), "r", "0", identified(role).id, role),)


def role_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_ROLE_UPDATE."""
    found = _role(data)
    role = bytes(found.role)
    return (("set", snowflake(found.guild_id), "r", "r", identified(role).id, role),)


def role_delete(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_ROLE_DELETE. Members keep naming the role: to strip it would be to read them all."""
    found = _role_gone(data)
    return (("del", snowflake(found.guild_id), "r", found.role_id),)


def emojis_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_EMOJIS_UPDATE is the whole list."""
    found = _emojis(data)
    items = [part for item in found.emojis for part in by_id(bytes(item))]
    return (("list", snowflake(found.guild_id), "e", "1", *items),)


def stickers_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_STICKERS_UPDATE is the whole list."""
    found = _stickers(data)
    items = [part for item in found.stickers for part in by_id(bytes(item))]
    return (("list", snowflake(found.guild_id), "s", "1", *items),)


def sound_create(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_SOUNDBOARD_SOUND_CREATE."""
    found = _sound(data)
    return (("put", snowflake(found.guild_id), "o", "0", str(found.sound_id), data),)


def sound_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_SOUNDBOARD_SOUND_UPDATE."""
    found = _sound(data)
    return (("set", snowflake(found.guild_id), "o", "r", str(found.sound_id), data),)


def sound_delete(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_SOUNDBOARD_SOUND_DELETE."""
    found = _sound(data)
    return (("del", snowflake(found.guild_id), "o", str(found.sound_id)),)


def sounds_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_SOUNDBOARD_SOUNDS_UPDATE: those that changed."""
    found = _sounds(data)
    items = [part for item in found.soundboard_sounds for part in _by_sound_id(bytes(item))]
    return (("list", snowflake(found.guild_id), "o", "0", *items),)


def sounds(context: Context, data: bytes) -> tuple[Op, ...]:
    """SOUNDBOARD_SOUNDS, the answer to a request: all there are."""
    found = _sounds(data)
    guild = snowflake(found.guild_id)
    return tuple(puts("put", guild, "o", found.soundboard_sounds, _by_sound_id, replace=True))
