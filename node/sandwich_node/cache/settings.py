"""What of an application is cached, and who writes it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_coordinator.intents import INTENTS
from sandwich_coordinator.types import CacheSpec
from sandwich_sdk.wire import cache_keys
from sandwich_sdk.wire.cache_keys import location

LETTERS: Mapping[str, str] = MappingProxyType(
    {
        "c": cache_keys.CHANNELS,
        "t": cache_keys.THREADS,
        "r": cache_keys.ROLES,
        "e": cache_keys.EMOJIS,
        "s": cache_keys.STICKERS,
        "m": cache_keys.MEMBERS,
        "v": cache_keys.VOICE,
        "p": cache_keys.PRESENCES,
        "x": cache_keys.EVENTS,
        "g": cache_keys.STAGES,
        "o": cache_keys.SOUNDS,
    }
)
"""How a collection is called in an operation."""

_MAINTAINED_BY: Mapping[str, str] = MappingProxyType(
    {
        "c": "GUILDS",
        "t": "GUILDS",
        "r": "GUILDS",
        "e": "GUILD_EXPRESSIONS",
        "s": "GUILD_EXPRESSIONS",
        "m": "GUILD_MEMBERS",
        "v": "GUILD_VOICE_STATES",
        "p": "GUILD_PRESENCES",
        "x": "GUILD_SCHEDULED_EVENTS",
        "g": "GUILDS",
        "o": "GUILD_EXPRESSIONS",
    }
)
"""The intent whose events keep a collection true."""


_SWITCHES: Mapping[str, str] = MappingProxyType(
    {
        "c": "channels",
        "t": "threads",
        "r": "roles",
        "e": "emojis",
        "s": "stickers",
        "m": "members",
        "v": "voice_states",
        "p": "presences",
        "x": "scheduled_events",
        "g": "stages",
        "o": "sounds",
    }
)


def letters_of(spec: CacheSpec) -> str:
    """The collections that are on, by letter."""
    return "".join(letter for letter, name in _SWITCHES.items() if getattr(spec, name))


def kept_letters(spec: CacheSpec) -> str:
    """Everything that is kept: collections, `q` the guild itself, `w` messages."""
    return letters_of(spec) + ("q" if spec.guilds else "") + ("w" if spec.messages_per_channel else "")


def changed_letters(before: str, after: str) -> tuple[str, str]:
    """(what is no longer kept, what is kept now and was not)."""
    gone = "".join(letter for letter in before if letter not in after)
    # Messages of before cannot be had: they come with time.
    come = "".join(letter for letter in after if letter not in before and letter != "w")
    return gone, come


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheWriter:
    """The owner of a shard, as the cache knows it. `bot` is the bot's user id."""

    shard: ShardId
    fence: Fence
    bot: str
    intents: int
    settings: CacheSpec

    @property
    def namespace(self) -> str:
        """The namespace that it writes to."""
        return self.settings.namespace_of(self.shard.app)

    @property
    def location(self) -> str:
        """Where the shard's guilds are, as readers see it."""
        return location(self.shard.group, self.shard.shard)

    @property
    def maintains(self) -> str:
        """Letters of the collections that this application's events keep true: others keep theirs."""
        return "".join(letter for letter in letters_of(self.settings) if self.intents & INTENTS[_MAINTAINED_BY[letter]])

    @property
    def receives_members(self) -> bool:
        """Whether Discord reports who joins and leaves. Without it, members are learned from other events."""
        return bool(self.intents & INTENTS["GUILD_MEMBERS"])
