"""`ClusterAccess` through a node's HTTP API: the same operations, carried out by the node."""

from dataclasses import dataclass

from sandwich_coordinator.cli.cluster_access import ExportedCluster, Kept
from sandwich_coordinator.cli.remote import Api, part
from sandwich_coordinator.operations import pausing
from sandwich_coordinator.operations.progress import (
    AppPaused,
    MovesPlanned,
    Pinned,
    Report,
    RestartRequested,
    Unpinned,
)
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.ranges import parse_ranges
from sandwich_coordinator.rebalance import Move
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.types import NodeState


@dataclass(frozen=True, slots=True)
class ThroughApi:
    """The same operations, carried out by the node that has the API."""

    api: Api

    async def snapshot(self) -> Snapshot:
        return await self.api.snapshot()

    async def export(self, key: ClusterKey | None) -> ExportedCluster:
        found = await self.api.get("/configuration")
        return ExportedCluster(found["file"], found["is_checked"])

    async def change_state(self, node: str, wanted: NodeState, *, report: Report) -> None:
        verb = {"ready": "uncordon", "cordoned": "cordon"}[wanted]
        await self.api.follow("POST", f"/nodes/{part(node)}/{verb}", timeout_s=0, report=report)

    async def drain(self, node: str, *, force: bool, timeout_s: float, report: Report) -> None:
        path = f"/nodes/{part(node)}/drain"
        await self.api.follow("POST", path, {"force": force}, timeout_s=timeout_s, report=report)

    async def forget(self, node: str) -> None:
        await self.api.send("DELETE", f"/nodes/{part(node)}")

    async def move_shards(self, app: str, ranges: str, node: str, *, timeout_s: float, report: Report) -> list[int]:
        kept, body = Kept(report), {"shards": ranges, "node": node}
        await self.api.follow("POST", f"/apps/{part(app)}/shards/move", body, timeout_s=timeout_s, report=kept)
        return [shard for event in kept.events if isinstance(event, Pinned) for shard in event.shards]

    async def unpin_shards(self, app: str, ranges: str, *, report: Report) -> list[int]:
        found = await self.api.send("DELETE", f"/apps/{part(app)}/pins", query={"shards": ranges})
        unpinned = Unpinned(app, tuple(parse_ranges(found["shards"])), found["pins"])
        report(unpinned)
        return list(unpinned.shards)

    async def restart_shards(self, app: str, ranges: str, *, timeout_s: float, report: Report) -> list[int]:
        kept, path = Kept(report), f"/apps/{part(app)}/shards/restart"
        await self.api.follow("POST", path, {"shards": ranges}, timeout_s=timeout_s, report=kept)
        return [shard for event in kept.events if isinstance(event, RestartRequested) for shard in event.shards]

    async def planned_moves(self, *, report: Report) -> list[Move]:
        return await self._rebalance(0, report, dry_run=True)

    async def restore_balance(self, *, timeout_s: float, report: Report) -> list[Move]:
        return await self._rebalance(timeout_s, report, dry_run=False)

    async def _rebalance(self, timeout_s: float, report: Report, *, dry_run: bool) -> list[Move]:
        kept = Kept(report)
        await self.api.follow("POST", "/rebalance", timeout_s=timeout_s, report=kept, dry_run=dry_run)
        planned = [event.moves for event in kept.events if isinstance(event, MovesPlanned)]
        return list(planned[0]) if planned else []

    async def pause_app(self, app: str, *, now: float, timeout_s: float, report: Report) -> float:
        kept = Kept(report)
        await self.api.follow("POST", f"/apps/{part(app)}/pause", timeout_s=timeout_s, report=kept)
        return next((event.since for event in kept.events if isinstance(event, AppPaused)), now)

    async def resume_app(self, app: str, *, now: float, timeout_s: float, report: Report) -> pausing.ResumedShards:
        path = f"/apps/{part(app)}/resume"
        found = await self.api.follow("POST", path, timeout_s=timeout_s, report=report)
        return pausing.ResumedShards(found["resumed"], found["identified"])
