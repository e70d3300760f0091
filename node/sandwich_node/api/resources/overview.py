"""The cluster as a whole: how it is, its problems, its session starts, what happened lately."""

from sandwich_coordinator.access.roles import Role
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_node.api.models import Page, PageQuery
from sandwich_node.api.routing import Call, Route
from sandwich_node.api.shown.overview import (
    Budget,
    Cluster,
    Problem,
    ProblemQuery,
    Recent,
    RecentQuery,
    budgets_page,
    cluster_figures,
    problems_page,
    recent_page,
)

TAG = "cluster"


async def _snapshot(call: Call) -> Snapshot:
    return await call.cluster.picture.snapshot(call.cluster.view())


async def _cluster(call: Call) -> Cluster:
    snapshot, findings = await _snapshot(call), call.cluster.findings
    return cluster_figures(snapshot, findings.problems(snapshot), findings.apps(snapshot), call.identity)


async def _problems(call: Call) -> Page[Problem]:
    return problems_page(call.cluster.findings.problems(await _snapshot(call)), call.query, call.identity)


async def _budgets(call: Call) -> Page[Budget]:
    return budgets_page(await _snapshot(call), call.query, call.identity)


async def _recent(call: Call) -> Recent:
    return recent_page(list((await _snapshot(call)).answers.values()), call.query, call.identity)


ROUTES = (
    Route(
        method="GET",
        path="/cluster",
        summary="The cluster in figures",
        role=Role.VIEWER,
        handler=_cluster,
        is_of_snapshot=True,
        tag=TAG,
        result=Cluster,
    ),
    Route(
        method="GET",
        path="/problems",
        summary="What is wrong, worst first, each with what to do",
        role=Role.VIEWER,
        handler=_problems,
        is_of_snapshot=True,
        tag=TAG,
        query=ProblemQuery,
        result=Page[Problem],
    ),
    Route(
        method="GET",
        path="/budgets",
        summary="The session starts of each bot",
        role=Role.VIEWER,
        handler=_budgets,
        is_of_snapshot=True,
        tag=TAG,
        query=PageQuery,
        result=Page[Budget],
    ),
    Route(
        method="GET",
        path="/recent",
        summary="Failovers, and sessions that could not be resumed",
        role=Role.VIEWER,
        handler=_recent,
        is_of_snapshot=True,
        tag=TAG,
        query=RecentQuery,
        result=Recent,
    ),
)
