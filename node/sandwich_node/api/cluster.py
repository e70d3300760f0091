"""The cluster behind the API: the parts that handlers use."""

import asyncio
from dataclasses import dataclass, field

from sandwich_coordinator.config import ClusterSettings
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.view import ClusterView
from sandwich_node.agent.node_facts import NodeFacts
from sandwich_node.api.findings import Findings
from sandwich_node.api.going_on import GoingOn
from sandwich_node.api.history import History
from sandwich_node.api.idempotency import Answers
from sandwich_node.api.live.parts import LiveParts
from sandwich_node.api.messaging import Messaging
from sandwich_node.api.picture import ClusterPicture
from sandwich_node.api.problem_details import ApiError
from sandwich_node.api.snapshot_answers import SnapshotAnswers
from sandwich_node.api.written_store import WrittenStore

SETTLE_S = 1.0
SETTLE_POLL_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiCluster:
    """What a handler can reach.

    store    etcd, shared with the agent; it notes what handlers write
    key      the cluster key; None in a cluster without one
    facts    of the node that serves
    picture  the whole cluster, with what every node says of itself
    answers  to requests with an Idempotency-Key
    messaging  NATS and Redis, for what only they know
    live     what the streams read from
    history  figures of the last hours
    going_on  changes whose requests have their answer
    written  answers that follow from the newest snapshot
    """

    store: WrittenStore
    keys: Keys
    key: ClusterKey | None
    facts: NodeFacts
    picture: ClusterPicture
    answers: Answers
    messaging: Messaging
    live: LiveParts | None = None
    history: History | None = None
    going_on: GoingOn = field(default_factory=GoingOn)
    written: SnapshotAnswers = field(default_factory=SnapshotAnswers)

    @property
    def findings(self) -> Findings:
        """What follows from the newest snapshot."""
        return self.picture.findings

    def live_parts(self) -> LiveParts:
        """What the streams read from. Raises ApiError in a node that has none."""
        if self.live is None:
            raise ApiError("unavailable", "this node has no streams")
        return self.live

    def view(self) -> ClusterView:
        """The cluster as this node sees it now. Raises ApiError before the node has joined."""
        view = self.facts.view()
        if view is None:
            raise ApiError("unavailable", "this node has not joined its cluster yet", retry_after_s=1.0)
        return view

    def settings(self) -> ClusterSettings:
        """The cluster's settings. Raises ApiError before the node has them."""
        settings = self.facts.settings()
        if settings is None:
            raise ApiError("unavailable", "this node has no configuration yet", retry_after_s=1.0)
        return settings

    async def settle(self) -> None:
        """Wait until this node's view has what handlers wrote, so that the next read shows it; a second at most.

        The view is behind etcd by some milliseconds.
        """
        try:
            async with asyncio.timeout(SETTLE_S):
                while True:
                    view = self.facts.view()
                    if view is None or view.revision >= self.store.revision:
                        return
                    await asyncio.sleep(SETTLE_POLL_S)
        except TimeoutError:
            return
