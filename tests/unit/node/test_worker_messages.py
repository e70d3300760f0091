"""Where the messages of workers go: to the worker's slot, to what the node keeps of itself, or to its shards."""

from typing import Any

import pytest

from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.problems import Code
from sandwich_node import ipc
from sandwich_node.agent.node_state import NodeState
from sandwich_node.agent.worker_messages import WorkerMessages
from sandwich_node.log_lines import LogRing
from tests.unit.node.test_view_changes import FakeWorker

SHARD = ShardId("bot", 1, 0)


class Node:
    """A node's state at wall time 1000 and monotonic time 7, and what its shards and servers were sent."""

    def __init__(self) -> None:
        self.for_shards: list[Any] = []
        self.nats_said_at: list[float] = []
        self.worker = FakeWorker(ready=False)
        self.state = NodeState("a", LogRing(), wall=lambda: 1000.0, clock=lambda: self.now)
        self.state.workers.slots[0] = self.worker
        self.now = 7.0
        parts: Any = self
        self._messages = WorkerMessages(self.state, parts, parts)

    def on_message(self, worker: FakeWorker, message: ipc.ToAgent) -> None:
        self.for_shards.append(message)

    def nats_said(self, said: ipc.NatsSaid, at: float) -> None:
        self.nats_said_at.append(at)

    def receives(self, message: ipc.ToAgent) -> None:
        self._messages.receive(self.worker, message)


def test_a_worker_that_is_ready_gets_the_status_messages_that_were_kept() -> None:
    node = Node()
    node.state.status_publisher.shard(SHARD, "live", "")
    node.receives(ipc.WorkerWaiting("NATS does not answer", Code.NATS_UNREACHABLE))
    assert (node.worker.ready, node.worker.waiting, node.worker.sent) == (False, "NATS does not answer", [])
    node.receives(ipc.WorkerReady())
    assert (node.worker.ready, node.worker.waiting) == (True, "")
    (published,) = node.worker.sent
    assert isinstance(published, ipc.PublishStatus)


def test_figures_are_dated_by_the_monotonic_clock() -> None:
    node = Node()
    node.receives(ipc.WorkerStats(0, 1.0, [ipc.ShardNumbers(key=SHARD, events=10)]))
    node.now = 9.0
    node.receives(ipc.WorkerStats(0, 1.5, [ipc.ShardNumbers(key=SHARD, events=50)]))
    assert node.state.figures.events_per_s(SHARD) == 20.0
    assert node.state.figures.cpu_percent(0) == 25.0


def test_foreign_messages_in_a_stream_are_a_problem_from_the_report_on() -> None:
    node = Node()
    node.receives(ipc.WorkerStats(0, 1.0, [ipc.ShardNumbers(key=SHARD, foreign=2)]))
    (found,) = node.state.history.problems(1001.0)
    assert found.subject == "app/bot"


def test_a_stream_that_was_made_again_is_remembered_and_published() -> None:
    node = Node()
    node.worker.ready = True
    node.receives(ipc.StreamRemade("bot"))
    assert node.state.history.streams_remade == {"bot": 1000.0}
    assert len(node.worker.sent) == 1


@pytest.mark.parametrize("message", [ipc.ShardChanged(SHARD, "live"), ipc.IdentifyWanted(SHARD)])
def test_what_is_about_a_shard_goes_to_the_shards(message: ipc.ToAgent) -> None:
    node = Node()
    node.receives(message)
    assert node.for_shards == [message]


def test_what_nats_said_is_dated_by_the_wall_clock() -> None:
    node = Node()
    node.receives(ipc.NatsSaid([]))
    assert (node.nats_said_at, node.for_shards) == ([1000.0], [])
