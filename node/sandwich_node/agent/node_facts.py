"""What the HTTP server reads from the node that it belongs to."""

from collections.abc import Sequence
from typing import Protocol

from sandwich_coordinator.config import ClusterSettings
from sandwich_coordinator.status import NodeStatus
from sandwich_coordinator.view import ClusterView
from sandwich_node.agent.recent_changes import RecentChanges


class NodeFacts(Protocol):
    """The node behind the HTTP server. `Agent` is the real one. All of it answers at once, at any time."""

    def status(self) -> NodeStatus:
        """The status of the node."""

    def not_ready(self) -> Sequence[str]:
        """What the node still waits for, in words; empty when it serves."""

    def view(self) -> ClusterView | None:
        """The cluster as the node sees it; None before it has joined and has the first listing."""

    def settings(self) -> ClusterSettings | None:
        """The settings that the node uses, authenticated by the cluster key; None before it has them."""

    def recent(self) -> RecentChanges:
        """Which keys of etcd changed lately, up to `view`."""
