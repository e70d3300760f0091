"""What an application caches, and the identity with which a shard writes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sandwich_coordinator.cache_entities import COLLECTIONS, ENTITIES
from sandwich_coordinator.ids import Fence, ShardId
from sandwich_coordinator.intents import INTENTS
from sandwich_coordinator.types import CacheSpec
from sandwich_sdk.wire.cache_keys import location

LETTERS: Mapping[str, str] = MappingProxyType({letter: entity.collection for letter, entity in COLLECTIONS.items()})
"""The names of the collections by their letters in operations."""


def letters_of(spec: CacheSpec) -> str:
    """The letters of the collections that are kept."""
    return "".join(letter for letter, entity in COLLECTIONS.items() if entity.is_kept(spec))


def kept_letters(spec: CacheSpec) -> str:
    """The letters of all entities that are kept, also of those that are no collections of a guild."""
    return "".join(entity.letter for entity in ENTITIES if entity.is_kept(spec))


def changed_letters(before: str, after: str) -> tuple[str, str]:
    """(letters that are no longer kept, letters that are newly kept)."""
    gone = "".join(letter for letter in before if letter not in after)
    # Earlier messages cannot be fetched: they are not missing.
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
        """The location of the shard's guilds, as readers see it."""
        return location(self.shard.group, self.shard.shard)

    @property
    def maintains(self) -> str:
        """Letters of the collections for which this application is authoritative."""
        letters = letters_of(self.settings)
        return "".join(letter for letter in letters if self.intents & INTENTS[COLLECTIONS[letter].intent])

    @property
    def receives_members(self) -> bool:
        """Whether Discord sends joins and leaves. Otherwise members are learned from other events."""
        return bool(self.intents & INTENTS["GUILD_MEMBERS"])
