"""The agent's life: wait for etcd and the cluster's configuration, join, serve, leave.

What the node does in between is in `serving.py`. Everything outside comes in through `AgentDependencies`.
"""

import asyncio
import logging
import os

from sandwich_coordinator.config import ClusterSettings
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.status import NodeStatus
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import NodeRecord
from sandwich_coordinator.view import ClusterView
from sandwich_node.agent.configuration import await_settings, check_tokens, secret_opener
from sandwich_node.agent.dependencies import AgentDependencies
from sandwich_node.agent.membership import Membership, host_identity
from sandwich_node.agent.node_report import NodeReport
from sandwich_node.agent.node_state import NodeState
from sandwich_node.agent.options import NodeOptions
from sandwich_node.agent.recent_changes import RecentChanges
from sandwich_node.agent.serving import Serving
from sandwich_sdk._version import __version__

_log = logging.getLogger(__name__)

DRAIN_BUDGET_S = 16.0
"""How long other nodes may take the shards over, one after the other, before the rest is stopped at once."""
WORKERS_BUDGET_S = 9.0
"""With the drain before it below 30 s, what `docker stop -t 30` allows."""
DRAIN_POLL_S = 0.05


class Agent:
    """One node. `run` returns after `shutdown` was called and everything is released.

    `key` None: the secrets of the cluster are stored in plain.
    """

    def __init__(self, options: NodeOptions, dependencies: AgentDependencies, key: ClusterKey | None) -> None:
        self._options = options
        self._dependencies = dependencies
        self._store = dependencies.store
        self._key = key
        self._keys = Keys(options.cluster)
        self._instance = f"{dependencies.rng.getrandbits(64):016x}"
        self._started_at = dependencies.wall()
        self._state = NodeState(options.node, dependencies.logs, wall=dependencies.wall, clock=dependencies.clock)
        self._report = NodeReport(
            options,
            self._state,
            instance=self._instance,
            started_at=self._started_at,
            http_problems=dependencies.http_problems,
        )
        self._stop = asyncio.Event()
        self._hurried = asyncio.Event()
        self._membership: Membership | None = None
        self._serving: Serving | None = None

    def shutdown(self) -> None:
        """Leave the cluster: sessions kept, shards handed over. A second call stops the remaining shards at once."""
        if self._stop.is_set():
            self._hurried.set()
        self._stop.set()

    def not_ready(self) -> list[str]:
        """What the node still waits for, in words; empty when it serves."""
        return [found.text for found in self._report.not_ready()]

    def status(self) -> NodeStatus:
        """The status of the node, at any time."""
        return self._report.status()

    def view(self) -> ClusterView | None:
        """The cluster as the node sees it; None before it has joined and has the first listing."""
        return self._serving.view if self._serving is not None else None

    def settings(self) -> ClusterSettings | None:
        """The settings that the node uses; None before it has them."""
        return self._serving.settings.wanted if self._serving is not None else None

    def recent(self) -> RecentChanges:
        """Which keys of etcd changed lately, up to `view`."""
        return self._serving.recent if self._serving is not None else RecentChanges()

    # --- start ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Be a node until `shutdown`. Raises AgentError, NodeIdTaken, HttpError."""
        async with self._dependencies.listen(self, self._options.listen) as port:
            scheme = "https" if self._options.tls_fingerprint else "http"
            _log.info("listening on %s://%s", scheme, self._options.listen._replace(port=port))
            main = asyncio.ensure_future(self._main(port))
            stopping = asyncio.ensure_future(self._stop.wait())
            try:
                await asyncio.wait({main, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if main.done():
                    main.result()
                else:
                    await self._leave()
            finally:
                for task in (main, stopping):
                    task.cancel()
                await asyncio.gather(main, stopping, return_exceptions=True)
                if self._membership is not None:
                    await self._membership.leave()
                await self._store.close()

    async def _main(self, port: int) -> None:
        settings = await await_settings(self._store, self._keys, self._key, self._wait_for)
        await check_tokens(self._store, self._keys, secret_opener(self._key))
        membership = await self._join(
            settings, self._options.advertise or str(self._options.listen._replace(port=port))
        )
        async with self._dependencies.open_discord(settings.discord) as discord:
            serving = self._serving = self._report.serving = Serving(
                self._options, self._dependencies, settings, membership, discord, self._key, self._state
            )
            await serving.run()

    async def _join(self, settings: ClusterSettings, address: str) -> Membership:
        """Register under `address`. Raises NodeIdTaken, StoreRefused."""
        membership = self._membership = self._report.membership = Membership(
            self._store,
            self._keys,
            self._record(address),
            ttl_s=int(settings.policy.lease_ttl_s),
            on_change=self._lease_changed,
        )
        self._report.starting = "joining the cluster"
        await membership.join(lambda text: _log.warning("waiting: %s", text))
        _log.info("joined cluster %s as node %s", self._options.cluster, self._options.node)
        self._report.starting = ""
        return membership

    def _wait_for(self, what: str) -> None:
        if what != self._report.starting:
            self._report.starting = what
            _log.warning("%s", what)

    def _lease_changed(self) -> None:
        if self._serving is not None:
            self._serving.changed()

    def _record(self, address: str) -> NodeRecord:
        options = self._options
        return NodeRecord(
            node=options.node,
            instance=self._instance,
            address=address,
            version=__version__,
            capacity=options.capacity,
            max_shards=options.max_shards,
            workers=options.workers,
            labels={**options.labels, "host": host_identity(), "pid": str(os.getpid())},
            started_at=self._started_at,
            status_key=options.status_key,
            # What is advertised as a URL has a certificate of its own, of a reverse proxy.
            tls="" if "://" in address else options.tls_fingerprint,
            cluster_keys=list(self._key.key_ids) if self._key is not None else [],
        )

    # --- end --------------------------------------------------------------------------------------------------------

    async def _leave(self) -> None:
        """Give everything back: leadership first, then the shards: to the other nodes while they take them."""
        _log.info("leaving: shards are handed over with their sessions kept")
        self._report.starting, self._report.leaving = "leaving", True
        if self._membership is None or self._serving is None:
            return
        serving = self._serving
        serving.leading.leave()
        await self._hand_over(self._membership, serving)
        serving.shards.frozen = True
        self._state.workers.stop()
        try:
            async with asyncio.timeout(WORKERS_BUDGET_S):
                await self._state.workers.ended()
                await serving.shards.saved.wait()
                await serving.leading.resigned.wait()
        except TimeoutError:
            _log.warning("not everything was released in time; the leases will do it")

    async def _hand_over(self, membership: Membership, serving: Serving) -> None:
        """Drain: each shard is silent only while it moves. Ends early when no other node could take the rest."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + DRAIN_BUDGET_S
        shards = serving.shards
        if not shards.local or not serving.others_ready() or not await membership.announce_draining():
            return
        while shards.local and serving.others_ready() and clock() < deadline and not self._hurried.is_set():
            try:
                async with asyncio.timeout(DRAIN_POLL_S):
                    await self._hurried.wait()
            except TimeoutError:
                pass
        if shards.local:
            _log.warning("%d shards are not handed over: they are stopped, with their sessions kept", len(shards.local))
