"""The node's shards: carries out what `assignment.reconcile_node` decides, and keeps their state in etcd up to date.

It compares two sources: the view (what is planned and claimed) and the messages of the workers (what runs). Every pass
compares them again, so that a lost message or a refused transaction costs one pass and never a shard.
"""

import asyncio
import itertools
import logging
import operator
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial

from sandwich_coordinator import assignment
from sandwich_coordinator.assignment import LocalNode, LocalShard
from sandwich_coordinator.gateway_trust import gateway_refusal
from sandwich_coordinator.groups import UPCOMING
from sandwich_coordinator.ids import Fence, ShardId
from sandwich_coordinator.problems import Code, Problem, problem
from sandwich_coordinator.store.base import Compare, Delete, Put, Store
from sandwich_coordinator.types import AppRecord, SessionRecord
from sandwich_coordinator.view import ClusterView
from sandwich_node import ipc
from sandwich_node.agent.batched_writes import BatchedWrites, GuardedWrite
from sandwich_node.agent.dependencies import Worker
from sandwich_node.agent.failover_history import MOVED, NODE_RESTARTED, WORKER_DIED
from sandwich_node.agent.gateway_addresses import ShardGateways
from sandwich_node.agent.identify_loop import IdentifyLoop
from sandwich_node.agent.membership import Membership
from sandwich_node.agent.near_turns import NearTurns
from sandwich_node.agent.node_state import NodeState
from sandwich_node.agent.settings_changes import shards_to_stop
from sandwich_node.agent.shard_messages import ShardChanges, start_message, with_token_of
from sandwich_node.agent.shard_records import missing_sessions, newest_session, state_writes
from sandwich_node.agent.status import ShardFacts

_log = logging.getLogger(__name__)

PATIENT_PER_S = 200
"""Writes of all nodes together that may be a moment late, about: what a hundred nodes do at once, as in a switch, must
not keep etcd from what is urgent. A node makes one at once, and the next ones after its share of the time, together. A
group's next phase and a shard's turn to IDENTIFY wait for such writes."""
PATIENT_MAX_S = 1.0
CRASH_WAIT_S = 2.0
SAVE_BUDGET_S = 5.0
RETRY_S = 0.5
RESTORED_WAIT_S = 5.0
"""After etcd was restored, nodes claim no shards that they do not run: those that run them claim them back first."""
JUMP = 1_000_000
"""So many revisions at once are no writes: `etcdutl snapshot restore --bump-revision`."""
LOOK_S = 30.0
"""A pass at least so often: a session's record that is not the one saved here does not wake this loop."""


