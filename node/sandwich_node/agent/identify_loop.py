"""The shell around the node's identify queue: it runs transactions, keeps the buckets' leases and passes grants on."""

import asyncio
import logging
from collections.abc import Callable

from sandwich_coordinator import identify
from sandwich_coordinator.groups import token_hash_of
from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.store.base import LeaseLost, Store, StoreAmbiguous, StoreError
from sandwich_coordinator.view import Bucket, ClusterView

_log = logging.getLogger(__name__)


class IdentifyLoop:
    """`grant(shard)` and `refuse(shard, reason)` are called when a turn comes or is refused; they must not wait.

    `wall` gives Unix seconds.
    """

    def __init__(
        self,
        store: Store,
        node: str,
        *,
        view: Callable[[], ClusterView | None],
        grant: Callable[[ShardId], None],
        refuse: Callable[[ShardId, str], None],
        policy: Policy,
        wall: Callable[[], float],
    ) -> None:
        self._store = store
        self._node = node
        self._view = view
        self._grant = grant
        self._refuse = refuse
        self._policy = policy
        self._wall = wall
        self._queue = identify.IdentifyQueue(policy)
        self._inbox: asyncio.Queue[identify.Event] = asyncio.Queue(maxsize=100_000)
        self._leases: dict[Bucket, int] = {}

    def want(self, shard: ShardId, *, spare: bool = False) -> None:
        """The shard asks for its turn, a `spare` one only if starts are left over.

        Ignored while the token's buckets are not known.
        """
        view = self._view()
        app = view.apps.get(shard.app) if view else None
        token_hash = token_hash_of(view, shard.of) if view else ""
        budget = view.budgets.get(token_hash) if view else None
        if app is None or budget is None:
            _log.warning("%s/%d/%d asks to identify before its token's limits are known", *shard)
            return
        bucket = shard.shard % budget.record.max_concurrency
        group = view.groups.get(shard.of) if view else None
        # A group that was live has members waiting for this shard: that is what the reserve is for.
        failover = not spare and group is not None and group.record.state in ("live", "degraded")
        self._inbox.put_nowait(
            identify.Requested(token_hash=token_hash, shard=shard, bucket=bucket, failover=failover, spare=spare)
        )

    def withdraw(self, shard: ShardId) -> None:
        """The shard no longer wants its turn."""
        self._inbox.put_nowait(identify.Withdrawn(shard))

    def sent(self, shard: ShardId) -> None:
        """The shard has sent its IDENTIFY."""
        self._inbox.put_nowait(identify.Sent(shard))

    def changed(self) -> None:
        """The view changed."""
        view = self._view()
        if view is not None:
            self._inbox.put_nowait(identify.BucketsSeen(frozenset(view.identifies)))

    async def run(self) -> None:
        """Serve until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                due = self._queue.deadline()
                now = loop.time()
                if due is not None and due <= now:
                    self._perform(self._queue.tick(now), group)
                    continue
                try:
                    async with asyncio.timeout(None if due is None else due - now):
                        event = await self._inbox.get()
                except TimeoutError:
                    continue
                self._perform(self._queue.handle(event, loop.time()), group)

    def _perform(self, effects: list[identify.Effect], group: asyncio.TaskGroup) -> None:
        for effect in effects:
            match effect:
                case identify.TakeBucket():
                    group.create_task(self._take(effect))
                case identify.ReleaseBucket(bucket):
                    lease = self._leases.pop(bucket, None)
                    if lease is not None:
                        group.create_task(self._release(lease))
                case identify.Grant(shard):
                    self._grant(shard)
                case identify.Refuse(shard, _, reason):
                    self._refuse(shard, reason)

    async def _take(self, wanted: identify.TakeBucket) -> None:
        now, wall = asyncio.get_running_loop().time(), self._wall()
        outcome: identify.Outcome
        until, reason = 0.0, ""
        try:
            outcome, until, reason = await self._try_take(wanted, wall)
        except StoreAmbiguous:
            outcome = "ambiguous"
        except (StoreError, LeaseLost) as error:
            outcome, until, reason = "exhausted", wall + self._policy.identify_retry_s * 4, f"etcd: {error}"
        self._inbox.put_nowait(
            identify.TakeEnded(bucket=wanted.bucket, outcome=outcome, until=now + max(0.0, until - wall), reason=reason)
        )

    async def _try_take(self, wanted: identify.TakeBucket, wall: float) -> tuple[identify.Outcome, float, str]:
        view = self._view()
        if view is None:
            return "exhausted", wall + self._policy.identify_retry_s, "etcd is not reachable"
        lease = await self._store.grant(int(self._policy.identify_lease_ttl_s))
        txn = identify.take(view, wanted, node=self._node, lease=lease, wall=wall, policy=self._policy)
        if txn is None:
            # Its claim is lost or was created again: a change of the view or a withdrawal follows.
            await self._release(lease)
            return "taken", 0.0, ""
        if isinstance(txn, identify.TakeRefused):
            await self._release(lease)
            return "exhausted", txn.until, txn.reason
        done = await self._store.txn(txn.compares, txn.writes)
        if not done.succeeded:
            await self._release(lease)
            return "taken", 0.0, ""
        self._leases[wanted.bucket] = lease
        return "granted", 0.0, ""

    async def _release(self, lease: int) -> None:
        try:
            await self._store.revoke(lease)
        except StoreError as error:
            _log.info("an identify bucket's lease is left to run out: %s", error)
