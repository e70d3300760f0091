"""Channels, threads, stages and scheduled events: from event to operations. Pure."""

import msgspec
from msgspec import UNSET, Raw, UnsetType

from sandwich_node.cache import payloads as pl
from sandwich_node.cache.context import Context, Op, by_id, snowflake
from sandwich_node.cache.json_patch import add, without

_in_guild = msgspec.json.Decoder(pl.InGuild).decode
_pins = msgspec.json.Decoder(pl.Pins).decode
_voice_channel = msgspec.json.Decoder(pl.VoiceChannel).decode
_channel_info = msgspec.json.Decoder(pl.ChannelInfo).decode
_thread = msgspec.json.Decoder(pl.Thread).decode
_thread_member = msgspec.json.Decoder(pl.ThreadMember).decode
_list_sync = msgspec.json.Decoder(pl.ThreadListSync).decode
_thread_members = msgspec.json.Decoder(pl.ThreadMembers).decode
_scheduled = msgspec.json.Decoder(pl.ScheduledEvent).decode
_event_user = msgspec.json.Decoder(pl.ScheduledEventUser).decode


def channel_create(context: Context, data: bytes) -> tuple[Op, ...]:
    """CHANNEL_CREATE. Channels outside guilds are not cached."""
    found = _in_guild(data)
    return () if found.guild_id is UNSET else (("put", snowflake(found.guild_id), "c", "0", found.id, data),)


def channel_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """CHANNEL_UPDATE replaces the channel, except for the status of a voice channel, which it lacks."""
    found = _in_guild(data)
    return () if found.guild_id is UNSET else (("set", snowflake(found.guild_id), "c", "k", found.id, data),)


def channel_delete(context: Context, data: bytes) -> tuple[Op, ...]:
    """CHANNEL_DELETE implies the end of everything in the channel, without events: see `channel_del` in Lua."""
    found = _in_guild(data)
    is_kept = "1" if "c" in context.letters else "0"
    return () if found.guild_id is UNSET else (("channel_del", snowflake(found.guild_id), found.id, is_kept),)


def channel_pins_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """CHANNEL_PINS_UPDATE, of a channel or a thread."""
    found = _pins(data)
    if found.guild_id is UNSET:
        return ()
    field = b'{"last_pin_timestamp":%b}' % bytes(found.last_pin_timestamp)
    letters = "".join(letter for letter in "ct" if letter in context.letters)
    return (("patch", snowflake(found.guild_id), letters, found.channel_id, field, "1"),)


def _voice_fields(channel: pl.VoiceChannel) -> bytes:
    fields = (("status", channel.status), ("voice_start_time", channel.voice_start_time))
    known: dict[str, Raw] = {name: value for name, value in fields if not isinstance(value, UnsetType)}
    return msgspec.json.encode(known)


def voice_channel_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """VOICE_CHANNEL_STATUS_UPDATE and VOICE_CHANNEL_START_TIME_UPDATE."""
    found = _voice_channel(data)
    return (("patch", snowflake(found.guild_id), "c", found.id, _voice_fields(found), "1"),)


def channel_info(context: Context, data: bytes) -> tuple[Op, ...]:
    """CHANNEL_INFO, the answer to a request."""
    found = _channel_info(data)
    guild = snowflake(found.guild_id)
    channels = context.readable("channels", found.channels, _voice_channel)
    return tuple(("patch", guild, "c", channel.id, _voice_fields(channel), "0") for channel in channels)


def thread_create(context: Context, data: bytes) -> tuple[Op, ...]:
    """THREAD_CREATE: a new thread, or one that the bot was added to."""
    found = _thread(data)
    guild = snowflake(found.guild_id)
    thread: Op = ("put", guild, "t", "0", found.id, without(data, b'"newly_created":true'))
    if not found.newly_created or found.parent_id is None or "c" not in context.letters:
        return (thread,)
    # A forum's last message is its newest thread. In a text channel the starting message is an event of its own.
    shown = b'{"last_message_id":"%b"}' % found.id.encode()
    return thread, ("forum_post", guild, found.parent_id, shown)


def thread_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """THREAD_UPDATE: an archived thread is not active any more, and is removed."""
    found = _thread(data)
    guild = snowflake(found.guild_id)
    if found.thread_metadata.archived:
        return (("del", guild, "t", found.id),)
    return (("set", guild, "t", "m", found.id, data),)


