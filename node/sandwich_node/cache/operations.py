"""From one dispatch to cache operations. Pure: what is read, what is stored, nothing about where.

Sources of the rules: Discord's Gateway Events; docs/guide/cache.md says what each event changes.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec
from msgspec import UNSET, UnsetType

from sandwich_node.cache import channels, guilds, members, messages
from sandwich_node.cache import payloads as pl
from sandwich_node.cache.context import UNREADABLE, BadEvent, Context, Op, Translation, snowflake
from sandwich_node.cache.json_patch import compact
from sandwich_node.cache.settings import CacheWriter

LEARNED_MAX = 8192
"""Members seen in passing that are remembered as stored, so that a chatty one is not stored with every message."""

_seen = msgspec.json.Decoder(pl.Seen).decode

_ALWAYS: Mapping[str, Translation] = MappingProxyType(
    {
        "READY": guilds.ready,
        "GUILD_CREATE": guilds.guild_create,
        "GUILD_UPDATE": guilds.guild_update,
        "GUILD_DELETE": guilds.guild_delete,
    }
)

_OF_COLLECTION: Mapping[str, tuple[str, Translation]] = MappingProxyType(
    {
        "CHANNEL_CREATE": ("c", channels.channel_create),
        "CHANNEL_UPDATE": ("c", channels.channel_update),
        "CHANNEL_DELETE": ("ctgxv", channels.channel_delete),
        "CHANNEL_PINS_UPDATE": ("ct", channels.channel_pins_update),
        "CHANNEL_INFO": ("c", channels.channel_info),
        "VOICE_CHANNEL_STATUS_UPDATE": ("c", channels.voice_channel_update),
        "VOICE_CHANNEL_START_TIME_UPDATE": ("c", channels.voice_channel_update),
        "THREAD_CREATE": ("t", channels.thread_create),
        "THREAD_UPDATE": ("t", channels.thread_update),
        "THREAD_DELETE": ("t", channels.thread_delete),
        "THREAD_LIST_SYNC": ("t", channels.thread_list_sync),
        "THREAD_MEMBER_UPDATE": ("t", channels.thread_member_update),
        "THREAD_MEMBERS_UPDATE": ("t", channels.thread_members_update),
        "GUILD_ROLE_CREATE": ("r", guilds.role_create),
        "GUILD_ROLE_UPDATE": ("r", guilds.role_update),
        "GUILD_ROLE_DELETE": ("rm", guilds.role_delete),
        "GUILD_EMOJIS_UPDATE": ("e", guilds.emojis_update),
        "GUILD_STICKERS_UPDATE": ("s", guilds.stickers_update),
        "GUILD_SOUNDBOARD_SOUND_CREATE": ("o", guilds.sound_create),
        "GUILD_SOUNDBOARD_SOUND_UPDATE": ("o", guilds.sound_update),
        "GUILD_SOUNDBOARD_SOUND_DELETE": ("o", guilds.sound_delete),
        "GUILD_SOUNDBOARD_SOUNDS_UPDATE": ("o", guilds.sounds_update),
        "SOUNDBOARD_SOUNDS": ("o", guilds.sounds),
        "GUILD_MEMBER_UPDATE": ("m", members.member_update),
        "GUILD_MEMBERS_CHUNK": ("mp", members.members_chunk),
        "VOICE_STATE_UPDATE": ("v", members.voice_state_update),
        "STAGE_INSTANCE_CREATE": ("g", channels.stage_create),
        "STAGE_INSTANCE_UPDATE": ("g", channels.stage_update),
        "STAGE_INSTANCE_DELETE": ("g", channels.stage_delete),
        "GUILD_SCHEDULED_EVENT_CREATE": ("x", channels.event_create),
        "GUILD_SCHEDULED_EVENT_UPDATE": ("x", channels.event_update),
        "GUILD_SCHEDULED_EVENT_DELETE": ("x", channels.event_delete),
        "GUILD_SCHEDULED_EVENT_USER_ADD": ("x", channels.event_user_add),
        "GUILD_SCHEDULED_EVENT_USER_REMOVE": ("x", channels.event_user_remove),
    }
)
"""Events that matter while any of these collections is on."""

_OF_MESSAGES: Mapping[str, Translation] = MappingProxyType(
    {
        "MESSAGE_CREATE": messages.message_create,
        "MESSAGE_UPDATE": messages.message_update,
        "MESSAGE_DELETE": messages.message_delete,
        "MESSAGE_DELETE_BULK": messages.message_delete_bulk,
    }
)

_ENDING_PLACES: Mapping[str, Translation] = MappingProxyType(
    {"CHANNEL_DELETE": channels.channel_delete, "THREAD_DELETE": channels.thread_delete}
)
"""With a place go its messages."""

_TOLD_OF: Mapping[str, str] = MappingProxyType(
    {
        "PRESENCE_UPDATE": "p",
        "GUILD_ROLE_DELETE": "r",
        "CHANNEL_DELETE": "c",
        "THREAD_DELETE": "t",
        "GUILD_MEMBER_REMOVE": "m",
    }
)
"""Events that also matter where what they are about is not kept: by the collection that `before` is from."""

_REPLACING = ("_UPDATE", "_DELETE", "_DELETE_BULK", "GUILD_MEMBER_REMOVE")

_SHOW_MEMBERS = frozenset({"MESSAGE_CREATE", "MESSAGE_REACTION_ADD", "TYPING_START", "VOICE_STATE_UPDATE"})


def _translations(context: Context) -> dict[str, Translation]:
    """What there is to do for whom caches this, by event type."""
    made: dict[str, Translation] = dict(_ALWAYS)
    for name, (letters, translation) in _OF_COLLECTION.items():
        if context.letters.intersection(letters):
            made[name] = translation
    if context.settings.members or context.settings.guilds or context.letters.intersection("vp"):
        # The guild's member_count depends on these, even where members are not kept; so do presences and voice states.
        made["GUILD_MEMBER_ADD"] = members.member_add
        made["GUILD_MEMBER_REMOVE"] = members.member_remove
    if context.keeps_users:
        made["USER_UPDATE"] = members.user_update
    if context.keeps_users or "p" in context.letters:
        made["PRESENCE_UPDATE"] = members.presence_update
    if context.settings.messages_per_channel:
        made |= _ENDING_PLACES
    if context.settings.messages_per_channel or context.letters.intersection("ct"):
        made |= _OF_MESSAGES
    return made


class Translator:
    """Turns one shard's events into operations. Remembers only which members it has seen in passing."""

    def __init__(self, writer: CacheWriter) -> None:
        settings = writer.settings
        self._context = Context(settings, writer.bot, settings.members and not writer.receives_members)
        self._translations = _translations(self._context)
        self._learned: dict[tuple[str, str], int] = {}
        self._learned_before: dict[tuple[str, str], int] = {}

    def concerns(self, event_type: str) -> bool:
        """Whether an event of this type can change the cache."""
        return event_type in self._translations or (self._context.learns and event_type in _SHOW_MEMBERS)

    def has_before(self, event_type: str) -> bool:
        """Whether an event of this type is told with what it replaced."""
        if event_type in _TOLD_OF and _TOLD_OF[event_type] not in self._context.letters:
            return False
        if event_type in _OF_MESSAGES and not self._context.settings.messages_per_channel:
            return False
        return event_type in self._translations and event_type.endswith(_REPLACING)

    def translate(self, event_type: str, data: bytes) -> tuple[Op, ...]:
        """The operations for one event, given the JSON of its `d`. Raises BadEvent when it has not the known shape.

        What of its lists cannot be read is left out, and is in `lost` until the next event.
        """
        self._context.lost.clear()
        translation = self._translations.get(event_type)
        learns = self._context.learns and event_type in _SHOW_MEMBERS
        if event_type in _ALWAYS:
            # These replace or remove members: who was learned may be gone.
            self.forget()
        if translation is None and not learns:
            return ()
        try:
            data = compact(data)
            ops = translation(self._context, data) if translation is not None else ()
            return (*ops, *self._learn(data)) if learns else ops
        except UNREADABLE as error:
            # The cause would carry the event; its kind is enough.
            raise BadEvent(f"{event_type} has not the known shape ({type(error).__name__})") from None

    @property
    def lost(self) -> tuple[str, ...]:
        """What of the last event could not be read: the names of lists, once for each item."""
        return tuple(self._context.lost)

    def forget(self) -> None:
        """What was learned may not be stored: learn it again."""
        self._learned.clear()
        self._learned_before.clear()

    def _learn(self, data: bytes) -> tuple[Op, ...]:
        found = _seen(data)
        if isinstance(found.member, UnsetType) or found.guild_id is UNSET:
            return ()
        author = None if isinstance(found.author, UnsetType) else bytes(found.author)
        guild_id = snowflake(found.guild_id)
        learned = self._context.readable(
            "member", [found.member], lambda member: members.learn_ops(self._context, guild_id, author, member)
        )
        if not learned:
            return ()
        (ops,) = learned
        _, guild, user, member, whole = ops[0]
        key, content = (str(guild), str(user)), hash((member, whole))
        if self._learned.get(key) == content:
            return ()
        was_known = self._learned_before.get(key) == content
        if len(self._learned) >= LEARNED_MAX:
            self._learned_before, self._learned = self._learned, {}
        self._learned[key] = content
        return () if was_known else ops
