"""Sends the messages of webhooks while this node leads.

Each webhook has its own facts: what it was last sent, kept in etcd. What it is to be sent is the difference between
them and the cluster now, so that a new leader goes on where the last one was: a message is repeated when a leader ends
after it was sent and before that was stored, and is never left out. What has to wait (retries, rate limits) takes no
memory.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sandwich_coordinator.backoff import doubled_s
from sandwich_coordinator.operations.webhooks import message_of, open_destination
from sandwich_coordinator.sealing import ClusterKey, SealingError
from sandwich_coordinator.store.base import Compare, Put, Store, StoreError
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.view import ClusterView, Entry
from sandwich_coordinator.webhooks.delivery import NotDelivered, Resolve, deliver, system_addresses
from sandwich_coordinator.webhooks.facts import Notice, Seen, carried, notices, observe, wanted
from sandwich_coordinator.webhooks.records import Facts, WebhookRecord, WebhookStateRecord
from sandwich_node.agent.node_facts import NodeFacts
from sandwich_node.api.picture import ClusterPicture

_log = logging.getLogger(__name__)

LOOK_S = 2.0
"""What happens within this time is one message. Discord takes 30 messages a minute in a channel."""
LOOK_S_PER_NODE = 0.1
"""A look asks every node: with many of them it is rarer."""
REST_FACTOR = 20.0
"""Looking for problems in a large cluster takes its time: it is done so rarely that it takes a twentieth at most."""
RETRY_FIRST_S = 4.0
RETRY_MAX_S = 300.0
GIVE_UP_S = 3600.0


@dataclass(eq=False)
class _Hook:
    """A webhook at work. `waiting_since`: loop time of the first try of what is not delivered; None: nothing waits."""

    entry: Entry[WebhookRecord]
    facts: Facts
    missed: int = 0
    sent_at: float = 0.0
    failing_since: float = 0.0
    error: str = ""
    failures: int = 0
    retry_at: float = 0.0
    waiting_since: float | None = None
    sending: bool = False

    def state(self) -> WebhookStateRecord:
        return WebhookStateRecord(
            of=self.entry.create_revision,
            facts=self.facts,
            missed=self.missed,
            sent_at=self.sent_at,
            failing_since=self.failing_since,
            error=self.error,
        )


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds; tests use shorter ones."""

    look_s: float = LOOK_S
    retry_first_s: float = RETRY_FIRST_S
    retry_max_s: float = RETRY_MAX_S
    give_up_s: float = GIVE_UP_S


