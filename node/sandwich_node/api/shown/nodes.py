"""What the API shows of nodes: what they registered, and what they say of themselves."""

from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.status import NodeStatus
from sandwich_node.api.models import Model


class Node(Model):
    """One registered node. `answers` false: it does not, and `error` says why; its figures are then 0."""

    node: str
    address: str
    version: str
    state: str
    leader: bool
    answers: bool
    error: str
    capacity: int
    max_shards: int
    labels: dict[str, str]
    workers: int
    started_at: float
    shards: int
    guilds: int
    events_per_s: float
    rss_bytes: int
    cpu_percent: float
    revision: int


def node_shown(snapshot: Snapshot, name: str) -> Node:
    """A node that is registered."""
    view = snapshot.view
    entry = view.nodes[name]
    answer = snapshot.answers.get(name)
    status = answer if isinstance(answer, NodeStatus) else None
    record = entry.record
    return Node(
        node=name,
        address=record.address,
        version=record.version,
        state=record.state,
        leader=view.leader is not None and view.leader.record.node == name,
        answers=status is not None,
        error=answer if isinstance(answer, str) else "",
        capacity=record.capacity,
        max_shards=record.max_shards,
        labels=record.labels,
        workers=record.workers,
        started_at=record.started_at,
        shards=len(view.claimed_by.get(name, ())),
        guilds=sum(app.guilds for app in status.apps.values()) if status else 0,
        events_per_s=sum(app.events_per_s for app in status.apps.values()) if status else 0.0,
        rss_bytes=sum(worker.rss_bytes for worker in status.workers) if status else 0,
        cpu_percent=sum(worker.cpu_percent for worker in status.workers) if status else 0.0,
        revision=entry.mod_revision,
    )
