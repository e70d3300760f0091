"""Who leads: what one node does about the leader key.

The leader key is created only where it is missing, under the node's lease. Its create revision is the leader term; the
term guards every write of the leader. Leadership is for progress, not for safety (docs/design/coordination.md): the
writes of a leader that was paused past its lease fail their guards. A leader still stops earlier, on its own clock.
"""

from dataclasses import dataclass

from sandwich_coordinator.ids import LeaderTerm
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.store.base import Compare, Delete, Put
from sandwich_coordinator.types import LeaderRecord
from sandwich_coordinator.view import ClusterView


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """This node. `lease` None: none held. `lease_valid_until`: monotonic, from before the last renewal was sent.

    `leads` is the term in which this node believes it leads, None when it follows; `leaving`: it is shutting down.
    """

    node: str
    instance: str
    lease: int | None
    lease_valid_until: float
    leads: LeaderTerm | None = None
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Campaign:
    """Try to become the leader with this transaction; if the transaction fails, another node leads."""

    compares: tuple[Compare, ...]
    writes: tuple[Put, ...]


@dataclass(frozen=True, slots=True)
class Lead:
    """This node leads; guard every write with `term`."""

    term: LeaderTerm


@dataclass(frozen=True, slots=True)
class Follow:
    """Another node leads (`leader`), or no leader is known (`leader` None)."""

    leader: str | None


@dataclass(frozen=True, slots=True)
class StepDown:
    """Stop leading now: nothing may be written in the old term any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class Resign:
    """Give the leader key back with this transaction, so that the next leader does not wait for the lease to expire."""

    compares: tuple[Compare, ...]
    writes: tuple[Delete, ...]


Decision = Campaign | Lead | Follow | StepDown | Resign


def decide(view: ClusterView, own: Candidate, now: float, policy: Policy) -> Decision:
    """What `own` should do now about leadership. Call it on every change and at `deadline`."""
    lease_is_safe = own.lease is not None and now < own.lease_valid_until - policy.step_down_margin_s
    entry = view.leader
    if own.leads is not None:
        if not lease_is_safe:
            return StepDown("our own lease may have run out")
        if entry is None or entry.create_revision != own.leads:
            return StepDown("the leader key is gone or belongs to a newer term")
    if entry is None:
        return _campaign(view, own) if lease_is_safe and not own.leaving else Follow(None)
    if (entry.record.node, entry.record.instance) != (own.node, own.instance):
        return Follow(entry.record.node or None)
    if own.leaving or entry.lease != own.lease:
        guard = Compare(view.keys.leader, "create_revision", entry.create_revision)
        return Resign((guard,), (Delete(view.keys.leader),))
    return Lead(LeaderTerm(entry.create_revision)) if lease_is_safe else Follow(None)


def concerns(before: ClusterView, after: ClusterView, node: str) -> bool:
    """Whether a change of the view may change what `decide` says of this node."""
    return before.leader is not after.leader or before.nodes.get(node) is not after.nodes.get(node)


def deadline(own: Candidate, policy: Policy) -> float | None:
    """When `decide` must run again although nothing changed: when a leader's lease stops being safe."""
    return None if own.leads is None else own.lease_valid_until - policy.step_down_margin_s


def _campaign(view: ClusterView, own: Candidate) -> Campaign | Follow:
    """Only a registered node may lead: not a second process with our name (docs/design/reliability.md, fault 12)."""
    member = view.nodes.get(own.node)
    if own.lease is None or member is None or member.record.instance != own.instance or member.lease != own.lease:
        return Follow(None)
    keys = view.keys
    return Campaign(
        (Compare(keys.leader, "create_revision", 0), Compare(keys.node(own.node), "mod_revision", member.mod_revision)),
        (Put(keys.leader, LeaderRecord(node=own.node, instance=own.instance).encode(), own.lease),),
    )
