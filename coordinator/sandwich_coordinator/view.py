"""The mirror decoded into typed records: an immutable view, the input of all decisions of the control plane.

A change creates a new view that shares the unchanged parts. Keys that cannot be decoded are collected in `bad` with the
reason and raise nothing: one corrupt key must not stop the cluster.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from sandwich_coordinator.access.records import SignInRecord, TokenRecord, UserRecord
from sandwich_coordinator.ids import Fence, GroupId, ShardId
from sandwich_coordinator.store.base import KeyValue, WatchBatch
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import (
    AppRecord,
    BudgetRecord,
    ClaimRecord,
    DepartedRecord,
    GroupNumberRecord,
    GroupRecord,
    IdentifyRecord,
    LeaderRecord,
    NodeRecord,
    PinRecord,
    PlanRecord,
    ProposalRecord,
    Record,
    RemovalRecord,
    RestartRecord,
    RolloutRecord,
    SessionRecord,
)
from sandwich_coordinator.webhooks.records import WebhookRecord, WebhookStateRecord

R = TypeVar("R", bound=Record)


class Bucket(NamedTuple):
    """One identify bucket of one token."""

    token_hash: str
    bucket: int


@dataclass(frozen=True, slots=True)
class Entry(Generic[R]):
    """A decoded key: its record and the revisions that guard edits. `lease` is 0 for none."""

    record: R
    create_revision: int
    mod_revision: int
    lease: int


@dataclass(frozen=True, slots=True)
class BadEntry:
    """A key whose value cannot be used, and why."""

    reason: str
    mod_revision: int
    lease: int


@dataclass(frozen=True, slots=True)
class _Table:
    """How keys under one prefix are decoded into one of the view's mappings."""

    name: str
    prefix: str
    parts: tuple[type, ...]
    identity: Any
    decoder: msgspec.json.Decoder[Any]
    fields: tuple[str, ...]
    leased: bool = False

    def key_of(self, rest: str) -> Any:
        pieces: list[Any] = rest.split("/")
        if len(pieces) != len(self.parts) or not all(pieces):
            raise ValueError("the key has the wrong number of parts")
        for position, part in enumerate(self.parts):
            if part is int:
                pieces[position] = _number(pieces[position])
        return self.identity(*pieces)

    def entry_of(self, identity: Any, kv: KeyValue) -> Entry[Any]:
        if self.leased and kv.lease == 0:
            raise ValueError("it has no lease, so its holder's death would not free it")
        record = self.decoder.decode(kv.value)
        named = identity if isinstance(identity, tuple) else (identity,)
        for name, value in zip(self.fields, named, strict=False):
            if getattr(record, name) != value:
                raise ValueError(f"its value names another {name} than its key")
        return Entry(record, kv.create_revision, kv.mod_revision, kv.lease)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or str(int(text)) != text:
        raise ValueError(f"{text[:32]!r} is not a number")
    return int(text)


