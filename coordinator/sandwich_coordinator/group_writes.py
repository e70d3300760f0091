"""What the leader writes about shard groups: the first one, the next generation, its phases, and the states of all.

Part of `leader.reconcile`; see there. The decisions are in `groups` and `generations`. Pure.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from sandwich_coordinator.gateway_state import GatewayState
from sandwich_coordinator.generations import (
    begins_at_once,
    finished_switches,
    has_ended,
    has_starts_for,
    is_as_wanted,
    needs_relocation,
    newest_number,
    next_phase,
    wanted_group,
)
from sandwich_coordinator.groups import Shape, serving_groups, upcoming_groups, wanted_shape
from sandwich_coordinator.ids import GroupId, LeaderTerm
from sandwich_coordinator.plans import LeaderWrite, apps_with_unreadable_groups
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.store.base import Compare, Delete, Put
from sandwich_coordinator.types import AppRecord, GroupNumberRecord, GroupPhase, GroupRecord, GroupState
from sandwich_coordinator.view import ClusterView, Entry


def group_writes(
    view: ClusterView,
    gateway: Mapping[str, GatewayState],
    states: Mapping[GroupId, tuple[GroupState, str]],
    *,
    term: LeaderTerm,
    wall: float,
    policy: Policy,
) -> Iterator[LeaderWrite]:
    serving, upcoming = serving_groups(view), upcoming_groups(view)
    for name in sorted(view.apps.keys() - apps_with_unreadable_groups(view)):
        app = view.apps[name]
        key = serving.get(name)
        budget = view.budgets.get(app.record.token_hash)
        rollout = view.rollouts.get(name)
        shape = wanted_shape(
            app.record,
            None if key is None else view.groups[key].record,
            None if budget is None else budget.record,
            gateway.get(app.record.token_hash, GatewayState()).error,
            None if rollout is None else rollout.record,
        )
        if app.record.paused:
            shape = replace(shape, state="paused", reason="")
        if key is None:
            # An upcoming group without the one it replaces (an operator deleted keys) starts from nothing.
            for stray in [upcoming[name]] if name in upcoming else []:
                yield from _removal(view, stray, "it has no group to replace")
            yield _create(view, app, GroupId(name, newest_number(view, name) + 1), shape, term=term, wall=wall)
            continue
        yield from _generations(view, app, key, upcoming.get(name), shape, states, term=term, wall=wall, policy=policy)
        if (write := _update(view, app, key, shape, states.get(key), term)) is not None:
            yield write


def _generations(
    view: ClusterView,
    app: Entry[AppRecord],
    serving: GroupId,
    upcoming: GroupId | None,
    shape: Shape,
    states: Mapping[GroupId, tuple[GroupState, str]],
    *,
    term: LeaderTerm,
    wall: float,
    policy: Policy,
) -> Iterator[LeaderWrite]:
    """The next step from the serving group to the one that is wanted (docs/design/scaling.md)."""
    rollout = view.rollouts.get(app.record.app)
    wanted = wanted_group(app.record, shape, None if rollout is None else rollout.record)
    record = view.groups[serving].record
    if wanted is None or not record.count:
        return
    if upcoming is not None:
        present = view.groups[upcoming].record
        if present.replaces != serving.group or not is_as_wanted(present, wanted):
            yield from _removal(view, upcoming, "it is not wanted any more")
        elif (phase := next_phase(view, upcoming, present)) is not None:
            yield _advance(view, upcoming, phase, term)
        elif (update := _state_write(view, app, upcoming, states.get(upcoming), term)) is not None:
            yield update
        return
    ended = has_ended(view, serving, record)
    if record.phase == "switching" or (is_as_wanted(record, wanted) and not ended):
        return
    budget = view.budgets.get(app.record.token_hash)
    if ended or begins_at_once(view, serving, record, wanted):
        yield _replace_at_once(view, app, serving, shape, term=term, wall=wall)
    elif has_starts_for(wanted, None if budget is None else budget.record, policy):
        yield _begin(view, app, serving, shape, term=term, wall=wall)


def _begin(
    view: ClusterView,
    app: Entry[AppRecord],
    serving: GroupId,
    shape: Shape,
    *,
    term: LeaderTerm,
    wall: float,
) -> LeaderWrite:
    """Start the next generation beside the serving group."""
    key = GroupId(serving.app, newest_number(view, serving.app) + 1)
    shape = replace(shape, state="starting", reason="")
    create = _create(view, app, key, shape, term=term, wall=wall, replaces=serving.group)
    guard = _unchanged(view.keys.group(*serving), view.groups[serving])
    return replace(create, compares=(*create.compares, guard))


def _advance(view: ClusterView, key: GroupId, phase: GroupPhase, term: LeaderTerm) -> LeaderWrite:
    """Set the phase of an upcoming group; with `switching`, the group that it replaces closes."""
    entry = view.groups[key]
    name = view.keys.group(*key)
    record = msgspec.structs.replace(entry.record, phase=phase, term=term)
    compares = [_unchanged(name, entry)]
    writes: list[Put | Delete] = [Put(name, record.encode())]
    if phase == "switching":
        old = GroupId(key.app, entry.record.replaces or 0)
        closing, old_name = view.groups[old], view.keys.group(*old)
        compares.append(_unchanged(old_name, closing))
        ends = msgspec.structs.replace(closing.record, phase="closing", state="closing", reason="", term=term)
        writes.append(Put(old_name, ends.encode()))
    return LeaderWrite(tuple(compares), tuple(writes), f"group {key} is {phase}")


def switch_writes(view: ClusterView, relocated: Collection[GroupId], term: LeaderTerm) -> Iterator[LeaderWrite]:
    """End a switch whose shards are all live: the old group goes in the same transaction, so no leader sees half."""
    for key, old in finished_switches(view):
        if needs_relocation(view, key) and key not in relocated:
            continue
        entry, name = view.groups[key], view.keys.group(*key)
        record = msgspec.structs.replace(entry.record, phase="active", replaces=None, term=term)
        guards = [_unchanged(name, entry)]
        if old in view.groups:
            guards.append(_unchanged(view.keys.group(*old), view.groups[old]))
        writes: tuple[Put | Delete, ...] = (Put(name, record.encode()), *all_of_group(view, old))
        yield LeaderWrite(tuple(guards), writes, f"group {key} has replaced group {old}")


def _create(
    view: ClusterView,
    app: Entry[AppRecord],
    key: GroupId,
    shape: Shape,
    *,
    term: LeaderTerm,
    wall: float,
    replaces: int | None = None,
) -> LeaderWrite:
    name = view.keys.group(*key)
    rollout = view.rollouts.get(key.app)
    record = GroupRecord(
        app=key.app,
        group=key.group,
        count=shape.count,
        ids=shape.ids,
        term=term,
        state=shape.state,
        reason=shape.reason,
        created_at=wall,
        phase="active" if replaces is None else "canary",
        replaces=replaces,
        intents=app.record.intents,
        token=app.record.token,
        token_hash=app.record.token_hash,
        restart=rollout.record.restart if rollout is not None else 0,
    )
    guards = (_unchanged(view.keys.app(key.app), app), Compare(name, "mod_revision", 0))
    number = Put(view.keys.group_number(key.app), GroupNumberRecord(newest=key.group).encode())
    return LeaderWrite(guards, (Put(name, record.encode()), number), f"created group {key}")


def _replace_at_once(
    view: ClusterView,
    app: Entry[AppRecord],
    old: GroupId,
    shape: Shape,
    *,
    term: LeaderTerm,
    wall: float,
) -> LeaderWrite:
    """The new group and the end of the old one in one transaction, so that no leader sees half of it."""
    key = GroupId(old.app, newest_number(view, old.app) + 1)
    create = _create(view, app, key, shape, term=term, wall=wall)
    return LeaderWrite(
        (*create.compares, _unchanged(view.keys.group(*old), view.groups[old])),
        (*create.writes, *all_of_group(view, old)),
        f"replaced group {old} at once",
    )


def _removal(view: ClusterView, key: GroupId, why: str) -> Iterator[LeaderWrite]:
    """Remove a group that serves nothing."""
    guard = _unchanged(view.keys.group(*key), view.groups[key])
    yield LeaderWrite((guard,), all_of_group(view, key), f"removed group {key}: {why}")


def _update(
    view: ClusterView,
    app: Entry[AppRecord],
    key: GroupId,
    shape: Shape,
    derived: tuple[GroupState, str] | None,
    term: LeaderTerm,
) -> LeaderWrite | None:
    """Record a change of state, the count that was awaited, or what an older version did not record; None for none."""
    entry = view.groups[key]
    old = entry.record
    changes: dict[str, Any] = {}
    if not old.count:
        changes |= {"count": shape.count, "ids": shape.ids}
    if not old.token_hash or not old.count:
        record = app.record
        changes |= {"intents": record.intents, "token": record.token, "token_hash": record.token_hash}
    if shape.state == "starting" and old.count and derived is not None:
        changes |= {"state": derived[0], "reason": derived[1]}
    else:
        changes |= {"state": shape.state, "reason": shape.reason}
    return _changed_group(view, app, key, changes, term)


def _state_write(
    view: ClusterView,
    app: Entry[AppRecord],
    key: GroupId,
    derived: tuple[GroupState, str] | None,
    term: LeaderTerm,
) -> LeaderWrite | None:
    """Record a change of an upcoming group's state."""
    if derived is None:
        return None
    return _changed_group(view, app, key, {"state": derived[0], "reason": derived[1]}, term)


def _changed_group(
    view: ClusterView, app: Entry[AppRecord], key: GroupId, changes: Mapping[str, Any], term: LeaderTerm
) -> LeaderWrite | None:
    entry = view.groups[key]
    record = msgspec.structs.replace(entry.record, **changes)
    if record == entry.record:
        return None
    record = msgspec.structs.replace(record, term=term)
    name = view.keys.group(*key)
    guards = (_unchanged(view.keys.app(key.app), app), _unchanged(name, entry))
    return LeaderWrite(guards, (Put(name, record.encode()),), f"group {key} is {record.state}")


def _unchanged(key: str, entry: Entry[AppRecord] | Entry[GroupRecord]) -> Compare:
    return Compare(key, "mod_revision", entry.mod_revision)


def all_of_group(view: ClusterView, key: GroupId) -> tuple[Delete, ...]:
    keys = view.keys
    of_shards = (f"{prefix}{key.app}/{key.group}/" for prefix in (keys.sessions, keys.pins, keys.restarts))
    return Delete(keys.group(*key)), Delete(keys.plan(*key)), *(Delete(prefix, prefix=True) for prefix in of_shards)
