"""What one node does about its shards: claim those planned here, run those claimed, release the others.

Level-triggered: each call compares the view with the shards that run here, and returns the next step of every shard.
A shard runs only under a claim of this node and instance. The claim is created before a socket is opened, and deleted
after it was closed. Without the cluster (or without our own registration) nothing changes: running shards keep running,
and the event chain refuses their writes once another node has taken over (docs/design/reliability.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from sandwich_coordinator.groups import planned_here
from sandwich_coordinator.ids import Fence, ShardId
from sandwich_coordinator.store.base import Compare, Delete, Put
from sandwich_coordinator.types import AppRecord, ClaimRecord, GroupRecord, SessionRecord
from sandwich_coordinator.view import ClusterView, Entry

STICKY_SLACK = 1
"""A shard returns to the worker it had unless that one carries more than this many shards above the least."""

NO_FENCE = Fence(0)
"""In a claiming write: the revision of that write becomes the fence."""


@dataclass(frozen=True, slots=True)
class ShardConfig:
    """The part of an application's configuration that a running shard depends on. Contains no secret."""

    token_hash: str
    intents: int
    count: int
    compression: str
    large_threshold: int

    def can_resume_with(self, other: "ShardConfig") -> bool:
        """Whether a session that was started with this configuration may be resumed with `other`."""
        return (self.token_hash, self.intents, self.count) == (other.token_hash, other.intents, other.count)


