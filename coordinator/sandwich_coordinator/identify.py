"""When a shard of this node may IDENTIFY: one per bucket and five seconds in the cluster (docs/design/coordination.md).

A bucket is taken by creating `identify/<token-hash>/<bucket>` under a short lease, in the same transaction that
reserves one session start of the budget. Its holder deletes it `identify_spacing_s` after the IDENTIFY was sent. If
the holder dies, the lease frees it; the lease is longer than the spacing because a grant must be used early.

`IdentifyQueue` is the machine of one node. Each bucket is Attempting (a transaction is under way), Granted (a shard may
send until its time is over), Spacing (sent; not yet five seconds ago) and Waiting (not before a time).
Invariants: one attempt or grant per bucket; lowest shard first; a shard is granted at most once per request.
Only the store decides that a bucket of another node is free.
"""

from dataclasses import dataclass
from typing import Literal

import msgspec

from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.store.base import Compare, Put
from sandwich_coordinator.types import IdentifyRecord
from sandwich_coordinator.view import Bucket, ClusterView

Outcome = Literal["granted", "taken", "ambiguous", "exhausted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """A shard has to IDENTIFY. `bucket` is its id modulo max_concurrency; `failover` may use the reserve.

    `spare`: the shard is live, and needs a start only if enough are left for all its group's shards; others come first.
    """

    token_hash: str
    shard: ShardId
    bucket: int
    failover: bool = False
    spare: bool = False


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A shard no longer wants to IDENTIFY (it resumed, moved or stopped)."""

    shard: ShardId


@dataclass(frozen=True, slots=True)
class BucketsSeen:
    """The buckets that are taken by any node, as the store has them."""

    taken: frozenset[Bucket]


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeEnded:
    """How an attempt ended. `until` (monotonic) and `reason` are for "exhausted"."""

    bucket: Bucket
    outcome: Outcome
    until: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """The granted shard has sent its IDENTIFY."""

    shard: ShardId


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeBucket:
    """Run the transaction of `take` under a fresh lease of `identify_lease_ttl_s`; report with `TakeEnded`."""

    bucket: Bucket
    shard: ShardId
    failover: bool
    spare: bool = False


@dataclass(frozen=True, slots=True)
class ReleaseBucket:
    """Free the bucket by revoking its lease. A failure is harmless: the lease expires by itself."""

    bucket: Bucket


@dataclass(frozen=True, slots=True)
class Grant:
    """The shard may IDENTIFY before `until` (monotonic), and not after."""

    shard: ShardId
    until: float


@dataclass(frozen=True, slots=True)
class Refuse:
    """The shard cannot IDENTIFY before `until` (monotonic). Its request stays queued and is retried then."""

    shard: ShardId
    until: float
    reason: str


Event = Requested | Withdrawn | BucketsSeen | TakeEnded | Sent
Effect = TakeBucket | ReleaseBucket | Grant | Refuse


@dataclass(frozen=True, slots=True)
class _Attempting:
    request: Requested
    began_at: float
    until: float


@dataclass(frozen=True, slots=True)
class _Granted:
    request: Requested
    until: float


@dataclass(frozen=True, slots=True)
class _Spacing:
    shard: ShardId
    until: float


@dataclass(frozen=True, slots=True)
class _Waiting:
    until: float


_Slot = _Attempting | _Granted | _Spacing | _Waiting


class IdentifyQueue:
    """The identify requests of one node's shards."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._requests: dict[ShardId, Requested] = {}
        self._slots: dict[Bucket, _Slot] = {}
        self._taken: frozenset[Bucket] = frozenset()
        self._parked: dict[tuple[str, bool], tuple[float, str]] = {}

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Process one input; return the effects. Inputs about unknown buckets or shards are ignored."""
        effects: list[Effect] = []
        match event:
            case Requested():
                self._requests[event.shard] = event
                until, reason = self._parked.get((event.token_hash, event.spare), (now, ""))
                if until > now:
                    effects.append(Refuse(event.shard, until, reason))
            case Withdrawn(shard):
                self._withdraw(shard, now)
            case BucketsSeen(taken):
                self._taken = taken
            case TakeEnded():
                effects += self._ended(event, now)
            case Sent(shard):
                self._sent(shard, now)
        return [*effects, *self._start(now)]

    def tick(self, now: float) -> list[Effect]:
        """Advance time: free buckets whose spacing is over, withdraw grants that were not used."""
        effects: list[Effect] = []
        for bucket, slot in sorted(self._slots.items(), key=lambda item: item[0]):
            if slot.until > now:
                continue
            match slot:
                case _Granted(request, until):
                    # The shard may be sending at this moment: keep the spacing, as if it had sent.
                    self._slots[bucket] = _Spacing(request.shard, until + self._policy.identify_spacing_s)
                    self._requests.setdefault(request.shard, request)
                    effects.append(Refuse(request.shard, now, "the grant to identify was not used in time"))
                case _Spacing():
                    del self._slots[bucket]
                    effects.append(ReleaseBucket(bucket))
                case _Attempting():
                    # Its end may still be reported, and would be taken for the end of a second attempt.
                    self._slots[bucket] = _Waiting(now + self._policy.identify_lease_ttl_s)
                case _Waiting():
                    del self._slots[bucket]
        self._parked = {kind: (until, why) for kind, (until, why) in self._parked.items() if until > now}
        return [*effects, *self._start(now)]

    def deadline(self) -> float | None:
        """When `tick` has to be called next (monotonic); None: not at all."""
        times = [slot.until for slot in self._slots.values()]
        return min([*times, *(until for until, _ in self._parked.values())], default=None)

    def check_invariants(self) -> None:
        """Raise AssertionError when a shard is queued and granted at once, or granted twice."""
        granted = [slot.request.shard for slot in self._slots.values() if isinstance(slot, _Granted)]
        assert len(granted) == len(set(granted)), "a shard is granted twice"
        for bucket, slot in self._slots.items():
            if isinstance(slot, _Attempting | _Granted):
                assert Bucket(slot.request.token_hash, slot.request.bucket) == bucket, "a request is in a wrong bucket"

    def _start(self, now: float) -> list[Effect]:
        """Start one attempt in every free bucket that has a request, lowest shard first."""
        effects: list[Effect] = []
        busy = {slot.request.shard for slot in self._slots.values() if isinstance(slot, _Attempting)}
        for request in sorted(self._requests.values(), key=_turn):
            bucket = Bucket(request.token_hash, request.bucket)
            parked = self._parked.get((request.token_hash, request.spare), (now, ""))[0] > now
            if parked or bucket in self._slots or bucket in self._taken or request.shard in busy:
                continue
            self._slots[bucket] = _Attempting(request, now, now + self._policy.identify_lease_ttl_s)
            effects.append(
                TakeBucket(bucket=bucket, shard=request.shard, failover=request.failover, spare=request.spare)
            )
        return effects

    def _ended(self, event: TakeEnded, now: float) -> list[Effect]:
        slot = self._slots.get(event.bucket)
        if not isinstance(slot, _Attempting):
            # Withdrawn in the meantime: the bucket is not needed.
            unused = event.outcome == "granted" and (slot is None or isinstance(slot, _Waiting))
            return [ReleaseBucket(event.bucket)] if unused else []
        request, policy = slot.request, self._policy
        del self._slots[event.bucket]
        match event.outcome:
            case "granted":
                until = slot.began_at + policy.identify_grant_s
                if self._requests.get(request.shard) != request or until <= now:
                    self._slots[event.bucket] = _Waiting(now + policy.identify_retry_s)
                    return [ReleaseBucket(event.bucket)]
                del self._requests[request.shard]
                self._slots[event.bucket] = _Granted(request, until)
                return [Grant(request.shard, until)]
            case "taken":
                self._slots[event.bucket] = _Waiting(now + policy.identify_retry_s)
            case "ambiguous":
                # If it was applied, its lease is not renewed: the key is gone when the lease ends.
                self._slots[event.bucket] = _Waiting(now + policy.identify_lease_ttl_s)
            case "exhausted":
                until = max(event.until, now + policy.identify_retry_s)
                kind = request.token_hash, request.spare
                self._parked[kind] = (until, event.reason)
                waiting = sorted(s for s, r in self._requests.items() if (r.token_hash, r.spare) == kind)
                return [Refuse(shard, until, event.reason) for shard in waiting]
        return []

    def _withdraw(self, shard: ShardId, now: float) -> None:
        """Drop a request. An attempt is undone when it ends; a granted bucket keeps its spacing.

        The worker may have died after its IDENTIFY and before its report.
        """
        self._requests.pop(shard, None)
        for bucket, slot in self._slots.items():
            if isinstance(slot, _Granted) and slot.request.shard == shard:
                self._slots[bucket] = _Spacing(shard, now + self._policy.identify_spacing_s)
                return

    def _sent(self, shard: ShardId, now: float) -> None:
        """Start the spacing. The report may come after the grant was withdrawn: then the shard needs no other grant."""
        until = now + self._policy.identify_spacing_s
        for bucket, slot in self._slots.items():
            match slot:
                case _Granted(request) if request.shard == shard:
                    self._slots[bucket] = _Spacing(shard, until)
                    return
                case _Spacing(owner, ends) if owner == shard:
                    self._requests.pop(shard, None)
                    self._slots[bucket] = _Spacing(shard, max(ends, until))
                    return


def _turn(request: Requested) -> tuple[str, bool, int, ShardId]:
    return request.token_hash, request.spare, request.shard.shard, request.shard


@dataclass(frozen=True, slots=True)
class TakeTxn:
    """The transaction that takes a bucket and reserves one session start."""

    compares: tuple[Compare, ...]
    writes: tuple[Put, ...]


@dataclass(frozen=True, slots=True)
class TakeRefused:
    """No start may be reserved. `until` is Unix seconds."""

    until: float
    reason: str


def take(
    view: ClusterView, wanted: TakeBucket, *, node: str, lease: int, wall: float, policy: Policy
) -> TakeTxn | TakeRefused | None:
    """The transaction for `wanted`, or why there is none. If it fails, read again: bucket or budget has changed.

    A token without session starts is refused until the reset: Discord resets the token of a bot that continues.
    None: the shard is not owned by this node now.
    """
    entry = view.budgets.get(wanted.bucket.token_hash)
    soon = wall + policy.identify_budget_retry_s
    if entry is None:
        return TakeRefused(soon, "the session start budget is not known yet")
    budget = entry.record
    if budget.error:
        return TakeRefused(soon, f"Discord refused the token: {budget.error}")
    reserve = 0 if wanted.failover else policy.identify_reserve
    if wanted.spare:
        group = view.groups.get(wanted.shard.of)
        reserve = max(reserve, group.record.count if group is not None else 0)
    if budget.remaining <= reserve:
        kept = f" ({reserve} are kept for failover)" if reserve else ""
        until = min(max(budget.reset_at, soon), wall + policy.identify_budget_look_s)
        return TakeRefused(until, f"no session starts left{kept}")
    shard, keys = wanted.shard, view.keys
    claim = view.claims.get(shard)
    if claim is None or claim.record.node != node:
        return None
    key, budget_key = keys.identify(*wanted.bucket), keys.budget(wanted.bucket.token_hash)
    spent = msgspec.structs.replace(budget, remaining=budget.remaining - 1)
    record = IdentifyRecord(node=node, app=shard.app, shard=shard.shard)
    return TakeTxn(
        (
            Compare(key, "create_revision", 0),
            Compare(budget_key, "mod_revision", entry.mod_revision),
            # A node that was cut off may not know yet that another one owns the shard and its session now.
            Compare(keys.claim(*shard), "create_revision", claim.create_revision),
        ),
        (Put(key, record.encode(), lease), Put(budget_key, spent.encode())),
    )
