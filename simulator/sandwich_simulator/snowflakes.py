"""Discord's ids: milliseconds since 2015 in the upper bits. `(id >> 22) % count` is also the shard of a guild."""

DISCORD_EPOCH_MS = 1_420_070_400_000
LOW_BITS = 22


def snowflake(wall_ms: int, low: int) -> int:
    """The id made at this wall time, with `low` (cut to 22 bits) telling apart those of one millisecond."""
    return ((wall_ms - DISCORD_EPOCH_MS) << LOW_BITS) | (low & 0x3FFFFF)


def shard_of(guild_id: int, count: int) -> int:
    """The shard of `count` that a guild's events go to (Discord's sharding formula)."""
    return (guild_id >> LOW_BITS) % count
