"""The shards of one worker: at most one runner for each, and each message to its runner."""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from sandwich_coordinator.ids import ShardId
from sandwich_node import ipc
from sandwich_node.cache.handover_drain import LeftBehind
from sandwich_node.shards.runner import ShardRunner

_log = logging.getLogger(__name__)


class ShardSet:
    """Starts and ends runners. `make` builds one; `send` passes a message to the agent and must not wait.

    An agent that gave a shard up may claim it again before its old runner has ended. The new runner then waits for the
    old one: two runners of one shard in one process would take the session from each other.
    """

    def __init__(
        self,
        group: asyncio.TaskGroup,
        make: Callable[[ipc.StartShard], ShardRunner],
        send: Callable[[ipc.ToAgent], None],
    ) -> None:
        self._group = group
        self._make = make
        self._send = send
        self._running: dict[ShardId, tuple[ShardRunner, asyncio.Task[None]]] = {}
        self._waiting: dict[ShardId, ipc.StartShard] = {}
        self._finishing: set[asyncio.Task[None]] = set()

    @property
    def runners(self) -> list[ShardRunner]:
        """The runners of now."""
        return [runner for runner, _ in self._running.values()]

    def receive(self, message: ipc.ToWorker) -> None:
        """Do what the agent asks. A message about a shard that does not run here is ignored."""
        match message:
            case ipc.StartShard():
                self._start(message)
            case ipc.StopShard(key=key) if key in self._waiting:
                # The old runner is being stopped already.
                waiting = self._waiting.pop(key)
                self._send(ipc.ShardStopped(key, waiting.run, "released", message.reason))
            case ipc.StopShard(key=key, reason=reason) if key in self._running:
                self._running[key][0].stop(reason)
            case ipc.IdentifyGranted(key=key) if key in self._running:
                self._running[key][0].identify_granted()
            case ipc.GatewayMoved(key=key, url=url) if key in self._running:
                self._running[key][0].gateway_moved(url)
            case ipc.SetOptions(key=key, options=options) if key in self._running:
                self._running[key][0].set_options(options)
            case ipc.SetPhase(key=key, phase=phase) if key in self._waiting:
                self._waiting[key] = msgspec.structs.replace(self._waiting[key], phase=phase)
            case ipc.SetPhase(key=key, phase=phase) if key in self._running:
                self._running[key][0].set_phase(phase)
            case ipc.SetPresence(key=key, presence=presence) if key in self._running:
                self._running[key][0].show_presence(presence)
            case _:
                _log.debug("nothing to do for %r", message)

    def _start(self, start: ipc.StartShard) -> None:
        if start.key in self._running:
            _log.warning("shard %s was claimed again while it still ends here; it starts after that", start.key)
            self._waiting[start.key] = start
            self._running[start.key][0].stop("the shard was claimed again")
            return
        runner = self._make(start)
        self._running[start.key] = runner, self._group.create_task(self._run(runner), name=f"shard {start.key}")

    async def _run(self, runner: ShardRunner) -> None:
        """Run it to its end. An error ends the shard, never the worker."""
        key = runner.key
        try:
            stopped = await runner.run()
        except Exception:
            _log.exception("shard %s crashed", key)
            stopped = ipc.ShardStopped(key, runner.number, "crashed", "an internal error; see this worker's log")
        finally:
            del self._running[key]
        if runner.left_behind is not None:
            task = self._group.create_task(self._finish(key, runner.left_behind), name=f"the rest of shard {key}")
            self._finishing.add(task)
            task.add_done_callback(self._finishing.discard)
        self._send(stopped)
        following = self._waiting.pop(key, None)
        if following is not None:
            self._start(following)

    async def _finish(self, key: ShardId, left: LeftBehind) -> None:
        try:
            await left.finish()
        except Exception:
            _log.exception("the rest of shard %s is not in the cache", key)

    async def stop_all(self, reason: str, budget_s: float) -> None:
        """End every shard with its session kept. Those that are not done within `budget_s` are cancelled."""
        self._waiting.clear()
        for runner in self.runners:
            runner.stop(reason)
        end = asyncio.get_running_loop().time() + budget_s
        while tasks := [*(task for _, task in self._running.values()), *self._finishing]:
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                for task in tasks:
                    task.cancel()
                return
            await asyncio.wait(tasks, timeout=left)
