"""What the cluster's figures were in the last hours: one point a minute, kept in etcd for six hours.

The leader's node writes the points, and every node reads them. Each has a lease, so that etcd removes it in time.
"""

import statistics
from collections.abc import Sequence

import msgspec

from sandwich_coordinator.operations.rows import app_rows
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.problems import Problem
from sandwich_coordinator.status import NodeStatus
from sandwich_coordinator.store.base import Compare, Put, Store
from sandwich_coordinator.store.keys import Keys

EVERY_S = 60.0
KEPT_S = 6 * 3600
APPS_MAX = 200
NODES_MAX = 200
"""Of one point: the largest ones. A point of 200 applications and 200 nodes has some 20 kB."""


class AppPoint(msgspec.Struct, frozen=True, array_like=True):
    """An application at one time. `latency_ms`: the median of its shards; None where it is not known."""

    app: str
    events_per_s: float
    guilds: int
    shards_live: int
    shards_wanted: int
    latency_ms: float | None = None


class NodePoint(msgspec.Struct, frozen=True, array_like=True):
    """A node at one time. `cpu_percent` is of one core, of its workers."""

    node: str
    events_per_s: float
    shards: int
    cpu_percent: float
    rss_bytes: int


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster at one time (Unix seconds). `problems`: how many are critical, and how many are warnings."""

    at: float
    apps: list[AppPoint]
    nodes: list[NodePoint]
    critical: int = 0
    warnings: int = 0


def point_of(snapshot: Snapshot, problems: Sequence[Problem]) -> Point:
    """The snapshot's figures. Pure."""
    answers = {name: answer for name, answer in snapshot.answers.items() if isinstance(answer, NodeStatus)}
    latencies: dict[str, list[float]] = {}
    for answer in answers.values():
        for shard in answer.shards:
            if shard.latency_ms is not None:
                latencies.setdefault(shard.app, []).append(shard.latency_ms)
    apps = [
        AppPoint(
            row["app"],
            row["events_per_s"],
            row["guilds"],
            row["shards"].get("live", 0),
            row["shards_wanted"],
            round(statistics.median(latencies[row["app"]]), 1) if row["app"] in latencies else None,
        )
        for row in app_rows(snapshot, problems)
    ]
    nodes = [
        NodePoint(
            name,
            round(sum(app.events_per_s for app in answer.apps.values()), 1),
            len(answer.shards),
            round(sum(worker.cpu_percent for worker in answer.workers), 1),
            sum(worker.rss_bytes for worker in answer.workers),
        )
        for name, answer in sorted(answers.items())
    ]
    severities = [problem.severity.value for problem in problems]
    return Point(
        at=snapshot.now,
        apps=sorted(apps, key=lambda app: (-app.guilds, app.app))[:APPS_MAX],
        nodes=sorted(nodes, key=lambda node: (-node.shards, node.node))[:NODES_MAX],
        critical=severities.count("critical"),
        warnings=severities.count("warning"),
    )


def minute_of(at: float) -> int:
    """Which point a time belongs to."""
    return int(at // EVERY_S)


async def write_point(store: Store, keys: Keys, point: Point) -> bool:
    """Keep a point; False when that of its minute is there already. Raises StoreError."""
    key = keys.history_point(minute_of(point.at))
    if await store.get(key) is not None:
        return False
    lease = await store.grant(KEPT_S)
    written = await store.txn((Compare(key, "mod_revision", 0),), (Put(key, msgspec.json.encode(point), lease),))
    if not written.succeeded:
        await store.revoke(lease)
    return written.succeeded


async def read_points(store: Store, keys: Keys) -> list[Point]:
    """All points, oldest first; what is not one is left out. Raises StoreError."""
    found = []
    for item in (await store.list(keys.history)).items:
        try:
            found.append(msgspec.json.decode(item.value, type=Point))
        except msgspec.MsgspecError:
            continue
    return sorted(found, key=lambda point: point.at)
