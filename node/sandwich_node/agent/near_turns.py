"""Which shards connect before their turn to IDENTIFY.

A group of thousands of shards waits for hours in its buckets. Only the next ones of each bucket connect; the others
wait without a connection.
"""

from collections.abc import Callable

from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.start_order import bucket_of, turn_of
from sandwich_coordinator.view import Bucket, ClusterView

NEAR_TURNS = 2
"""Shards of one bucket that connect before their turn to IDENTIFY. The others wait without a connection: Discord and we
need not hold hundreds of sockets for minutes, and one that connects takes less than the five seconds of a turn."""
CONNECT_S = 10.0
"""A shard that does not wait for its turn after so long keeps none of its bucket back."""
_NO_BUCKET = Bucket("", 0)


class NearTurns:
    """The shards of one node that connect before their turn. `waits(shard)`: it is connected, and waits for it."""

    def __init__(self, waits: Callable[[ShardId], bool]) -> None:
        self._waits = waits
        self._near: dict[Bucket, dict[ShardId, float]] = {}
        self._near_in: dict[ShardId, Bucket] = {}

    def admit(self, view: ClusterView, shard: ShardId, now: float) -> list[ShardId]:
        """Let a shard without a session connect; otherwise the shards that it waits for.

        It may once its turn to IDENTIFY is near. Others wait for it from then on. What comes after it in the order
        does not keep it back: that may wait for a day. `now`: monotonic, in seconds.
        """
        bucket = bucket_of(view, shard)
        if bucket is None:
            return []
        near = self._near.setdefault(bucket, {})
        turn = turn_of(view, shard, spare=False)
        ahead = [
            other
            for other, since in near.items()
            if turn_of(view, other, spare=False) < turn and (now - since < CONNECT_S or self._waits(other))
        ]
        if len(ahead) >= NEAR_TURNS:
            return ahead
        near[shard] = now
        self._near_in[shard] = bucket
        return []

    def passed(self, shard: ShardId) -> None:
        """The shard had its turn, or needs none any more."""
        near = self._near.get(self._near_in.pop(shard, _NO_BUCKET))
        if near is not None:
            near.pop(shard, None)
