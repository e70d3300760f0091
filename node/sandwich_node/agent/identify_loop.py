"""The shell around the node's identify queue: it runs transactions, keeps the buckets' leases and passes grants on."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sandwich_coordinator import identify
from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.start_order import bucket_of
from sandwich_coordinator.store.base import Compare, Delete, LeaseLost, Store, StoreAmbiguous, StoreError
from sandwich_coordinator.view import Bucket, ClusterView

_log = logging.getLogger(__name__)

SEEN_WAIT_S = 0.1
"""How long to wait until the view has what a transaction has met; a watch delivers it within milliseconds."""
TRIES_MAX = 20
"""Transactions that other nodes may get ahead of, before the buckets count as taken."""
FAILED_WAIT_S = 2.0
"""Wait after the store failed."""


@dataclass(frozen=True, slots=True)
class _Held:
    """The lease of a bucket that this node holds, and the revision that created its key."""

    lease: int
    revision: int


class IdentifyLoop:
    """`grant(shard)` and `refuse(shard, reason)` are called when a turn comes or is refused; they must not wait.

    `policy` may be replaced: the reserve of session starts is read at each turn; the waits of the queue are constants.
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
    ) -> None:
        self.policy = policy
        self._store = store
        self._node = node
        self._view = view
        self._grant = grant
        self._refuse = refuse
        self._queue = identify.IdentifyQueue(node, policy)
        self._inbox: asyncio.Queue[identify.Event] = asyncio.Queue(maxsize=100_000)
        self._held: dict[Bucket, _Held] = {}
        # By token. One transaction at a time: two would fail each other, because both change the budget.
        self._wanted: dict[str, list[identify.TakeBucket]] = {}
        self._moved = asyncio.Event()

    def want(self, shard: ShardId, *, spare: bool = False) -> None:
        """The shard asks for its turn, a `spare` one only if starts are left over.

        Ignored while the token's buckets are not known.
        """
        view = self._view()
        bucket = bucket_of(view, shard) if view is not None else None
        if bucket is None:
            _log.warning("%s asks to identify before its token's limits are known", shard)
            return
        self._inbox.put_nowait(
            identify.Requested(token_hash=bucket.token_hash, shard=shard, bucket=bucket.bucket, spare=spare)
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
            self._inbox.put_nowait(identify.Seen(view))
            self._moved.set()

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
        freed: list[Bucket] = []
        for effect in effects:
            match effect:
                case identify.TakeBucket(bucket):
                    wanted = self._wanted.setdefault(bucket.token_hash, [])
                    wanted.append(effect)
                    if len(wanted) == 1:
                        group.create_task(self._take(bucket.token_hash, wanted))
                case identify.ReleaseBucket(bucket):
                    freed.append(bucket)
                case identify.Grant(shard):
                    self._grant(shard)
                case identify.Refuse(shard, reason):
                    self._refuse(shard, reason)
        if freed:
            group.create_task(self._release(freed))

    # --- taking -------------------------------------------------------------------------------------------------

    async def _take(self, token_hash: str, wanted: list[identify.TakeBucket]) -> None:
        """Take what is wanted of one token until nothing is. What is asked for meanwhile goes into the next one."""
        while wanted:
            ended, revision = await self._take_some(wanted)
            done = {one.bucket for one in ended}
            wanted[:] = [one for one in wanted if one.bucket not in done]
            for one in ended:
                self._inbox.put_nowait(one)
            if wanted:
                await self._seen(revision)
        del self._wanted[token_hash]

    async def _take_some(self, wanted: list[identify.TakeBucket]) -> tuple[list[identify.TakeEnded], int]:
        """How attempts ended, at least one of them; and the revision that the next decision needs to know."""
        view = self._view()
        assert view is not None
        take = identify.take(view, wanted, node=self._node, lease=0, policy=self.policy)
        if not take.granted:
            # Nothing to write, and so no lease is needed.
            return self._others(take), 0
        try:
            lease = await self._store.grant(int(self.policy.identify_lease_ttl_s))
        except StoreError as error:
            return self._failed(wanted, error), 0
        ended: list[identify.TakeEnded] = []
        batch: list[identify.TakeBucket] = []
        for _ in range(TRIES_MAX):
            view = self._view()
            assert view is not None
            batch = list(wanted)
            take = identify.take(view, batch, node=self._node, lease=lease, policy=self.policy)
            ended = self._others(take)
            if not take.granted:
                break
            try:
                done = await self._store.txn(take.compares, take.writes)
            except StoreAmbiguous:
                # Without its lease it was not applied, or is undone.
                outcome: identify.Outcome = "taken" if await self._revoke(lease) else "ambiguous"
                return [identify.TakeEnded(bucket=one.bucket, outcome=outcome) for one in batch], 0
            except (StoreError, LeaseLost) as error:
                await self._revoke(lease)
                return self._failed(batch, error), 0
            if done.succeeded:
                self._held |= {one.bucket: _Held(lease, done.revision) for one in take.granted}
                return [
                    *ended,
                    *(identify.TakeEnded(bucket=one.bucket, outcome="granted") for one in take.granted),
                ], done.revision
            await self._seen(done.revision)
        await self._revoke(lease)
        return ended or [identify.TakeEnded(bucket=one.bucket, outcome="taken") for one in batch], 0

    def _others(self, take: identify.Take) -> list[identify.TakeEnded]:
        return [
            identify.TakeEnded(bucket=one.bucket, outcome=outcome, reason=reason)
            for one, outcome, reason in take.others
        ]

    def _failed(self, wanted: list[identify.TakeBucket], error: Exception) -> list[identify.TakeEnded]:
        until, reason = asyncio.get_running_loop().time() + FAILED_WAIT_S, f"etcd: {error}"
        return [identify.TakeEnded(bucket=one.bucket, outcome="refused", until=until, reason=reason) for one in wanted]

    async def _seen(self, revision: int) -> None:
        """Wait until the view is as new as `revision`, so that the next decision does not repeat a mistake."""
        try:
            async with asyncio.timeout(SEEN_WAIT_S):
                while (view := self._view()) is not None and view.revision < revision:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            pass

    # --- freeing ------------------------------------------------------------------------------------------------

    async def _release(self, buckets: Iterable[Bucket]) -> None:
        """Free buckets. A lease ends with its last bucket."""
        freed: dict[int, list[tuple[Bucket, int]]] = {}
        for bucket in buckets:
            held = self._held.pop(bucket, None)
            if held is not None:
                freed.setdefault(held.lease, []).append((bucket, held.revision))
        in_use = {held.lease for held in self._held.values()}
        async with asyncio.TaskGroup() as group:
            for lease, of_it in freed.items():
                group.create_task(self._delete(of_it) if lease in in_use else self._revoke(lease))

    async def _delete(self, buckets: list[tuple[Bucket, int]]) -> None:
        view = self._view()
        assert view is not None
        named = [(view.keys.identify(*bucket), revision) for bucket, revision in buckets]
        try:
            await self._store.txn(
                [Compare(key, "create_revision", revision) for key, revision in named],
                [Delete(key) for key, _ in named],
            )
        except StoreError as error:
            _log.info("identify buckets are left to their lease: %s", error)

    async def _revoke(self, lease: int) -> bool:
        """Whether nothing is under this lease any more."""
        try:
            await self._store.revoke(lease)
        except StoreError as error:
            _log.info("an identify bucket's lease is left to run out: %s", error)
            return False
        return True
