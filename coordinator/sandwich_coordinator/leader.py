"""What the leader writes: groups, plans, group states, and the removal of what is no longer wanted.

Level-triggered: each call looks at the whole view and returns what is missing between it and what should be. Every
write is one guarded transaction that is right on its own, so a leader may die after any of them and its successor
continues (docs/design/coordination.md; docs/design/reliability.md, faults 3, 7, 10 and 11). The leader never writes
claims or sessions of running shards, and moves nothing while most nodes seem to have vanished at once.

What one view cannot show (who was there a moment ago) is in `LeaderMemory`, which a new leader starts from the plans.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import msgspec

from sandwich_coordinator.backoff import doubled_s
from sandwich_coordinator.departures import departure_writes, expiry
from sandwich_coordinator.groups import (
    Shape,
    group_states,
    newest_groups,
    wanted_shape,
)
from sandwich_coordinator.ids import GroupId, LeaderTerm
from sandwich_coordinator.plans import (
    LeaderMemory,
    LeaderWrite,
    apps_with_unreadable_groups,
    capacities,
    plan_writes,
    unreadable_nodes,
)
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.store.base import Compare, Delete, Put
from sandwich_coordinator.types import AppRecord, BudgetRecord, GroupRecord, GroupState
from sandwich_coordinator.view import ClusterView, Entry

CONFIRMED_WITHIN_S = 300.0
"""An address that was confirmed longer ago than this is asked for at the first pace again."""
CLOCKS_APART_S = 7200.0
"""A reset time that is later by more than this is another day's: the clocks of two leaders do not differ so much."""


@dataclass(frozen=True, slots=True)
class LookupWanted:
    """Ask Discord's `GET /gateway/bot` with this application's token."""

    token_hash: str
    app: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayState:
    """What this leader knows of one token's look-ups; kept by the shell. `ended_at` is monotonic.

    `answer` is the last answer, to be recorded; for a refusal that retrying cannot help (401) its `error` is set.
    `failures` counts look-ups in a row that brought no answer; `error` says why. Before `retry_at` (monotonic) Discord
    does not want to be asked again.

    `before` and `under_way`: the budget when the look-up of `answer` began, and how many buckets were held then: starts
    that Discord may not have counted.
    """

    in_flight: bool = False
    ended_at: float | None = None
    answer: BudgetRecord | None = None
    failures: int = 0
    error: str = ""
    retry_at: float = 0.0
    before: BudgetRecord | None = None
    under_way: int = 0


@dataclass(frozen=True, slots=True)
class LeaderDecision:
    """What to write and look up, what to remember, and when to decide again although nothing changed."""

    writes: tuple[LeaderWrite, ...]
    lookups: tuple[LookupWanted, ...]
    memory: LeaderMemory
    wake_at: float | None


def reconcile(
    view: ClusterView,
    gateway: Mapping[str, GatewayState],
    memory: LeaderMemory,
    *,
    term: LeaderTerm,
    now: float,
    wall: float,
    policy: Policy,
) -> LeaderDecision:
    """Decide everything the leader does next. `now` is monotonic, `wall` Unix seconds (records and budget resets).

    Writes nothing at a fixpoint. The order of the writes does not matter for safety; later ones may fail their guards.
    """
    memory = _remember(view, memory, now, policy)
    guard = Compare(view.keys.leader, "create_revision", term)
    accepting = any(node.accepts for node in capacities(view))
    states, since = group_states(view, memory.not_live_since, accepting=accepting, now=now, policy=policy)
    memory = replace(memory, not_live_since=since)
    writes = [
        *_budget_writes(view, gateway, wall, policy),
        *_removals(view),
        *_group_writes(view, gateway, states, term=term, wall=wall, policy=policy),
        *plan_writes(view, memory, term=term, now=now, policy=policy),
        # Last: what only informs must not delay a move.
        *departure_writes(view, memory.departed, now=now, wall=wall),
    ]
    lookups, lookup_at = _lookups(view, gateway, now=now, wall=wall, policy=policy)
    wakes = (*_timers(memory, policy), *lookup_at, *expiry(view, now=now, wall=wall))
    return LeaderDecision(
        tuple(replace(write, compares=(guard, *write.compares)) for write in writes),
        lookups,
        memory,
        min((at for at in wakes if at > now), default=None),
    )


# --- membership -------------------------------------------------------------------------------------------------


