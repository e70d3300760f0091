"""What an application's `cache`, `events` and `invites` may say (pydantic), and how they are stored (`types`). Pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from sandwich_coordinator.config_values import Duration, ListOf, Name, Section, seconds
from sandwich_coordinator.event_names import DOCUMENTED, check_pattern, matches, matches_any
from sandwich_coordinator.intents import INTENTS
from sandwich_coordinator.types import AppRecord, CacheSpec, EventsSpec, InvitesSpec, LaneSpec, PrefixSpec

PREFIX_CHARACTERS_MAX = 64
LANES_MAX = 16
DEFAULT_LANE = "all"

MAINTAINED_BY: Mapping[str, str] = MappingProxyType(
    {
        "guilds": "GUILD_UPDATE GUILD_MEMBER_ADD GUILD_MEMBER_REMOVE",
        "channels": "CHANNEL_CREATE CHANNEL_UPDATE CHANNEL_DELETE",
        "threads": "THREAD_CREATE THREAD_UPDATE THREAD_DELETE THREAD_LIST_SYNC THREAD_MEMBERS_UPDATE CHANNEL_DELETE",
        "roles": "GUILD_ROLE_CREATE GUILD_ROLE_UPDATE GUILD_ROLE_DELETE GUILD_UPDATE",
        "emojis": "GUILD_EMOJIS_UPDATE GUILD_UPDATE",
        "stickers": "GUILD_STICKERS_UPDATE GUILD_UPDATE",
        "members": "GUILD_MEMBER_ADD GUILD_MEMBER_UPDATE GUILD_MEMBER_REMOVE",
        "users": "USER_UPDATE",
        "voice_states": "VOICE_STATE_UPDATE GUILD_MEMBER_REMOVE CHANNEL_DELETE",
        "presences": "PRESENCE_UPDATE GUILD_MEMBER_REMOVE",
        "scheduled_events": (
            "GUILD_SCHEDULED_EVENT_CREATE GUILD_SCHEDULED_EVENT_UPDATE GUILD_SCHEDULED_EVENT_DELETE CHANNEL_DELETE"
        ),
        "stages": "STAGE_INSTANCE_CREATE STAGE_INSTANCE_UPDATE STAGE_INSTANCE_DELETE CHANNEL_DELETE",
        "sounds": (
            "GUILD_SOUNDBOARD_SOUND_CREATE GUILD_SOUNDBOARD_SOUND_UPDATE GUILD_SOUNDBOARD_SOUND_DELETE "
            "GUILD_SOUNDBOARD_SOUNDS_UPDATE"
        ),
        "messages": "MESSAGE_CREATE MESSAGE_UPDATE MESSAGE_DELETE MESSAGE_DELETE_BULK CHANNEL_DELETE THREAD_DELETE",
    }
)
"""Events without which what is cached of an entity becomes wrong."""

_JOIN = "GUILD_MEMBER_ADD"
_ALWAYS_NEEDED = ("READY", "GUILD_CREATE", "GUILD_DELETE")
_Pattern = Annotated[str, AfterValidator(check_pattern)]


class MessagesConfig(Section):
    """Messages of guilds that are kept: at most `per_channel` of each channel, none longer than `ttl`."""

    per_channel: int = Field(default=50, ge=1, le=1000)
    ttl: Annotated[Duration, seconds(1, 7 * 86_400)] = 3600.0


class CacheConfig(Section):
    """What is kept in Redis. `namespace`: applications with the same one share it; default: the application's name."""

    enabled: bool = True
    namespace: Name | None = None
    guilds: bool = True
    channels: bool = True
    threads: bool = True
    roles: bool = True
    emojis: bool = True
    stickers: bool = True
    members: bool = True
    users: bool = True
    voice_states: bool = True
    presences: bool = False
    scheduled_events: bool = True
    stages: bool = True
    sounds: bool = True
    messages: MessagesConfig | None = None
    chunk_members: bool = False

    @model_validator(mode="after")
    def _members_needed(self) -> Self:
        if self.chunk_members and not self.members:
            raise ValueError("chunk_members fetches members to keep them: it needs members: true")
        return self

    def spec(self) -> CacheSpec:
        """As stored."""
        switches = self.model_dump(exclude={"namespace", "messages"})
        messages = self.messages
        return CacheSpec(
            namespace=self.namespace or "",
            messages_per_channel=messages.per_channel if messages else 0,
            messages_ttl_s=int(messages.ttl) if messages else CacheSpec().messages_ttl_s,
            **switches,
        )


