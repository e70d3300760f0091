"""The node's workers: one slot for each, and what all of them are kept informed of."""

import itertools
from collections.abc import Callable

import msgspec

from sandwich_coordinator.view import ClusterView
from sandwich_node import ipc
from sandwich_node.agent.dependencies import MakeWorker, Worker
from sandwich_node.agent.worker_settings import app_infos


class WorkerSet:
    """Empty until `fill`. Each worker knows the node's lease and the applications, also one that is started later.

    slots      every worker that may have shards, by its number
    retiring   the numbers of those that get no more shards and give up what they have
    candidate  a worker with changed settings, without shards; it becomes a slot once these settings have worked
    """

    def __init__(self) -> None:
        self.slots: dict[int, Worker] = {}
        self.retiring: set[int] = set()
        self.candidate: Worker | None = None
        self.stopping = False
        self._lease: int | None = None
        self._apps: dict[str, ipc.AppInfo] = {}
        self._make: Callable[[ipc.WorkerSettings], Worker]

    def fill(
        self,
        make: MakeWorker,
        settings: ipc.WorkerSettings,
        count: int,
        *,
        on_message: Callable[[Worker, ipc.ToAgent], None],
        on_started: Callable[[], None],
        on_gone: Callable[[Worker], None],
    ) -> None:
        """Make `count` slots, numbered from 0; a slot runs nothing before its `run`. The callbacks must not wait."""

        def started(worker: Worker) -> None:
            worker.send(ipc.LeaseHeld(self._lease))
            worker.send(ipc.AppsChanged(self._apps))
            on_started()

        def received(worker: Worker, message: ipc.ToAgent) -> None:
            if worker is self.slots.get(worker.index, self.candidate):
                on_message(worker, message)

        def gone(worker: Worker) -> None:
            # A candidate that was given up may end after another worker got its number.
            if worker is self.slots.get(worker.index):
                on_gone(worker)

        self._make = lambda each: make(each, on_message=received, on_started=started, on_gone=gone)
        for number in range(count):
            self.slots[number] = self._make(msgspec.structs.replace(settings, worker=number))

    def try_out(self, settings: ipc.WorkerSettings) -> Worker:
        """Make the candidate, with the lowest free number; it runs nothing before its `run`."""
        number = next(number for number in itertools.count() if number not in self.slots)
        self.candidate = self._make(msgspec.structs.replace(settings, worker=number))
        return self.candidate

    def drop_candidate(self) -> None:
        """Its settings are not wanted any more: ask it to end."""
        if self.candidate is not None:
            self.candidate.stop()
            self.candidate = None

    def replace(self, number: int, candidate: Worker) -> None:
        """The candidate becomes a slot, and the worker `number` begins to retire."""
        self.slots[candidate.index] = candidate
        self.candidate = None
        self.retiring.add(number)

    def remove(self, number: int) -> None:
        """A retiring worker has ended."""
        self.retiring.discard(number)
        self.slots.pop(number, None)

    def ready_worker(self) -> Worker | None:
        """A worker that is connected to NATS, rather not a retiring one; None while there is none."""
        ready = [worker for worker in self.slots.values() if worker.ready]
        return min(ready, key=lambda worker: worker.index in self.retiring, default=None)

    def share_apps(self, view: ClusterView) -> None:
        """Send the workers the applications that they answer requests about."""
        apps = app_infos(view)
        if apps != self._apps:
            self._apps = apps
            self._send_all(ipc.AppsChanged(apps))

    def share_lease(self, lease: int | None) -> None:
        """Send the workers the lease that they release if this process dies."""
        if lease != self._lease:
            self._lease = lease
            self._send_all(ipc.LeaseHeld(lease))

    def _all(self) -> list[Worker]:
        return [*self.slots.values(), *([self.candidate] if self.candidate is not None else ())]

    def _send_all(self, message: ipc.ToWorker) -> None:
        for worker in self._all():
            worker.send(message)

    def stop(self) -> None:
        """Ask every worker to stop its shards and end. No further one is made."""
        self.stopping = True
        for worker in self._all():
            worker.stop()

    async def ended(self) -> None:
        """Wait until every worker has ended."""
        for worker in self._all():
            await worker.ended.wait()
