"""Status events: what is published about groups and applications, and what waits for a worker."""

import time
from dataclasses import dataclass, field, replace

import msgspec

from sandwich_coordinator.ids import GroupId, LeaderTerm, ShardId
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import AppRecord, GroupRecord
from sandwich_coordinator.view import ClusterView, Entry
from sandwich_node import ipc
from sandwich_node.agent.status_publisher import StatusPublisher, cluster_changes
from sandwich_sdk.wire.status import ApplicationChanged, GroupChanged, ShardChanged, decode_status

APP = AppRecord(app="bot", token="t", token_hash="h", intents=1)
GROUP = GroupRecord(app="bot", group=0, count=2, ids="0-1", term=LeaderTerm(1), state="starting")


def entry(record: AppRecord) -> Entry[AppRecord]:
    return Entry(record, 1, 1, 0)


def test_each_change_of_group_and_application_is_published_once() -> None:
    empty = ClusterView(keys=Keys())
    added = replace(empty, apps={"bot": entry(APP)}, groups={GroupId("bot", 0): Entry(GROUP, 1, 1, 0)})
    assert list(cluster_changes(empty, added, 1.0)) == [
        ApplicationChanged(at=1.0, app="bot", state="added"),
        GroupChanged(at=1.0, app="bot", group=0, count=2, state="starting"),
    ]
    live = msgspec.structs.replace(GROUP, state="live", term=LeaderTerm(2))
    paused = msgspec.structs.replace(APP, paused=True)
    changed = replace(added, apps={"bot": entry(paused)}, groups={GroupId("bot", 0): Entry(live, 1, 2, 0)})
    assert [message.state for message in cluster_changes(added, changed, 1.0)] == ["paused", "live"]  # type: ignore[union-attr]
    term_only = replace(
        changed, groups={GroupId("bot", 0): Entry(msgspec.structs.replace(live, term=LeaderTerm(3)), 1, 3, 0)}
    )
    assert list(cluster_changes(changed, term_only, 1.0)) == []
    assert [message.state for message in cluster_changes(changed, empty, 1.0)] == ["removed", "removed"]  # type: ignore[union-attr]


@dataclass
class FakeWorker:
    ready: bool = False
    sent: list[ipc.PublishStatus] = field(default_factory=list)

    def send(self, message: ipc.PublishStatus) -> None:
        self.sent.append(message)


def test_messages_wait_for_a_worker_that_is_connected() -> None:
    worker = FakeWorker()
    publisher = StatusPublisher("a", lambda: worker if worker.ready else None, wall=time.time)  # type: ignore[arg-type, return-value]
    publisher.shard(ShardId("bot", 0, 1), "live", "")
    assert not worker.sent
    worker.ready = True
    publisher.flush()
    publisher.shard(ShardId("bot", 0, 1), "failed", "4004")
    published = [decode_status(message.body.encode()) for message in worker.sent]
    assert [message.state for message in published if isinstance(message, ShardChanged)] == ["live", "failed"]
    assert {message.app for message in worker.sent} == {"bot"}
