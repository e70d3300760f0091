"""Worker processes as the agent sees them: started with an inherited socket, restarted when they die."""

import asyncio
import logging
import os
import random
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sandwich_coordinator.backoff import Backoff
from sandwich_coordinator.problems import Code
from sandwich_node.environment import for_worker
from sandwich_node.ipc import Shutdown, ToAgent, ToWorker, WorkerReady, WorkerSettings, WorkerStats
from sandwich_node.ipc_channel import LINE_BYTES_MAX, Channel
from sandwich_node.open_files import shortage

_log = logging.getLogger(__name__)

RESTART_FIRST_S = 0.1
RESTART_MAX_S = 15.0
STABLE_AFTER_S = 30.0
SILENT_MAX_S = 5
"""A worker reports every second; one that was silent for so long hangs. Below Discord's replay buffer (20 s)."""
START_MAX_S = 30
SPARE_AFTER_S = 5.0
"""The spare worker is started so long after a worker is ready: a start takes the CPU that shards need to come up."""
WATCH_LATE_S = 0.5
"""A tick so late means that the agent itself was stopped or had no CPU: the worker's silence proves nothing."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process that waits for its settings at the other end of `socket`."""

    process: asyncio.subprocess.Process
    socket: socket.socket


async def spawn_worker() -> Child:
    """Start a process. Raises OSError when the system has no room for one."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "sandwich_node.worker_main", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                env=for_worker(os.environ),
            )
    except BaseException:
        ours.close()
        raise
    return Child(process, ours)


class WorkerProcess:
    """One worker slot: a process, its channel, and what it last said of itself.

    A spare worker waits with its modules loaded, which is most of the time that a start takes: the shards of a worker
    that dies are back sooner.

    `on_message(slot, message)`, `on_started(slot)` and `on_gone(slot)` run on the agent's loop and must not wait.
    `spawn` starts a process; `spare_after_s`: see SPARE_AFTER_S.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        on_message: Callable[["WorkerProcess", ToAgent], None],
        on_started: Callable[["WorkerProcess"], None],
        on_gone: Callable[["WorkerProcess"], None],
        spawn: Callable[[], Awaitable[Child]] = spawn_worker,
        spare_after_s: float = SPARE_AFTER_S,
    ) -> None:
        self.index = settings.worker
        self.pid = 0
        self.ready = False
        self.waiting = "starting"
        self.waiting_code = Code.WORKER_NOT_READY
        self.stats = WorkerStats(0, 0.0, [])
        self._settings = settings
        self._spawn = spawn
        self._spare_after_s = spare_after_s
        self._on_message = on_message
        self._on_started = on_started
        self._on_gone = on_gone
        self._channel: Channel | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._spare: Child | None = None
        self.ended = asyncio.Event()
        self._stop = asyncio.Event()
        self._silent_s = 0

    @property
    def alive(self) -> bool:
        """Whether messages reach the process now."""
        return self._channel is not None

    def send(self, message: ToWorker) -> None:
        """Send to the process; a message that it cannot take any more is dropped: its shards start again with it."""
        if self._channel is not None:
            self._channel.send(message)

    async def run(self) -> None:
        """Keep a process alive until `stop`; then set `ended`."""
        try:
            await self._keep_running()
        finally:
            await self._drop_spare()
            self.ended.set()

    async def _keep_running(self) -> None:
        clock = asyncio.get_running_loop().time
        backoff = Backoff(RESTART_FIRST_S, RESTART_MAX_S, random.Random())
        while not self._stop.is_set():
            started = clock()
            what = "died"
            try:
                await self._run_once()
                self.waiting = "its process died; see the node's log"
            except OSError as error:
                # No descriptor, process or memory for it now; the other workers and the agent go on.
                what = f"could not be started ({shortage(error) or error})"
                self.waiting, self.waiting_code = f"not started: {shortage(error) or error}", Code.WORKER_NOT_READY
            if self._stop.is_set():
                return
            if clock() - started > STABLE_AFTER_S:
                backoff.succeeded()
            delay = backoff.next_s()
            _log.error("worker %d %s and is started again in %.1f s", self.index, what, delay)
            try:
                async with asyncio.timeout(delay):
                    await self._stop.wait()
            except TimeoutError:
                pass

    async def _run_once(self) -> None:
        child = await self._next_child()
        try:
            reader, writer = await asyncio.open_connection(sock=child.socket, limit=LINE_BYTES_MAX)
        except BaseException:
            child.socket.close()
            raise
        self._process = child.process
        self.pid = self._process.pid
        self.waiting, self.waiting_code = "starting", Code.WORKER_NOT_READY
        self._channel = Channel(reader, writer)
        watching = asyncio.create_task(self._watch(self._process), name=f"watch worker {self.index}")
        sparing: asyncio.Task[None] | None = None
        try:
            self._channel.send(self._settings)
            self._on_started(self)
            while (message := await self._channel.receive_as_agent()) is not None:
                self._silent_s = 0
                if isinstance(message, WorkerStats):
                    self.stats = message
                elif isinstance(message, WorkerReady) and sparing is None:
                    sparing = asyncio.create_task(self._prepare_spare(), name=f"spare of worker {self.index}")
                self._on_message(self, message)
        finally:
            watching.cancel()
            if sparing is not None:
                sparing.cancel()
            self._channel.close()
            self._channel = None
            self.ready = False
            self.stats = WorkerStats(0, 0.0, [])
            await self._reap()
            self._on_gone(self)

    async def _next_child(self) -> Child:
        spare = self._spare
        if spare is not None and spare.process.returncode is None:
            self._spare = None
            return spare
        await self._drop_spare()
        return await self._spawn()

    async def _prepare_spare(self) -> None:
        while self._spare is None:
            await asyncio.sleep(self._spare_after_s)
            try:
                self._spare = await self._spawn()
            except OSError as error:
                _log.warning("worker %d has no spare yet: %s", self.index, shortage(error) or error)

    async def _drop_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.socket.close()
            if spare.process.returncode is None:
                spare.process.kill()
            await spare.process.wait()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Kill a process that hangs (stopped, or in an endless loop): its shards then start elsewhere."""
        clock = asyncio.get_running_loop().time
        self._silent_s = SILENT_MAX_S - START_MAX_S
        while True:
            due = clock() + 1.0
            await asyncio.sleep(1.0)
            if clock() - due > WATCH_LATE_S:
                continue
            self._silent_s += 1
            if self._silent_s >= SILENT_MAX_S:
                _log.error("worker %d has been silent for %d s: it hangs and is killed", self.index, SILENT_MAX_S)
                process.kill()
                return

    async def _reap(self) -> None:
        """The channel is closed: the process ends by itself, or is made to. Its sockets must be closed after this."""
        process = self._process
        if process is None:
            return
        try:
            async with asyncio.timeout(10.0 if self._stop.is_set() else 2.0):
                await process.wait()
        except TimeoutError:
            _log.error("worker %d does not end: killed", self.index)
            process.kill()
            await process.wait()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode and not self._stop.is_set():
            name = signal.Signals(-process.returncode).name if process.returncode < 0 else process.returncode
            _log.error("worker %d ended with %s", self.index, name)

    def stop(self) -> None:
        """Ask the process to stop its shards and end; `run` returns when it has."""
        self._stop.set()
        self.send(Shutdown())
