"""What etcd lacks of the shards that run here: states in their claims, and sessions that a backup did not have."""

from collections.abc import Container, Iterator, Mapping

import msgspec

from sandwich_coordinator import assignment
from sandwich_coordinator.assignment import LocalNode, LocalShard
from sandwich_coordinator.ids import Fence, ShardId
from sandwich_coordinator.store.base import Compare, Put
from sandwich_coordinator.types import SessionRecord, ShardState
from sandwich_coordinator.view import ClusterView
from sandwich_node.agent.batched_writes import GuardedWrite
from sandwich_node.agent.status import ShardFacts

PASSING_S = 1.0
"""A state that a shard soon leaves is written only when it lasts longer: it is for people."""
_PASSING = frozenset({"connecting", "resuming"})
_STATES: frozenset[str] = frozenset(ShardState.__args__)  # type: ignore[attr-defined]


def state_writes(
    view: ClusterView,
    own: LocalNode,
    local: Mapping[ShardId, LocalShard],
    facts: Mapping[ShardId, ShardFacts],
    *,
    rereads: Container[ShardId],
    written: Container[ShardId],
    now: float,
) -> tuple[dict[ShardId, GuardedWrite], bool]:
    """What brings the claims in line with what the workers reported; and whether some of it waits a moment.

    rereads  the shards that wait for a second session, for the cache
    written  the shards with writes that the view does not have yet
    now      Unix seconds, as `ShardFacts.since`
    """
    found, awaited = dict[ShardId, GuardedWrite](), False
    for shard, running in local.items():
        known = facts.get(shard)
        if known is None or shard in written:
            continue
        write = _state_write(view, own, shard, running, known, rereads=shard in rereads)
        if write is None:
            continue
        if known.state in _PASSING and 0 <= now - known.since < PASSING_S:
            awaited = True
        else:
            found[shard] = write
    return found, awaited


def _state_write(
    view: ClusterView, own: LocalNode, shard: ShardId, running: LocalShard, facts: ShardFacts, *, rereads: bool
) -> GuardedWrite | None:
    claim = view.claims.get(shard)
    if claim is None or facts.state not in _STATES:
        return None
    record = claim.record
    if (facts.state, rereads) == (record.state, record.rereads) or record.instance != own.instance:
        return None
    if (record.fence or Fence(claim.mod_revision)) != running.fence or own.lease is None:
        return None
    wanted = msgspec.structs.replace(
        record,
        state=facts.state,
        reason=facts.reason,
        fence=running.fence,
        since=facts.since,
        close_code=facts.close_code,
        rereads=rereads,
    )
    key = view.keys.claim(*shard)
    guard = Compare(key, "mod_revision", claim.mod_revision)
    return GuardedWrite((guard,), (Put(key, wanted.encode(), claim.lease),))


def newest_session(
    start: assignment.Start, running: LocalShard | None, known: SessionRecord | None
) -> SessionRecord | None:
    """The session that a shard resumes: the one that it had when it ran here, under the same claim, if it is `known`.

    etcd may have been restored from a backup meanwhile. What it has of another token, intents or count is not used.
    """
    stored = start.session
    if stored is None or known is None or running is None or running.fence != start.fence:
        return stored
    is_alike = (known.token_hash, known.intents, known.count) == (stored.token_hash, stored.intents, stored.count)
    return known if is_alike else stored


def missing_sessions(
    view: ClusterView,
    own: LocalNode,
    local: Mapping[ShardId, LocalShard],
    sessions: Mapping[ShardId, SessionRecord],
    *,
    saved_at: Mapping[ShardId, int],
    busy: Container[ShardId],
) -> Iterator[tuple[ShardId, SessionRecord]]:
    """Sessions of shards that run here, if etcd has others or none: it was restored from a backup.

    The next owner would try to resume a session that ended, and then have to IDENTIFY.

    sessions  those of the shards here
    saved_at  the revisions at which they were saved
    busy      the shards with a session that is being saved
    """
    for shard, session in sessions.items():
        running, claim, stored = local.get(shard), view.claims.get(shard), view.sessions.get(shard)
        if running is None or running.phase != "running" or claim is None or shard in busy:
            continue
        if shard.of not in view.groups:
            # Deleted with the group: the shard stops in a moment.
            continue
        is_stored = stored is not None and stored.record == session
        if not is_stored and saved_at.get(shard, 0) <= view.revision and claim.record.instance == own.instance:
            yield shard, session
