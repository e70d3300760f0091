"""Discord's ids: milliseconds since 2015 in the upper bits. A guild's shard is `(id >> 22) % count`."""

DISCORD_EPOCH_MS = 1_420_070_400_000
LOW_BITS = 22


def snowflake(wall_ms: int, low: int) -> int:
    """The id for this wall time. `low` (cut to 22 bits) distinguishes ids of one millisecond."""
    return ((wall_ms - DISCORD_EPOCH_MS) << LOW_BITS) | (low & 0x3FFFFF)


def shard_of(guild_id: int, count: int) -> int:
    """A guild's shard out of `count` (Discord's sharding formula)."""
    return (guild_id >> LOW_BITS) % count