@dataclass(frozen=True, slots=True)
class LocalShard:
    """A shard in a worker of this node. `stopped`: drained, its claim may go. `failed`: a fatal close, no socket.
    `ended`: its group is closing and its chain is complete; the claim says so until the group is deleted.

    `failed_under`: the revision of the application's record when the shard failed, 0 when it has not. A later revision
    means that an operator changed the application: the shard is tried again.

    `has_session`: it resumes a session, or has sent its IDENTIFY. Without one it stores nothing, and so the chain
    cannot show that another node had the shard meanwhile.
    """

    worker: int
    fence: Fence
    config: ShardConfig
    phase: Literal["running", "stopping", "stopped", "ended", "failed"] = "running"
    failed_under: int = 0
    has_session: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalNode:
    """This node. `lease` None: not registered. `connected`: the view is current. `loads`: shards per live worker."""

    node: str
    instance: str
    lease: int | None
    connected: bool
    loads: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Claim:
    """Run this transaction; once the view shows the claim, `Start` follows. If it fails, another node was first."""

    shard: ShardId
    worker: int
    compares: tuple[Compare, ...]
    writes: tuple[Put, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """Run the shard in `worker` under `fence`; resume `session` when there is one."""

    shard: ShardId
    worker: int
    fence: Fence
    config: ShardConfig
    session: SessionRecord | None


@dataclass(frozen=True, slots=True)
class Stop:
    """Drain and close the shard, session kept (close 4000-4999); it is then `stopped`."""

    shard: ShardId
    reason: str
    drain: bool = True


@dataclass(frozen=True, slots=True)
class Release:
    """Delete the claim with this transaction and drop the shard."""

    shard: ShardId
    compares: tuple[Compare, ...]
    writes: tuple[Delete, ...]


@dataclass(frozen=True, slots=True)
class Restart:
    """Reconnect in place under `fence` with `config`; resume only if `resume`."""

    shard: ShardId
    fence: Fence
    config: ShardConfig
    resume: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Abandon:
    """Another node owns the shard: close it, publish nothing more, leave the claim alone, drop the shard."""

    shard: ShardId
    reason: str


Action = Claim | Start | Stop | Release | Restart | Abandon


def pick_worker(loads: Mapping[int, int], previous: int | None = None) -> int | None:
    """The least loaded worker (lowest number first), or the previous one if its load is similar. None: no worker."""
    if not loads:
        return None
    least = min(loads, key=lambda worker: (loads[worker], worker))
    if previous is not None and previous in loads and loads[previous] <= loads[least] + STICKY_SLACK:
        return previous
    return least


def shard_config(app: AppRecord, group: GroupRecord) -> ShardConfig:
    """The configuration a shard of `group` runs with."""
    # A group that an older version made does not name its intents and token: they are the application's.
    token_hash, intents = (group.token_hash, group.intents) if group.token_hash else (app.token_hash, app.intents)
    return ShardConfig(token_hash, intents, group.count, app.compression, app.large_threshold)


def reconcile_node(
    view: ClusterView, own: LocalNode, local: Mapping[ShardId, LocalShard], now: float
) -> tuple[Action, ...]:
    """The next step of every shard of this node, stops first. `now` (Unix seconds) is written into records.

    A shard whose application, group or plan cannot be read is left unchanged.
    """
    member = view.nodes.get(own.node)
    if not own.connected or own.lease is None or member is None:
        return ()
    if member.record.instance != own.instance or member.lease != own.lease:
        return ()
    wanted = _wanted(view, own.node)
    held = view.claimed_by.get(own.node, frozenset())
    step = _Step(view, own, own.lease, dict(own.loads), now)
    actions: list[Action] = []
    for shard in sorted({*wanted, *local, *held}):
        if view.unreadable(shard.of):
            continue
        action = step.next(shard, local.get(shard), wanted.get(shard))
        if action is not None:
            actions.append(action)
    return tuple(sorted(actions, key=lambda action: not isinstance(action, Stop | Abandon | Release)))


def _wanted(view: ClusterView, node: str) -> dict[ShardId, ShardConfig]:
    """The shards planned to this node whose group and application exist and are not paused."""
    wanted: dict[ShardId, ShardConfig] = {}
    for key, plan in view.plans.items():
        app, group = view.apps.get(key.app), view.groups.get(key)
        if app is None or group is None or app.record.paused or node not in plan.record.nodes:
            continue
        config = shard_config(app.record, group.record)
        wanted |= {ShardId(*key, number): config for number in planned_here(view, key, node)}
    return wanted


def concerns(before: ClusterView, after: ClusterView, node: str) -> bool:
    """Whether a change of the view may give `reconcile_node` something to do at this node."""
    for name in ("groups", "apps", "restarts", "bad"):
        if getattr(before, name) is not getattr(after, name):
            return True
    if before.plans is not after.plans and _planned_differently(before, after, node):
        return True
    if before.nodes.get(node) is not after.nodes.get(node):
        return True
    if before.budgets is not after.budgets and _gateways_differ(before, after):
        return True
    changed = after.changed_claims(before)
    if not changed:
        return False
    if not all(changed.isdisjoint(view.claimed_by.get(node, ())) for view in (before, after)):
        return True
    moved = (shard for shard in changed if _has_moved(before, after, shard))
    return any(shard.shard in planned_here(after, shard.of, node) for shard in moved)


def _has_moved(before: ClusterView, after: ClusterView, shard: ShardId) -> bool:
    """Whether a shard has another owner. What an owner does with its shard concerns no other node."""
    was, now = before.claims.get(shard), after.claims.get(shard)
    return was is None or now is None or was.record.node != now.record.node


def _planned_differently(before: ClusterView, after: ClusterView, node: str) -> bool:
    """Whether the plans give this node other shards. Its shards of a group without a plan stop."""
    for key in before.plans.keys() | after.plans.keys():
        was, now = before.plans.get(key), after.plans.get(key)
        if was is not now and (was is None or now is None or was.record.nodes.get(node) != now.record.nodes.get(node)):
            return True
    return False


def _gateways_differ(before: ClusterView, after: ClusterView) -> bool:
    """Whether an address or a number of buckets has changed. A session start changes the rest of a budget."""
    if before.budgets.keys() != after.budgets.keys():
        return True
    for token, entry in after.budgets.items():
        was, now = before.budgets[token].record, entry.record
        if was is not now and (was.url, was.max_concurrency) != (now.url, now.max_concurrency):
            return True
    return False


def outbid(view: ClusterView, own: LocalNode, shard: ShardId, fence: Fence, newer: int) -> Claim | None:
    """A claim with a fence above `newer`, which the chain already has although only we have claimed the shard since.

    This happens when the store was restored from a backup: its revisions went back, and the fences in the stream did
    not (docs/design/reliability.md, fault 22). The guard ensures that our claim is still the last one; None if not.
    """
    claim = view.claims.get(shard)
    if claim is None or own.lease is None or view.fence(shard) != fence or newer < fence:
        return None
    if (claim.record.node, claim.record.instance, claim.lease) != (own.node, own.instance, own.lease):
        return None
    key = view.keys.claim(*shard)
    record = msgspec.structs.replace(claim.record, fence=Fence(newer + 1), state="claiming", reason="")
    guard = Compare(key, "mod_revision", claim.mod_revision)
    return Claim(shard, claim.record.worker, (guard,), (Put(key, record.encode(), own.lease),))


@dataclass(slots=True)
class _Step:
    """One pass over the shards; `loads` grows as shards are given to workers."""

    view: ClusterView
    own: LocalNode
    lease: int
    loads: dict[int, int]
    now: float

    def next(self, shard: ShardId, running: LocalShard | None, config: ShardConfig | None) -> Action | None:
        claim = self.view.claims.get(shard)
        unreadable = self.view.bad.get(self.view.keys.claim(*shard)) if self.view.bad else None
        if unreadable is not None and unreadable.lease != self.lease:
            # Its owner is unknown. If it is under our own lease, we may replace or delete it.
            return None
        if running is None:
            return self._idle(shard, claim, config)
        if claim is not None and (claim.record.node, claim.record.instance) != (self.own.node, self.own.instance):
            if running.phase == "running" and running.has_session and (self.view.fence(shard) or 0) < running.fence:
                # Claims come with ever higher fences: this one is of before, from a backup of the store. Ours is in
                # the chain, and the session is here.
                return self._claim(shard, None, running.worker, running.fence)
            return Abandon(shard, f"claimed by node {claim.record.node}")
        if running.phase == "stopping":
            return None
        has_ended = running.phase == "ended" and config is not None
        if self.view.restart_wanted(shard) and not has_ended:
            if running.phase == "running":
                return Stop(shard, "an operator asked for a restart")
            return self._release(shard)
        if config is None:
            if running.phase == "running":
                return Stop(shard, "no longer planned here")
            return self._release(shard) or Abandon(shard, "stopped, and its claim is gone")
        if claim is None and running.phase == "stopped":
            return Abandon(shard, "stopped, and its claim is gone")
        if claim is None and running.phase == "running" and not running.has_session:
            # Another node may have had the shard, and started a session that can be resumed under a new fence.
            return Stop(shard, "its claim is gone before it has a session")
        if claim is None or claim.lease != self.lease:
            # Our lease was lost and no other node has taken over: we continue under the same fence.
            return self._claim(shard, claim, running.worker, running.fence)
        if has_ended:
            return None
        return self._running(shard, running, config)

    def _running(self, shard: ShardId, running: LocalShard, config: ShardConfig) -> Action | None:
        fence = self.view.fence(shard) or running.fence
        if running.phase == "stopped":
            return Start(shard, running.worker, fence, config, self._session(shard, config))
        if running.config == config:
            if running.phase == "failed" and self._closes(shard):
                return Restart(shard, fence, config, False, "its group is closing: its chain has to end")
            if running.phase == "failed" and self.view.apps[shard.app].mod_revision > running.failed_under > 0:
                return Restart(shard, fence, config, False, "the application was changed after it had failed")
            return None
        resume = running.phase == "running" and running.config.can_resume_with(config)
        return Restart(shard, fence, config, resume, "the application's configuration changed")

    def _idle(self, shard: ShardId, claim: Entry[ClaimRecord] | None, config: ShardConfig | None) -> Action | None:
        """A shard that does not run here."""
        if claim is None:
            return self._release(shard) if config is None else self._claim(shard, None, None, NO_FENCE)
        record = claim.record
        if record.node != self.own.node:
            return None
        if config is None:
            return self._release(shard)
        ours = record.instance == self.own.instance and claim.lease == self.lease
        if ours and record.state == "failed" and not self._configured_since(shard, claim) and not self._closes(shard):
            return None
        if ours and record.state == "ended":
            return None
        if ours and record.state == "claiming" and record.worker in self.loads:
            fence = record.fence or Fence(claim.mod_revision)
            return Start(shard, record.worker, fence, config, self._session(shard, config))
        return self._claim(shard, claim, record.worker, NO_FENCE)

    def _closes(self, shard: ShardId) -> bool:
        """Whether the group is replaced. The new one waits for the end of each chain, also of a failed shard."""
        return self.view.groups[shard.of].record.phase == "closing"

    def _configured_since(self, shard: ShardId, claim: Entry[ClaimRecord]) -> bool:
        return self.view.apps[shard.app].mod_revision > claim.mod_revision

    def _session(self, shard: ShardId, config: ShardConfig) -> SessionRecord | None:
        """The stored session, unless it belongs to another token, intents or shard count."""
        entry = self.view.sessions.get(shard)
        if entry is None:
            return None
        record = entry.record
        made_with = (record.token_hash, record.intents, record.count)
        return record if made_with == (config.token_hash, config.intents, config.count) else None

    def _claim(
        self, shard: ShardId, claim: Entry[ClaimRecord] | None, previous: int | None, fence: Fence
    ) -> Claim | None:
        """Create the claim, or take over our own old one. A running shard stays with its worker and keeps its fence."""
        worker = previous if fence and previous is not None else pick_worker(self.loads, previous)
        if worker is None:
            return None
        key = self.view.keys.claim(*shard)
        if fence and claim is not None:
            record = msgspec.structs.replace(claim.record, fence=fence)
        else:
            self.loads[worker] = self.loads.get(worker, 0) + (0 if fence else 1)
            record = ClaimRecord(
                app=shard.app,
                group=shard.group,
                shard=shard.shard,
                node=self.own.node,
                instance=self.own.instance,
                worker=worker,
                fence=fence,
                since=self.now,
            )
        revision = self._revision(shard)
        guard = Compare(key, "mod_revision", revision) if revision else Compare(key, "create_revision", 0)
        return Claim(shard, worker, (guard,), (Put(key, record.encode(), self.lease),))

    def _release(self, shard: ShardId) -> Release | None:
        """Delete the claim; None when there is none."""
        key, revision = self.view.keys.claim(*shard), self._revision(shard)
        return Release(shard, (Compare(key, "mod_revision", revision),), (Delete(key),)) if revision else None

    def _revision(self, shard: ShardId) -> int:
        """The claim's mod-revision, readable or not; 0 without a claim."""
        claim = self.view.claims.get(shard)
        return self.view.revision_of_bad(self.view.keys.claim(*shard)) if claim is None else claim.mod_revision
