"""A worker process: carries shards on uvloop, publishes their events, and obeys its agent.

Started by the agent with one end of a socket as its only argument. It ends when the agent says so or is gone; either
way every shard is closed with its session kept.
"""

import signal

if __name__ == "__main__":
    # The agent says when to stop. Ctrl-C reaches its workers too, and in the middle of the imports below it would be a
    # traceback of each.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

import asyncio
import gc
import logging
import os
import random
import resource
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import aiohttp
import uvloop

from sandwich_node.cache.group_cleanup import release_group
from sandwich_node.cache.options import RedisOptions
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.discord_http import discord_session
from sandwich_node.ipc import (
    LINE_BYTES_MAX,
    AppInfo,
    AppsChanged,
    AskNats,
    Channel,
    CleanGroupCache,
    LeaseHeld,
    NatsSaid,
    PublishStatus,
    Shutdown,
    StartShard,
    StreamRemade,
    WorkerReady,
    WorkerSettings,
    WorkerStats,
    WorkerWaiting,
)
from sandwich_node.logs import configure_logging
from sandwich_node.names import WorkerLoop
from sandwich_node.open_files import SocketRoom, raise_limit, sockets_for_shards
from sandwich_node.publishing.jetstream import JetStreamLog, NatsOptions
from sandwich_node.publishing.log import LogUnavailable
from sandwich_node.rest.clients import RestClients
from sandwich_node.rpc.questions import CacheQuestions
from sandwich_node.rpc.server import RpcServer
from sandwich_node.shards.failures import FailureLog
from sandwich_node.shards.runner import ShardRunner
from sandwich_node.shards.shard_set import ShardSet
from sandwich_sdk.cache import Cache, Tls

_log = logging.getLogger(__name__)

STATS_EVERY_S = 1.0
CONNECT_RETRY_MAX_S = 5.0
SHUTDOWN_BUDGET_S = 8.0


class Worker:
    """The shards of one process."""

    def __init__(self, channel: Channel, settings: WorkerSettings, http: aiohttp.ClientSession) -> None:
        self._channel = channel
        self._settings = settings
        self._http = http
        self._events = JetStreamLog(_nats_options(settings), on_remade=lambda app: channel.send(StreamRemade(app)))
        self._cache = RedisCache(settings.redis, clock=time.monotonic) if settings.redis is not None else None
        self._rests = RestClients(http, settings.api_url)
        self._failures = FailureLog()
        # Open once: the report must not fail when no file descriptor is free.
        self._statm = os.open("/proc/self/statm", os.O_RDONLY)
        self._room = SocketRoom(sockets_for_shards(raise_limit()))
        self._rng = random.Random()
        self._lease: int | None = None
        self._apps: dict[str, AppInfo] = {}
        self._reader = _reader(settings.redis) if settings.redis is not None else None
        self._rpc: RpcServer | None = None

    async def run(self) -> None:
        """Serve the agent until it says Shutdown or is gone."""
        async with asyncio.TaskGroup() as group:
            questions = CacheQuestions(self._reader, lambda: self._apps) if self._reader is not None else None
            self._rpc = RpcServer(
                self._events.client,
                lambda: self._apps,
                questions,
                group,
                cluster=self._settings.cluster,
                belongs_elsewhere=self._events.belongs_elsewhere,
            )
            shards = ShardSet(group, self._make_runner, self._channel.send)
            background = {group.create_task(self._connect(self._rpc)), group.create_task(self._report(shards))}

            def start(work: Coroutine[None, None, None]) -> None:
                task = group.create_task(work)
                background.add(task)
                task.add_done_callback(background.discard)

            try:
                told = await self._serve(shards, start)
                await shards.stop_all("the worker ends", SHUTDOWN_BUDGET_S)
                await self._channel.flush(1.0)
                if not told:
                    await self._release_lease()
            finally:
                for task in list(background):
                    task.cancel()
        os.close(self._statm)
        await self._events.close()
        if self._cache is not None:
            await self._cache.close()
        if self._reader is not None:
            await self._reader.close()

    def _make_runner(self, start: StartShard) -> ShardRunner:
        return ShardRunner(
            start,
            self._events,
            self._http,
            tell=self._channel.send,
            rng=self._rng,
            rests=self._rests,
            cache=self._cache,
            rpc=self._rpc,
            linger_s=self._settings.linger_s,
            failures=self._failures,
            room=self._room,
        )

    async def _serve(self, shards: ShardSet, start: Callable[[Coroutine[None, None, None]], None]) -> bool:
        """Obey until Shutdown (True) or until the agent is gone (False)."""
        while (message := await self._channel.receive_as_worker()) is not None:
            match message:
                case PublishStatus(app=app, body=body):
                    await self._events.publish_status(app, body.encode())
                case LeaseHeld(lease):
                    self._lease = lease
                case AppsChanged(apps):
                    self._apps = apps
                    if self._rpc is not None:
                        self._rpc.apps_changed()
                case CleanGroupCache() if self._cache is not None:
                    start(release_group(self._cache, message))
                case AskNats():
                    start(self._ask_nats())
                case Shutdown():
                    return True
                case _:
                    shards.receive(message)
        return False

    async def _ask_nats(self) -> None:
        problems = await self._events.problems(self._apps)
        consumption = await self._events.consumers(self._apps)
        self._channel.send(NatsSaid(problems, consumption.groups, consumption.dead_letters))

    async def _release_lease(self) -> None:
        """The agent died: give the node's shards to the others now instead of when the lease runs out."""
        etcd, lease = self._settings.etcd, self._lease
        if etcd is None or lease is None:
            return
        # Imported here: only a worker whose agent died needs etcd.
        from sandwich_node.agent.lease_release import release_lease

        await release_lease(etcd, lease)

    async def _connect(self, rpc: RpcServer) -> None:
        """Reach NATS and see that JetStream is there; say what is waited for meanwhile. Then take requests."""
        delay = 0.2
        while True:
            try:
                if not self._events.connected:
                    await self._events.connect()
                await self._events.check()
            except LogUnavailable as error:
                _log.warning("waiting for NATS: %s", error)
                self._channel.send(WorkerWaiting(str(error), error.code))
                await asyncio.sleep(delay * self._rng.uniform(0.5, 1.0))
                delay = min(delay * 2, CONNECT_RETRY_MAX_S)
            else:
                self._channel.send(WorkerReady())
                await rpc.run()

    async def _report(self, shards: ShardSet) -> None:
        while True:
            usage = resource.getrusage(resource.RUSAGE_SELF)
            numbers = [runner.numbers() for runner in shards.runners]
            self._channel.send(WorkerStats(_rss_bytes(self._statm), usage.ru_utime + usage.ru_stime, numbers))
            await asyncio.sleep(STATS_EVERY_S)


