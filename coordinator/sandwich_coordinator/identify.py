"""When a shard of this node may IDENTIFY: one per bucket and five seconds in the cluster (docs/design/coordination.md).

A bucket is taken by creating `identify/<token-hash>/<bucket>` under a short lease, in the same transaction that
reserves one session start of the budget. Its holder deletes it `identify_spacing_s` after the IDENTIFY was sent. If
the holder dies, the lease frees it; the lease is longer than the spacing because a grant must be used early.

`IdentifyQueue` is the machine of one node. Each bucket is Attempting (a transaction is under way), Granted (a shard may
send until its time is over), Spacing (sent; not yet five seconds ago) and Waiting (not before a time).
Invariants: one attempt or grant per bucket; the order of `start_order`; a shard is granted at most once per request.
Only the store decides that a bucket of another node is free.

A free bucket is left to another node's shard that is before ours in that order, for `identify_yield_s` at most: its
node may hang. A node that let its turn pass is passed over for a while. So the order holds where nodes work, and no
node can stop the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.start_order import Turn, Waiting, bucket_of, budget_refusal, turn_of, waiting
from sandwich_coordinator.store.base import Compare, Put
from sandwich_coordinator.types import IdentifyRecord
from sandwich_coordinator.view import Bucket, ClusterView

Outcome = Literal["granted", "taken", "ambiguous", "refused"]

TAKEN_AT_ONCE = 60
"""Buckets in one transaction: two comparisons for each and one for the budget; etcd allows 128 (--max-txn-ops)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """A shard has to IDENTIFY. `bucket` is its id modulo max_concurrency.

    `spare`: the shard is live, and a second session is to read its guilds again.
    """

    token_hash: str
    shard: ShardId
    bucket: int
    spare: bool = False


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A shard no longer wants to IDENTIFY (it resumed, moved or stopped)."""

    shard: ShardId


@dataclass(frozen=True, slots=True)
class Seen:
    """The cluster as the store has it: taken buckets, budgets, and who waits on other nodes."""

    view: ClusterView


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeEnded:
    """How an attempt ended. For "refused": `reason`, and `until` (monotonic) for when to try again."""

    bucket: Bucket
    outcome: Outcome
    until: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """The granted shard has sent its IDENTIFY, or Discord has it by now: the later one counts."""

    shard: ShardId


@dataclass(frozen=True, slots=True)
class TakeBucket:
    """Run the transaction of `take` under a fresh lease of `identify_lease_ttl_s`; report with `TakeEnded`."""

    bucket: Bucket
    turn: Turn

    @property
    def shard(self) -> ShardId:
        """The shard that is to IDENTIFY."""
        return self.turn.shard


@dataclass(frozen=True, slots=True)
class ReleaseBucket:
    """Free the bucket. A failure is harmless: its lease expires by itself."""

    bucket: Bucket


@dataclass(frozen=True, slots=True)
class Grant:
    """The shard may IDENTIFY before `until` (monotonic), and not after."""

    shard: ShardId
    until: float


@dataclass(frozen=True, slots=True)
class Refuse:
    """Why the shard cannot IDENTIFY now. Its request stays queued."""

    shard: ShardId
    reason: str


Event = Requested | Withdrawn | Seen | TakeEnded | Sent
Effect = TakeBucket | ReleaseBucket | Grant | Refuse


def _holder(record: IdentifyRecord) -> ShardId:
    return ShardId(record.app, record.group, record.shard)


def _holds(view: ClusterView, shard: ShardId) -> bool:
    """Whether this shard has taken its bucket."""
    bucket = bucket_of(view, shard)
    entry = view.identifies.get(bucket) if bucket is not None else None
    return entry is not None and _holder(entry.record) == shard


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

    def __init__(self, node: str, policy: Policy) -> None:
        self._node = node
        self._policy = policy
        self._view: ClusterView | None = None
        self._requests: dict[Bucket, dict[ShardId, Requested]] = {}
        self._queued_in: dict[ShardId, Bucket] = {}
        self._slots: dict[Bucket, _Slot] = {}
        self._refused: dict[ShardId, str] = {}
        self._ahead: dict[Bucket, Sequence[Waiting]] = {}
        self._yields: dict[Bucket, tuple[str, float]] = {}
        self._distrusted: dict[str, float] = {}
        # Shards that have taken a bucket of any token.
        self._holding: set[ShardId] = set()
        self._served: dict[ShardId, int] = {}

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Process one input; return the effects. Inputs about unknown buckets or shards are ignored."""
        effects: list[Effect] = []
        match event:
            case Requested():
                self._drop(event.shard)
                self._queue(Bucket(event.token_hash, event.bucket), event)
            case Withdrawn(shard):
                self._withdraw(shard, now)
            case Seen(view):
                self._see(view)
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
                    if request.shard not in self._queued_in:
                        self._queue(bucket, request)
                    effects.append(Refuse(request.shard, "the grant to identify was not used in time"))
                case _Spacing():
                    del self._slots[bucket]
                    effects.append(ReleaseBucket(bucket))
                case _Attempting():
                    # Its end may still be reported, and would be taken for the end of a second attempt.
                    self._slots[bucket] = _Waiting(now + self._policy.identify_lease_ttl_s)
                case _Waiting():
                    del self._slots[bucket]
        return [*effects, *self._start(now)]

    def deadline(self) -> float | None:
        """When `tick` has to be called next (monotonic); None: not at all.

        Ends that are close together are left to one call, so that their buckets are freed together.
        """
        times = [slot.until for slot in self._slots.values()]
        times += [until for _, until in self._yields.values()]
        if not times:
            return None
        first = min(times)
        return max(time for time in times if time <= first + self._policy.identify_gather_s)

    def check_invariants(self) -> None:
        """Raise AssertionError when a shard is queued in two buckets, or granted twice."""
        granted = [slot.request.shard for slot in self._slots.values() if isinstance(slot, _Granted)]
        assert len(granted) == len(set(granted)), "a shard is granted twice"
        queued = [shard for requests in self._requests.values() for shard in requests]
        assert len(queued) == len(set(queued)), "a shard is queued twice"
        for bucket, slot in self._slots.items():
            if isinstance(slot, _Attempting | _Granted):
                assert Bucket(slot.request.token_hash, slot.request.bucket) == bucket, "a request is in a wrong bucket"

    # --- what the store shows -----------------------------------------------------------------------------------

    def _see(self, view: ClusterView) -> None:
        before, self._view, self._ahead = self._view, view, {}
        taken: set[ShardId] = set()
        earlier = before.identifies if before is not None else {}
        changed_buckets = view.identifies.keys() if before is None else view.changed_identifies(before)
        for bucket in changed_buckets:
            known, entry = earlier.get(bucket), view.identifies.get(bucket)
            # After a change of its token a shard may hold another bucket still.
            if known is not None and not _holds(view, _holder(known.record)):
                self._holding.discard(_holder(known.record))
            if entry is None:
                continue
            self._yields.pop(bucket, None)
            taken.add(_holder(entry.record))
            if known is None or known.create_revision != entry.create_revision:
                self._distrusted.pop(entry.record.node, None)
        # A shard that had its turn still says that it identifies until its READY, which may take minutes.
        changed = view.claims.keys() if before is None else view.changed_claims(before)
        self._holding |= taken
        served, holding = self._served, self._holding
        for shard in taken | changed:
            is_served = shard in served
            if not is_served and shard not in holding:
                continue
            claim = view.claims.get(shard)
            if is_served and (claim is None or served[shard] != claim.mod_revision):
                del served[shard]
            if claim is not None and claim.record.is_queued and _holds(view, shard):
                served[shard] = claim.mod_revision

    def _waiting_ahead(self, bucket: Bucket, turn: Turn, now: float) -> Waiting | None:
        """The first shard of another node that is before ours in this bucket and could start."""
        view = self._view
        if view is None:
            return None
        if bucket not in self._ahead:
            rivals = (one for one in waiting(view, bucket, beside=self._node) if one.turn.shard not in self._served)
            self._ahead[bucket] = sorted(rivals, key=lambda one: one.turn)
        for one in self._ahead[bucket]:
            if one.turn >= turn:
                return None
            trusted = self._distrusted.get(one.node, now) <= now
            if trusted and budget_refusal(view, bucket.token_hash, one.turn, self._policy) is None:
                return one
        return None

    # --- attempts -----------------------------------------------------------------------------------------------

    def _start(self, now: float) -> list[Effect]:
        """Start one attempt in every free bucket that has a request, the first in the order."""
        if self._view is None:
            return []
        effects: list[Effect] = []
        first: list[tuple[Turn, Bucket]] = []
        free = [each for each in self._requests if each not in self._slots and each not in self._view.identifies]
        busy = {slot.request.shard for slot in self._slots.values() if isinstance(slot, _Attempting)} if free else ()
        for bucket in free:
            requests = self._requests[bucket]
            allowed: list[Turn] = []
            for shard, request in requests.items():
                turn = turn_of(self._view, shard, spare=request.spare)
                refusal = budget_refusal(self._view, bucket.token_hash, turn, self._policy)
                if refusal is None:
                    self._refused.pop(shard, None)
                    allowed.append(turn)
                elif self._refused.get(shard) != refusal:
                    self._refused[shard] = refusal
                    effects.append(Refuse(shard, refusal))
            best = min((turn for turn in allowed if turn.shard not in busy), default=None)
            if best is None:
                self._yields.pop(bucket, None)
            elif not self._yielding(bucket, best, now):
                first.append((best, bucket))
        for turn, bucket in sorted(first):
            request = self._requests[bucket][turn.shard]
            self._slots[bucket] = _Attempting(request, now, now + self._policy.identify_lease_ttl_s)
            effects.append(TakeBucket(bucket, turn))
        return effects

    def _yielding(self, bucket: Bucket, turn: Turn, now: float) -> bool:
        """Whether a free bucket is left to another node for now."""
        while (other := self._waiting_ahead(bucket, turn, now)) is not None:
            node, until = self._yields.get(bucket, ("", 0.0))
            if node != other.node:
                self._yields[bucket] = other.node, now + self._policy.identify_yield_s
                return True
            if until > now:
                return True
            self._distrusted[node] = now + self._policy.identify_distrust_s
            del self._yields[bucket]
        self._yields.pop(bucket, None)
        return False

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
                if self._requests.get(event.bucket, {}).get(request.shard) != request or until <= now:
                    self._slots[event.bucket] = _Waiting(now + policy.identify_retry_s)
                    return [ReleaseBucket(event.bucket)]
                self._drop(request.shard)
                self._slots[event.bucket] = _Granted(request, until)
                return [Grant(request.shard, until)]
            case "taken":
                self._slots[event.bucket] = _Waiting(now + policy.identify_retry_s)
            case "ambiguous":
                # If it was applied, its lease is not renewed: the key is gone when the lease ends.
                self._slots[event.bucket] = _Waiting(now + policy.identify_lease_ttl_s)
            case "refused":
                self._slots[event.bucket] = _Waiting(max(event.until, now + policy.identify_retry_s))
                if self._refused.get(request.shard) != event.reason:
                    self._refused[request.shard] = event.reason
                    return [Refuse(request.shard, event.reason)]
        return []

    def _queue(self, bucket: Bucket, request: Requested) -> None:
        self._requests.setdefault(bucket, {})[request.shard] = request
        self._queued_in[request.shard] = bucket

    def _drop(self, shard: ShardId) -> None:
        self._refused.pop(shard, None)
        bucket = self._queued_in.pop(shard, None)
        if bucket is None:
            return
        requests = self._requests[bucket]
        del requests[shard]
        if not requests:
            del self._requests[bucket]
            self._yields.pop(bucket, None)

    def _withdraw(self, shard: ShardId, now: float) -> None:
        """Drop a request. An attempt is undone when it ends; a granted bucket keeps its spacing.

        The worker may have died after its IDENTIFY and before its report.
        """
        self._drop(shard)
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
                    self._drop(shard)
                    self._slots[bucket] = _Spacing(shard, max(ends, until))
                    return


