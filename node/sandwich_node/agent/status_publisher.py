"""Status events: what changed, told on `sandwich.<app>.status` through a worker's NATS connection.

Each node tells of its own shards, the leader of groups and applications. A message is told once and not stored, so
none is worth waiting for; while no worker is connected a bounded number is kept.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping

import msgspec

from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.status import FailoverStatus, LossStatus
from sandwich_coordinator.view import ClusterView
from sandwich_node import ipc
from sandwich_node.worker_process import WorkerProcess
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
    """Hands status messages to whichever worker is connected."""

    def __init__(self, node: str, workers: Callable[[], Mapping[int, WorkerProcess]]) -> None:
        self._node = node
        self._workers = workers
        self._kept: deque[StatusMessage] = deque(maxlen=KEPT_MAX)

    def shard(self, shard: ShardId, state: str, reason: str) -> None:
        """A shard of this node changed its state."""
        self._tell(
            ShardChanged(
                at=time.time(),
                app=shard.app,
                group=shard.group,
                shard=shard.shard,
                node=self._node,
                state=state,
                reason=reason,
            )
        )

    def failover(self, failover: FailoverStatus) -> None:
        """A shard is back."""
        self._tell(Failover(**msgspec.structs.asdict(failover)))

    def loss(self, loss: LossStatus) -> None:
        """Events of a shard are lost."""
        self._tell(EventsLost(**msgspec.structs.asdict(loss)))

    def stream_remade(self, app: str) -> None:
        """An application's stream was deleted, and made again by a worker of this node."""
        self._tell(StreamRemade(at=time.time(), app=app, node=self._node, stream=stream_name(app)))

    def cluster(self, before: ClusterView, after: ClusterView) -> None:
        """The leader saw groups and applications change."""
        for message in cluster_changes(before, after, time.time()):
            self._tell(message)

    def flush(self) -> None:
        """A worker is connected: tell what was kept."""
        kept, self._kept = self._kept, deque(maxlen=KEPT_MAX)
        for message in kept:
            self._tell(message)

    def _tell(self, message: StatusMessage) -> None:
        worker = next((worker for worker in self._workers().values() if worker.ready), None)
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