@dataclass
class WebhookSender:
    """The sender of node `node`. `run` until cancelled. `wall`: Unix seconds."""

    store: Store
    keys: Keys
    key: ClusterKey | None
    facts: NodeFacts
    picture: ClusterPicture
    node: str
    wall: Callable[[], float] = time.time
    resolve: Resolve = system_addresses
    timing: Timing = field(default_factory=Timing)
    _hooks: dict[str, _Hook] = field(default_factory=dict)

    async def run(self) -> None:
        """Look and send, while this node leads and there are webhooks."""
        async with asyncio.TaskGroup() as group:
            while True:
                pause_s = self.timing.look_s
                try:
                    pause_s = await self._look(group)
                except StoreError as error:
                    _log.warning("webhooks: %s", error)
                except Exception:
                    # Who is notified must not depend on what went wrong: the next look may work.
                    _log.exception("a look for webhooks failed")
                await asyncio.sleep(pause_s)

    async def _look(self, group: asyncio.TaskGroup) -> float:
        """Returns how long to wait for the next look."""
        view = self.facts.view()
        if view is None or not view.webhooks or not self._leads(view):
            self._hooks.clear()
            return self.timing.look_s
        snapshot = await self.picture.snapshot(view)
        clock = asyncio.get_running_loop().time
        began = clock()
        seen = observe(snapshot, self.picture.findings.problems(snapshot))
        took = clock() - began
        for name in self._hooks.keys() - view.webhooks.keys():
            del self._hooks[name]
        for name, entry in view.webhooks.items():
            hook = await self._hook(name, entry, view, seen)
            if not hook.sending and clock() >= hook.retry_at:
                await self._begin(hook, seen, view, group)
        return max(self.timing.look_s, LOOK_S_PER_NODE * len(view.nodes), took * REST_FACTOR)

    def _leads(self, view: ClusterView) -> bool:
        return view.leader is not None and view.leader.record.node == self.node

    async def _hook(self, name: str, entry: Entry[WebhookRecord], view: ClusterView, seen: Seen) -> _Hook:
        """The webhook at work; a new one reports what happens from now on."""
        hook = self._hooks.get(name)
        if hook is not None and hook.entry.create_revision == entry.create_revision:
            changed = hook.entry.mod_revision != entry.mod_revision
            hook.entry = entry
            if changed:
                # With other events or another URL: no leader may report what it did not want before.
                hook.retry_at = 0.0
                await self._keep(hook, view)
            return hook
        state = view.webhook_states.get(name)
        if state is not None and state.record.of == entry.create_revision:
            known = state.record
            hook = _Hook(entry, known.facts, known.missed, known.sent_at, known.failing_since, known.error)
        else:
            hook = _Hook(entry, seen.facts)
            await self._keep(hook, view)
        self._hooks[name] = hook
        return hook

    async def _begin(self, hook: _Hook, seen: Seen, view: ClusterView, group: asyncio.TaskGroup) -> None:
        found = wanted(notices(hook.facts, seen), hook.entry.record)
        if not found:
            hook.facts, hook.failures, hook.waiting_since = carried(hook.facts, seen), 0, None
            if hook.error and not hook.missed:
                # What could not be delivered is over by itself. What was given up still counts as a failure.
                hook.failing_since, hook.error = 0.0, ""
                await self._keep(hook, view)
            return
        hook.sending = True
        group.create_task(self._send(hook, found, seen, view))

    async def _send(self, hook: _Hook, found: Sequence[Notice], seen: Seen, view: ClusterView) -> None:
        record = hook.entry.record
        try:
            message = message_of(record, found, cluster=self.keys.cluster, now=self.wall(), missed=hook.missed)
            await deliver(open_destination(record, self.key), message, resolve=self.resolve)
        except (NotDelivered, SealingError) as error:
            retry_after_s = error.retry_after_s if isinstance(error, NotDelivered) else 0.0
            await self._failed(hook, str(error), retry_after_s, found, seen, view)
        except Exception as error:
            _log.exception("webhook %s", record.name)
            await self._failed(hook, type(error).__name__, 0.0, found, seen, view)
        else:
            hook.facts, hook.missed, hook.sent_at = carried(hook.facts, seen), 0, self.wall()
            hook.failing_since, hook.error, hook.failures, hook.waiting_since = 0.0, "", 0, None
            await self._keep(hook, view)
        finally:
            hook.sending = False

    async def _failed(
        self, hook: _Hook, why: str, retry_after_s: float, found: Sequence[Notice], seen: Seen, view: ClusterView
    ) -> None:
        now = asyncio.get_running_loop().time()
        hook.waiting_since = now if hook.waiting_since is None else hook.waiting_since
        hook.failures += 1
        # Without jitter: only the leader's node sends.
        pause_s = doubled_s(self.timing.retry_first_s, self.timing.retry_max_s, hook.failures)
        hook.retry_at = now + max(pause_s, retry_after_s)
        is_new = hook.error != why
        hook.error, hook.failing_since = why, hook.failing_since or self.wall()
        given_up = now - hook.waiting_since >= self.timing.give_up_s
        if given_up:
            hook.missed += len(found)
            hook.facts, hook.waiting_since = carried(hook.facts, seen), None
            _log.error("webhook %s: %d notices are given up: %s", hook.entry.record.name, len(found), why)
        if is_new:
            _log.warning("webhook %s: %s; it is tried again", hook.entry.record.name, why)
        if is_new or given_up:
            await self._keep(hook, view)

    async def _keep(self, hook: _Hook, view: ClusterView) -> None:
        """Store a webhook's state, if it is still there and this node still leads."""
        name = hook.entry.record.name
        leader = view.leader.create_revision if view.leader is not None else 0
        try:
            await self.store.txn(
                [
                    Compare(self.keys.webhook(name), "create_revision", hook.entry.create_revision),
                    Compare(self.keys.leader, "create_revision", leader),
                ],
                [Put(self.keys.webhook_state(name), hook.state().encode())],
            )
        except StoreError as error:
            # What was sent may be sent again by the next leader.
            _log.warning("the state of webhook %s was not stored: %s", name, error)
