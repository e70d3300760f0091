"""Translates one dispatch into cache operations. Pure; the operations do not depend on the Redis setup.

Sources of the rules: Discord's Gateway Events. docs/guide/cache.md describes what each event changes.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec
from msgspec import UNSET, UnsetType

from sandwich_coordinator.cache_entities import ALWAYS, kept_entities
from sandwich_coordinator.types import CacheSpec
from sandwich_node.cache import channels, guilds, members, messages
from sandwich_node.cache import payloads as pl
from sandwich_node.cache.context import UNREADABLE, BadEvent, Context, Op, Translation, snowflake
from sandwich_node.cache.json_patch import compact
from sandwich_node.cache.settings import CacheWriter

LEARNED_MAX = 8192
"""Members known as stored, so that an active member is not stored again with every message."""

_seen = msgspec.json.Decoder(pl.Seen).decode

TRANSLATIONS: Mapping[str, Translation] = MappingProxyType(
    {
        "READY": guilds.ready,
        "GUILD_CREATE": guilds.guild_create,
        "GUILD_UPDATE": guilds.guild_update,
        "GUILD_DELETE": guilds.guild_delete,
        "CHANNEL_CREATE": channels.channel_create,
        "CHANNEL_UPDATE": channels.channel_update,
        "CHANNEL_DELETE": channels.channel_delete,
        "CHANNEL_PINS_UPDATE": channels.channel_pins_update,
        "CHANNEL_INFO": channels.channel_info,
        "VOICE_CHANNEL_STATUS_UPDATE": channels.voice_channel_update,
        "VOICE_CHANNEL_START_TIME_UPDATE": channels.voice_channel_update,
        "THREAD_CREATE": channels.thread_create,
        "THREAD_UPDATE": channels.thread_update,
        "THREAD_DELETE": channels.thread_delete,
        "THREAD_LIST_SYNC": channels.thread_list_sync,
        "THREAD_MEMBER_UPDATE": channels.thread_member_update,
        "THREAD_MEMBERS_UPDATE": channels.thread_members_update,
        "GUILD_ROLE_CREATE": guilds.role_create,
        "GUILD_ROLE_UPDATE": guilds.role_update,
        "GUILD_ROLE_DELETE": guilds.role_delete,
        "GUILD_EMOJIS_UPDATE": guilds.emojis_update,
        "GUILD_STICKERS_UPDATE": guilds.stickers_update,
        "GUILD_SOUNDBOARD_SOUND_CREATE": guilds.sound_create,
        "GUILD_SOUNDBOARD_SOUND_UPDATE": guilds.sound_update,
        "GUILD_SOUNDBOARD_SOUND_DELETE": guilds.sound_delete,
        "GUILD_SOUNDBOARD_SOUNDS_UPDATE": guilds.sounds_update,
        "SOUNDBOARD_SOUNDS": guilds.sounds,
        "GUILD_MEMBER_ADD": members.member_add,
        "GUILD_MEMBER_UPDATE": members.member_update,
        "GUILD_MEMBER_REMOVE": members.member_remove,
        "GUILD_MEMBERS_CHUNK": members.members_chunk,
        "PRESENCE_UPDATE": members.presence_update,
        "USER_UPDATE": members.user_update,
        "VOICE_STATE_UPDATE": members.voice_state_update,
        "STAGE_INSTANCE_CREATE": channels.stage_create,
        "STAGE_INSTANCE_UPDATE": channels.stage_update,
        "STAGE_INSTANCE_DELETE": channels.stage_delete,
        "GUILD_SCHEDULED_EVENT_CREATE": channels.event_create,
        "GUILD_SCHEDULED_EVENT_UPDATE": channels.event_update,
        "GUILD_SCHEDULED_EVENT_DELETE": channels.event_delete,
        "GUILD_SCHEDULED_EVENT_USER_ADD": channels.event_user_add,
        "GUILD_SCHEDULED_EVENT_USER_REMOVE": channels.event_user_remove,
        "MESSAGE_CREATE": messages.message_create,
        "MESSAGE_UPDATE": messages.message_update,
        "MESSAGE_DELETE": messages.message_delete,
        "MESSAGE_DELETE_BULK": messages.message_delete_bulk,
    }
)
"""By event type. Which of them apply follows from the table of cached entities."""

_OF_MESSAGES = frozenset({"MESSAGE_CREATE", "MESSAGE_UPDATE", "MESSAGE_DELETE", "MESSAGE_DELETE_BULK"})

_BEFORE_FROM: Mapping[str, str] = MappingProxyType(
    {
        "PRESENCE_UPDATE": "p",
        "GUILD_ROLE_DELETE": "r",
        "CHANNEL_DELETE": "c",
        "THREAD_DELETE": "t",
        "GUILD_MEMBER_REMOVE": "m",
    }
)
"""Events that matter even if their own entity is not kept, with the collection that `before` comes from."""

_REPLACING = ("_UPDATE", "_DELETE", "_DELETE_BULK", "GUILD_MEMBER_REMOVE")

_SHOW_MEMBERS = frozenset({"MESSAGE_CREATE", "MESSAGE_REACTION_ADD", "TYPING_START", "VOICE_STATE_UPDATE"})


def _translations(settings: CacheSpec) -> dict[str, Translation]:
    """The translations for these cache settings, by event type."""
    events = {name for entity in kept_entities(settings) for name in entity.events}
    return {name: TRANSLATIONS[name] for name in events.union(ALWAYS)}


class Translator:
    """Translates one shard's events into operations. Its only state is the members learned from other events."""

    def __init__(self, writer: CacheWriter) -> None:
        settings = writer.settings
        self._context = Context(settings, writer.bot, settings.members and not writer.receives_members)
        self._translations = _translations(settings)
        self._learned: dict[tuple[str, str], int] = {}
        self._learned_before: dict[tuple[str, str], int] = {}

    def concerns(self, event_type: str) -> bool:
        """Whether an event of this type can change the cache."""
        return event_type in self._translations or (self._context.learns and event_type in _SHOW_MEMBERS)

    def reports_before(self, event_type: str) -> bool:
        """Whether an event of this type is published with the value that it replaced."""
        if event_type in _BEFORE_FROM and _BEFORE_FROM[event_type] not in self._context.letters:
            return False
        if event_type in _OF_MESSAGES and not self._context.settings.messages_per_channel:
            return False
        return event_type in self._translations and event_type.endswith(_REPLACING)

    def translate(self, event_type: str, data: bytes) -> tuple[Op, ...]:
        """The operations for one event, given the JSON of its `d`. Raises BadEvent for an undocumented form.

        Unreadable items of its lists are left out; they are in `lost` until the next event.
        """
        self._context.lost.clear()
        translation = self._translations.get(event_type)
        learns = self._context.learns and event_type in _SHOW_MEMBERS
        if event_type in ALWAYS:
            # These replace or remove members: a learned member may be gone.
            self.forget()
        if translation is None and not learns:
            return ()
        try:
            data = compact(data)
            ops = translation(self._context, data) if translation is not None else ()
            return (*ops, *self._learn(data)) if learns else ops
        except UNREADABLE as error:
            # The cause would contain the event; its type is enough.
            raise BadEvent(f"{event_type} does not have the documented form ({type(error).__name__})") from None

    @property
    def lost(self) -> tuple[str, ...]:
        """The unreadable parts of the last event: the names of the lists, once for each item."""
        return tuple(self._context.lost)

    def forget(self) -> None:
        """Learned members may not be stored any more: learn them again."""
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
