"""The nodes: how they are, and cordon, uncordon, drain, forget."""

from sandwich_coordinator.access.roles import Role
from sandwich_coordinator.operations import nodes
from sandwich_coordinator.operations.errors import NotFound
from sandwich_coordinator.operations.progress import Report
from sandwich_coordinator.types import NodeState
from sandwich_node.api.changing import changed
from sandwich_node.api.models import Empty, Model, Outcome, Page, PageQuery
from sandwich_node.api.paging import page_of
from sandwich_node.api.routing import Call, Reply, Route
from sandwich_node.api.shown.nodes import Node, node_shown

TAG = "nodes"


class DrainRequest(Model):
    """`force`: also when no other node could take its shards."""

    force: bool = False


async def _list(call: Call) -> Page[Node]:
    view = call.cluster.view()
    snapshot = await call.cluster.picture.snapshot(view)
    return page_of(sorted(view.nodes), call.query, lambda name: name, lambda name: node_shown(snapshot, name))


async def _show(call: Call) -> Node:
    view = call.cluster.view()
    name = call.path["node"]
    if name not in view.nodes:
        raise NotFound("node", name, view.nodes)
    return node_shown(await call.cluster.picture.snapshot(view), name)


async def _set_state(call: Call, wanted: NodeState) -> Reply:
    async def work(report: Report) -> None:
        edit = await nodes.change_state(call.cluster.store, call.cluster.keys, call.path["node"], wanted)
        for note in edit.notes:
            report(note)

    _audit_state(call, wanted)
    return await changed(call, work)


def _audit_state(call: Call, wanted: NodeState) -> None:
    entry = call.cluster.view().nodes.get(call.path["node"])
    call.changes.before = {"state": entry.record.state} if entry is not None else None
    call.changes.after = {"state": wanted}


async def _cordon(call: Call) -> Reply:
    return await _set_state(call, "cordoned")


async def _uncordon(call: Call) -> Reply:
    return await _set_state(call, "ready")


async def _drain(call: Call) -> Reply:
    _audit_state(call, "draining")
    return await changed(
        call,
        lambda report: nodes.drain(
            call.cluster.store,
            call.cluster.keys,
            call.path["node"],
            force=call.body.force,
            timeout_s=call.wait_s,
            report=report,
        ),
    )


async def _forget(call: Call) -> None:
    await nodes.forget(call.cluster.store, call.cluster.keys, call.path["node"])


ROUTES = (
    Route(
        method="GET",
        path="/nodes",
        summary="The nodes with their load",
        role=Role.VIEWER,
        handler=_list,
        is_of_snapshot=True,
        tag=TAG,
        query=PageQuery,
        result=Page[Node],
        cluster_wide=True,
    ),
    Route(
        method="GET",
        path="/nodes/{node}",
        summary="One node",
        role=Role.VIEWER,
        handler=_show,
        is_of_snapshot=True,
        tag=TAG,
        query=Empty,
        result=Node,
        cluster_wide=True,
    ),
    Route(
        method="POST",
        path="/nodes/{node}/cordon",
        summary="Give a node no new shards",
        role=Role.OPERATOR,
        handler=_cordon,
        tag=TAG,
        result=Outcome,
        takes_time=True,
    ),
    Route(
        method="POST",
        path="/nodes/{node}/uncordon",
        summary="Let a node take shards again",
        role=Role.OPERATOR,
        handler=_uncordon,
        tag=TAG,
        result=Outcome,
        takes_time=True,
    ),
    Route(
        method="POST",
        path="/nodes/{node}/drain",
        summary="Move a node's shards to the others, sessions kept",
        role=Role.OPERATOR,
        handler=_drain,
        tag=TAG,
        body=DrainRequest,
        result=Outcome,
        takes_time=True,
    ),
    Route(
        method="DELETE",
        path="/nodes/{node}",
        summary="Stop showing a node that is gone for good",
        role=Role.OPERATOR,
        handler=_forget,
        tag=TAG,
        status=204,
    ),
)
