"""Status events: what changed, published on `sandwich.<app>.status` through a worker's NATS connection.

Each node publishes the changes of its own shards, the leader those of groups and applications. A message is published
once and not stored, so nothing waits for it; while no worker is connected, a bounded number is kept.
"""

from collections import deque
from collections.abc import Callable, Iterator

import msgspec

from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.status import FailoverStatus, LossStatus
from sandwich_coordinator.view import ClusterView
from sandwich_node import ipc
from sandwich_node.agent.dependencies import Worker
from sandwich_sdk.wire.status import (
    ApplicationChanged,
    EventsLost,
    Failover,
    GroupChanged,
    ShardChanged,
    StatusMessage,
    StreamRemade,
    encode_status,
)
from sandwich_sdk.wire.subjects import stream_name

KEPT_MAX = 1000


class StatusPublisher:
    """Gives status messages to a worker that is connected: `worker()`, None while there is none.

    `wall` gives Unix seconds.
    """

    def __init__(self, node: str, worker: Callable[[], Worker | None], *, wall: Callable[[], float]) -> None:
        self._node = node
        self._worker = worker
        self._wall = wall
        self._kept: deque[StatusMessage] = deque(maxlen=KEPT_MAX)

    def shard(self, shard: ShardId, state: str, reason: str) -> None:
        """A shard of this node changed its state."""
        self._publish(
            ShardChanged(
                at=self._wall(),
                app=shard.app,
                group=shard.group,
                shard=shard.shard,
                node=self._node,
                state=state,
                reason=reason,
            )
        )

    def failover(self, failover: FailoverStatus) -> None:
        """A shard is live again."""
        self._publish(Failover(**msgspec.structs.asdict(failover)))

    def loss(self, loss: LossStatus) -> None:
        """Events of a shard are lost."""
        self._publish(EventsLost(**msgspec.structs.asdict(loss)))

    def stream_remade(self, app: str) -> None:
        """An application's stream was deleted, and made again by a worker of this node."""
        self._publish(StreamRemade(at=self._wall(), app=app, node=self._node, stream=stream_name(app)))

    def cluster(self, before: ClusterView, after: ClusterView) -> None:
        """The leader saw groups and applications change."""
        for message in cluster_changes(before, after, self._wall()):
            self._publish(message)

    def flush(self) -> None:
        """A worker is connected: publish what was kept."""
        kept, self._kept = self._kept, deque(maxlen=KEPT_MAX)
        for message in kept:
            self._publish(message)

    def _publish(self, message: StatusMessage) -> None:
        worker = self._worker()
        if worker is None:
            self._kept.append(message)
        else:
            worker.send(ipc.PublishStatus(message.app, encode_status(message).decode()))


def cluster_changes(before: ClusterView, after: ClusterView, at: float) -> Iterator[StatusMessage]:
    """How groups and applications differ between two views. `at` is Unix seconds."""
    if after.apps is not before.apps:
        for app in sorted({*before.apps, *after.apps}):
            was, now = before.apps.get(app), after.apps.get(app)
            if now is None:
                yield ApplicationChanged(at=at, app=app, state="removed")
            elif was is None:
                yield ApplicationChanged(at=at, app=app, state="added")
            elif was.record != now.record:
                if was.record.paused != now.record.paused:
                    yield ApplicationChanged(at=at, app=app, state="paused" if now.record.paused else "resumed")
                else:
                    yield ApplicationChanged(at=at, app=app, state="changed")
    if after.groups is not before.groups:
        for key in sorted({*before.groups, *after.groups}):
            old, new = before.groups.get(key), after.groups.get(key)
            if new is None and old is not None:
                yield GroupChanged(at=at, app=key.app, group=key.group, count=old.record.count, state="removed")
            elif new is not None:
                shown = (new.record.count, new.record.state, new.record.reason)
                if old is None or (old.record.count, old.record.state, old.record.reason) != shown:
                    count, state, reason = shown
                    yield GroupChanged(at=at, app=key.app, group=key.group, count=count, state=state, reason=reason)
