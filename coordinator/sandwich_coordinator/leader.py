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
from sandwich_coordinator.gateway_state import GatewayState
from sandwich_coordinator.generations import finished_switches, needs_relocation
from sandwich_coordinator.group_writes import all_of_group, group_writes, switch_writes
from sandwich_coordinator.groups import UPCOMING, group_states, serving_groups
from sandwich_coordinator.ids import GroupId, LeaderTerm
from sandwich_coordinator.plans import (
    LeaderMemory,
    LeaderWrite,
    capacities,
    pace_s,
    plan_writes,
    unreadable_nodes,
)
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.proposals import proposal_writes
from sandwich_coordinator.store.base import Compare, Delete, Put
from sandwich_coordinator.types import BudgetRecord
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


@dataclass(frozen=True, slots=True)
class LeaderDecision:
    """What to write and look up, what to remember, and when to decide again although nothing changed.

    `relocations`: for each finished switch, the group that serves now and the one that it replaced: the cache is to
    locate the guilds of the old one in the new one. Once it does, the memory's `relocated` has the new one.
    """

    writes: tuple[LeaderWrite, ...]
    lookups: tuple[LookupWanted, ...]
    memory: LeaderMemory
    wake_at: float | None
    relocations: tuple[tuple[GroupId, GroupId], ...] = ()


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
    memory, proposals, proposal_at = proposal_writes(view, memory, now=now, wall=wall, policy=policy)
    planned, memory = plan_writes(view, memory, term=term, now=now, policy=policy)
    writes = [
        *_budget_writes(view, gateway, wall, policy),
        *_removals(view),
        *group_writes(view, gateway, states, term=term, wall=wall, policy=policy),
        *switch_writes(view, memory.relocated, term),
        *proposals,
        *planned,
        # Last: what only informs must not delay a move.
        *departure_writes(view, memory.departed, now=now, wall=wall),
    ]
    lookups, lookup_at = _lookups(view, gateway, now=now, wall=wall, policy=policy)
    wakes = (*_timers(view, memory, policy), *lookup_at, *proposal_at, *expiry(view, now=now, wall=wall))
    return LeaderDecision(
        tuple(replace(write, compares=(guard, *write.compares)) for write in writes),
        lookups,
        memory,
        min((at for at in wakes if at > now), default=None),
        tuple(pair for pair in finished_switches(view) if needs_relocation(view, pair[0])),
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


def _timers(view: ClusterView, memory: LeaderMemory, policy: Policy) -> Iterator[float]:
    """When time alone may change a decision."""
    if memory.planned_at is not None:
        yield memory.planned_at + pace_s(len(view.nodes))
    if memory.at_rest is not None and memory.at_rest.moving_max is not None:
        yield memory.at_rest.until
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


# --- removal ----------------------------------------------------------------------------------------------------


def _removals(view: ClusterView) -> Iterator[LeaderWrite]:
    """Delete what has no owner any more. An application whose record cannot be read still counts as present."""
    keys = view.keys
    present = set(view.apps) | {key.removeprefix(keys.apps) for key in view.bad if key.startswith(keys.apps)}
    serving = serving_groups(view)
    successors = (entry.record for entry in view.groups.values())
    replaced = {GroupId(new.app, new.replaces) for new in successors if new.replaces is not None}
    for key in sorted(
        {
            *view.groups,
            *view.plans,
            *view.with_sessions,
            *(shard.of for shard in (*view.pins, *view.restarts)),
        }
    ):
        group = view.groups.get(key)
        revision = 0 if group is None else group.mod_revision
        guard = Compare(keys.group(*key), "mod_revision", revision)
        if keys.group(*key) in view.bad:
            continue
        if key.app not in present:
            gone = Compare(keys.app(key.app), "create_revision", 0)
            yield LeaderWrite((gone, guard), all_of_group(view, key), f"application {key.app} was removed")
        elif group is None:
            yield LeaderWrite((guard,), all_of_group(view, key), f"group {key} is no more")
        elif group.record.phase not in UPCOMING and serving[key.app] != key and key not in replaced:
            yield LeaderWrite((guard,), all_of_group(view, key), f"group {key} is not the serving one")
    for shard, request in sorted(view.restarts.items()):
        claim = view.claims.get(shard)
        if claim is not None and claim.create_revision > request.mod_revision:
            name = keys.restart(*shard)
            guard = Compare(name, "mod_revision", request.mod_revision)
            yield LeaderWrite((guard,), (Delete(name),), f"shard {shard.app}/{shard.group}/{shard.shard} was restarted")
    used = {entry.record.token_hash for entry in view.apps.values()}
    used |= {group.record.token_hash for key, group in view.groups.items() if key.app in present}
    readable = not any(key.startswith(keys.apps) for key in view.bad)
    for token_hash in sorted(set(view.budgets) - used if readable else ()):
        name = keys.budget(token_hash)
        guard = Compare(name, "mod_revision", view.budgets[token_hash].mod_revision)
        yield LeaderWrite((guard,), (Delete(name),), "no application uses this token any more")
    for app in sorted(view.rollouts.keys() - present):
        name = keys.rollout(app)
        guard = Compare(name, "mod_revision", view.rollouts[app].mod_revision)
        yield LeaderWrite((guard,), (Delete(name),), f"application {app} was removed")
    for name in sorted(key for key, bad in view.bad.items() if bad.lease == 0):
        if name.startswith((keys.claims, keys.identifies)):
            guard = Compare(name, "mod_revision", view.bad[name].mod_revision)
            yield LeaderWrite((guard,), (Delete(name),), "it has no lease and would stay for ever")
