"""READY, guilds and the lists in them: from event to operations. Pure."""

from collections.abc import Callable

import msgspec
from msgspec import UNSET, Raw

from sandwich_node.cache import payloads as pl
from sandwich_node.cache.channels import has_ended
from sandwich_node.cache.context import Context, Op, Stored, by_id, identified, puts, snowflake
from sandwich_node.cache.json_patch import with_guild
from sandwich_node.cache.members import member_ops, shown_presences, voice_states

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
_scheduled = msgspec.json.Decoder(pl.ScheduledEvent).decode

_NOT_IN_GUILD = tuple(name for name in pl.GuildLists.__struct_fields__ if name not in ("id", "unavailable"))
_ABSENT = Raw()


def ready(context: Context, data: bytes) -> tuple[Op, ...]:
    """READY lists all guilds of the shard. The bot left every other guild while no session was connected."""
    found = _ready(data)
    guilds = [guild for guild, _ in context.readable("guilds", found.guilds, by_id)]
    ops: list[Op] = []
    if context.keeps_users:
        ops += [("user", *user, "") for user in context.readable("user", [found.user], by_id)]
    return (*ops, ("ready", "", *guilds))


def guild_create(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_CREATE replaces the guild and its lists. A stub (`unavailable`) reports an outage."""
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
    """The guild without its lists. With `is_new` it is marked as available."""
    fields = pl.decode_fields(data)
    for name in _NOT_IN_GUILD:
        fields.pop(name, _ABSENT)
    if is_new:
        fields["unavailable"] = Raw(b"false")
    return msgspec.json.encode(fields)


def _listed(context: Context, guild: str, found: pl.GuildLists) -> list[Op]:
    ops: list[Op] = []
    for letter, name in (("r", "roles"), ("e", "emojis"), ("s", "stickers")):
        ops += _replace(context, guild, letter, name, found)
    return ops


def _items(context: Context, letter: str, name: str, found: pl.GuildLists) -> list[Raw] | None:
    """A list of the guild; None when it is absent, damaged or not kept."""
    return context.listed(name, getattr(found, name)) if letter in context.letters else None


def _replace(
    context: Context,
    guild: str,
    letter: str,
    name: str,
    found: pl.GuildLists,
    read: Callable[[bytes], Stored] = by_id,
) -> list[Op]:
    items = _items(context, letter, name, found)
    return [] if items is None else puts("put", guild, letter, context.readable(name, items, read), replace=True)


def _created(context: Context, guild: str, found: pl.GuildLists) -> list[Op]:
    """The lists that only GUILD_CREATE contains."""

    def located(item: bytes) -> Stored:
        channel = _in_guild(item)
        return snowflake(channel.id), with_guild(item, guild) if channel.guild_id is UNSET else item

    ops: list[Op] = []
    for letter, name in (("c", "channels"), ("t", "threads")):
        if (items := _items(context, letter, name, found)) is not None:
            places = context.readable(name, items, located)
            # First remove what the bot does not see any more: another application may still see it.
            ops.append(("only", guild, letter, *(place for place, _ in places)))
            ops += puts("put", guild, letter, places, replace=False)
    ops += _replace(context, guild, "g", "stage_instances", found)
    if (items := _items(context, "x", "guild_scheduled_events", found)) is not None:
        ops += puts("put", guild, "x", _to_come(context, items), replace=True)
    ops += _replace(context, guild, "o", "soundboard_sounds", found, _by_sound_id)
    if (items := _items(context, "v", "voice_states", found)) is not None:
        ops += puts("put", guild, "v", voice_states(context, guild, items), replace=True)
    if (items := _items(context, "p", "presences", found)) is not None:
        ops += puts("put", guild, "p", shown_presences(context, items), replace=True)
    if (items := _items(context, "m", "members", found)) is not None:
        ops.append(("members_begin", guild))
        ops += member_ops(context, guild, items)
        ops.append(("members_end", guild))
    return ops


def _to_come(context: Context, items: list[Raw]) -> list[Stored]:
    """Scheduled events that have not ended."""

    def read(item: bytes) -> tuple[str, bytes, bool]:
        event = _scheduled(item)
        return snowflake(event.id), item, has_ended(event)

    found = context.readable("guild_scheduled_events", items, read)
    return [(event, item) for event, item, is_over in found if not is_over]


def _by_sound_id(item: bytes) -> Stored:
    return snowflake(str(_sound(item).sound_id)), item


def guild_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_UPDATE merges, since it lacks the fields that only GUILD_CREATE has."""
    found = _lists(data)
    guild = snowflake(found.id)
    ops = _listed(context, guild, found)
    if context.settings.guilds:
        ops.append(("guild_set", guild, guild_object(data, is_new=False)))
    return tuple(ops)


def guild_delete(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_DELETE. With `unavailable` it is an outage and everything is kept; otherwise the bot left."""
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
    """GUILD_ROLE_DELETE also removes the role from its members, which Discord reports with no event."""
    found = _role_gone(data)
    guild, role = snowflake(found.guild_id), snowflake(found.role_id)
    ops: list[Op] = [("del", guild, "r", role)] if "r" in context.letters else []
    return (*ops, ("role_strip", guild, role, "0")) if "m" in context.letters else tuple(ops)


def emojis_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_EMOJIS_UPDATE contains the whole list."""
    found = _emojis(data)
    items = [part for item in context.readable("emojis", found.emojis, by_id) for part in item]
    return (("list", snowflake(found.guild_id), "e", "1", *items),)


def stickers_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_STICKERS_UPDATE contains the whole list."""
    found = _stickers(data)
    items = [part for item in context.readable("stickers", found.stickers, by_id) for part in item]
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
    """GUILD_SOUNDBOARD_SOUNDS_UPDATE contains the changed sounds."""
    found = _sounds(data)
    found_sounds = context.readable("soundboard_sounds", found.soundboard_sounds, _by_sound_id)
    items = [part for item in found_sounds for part in item]
    return (("list", snowflake(found.guild_id), "o", "0", *items),)


def sounds(context: Context, data: bytes) -> tuple[Op, ...]:
    """SOUNDBOARD_SOUNDS, the answer to a request, contains all sounds."""
    found = _sounds(data)
    guild = snowflake(found.guild_id)
    items = context.readable("soundboard_sounds", found.soundboard_sounds, _by_sound_id)
    return tuple(puts("put", guild, "o", items, replace=True))
