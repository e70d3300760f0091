"""Batches of translated events, and the script calls that apply them on one server. Pure.

What is made for each event is a Struct: a frozen dataclass takes several times as long to make.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import msgspec

from sandwich_node.cache.context import Op
from sandwich_node.cache.settings import CacheWriter
from sandwich_sdk.wire.cache_keys import guild_prefix, locations_key, mutual_key, user_key

CALL_EVENTS_MAX: Final = 512
CALL_BYTES_MAX: Final = 512 * 1024
"""The approximate size of one call, so that it blocks the server for some milliseconds at most."""

HEADS_MAX: Final = 4096

INLINE: Final = "i"
FOLLOW_UP: Final = "f"

_REPEATABLE = frozenset({"guild", "put", "members_begin", "members"})
"""Idempotent operations: a call may end after one of these, in the middle of an event."""


class EventOps(msgspec.Struct, frozen=True):
    """One event's operations; `size` is their approximate size in bytes."""

    seq: int
    ops: tuple[Op, ...]
    size: int


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Events of one session of one shard, in order; `session` is its public name.

    `confirmed` is the last sequence whose frame is in the stream. Values that later events replaced are kept for a
    replay; the others are dropped.
    """

    writer: CacheWriter
    session: str
    confirmed: int
    events: tuple[EventOps, ...]


class Call(msgspec.Struct, frozen=True):
    """One run of the script."""

    keys: tuple[str, str]
    args: list[str | bytes | int]


@dataclass(frozen=True, slots=True)
class Names:
    """Keys of one writer: its records, and the prefixes of the keys that it writes."""

    app: str
    shard: str
    guild: str
    user: str
    mutual: str
    locations: str
    namespace: str

    @property
    def index(self) -> str:
        """Set: the guilds that are located at the shard."""
        return f"{self.locations}:{self.shard}"

    @property
    def kept(self) -> str:
        """String: the letters of the entities that the shard kept last."""
        return f"{self.index}:kept"

    @property
    def chunked(self) -> str:
        """Set: the guilds of which all members were requested."""
        return f"{self.index}:chunked"

    @property
    def through(self) -> str:
        """String: the final position of an owner that released the shard and then wrote everything."""
        return f"{self.index}:through"

    def record(self) -> tuple[str, str]:
        """The writer's record on a single server; on a Redis Cluster, the one in the slot of the locations."""
        return self._pair(f"sw:{self.namespace}:writer:{{{self.app}}}:{self.shard}")

    def guild_record(self, guild: str) -> tuple[str, str]:
        """The writer's record in the slot of a guild, on a Redis Cluster."""
        return self._pair(f"{guild_prefix(self.namespace, guild)}writer:{self.app}:{self.shard}")

    def user_record(self, user: str) -> tuple[str, str]:
        """The writer's record in the slot of a user, on a Redis Cluster."""
        return self._pair(f"sw:{self.namespace}:writer:{{{user}}}:{self.app}:{self.shard}")

    @staticmethod
    def _pair(record: str) -> tuple[str, str]:
        return record, f"{record}:pending"


class Head:
    """What all calls of one writer have in common: its names, and its arguments around those of the batch."""

    __slots__ = ("behind", "fence", "names", "record", "writer")

    def __init__(self, writer: CacheWriter) -> None:
        names = self.names = names_of(writer)
        self.writer = writer
        self.record = names.record()
        self.fence = str(writer.fence)
        self.behind = (
            *(writer.shard.app, writer.location, writer.maintains, writer.bot),
            *(names.guild, names.user, names.mutual, names.locations),
        )


_heads: dict[int, Head] = {}
"""By the writer's identity: its hash takes longer than everything else that a small call costs here."""


def head_of(writer: CacheWriter) -> Head:
    """The writer's head."""
    head = _heads.get(id(writer))
    if head is None or head.writer is not writer:
        if len(_heads) >= HEADS_MAX:
            _heads.clear()
        head = _heads[id(writer)] = Head(writer)
    return head


@lru_cache(maxsize=4096)
def names_of(writer: CacheWriter) -> Names:
    """The writer's key names. The script completes the prefixes with an id and a brace."""
    namespace = writer.namespace
    return Names(
        app=writer.shard.app,
        shard=writer.location,
        guild=guild_prefix(namespace, 0).removesuffix("0}:"),
        user=user_key(namespace, 0).removesuffix("0}"),
        mutual=mutual_key(namespace, 0).removesuffix("0}"),
        locations=locations_key(namespace, writer.shard.app),
        namespace=namespace,
    )


def pack(batch: Batch, keys: tuple[str, str], events: Iterable[EventOps], *, flags: str = INLINE) -> Iterator[Call]:
    """The calls that apply the events in order, none much larger than the bounds."""
    args: list[str | bytes | int] = []
    size = count = last = 0
    for event in events:
        if args and (count >= CALL_EVENTS_MAX or size + event.size > CALL_BYTES_MAX):
            yield Call(keys, _header(batch, last, flags) + args)
            args, size, count = [], 0, 0
        for op in event.ops:
            args += (event.seq, op[0], len(op) - 1)
            args += op[1:]
            if event.size > CALL_BYTES_MAX and op[0] in _REPEATABLE:
                size += sum(map(len, op))
                if size > CALL_BYTES_MAX:
                    # The event is incomplete: record only the events before it.
                    yield Call(keys, _header(batch, event.seq - 1, flags) + args)
                    args, size, count = [], 0, 0
        last = event.seq
        size += min(event.size, CALL_BYTES_MAX)
        count += 1
    if args or count:
        yield Call(keys, _header(batch, last, flags) + args)


def _header(batch: Batch, last: int, flags: str) -> list[str | bytes | int]:
    head = head_of(batch.writer)
    return [head.fence, batch.session or "-", last, batch.confirmed, flags, *head.behind]


def calls(batch: Batch) -> Iterator[Call]:
    """The calls for a batch on a single server."""
    return pack(batch, head_of(batch.writer).record, batch.events)


def follow_up(batch: Batch, keys: tuple[str, str], ops: Iterable[tuple[int, Op]], *, flags: str) -> Iterator[Call]:
    """Calls for the follow-up work of events. They check the fence and no sequence."""
    return pack(batch, keys, (EventOps(seq, (op,), 0) for seq, op in ops), flags=flags + FOLLOW_UP)


def afresh(batch: Batch) -> Iterator[Call]:
    """Calls that apply the batch again on a single server. They check the fence and no sequence."""
    return pack(batch, names_of(batch.writer).record(), batch.events, flags=INLINE + FOLLOW_UP)
