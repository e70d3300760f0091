"""The node's workers: one slot for each, and what all of them are kept informed of."""

from collections.abc import Callable, Iterable

from sandwich_coordinator.view import ClusterView
from sandwich_node import ipc
from sandwich_node.agent.dependencies import MakeWorker, Worker
from sandwich_node.agent.worker_settings import app_infos


class WorkerSet:
    """Empty until `fill`. Each worker knows the node's lease and the applications, also one that is started later."""

    def __init__(self) -> None:
        self.slots: dict[int, Worker] = {}
        self._lease: int | None = None
        self._apps: dict[str, ipc.AppInfo] = {}

    def fill(
        self,
        make: MakeWorker,
        settings: Iterable[ipc.WorkerSettings],
        *,
        on_message: Callable[[Worker, ipc.ToAgent], None],
        on_started: Callable[[], None],
        on_gone: Callable[[Worker], None],
    ) -> None:
        """Make the slots; a slot runs nothing before its `run`. The callbacks must not wait."""

        def started(worker: Worker) -> None:
            worker.send(ipc.LeaseHeld(self._lease))
            worker.send(ipc.AppsChanged(self._apps))
            on_started()

        for each in settings:
            self.slots[each.worker] = make(each, on_message=on_message, on_started=started, on_gone=on_gone)

    def ready_worker(self) -> Worker | None:
        """A worker that is connected to NATS; None while there is none."""
        return next((worker for worker in self.slots.values() if worker.ready), None)

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

    def _send_all(self, message: ipc.ToWorker) -> None:
        for worker in self.slots.values():
            worker.send(message)

    def stop(self) -> None:
        """Ask every worker to stop its shards and end."""
        for worker in self.slots.values():
            worker.stop()

    async def ended(self) -> None:
        """Wait until every worker has ended."""
        for worker in self.slots.values():
            await worker.ended.wait()
