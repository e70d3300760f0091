"""The whole cluster in one answer: what `sandwich --api` shows is made of it."""

import asyncio
from collections.abc import AsyncGenerator

from pydantic import ConfigDict

from sandwich_coordinator.access.roles import Role
from sandwich_coordinator.operations.snapshot_json import encode_snapshot
from sandwich_node.api.models import Model
from sandwich_node.api.routing import Call, Route, Stream

PIECE_BYTES = 64 * 1024
"""A reader has some seconds for each piece: a slow one is not cut off because the cluster is large."""


class WholeCluster(Model):
    """The cluster as stored, for `sandwich` of the same version. `v`: the version of its form."""

    model_config = ConfigDict(extra="allow")

    v: int
    cluster: str
    revision: int


async def _snapshot(call: Call) -> Stream:
    snapshot = await call.cluster.picture.snapshot(call.cluster.view())

    async def chunks() -> AsyncGenerator[bytes, None]:
        # On a thread: 10,000 shards take 80 ms.
        body = await asyncio.to_thread(encode_snapshot, snapshot)
        for begin in range(0, len(body), PIECE_BYTES):
            yield body[begin : begin + PIECE_BYTES]

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
        is_streamed=True,
    ),
)
