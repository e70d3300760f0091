"""The parts of a node that has joined: made, connected to each other, and run together."""

import asyncio
import logging
from collections.abc import Coroutine, Iterator

from sandwich_coordinator import election
from sandwich_coordinator.assignment import concerns
from sandwich_coordinator.config import ClusterSettings
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.problems import Code, Problem, problem
from sandwich_coordinator.room import accepts
from sandwich_coordinator.scale_plan import desired_shards
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.store.base import StoreError
from sandwich_coordinator.store.etcd import version_warning
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.view import ClusterView
from sandwich_node import ipc
from sandwich_node.agent.configuration import OpenSecret, secret_opener, stream_of, trusted_settings
from sandwich_node.agent.dependencies import AgentDependencies, DiscordApi, MakeWorker
from sandwich_node.agent.identify_loop import IdentifyLoop
from sandwich_node.agent.leader_loop import LeaderLoop
from sandwich_node.agent.membership import Membership
from sandwich_node.agent.node_state import NodeState
from sandwich_node.agent.options import NodeOptions
from sandwich_node.agent.recent_changes import RecentChanges
from sandwich_node.agent.settings_following import SettingsFollower
from sandwich_node.agent.shard_control import ShardControl
from sandwich_node.agent.token_lookup import TokenLookup
from sandwich_node.agent.view_changes import ViewChanges
from sandwich_node.agent.view_following import ViewFollower
from sandwich_node.agent.worker_messages import WorkerMessages
from sandwich_node.agent.worker_settings import redis_options, worker_settings

_log = logging.getLogger(__name__)


class Serving:
    """A node at work. Nothing runs before `run`."""

    def __init__(
        self,
        options: NodeOptions,
        dependencies: AgentDependencies,
        settings: ClusterSettings,
        membership: Membership,
        discord: DiscordApi,
        key: ClusterKey | None,
        state: NodeState,
    ) -> None:
        store, wall, policy = dependencies.store, dependencies.wall, settings.policy.policy()
        open_secret = secret_opener(key)
        redis = redis_options(settings, open_secret)
        self._store = store
        self._node = options.node
        self._membership = membership
        self._state = state
        self._following = ViewFollower(store, Keys(options.cluster), rng=dependencies.rng, on_change=self._view_changed)
        view = self._following.view
        self.shards = self._make_shards(settings.discord.api_url, open_secret)
        self._identifying = self.shards.identifying = IdentifyLoop(
            store,
            options.node,
            view=view,
            grant=self.shards.identify_granted,
            refuse=self.shards.identify_refused,
            policy=policy,
        )
        lookup = TokenLookup(discord, view=view, open_secret=open_secret, wall=wall)
        self.leading = LeaderLoop(
            store,
            membership,
            view=view,
            look_up=lookup.budget,
            relocate=state.relocations.advance,
            policy=policy,
            wall=wall,
        )
        state.relocations.on_answer = self.leading.changed
        self.servers = dependencies.make_server_health(redis, self._ask_nats)
        self._changes = ViewChanges(options, state, leads=lambda: self.leading.leads)
        self._fill_workers(
            dependencies.make_worker, worker_settings(options, settings, redis, open_secret), options.workers
        )
        self.settings = SettingsFollower(
            options,
            settings,
            read=lambda stored: trusted_settings(stored, options.cluster, key),
            open_secret=open_secret,
            workers=state.workers,
            shards=self.shards,
            servers=self.servers,
            use_policy=self._use_policy,
            rng=dependencies.rng,
        )

    def _make_shards(self, api_url: str, open_secret: OpenSecret) -> ShardControl:
        return ShardControl(
            self._store,
            self._membership,
            self._state,
            view=self._following.view,
            connected=lambda: not self._following.is_stale,
            token_of=lambda app: open_secret(app.app, app.token),
            stream_of=lambda app: stream_of(app, self.settings.wanted),
            api_url=api_url,
        )

    def _fill_workers(self, make: MakeWorker, settings: ipc.WorkerSettings, count: int) -> None:
        workers = self._state.workers
        workers.share_lease(self._membership.lease)
        workers.fill(
            make,
            settings,
            count,
            on_message=WorkerMessages(self._state, self.shards, self.servers).receive,
            on_started=self.shards.changed,
            on_gone=self.shards.on_worker_gone,
        )

    @property
    def waiting(self) -> list[Problem]:
        """What the node waits for although it has joined."""
        waits = []
        if self._following.is_stale:
            words = "etcd does not answer; shards keep running, nothing is moved"
            waits.append(problem(Code.ETCD_UNREACHABLE, f"node/{self._node}", words, ""))
        return [*waits, *self.servers.waiting]

    @property
    def view(self) -> ClusterView | None:
        """The cluster as the node sees it; None before the first listing."""
        return self._following.view()

    @property
    def recent(self) -> RecentChanges:
        """Which keys of etcd changed lately, up to `view`."""
        return self._following.recent

    @property
    def desired_shards(self) -> dict[str, int]:
        """How many shards the cluster should have room for, if this node leads."""
        view = self._following.view()
        return desired_shards(view) if view is not None and self.leading.leads else {}

    @property
    def problems(self) -> list[Problem]:
        """What else an operator must know."""
        own = (self._changes.too_few_files, self.settings.problem)
        return [
            *(found for found in own if found is not None),
            *self.shards.problems.values(),
            *self.servers.problems,
        ]

    def others_ready(self) -> bool:
        """Whether another node can be given shards, as far as this node can see."""
        view = self._following.view()
        if view is None or self._following.is_stale:
            return False
        others = (entry.record for name, entry in view.nodes.items() if name != self._node)
        return any(accepts(record) for record in others)

    async def run(self) -> None:
        """Run all parts until cancelled. Raises NodeIdTaken."""
        async with asyncio.TaskGroup() as group:
            for part in self._parts():
                group.create_task(part)

    def _parts(self) -> Iterator[Coroutine[None, None, None]]:
        yield self.servers.run()
        yield self._warn_of_old_etcd()
        yield self._following.run()
        yield self._membership.keep(self._rejoined)
        yield self.leading.run()
        yield self._identifying.run()
        yield self.shards.run()
        yield self.settings.run()
        for worker in self._state.workers.slots.values():
            yield worker.run()

    def changed(self) -> None:
        """The view or the lease changed: every part that depends on them decides again soon."""
        self._state.workers.share_lease(self._membership.lease)
        self.leading.changed()
        self.shards.changed()
        self._identifying.changed()

    def _use_policy(self, policy: Policy) -> None:
        self.leading.policy = self._identifying.policy = policy
        self.leading.changed()

    async def _rejoined(self) -> None:
        self.changed()

    def _view_changed(self, before: ClusterView | None, after: ClusterView) -> None:
        self._changes.note(before, after)
        own = after.nodes.get(self._node)
        if own is not None:
            self._membership.follow(own.record)
        self.settings.follow(after)
        if self.leading.leads or before is None or election.concerns(before, after, self._node):
            self.leading.changed()
        self._identifying.changed()
        if before is None or concerns(before, after, self._node):
            self.shards.changed()

    def _ask_nats(self) -> bool:
        """Make a worker ask NATS. False: another node does that, because only the leader asks."""
        worker = self._state.workers.ready_worker()
        if not self.leading.leads or worker is None:
            return False
        worker.send(ipc.AskNats())
        return True

    async def _warn_of_old_etcd(self) -> None:
        try:
            warning = version_warning(await self._store.server_version())
        except StoreError:
            return
        if warning is not None:
            _log.warning("%s", warning)
