"""The agent's life: wait for etcd and the cluster's configuration, join, serve, leave.

Everything that is decided lies elsewhere; here the parts are put together and ended in the right order.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from sandwich_coordinator.addresses import Address
from sandwich_coordinator.config import NATS_SECRET, REDIS_SECRET, ClusterSettings
from sandwich_coordinator.discord_api import fetch_current_user, fetch_gateway_bot
from sandwich_coordinator.fingerprints import fingerprints
from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.problems import KINDS, Code, Problem, problem
from sandwich_coordinator.reachability import locally_advertised
from sandwich_coordinator.sealing import ClusterKey, SealingError, open_plain
from sandwich_coordinator.status import NodeStatus
from sandwich_coordinator.store.base import StoreError, WatchBatch
from sandwich_coordinator.store.etcd import EtcdStore, version_warning
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.store.mirror import Mirror
from sandwich_coordinator.types import BudgetRecord, CacheSpec, NodeRecord
from sandwich_coordinator.view import ClusterView
from sandwich_node import ipc, open_files
from sandwich_node.agent.configuration import await_settings, check_tokens, stream_of
from sandwich_node.agent.consumer_lag import ConsumerLag
from sandwich_node.agent.failover_history import History
from sandwich_node.agent.identify_loop import IdentifyLoop
from sandwich_node.agent.leader_loop import LeaderLoop
from sandwich_node.agent.membership import Membership, host_identity
from sandwich_node.agent.problems import cache_problems, waiting_shards, waiting_worker
from sandwich_node.agent.server_health import Servers
from sandwich_node.agent.shard_control import ShardControl
from sandwich_node.agent.status import Figures, node_status, planned_shards
from sandwich_node.agent.status_publisher import StatusPublisher
from sandwich_node.cache.options import RedisOptions
from sandwich_node.discord_http import discord_session
from sandwich_node.http.app import make_app, serve
from sandwich_node.worker_process import WorkerProcess
from sandwich_sdk._version import __version__

_log = logging.getLogger(__name__)

DRAIN_BUDGET_S = 16.0
"""How long other nodes may take the shards over, one after the other, before the rest is stopped at once."""
WORKERS_BUDGET_S = 9.0
"""With the drain before it below 30 s, what `docker stop -t 30` allows."""
DRAIN_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """What `sandwich-node join` was told. `advertise` None: the listening address.

    `open_files`: how many file descriptors a process of this node may have.
    """

    node: str
    cluster: str
    listen: Address
    workers: int
    capacity: int
    labels: dict[str, str]
    advertise: str | None = None
    log_level: str = "INFO"
    etcd: ipc.EtcdOptions | None = None
    open_files: int = open_files.LIMIT_MAX


class Agent:
    """One node. `run` returns after `shutdown` was called and everything is released.

    `options.etcd` lets workers release the node's lease when this process dies.
    """

    def __init__(
        self, options: NodeOptions, store: EtcdStore, key: ClusterKey | None, *, rng: random.Random | None = None
    ) -> None:
        rng = rng or random.SystemRandom()
        self._options = options
        self._store = store
        self._key = key
        self._keys = Keys(options.cluster)
        self._instance = f"{rng.getrandbits(64):016x}"
        self._started_at = time.time()
        self._stop = asyncio.Event()
        self._hurried = asyncio.Event()
        self._history = History(options.node)
        self._teller = StatusPublisher(options.node, lambda: self._workers)
        self._lease_told: int | None = None
        self._cache_specs: dict[str, CacheSpec] = {}
        self._apps_told: dict[str, ipc.AppInfo] = {}
        self._view: ClusterView | None = None
        self._listeners: list[Callable[[], None]] = []
        self._mirror = Mirror(store, self._keys.prefix, rng=rng)
        self._mirror.listen(self._on_batch)
        self._figures = Figures()
        self._workers: dict[int, WorkerProcess] = {}
        self._too_few_files: Problem | None = None
        self._settings: dict[str, str] = {}
        self._address_warned = False
        self._starting = "starting"
        self._membership: Membership | None = None
        self._leading: LeaderLoop | None = None
        self._shards: ShardControl | None = None
        self._servers: Servers | None = None

    def shutdown(self) -> None:
        """Leave the cluster: sessions kept, shards handed over. A second call stops what is left at once."""
        if self._stop.is_set():
            self._hurried.set()
        self._stop.set()

    # --- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Be a node until `shutdown`. Raises AgentError, NodeIdTaken, HttpError."""
        app = make_app(self.status, lambda: [found.text for found in self.not_ready()])
        async with serve(app, self._options.listen) as port:
            _log.info("listening on http://%s", self._options.listen._replace(port=port))
            main = asyncio.ensure_future(self._main(port))
            stopping = asyncio.ensure_future(self._stop.wait())
            await asyncio.wait({main, stopping}, return_when=asyncio.FIRST_COMPLETED)
            try:
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
        self._settings = fingerprints(settings)
        await check_tokens(self._store, self._keys, self._open)
        address = self._options.advertise or str(self._options.listen._replace(port=port))
        membership = self._membership = Membership(
            self._store, self._keys, self._record(address), ttl_s=int(settings.policy.lease_ttl_s), on_change=self._tell
        )
        self._starting = "joining the cluster"
        await membership.join(lambda text: _log.warning("waiting: %s", text))
        _log.info("joined cluster %s as node %s", self._options.cluster, self._options.node)
        self._starting = ""
        async with discord_session(settings.discord.proxy) as http:
            await self._serve(settings, membership, http)

    def _wait_for(self, what: str) -> None:
        if what != self._starting:
            self._starting = what
            _log.warning("%s", what)

    def _record(self, address: str) -> NodeRecord:
        options = self._options
        return NodeRecord(
            node=options.node,
            instance=self._instance,
            address=address,
            version=__version__,
            capacity=options.capacity,
            workers=options.workers,
            labels={**options.labels, "host": host_identity(), "pid": str(os.getpid())},
            started_at=self._started_at,
        )

    async def _serve(self, settings: ClusterSettings, membership: Membership, http: aiohttp.ClientSession) -> None:
        policy = settings.policy.policy()

        async def look_up(app: str) -> BudgetRecord:
            return await self._look_up(app, settings, http)

        shards = self._shards = ShardControl(
            self._store,
            membership,
            view=self.view,
            connected=lambda: self._mirror.stale_since is None,
            token_of=lambda app: self._open(app.app, app.token),
            stream_of=lambda app: stream_of(app, settings),
            api_url=settings.discord.api_url,
            figures=self._figures,
            history=self._history,
            teller=self._teller,
        )
        identifying = IdentifyLoop(
            self._store,
            self._options.node,
            view=self.view,
            grant=lambda shard: self._grant(shards, shard),
            refuse=lambda shard, reason: self._refused(shards, shard, reason),
            policy=policy,
        )
        shards.identifying = identifying
        leading = self._leading = LeaderLoop(self._store, membership, view=self.view, look_up=look_up, policy=policy)
        self._listeners = [leading.changed, shards.changed, identifying.changed]
        self._workers = self._make_workers(settings, shards)
        shards.workers = self._workers

        async def rejoined() -> None:
            self._tell()

        self._servers = Servers(self._store, self._redis_options(settings), ask_nats=self._ask_nats)
        async with asyncio.TaskGroup() as group:
            for work in (
                self._servers.run(),
                self._warn_of_old_etcd(),
                self._mirror.run(),
                membership.keep(rejoined),
                leading.run(),
                identifying.run(),
                shards.run(),
                *(worker.run() for worker in self._workers.values()),
            ):
                group.create_task(work)

    async def _warn_of_old_etcd(self) -> None:
        try:
            warning = version_warning(await self._store.server_version())
        except StoreError:
            return
        if warning is not None:
            _log.warning("%s", warning)

    async def _leave(self) -> None:
        """Give everything back: leadership first, then the shards: to the other nodes while they take them."""
        _log.info("leaving: shards are handed over with their sessions kept")
        self._starting = "leaving"
        if self._leading is not None:
            self._leading.leaving = True
            self._leading.changed()
        if self._membership is not None and self._shards is not None:
            await self._hand_over(self._membership, self._shards)
            self._shards.frozen = True
        for worker in self._workers.values():
            worker.stop()
        try:
            async with asyncio.timeout(WORKERS_BUDGET_S):
                for worker in self._workers.values():
                    await worker.ended.wait()
                if self._shards is not None:
                    await self._shards.saved.wait()
                if self._leading is not None:
                    await self._leading.resigned.wait()
        except TimeoutError:
            _log.warning("not everything was released in time; the leases will do it")

    async def _hand_over(self, membership: Membership, shards: ShardControl) -> None:
        """Drain: each shard is silent only while it moves. Ends early when no other node could take what is left."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + DRAIN_BUDGET_S
        if not shards.local or not self._others_ready() or not await membership.announce_draining():
            return
        while shards.local and self._others_ready() and clock() < deadline and not self._hurried.is_set():
            try:
                async with asyncio.timeout(DRAIN_POLL_S):
                    await self._hurried.wait()
            except TimeoutError:
                pass
        if shards.local:
            _log.warning("%d shards are not handed over: they are stopped, with their sessions kept", len(shards.local))

    def _others_ready(self) -> bool:
        """Whether some other node can be given shards, as far as we can see."""
        if self._view is None or self._mirror.stale_since is not None:
            return False
        others = (entry.record for name, entry in self._view.nodes.items() if name != self._options.node)
        return any(record.state == "ready" and record.capacity > 0 for record in others)

    def _open(self, name: str, sealed: str) -> str:
        """A sealed secret; one stored in plain only where this node was started without a key."""
        if self._key is None:
            return open_plain(name, sealed, allow_plain=True)
        return self._key.unseal(name, sealed)

    # --- parts --------------------------------------------------------------------------------------------------

    def view(self) -> ClusterView | None:
        """The cluster as last seen; None before the first listing."""
        return self._view

    def _on_batch(self, batch: WatchBatch) -> None:
        before = self._view
        view = self._view = (before or ClusterView(keys=self._keys)).apply(batch)
        if before is None or view.apps is not before.apps:
            self._cache_specs |= {name: entry.record.cache for name, entry in view.apps.items()}
        if before is not None:
            self._note_changes(before, view)
        if before is None or view.plans is not before.plans:
            self._check_open_files(view)
        if before is None or view.nodes is not before.nodes:
            self._check_address(view)
        self._share_apps(view)
        own = view.nodes.get(self._options.node)
        if own is not None and self._membership is not None:
            self._membership.follow(own.record)
        self._tell()

    def _check_address(self, view: ClusterView) -> None:
        """Warn at once when this node advertises an address that the nodes on other hosts cannot reach."""
        node = self._options.node
        wrong = node in locally_advertised(view)
        if wrong and not self._address_warned:
            advice = KINDS[Code.NODE_ADDRESS_LOCAL].advice
            _log.warning("other hosts cannot reach %s: %s", view.nodes[node].record.address, advice)
        self._address_warned = wrong

    def _check_open_files(self, view: ClusterView) -> None:
        options = self._options
        planned = planned_shards(view, options.node)
        too_few = open_files.too_few(options.node, planned, options.workers, options.open_files)
        if too_few is not None and too_few != self._too_few_files:
            _log.warning("%s", too_few.text)
        self._too_few_files = too_few

    def _note_changes(self, before: ClusterView, after: ClusterView) -> None:
        if after.claims is not before.claims:
            changed = {shard for shard, claim in before.claims.items() if after.claims.get(shard) is not claim}
            changed |= after.claims.keys() - before.claims.keys()
            self._history.claims_changed(before, after, changed, time.time())
        if self._leading is not None and self._leading.epoch is not None:
            self._teller.cluster(before, after)
            if after.groups is not before.groups:
                self._release_caches(before, after)

    def _release_caches(self, before: ClusterView, after: ClusterView) -> None:
        """Guilds of shard groups that are gone leave the cache."""
        for key in before.groups.keys() - after.groups.keys():
            cache = self._cache_specs.get(key.app)
            worker = next((worker for worker in self._workers.values() if worker.ready), None)
            if cache is None or not cache.enabled or worker is None:
                continue
            worker.send(
                ipc.CleanGroupCache(
                    app=key.app,
                    group=key.group,
                    count=before.groups[key].record.count,
                    fence=after.revision,
                    cache=cache,
                )
            )

    def _share_apps(self, view: ClusterView) -> None:
        """Let the workers know the applications that they answer requests about."""
        seen = app_infos(view)
        if seen != self._apps_told:
            self._apps_told = seen
            for worker in self._workers.values():
                worker.send(ipc.AppsChanged(seen))

    def _share_lease(self) -> None:
        """Let the workers know the lease that they release if this process dies."""
        lease = self._membership.lease if self._membership is not None else None
        if lease != self._lease_told:
            self._lease_told = lease
            for worker in self._workers.values():
                worker.send(ipc.LeaseHeld(lease))

    def _ask_nats(self) -> bool:
        """Of all nodes only the leader asks."""
        worker = next((worker for worker in self._workers.values() if worker.ready), None)
        if self._leading is None or self._leading.epoch is None or worker is None:
            return False
        worker.send(ipc.AskNats())
        return True

    def _tell(self) -> None:
        self._share_lease()
        for listener in self._listeners:
            listener()

    def _make_workers(self, settings: ClusterSettings, shards: ShardControl) -> dict[int, WorkerProcess]:
        nats = settings.nats
        password = self._open(NATS_SECRET, nats.password) if nats.password else None
        redis = self._redis_options(settings)

        def on_message(worker: WorkerProcess, message: ipc.ToAgent) -> None:
            match message:
                case ipc.WorkerReady():
                    worker.ready, worker.waiting = True, ""
                    self._teller.flush()
                case ipc.WorkerWaiting(reason, code):
                    worker.ready, worker.waiting, worker.waiting_code = False, reason, code
                case ipc.NatsSaid() if self._servers is not None:
                    self._servers.nats_said(message, time.time())
                case ipc.StreamRemade(app):
                    self._history.streams_remade[app] = time.time()
                    self._teller.stream_remade(app)
                case ipc.WorkerStats(_, cpu_s, numbers):
                    self._figures.note(asyncio.get_running_loop().time(), worker.index, cpu_s, numbers)
                    for app in {each.key.app for each in numbers if each.foreign}:
                        self._history.foreign(app, self._figures.of_app(app).foreign_total, time.time())
                case _:
                    shards.on_message(worker, message)

        def on_started(worker: WorkerProcess) -> None:
            worker.send(ipc.LeaseHeld(self._lease_told))
            worker.send(ipc.AppsChanged(self._apps_told))
            shards.changed()

        return {
            index: WorkerProcess(
                ipc.WorkerSettings(
                    worker=index,
                    node=self._options.node,
                    cluster=self._options.cluster,
                    nats_servers=tuple(nats.servers),
                    nats_user=nats.user or None,
                    nats_password=password,
                    nats_credentials=nats.credentials or None,
                    nats_tls_ca=nats.tls_ca or None,
                    nats_tls_cert=nats.tls_cert or None,
                    nats_tls_key=nats.tls_key or None,
                    redis=redis,
                    api_url=settings.discord.api_url,
                    proxy=settings.discord.proxy,
                    linger_s=settings.policy.linger_ms / 1000,
                    log_level=self._options.log_level,
                    etcd=self._options.etcd,
                ),
                on_message=on_message,
                on_started=on_started,
                on_gone=shards.on_worker_gone,
            )
            for index in range(self._options.workers)
        }

    def _redis_options(self, settings: ClusterSettings) -> RedisOptions:
        reach = settings.redis
        return RedisOptions(
            url=reach.url,
            password=self._open(REDIS_SECRET, reach.password) if reach.password else None,
            ca=reach.tls_ca or None,
            cert=reach.tls_cert or None,
            key=reach.tls_key or None,
        )

    async def _look_up(self, app: str, settings: ClusterSettings, http: aiohttp.ClientSession) -> BudgetRecord:
        """Ask Discord about one application's token. Raises DiscordError."""
        view = self._view
        record = view.apps[app].record if view is not None and app in view.apps else None
        if record is None:
            raise ValueError("the application is gone")
        try:
            token = self._open(app, record.token)
        except SealingError as error:
            raise ValueError(str(error)) from None
        api_url = settings.discord.api_url
        gateway = await fetch_gateway_bot(http, api_url, token)
        user = await fetch_current_user(http, api_url, token)
        now = time.time()
        return BudgetRecord(
            url=gateway.url,
            shards=gateway.shards,
            total=gateway.total,
            remaining=gateway.remaining,
            reset_at=now + gateway.reset_after_s,
            max_concurrency=gateway.max_concurrency,
            fetched_at=now,
            bot_id=user.id,
            bot_name=user.name,
        )

    def _grant(self, shards: ShardControl, shard: ShardId) -> None:
        running = shards.local.get(shard)
        worker = self._workers.get(running.worker) if running is not None else None
        if worker is not None:
            worker.send(ipc.IdentifyGranted(shard))

    def _refused(self, shards: ShardControl, shard: ShardId, reason: str) -> None:
        running = shards.local.get(shard)
        facts = shards.facts.get(shard)
        if running is not None and running.phase == "running" and facts is not None and facts.state != "live":
            shards.note_reason(shard, reason)

    # --- what it reports about itself ---------------------------------------------------------------------------

    def not_ready(self) -> list[Problem]:
        """What the node still waits for; empty when it serves."""
        waits = []
        subject = f"node/{self._options.node}"
        if self._starting:
            code = Code.NODE_LEAVING if self._stop.is_set() else Code.NODE_STARTING
            waits.append(problem(code, subject, self._starting))
        if self._membership is not None and self._membership.waiting is not None:
            waits.append(self._membership.waiting)
        if self._mirror.stale_since is not None:
            words = "etcd does not answer; shards keep running, nothing is moved"
            waits.append(problem(Code.ETCD_UNREACHABLE, subject, words, ""))
        waits += self._servers.waiting if self._servers is not None else ()
        waits += [
            waiting_worker(worker.index, worker.waiting, worker.waiting_code)
            for worker in self._workers.values()
            if not worker.ready
        ]
        return waits

    def status(self) -> NodeStatus:
        """The node's report about itself."""
        shards = self._shards
        facts = shards.facts if shards is not None else {}
        return node_status(
            node=self._options.node,
            instance=self._instance,
            version=__version__,
            started_at=self._started_at,
            leader=self._leading is not None and self._leading.epoch is not None,
            workers=self._workers.values(),
            shards=facts,
            figures=self._figures,
            history=self._history,
            consumers=self._servers.consumers if self._servers is not None else ConsumerLag(),
            settings=self._settings,
            problems=[
                *self.not_ready(),
                *([self._too_few_files] if self._too_few_files is not None else ()),
                *(shards.problems.values() if shards is not None else ()),
                *(self._servers.problems if self._servers is not None else ()),
                *waiting_shards(facts, self._figures),
                *cache_problems(facts, self._figures),
                *self._history.problems(time.time()),
                *(self._servers.consumers.problems(time.time()) if self._servers is not None else ()),
            ],
        )


def app_infos(view: ClusterView) -> dict[str, ipc.AppInfo]:
    """The applications, each with its newest shard group."""
    seen = {}
    for name, entry in view.apps.items():
        groups = [(key.group, group.record.count) for key, group in view.groups.items() if key.app == name]
        budget = view.budgets.get(entry.record.token_hash)
        number, count = max(groups, default=(0, 0))
        seen[name] = ipc.AppInfo(
            group=number,
            count=count,
            bot=budget.record.bot_id if budget is not None else "",
            caches=entry.record.cache.enabled,
            namespace=entry.record.cache.namespace_of(name),
        )
    return seen
