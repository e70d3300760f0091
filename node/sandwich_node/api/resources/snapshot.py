"""The whole cluster in one answer: what `sandwich --api` shows is made of it."""

from collections.abc import AsyncIterator

from pydantic import ConfigDict

from sandwich_coordinator.access.roles import Role
from sandwich_coordinator.operations.snapshot_json import encode_snapshot
from sandwich_node.api.models import Model
from sandwich_node.api.routing import Call, Route, Stream


class WholeCluster(Model):
    """The cluster as stored, for `sandwich` of the same version. `v`: the version of its form."""

    model_config = ConfigDict(extra="allow")

    v: int
    cluster: str
    revision: int


async def _snapshot(call: Call) -> Stream:
    snapshot = await call.cluster.picture.snapshot(call.cluster.view())

    async def chunks() -> AsyncIterator[bytes]:
        yield encode_snapshot(snapshot)

    return Stream(chunks(), "application/json")


ROUTES = (
    Route(
        method="GET",
        path="/snapshot",
        summary="The whole cluster, as the command line reads it",
        description="All records without their secrets, and what every node says of itself. Its form follows the "
        "version of the cluster; programs read the resources instead.",
        role=Role.VIEWER,
        handler=_snapshot,
        tag="cluster",
        result=WholeCluster,
        cluster_wide=True,
    ),
)
