"""The shards: where each one runs and how it is, moving and restarting them, pins, balance."""

from collections.abc import Iterator, Mapping

import msgspec
from pydantic import Field

from sandwich_coordinator.access.roles import Role
from sandwich_coordinator.groups import serving_groups, shard_ids
from sandwich_coordinator.ids import GroupId, ShardId
from sandwich_coordinator.operations import shards
from sandwich_coordinator.operations.errors import NotFound
from sandwich_coordinator.operations.rows import move_row, pin_rows
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.ranges import format_ranges
from sandwich_coordinator.status import NodeStatus, ShardStatus
from sandwich_coordinator.view import ClusterView
from sandwich_node.api.changing import changed
from sandwich_node.api.models import DryRun, Model, Outcome, Page, PageQuery
from sandwich_node.api.paging import page_of
from sandwich_node.api.resources.groups import check_app
from sandwich_node.api.resources.overview import Loss
from sandwich_node.api.routing import Call, Reply, Route

TAG = "shards"
UNCLAIMED = "unclaimed"
"""State of a shard that no node runs."""
RANGES_MAX = 4096


class Shard(Model):
    """One shard of one shard group.

    state      as its node says; `unclaimed`: no node runs it
    serves     whether its group's events are those that consumers get
    since      Unix seconds: in this state; null where it is not known
    pinned_to  where an operator wants it; null: not pinned
    cache      what its cache lacks, "" when it has everything or there is none
    figures    null where its node does not answer: latency_ms, guilds, events_per_s
    """

    app: str
    group: int
    shard: int
    serves: bool
    state: str
    reason: str
    node: str | None
    worker: int | None
    since: float | None
    pinned_to: str | None
    close_code: int | None
    latency_ms: float | None
    guilds: int | None
    events_per_s: float | None
    cache: str


class ShardFailover(Model):
    """The shard was lost at `source` and came back on `node`. `how`: resumed or identified. Times: Unix seconds."""

    at: float
    app: str
    group: int
    shard: int
    source: str
    node: str
    cause: str
    how: str
    replayed: int
    took_s: float
    silent_s: float | None


class ShardDetails(Model):
    """A shard with what happened to it lately, newest first, as far as its nodes remember."""

    shard: Shard
    failovers: list[ShardFailover]
    losses: list[Loss]


class ShardQuery(PageQuery):
    """Which shards."""

    node: str | None = Field(default=None, max_length=256)
    state: str | None = Field(default=None, max_length=32)
    group: int | None = Field(default=None, ge=0, le=2**31)


class AllShardsQuery(ShardQuery):
    """Which shards, also of which application."""

    app: str | None = Field(default=None, max_length=64)


class GroupQuery(Model):
    """Which shard group; null: the one that serves."""

    group: int | None = Field(default=None, ge=0, le=2**31)


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


class Pin(Model):
    """An operator wants this shard on `node`. `unmet`: why that cannot be followed now; null: it is followed."""

    app: str
    group: int
    shard: int
    node: str
    at: float
    unmet: str | None


class Unpinned(Model):
    """The shards, as ranges, and how many pins they had."""

    shards: str
    pins: int


class Move(Model):
    """One shard that is to move. `source` null: it runs nowhere."""

    app: str
    group: int
    shard: int
    source: str | None
    target: str
    reason: str


class RebalanceOutcome(Outcome):
    """How a rebalance ended. `written` false: a dry run."""

    written: bool = True
    moves: list[Move] = Field(default_factory=list)


def _figures(snapshot: Snapshot) -> Mapping[tuple[str, str, int, int], ShardStatus]:
    """What each node says of its shards, by node and shard."""
    return {
        (name, shard.app, shard.group, shard.shard): shard
        for name, answer in snapshot.answers.items()
        if isinstance(answer, NodeStatus)
        for shard in answer.shards
    }


def _known(view: ClusterView, call: Call, app: str | None, group: int | None) -> Iterator[ShardId]:
    """The shards that are to run or do run, in order."""
    found: set[ShardId] = set()
    for key, entry in view.groups.items():
        if app in (None, key.app) and group in (None, key.group) and call.identity.sees(key.app):
            found.update(ShardId(*key, number) for number in shard_ids(entry.record))
    # Of a group that is gone, shards may still be closing.
    for shard in view.claims:
        if app in (None, shard.app) and group in (None, shard.group) and call.identity.sees(shard.app):
            found.add(shard)
    yield from sorted(found)


def _state(view: ClusterView, shard: ShardId, figures: Mapping[tuple[str, str, int, int], ShardStatus]) -> str:
    claim = view.claims.get(shard)
    if claim is None:
        return UNCLAIMED
    known = figures.get((claim.record.node, *shard))
    return known.state if known is not None else claim.record.state


