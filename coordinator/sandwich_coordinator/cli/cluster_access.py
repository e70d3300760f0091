"""The cluster as commands use it: directly through etcd, or through a node's HTTP API. Both do and say the same.

Imports little at once: a command waits for all of it. An operation is imported when it is carried out.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sandwich_coordinator.cli.connection import Connection
from sandwich_coordinator.operations.progress import Progress, Report
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import NodeState

if TYPE_CHECKING:
    from sandwich_coordinator.operations.pausing import ResumedShards
    from sandwich_coordinator.operations.snapshot import Snapshot
    from sandwich_coordinator.rebalance import Move
    from sandwich_coordinator.sealing import ClusterKey
    from sandwich_coordinator.store.etcd import EtcdStore


@dataclass(frozen=True, slots=True)
class ExportedCluster:
    """The stored configuration as a cluster file. `is_checked`: see `StoredConfiguration`."""

    file: dict[str, Any]
    is_checked: bool


class ClusterAccess(Protocol):
    """What commands ask of a cluster. The methods raise OperationError; those with etcd StoreError, too."""

    async def snapshot(self) -> "Snapshot":
        """See `take_snapshot`."""

    async def export(self, key: "ClusterKey | None") -> ExportedCluster:
        """The configuration, checked with `key`, or by the API's node with its own. Raises SealingError, too."""

    async def change_state(self, node: str, wanted: NodeState, *, report: Report) -> None:
        """See `nodes.change_state`."""

    async def drain(self, node: str, *, force: bool, timeout_s: float, report: Report) -> None:
        """See `nodes.drain`."""

    async def forget(self, node: str) -> None:
        """See `nodes.forget`."""

    async def move_shards(self, app: str, ranges: str, node: str, *, timeout_s: float, report: Report) -> list[int]:
        """See `shards.move_shards`; the shards' numbers."""

    async def unpin_shards(self, app: str, ranges: str, *, report: Report) -> list[int]:
        """See `shards.unpin_shards`; the shards' numbers."""

    async def restart_shards(self, app: str, ranges: str, *, timeout_s: float, report: Report) -> list[int]:
        """See `shards.restart_shards`; the shards' numbers."""

    async def planned_moves(self, *, report: Report) -> "list[Move]":
        """See `shards.planned_moves`."""

    async def restore_balance(self, *, timeout_s: float, report: Report) -> "list[Move]":
        """See `shards.restore_balance`."""

    async def pause_app(self, app: str, *, now: float, timeout_s: float, report: Report) -> float:
        """See `pausing.pause_app`."""

    async def resume_app(self, app: str, *, now: float, timeout_s: float, report: Report) -> "ResumedShards":
        """See `pausing.resume_app`."""


@asynccontextmanager
async def open_cluster(connection: Connection) -> AsyncIterator[ClusterAccess]:
    """The cluster while the context lasts: through the API when `--api` is given, else through etcd."""
    if connection.api is not None:
        from sandwich_coordinator.cli.cluster_through_api import ThroughApi
        from sandwich_coordinator.cli.remote import open_api

        async with open_api(connection.api) as api:
            yield ThroughApi(api)
        return
    async with connection.store() as store:
        yield ThroughEtcd(store, connection.keys)


@dataclass(frozen=True, slots=True)
class ThroughEtcd:
    """The operations themselves."""

    store: "EtcdStore"
    keys: Keys

    async def snapshot(self) -> "Snapshot":
        from sandwich_coordinator.operations.snapshot import take_snapshot

        return await take_snapshot(self.store, self.keys)

    async def export(self, key: "ClusterKey | None") -> ExportedCluster:
        from sandwich_coordinator.operations.configuration import read_configuration
        from sandwich_coordinator.operations.export import exported_cluster

        stored = await read_configuration(self.store, self.keys, key)
        exported = exported_cluster(self.keys.cluster, stored.settings, stored.apps)
        return ExportedCluster(exported, stored.is_checked)

    async def change_state(self, node: str, wanted: NodeState, *, report: Report) -> None:
        from sandwich_coordinator.operations import nodes

        for note in (await nodes.change_state(self.store, self.keys, node, wanted)).notes:
            report(note)

    async def drain(self, node: str, *, force: bool, timeout_s: float, report: Report) -> None:
        from sandwich_coordinator.operations import nodes

        await nodes.drain(self.store, self.keys, node, force=force, timeout_s=timeout_s, report=report)

    async def forget(self, node: str) -> None:
        from sandwich_coordinator.operations import nodes

        await nodes.forget(self.store, self.keys, node)

    async def move_shards(self, app: str, ranges: str, node: str, *, timeout_s: float, report: Report) -> list[int]:
        from sandwich_coordinator.operations import shards

        moved = await shards.move_shards(self.store, self.keys, app, ranges, node, timeout_s=timeout_s, report=report)
        return [shard.shard for shard in moved]

    async def unpin_shards(self, app: str, ranges: str, *, report: Report) -> list[int]:
        from sandwich_coordinator.operations import shards

        found = await shards.unpin_shards(self.store, self.keys, app, ranges, report=report)
        return [shard.shard for shard in found]

    async def restart_shards(self, app: str, ranges: str, *, timeout_s: float, report: Report) -> list[int]:
        from sandwich_coordinator.operations import shards

        found = await shards.restart_shards(self.store, self.keys, app, ranges, timeout_s=timeout_s, report=report)
        return [shard.shard for shard in found]

    async def planned_moves(self, *, report: Report) -> "list[Move]":
        from sandwich_coordinator.operations import shards

        return await shards.planned_moves(self.store, self.keys, report=report)

    async def restore_balance(self, *, timeout_s: float, report: Report) -> "list[Move]":
        from sandwich_coordinator.operations import shards

        return await shards.restore_balance(self.store, self.keys, timeout_s=timeout_s, report=report)

    async def pause_app(self, app: str, *, now: float, timeout_s: float, report: Report) -> float:
        from sandwich_coordinator.operations import pausing

        return await pausing.pause_app(self.store, self.keys, app, now=now, timeout_s=timeout_s, report=report)

    async def resume_app(self, app: str, *, now: float, timeout_s: float, report: Report) -> "ResumedShards":
        from sandwich_coordinator.operations import pausing

        return await pausing.resume_app(self.store, self.keys, app, now=now, timeout_s=timeout_s, report=report)


class Kept:
    """Passes progress on and keeps it: part of a result is only in it."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.events: list[Progress] = []

    def __call__(self, event: Progress) -> None:
        self.events.append(event)
        self._report(event)