def _remember(view: ClusterView, memory: LeaderMemory, now: float, policy: Policy) -> LeaderMemory:
    """Note who came and went. A new leader expects the nodes the plans name (reliability.md, faults 10, 11)."""
    present = frozenset(view.nodes) | unreadable_nodes(view)
    before = memory.members
    if before is None:
        before = present | {node for entry in view.plans.values() for node in entry.record.nodes}
    gone = before - present
    kept_s = max(policy.lease_ttl_s, policy.restart_grace_s)
    departed = {node: at for node, at in memory.departed.items() if node not in present and now - at <= kept_s}
    departed |= dict.fromkeys(gone, now)
    departures = _recent(memory.departures, gone, now, policy)
    changed = memory.members is not None and before != present
    hold = memory.hold_until
    lately = sum(1 for at in departed.values() if now - at <= policy.lease_ttl_s)
    if gone and hold is None and lately > policy.mass_loss_fraction * (lately + len(present)):
        hold = now + policy.lease_ttl_s
    if hold is not None and (now >= hold or not departed):
        hold = None
    return replace(
        memory,
        members=present,
        departed=departed,
        departures=departures,
        changed_at=now if changed or gone else memory.changed_at,
        hold_until=hold,
    )


def _recent(
    departures: Mapping[str, tuple[float, ...]], gone: Iterable[str], now: float, policy: Policy
) -> dict[str, tuple[float, ...]]:
    all_of_them = dict(departures)
    for node in gone:
        all_of_them[node] = (*all_of_them.get(node, ()), now)
    kept = {node: tuple(t for t in times if now - t < policy.flap_window_s) for node, times in all_of_them.items()}
    return {node: times[-policy.flaps_max :] for node, times in kept.items() if times}


def _timers(memory: LeaderMemory, policy: Policy) -> Iterator[float]:
    """When time alone may change a decision."""
    if memory.hold_until is not None:
        yield memory.hold_until
    if memory.changed_at is not None:
        yield memory.changed_at + policy.settle_s
    yield from (at + policy.restart_grace_s for at in memory.departed.values())
    yield from (since + policy.degraded_after_s for since in memory.not_live_since.values())
    yield from (times[0] + policy.flap_window_s for times in memory.departures.values())


# --- what Discord says ------------------------------------------------------------------------------------------


def _tokens(view: ClusterView) -> dict[str, str]:
    """Every token in use by an application that is not paused, with the first application that uses it."""
    used: dict[str, str] = {}
    for name in sorted(view.apps):
        record = view.apps[name].record
        if not record.paused:
            used.setdefault(record.token_hash, name)
    return used


def _lookups(
    view: ClusterView, gateway: Mapping[str, GatewayState], *, now: float, wall: float, policy: Policy
) -> tuple[tuple[LookupWanted, ...], list[float]]:
    """The look-ups due now, and when (monotonic) the others will be."""
    wanted: list[LookupWanted] = []
    later: list[float] = []
    for token_hash, app in _tokens(view).items():
        state = gateway.get(token_hash, GatewayState())
        if state.in_flight:
            continue
        due = now + _stale_in(view.budgets.get(token_hash), wall, policy)
        if token_hash not in view.budgets and state.answer is not None:
            due = now + max(0.0, state.answer.fetched_at + policy.gateway_answer_fresh_s - wall)
        if state.ended_at is not None:
            doubted = token_hash in view.budgets and bool(view.budgets[token_hash].record.unreachable)
            most = policy.gateway_doubt_max_s if doubted else policy.gateway_retry_max_s
            wait = doubled_s(policy.gateway_retry_s, most, state.failures)
            due = max(due, state.retry_at, state.ended_at + wait)
        if due <= now:
            wanted.append(LookupWanted(token_hash, app))
        else:
            later.append(due)
    return tuple(wanted), later


def _stale_in(budget: Entry[BudgetRecord] | None, wall: float, policy: Policy) -> float:
    """Seconds until a budget should be refreshed: after its interval, or once its reset has passed."""
    if budget is None:
        return 0.0
    record = budget.record
    if record.fetched_at > wall:
        # Written by a leader whose clock is ahead of ours: its age cannot be known.
        return 0.0
    stale_at = record.fetched_at + policy.gateway_refresh_s
    if record.fetched_at < record.reset_at:
        stale_at = min(stale_at, record.reset_at)
    if record.unreachable:
        stale_at = min(stale_at, record.fetched_at + _doubt_s(record, policy))
    return max(0.0, stale_at - wall)


