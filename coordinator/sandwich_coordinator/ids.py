"""What names a shard and its group, and the two revisions that guard writes. Pure."""

from collections.abc import Iterable
from typing import NamedTuple, NewType

Fence = NewType("Fence", int)
"""The revision of a shard's claim. It grows with each owner; the stream and the cache refuse an older one."""

LeaderTerm = NewType("LeaderTerm", int)
"""The create revision of the leader key. It guards every write of the leader."""


class GroupId(NamedTuple):
    """One shard group: a generation of an application's shards, with one shard count."""

    app: str
    group: int

    def __str__(self) -> str:
        return f"{self.app}/{self.group}"


class ShardId(NamedTuple):
    """One shard of one group. Orders by application, group, then shard number."""

    app: str
    group: int
    shard: int

    @property
    def of(self) -> GroupId:
        """The group that this shard belongs to."""
        # As GroupId(self.app, self.group), in a third of the time: this is asked of every shard, again and again.
        return tuple.__new__(GroupId, self[:2])

    def __str__(self) -> str:
        return f"{self.app}/{self.group}/{self.shard}"


def shards_of(group: GroupId, numbers: Iterable[int]) -> list[ShardId]:
    """The shards of a group with these numbers, in this order."""
    # As ShardId(app, group, number), in half of the time: the planner needs them all.
    app, generation = group
    return [tuple.__new__(ShardId, (app, generation, number)) for number in numbers]
