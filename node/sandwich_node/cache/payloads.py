"""What the cache needs to read of events: ids, and what is stored as it stands. Everything else is not parsed.

Sources: Discord's Gateway Events and the objects they carry.
"""

from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

Optional = str | UnsetType


class Identified(Struct, frozen=True, gc=False):
    """Any object with an id."""

    id: str


class InGuild(Struct, frozen=True, gc=False):
    """An object with an id that may say which guild it is in."""

    id: str
    guild_id: Optional = UNSET


class Ready(Struct, frozen=True):
    """READY."""

    user: Raw
    guilds: list[Identified]


class GuildGone(Struct, frozen=True, gc=False):
    """GUILD_DELETE."""

    id: str
    unavailable: bool | UnsetType = UNSET


class Pins(Struct, frozen=True):
    """CHANNEL_PINS_UPDATE."""

    channel_id: str
    guild_id: Optional = UNSET
    last_pin_timestamp: Raw = Raw(b"null")


class VoiceChannel(Struct, frozen=True):
    """VOICE_CHANNEL_STATUS_UPDATE, VOICE_CHANNEL_START_TIME_UPDATE, and a channel of CHANNEL_INFO."""

    id: str
    guild_id: Optional = UNSET
    status: Raw | UnsetType = UNSET
    voice_start_time: Raw | UnsetType = UNSET


class ChannelInfo(Struct, frozen=True):
    """CHANNEL_INFO."""

    guild_id: str
    channels: list[VoiceChannel]


class ThreadMetadata(Struct, frozen=True, gc=False):
    """Whether a thread is archived."""

    archived: bool = False


class Thread(Struct, frozen=True):
    """THREAD_CREATE, THREAD_UPDATE, THREAD_DELETE."""

    id: str
    guild_id: Optional = UNSET
    parent_id: str | None = None
    newly_created: bool = False
    thread_metadata: ThreadMetadata = ThreadMetadata()


class ThreadMember(Struct, frozen=True):
    """THREAD_MEMBER_UPDATE, and the members of THREAD_LIST_SYNC; `id` is the thread's."""

    id: Optional = UNSET
    user_id: Optional = UNSET
    guild_id: Optional = UNSET


class ThreadListSync(Struct, frozen=True):
    """THREAD_LIST_SYNC."""

    guild_id: str
    threads: list[Raw]
    members: list[Raw] = []
    channel_ids: list[str] | UnsetType = UNSET


class ThreadMembers(Struct, frozen=True):
    """THREAD_MEMBERS_UPDATE."""

    id: str
    guild_id: str
    member_count: int
    added_members: list[Raw] = []
    removed_member_ids: list[str] = []


class RoleIn(Struct, frozen=True):
    """GUILD_ROLE_CREATE and GUILD_ROLE_UPDATE."""

    guild_id: str
    role: Raw


class RoleGone(Struct, frozen=True, gc=False):
    """GUILD_ROLE_DELETE."""

    guild_id: str
    role_id: str


class Emojis(Struct, frozen=True):
    """GUILD_EMOJIS_UPDATE."""

    guild_id: str
    emojis: list[Raw]


class Stickers(Struct, frozen=True):
    """GUILD_STICKERS_UPDATE."""

    guild_id: str
    stickers: list[Raw]


class Sound(Struct, frozen=True, gc=False):
    """GUILD_SOUNDBOARD_SOUND_CREATE, _UPDATE and _DELETE. Default sounds have no guild."""

    sound_id: str | int
    guild_id: Optional = UNSET


class Sounds(Struct, frozen=True):
    """GUILD_SOUNDBOARD_SOUNDS_UPDATE and SOUNDBOARD_SOUNDS."""

    guild_id: str
    soundboard_sounds: list[Raw]


class Member(Struct, frozen=True):
    """GUILD_MEMBER_ADD, _UPDATE and _REMOVE, and any member that comes with its user."""

    user: Raw
    guild_id: Optional = UNSET


class Members(Struct, frozen=True):
    """GUILD_MEMBERS_CHUNK."""

    guild_id: str
    members: list[Raw]
    presences: list[Raw] = []


class Presence(Struct, frozen=True):
    """PRESENCE_UPDATE."""

    user: Raw
    guild_id: Optional = UNSET
    status: Any = UNSET


class VoiceState(Struct, frozen=True):
    """VOICE_STATE_UPDATE."""

    user_id: str
    channel_id: str | None = None
    guild_id: Optional = UNSET
    member: Raw | UnsetType = UNSET


class ScheduledEventUser(Struct, frozen=True, gc=False):
    """GUILD_SCHEDULED_EVENT_USER_ADD and _REMOVE."""

    guild_scheduled_event_id: str
    guild_id: str


class Message(Struct, frozen=True, gc=False):
    """MESSAGE_CREATE, MESSAGE_UPDATE and MESSAGE_DELETE."""

    id: str
    channel_id: str
    guild_id: Optional = UNSET


class Messages(Struct, frozen=True):
    """MESSAGE_DELETE_BULK."""

    ids: list[str]
    channel_id: str
    guild_id: Optional = UNSET


class Seen(Struct, frozen=True):
    """Somebody seen in passing: MESSAGE_CREATE, MESSAGE_REACTION_ADD, TYPING_START."""

    guild_id: Optional = UNSET
    author: Raw | UnsetType = UNSET
    member: Raw | UnsetType = UNSET


class GuildLists(Struct, frozen=True):
    """What GUILD_CREATE and GUILD_UPDATE list beside the guild's own fields. Absent lists are left as they are."""

    id: str
    unavailable: bool | UnsetType = UNSET
    roles: list[Raw] | UnsetType = UNSET
    emojis: list[Raw] | UnsetType = UNSET
    stickers: list[Raw] | UnsetType = UNSET
    channels: list[Raw] | UnsetType = UNSET
    threads: list[Raw] | UnsetType = UNSET
    members: list[Raw] | UnsetType = UNSET
    presences: list[Raw] | UnsetType = UNSET
    voice_states: list[Raw] | UnsetType = UNSET
    stage_instances: list[Raw] | UnsetType = UNSET
    guild_scheduled_events: list[Raw] | UnsetType = UNSET
    soundboard_sounds: list[Raw] | UnsetType = UNSET


decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
"""The top level of an object, every value as it stands."""