def _reader(options: RedisOptions) -> Cache:
    """For questions; the namespace is each question's own."""
    tls = Tls(ca=options.ca, cert=options.cert, key=options.key) if options.ca or options.cert else None
    return Cache(options.url, namespace="none", password=options.password, tls=tls)


def _rss_bytes(statm: int) -> int:
    """Resident memory now (proc(5), statm: the file's descriptor)."""
    pages = os.pread(statm, 128, 0).split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _nats_options(settings: WorkerSettings) -> NatsOptions:
    def path(value: str | None) -> Path | None:
        return Path(value) if value else None

    return NatsOptions(
        servers=settings.nats_servers,
        name=f"sandwich {settings.node}/{settings.worker}",
        cluster=settings.cluster,
        user=settings.nats_user,
        password=settings.nats_password,
        credentials=path(settings.nats_credentials),
        tls_ca=path(settings.nats_tls_ca),
        tls_cert=path(settings.nats_tls_cert),
        tls_key=path(settings.nats_tls_key),
    )


async def _main(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        # Ctrl-C and `kill` of the process group reach the agent too, and it tells us in good order.
        loop.add_signal_handler(name, lambda: None)
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor), limit=LINE_BYTES_MAX)
    channel = Channel(reader, writer)
    settings = await channel.receive_as_worker()
    if not isinstance(settings, WorkerSettings):
        return
    configure_logging(settings.log_level)
    async with discord_session(settings.proxy) as http:
        await Worker(channel, settings, http).run()
    channel.close()


def main() -> None:
    """Entry point: `python -m sandwich_node.worker_main <descriptor>`."""
    started = time.monotonic()
    # Events are short-lived bytes without cycles; frequent young collections only cost time.
    gc.set_threshold(50_000, 20, 50)
    uvloop.run(_main(int(sys.argv[1])), loop_factory=WorkerLoop)
    _log.info("worker ended after %.0f s", time.monotonic() - started)


if __name__ == "__main__":
    main()