def thread_delete(context: Context, data: bytes) -> tuple[Op, ...]:
    """THREAD_DELETE also removes the thread's messages, even if threads are not kept."""
    found = _in_guild(data)
    guild = snowflake(found.guild_id)
    return (("del", guild, "t", found.id) if "t" in context.letters else ("channel_del", guild, found.id, "0"),)


def thread_list_sync(context: Context, data: bytes) -> tuple[Op, ...]:
    """THREAD_LIST_SYNC replaces the threads of the channels that it names; without names, all threads."""
    found = _list_sync(data)
    mine = context.readable("members", found.members or (), lambda item: (_thread_member(item).id, item))
    members = dict(mine)
    threads: list[str | bytes] = []
    for thread_id, thread in context.readable("threads", found.threads, by_id):
        member = members.get(thread_id)
        if member is not None and b'"member":' not in thread:
            thread = add(thread, b'"member":' + member)
        threads += (thread_id, thread)
    guild = snowflake(found.guild_id)
    if found.channel_ids is None:
        return (("threads_sync", guild, "-1", *threads),)
    return (("threads_sync", guild, str(len(found.channel_ids)), *found.channel_ids, *threads),)


def thread_member_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """THREAD_MEMBER_UPDATE is about the bot itself."""
    found = _thread_member(data)
    if found.id is UNSET:
        return ()
    return (("patch", snowflake(found.guild_id), "t", found.id, b'{"member":%b}' % data, "1"),)


def thread_members_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """THREAD_MEMBERS_UPDATE: the number of members, and whether the bot is one of them."""
    found = _thread_members(data)
    guild = snowflake(found.guild_id)
    fields = b'{"member_count":%d}' % found.member_count if isinstance(found.member_count, int) else b"{}"
    added = context.readable("added_members", found.added_members or (), lambda item: (_thread_member(item), item))
    for member, item in added:
        if member.user_id == context.bot:
            fields = add(fields, b'"member":' + item)
    patch: Op = ("patch", guild, "t", found.id, fields, "1")
    if context.bot in (found.removed_member_ids or ()):
        return patch, ("thread_left", guild, found.id)
    return (patch,)


def stage_create(context: Context, data: bytes) -> tuple[Op, ...]:
    """STAGE_INSTANCE_CREATE."""
    found = _in_guild(data)
    return (("put", snowflake(found.guild_id), "g", "0", found.id, data),)


def stage_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """STAGE_INSTANCE_UPDATE."""
    found = _in_guild(data)
    return (("set", snowflake(found.guild_id), "g", "r", found.id, data),)


def stage_delete(context: Context, data: bytes) -> tuple[Op, ...]:
    """STAGE_INSTANCE_DELETE."""
    found = _in_guild(data)
    return (("del", snowflake(found.guild_id), "g", found.id),)


def has_ended(event: pl.ScheduledEvent) -> bool:
    """Whether it is completed or canceled; both are final (Discord's Guild Scheduled Event Status)."""
    return event.status in (3, 4)


def event_create(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_SCHEDULED_EVENT_CREATE."""
    found = _scheduled(data)
    guild = snowflake(found.guild_id)
    return () if has_ended(found) else (("put", guild, "x", "0", found.id, data),)


def event_update(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_SCHEDULED_EVENT_UPDATE merges, since `user_count` may be absent. An ended event is removed."""
    found = _scheduled(data)
    if has_ended(found):
        return (("del", snowflake(found.guild_id), "x", found.id),)
    return (("set", snowflake(found.guild_id), "x", "m", found.id, data),)


def event_delete(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_SCHEDULED_EVENT_DELETE."""
    found = _in_guild(data)
    return (("del", snowflake(found.guild_id), "x", found.id),)


def event_user_add(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_SCHEDULED_EVENT_USER_ADD."""
    found = _event_user(data)
    return (("tally", snowflake(found.guild_id), "x", found.guild_scheduled_event_id, "user_count", "1"),)


def event_user_remove(context: Context, data: bytes) -> tuple[Op, ...]:
    """GUILD_SCHEDULED_EVENT_USER_REMOVE."""
    found = _event_user(data)
    return (("tally", snowflake(found.guild_id), "x", found.guild_scheduled_event_id, "user_count", "-1"),)