class ShardControl:
    """`token_of(app)` unseals a token or raises; `stream_of(app)` says what the application's stream keeps.

    `api_url` is discord.api_url: it decides together with Discord's own hosts to which gateways a token is sent.

    `saved` is set while every session that a worker reported is in etcd.
    """

    def __init__(
        self,
        store: Store,
        membership: Membership,
        state: NodeState,
        *,
        view: Callable[[], ClusterView | None],
        connected: Callable[[], bool],
        token_of: Callable[[AppRecord], str],
        stream_of: Callable[[AppRecord], tuple[float, int, int]],
        api_url: str,
    ) -> None:
        self.local: dict[ShardId, LocalShard] = {}
        self.facts: dict[ShardId, ShardFacts] = {}
        self.problems: dict[tuple[Code, str], Problem] = {}
        self.identifying: IdentifyLoop | None = None
        self.frozen = False
        self._membership = membership
        self._view = view
        self._connected = connected
        self._token_of = token_of
        self._stream_of = stream_of
        self._api_url = api_url
        self._workers: Mapping[int, Worker] = state.workers.slots
        self._retiring = state.workers.retiring
        self._figures = state.figures
        self._history = state.history
        self._status_publisher = state.status_publisher
        self._wall = state.wall
        self._wake = asyncio.Event()
        self._ops: dict[ShardId, deque[Callable[[], Awaitable[None]]]] = {}
        self.saved = asyncio.Event()
        self.saved.set()
        self._group: asyncio.TaskGroup | None = None
        self._writes = BatchedWrites(store)
        self._shard_changes = ShardChanges()
        self._gateways = ShardGateways(store, view=view, send=self._send)
        self._run_numbers = itertools.count(1)
        self._runs: dict[ShardId, int] = {}
        # The revisions of writes that the view does not have yet.
        self._written: dict[ShardId, int] = {}
        # The parts of the view that have reached the running shards.
        self._passed_on: tuple[object, ...] | None = None
        self._patient_from = 0.0
        self._patient_timer: asyncio.TimerHandle | None = None
        self._seen = 0
        self._restored_at = -RESTORED_WAIT_S
        # The sessions of shards that run here, and the revisions at which they were saved here (0: not yet).
        self._sessions: dict[ShardId, SessionRecord] = {}
        self._saved_at: dict[ShardId, int] = {}
        self._rereads: set[ShardId] = set()
        # Shards that want their turn, and whether for a spare session; those in `_waiting` may ask for it.
        self._wanting: dict[ShardId, bool] = {}
        self._waiting: set[ShardId] = set()
        self._near = NearTurns(self._waits_for_turn)

    def changed(self) -> None:
        """Compare again soon."""
        self._wake.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            while True:
                self._wake.clear()
                again = not self.frozen and await self._step()
                try:
                    async with asyncio.timeout(RETRY_S if again else LOOK_S):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def _step(self) -> bool:
        """One pass; True when something has to be tried again."""
        view, own = self._view(), self._own()
        if view is None:
            return True
        self._leave_retiring(own)
        if self._seen and not 0 <= view.revision - self._seen < JUMP:
            # etcd was restored from a backup: the view will not come to revisions of before.
            self._written, self._saved_at = {}, {}
            self._restored_at = asyncio.get_running_loop().time()
        self._seen = view.revision
        self._written = {shard: revision for shard, revision in self._written.items() if revision > view.revision}
        for shard, session in missing_sessions(
            view, own, self.local, self._sessions, saved_at=self._saved_at, busy=self._ops
        ):
            _log.warning("shard %s: etcd does not have its session any more: saved again", shard)
            self._enqueue(shard, partial(self._save_session, shard, session))
        # Nothing is decided without etcd, and its return may change nothing that wakes this loop.
        done, writes, patient = own.connected, dict[ShardId, GuardedWrite](), dict[ShardId, GuardedWrite]()
        waits = asyncio.get_running_loop().time() < self._restored_at + RESTORED_WAIT_S
        for action in assignment.reconcile_node(view, own, self.local, self._wall()):
            if waits and isinstance(action, assignment.Claim | assignment.Start) and action.shard not in self.local:
                done = False
            elif isinstance(action, assignment.Claim | assignment.Release):
                # What is written already, and not in the view yet, is not written again.
                if action.shard not in self._written:
                    chosen = patient if self._is_patient(view, action) else writes
                    chosen[action.shard] = GuardedWrite(action.compares, action.writes)
            else:
                done = self._perform(view, action) and done
        done = await self._commit(writes) and done
        self._pass_on(view)
        self._ask_for_turns(view)
        urgent = dict[ShardId, GuardedWrite]()
        states, awaited = state_writes(
            view,
            replace(own, lease=self._membership.lease),
            self.local,
            self.facts,
            rereads=self._rereads,
            written=self._written,
            now=self._wall(),
        )
        for shard, write in states.items():
            # How a shard was lost is known from this state, and its claim goes soon.
            (urgent if self.facts[shard].state == "draining" else patient).setdefault(shard, write)
        if patient and not self._may_write_patiently(len(view.nodes)):
            patient = {}
        return not (await self._commit({**urgent, **patient}) and done) or awaited

    def _is_patient(self, view: ClusterView, action: assignment.Claim | assignment.Release) -> bool:
        """Whether nothing urgent waits for this write, which all nodes make in the same moment.

        It ends a claim of a group that has no plan any more, or claims a shard of a group that does not serve yet and
        whose sessions start one after the other.
        """
        if isinstance(action, assignment.Release):
            return action.shard.of not in view.plans
        return action.shard not in self.local and view.groups[action.shard.of].record.phase in UPCOMING

    def _may_write_patiently(self, nodes: int) -> bool:
        """Whether this node may make a patient write now, which counts as one; otherwise it wakes when it may."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._patient_from:
            if self._patient_timer is None:
                self._patient_timer = loop.call_at(self._patient_from, self._patience_ends)
            return False
        self._patient_from = loop.time() + min(nodes / PATIENT_PER_S, PATIENT_MAX_S)
        return True

    def _patience_ends(self) -> None:
        self._patient_timer = None
        self.changed()

    def _own(self) -> LocalNode:
        loads = {index: 0 for index, worker in self._workers.items() if worker.alive and index not in self._retiring}
        for shard in self.local.values():
            if shard.worker in loads:
                loads[shard.worker] += 1
        record = self._membership.record
        return LocalNode(
            node=record.node,
            instance=record.instance,
            lease=self._membership.lease,
            connected=self._connected(),
            loads=loads,
        )

    def _leave_retiring(self, own: LocalNode) -> None:
        """Move shards from retiring workers to others of this node. Without etcd none moves: it could not start again.

        What has stopped in a worker that is retiring or gone is forgotten here; its claim stays, and the pass gives it
        to another worker.
        """
        for shard, running in list(self.local.items()):
            if running.phase == "stopped" and (running.worker in self._retiring or running.worker not in self._workers):
                if running.has_session:
                    self._history.lost(shard, MOVED, self._wall())
                self._forget(shard)
        if own.connected and own.lease is not None:
            for shard in shards_to_stop(self.local, self.facts, self._retiring):
                self._stop(shard, "it moves to another worker of this node")

    def has_left(self, worker: int) -> bool:
        """Whether no shard depends on this worker any more. A failed one does not."""
        return all(each.worker != worker or each.phase == "failed" for each in self.local.values())

    # --- actions ------------------------------------------------------------------------------------------------

    def _perform(self, view: ClusterView, action: assignment.Action) -> bool:
        """Carry out one action that is not a write; False: try again although nothing changes."""
        match action:
            case assignment.Start():
                return self._start(view, action)
            case assignment.Stop(shard=shard) | assignment.Restart(shard=shard) | assignment.Abandon(shard=shard) if (
                shard not in self.local
            ):
                # Its worker reported meanwhile that it is gone.
                return True
            case assignment.Stop(shard, reason):
                self._stop(shard, reason)
            case assignment.Restart(shard, _, _, _, reason):
                self._restart(shard, reason)
            case assignment.Abandon(shard, reason):
                self._abandon(shard, reason)
        return True

    async def _commit(self, writes: Mapping[ShardId, GuardedWrite]) -> bool:
        """Write claims; False: some are to be tried again. A shard whose claim is deleted is no longer this node's."""
        results = await self._writes.commit(list(writes.values()))
        for (shard, write), applied in zip(writes.items(), results, strict=True):
            if applied:
                self._written[shard] = applied
                if any(isinstance(one, Delete) for one in write.writes):
                    self._forget(shard)
        return all(results)

    def _start(self, view: ClusterView, start: assignment.Start) -> bool:
        """Start the shard in its worker; False: try again although nothing changes."""
        shard = start.shard
        start = replace(start, session=newest_session(start, self.local.get(shard), self._sessions.get(shard)))
        app, group = view.apps[shard.app].record, view.groups[shard.of].record
        budget = view.budgets.get(start.config.token_hash)
        worker = self._workers.get(start.worker)
        if budget is None or not budget.record.url or worker is None or not worker.alive:
            return budget is not None and worker is not None
        # A closing group starts no session.
        identifies = start.session is None and group.phase != "closing"
        if identifies and (ahead := self._near.admit(view, shard, asyncio.get_running_loop().time())):
            # One that waits for its turn wakes this loop when it has had it; one that connects may hang.
            return all(self._waits_for_turn(other) for other in ahead)
        try:
            token = self._token_of(with_token_of(group, app))
        except Exception as error:
            found = problem(Code.TOKEN_UNUSABLE, f"app/{app.app}", str(error))
            self.problems[found.code, app.app] = found
            return True
        self.problems.pop((Code.TOKEN_UNUSABLE, app.app), None)
        if refusal := gateway_refusal(budget.record.url, self._api_url):
            self._refuse_gateway(app.app, refusal)
            return False
        self.problems.pop((Code.GATEWAY_UNTRUSTED, app.app), None)
        message = start_message(
            start,
            view,
            run=next(self._run_numbers),
            token=token,
            api_url=self._api_url,
            stream=self._stream_of(app),
        )
        worker.send(message)
        self._runs[shard] = message.run
        self._gateways.started(shard, budget.record.url)
        self.local[shard] = LocalShard(start.worker, start.fence, start.config, has_session=start.session is not None)
        self._passed_on = None
        self._shard_changes.started(message)
        self._sessions.pop(shard, None)
        if start.session is not None:
            self._sessions[shard] = start.session
            # Only a shard whose last owner was gone before this process could see it has a session here.
            self._history.lost(shard, NODE_RESTARTED, self._wall())
        self._note(shard, start.worker, "connecting", "")
        return True

    def _waits_for_turn(self, shard: ShardId) -> bool:
        facts = self.facts.get(shard)
        return facts is not None and facts.state == "identifying"

    def _refuse_gateway(self, app: str, refusal: str) -> None:
        found = problem(Code.GATEWAY_UNTRUSTED, f"app/{app}", f"{app}: {refusal}")
        if self.problems.get((found.code, app)) != found:
            _log.error("%s", found.text)
        self.problems[found.code, app] = found

    def _pass_on(self, view: ClusterView) -> None:
        """Send running shards what has changed for them. Most changes of a view are none of these."""
        parts = (view.apps, view.groups, view.budgets)
        if self._passed_on is not None and all(map(operator.is_, self._passed_on, parts)):
            return
        self._passed_on = parts
        for worker, message in self._shard_changes.messages(view, self.local):
            self._send(worker, message)
        self._gateways.follow(view, self.local)

    def _stop(self, shard: ShardId, reason: str) -> None:
        running = self.local[shard]
        self.local[shard] = replace(running, phase="stopping")
        self._note(shard, running.worker, "draining", reason)
        self._send(running.worker, ipc.StopShard(shard, reason))

    def _restart(self, shard: ShardId, reason: str) -> None:
        if self.local[shard].phase == "failed":
            self.local[shard] = replace(self.local[shard], phase="stopped")
            self.changed()
        else:
            self._stop(shard, reason)

    def _abandon(self, shard: ShardId, reason: str) -> None:
        if self.local[shard].phase == "running":
            _log.warning("shard %s is given up: %s", shard, reason)
            self._history.fenced[shard.app] += 1
            self._stop(shard, reason)
        else:
            self._forget(shard)

    def _forget(self, shard: ShardId) -> None:
        if self.local.pop(shard, None) is not None:
            self._status_publisher.shard(shard, "released", "")
        self.facts.pop(shard, None)
        self._withdraw(shard)
        self._near.passed(shard)
        self._shard_changes.forget(shard)
        self._runs.pop(shard, None)
        self._sessions.pop(shard, None)
        self._saved_at.pop(shard, None)
        self._gateways.forget(shard)
        self._figures.forget(shard)
        self.changed()

    def _send(self, worker: int, message: ipc.ToWorker) -> None:
        process = self._workers.get(worker)
        if process is not None:
            process.send(message)

    def _note(self, shard: ShardId, worker: int, state: str, reason: str, close_code: int = 0) -> None:
        before = self.facts.get(shard)
        same = before is not None and before.state == state
        since = before.since if before is not None and same else self._wall()
        if not same:
            self._status_publisher.shard(shard, state, reason)
        if state not in ("connecting", "identifying"):
            self._near.passed(shard)
        self.facts[shard] = ShardFacts(worker, state, reason, since, close_code)

    def _withdraw(self, shard: ShardId) -> None:
        self._rereads.discard(shard)
        self._wanting.pop(shard, None)
        self._waiting.discard(shard)
        if self.identifying is not None:
            self.identifying.withdraw(shard)

    def identify_granted(self, shard: ShardId) -> None:
        """It is the shard's turn to identify."""
        running = self.local.get(shard)
        if running is not None:
            self._send(running.worker, ipc.IdentifyGranted(shard))

    def identify_refused(self, shard: ShardId, reason: str) -> None:
        """Why the shard waits for its turn, for the status; its state stays."""
        running, facts = self.local.get(shard), self.facts.get(shard)
        if running is not None and running.phase == "running" and facts is not None and facts.state != "live":
            self.facts[shard] = replace(facts, reason=reason)

    # --- messages of workers ---------------------------------------------------------------------------------------

    def on_message(self, worker: Worker, message: ipc.ToAgent) -> None:
        """A worker sent a message about a shard."""
        match message:
            case (
                ipc.ShardChanged(key=key)
                | ipc.SessionSaved(key=key)
                | ipc.SessionDropped(key=key)
                | ipc.IdentifyWanted(key=key)
            ) if key not in self.local or self.local[key].worker != worker.index:
                # It was given up here. Stopped already, or not: it must not share the session with the present one.
                worker.send(ipc.StopShard(key, "it does not run here any more"))
            case ipc.ShardChanged(key, state, reason):
                if self.local[key].phase == "running":
                    self._note(key, worker.index, state, reason)
            case ipc.ShardStopped():
                self._stopped(message.key, worker, message)
            case ipc.SessionSaved(key, session):
                self._sessions[key] = session
                self._enqueue(key, lambda: self._save_session(key, session))
            case ipc.SessionDropped(key):
                self._has_session(key, False)
                self._sessions.pop(key, None)
                self._enqueue(key, lambda: self._save_session(key, None))
            case ipc.ShardBack(key=key, how=how, replayed=replayed, stored_at=stored_at):
                failover = self._history.back(key, how, replayed=replayed, stored_at=stored_at, at=self._wall())
                if failover is not None:
                    self._status_publisher.failover(failover)
            case ipc.EventsLost(key=key, session=name, last_seq=last_seq, reason=reason):
                self._status_publisher.loss(
                    self._history.loss(key, session=name, last_seq=last_seq, reason=reason, at=self._wall())
                )
            case ipc.GatewayUnreachable(key, url, reason):
                self._enqueue(key, lambda: self._gateways.unreachable(key, url, reason))
            case ipc.IdentifyWanted(key, spare):
                self._has_session(key, spare)
                self._wanting[key] = spare
                self._enqueue(key, lambda: self._want_identify(key))
            case ipc.IdentifyWithdrawn(key):
                self._withdraw(key)
            case ipc.IdentifySent(key):
                self._has_session(key, True)
                self._rereads.discard(key)
                self._near.passed(key)
                if self.identifying is not None:
                    self.identifying.sent(key)
            case _:
                return
        self.changed()

    def _has_session(self, shard: ShardId, has: bool) -> None:
        if shard in self.local:
            self.local[shard] = replace(self.local[shard], has_session=has)

    def _stopped(self, shard: ShardId, worker: Worker, stopped: ipc.ShardStopped) -> None:
        running, reason = self.local.get(shard), stopped.reason
        if running is not None and (running.worker, self._runs.get(shard)) != (worker.index, stopped.run):
            # An earlier run that was given up before it had ended: the present one continues.
            return
        self._withdraw(shard)
        if running is None:
            return
        match stopped.how:
            case "released":
                self._release_once_saved(shard, stopped.run)
            case "ended":
                self.local[shard] = replace(running, phase="ended")
                self._note(shard, worker.index, "ended", "")
            case "failed":
                _log.error("shard %s failed: %s", shard, reason)
                self.local[shard] = replace(running, phase="failed", failed_under=self._revision_of(shard.app))
                self._note(shard, worker.index, "failed", reason, stopped.close_code)
            case "fenced":
                _log.warning("shard %s is fenced: %s", shard, reason)
                self._history.fenced[shard.app] += running.phase == "running"
                self.local[shard] = replace(running, phase="stopping")
                self._enqueue(shard, lambda: self._yield_or_outbid(shard, stopped, running.fence))
            case _:
                self.local[shard] = replace(running, phase="stopping")
                self._note(shard, worker.index, "draining", reason)
                asyncio.get_running_loop().call_later(CRASH_WAIT_S, self._forget_run, shard, stopped.run)

    def _forget_run(self, shard: ShardId, run: int) -> None:
        """Forget the shard unless it was started again meanwhile: what runs must stay known, or nothing stops it."""
        if self._runs.get(shard) == run:
            self._forget(shard)

    def _revision_of(self, app: str) -> int:
        view = self._view()
        return view.apps[app].mod_revision if view is not None and app in view.apps else 0

    def _release_once_saved(self, shard: ShardId, run: int) -> None:
        """Release the claim after the shard's session is in etcd: otherwise the next owner would have to IDENTIFY."""

        def stopped() -> None:
            # A next run may have begun under the same fence: the plan had changed back, or the configuration.
            running = self.local.get(shard) if self._runs.get(shard) == run else None
            if running is not None and running.phase in ("running", "stopping"):
                self.local[shard] = replace(running, phase="stopped")
                self.changed()

        async def saved() -> None:
            stopped()

        if shard not in self._ops:
            stopped()
            return
        self._enqueue(shard, saved)
        asyncio.get_running_loop().call_later(SAVE_BUDGET_S, stopped)

    def on_worker_gone(self, worker: Worker) -> None:
        """The worker's process ended: its shards run nowhere until they are claimed again."""
        for shard in [shard for shard, running in self.local.items() if running.worker == worker.index]:
            self._withdraw(shard)
            if self.local[shard].phase not in ("failed", "ended"):
                if self.local[shard].has_session:
                    self._history.lost(shard, WORKER_DIED, self._wall())
                self._forget(shard)
        self.changed()

    async def _yield_or_outbid(self, shard: ShardId, stopped: ipc.ShardStopped, fence: Fence) -> None:
        """Another owner took the shard over, or the store was restored from a backup and lost our claim."""
        view, newer = self._view(), stopped.newer
        claim = assignment.outbid(view, self._own(), shard, fence, newer) if view is not None else None
        if claim is not None and all(await self._writes.commit([GuardedWrite(claim.compares, claim.writes)])):
            _log.error(
                "shard %s: the stream knows claim %d and etcd does not: etcd was restored from a backup? "
                "Claimed again above it",
                shard,
                newer,
            )
        self._forget_run(shard, stopped.run)

    async def _want_identify(self, shard: ShardId) -> None:
        if shard in self._wanting and shard in self.local:
            (self._rereads.add if self._wanting[shard] else self._rereads.discard)(shard)
            self._waiting.add(shard)
            self.changed()

    def _ask_for_turns(self, view: ClusterView) -> None:
        """Ask for the turns of shards whose claims say that they wait, so that all nodes know the order.

        Nodes that start together would all try the same buckets otherwise, and all but one would fail, again and again.
        """
        for shard in sorted(self._waiting):
            if self.identifying is not None and shard in view.queued.get(shard.of, ()):
                self._waiting.discard(shard)
                self.identifying.want(shard, spare=self._wanting.pop(shard))

    # --- sessions, in order per shard ---------------------------------------------------------------------------

    def _enqueue(self, shard: ShardId, operation: Callable[[], Awaitable[None]]) -> None:
        """Run the shard's operations one after the other: a lost session is deleted before its shard identifies."""
        queue = self._ops.setdefault(shard, deque())
        queue.append(operation)
        self.saved.clear()
        if len(queue) == 1 and self._group is not None:
            self._group.create_task(self._drain(shard, queue))

    async def _drain(self, shard: ShardId, queue: deque[Callable[[], Awaitable[None]]]) -> None:
        while queue:
            await queue[0]()
            queue.popleft()
        self._ops.pop(shard, None)
        if not self._ops:
            self.saved.set()

    async def _save_session(self, shard: ShardId, session: SessionRecord | None) -> None:
        """Write or delete the session, as long as the claim is ours."""
        while True:
            view = self._view()
            claim = view.claims.get(shard) if view is not None else None
            if shard not in self.local:
                return
            if view is not None and claim is not None:
                if claim.record.instance != self._membership.record.instance:
                    return
                key = view.keys.session(*shard)
                guard = Compare(view.keys.claim(*shard), "create_revision", claim.create_revision)
                write = Delete(key) if session is None else Put(key, session.encode())
                if applied := await self._writes.gather(GuardedWrite((guard,), (write,))):
                    self._saved_at[shard] = applied
                    return
            await asyncio.sleep(RETRY_S)
