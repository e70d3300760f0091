"""Pause an application, and resume it: its shards close with their sessions kept, and start again.

Discord keeps a session that is not connected for some minutes and does not say how long. A session that it still has is
continued, and Discord sends what happened meanwhile; another one is replaced, which costs a session start and leaves a
gap frame.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from sandwich_coordinator.groups import serving_groups, shard_ids
from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.operations.applications import check_stays, find_app
from sandwich_coordinator.operations.errors import Conflict, NotReached, OutcomeUnknown
from sandwich_coordinator.operations.progress import AppPaused, AppResumed, Report
from sandwich_coordinator.operations.waiting import await_shards, read_view
from sandwich_coordinator.store.base import Compare, Put, Store, StoreAmbiguous
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.view import ClusterView

CLOSED = "closed"
LIVE = "live"


@dataclass(frozen=True, slots=True)
class ResumedShards:
    """How the shards of a paused application came back: their old session continued, or a new one started."""

    resumed: int
    identified: int


async def pause_app(store: Store, keys: Keys, app: str, *, now: float, timeout_s: float, report: Report) -> float:
    """Pause an application until `resume_app`, also against `apply`, and wait until its shards are closed.

    `now`: Unix seconds. Returns since when it is paused. Raises NotFound, Refused, Conflict; NotReached when shards are
    left after `timeout_s`.
    """
    view = await read_view(store, keys)
    found = await find_app(store, keys, app)
    check_stays(view, app)
    since = found.record.paused_at or now
    if not found.record.paused_at:
        await _edit(store, keys.app(app), found.raw, found.revision, paused=True, paused_at=now)
    running = _claimed(view, app)
    sessions = sum(shard.app == app for shard in view.sessions)
    report(AppPaused(app, since, len(running), sessions, is_new=not found.record.paused_at))
    await await_shards(store, keys, app, lambda view: _claimed(view, app), CLOSED, timeout_s=timeout_s, report=report)
    return since


async def resume_app(
    store: Store, keys: Keys, app: str, *, now: float, timeout_s: float, report: Report
) -> ResumedShards:
    """Let an application run again, and wait until its shards are live. `now`: Unix seconds.

    Raises NotFound, Refused, Conflict; NotReached when a shard failed, or shards are not live after `timeout_s`.
    """
    before = await read_view(store, keys)
    found = await find_app(store, keys, app)
    check_stays(before, app)
    record = found.record
    if record.paused:
        await _edit(store, keys.app(app), found.raw, found.revision, paused=False, paused_at=0.0)
    budget = before.budgets.get(record.token_hash)
    report(
        AppResumed(
            app,
            now - record.paused_at if record.paused_at else None,
            sum(shard.app == app for shard in before.sessions),
            budget.record.remaining if budget is not None else None,
            is_new=record.paused,
        )
    )
    after = await await_shards(store, keys, app, _not_live(app), LIVE, timeout_s=timeout_s, report=report)
    if not record.paused:
        return ResumedShards(0, 0)
    kept = sum(_session(before, shard) == _session(after, shard) != "" for shard in _shards(after, app) or ())
    return ResumedShards(kept, len(_shards(after, app) or ()) - kept)


async def _edit(store: Store, key: str, raw: bytes, revision: int, **values: Any) -> None:
    """Change fields of the record. As plain JSON: a newer version's record may have fields unknown here."""
    value = msgspec.json.encode({**msgspec.json.decode(raw), **values})
    try:
        done = await store.txn((Compare(key, "mod_revision", revision),), (Put(key, value),))
    except StoreAmbiguous as error:
        raise OutcomeUnknown(f"whether that was stored is unknown ({error}): look and try again") from None
    if not done.succeeded:
        raise Conflict("another operator changed the application at the same time: look, then try again")


def _claimed(view: ClusterView, app: str) -> list[int]:
    return sorted({shard.shard for shard in view.claims if shard.app == app})


def _shards(view: ClusterView, app: str) -> list[ShardId] | None:
    """The shards of the serving group; None while its count is not known."""
    group = serving_groups(view).get(app)
    if group is None or not view.groups[group].record.count:
        return None
    return [ShardId(*group, number) for number in shard_ids(view.groups[group].record)]


def _not_live(app: str) -> Callable[[ClusterView], Sequence[int] | None]:
    def left(view: ClusterView) -> list[int] | None:
        shards = _shards(view, app)
        if shards is None:
            return None
        missing = []
        for shard in shards:
            claim = view.claims.get(shard)
            if claim is not None and claim.record.state == "failed":
                reason = claim.record.reason or "no reason given"
                raise NotReached(f"{app} shard {shard.shard} failed: {reason} (sandwich cluster status has the advice)")
            if claim is None or claim.record.state != "live":
                missing.append(shard.shard)
        return missing

    return left


def _session(view: ClusterView, shard: ShardId) -> str:
    entry = view.sessions.get(shard)
    return entry.record.session_id if entry is not None else ""
