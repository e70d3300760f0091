"""What the parts of a node record and share, from its start to its end."""

from collections.abc import Callable

from sandwich_node.agent.failover_history import History
from sandwich_node.agent.relocations import Relocations
from sandwich_node.agent.status import Figures
from sandwich_node.agent.status_publisher import StatusPublisher
from sandwich_node.agent.worker_set import WorkerSet
from sandwich_node.log_lines import LogRing


class NodeState:
    """The workers, their figures and log lines, and what happened to shards.

    `wall` gives Unix seconds, `clock` those of the monotonic clock.
    """

    def __init__(self, node: str, logs: LogRing, *, wall: Callable[[], float], clock: Callable[[], float]) -> None:
        self.wall = wall
        self.clock = clock
        self.logs = logs
        self.workers = WorkerSet()
        self.relocations = Relocations(self.workers)
        self.figures = Figures()
        self.history = History(node)
        self.status_publisher = StatusPublisher(node, self.workers.ready_worker, wall=wall)
