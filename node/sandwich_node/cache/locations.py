"""Which shard of a group has which guilds. Pure.

A guild's shard is `(guild >> 22) % count` (Discord: Gateway, Sharding).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import gcd

from sandwich_coordinator.ranges import parse_ranges
from sandwich_sdk.wire.cache_keys import parse_location


def is_guild(text: str) -> bool:
    """Whether this is the id of a guild."""
    return text.isascii() and text.isdigit()


def shard_of(guild: str, count: int) -> int | None:
    """The guild's shard in a group of `count` shards; None for what is no guild id."""
    return (int(guild) >> 22) % count if is_guild(guild) else None


def shards_in_common(shard: int, count: int, other_count: int) -> list[int]:
    """The shards of a group of `other_count` shards that can have guilds of this one, of a group of `count`."""
    step = gcd(count, other_count)
    return list(range(shard % step, other_count, step))


def ids_of(ranges: str, count: int) -> frozenset[int]:
    """The shards of a group that run; all of them when the ranges cannot be read."""
    try:
        return frozenset(parse_ranges(ranges))
    except ValueError:
        return frozenset(range(count))


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """The group to which guilds move; `ids`: its shards that run here."""

    group: int
    count: int
    ids: frozenset[int]

    def shard_of(self, guild: str) -> int | None:
        """The guild's shard there; None when that shard does not run here."""
        shard = shard_of(guild, self.count)
        return shard if shard in self.ids else None


def moves(located: Mapping[bytes, bytes], group: int, to: Destination) -> list[tuple[str, int]]:
    """The guilds that leave `group`, with their new shards; `located`: locations by guild."""
    found = []
    for guild, at in located.items():
        try:
            old, _ = parse_location(at)
        except ValueError:
            continue
        name = guild.decode(errors="replace")
        new = to.shard_of(name)
        if old == group and new is not None:
            found.append((name, new))
    return found


def moves_to(guilds: Iterable[str], shard: int, count: int) -> list[tuple[str, int]]:
    """Those of `guilds` that belong to one shard, with that shard."""
    return [(guild, shard) for guild in sorted(guilds) if shard_of(guild, count) == shard]
