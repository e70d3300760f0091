"""The cluster's figures of the last hours."""

from pydantic import Field

from sandwich_coordinator.access.roles import Role
from sandwich_coordinator.operations.history import KEPT_S
from sandwich_node.api.models import Model
from sandwich_node.api.problem_details import ApiError
from sandwich_node.api.routing import Call, Route


class HistoryQuery(Model):
    """Which part. `since`: Unix seconds; null: all that is kept, six hours."""

    since: float | None = Field(default=None, ge=0, le=1e11)
    app: str | None = Field(default=None, max_length=64, description="Only this application.")


class AppFigures(Model):
    """An application's figures, one value a point; null where it was not there.

    `latency_ms`: the median of its shards.
    """

    app: str
    events_per_s: list[float | None]
    guilds: list[int | None]
    shards_live: list[int | None]
    shards_wanted: list[int | None]
    latency_ms: list[float | None]


class NodeFigures(Model):
    """A node's figures, one value a point; null where it did not answer. `cpu_percent` is of one core."""

    node: str
    events_per_s: list[float | None]
    shards: list[int | None]
    cpu_percent: list[float | None]
    rss_bytes: list[int | None]


class HistoryFigures(Model):
    """Figures of the last hours, a point a minute. `at`: Unix seconds of each point.

    `critical`, `warnings` (how many problems there were) and `node_figures` are empty for an identity that is limited
    to applications.
    """

    at: list[float]
    critical: list[int]
    warnings: list[int]
    app_figures: list[AppFigures]
    node_figures: list[NodeFigures]
    kept_s: int


async def _history(call: Call) -> HistoryFigures:
    history = call.cluster.history
    if history is None:
        raise ApiError("unavailable", "this node keeps no history")
    since = call.query.since or 0.0
    points = [point for point in await history.points() if point.at >= since]
    by_app = [{one.app: one for one in point.apps} for point in points]
    by_node = [{one.node: one for one in point.nodes} for point in points]
    apps = sorted(
        {app for found in by_app for app in found if call.identity.sees(app) and call.query.app in (None, app)}
    )
    is_whole = call.identity.apps is None
    nodes = sorted({node for found in by_node for node in found}) if is_whole else []

    def of_app(app: str, name: str) -> list[object]:
        return [getattr(found[app], name) if app in found else None for found in by_app]

    def of_node(node: str, name: str) -> list[object]:
        return [getattr(found[node], name) if node in found else None for found in by_node]

    return HistoryFigures(
        at=[point.at for point in points],
        critical=[point.critical for point in points] if is_whole else [],
        warnings=[point.warnings for point in points] if is_whole else [],
        app_figures=[
            AppFigures.model_validate(
                {"app": app} | {name: of_app(app, name) for name in AppFigures.model_fields if name != "app"}
            )
            for app in apps
        ],
        node_figures=[
            NodeFigures.model_validate(
                {"node": node} | {name: of_node(node, name) for name in NodeFigures.model_fields if name != "node"}
            )
            for node in nodes
        ],
        kept_s=KEPT_S,
    )


ROUTES = (
    Route(
        method="GET",
        path="/history",
        summary="Rates and latencies of the last six hours",
        role=Role.VIEWER,
        handler=_history,
        tag="cluster",
        query=HistoryQuery,
        result=HistoryFigures,
        errors=("unavailable",),
    ),
)
