"""The parts of events that the cache reads: ids, and values that are stored unchanged. Nothing else is parsed.

Sources: Discord's Gateway Events and the objects they carry.
"""

from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

Optional = str | UnsetType
List = Raw | UnsetType
"""A list that is decoded later, item by item."""


class AnyObject(Struct, frozen=True, gc=False):
    """Any JSON object."""


class Identified(Struct, frozen=True, gc=False):
    """Any object with an id."""

    id: str


class InGuild(Struct, frozen=True, gc=False):
    """An object with an id, and possibly the id of its guild."""

    id: str
    guild_id: Optional = UNSET


class Ready(Struct, frozen=True):
    """READY."""

    guilds: list[Raw]
    user: Raw = Raw(b"null")


class GuildGone(Struct, frozen=True, gc=False):
    """GUILD_DELETE."""

    id: str
    unavailable: Any = UNSET


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
    channels: list[Raw]


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
    members: list[Raw] | None = None
    channel_ids: list[str] | None = None


class ThreadMembers(Struct, frozen=True):
    """THREAD_MEMBERS_UPDATE."""

    id: str
    guild_id: str
    member_count: Any = UNSET
    added_members: list[Raw] | None = None
    removed_member_ids: list[Any] | None = None


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
    members: List = UNSET
    presences: List = UNSET


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


class ScheduledEvent(Struct, frozen=True, gc=False):
    """GUILD_SCHEDULED_EVENT_CREATE and _UPDATE, and those that GUILD_CREATE lists."""

    id: str
    guild_id: Optional = UNSET
    status: Any = UNSET


class ScheduledEventUser(Struct, frozen=True, gc=False):
    """GUILD_SCHEDULED_EVENT_USER_ADD and _REMOVE."""

    guild_scheduled_event_id: str
    guild_id: str


class Message(Struct, frozen=True, gc=False):
    """MESSAGE_CREATE and MESSAGE_DELETE."""

    id: str
    channel_id: str
    guild_id: Optional = UNSET


class MessageChange(Struct, frozen=True):
    """MESSAGE_UPDATE. A whole message has an author and a content, if only an empty one."""

    id: str
    channel_id: str
    guild_id: Optional = UNSET
    author: Raw | UnsetType = UNSET
    content: Raw | UnsetType = UNSET


class Messages(Struct, frozen=True):
    """MESSAGE_DELETE_BULK."""

    ids: list[Any]
    channel_id: str
    guild_id: Optional = UNSET


class Seen(Struct, frozen=True):
    """An event that contains a member: MESSAGE_CREATE, MESSAGE_REACTION_ADD, TYPING_START."""

    guild_id: Optional = UNSET
    author: Raw | UnsetType = UNSET
    member: Raw | UnsetType = UNSET


class GuildLists(Struct, frozen=True):
    """The lists in GUILD_CREATE and GUILD_UPDATE. An absent list leaves the cache unchanged.

    The lists are read one by one, so that a damaged one does not cost the others.
    """

    id: str
    unavailable: Any = UNSET
    roles: List = UNSET
    emojis: List = UNSET
    stickers: List = UNSET
    channels: List = UNSET
    threads: List = UNSET
    members: List = UNSET
    presences: List = UNSET
    voice_states: List = UNSET
    stage_instances: List = UNSET
    guild_scheduled_events: List = UNSET
    soundboard_sounds: List = UNSET


decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
"""The top level of an object, with undecoded values."""
