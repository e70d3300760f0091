"""What happened to shards lately: failovers and losses, for the status, the metrics and the status events.

Pure: the agent says what it saw and when (Unix seconds). Kept in memory and bounded; the new owner of a shard keeps the
record of how it got it.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.problems import Code, Problem, problem
from sandwich_coordinator.status import FailoverStatus, LossStatus
from sandwich_coordinator.view import ClusterView

FAILOVERS_KEPT = 500
LOSSES_KEPT = 100
REMADE_SHOWN_S = 600.0
FOREIGN_SHOWN_S = 600.0

_SERVED = frozenset({"live", "ready", "holding"})
"""States of a claim that imply a session, which may not be stored yet."""
MOVED = "moved"
NODE_GONE = "node gone"
WORKER_DIED = "worker died"
NODE_RESTARTED = "node restarted"


@dataclass(frozen=True, slots=True)
class _Lost:
    source: str
    cause: str
    at: float


class History:
    """The recent past of the shards that this node took over."""

    def __init__(self, node: str) -> None:
        self.failovers: deque[FailoverStatus] = deque(maxlen=FAILOVERS_KEPT)
        self.losses: deque[LossStatus] = deque(maxlen=LOSSES_KEPT)
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.seconds: dict[tuple[str, str, str], float] = {}
        self.losses_total: Counter[str] = Counter()
        self.fenced: Counter[str] = Counter()
        self.streams_remade: dict[str, float] = {}
        """When (Unix seconds) the stream of an application was found deleted and made again here."""
        self._foreign: dict[str, tuple[int, float]] = {}
        self._node = node
        self._lost: dict[ShardId, _Lost] = {}

    def claims_changed(self, before: ClusterView, after: ClusterView, shards: Iterable[ShardId], at: float) -> None:
        """Claims came and went: remember who lost what, and forget it once another node has it.

        A shard that had no session yet has lost nothing: it is still at its first start.
        """
        for shard in shards:
            now = after.claims.get(shard)
            if now is not None:
                if now.record.node != self._node:
                    self._lost.pop(shard, None)
                continue
            was, app = before.claims.get(shard), after.apps.get(shard.app)
            if app is not None and app.record.paused:
                # An operator wanted that: the time until it is resumed is no failover.
                self._lost.pop(shard, None)
            elif was is not None and (was.record.state in _SERVED or shard in before.sessions):
                # A lease's keys may vanish in several steps, the node's own last: what is not released is lost.
                cause = MOVED if was.record.state == "draining" else NODE_GONE
                self._lost[shard] = _Lost(was.record.node, cause, at)

    def lost(self, shard: ShardId, cause: str, at: float) -> None:
        """This node itself lost the shard, or found it without an owner it knew."""
        self._lost.setdefault(shard, _Lost(self._node, cause, at))

    def back(
        self, shard: ShardId, how: str, *, replayed: int, stored_at: float | None, at: float
    ) -> FailoverStatus | None:
        """The shard streams again here. None when it was not lost: a mere reconnect, or a first start."""
        lost = self._lost.pop(shard, None)
        if lost is None:
            return None
        failover = FailoverStatus(
            at=at,
            app=shard.app,
            group=shard.group,
            shard=shard.shard,
            source=lost.source,
            node=self._node,
            cause=lost.cause,
            how=how,
            replayed=replayed,
            took_s=round(max(0.0, at - lost.at), 3),
            silent_s=None if stored_at is None else round(max(0.0, at - stored_at), 3),
        )
        self.failovers.append(failover)
        kind = (shard.app, lost.cause, how)
        self.counts[kind] += 1
        self.seconds[kind] = self.seconds.get(kind, 0.0) + failover.took_s
        return failover

    def foreign(self, app: str, total: int, at: float) -> None:
        """So many messages that no node wrote have been found in the application's stream by now."""
        if total > self._foreign.get(app, (0, 0.0))[0]:
            self._foreign[app] = (total, at)

    def problems(self, now: float) -> list[Problem]:
        """What an operator should still see of it at `now` (Unix seconds)."""
        remade = [
            problem(Code.STREAM_REMADE, f"app/{app}", f"{app}: its stream was deleted and made again", since=at)
            for app, at in sorted(self.streams_remade.items())
            if now - at < REMADE_SHOWN_S
        ]
        foreign = [
            problem(
                Code.FOREIGN_MESSAGES,
                f"app/{app}",
                f"{app}: a client that is no node published into its stream ({total} messages yet)",
                since=at,
            )
            for app, (total, at) in sorted(self._foreign.items())
            if now - at < FOREIGN_SHOWN_S
        ]
        return [*remade, *foreign]

    def loss(self, shard: ShardId, *, session: str, last_seq: int, reason: str, at: float) -> LossStatus:
        """A session of the shard could not be resumed."""
        loss = LossStatus(
            at=at,
            app=shard.app,
            group=shard.group,
            shard=shard.shard,
            node=self._node,
            session=session,
            last_seq=last_seq,
            reason=reason,
        )
        self.losses.append(loss)
        self.losses_total[shard.app] += 1
        return loss