def _doubt_s(record: BudgetRecord, policy: Policy) -> float:
    """How old an answer must be before a doubt of its address counts: Discord may be away, and its address right."""
    return doubled_s(policy.gateway_doubt_s, policy.gateway_doubt_max_s, record.confirmed + 1)


def _budget_writes(
    view: ClusterView, gateway: Mapping[str, GatewayState], wall: float, policy: Policy
) -> Iterator[LeaderWrite]:
    """Record fresh answers; a start reserved meanwhile makes the guard fail and the next call try.

    Their times do not say whether an answer is newer than the record: another clock may have written it.
    """
    for token_hash in sorted(_tokens(view)):
        state = gateway.get(token_hash, GatewayState())
        answer = state.answer
        entry = view.budgets.get(token_hash)
        if answer is None or (entry is not None and entry.record.fetched_at == answer.fetched_at):
            continue
        if wall - answer.fetched_at > policy.gateway_answer_fresh_s:
            continue
        record = _confirmed(None if entry is None else entry.record, answer, state)
        key = view.keys.budget(token_hash)
        guard = Compare(key, "mod_revision", view.revision_of_bad(key) if entry is None else entry.mod_revision)
        yield LeaderWrite((guard,), (Put(key, record.encode()),), "recorded what Discord says about session starts")


def _confirmed(old: BudgetRecord | None, new: BudgetRecord, state: GatewayState) -> BudgetRecord:
    """The record to write. It forgets the doubt and counts how often the doubted address was confirmed lately."""
    record = _merged(old, new, state)
    again = old is not None and record.url == old.url and new.fetched_at - old.fetched_at < CONFIRMED_WITHIN_S
    confirmed = old.confirmed + bool(old.unreachable) if old is not None and again else 0
    return msgspec.structs.replace(record, unreachable="", confirmed=confirmed)


def _merged(old: BudgetRecord | None, new: BudgetRecord, state: GatewayState) -> BudgetRecord:
    """What may be reserved from now on. It is never more than what Discord would still allow.

    A refusal keeps the numbers we have. Otherwise Discord's answer counts, less the starts that it may not have
    counted: of buckets that were held when it was asked, and what was reserved since. Where another answer was recorded
    meanwhile, the lower remainder of one day counts.
    """
    if new.error:
        return new if old is None else msgspec.structs.replace(old, error=new.error, fetched_at=new.fetched_at)
    left = new.remaining - state.under_way
    if old is not None and state.before is not None and state.before.fetched_at == old.fetched_at:
        left -= state.before.remaining - old.remaining
    elif old is not None and new.reset_at <= old.reset_at + CLOCKS_APART_S:
        left = min(left, old.remaining)
    return msgspec.structs.replace(new, remaining=max(0, left))


# --- groups -----------------------------------------------------------------------------------------------------


def _group_writes(
    view: ClusterView,
    gateway: Mapping[str, GatewayState],
    states: Mapping[GroupId, tuple[GroupState, str]],
    *,
    term: LeaderTerm,
    wall: float,
    policy: Policy,
) -> Iterator[LeaderWrite]:
    current = newest_groups(view)
    unsure = apps_with_unreadable_groups(view)
    for name in sorted(view.apps.keys() - unsure):
        app = view.apps[name]
        key = current.get(name)
        entry = None if key is None else view.groups[key]
        budget = view.budgets.get(app.record.token_hash)
        shape = wanted_shape(
            app.record,
            None if entry is None else entry.record,
            None if budget is None else budget.record,
            gateway.get(app.record.token_hash, GatewayState()).error,
        )
        if app.record.paused:
            shape = replace(shape, state="paused", reason="")
        if key is None or entry is None:
            yield _create(view, app, GroupId(name, 0), shape, term=term, wall=wall)
        elif shape.count and entry.record.count and (shape.count, shape.ids) != (entry.record.count, entry.record.ids):
            yield _next_generation(view, app, key, shape, term=term, wall=wall)
        elif (write := _update(view, app, key, shape, states.get(key), term)) is not None:
            yield write


def _create(
    view: ClusterView, app: Entry[AppRecord], key: GroupId, shape: Shape, *, term: LeaderTerm, wall: float
) -> LeaderWrite:
    name = view.keys.group(*key)
    record = GroupRecord(
        app=key.app,
        group=key.group,
        count=shape.count,
        ids=shape.ids,
        term=term,
        state=shape.state,
        reason=shape.reason,
        created_at=wall,
    )
    guards = (_unchanged(view.keys.app(key.app), app), Compare(name, "mod_revision", 0))
    return LeaderWrite(guards, (Put(name, record.encode()),), f"created group {key.app}/{key.group}")