class PrefixConfig(Section):
    """Publish only messages that begin with a prefix: the guild's own (in Redis), else `fallback`, or a mention."""

    fallback: str = Field(default="", max_length=PREFIX_CHARACTERS_MAX)
    mention: bool = True


class LaneConfig(Section):
    """Event types that travel on a subject of their own. `max_age`: kept that long, null as the stream."""

    types: ListOf[_Pattern] = Field(min_length=1)
    max_age: Annotated[Duration, seconds(60, 31_536_000)] | None = None


class EventsConfig(Section):
    """What becomes of events; may be changed while shards run."""

    ignore: ListOf[_Pattern] = ()
    cache_only: ListOf[_Pattern] = ()
    ignore_bots: bool = False
    prefixes: PrefixConfig | None = None
    lanes: dict[Name, LaneConfig] = Field(default={}, max_length=LANES_MAX)

    @model_validator(mode="after")
    def _lanes_apart(self) -> Self:
        if DEFAULT_LANE in self.lanes:
            raise ValueError(f"lane {DEFAULT_LANE!r} is where all other types go: give yours another name")
        taken: dict[str, str] = {}
        for lane, config in self.lanes.items():
            for name in sorted(DOCUMENTED):
                if matches_any(config.types, name) and taken.setdefault(name, lane) != lane:
                    raise ValueError(f"{name} is in lanes {taken[name]!r} and {lane!r}: each type has one")
        for pattern in self.ignore:
            if any(matches(pattern, name) for name in ("READY", "RESUMED")):
                raise ValueError("READY and RESUMED cannot be ignored: say cache_only to keep them from consumers")
        return self

    def spec(self) -> EventsSpec:
        """As stored."""
        prefixes = self.prefixes
        return EventsSpec(
            ignore=list(self.ignore),
            cache_only=list(self.cache_only),
            ignore_bots=self.ignore_bots,
            prefixes=PrefixSpec(fallback=prefixes.fallback, mention=prefixes.mention) if prefixes else None,
            lanes={
                name: LaneSpec(types=list(lane.types), max_age_s=lane.max_age or 0.0)
                for name, lane in self.lanes.items()
            },
        )


class InvitesConfig(Section):
    """`track`: GUILD_MEMBER_ADD tells by whose invite. `hold`: how long a join may wait for the answer."""

    track: bool = False
    hold: Annotated[Duration, seconds(0, 5)] = 0.3

    def spec(self) -> InvitesSpec:
        """As stored."""
        return InvitesSpec(track=self.track, hold_ms=round(self.hold * 1000, 3))


def option_problems(cache: CacheSpec, events: EventsSpec, intents: int) -> list[tuple[str, str]]:
    """(key, what is wrong) of settings that contradict each other."""
    found = []
    if cache.enabled:
        entities = [name for name in MAINTAINED_BY if is_cached(cache, name)]
        for pattern in events.ignore:
            broken = [name for name in entities if any(matches(pattern, e) for e in MAINTAINED_BY[name].split())]
            if any(matches(pattern, name) for name in _ALWAYS_NEEDED):
                found.append(("events.ignore", f"{pattern} would leave the cache empty or wrong: say cache_only"))
            elif broken:
                text = f"without {pattern} what is cached of {', '.join(broken)} becomes wrong"
                found.append(("events.ignore", f"{text}: say cache_only, or switch it off under cache"))
        if cache.chunk_members and not intents & INTENTS["GUILD_MEMBERS"]:
            found.append(("cache.chunk_members", "asking for all members needs the intent GUILD_MEMBERS"))
    return found


