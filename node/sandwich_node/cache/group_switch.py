"""How a shard's cache begins when its group has replaced another one.

Its session is not new: what it read before the switch went neither to the stream nor to the cache. The cache contains
the guilds as the old group left them, and this shard goes on from there. It first waits for what the old group's
owners still write, then refuses every further write of theirs, and locates their guilds here.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_node.cache.batch import names_of
from sandwich_node.cache.handover_drain import Standing
from sandwich_node.cache.locations import ids_of, moves_to, shard_of, shards_in_common
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.cache.settings import CacheWriter

NOT_ALL_RAN = "the shard group before did not run every shard of these guilds"
OTHER_INTENTS = "the shard group before had other intents"
LOST = "Redis has no record of the shard group before: it was emptied, or is new"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviousShard:
    """A shard of the replaced group. `end`, `behind` and `fence` are those of the end frame of its chain."""

    shard: int
    end: Standing
    behind: bool
    fence: Fence


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviousShards:
    """The replaced group, as far as one shard of the next group needs it.

    group, count  of the replaced group
    intents       of its sessions; 0: the same as now
    own_count     the shard count of the next group
    shards        the ends of all shards that `shards_before` names
    session, seq  the public name of the next group's session, and its last sequence that the cache does not get
    guilds        the guilds of that session, as far as they are known
    """

    group: int
    count: int
    intents: int = 0
    own_count: int
    shards: tuple[PreviousShard, ...]
    session: str
    seq: int
    guilds: frozenset[str] = frozenset()


def shards_before(shard: int, count: int, before_count: int, before_ids: str) -> list[int]:
    """The shards of a group of `before_count` that ran and can have guilds of this shard, of a group of `count`."""
    ran = ids_of(before_ids, before_count)
    return [each for each in shards_in_common(shard, count, before_count) if each in ran]


def missing(writer: CacheWriter, before: PreviousShards) -> str:
    """Why the old group cannot have left the cache complete for this shard; "" if it can."""
    common = shards_in_common(writer.shard.shard, before.own_count, before.count)
    if len(before.shards) < len(common):
        return NOT_ALL_RAN
    if before.intents and replace(writer, intents=before.intents).maintains != writer.maintains:
        return OTHER_INTENTS
    return ""


def _old(writer: CacheWriter, before: PreviousShards, each: PreviousShard) -> CacheWriter:
    """A writer for an old shard, with the first fence that is not refused there."""
    shard = ShardId(writer.shard.app, before.group, each.shard)
    # The old shard may have been claimed again after this one was.
    return replace(writer, shard=shard, fence=Fence(max(writer.fence, each.fence + 1)))


def left_behind(writer: CacheWriter, before: PreviousShards) -> list[tuple[CacheWriter, Standing]]:
    """The old shards whose last owners may still write, and up to where."""
    return [(_old(writer, before, each), each.end) for each in before.shards if each.behind]


async def take_over(cache: RedisCache, before: PreviousShards, writer: CacheWriter) -> str:
    """Fence the old shards off and take their guilds over; returns why the cache is incomplete, "" if it is not.

    Each step may be repeated, also by the shard's next owner. Raises CacheError.
    """
    olds = {each.shard: _old(writer, before, each) for each in before.shards}
    if not olds:
        return ""
    shards = ((shard_of(guild, before.count), guild) for guild in sorted(before.guilds))
    theirs = [(olds[shard], guild) for shard, guild in shards if shard in olds]
    are_known = await cache.fence_out(list(olds.values()), theirs)
    indexes = [names_of(each).index for each in (writer, *olds.values())]
    located = frozenset[str]().union(*await cache.read_sets(indexes))
    guilds = moves_to(located, writer.shard.shard, before.own_count)
    await cache.move_guilds(writer, before.group, guilds, to=writer.shard.group)
    await cache.begin_session(writer, before.session, before.seq)
    await _take_over_kept(cache, writer, olds.values())
    # The records of quiet shards expire; the locations of their guilds do not.
    is_lost = bool(before.guilds) or not are_known
    return LOST if is_lost and not guilds else ""


async def _take_over_kept(cache: RedisCache, writer: CacheWriter, olds: Iterable[CacheWriter]) -> None:
    """Record what the old shards kept, so that a change of the options since then is noticed."""
    values = await cache.command("MGET", *(names_of(old).kept for old in olds))
    known = [set(value.decode(errors="replace")) for value in values if isinstance(value, bytes)]
    if known:
        await cache.command("SET", names_of(writer).kept, "".join(sorted(set.intersection(*known))), "NX")