@lru_cache(maxsize=16)
def _tables(keys: Keys) -> tuple[_Table, ...]:
    one, shard = (str,), (str, int, int)
    group_names = ("app", "group")
    prefixes = keys.tables()

    def table(
        name: str,
        parts: tuple[type, ...],
        identity: Any,
        record: type[Record],
        fields: tuple[str, ...] = (),
        **more: Any,
    ) -> _Table:
        return _Table(name, prefixes[name], parts, identity, msgspec.json.Decoder(record), fields, **more)

    return (
        table("claims", shard, ShardId, ClaimRecord, (*group_names, "shard"), leased=True),
        table("sessions", shard, ShardId, SessionRecord),
        table("pins", shard, ShardId, PinRecord),
        table("restarts", shard, ShardId, RestartRecord),
        table("identifies", (str, int), Bucket, IdentifyRecord, (), leased=True),
        table("budgets", one, str, BudgetRecord),
        table("nodes", one, str, NodeRecord, ("node",), leased=True),
        table("departed", one, str, DepartedRecord, ("node",)),
        table("apps", one, str, AppRecord, ("app",)),
        table("groups", (str, int), GroupId, GroupRecord, group_names),
        table("rollouts", one, str, RolloutRecord),
        table("group_numbers", one, str, GroupNumberRecord),
        table("proposals", one, str, ProposalRecord),
        table("removals", one, str, RemovalRecord),
        table("tokens", one, str, TokenRecord, ("id",)),
        table("users", one, str, UserRecord, ("user",)),
        table("sign_ins", one, str, SignInRecord, ("user",)),
        table("webhooks", one, str, WebhookRecord, ("name",)),
        table("webhook_states", one, str, WebhookStateRecord),
        table("plans", (str, int), GroupId, PlanRecord, group_names),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimIndex:
    """Finds claims without looking at all of them, as 10,000 shards need it. Kept up to date with each change.

    `states`: how many claims of each group are in each state; a group without claims is not in it.
    `before`: the claims before the last change, and `changed`: which of them that change concerned.
    """

    claims: Mapping[ShardId, Entry[ClaimRecord]] = field(default_factory=dict)
    by_node: Mapping[str, frozenset[ShardId]] = field(default_factory=dict)
    queued: Mapping[GroupId, frozenset[ShardId]] = field(default_factory=dict)
    states: Mapping[GroupId, Mapping[str, int]] = field(default_factory=dict)
    before: Mapping[ShardId, Entry[ClaimRecord]] | None = None
    changed: frozenset[ShardId] = frozenset()

    def after(self, claims: Mapping[ShardId, Entry[ClaimRecord]], changed: Iterable[ShardId]) -> "ClaimIndex":
        """The index of `claims`, which differ from the present ones in `changed`."""
        came: dict[str, set[ShardId]] = {}
        went: dict[str, set[ShardId]] = {}
        started: dict[GroupId, set[ShardId]] = {}
        ended: dict[GroupId, set[ShardId]] = {}
        counts: dict[GroupId, dict[str, int]] = {}
        changed = frozenset(changed)
        for shard in changed:
            old, new = self.claims.get(shard), claims.get(shard)
            group = shard.of
            counted = counts.get(group)
            if counted is None:
                counted = counts[group] = dict(self.states.get(group, {}))
            if old is not None:
                if new is None or new.record.node != old.record.node:
                    went.setdefault(old.record.node, set()).add(shard)
                counted[old.record.state] -= 1
            if new is not None:
                if old is None or new.record.node != old.record.node:
                    came.setdefault(new.record.node, set()).add(shard)
                counted[new.record.state] = counted.get(new.record.state, 0) + 1
            waits = new is not None and new.record.is_queued
            if waits != (shard in self.queued.get(group, frozenset())):
                (started if waits else ended).setdefault(group, set()).add(shard)
        by_node = dict(self.by_node)
        for node in {**came, **went}:
            left = by_node.get(node, frozenset()).difference(went.get(node, ())).union(came.get(node, ()))
            if left:
                by_node[node] = left
            else:
                by_node.pop(node, None)
        queued = dict(self.queued)
        for group in {**started, **ended}:
            waits_still = queued.get(group, frozenset()).difference(ended.get(group, ()))
            queued[group] = waits_still.union(started.get(group, ()))
            if not queued[group]:
                del queued[group]
        states = dict(self.states)
        for group, counted in counts.items():
            states[group] = {state: count for state, count in counted.items() if count}
            if not states[group]:
                del states[group]
        return ClaimIndex(
            claims=claims,
            by_node=by_node,
            queued=queued,
            states=states,
            before=self.claims,
            changed=changed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionIndex:
    """How many sessions of each group are stored. Kept up to date with each change, like `ClaimIndex`."""

    sessions: Mapping[ShardId, Entry[SessionRecord]] = field(default_factory=dict)
    counts: Mapping[GroupId, int] = field(default_factory=dict)

    def after(self, sessions: Mapping[ShardId, Entry[SessionRecord]], changed: Iterable[ShardId]) -> "SessionIndex":
        """The index of `sessions`, which differ from the present ones in `changed`."""
        counts = dict(self.counts)
        for shard in changed:
            more = (shard in sessions) - (shard in self.sessions)
            if more:
                counts[shard.of] = counts.get(shard.of, 0) + more
        return SessionIndex(sessions=sessions, counts={group: count for group, count in counts.items() if count})


@dataclass(frozen=True, slots=True)
class _IdentifyChanges:
    """Which buckets differ between `before` and `now`."""

    before: Mapping[Bucket, Entry[IdentifyRecord]]
    now: Mapping[Bucket, Entry[IdentifyRecord]]
    changed: frozenset[Bucket]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    """Everything under the cluster's prefix, decoded, as of `revision`. Treat the mappings as read-only.

    `index` finds claims: see `claimed_by`, `queued`, `claim_states` and `changed_claims`; `session_index` the groups
    that have sessions: see `with_sessions`; `identify_changes` says which buckets the last change concerned.

    `config` is not decoded: before a node uses it, its cluster key has to authenticate it (`trust.py`). `tokens` and
    `users` are decoded and not authenticated: `access.identities` does that.
    """

    keys: Keys
    revision: int = 0
    config: KeyValue | None = None
    leader: Entry[LeaderRecord] | None = None
    nodes: Mapping[str, Entry[NodeRecord]] = field(default_factory=dict)
    departed: Mapping[str, Entry[DepartedRecord]] = field(default_factory=dict)
    apps: Mapping[str, Entry[AppRecord]] = field(default_factory=dict)
    groups: Mapping[GroupId, Entry[GroupRecord]] = field(default_factory=dict)
    rollouts: Mapping[str, Entry[RolloutRecord]] = field(default_factory=dict)
    group_numbers: Mapping[str, Entry[GroupNumberRecord]] = field(default_factory=dict)
    proposals: Mapping[str, Entry[ProposalRecord]] = field(default_factory=dict)
    removals: Mapping[str, Entry[RemovalRecord]] = field(default_factory=dict)
    plans: Mapping[GroupId, Entry[PlanRecord]] = field(default_factory=dict)
    claims: Mapping[ShardId, Entry[ClaimRecord]] = field(default_factory=dict)
    sessions: Mapping[ShardId, Entry[SessionRecord]] = field(default_factory=dict)
    pins: Mapping[ShardId, Entry[PinRecord]] = field(default_factory=dict)
    restarts: Mapping[ShardId, Entry[RestartRecord]] = field(default_factory=dict)
    identifies: Mapping[Bucket, Entry[IdentifyRecord]] = field(default_factory=dict)
    budgets: Mapping[str, Entry[BudgetRecord]] = field(default_factory=dict)
    tokens: Mapping[str, Entry[TokenRecord]] = field(default_factory=dict)
    users: Mapping[str, Entry[UserRecord]] = field(default_factory=dict)
    sign_ins: Mapping[str, Entry[SignInRecord]] = field(default_factory=dict)
    webhooks: Mapping[str, Entry[WebhookRecord]] = field(default_factory=dict)
    webhook_states: Mapping[str, Entry[WebhookStateRecord]] = field(default_factory=dict)
    bad: Mapping[str, BadEntry] = field(default_factory=dict)
    index: ClaimIndex | None = field(default=None, compare=False, repr=False)
    session_index: SessionIndex | None = field(default=None, compare=False, repr=False)
    identify_changes: _IdentifyChanges | None = field(default=None, compare=False, repr=False)

    @classmethod
    def from_items(cls, keys: Keys, items: Mapping[str, KeyValue], revision: int = 0) -> "ClusterView":
        """Decode a listing; `revision` is the listing's (the newest key's when it is not given)."""
        newest = max((kv.mod_revision for kv in items.values()), default=0)
        return cls(keys=keys)._with(((key, kv) for key, kv in items.items()), revision or newest)

    def apply(self, *batches: WatchBatch) -> "ClusterView":
        """The view after `batches`. Costs one shallow copy of each mapping that changes, and decodes only changes.

        Events that are not newer than a key in the view are harmless: the store repeats in order.
        """
        revision = self.revision
        for batch in batches:
            # Events of a lower revision than before: the store was restored from a backup.
            revision = batch.revision if batch.events else max(revision, batch.revision)
        events = [event for batch in batches for event in batch.events]
        if not events:
            return replace(self, revision=revision)
        return self._with(((event.kv.key, event.kv if event.kind == "put" else None) for event in events), revision)

    def _with(self, changes: Iterable[tuple[str, KeyValue | None]], revision: int) -> "ClusterView":
        tables = _tables(self.keys)
        edited: dict[str, Any] = {}
        claims: set[ShardId] = set()
        sessions: set[ShardId] = set()
        buckets: set[Bucket] = set()
        bad = dict(self.bad)
        leader, config = self.leader, self.config
        for key, kv in changes:
            bad.pop(key, None)
            if key == self.keys.config:
                config = kv
                continue
            if key == self.keys.leader:
                leader = _leader(kv, bad)
                continue
            table = next((table for table in tables if key.startswith(table.prefix)), None)
            if table is None:
                continue
            target = edited.get(table.name)
            if target is None:
                target = edited[table.name] = dict(getattr(self, table.name))
            identity = _change(table, key, kv, target, bad)
            if identity is not None and table.name == "claims":
                claims.add(identity)
            elif identity is not None and table.name == "sessions":
                sessions.add(identity)
            elif identity is not None and table.name == "identifies":
                buckets.add(identity)
        if claims:
            edited["index"] = self._index.after(edited["claims"], claims)
        if sessions:
            edited["session_index"] = self._session_index.after(edited["sessions"], sessions)
        if buckets:
            edited["identify_changes"] = _IdentifyChanges(self.identifies, edited["identifies"], frozenset(buckets))
        if bad != self.bad:
            edited["bad"] = bad
        return replace(self, revision=revision, config=config, leader=leader, **edited)

    @property
    def _index(self) -> ClaimIndex:
        if self.index is not None and self.index.claims is self.claims:
            return self.index
        return ClaimIndex().after(self.claims, self.claims.keys())

    @property
    def _session_index(self) -> SessionIndex:
        if self.session_index is not None and self.session_index.sessions is self.sessions:
            return self.session_index
        return SessionIndex().after(self.sessions, self.sessions.keys())

    @property
    def claimed_by(self) -> Mapping[str, frozenset[ShardId]]:
        """The shards of each node's claims."""
        return self._index.by_node

    @property
    def queued(self) -> Mapping[GroupId, frozenset[ShardId]]:
        """The shards of each group whose claims say that they wait for their turn to IDENTIFY, or have just had it."""
        return self._index.queued

    @property
    def claim_states(self) -> Mapping[GroupId, Mapping[str, int]]:
        """How many claims of each group are in each state, without those that are in none."""
        return self._index.states

    @property
    def with_sessions(self) -> AbstractSet[GroupId]:
        """The groups of which sessions are stored."""
        return self._session_index.counts.keys()

    def changed_claims(self, before: "ClusterView") -> frozenset[ShardId]:
        """The shards whose claim differs from the one in an earlier view."""
        if self.claims is before.claims:
            return frozenset()
        if self._index.before is before.claims:
            return self._index.changed
        gone = {shard for shard, claim in before.claims.items() if self.claims.get(shard) is not claim}
        return frozenset(gone | (self.claims.keys() - before.claims.keys()))

    def changed_identifies(self, before: "ClusterView") -> frozenset[Bucket]:
        """The buckets whose entry differs from the one in an earlier view."""
        if self.identifies is before.identifies:
            return frozenset()
        last = self.identify_changes
        if last is not None and last.now is self.identifies and last.before is before.identifies:
            return last.changed
        gone = {bucket for bucket, entry in before.identifies.items() if self.identifies.get(bucket) is not entry}
        return frozenset(gone | (self.identifies.keys() - before.identifies.keys()))

    def revision_of_bad(self, key: str) -> int:
        """The revision that guards the replacement of a key that cannot be read; 0 when there is no such key."""
        entry = self.bad.get(key)
        return 0 if entry is None else entry.mod_revision

    def unreadable(self, group: GroupId) -> bool:
        """Whether an application's, group's or plan's record exists but cannot be read: nothing is decided from it."""
        if not self.bad:
            return False
        keys = self.keys
        return not self.bad.keys().isdisjoint((keys.app(group.app), keys.group(*group), keys.plan(*group)))

    def restart_wanted(self, shard: ShardId) -> bool:
        """Whether an operator asked for a restart after the shard's present claim was created."""
        request, claim = self.restarts.get(shard), self.claims.get(shard)
        return request is not None and claim is not None and request.mod_revision > claim.create_revision

    def fence(self, shard: ShardId) -> Fence | None:
        """The fence of a shard's claim: the revision of the transaction that created it; None without a claim."""
        entry = self.claims.get(shard)
        return None if entry is None else entry.record.fence or Fence(entry.mod_revision)


def _leader(kv: KeyValue | None, bad: dict[str, BadEntry]) -> Entry[LeaderRecord] | None:
    """The leader's entry. One that cannot be decoded still has a leader term: some node leads."""
    if kv is None:
        return None
    try:
        record = msgspec.json.decode(kv.value, type=LeaderRecord)
    except msgspec.MsgspecError as error:
        bad[kv.key] = BadEntry(str(error), kv.mod_revision, kv.lease)
        record = LeaderRecord(node="", instance="")
    return Entry(record, kv.create_revision, kv.mod_revision, kv.lease)


def _change(table: _Table, key: str, kv: KeyValue | None, target: dict[Any, Any], bad: dict[str, BadEntry]) -> Any:
    """Change one entry of a mapping. Returns what names it; None when the key cannot be read."""
    try:
        identity = table.key_of(key[len(table.prefix) :])
    except ValueError as error:
        if kv is not None:
            bad[key] = BadEntry(str(error), kv.mod_revision, kv.lease)
        return None
    target.pop(identity, None)
    if kv is None:
        return identity
    try:
        target[identity] = table.entry_of(identity, kv)
    except (msgspec.MsgspecError, ValueError) as error:
        bad[key] = BadEntry(str(error), kv.mod_revision, kv.lease)
    return identity
