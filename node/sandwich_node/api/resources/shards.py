"""The shards: where each one runs and how it is, moving and restarting them, pins, balance."""

from pydantic import Field

from sandwich_coordinator.access.roles import Role
from sandwich_coordinator.operations import shards
from sandwich_coordinator.operations.errors import NotFound
from sandwich_coordinator.ranges import format_ranges
from sandwich_coordinator.view import ClusterView
from sandwich_node.api.changing import changed
from sandwich_node.api.models import DryRun, Model, Outcome, Page, PageQuery
from sandwich_node.api.resources.groups import check_app
from sandwich_node.api.routing import Call, Reply, Route
from sandwich_node.api.shown.shards import (
    AllShardsQuery,
    GroupQuery,
    Move,
    Pin,
    Shard,
    ShardDetails,
    ShardQuery,
    find_shard,
    moves_of,
    pins_page,
    shard_details,
    shards_page,
)

TAG = "shards"
RANGES_MAX = 4096


class MoveRequest(Model):
    """Which shards (`3`, `0-7,12`), and to which node. The pin holds until it is removed."""

    shards: str = Field(min_length=1, max_length=RANGES_MAX)
    node: str = Field(min_length=1, max_length=256)


class ShardsRequest(Model):
    """Which shards (`3`, `0-7,12`)."""

    shards: str = Field(min_length=1, max_length=RANGES_MAX)


class UnpinQuery(Model):
    """Of which shards (`3`, `0-7,12`) the pins are removed."""

    shards: str = Field(min_length=1, max_length=RANGES_MAX)


class Unpinned(Model):
    """The shards, as ranges, and how many pins they had."""

    shards: str
    pins: int


class RebalanceOutcome(Outcome):
    """How a rebalance ended. `written` false: a dry run."""

    written: bool = True
    moves: list[Move] = Field(default_factory=list)


async def _page(call: Call, app: str | None) -> Page[Shard]:
    view = call.cluster.view()
    if app is not None:
        check_app(view, app)
    return shards_page(await call.cluster.picture.snapshot(view), app, call.query, call.identity)


async def _all(call: Call) -> Page[Shard]:
    app = call.query.app
    if app is not None and not call.identity.sees(app):
        raise NotFound("application", app, ())
    return await _page(call, app)


async def _of_app(call: Call) -> Page[Shard]:
    return await _page(call, call.app)


async def _show(call: Call) -> ShardDetails:
    view = call.cluster.view()
    check_app(view, call.app)
    shard = find_shard(view, call.app, call.path["shard"], call.query.group, call.identity)
    return shard_details(await call.cluster.picture.snapshot(view), shard)


async def _move(call: Call) -> Reply:
    parts, body = call.cluster, call.body
    call.changes.after = {"shards": body.shards, "node": body.node}
    call.changes.before = {"nodes": _shards_by_node(parts.view(), call.app, body.shards)}
    return await changed(
        call,
        lambda report: shards.move_shards(
            parts.store, parts.keys, call.app, body.shards, body.node, timeout_s=call.wait_s, report=report
        ),
    )


def _shards_by_node(view: ClusterView, app: str, ranges: str) -> dict[str, str]:
    """Where these shards run now, as ranges by node."""
    found: dict[str, list[int]] = {}
    for shard in shards.find_shards(view, app, ranges):
        if (claim := view.claims.get(shard)) is not None:
            found.setdefault(claim.record.node, []).append(shard.shard)
    return {node: format_ranges(numbers) for node, numbers in sorted(found.items())}


async def _restart(call: Call) -> Reply:
    parts, body = call.cluster, call.body
    call.changes.after = {"restart": body.shards}
    return await changed(
        call,
        lambda report: shards.restart_shards(
            parts.store, parts.keys, call.app, body.shards, timeout_s=call.wait_s, report=report
        ),
    )


async def _pins(call: Call) -> Page[Pin]:
    app = call.path.get("app")
    view = call.cluster.view()
    if app is not None:
        check_app(view, app)
    return pins_page(view, app, call.query, call.identity)


async def _unpin(call: Call) -> Unpinned:
    parts, ranges = call.cluster, call.query.shards
    named = shards.find_shards(parts.view(), call.app, ranges)
    pinned = {shard.shard: entry.record.node for shard, entry in parts.view().pins.items() if shard in named}
    await shards.unpin_shards(parts.store, parts.keys, call.app, ranges, report=call.report)
    call.changes.before = {"pins": {str(number): node for number, node in pinned.items()}}
    return Unpinned(shards=format_ranges(shard.shard for shard in named), pins=len(pinned))


async def _rebalance(call: Call) -> Reply:
    parts = call.cluster
    moves = moves_of(await shards.planned_moves(parts.store, parts.keys, report=call.report))
    if call.query.dry_run:
        return Reply(RebalanceOutcome(reached=not moves, written=False, moves=moves))
    return await changed(
        call,
        lambda report: shards.restore_balance(parts.store, parts.keys, timeout_s=call.wait_s, report=report),
        RebalanceOutcome,
        moves=moves,
    )


ROUTES = (
    Route(
        method="GET",
        path="/shards",
        summary="The shards of all applications",
        role=Role.VIEWER,
        handler=_all,
        is_of_snapshot=True,
        tag=TAG,
        query=AllShardsQuery,
        result=Page[Shard],
        errors=("not-found",),
    ),
    Route(
        method="GET",
        path="/apps/{app}/shards",
        summary="The shards of an application",
        role=Role.VIEWER,
        handler=_of_app,
        is_of_snapshot=True,
        tag=TAG,
        query=ShardQuery,
        result=Page[Shard],
    ),
    Route(
        method="POST",
        path="/apps/{app}/shards/move",
        summary="Pin shards to a node, sessions kept",
        role=Role.OPERATOR,
        handler=_move,
        tag=TAG,
        body=MoveRequest,
        result=Outcome,
        takes_time=True,
    ),
    Route(
        method="POST",
        path="/apps/{app}/shards/restart",
        summary="Let shards reconnect where they are, sessions kept; failed ones are tried again",
        role=Role.OPERATOR,
        handler=_restart,
        tag=TAG,
        body=ShardsRequest,
        result=Outcome,
        takes_time=True,
    ),
    Route(
        method="GET",
        path="/apps/{app}/shards/{shard}",
        summary="One shard, with what happened to it lately",
        role=Role.VIEWER,
        handler=_show,
        tag=TAG,
        query=GroupQuery,
        result=ShardDetails,
    ),
    Route(
        method="GET",
        path="/pins",
        summary="Which shards are pinned to which nodes",
        role=Role.VIEWER,
        handler=_pins,
        tag=TAG,
        query=PageQuery,
        result=Page[Pin],
    ),
    Route(
        method="GET",
        path="/apps/{app}/pins",
        summary="Which shards of an application are pinned to which nodes",
        role=Role.VIEWER,
        handler=_pins,
        tag=TAG,
        query=PageQuery,
        result=Page[Pin],
    ),
    Route(
        method="DELETE",
        path="/apps/{app}/pins",
        summary="Remove the pins of shards: the leader balances them again",
        role=Role.OPERATOR,
        handler=_unpin,
        tag=TAG,
        query=UnpinQuery,
        result=Unpinned,
    ),
    Route(
        method="POST",
        path="/rebalance",
        summary="Remove all pins, and move shards until the balance is restored",
        role=Role.OPERATOR,
        handler=_rebalance,
        tag=TAG,
        query=DryRun,
        result=RebalanceOutcome,
        takes_time=True,
    ),
)
