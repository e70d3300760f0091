"""A worker process: it runs shards on uvloop, publishes their events, and does what its agent sends.

The agent starts it with one end of a socket as the only argument. It ends when the agent asks for it or is gone; in
both cases every shard is closed with its session kept.
"""

import signal

if __name__ == "__main__":
    # The agent says when to stop. Ctrl-C reaches its workers too: each would print a traceback of the imports below.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

import asyncio
import gc
import logging
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Coroutine

import uvloop

from sandwich_coordinator.backoff import Backoff
from sandwich_node.cache.group_cleanup import release_group, relocate_group
from sandwich_node.composition.worker import WorkerParts, compose_worker_parts
from sandwich_node.discord_http import discord_session
from sandwich_node.ipc import (
    AppInfo,
    AppsChanged,
    AskNats,
    CleanGroupCache,
    GuildsRelocated,
    LeaseHeld,
    LogLines,
    NatsSaid,
    PublishStatus,
    RelocateGuilds,
    Shutdown,
    StartShard,
    WorkerReady,
    WorkerSettings,
    WorkerStats,
    WorkerWaiting,
)
from sandwich_node.ipc_channel import LINE_BYTES_MAX, Channel
from sandwich_node.log_lines import LineBuffer, LineHandler
from sandwich_node.logs import configure_logging
from sandwich_node.names import WorkerLoop
from sandwich_node.nats_connection import NatsUnreachable
from sandwich_node.publishing.log import LogUnavailable
from sandwich_node.publishing.ticks import Ticks
from sandwich_node.rpc.nats_requests import NatsRequests
from sandwich_node.rpc.questions import CacheQuestions
from sandwich_node.rpc.server import RpcServer
from sandwich_node.shards.runner import ShardRunner
from sandwich_node.shards.services import WorkerServices
from sandwich_node.shards.shard_set import ShardSet

_log = logging.getLogger(__name__)

STATS_EVERY_S = 1.0
CONNECT_RETRY_FIRST_S = 0.2
CONNECT_RETRY_MAX_S = 5.0
SHUTDOWN_BUDGET_S = 8.0


class Worker:
    """The shards of one process."""

    def __init__(self, channel: Channel, settings: WorkerSettings, parts: WorkerParts, logged: LineBuffer) -> None:
        self._channel = channel
        self._settings = settings
        self._parts = parts
        self._logged = logged
        self._nats = parts.nats
        self._events = parts.log
        # Open once: the report must not fail when no file descriptor is free.
        self._statm = os.open("/proc/self/statm", os.O_RDONLY)
        self._lease: int | None = None
        self._apps: dict[str, AppInfo] = {}
        self._rpc: RpcServer | None = None
        self._ticks = Ticks(settings.linger_s)

    async def run(self) -> None:
        """Serve the agent until it sends Shutdown or is gone."""
        async with asyncio.TaskGroup() as group:
            reader = self._parts.reader
            questions = CacheQuestions(reader, lambda: self._apps) if reader is not None else None
            self._rpc = RpcServer(
                NatsRequests(self._nats.client),
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
                shut_down = await self._serve(shards, start)
                self._rpc.end()
                await shards.stop_all("the worker ends", SHUTDOWN_BUDGET_S)
                self._report_log()
                await self._channel.flush(1.0)
                if not shut_down:
                    await self._release_lease()
            finally:
                for task in list(background):
                    task.cancel()
        os.close(self._statm)
        await self._parts.close()

    def _make_runner(self, start: StartShard) -> ShardRunner:
        parts = self._parts
        services = WorkerServices(
            log=parts.log,
            previous=parts.previous,
            http=parts.http,
            send=self._channel.send,
            rng=parts.rng,
            clock=time.monotonic,
            wall=time.time,
            rests=parts.rests,
            cache=parts.cache,
            rpc=self._rpc,
            ticks=self._ticks,
            failures=parts.failures,
            room=parts.room,
        )
        return ShardRunner(start, services)

    async def _serve(self, shards: ShardSet, start: Callable[[Coroutine[None, None, None]], None]) -> bool:
        """Do what the agent sends, until Shutdown (True) or until the agent is gone (False)."""
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
                case CleanGroupCache() if self._parts.cache is not None:
                    start(release_group(self._parts.cache, message))
                case RelocateGuilds():
                    start(self._relocate(message))
                case AskNats():
                    start(self._ask_nats())
                case Shutdown():
                    return True
                case _:
                    shards.receive(message)
        return False

    async def _relocate(self, asked: RelocateGuilds) -> None:
        cache = self._parts.cache
        moved = GuildsRelocated(app=asked.app, group=asked.group, to=asked.to.group)
        self._channel.send(await relocate_group(cache, asked) if cache is not None else moved)

    async def _ask_nats(self) -> None:
        problems = await self._events.problems(self._apps)
        consumption = await self._events.consumers(self._apps)
        self._channel.send(NatsSaid(problems, consumption.groups, consumption.dead_letters))

    async def _release_lease(self) -> None:
        """The agent died: release the node's shards now, instead of when the lease expires."""
        etcd, lease = self._settings.etcd, self._lease
        if etcd is None or lease is None:
            return
        # Imported here: only a worker whose agent died needs etcd.
        from sandwich_node.agent.lease_release import release_lease

        await release_lease(etcd, lease)

    async def _connect(self, rpc: RpcServer) -> None:
        """Connect to NATS and check JetStream; report meanwhile what the worker waits for. Then take requests."""
        backoff = Backoff(CONNECT_RETRY_FIRST_S, CONNECT_RETRY_MAX_S, self._parts.rng)
        while True:
            try:
                if not self._nats.is_connected:
                    await self._nats.connect()
                await self._events.check()
            except (NatsUnreachable, LogUnavailable) as error:
                _log.warning("waiting for NATS: %s", error)
                self._channel.send(WorkerWaiting(str(error), error.code))
                await asyncio.sleep(backoff.next_s())
            else:
                self._channel.send(WorkerReady())
                await rpc.run()

    async def _report(self, shards: ShardSet) -> None:
        while True:
            usage = resource.getrusage(resource.RUSAGE_SELF)
            numbers = [runner.numbers() for runner in shards.runners]
            cpu_s = usage.ru_utime + usage.ru_stime
            self._channel.send(WorkerStats(_rss_bytes(self._statm), cpu_s, numbers, time.monotonic()))
            self._report_log()
            await asyncio.sleep(STATS_EVERY_S)

    def _report_log(self) -> None:
        lines, dropped = self._logged.take()
        if lines or dropped:
            self._channel.send(LogLines(lines, dropped))


def _rss_bytes(statm: int) -> int:
    """Resident memory now (proc(5), statm: the file's descriptor)."""
    pages = os.pread(statm, 128, 0).split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


async def _main(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        # Ctrl-C and `kill` of the process group reach the agent too, which then stops its workers in order.
        loop.add_signal_handler(name, lambda: None)
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor), limit=LINE_BYTES_MAX)
    channel = Channel(reader, writer)
    settings = await channel.receive_as_worker()
    if not isinstance(settings, WorkerSettings):
        return
    configure_logging(settings.log_level)
    logged = LineBuffer()
    logging.getLogger().addHandler(LineHandler(logged.add))
    async with discord_session(settings.proxy) as http:
        await Worker(channel, settings, compose_worker_parts(channel, settings, http), logged).run()
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
