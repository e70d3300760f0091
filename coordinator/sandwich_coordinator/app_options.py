"""The options of an application: the sections `cache`, `events` and `invites` (pydantic), and the table of all options.

Pure. `APP_OPTIONS` drives how options are stored, exported and shown in a list of changes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from sandwich_coordinator.cache_entities import ENTITIES
from sandwich_coordinator.config_values import Duration, ListOf, Name, Section, seconds
from sandwich_coordinator.event_names import DOCUMENTED, check_pattern, matches, matches_any
from sandwich_coordinator.intents import INTENTS, intent_names
from sandwich_coordinator.types import AppRecord, CacheSpec, EventsSpec, InvitesSpec, LaneSpec, PrefixSpec, ShardsSpec

PREFIX_CHARACTERS_MAX = 64
LANES_MAX = 16
DEFAULT_LANE = "all"

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
    """`track`: GUILD_MEMBER_ADD contains the invite. `hold`: how long a join may wait for the answer."""

    track: bool = False
    hold: Annotated[Duration, seconds(0, 5)] = 0.3

    def spec(self) -> InvitesSpec:
        """As stored."""
        return InvitesSpec(track=self.track, hold_ms=round(self.hold * 1000, 3))


def option_problems(cache: CacheSpec, events: EventsSpec, intents: int) -> list[tuple[str, str]]:
    """(key, what is wrong) of settings that contradict each other."""
    found = []
    if cache.enabled:
        kept = [entity for entity in ENTITIES if entity.is_kept(cache)]
        for pattern in events.ignore:
            broken = [entity.option for entity in kept if any(matches(pattern, name) for name in entity.required)]
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
            f"needs the intent{'s' * (len(missing) > 1)} {' and '.join(sorted(missing))}: without it no invite is found"
        )
        found.append(("invites.track", text))
    if invites.track and matches_any([*events.ignore, *events.cache_only], _JOIN):
        found.append(
            ("invites.track", f"{_JOIN} is kept from consumers under events: no consumer receives the invites of joins")
        )
    return found


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


def _same(value: Any) -> Any:
    return value


def _stored_presence(presence: Any) -> dict[str, Any] | None:
    return None if presence is None else presence.model_dump(mode="json", exclude_none=True) | {"since": None}


def _exported_presence(stored: dict[str, Any] | None) -> dict[str, Any] | None:
    return {name: value for name, value in (stored or {}).items() if name != "since"} or None


def _stored_stream(stream: Any) -> dict[str, Any]:
    limits = {"max_age_s": stream.max_age, "max_bytes": stream.max_bytes, "replicas": stream.replicas}
    return {limit: value for limit, value in limits.items() if value is not None}


def _exported_stream(stored: Mapping[str, Any]) -> dict[str, Any]:
    age = {"max_age": f"{stored['max_age_s']:g}s"} if "max_age_s" in stored else {}
    return age | {name: value for name, value in stored.items() if name != "max_age_s"}


def _exported_cache(cache: CacheSpec) -> dict[str, Any]:
    """Without the keys that have their default."""
    fields = CacheConfig.model_fields
    return {name: value for name, value in _whole_cache(cache).items() if value != fields[name].default}


def _whole_cache(cache: CacheSpec) -> dict[str, Any]:
    shown: dict[str, Any] = {name: getattr(cache, name) for name in CacheConfig.model_fields if name != "messages"}
    kept = cache.messages_per_channel
    messages = {"per_channel": kept, "ttl": f"{cache.messages_ttl_s}s"} if kept else None
    return {**shown, "namespace": cache.namespace or None, "messages": messages}


def _exported_events(events: EventsSpec) -> dict[str, Any]:
    """Without the keys that have their default."""
    return {name: value for name, value in _whole_events(events).items() if value}


def _whole_events(events: EventsSpec) -> dict[str, Any]:
    prefixes = events.prefixes
    return {
        **{name: getattr(events, name) for name in ("ignore", "cache_only", "ignore_bots")},
        "prefixes": {"fallback": prefixes.fallback, "mention": prefixes.mention} if prefixes is not None else None,
        "lanes": {
            name: {"types": lane.types} | ({"max_age": f"{lane.max_age_s:g}s"} if lane.max_age_s else {})
            for name, lane in events.lanes.items()
        },
    }


def _exported_invites(invites: InvitesSpec) -> dict[str, Any]:
    """Nothing when both keys have their default."""
    return {} if invites == InvitesSpec() else _whole_invites(invites)


def _whole_invites(invites: InvitesSpec) -> dict[str, Any]:
    return {"track": invites.track, "hold": f"{invites.hold_ms:g}ms"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AppOption:
    """One option of an application: a field of `AppConfig` (parsed) and the field of `AppRecord` with the same name.

    store        from the parsed value to the stored one
    export       from the stored value to the one in cluster.yml
    show         from the stored value to the text in a list of changes
    is_optional  whether an export leaves the option out when it says nothing
    """

    key: str
    store: Callable[[Any], Any] = _same
    export: Callable[[Any], Any] = _same
    show: Callable[[Any], object] = _same
    is_optional: bool = False


def _exported_shards(stored: ShardsSpec) -> dict[str, Any]:
    return {
        "count": stored.count,
        "ids": stored.ids,
        "guilds_per_shard": stored.guilds_per_shard,
        "check_every": f"{stored.check_every_s:g}s",
        "max": stored.max or None,
        "window": stored.window or None,
        "confirm": stored.confirm,
    }


APP_OPTIONS = (
    AppOption(key="intents", export=intent_names, show=lambda value: f"[{', '.join(intent_names(value))}]"),
    AppOption(
        key="shards",
        store=lambda shards: shards.spec(),
        export=_exported_shards,
    ),
    AppOption(key="presence", store=_stored_presence, export=_exported_presence),
    AppOption(key="compression"),
    AppOption(key="route"),
    AppOption(key="large_threshold"),
    AppOption(key="paused"),
    AppOption(key="placement"),
    AppOption(key="weight"),
    AppOption(key="stream", store=_stored_stream, export=_exported_stream),
    AppOption(key="cache", store=CacheConfig.spec, export=_exported_cache, is_optional=True),
    AppOption(key="events", store=EventsConfig.spec, export=_exported_events, is_optional=True),
    AppOption(key="invites", store=InvitesConfig.spec, export=_exported_invites, is_optional=True),
)
"""All options but the token, in the order of cluster.example.yml. Storing, export and the list of changes follow it."""


def stored_options(config: Any) -> dict[str, Any]:
    """The fields of an `AppRecord` for an `AppConfig`, without name and token."""
    return {option.key: option.store(getattr(config, option.key)) for option in APP_OPTIONS}


def exported_options(record: AppRecord) -> dict[str, Any]:
    """The options as in cluster.yml, without the token."""
    exported = {option.key: option.export(getattr(record, option.key)) for option in APP_OPTIONS}
    optional = {option.key for option in APP_OPTIONS if option.is_optional}
    return {key: value for key, value in exported.items() if value or key not in optional}


def effective_options(record: AppRecord, stream: Mapping[str, Any]) -> dict[str, Any]:
    """Every option with the value in effect, as in cluster.yml. `stream`: what the stream inherits, as stored."""
    inherited = {limit: record.stream.get(limit, value) for limit, value in stream.items()}
    whole = {
        "stream": _exported_stream({**inherited, **record.stream}),
        "cache": _whole_cache(record.cache) | {"namespace": record.cache.namespace_of(record.app)},
        "events": _whole_events(record.events),
        "invites": _whole_invites(record.invites),
    }
    return {option.key: whole.get(option.key, option.export(getattr(record, option.key))) for option in APP_OPTIONS}


def shown_option(key: str, value: Any) -> object:
    """A stored value in a list of changes. `key` may be the path of a part, which is shown unchanged."""
    option = next((option for option in APP_OPTIONS if option.key == key), None)
    return value if option is None or value is None else option.show(value)