def _model(
    view: ClusterView,
    shard: ShardId,
    serving: Mapping[str, GroupId],
    figures: Mapping[tuple[str, str, int, int], ShardStatus],
) -> Shard:
    claim, pin = view.claims.get(shard), view.pins.get(shard)
    record = claim.record if claim is not None else None
    known = figures.get((record.node, *shard)) if record is not None else None
    since = (known.since if known is not None else 0.0) or (record.since if record is not None else 0.0)
    return Shard(
        app=shard.app,
        group=shard.group,
        shard=shard.shard,
        serves=serving.get(shard.app) == shard.of,
        state=_state(view, shard, figures),
        reason=(known.reason if known is not None else "") or (record.reason if record is not None else ""),
        node=record.node if record is not None else None,
        worker=record.worker if record is not None else None,
        since=since or None,
        pinned_to=pin.record.node if pin is not None else None,
        close_code=(record.close_code or None) if record is not None else None,
        latency_ms=known.latency_ms if known is not None else None,
        guilds=known.guilds if known is not None else None,
        events_per_s=round(known.events_per_s, 1) if known is not None else None,
        cache=known.cache if known is not None else "",
    )


def shard_key(shard: ShardId) -> str:
    """Sorts as text in the order of shards."""
    return f"{shard.app}/{shard.group:010}/{shard.shard:010}"


async def _page(call: Call, app: str | None) -> Page[Shard]:
    query: ShardQuery = call.query
    view = call.cluster.view()
    if app is not None:
        check_app(view, app)
    snapshot = await call.cluster.picture.snapshot(view)
    figures, serving = _figures(snapshot), serving_groups(view)

    def wanted(shard: ShardId) -> bool:
        claim = view.claims.get(shard)
        node = claim.record.node if claim is not None else None
        return query.node in (None, node) and query.state in (None, _state(view, shard, figures))

    found = [shard for shard in _known(view, call, app, query.group) if wanted(shard)]
    return page_of(found, query, shard_key, lambda shard: _model(view, shard, serving, figures))


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
    serving = serving_groups(view)
    served = serving.get(call.app)
    group = call.query.group if call.query.group is not None else served.group if served is not None else 0
    text = call.path["shard"]
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else -1
    shard = ShardId(call.app, group, number)
    if shard not in set(_known(view, call, call.app, group)):
        there = [one.shard for one in _known(view, call, call.app, group)]
        none = f"{call.app} has no shard {text[:16]} in group {group}; it has {format_ranges(there) or 'none'}"
        raise NotFound("shard", text, (), none)
    snapshot = await call.cluster.picture.snapshot(view)
    answers = [answer for answer in snapshot.answers.values() if isinstance(answer, NodeStatus)]
    failovers = [one for answer in answers for one in answer.failovers if (one.app, one.shard) == (call.app, number)]
    losses = [one for answer in answers for one in answer.losses if (one.app, one.shard) == (call.app, number)]
    return ShardDetails(
        shard=_model(view, shard, serving, _figures(snapshot)),
        failovers=[
            ShardFailover.model_validate(msgspec.structs.asdict(one))
            for one in sorted(failovers, key=lambda one: -one.at)
        ],
        losses=[Loss.model_validate(msgspec.structs.asdict(one)) for one in sorted(losses, key=lambda one: -one.at)],
    )


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
    found = [row for row in pin_rows(view, app) if call.identity.sees(row["app"])]
    return page_of(
        found,
        call.query,
        lambda row: shard_key(ShardId(row["app"], row["group"], row["shard"])),
        Pin.model_validate,
    )


async def _unpin(call: Call) -> Unpinned:
    parts, ranges = call.cluster, call.query.shards
    named = shards.find_shards(parts.view(), call.app, ranges)
    pinned = {shard.shard: entry.record.node for shard, entry in parts.view().pins.items() if shard in named}
    await shards.unpin_shards(parts.store, parts.keys, call.app, ranges, report=call.report)
    call.changes.before = {"pins": {str(number): node for number, node in pinned.items()}}
    return Unpinned(shards=format_ranges(shard.shard for shard in named), pins=len(pinned))


async def _rebalance(call: Call) -> Reply:
    parts = call.cluster
    planned = await shards.planned_moves(parts.store, parts.keys, report=call.report)
    moves = [
        Move(
            app=row["app"],
            group=row["group"],
            shard=row["shard"],
            source=row["from"],
            target=row["to"],
            reason=row["reason"],
        )
        for row in map(move_row, planned)
    ]
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