def option_warnings(cache: CacheSpec, events: EventsSpec, invites: InvitesSpec, intents: int) -> list[tuple[str, str]]:
    """(key, what will not work as it looks)."""
    has = {name for name, bit in INTENTS.items() if intents & bit}
    found = []
    if events.prefixes is not None and "MESSAGE_CONTENT" not in has:
        text = (
            "without the intent MESSAGE_CONTENT most messages arrive empty: only those that mention the bot can match"
        )
        found.append(("events.prefixes", text))
    if events.prefixes is not None and not cache.enabled:
        found.append(
            ("events.prefixes", "guilds' own prefixes are read from the cache's namespace, although it is off")
        )
    if cache.enabled and cache.presences and "GUILD_PRESENCES" not in has:
        found.append(("cache.presences", "nothing will be there without the intent GUILD_PRESENCES"))
    if cache.enabled and cache.messages_per_channel and "MESSAGE_CONTENT" not in has:
        found.append(("cache.messages", "most will be empty without the intent MESSAGE_CONTENT"))
    if invites.track and (missing := {"GUILDS", "GUILD_INVITES", "GUILD_MEMBERS"} - has):
        text = (
            f"needs the intent{'s' * (len(missing) > 1)} {' and '.join(sorted(missing))}: joins will not be told apart"
        )
        found.append(("invites.track", text))
    if invites.track and matches_any([*events.ignore, *events.cache_only], _JOIN):
        found.append(("invites.track", f"{_JOIN} is kept from consumers under events: nobody is told of joins"))
    return found


def is_cached(cache: CacheSpec, entity: str) -> bool:
    """Whether a kind of entity (a key of MAINTAINED_BY) is kept."""
    return cache.messages_per_channel > 0 if entity == "messages" else bool(getattr(cache, entity))


def sharing_problems(caches: Mapping[str, CacheSpec]) -> list[tuple[str, str, str]]:
    """(application, key, what is wrong) where applications share a namespace and store the same thing differently."""
    found = []
    first: dict[str, str] = {}
    for app, cache in sorted(caches.items()):
        if not cache.enabled:
            continue
        namespace = cache.namespace_of(app)
        other = first.setdefault(namespace, app)
        for key, mine, theirs in _differences(cache, caches[other]):
            text = f"is {mine} here and {theirs} for {other!r}: both write to the namespace {namespace!r}"
            found.append((app, f"cache.{key}", f"{text}, where it can only be one way"))
    return found


def _differences(mine: CacheSpec, theirs: CacheSpec) -> list[tuple[str, Any, Any]]:
    made: list[tuple[str, Any, Any]] = []
    if mine.members and theirs.members and mine.users != theirs.users:
        made.append(("users", mine.users, theirs.users))
    if mine.messages_per_channel and theirs.messages_per_channel:
        for name in ("messages_per_channel", "messages_ttl_s"):
            if getattr(mine, name) != getattr(theirs, name):
                made.append((name.replace("_", ".", 1), getattr(mine, name), getattr(theirs, name)))
    return made


def exported_options(record: AppRecord) -> dict[str, Any]:
    """The three sections as cluster.yml has them, without what is as by default."""
    cache, events, invites = record.cache, record.events, record.invites
    switches: dict[str, Any] = {
        name: getattr(cache, name)
        for name, field in CacheConfig.model_fields.items()
        if name not in ("namespace", "messages") and getattr(cache, name) != field.default
    }
    if cache.namespace:
        switches["namespace"] = cache.namespace
    if cache.messages_per_channel:
        switches["messages"] = {"per_channel": cache.messages_per_channel, "ttl": f"{cache.messages_ttl_s}s"}
    told: dict[str, Any] = {
        name: getattr(events, name) for name in ("ignore", "cache_only", "ignore_bots") if getattr(events, name)
    }
    if events.prefixes is not None:
        told["prefixes"] = {"fallback": events.prefixes.fallback, "mention": events.prefixes.mention}
    if events.lanes:
        told["lanes"] = {
            name: {"types": lane.types} | ({"max_age": f"{lane.max_age_s:g}s"} if lane.max_age_s else {})
            for name, lane in events.lanes.items()
        }
    sections = {"cache": switches, "events": told}
    if invites != InvitesSpec():
        sections["invites"] = {"track": invites.track, "hold": f"{invites.hold_ms:g}ms"}
    return {name: section for name, section in sections.items() if section}