def _next_generation(
    view: ClusterView, app: Entry[AppRecord], old: GroupId, shape: Shape, *, term: LeaderTerm, wall: float
) -> LeaderWrite:
    """The new group and the end of the old one in one transaction, so that no leader sees half of it."""
    create = _create(view, app, GroupId(old.app, old.group + 1), shape, term=term, wall=wall)
    return LeaderWrite(
        (*create.compares, _unchanged(view.keys.group(*old), view.groups[old])),
        (*create.writes, *_all_of_group(view, old)),
        f"replaced group {old.app}/{old.group}: its shard count or ids changed",
    )


def _update(
    view: ClusterView,
    app: Entry[AppRecord],
    key: GroupId,
    shape: Shape,
    derived: tuple[GroupState, str] | None,
    term: LeaderTerm,
) -> LeaderWrite | None:
    """Record a change of state, or the count that was awaited; None when nothing changed."""
    entry = view.groups[key]
    old = entry.record
    count, ids = (old.count, old.ids) if old.count else (shape.count, shape.ids)
    if shape.state == "starting" and old.count and derived is not None:
        state, reason = derived
    else:
        state, reason = shape.state, shape.reason
    if (count, ids, state, reason) == (old.count, old.ids, old.state, old.reason):
        return None
    record = msgspec.structs.replace(old, count=count, ids=ids, state=state, reason=reason, term=term)
    name = view.keys.group(*key)
    guards = (_unchanged(view.keys.app(key.app), app), _unchanged(name, entry))
    return LeaderWrite(guards, (Put(name, record.encode()),), f"group {key.app}/{key.group} is {state}")


def _unchanged(key: str, entry: Entry[AppRecord] | Entry[GroupRecord]) -> Compare:
    return Compare(key, "mod_revision", entry.mod_revision)


def _all_of_group(view: ClusterView, key: GroupId) -> tuple[Delete, ...]:
    keys = view.keys
    of_shards = (f"{prefix}{key.app}/{key.group}/" for prefix in (keys.sessions, keys.pins, keys.restarts))
    return Delete(keys.group(*key)), Delete(keys.plan(*key)), *(Delete(prefix, prefix=True) for prefix in of_shards)


# --- removal ----------------------------------------------------------------------------------------------------


def _removals(view: ClusterView) -> Iterator[LeaderWrite]:
    """Delete what has no owner any more. An application whose record cannot be read still counts as present."""
    keys = view.keys
    present = set(view.apps) | {key.removeprefix(keys.apps) for key in view.bad if key.startswith(keys.apps)}
    newest = newest_groups(view)
    for key in sorted(
        {*view.groups, *view.plans, *(shard.of for shard in (*view.sessions, *view.pins, *view.restarts))}
    ):
        group = view.groups.get(key)
        revision = 0 if group is None else group.mod_revision
        guard = Compare(keys.group(*key), "mod_revision", revision)
        if keys.group(*key) in view.bad:
            continue
        if key.app not in present:
            gone = Compare(keys.app(key.app), "create_revision", 0)
            yield LeaderWrite((gone, guard), _all_of_group(view, key), f"application {key.app} was removed")
        elif group is None or newest[key.app] != key:
            yield LeaderWrite((guard,), _all_of_group(view, key), f"group {key.app}/{key.group} is no more")
    for shard, request in sorted(view.restarts.items()):
        claim = view.claims.get(shard)
        if claim is not None and claim.create_revision > request.mod_revision:
            name = keys.restart(*shard)
            guard = Compare(name, "mod_revision", request.mod_revision)
            yield LeaderWrite((guard,), (Delete(name),), f"shard {shard.app}/{shard.group}/{shard.shard} was restarted")
    used = {entry.record.token_hash for entry in view.apps.values()}
    readable = not any(key.startswith(keys.apps) for key in view.bad)
    for token_hash in sorted(set(view.budgets) - used if readable else ()):
        name = keys.budget(token_hash)
        guard = Compare(name, "mod_revision", view.budgets[token_hash].mod_revision)
        yield LeaderWrite((guard,), (Delete(name),), "no application uses this token any more")
    for name in sorted(key for key, bad in view.bad.items() if bad.lease == 0):
        if name.startswith((keys.claims, keys.identifies)):
            guard = Compare(name, "mod_revision", view.bad[name].mod_revision)
            yield LeaderWrite((guard,), (Delete(name),), "it has no lease and would stay for ever")
