"""The shell around the election and the leader: it campaigns and, while it leads, carries out `leader.reconcile`.

The decisions are pure and made again from the whole view at every change. A write that fails its guard is no error: the
view was old.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace

from sandwich_coordinator import election, leader
from sandwich_coordinator.discord_api import DiscordUnavailable, RateLimited, TokenRefused
from sandwich_coordinator.gateway_state import GatewayState
from sandwich_coordinator.ids import GroupId, LeaderTerm
from sandwich_coordinator.leader import LookupWanted
from sandwich_coordinator.plans import LeaderMemory, LeaderWrite, together
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.store.base import LeaseLost, Store, StoreError
from sandwich_coordinator.types import BudgetRecord
from sandwich_coordinator.view import ClusterView
from sandwich_node.agent.membership import Membership

_log = logging.getLogger(__name__)

WRITE_RETRY_S = 0.3
DECIDE_EVERY_S = 0.05
"""A leader decides from the whole cluster. Where much changes, it looks at all changes of this time at once."""
RELOCATION_LOOK_S = 30.0

Relocate = Callable[[Iterable[tuple[GroupId, GroupId]], ClusterView, float], frozenset[GroupId]]
"""Has the cache locate the guilds of replaced groups at the groups that serve now, by (serving, replaced), at a time
(monotonic); returns the serving groups for which that is done."""


class LeaderLoop:
    """One node's part in leadership. Call `changed` when the view, the lease or `policy` changes.

    `wall` gives Unix seconds.
    """

    def __init__(
        self,
        store: Store,
        membership: Membership,
        *,
        view: Callable[[], ClusterView | None],
        look_up: Callable[[str], Awaitable[BudgetRecord]],
        relocate: Relocate,
        policy: Policy,
        wall: Callable[[], float],
    ) -> None:
        self.term: LeaderTerm | None = None
        self.policy = policy
        self._leaving = False
        self.resigned = asyncio.Event()
        self.resigned.set()
        self._store = store
        self._membership = membership
        self._view = view
        self._look_up = look_up
        self._relocate = relocate
        self._wall = wall
        self._wake = asyncio.Event()
        self._gateway: dict[str, GatewayState] = {}
        self._memory = LeaderMemory()

    @property
    def leads(self) -> bool:
        """Whether this node is the leader, as far as it knows."""
        return self.term is not None

    def changed(self) -> None:
        """Decide again soon."""
        self._wake.set()

    def leave(self) -> None:
        """The node leaves: resign, and do not campaign again. `resigned` is set when it no longer leads."""
        self._leaving = True
        self.changed()

    async def run(self) -> None:
        """Campaign and lead until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                began = asyncio.get_running_loop().time()
                wake_at = await self._step(group)
                await self._sleep_until(wake_at)
                await asyncio.sleep(began + DECIDE_EVERY_S - asyncio.get_running_loop().time())

    async def _sleep_until(self, wake_at: float | None) -> None:
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(None if wake_at is None else max(0.02, wake_at - now)):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _step(self, group: asyncio.TaskGroup) -> float | None:
        """Decide once; returns when to decide again although nothing changed."""
        view = self._view()
        now = asyncio.get_running_loop().time()
        if view is None:
            return None
        own = self._candidate()
        decision = election.decide(view, own, now, self.policy)
        try:
            match decision:
                case election.Campaign(compares, writes):
                    await self._store.txn(compares, writes)
                    return now + 1.0
                case election.Resign(compares, writes):
                    await self._store.txn(compares, writes)
                    self._step_down("resigned")
                case election.StepDown(reason):
                    self._step_down(reason)
                case election.Follow():
                    self._step_down("another node leads")
                case election.Lead(term):
                    return await self._lead(view, term, now, group)
        except (StoreError, LeaseLost) as error:
            _log.warning("leadership: %s", error)
            return now + 1.0
        return now + 1.0 if self._membership.lease is not None else None

    def _candidate(self) -> election.Candidate:
        member = self._membership
        return election.Candidate(
            node=member.record.node,
            instance=member.record.instance,
            lease=member.lease,
            lease_valid_until=member.valid_until,
            leads=self.term,
            leaving=self._leaving,
        )

    def _step_down(self, reason: str) -> None:
        if self.term is not None:
            _log.warning("no longer the leader: %s", reason, extra={"term": self.term})
        self.term = None
        self.resigned.set()
        self._memory = LeaderMemory()

    async def _lead(self, view: ClusterView, term: LeaderTerm, now: float, group: asyncio.TaskGroup) -> float | None:
        if self.term != term:
            _log.info("this node leads now", extra={"term": term})
            self.term = term
            self.resigned.clear()
            self._memory = LeaderMemory()
        decision = leader.reconcile(
            view, self._gateway, self._memory, term=term, now=now, wall=self._wall(), policy=self.policy
        )
        relocated = self._relocate(decision.relocations, view, now)
        # What was answered since the last decision leads to a write in the next one.
        again = relocated != decision.memory.relocated
        self._memory = replace(decision.memory, relocated=relocated)
        for lookup in decision.lookups:
            self._begin_lookup(lookup, view, group)
        refused = not await self._write_all(decision.writes, term)
        own_deadline = election.deadline(self._candidate(), self.policy)
        times = [at for at in (decision.wake_at, own_deadline) if at is not None]
        if decision.relocations:
            # A worker that died does not answer.
            times.append(now + RELOCATION_LOOK_S)
        if again:
            times.append(now)
        if refused:
            times.append(now + WRITE_RETRY_S)
        return min(times, default=None)

    async def _write_all(self, writes: Sequence[LeaderWrite], term: LeaderTerm) -> bool:
        """Make all of these writes; False: one was refused."""
        done = True
        for batch in together(writes):
            if not await self._write(batch, term):
                # One alone: it was refused. Several: the others need not wait for the one that is.
                alone = [await self._write([write], term) for write in batch if len(batch) > 1]
                done = done and bool(alone) and all(alone)
        return done

    async def _write(self, writes: Sequence[LeaderWrite], term: LeaderTerm) -> bool:
        """Make these writes together; False: a guard failed, and none was made."""
        compares = dict.fromkeys(compare for write in writes for compare in write.compares)
        done = await self._store.txn(list(compares), [one for write in writes for one in write.writes])
        for write in writes if done.succeeded else ():
            _log.info("leader: %s", write.reason, extra={"term": term})
        return done.succeeded

    def _begin_lookup(self, wanted: LookupWanted, view: ClusterView, group: asyncio.TaskGroup) -> None:
        state = self._gateway.get(wanted.token_hash, GatewayState())
        self._gateway[wanted.token_hash] = replace(state, in_flight=True)
        group.create_task(self._look_up_once(wanted, view))

    async def _look_up_once(self, wanted: LookupWanted, view: ClusterView) -> None:
        """Ask Discord. `view`: the cluster before the question."""
        state = self._gateway[wanted.token_hash]
        answer, error, failures, wait_s = state.answer, "", state.failures, 0.0
        before, under_way = state.before, state.under_way
        try:
            answer = await self._look_up(wanted.app)
            budget = view.budgets.get(wanted.token_hash)
            before = None if budget is None else budget.record
            under_way = sum(bucket.token_hash == wanted.token_hash for bucket in view.identifies)
            failures = 0
        except TokenRefused as refused:
            answer, error, failures = _refused(str(refused), self._wall()), str(refused), 0
        except (RateLimited, DiscordUnavailable, ValueError) as failed:
            error, failures = str(failed), failures + 1
            wait_s = failed.retry_after_s if isinstance(failed, RateLimited) else 0.0
            _log.warning("GET /gateway/bot for %s: %s", wanted.app, failed)
        now = asyncio.get_running_loop().time()
        self._gateway[wanted.token_hash] = replace(
            state,
            in_flight=False,
            ended_at=now,
            retry_at=now + wait_s,
            answer=answer,
            error=error,
            failures=failures,
            before=before,
            under_way=under_way,
        )
        self.changed()


def _refused(reason: str, wall: float) -> BudgetRecord:
    return BudgetRecord(
        url="",
        shards=0,
        total=0,
        remaining=0,
        reset_at=0.0,
        max_concurrency=1,
        fetched_at=wall,
        error=reason,
    )
