"""What the node says of itself: whether it is ready, and its status."""

from collections.abc import Callable, Sequence

from sandwich_coordinator.fingerprints import fingerprints
from sandwich_coordinator.problems import Code, Problem, problem
from sandwich_coordinator.status import NodeStatus
from sandwich_node.agent.consumer_lag import ConsumerLag
from sandwich_node.agent.membership import Membership
from sandwich_node.agent.node_state import NodeState
from sandwich_node.agent.options import NodeOptions
from sandwich_node.agent.problems import cache_problems, waiting_shards, waiting_worker
from sandwich_node.agent.serving import Serving
from sandwich_node.agent.status import node_status
from sandwich_sdk._version import __version__


class NodeReport:
    """Reads the parts of the node, as far as there are any yet.

    `starting`: "" or the unfinished step of the start (when `leaving`: of the end). `started_at`: Unix seconds.
    `http_problems`: of the HTTP server.
    """

    def __init__(
        self,
        options: NodeOptions,
        state: NodeState,
        *,
        instance: str,
        started_at: float,
        http_problems: Callable[[], Sequence[Problem]] = tuple,
    ) -> None:
        self.starting = "starting"
        self.leaving = False
        self.membership: Membership | None = None
        self.serving: Serving | None = None
        self._options = options
        self._state = state
        self._instance = instance
        self._started_at = started_at
        self._http_problems = http_problems

    def not_ready(self) -> list[Problem]:
        """What the node still waits for; empty when it serves."""
        waits = []
        if self.starting:
            code = Code.NODE_LEAVING if self.leaving else Code.NODE_STARTING
            waits.append(problem(code, f"node/{self._options.node}", self.starting))
        if self.membership is not None and self.membership.waiting is not None:
            waits.append(self.membership.waiting)
        if self.serving is not None:
            waits += self.serving.waiting
        waits += [
            waiting_worker(worker.index, worker.waiting, worker.waiting_code)
            for worker in self._state.workers.slots.values()
            if not worker.ready
        ]
        return waits

    def status(self) -> NodeStatus:
        """The status of the node. Answers at any time, also before the node has joined."""
        state, serving = self._state, self.serving
        now = state.wall()
        facts = serving.shards.facts if serving is not None else {}
        return node_status(
            node=self._options.node,
            instance=self._instance,
            version=__version__,
            started_at=self._started_at,
            now=now,
            clock_s=state.clock(),
            leader=serving is not None and serving.leading.leads,
            workers=state.workers.slots.values(),
            shards=facts,
            figures=state.figures,
            history=state.history,
            consumers=serving.servers.consumers if serving is not None else ConsumerLag(),
            desired_shards=serving.desired_shards if serving is not None else {},
            settings=fingerprints(serving.settings.running) if serving is not None else {},
            problems=[
                *self.not_ready(),
                *self._http_problems(),
                *(serving.problems if serving is not None else ()),
                *waiting_shards(facts, state.figures),
                *cache_problems(facts, state.figures),
                *state.history.problems(now),
                *(serving.servers.consumers.problems(now) if serving is not None else ()),
            ],
        )
