"""The table of cached entities. Settings, translation, the cache check and the guide are driven from it. Pure.

Sources: Discord's Gateway Events and Gateway Intents. CONTRIBUTING.md lists the places that a new entity needs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sandwich_coordinator.types import CacheSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedEntity:
    """One kind of cached object.

    option       its key under `cache` in cluster.yml, and in `CacheSpec` (messages: `messages_per_channel`)
    letter       its name in cache operations and in the letters that a shard keeps; "" for users
    collection   the last part of its key in Redis: a hash by id, one for each guild; "" for other kinds of keys
    intent       the intent whose events keep it true
    required     events without which the cached objects become wrong
    further      events that also change it
    is_default   whether it is kept unless cluster.yml says otherwise
    """

    option: str
    letter: str = ""
    collection: str = ""
    intent: str
    required: tuple[str, ...]
    further: tuple[str, ...] = ()
    is_default: bool = True

    @property
    def events(self) -> tuple[str, ...]:
        """All events that change it, beside those in ALWAYS."""
        return self.required + self.further

    def is_kept(self, spec: CacheSpec) -> bool:
        """Whether an application keeps it. Users also need members, which refer to them: see `kept_entities`."""
        return spec.messages_per_channel > 0 if self.option == "messages" else bool(getattr(spec, self.option))


ALWAYS = ("READY", "GUILD_CREATE", "GUILD_UPDATE", "GUILD_DELETE")
"""Events that change the cache whatever is kept."""

_VOICE_CHANNEL = ("VOICE_CHANNEL_STATUS_UPDATE", "VOICE_CHANNEL_START_TIME_UPDATE")
_EVENT = "GUILD_SCHEDULED_EVENT"
_SOUND = "GUILD_SOUNDBOARD_SOUND"

ENTITIES = (
    CachedEntity(
        option="guilds",
        letter="q",
        intent="GUILDS",
        required=("GUILD_UPDATE", "GUILD_MEMBER_ADD", "GUILD_MEMBER_REMOVE"),
    ),
    CachedEntity(
        option="channels",
        letter="c",
        collection="channels",
        intent="GUILDS",
        required=("CHANNEL_CREATE", "CHANNEL_UPDATE", "CHANNEL_DELETE"),
        further=("CHANNEL_PINS_UPDATE", "CHANNEL_INFO", *_VOICE_CHANNEL, "MESSAGE_CREATE"),
    ),
    CachedEntity(
        option="threads",
        letter="t",
        collection="threads",
        intent="GUILDS",
        required=(
            *("THREAD_CREATE", "THREAD_UPDATE", "THREAD_DELETE", "THREAD_LIST_SYNC", "THREAD_MEMBERS_UPDATE"),
            "CHANNEL_DELETE",
        ),
        further=(
            *("THREAD_MEMBER_UPDATE", "CHANNEL_PINS_UPDATE"),
            *("MESSAGE_CREATE", "MESSAGE_DELETE", "MESSAGE_DELETE_BULK"),
        ),
    ),
    CachedEntity(
        option="roles",
        letter="r",
        collection="roles",
        intent="GUILDS",
        required=("GUILD_ROLE_CREATE", "GUILD_ROLE_UPDATE", "GUILD_ROLE_DELETE", "GUILD_UPDATE"),
    ),
    CachedEntity(
        option="emojis",
        letter="e",
        collection="emojis",
        intent="GUILD_EXPRESSIONS",
        required=("GUILD_EMOJIS_UPDATE", "GUILD_UPDATE"),
    ),
    CachedEntity(
        option="stickers",
        letter="s",
        collection="stickers",
        intent="GUILD_EXPRESSIONS",
        required=("GUILD_STICKERS_UPDATE", "GUILD_UPDATE"),
    ),
    CachedEntity(
        option="members",
        letter="m",
        collection="members",
        intent="GUILD_MEMBERS",
        required=("GUILD_MEMBER_ADD", "GUILD_MEMBER_UPDATE", "GUILD_MEMBER_REMOVE"),
        further=("GUILD_MEMBERS_CHUNK", "GUILD_ROLE_DELETE"),
    ),
    CachedEntity(
        option="users",
        intent="GUILD_MEMBERS",
        required=("USER_UPDATE",),
        further=("PRESENCE_UPDATE",),
    ),
    CachedEntity(
        option="voice_states",
        letter="v",
        collection="voice",
        intent="GUILD_VOICE_STATES",
        required=("VOICE_STATE_UPDATE", "GUILD_MEMBER_REMOVE", "CHANNEL_DELETE"),
        further=("GUILD_MEMBER_ADD",),
    ),
    CachedEntity(
        option="presences",
        letter="p",
        collection="presences",
        intent="GUILD_PRESENCES",
        required=("PRESENCE_UPDATE", "GUILD_MEMBER_REMOVE"),
        further=("GUILD_MEMBERS_CHUNK", "GUILD_MEMBER_ADD"),
        is_default=False,
    ),
    CachedEntity(
        option="scheduled_events",
        letter="x",
        collection="events",
        intent="GUILD_SCHEDULED_EVENTS",
        required=(f"{_EVENT}_CREATE", f"{_EVENT}_UPDATE", f"{_EVENT}_DELETE", "CHANNEL_DELETE"),
        further=(f"{_EVENT}_USER_ADD", f"{_EVENT}_USER_REMOVE"),
    ),
    CachedEntity(
        option="stages",
        letter="g",
        collection="stages",
        intent="GUILDS",
        required=("STAGE_INSTANCE_CREATE", "STAGE_INSTANCE_UPDATE", "STAGE_INSTANCE_DELETE", "CHANNEL_DELETE"),
    ),
    CachedEntity(
        option="sounds",
        letter="o",
        collection="sounds",
        intent="GUILD_EXPRESSIONS",
        required=(f"{_SOUND}_CREATE", f"{_SOUND}_UPDATE", f"{_SOUND}_DELETE", f"{_SOUND}S_UPDATE"),
        further=("SOUNDBOARD_SOUNDS",),
    ),
    CachedEntity(
        option="messages",
        letter="w",
        intent="GUILD_MESSAGES",
        required=(
            *("MESSAGE_CREATE", "MESSAGE_UPDATE", "MESSAGE_DELETE", "MESSAGE_DELETE_BULK"),
            *("CHANNEL_DELETE", "THREAD_DELETE"),
        ),
        is_default=False,
    ),
)
"""In the order of cluster.example.yml; the order of the letters follows from it."""

COLLECTIONS: Mapping[str, CachedEntity] = MappingProxyType(
    {entity.letter: entity for entity in ENTITIES if entity.collection}
)
"""The entities that are collections of a guild, by letter."""


def kept_entities(spec: CacheSpec) -> Iterator[CachedEntity]:
    """The entities that a shard stores with these settings."""
    for entity in ENTITIES:
        if entity.is_kept(spec) and (entity.option != "users" or spec.members):
            yield entity