@dataclass(frozen=True, slots=True)
class Take:
    """The transaction that takes buckets of one token and reserves a session start for each.

    `granted`: what it takes, when it succeeds. `others`: what it leaves out, and why: `TakeEnded` of each but its time.
    """

    compares: tuple[Compare, ...]
    writes: tuple[Put, ...]
    granted: tuple[TakeBucket, ...]
    others: tuple[tuple[TakeBucket, Outcome, str], ...]


def take(view: ClusterView, wanted: Sequence[TakeBucket], *, node: str, lease: int, policy: Policy) -> Take:
    """The transaction for `wanted`, which are of one token. If it fails, decide again from a newer view.

    Buckets of one token are taken together: their transactions would fail each other, because each changes the budget.
    A shard that is not owned by this node now, and a bucket that is taken, count as "taken".
    """
    compares: list[Compare] = []
    writes: list[Put] = []
    granted: list[TakeBucket] = []
    others: list[tuple[TakeBucket, Outcome, str]] = []
    keys = view.keys
    for one in sorted(wanted, key=lambda each: each.turn)[:TAKEN_AT_ONCE]:
        claim = view.claims.get(one.shard)
        if claim is None or claim.record.node != node or one.bucket in view.identifies:
            others.append((one, "taken", ""))
            continue
        refusal = budget_refusal(view, one.bucket.token_hash, one.turn, policy, spent=len(granted))
        if refusal is not None:
            others.append((one, "refused", refusal))
            continue
        key, shard = keys.identify(*one.bucket), one.shard
        record = IdentifyRecord(node=node, app=shard.app, group=shard.group, shard=shard.shard)
        # A node that was cut off may not know yet that another one owns the shard and its session now.
        owned = Compare(keys.claim(*shard), "create_revision", claim.create_revision)
        compares += [Compare(key, "create_revision", 0), owned]
        writes.append(Put(key, record.encode(), lease))
        granted.append(one)
    if granted:
        token_hash = granted[0].bucket.token_hash
        budget = view.budgets[token_hash]
        spent = msgspec.structs.replace(budget.record, remaining=budget.record.remaining - len(granted))
        compares.append(Compare(keys.budget(token_hash), "mod_revision", budget.mod_revision))
        writes.append(Put(keys.budget(token_hash), spent.encode()))
    return Take(tuple(compares), tuple(writes), tuple(granted), tuple(others))
