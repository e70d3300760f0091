"""What the API shows of shards: where each one runs and how it is, what happened to it, pins, and planned moves."""

from collections.abc import Iterable, Iterator, Mapping

import msgspec
from pydantic import Field

from sandwich_coordinator.access.roles import Identity
from sandwich_coordinator.groups import serving_groups, shard_ids
from sandwich_coordinator.ids import GroupId, ShardId
from sandwich_coordinator.operations.errors import NotFound
from sandwich_coordinator.operations.rows import pin_rows
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.ranges import format_ranges
from sandwich_coordinator.rebalance import Move as PlannedMove
from sandwich_coordinator.status import NodeStatus, ShardStatus
from sandwich_coordinator.view import ClusterView
from sandwich_node.api.models import Model, Page, PageQuery
from sandwich_node.api.paging import page_of
from sandwich_node.api.shown.overview import Loss

UNCLAIMED = "unclaimed"
"""State of a shard that no node runs."""
_Figures = Mapping[tuple[str, str, int, int], ShardStatus]


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


class Pin(Model):
    """An operator wants this shard on `node`. `unmet`: why that cannot be followed now; null: it is followed."""

    app: str
    group: int
    shard: int
    node: str
    at: float
    unmet: str | None


class Move(Model):
    """One shard that is to move. `source` null: it runs nowhere."""

    app: str
    group: int
    shard: int
    source: str | None
    target: str
    reason: str


def _figures(snapshot: Snapshot) -> _Figures:
    """What each node says of its shards, by node and shard."""
    return {
        (name, shard.app, shard.group, shard.shard): shard
        for name, answer in snapshot.answers.items()
        if isinstance(answer, NodeStatus)
        for shard in answer.shards
    }


def _known(view: ClusterView, identity: Identity, app: str | None, group: int | None) -> Iterator[ShardId]:
    """The shards that are to run or do run, in order."""
    found: set[ShardId] = set()
    for key, entry in view.groups.items():
        if app in (None, key.app) and group in (None, key.group) and identity.sees(key.app):
            found.update(ShardId(*key, number) for number in shard_ids(entry.record))
    # Of a group that is gone, shards may still be closing.
    for shard in view.claims:
        if app in (None, shard.app) and group in (None, shard.group) and identity.sees(shard.app):
            found.add(shard)
    yield from sorted(found)


def _state(view: ClusterView, shard: ShardId, figures: _Figures) -> str:
    claim = view.claims.get(shard)
    if claim is None:
        return UNCLAIMED
    known = figures.get((claim.record.node, *shard))
    return known.state if known is not None else claim.record.state


def _model(view: ClusterView, shard: ShardId, serving: Mapping[str, GroupId], figures: _Figures) -> Shard:
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


def shards_page(snapshot: Snapshot, app: str | None, query: ShardQuery, identity: Identity) -> Page[Shard]:
    """The shards that are asked for and that the identity may see; of one application or (None) of all."""
    view = snapshot.view
    figures, serving = _figures(snapshot), serving_groups(view)

    def wanted(shard: ShardId) -> bool:
        claim = view.claims.get(shard)
        node = claim.record.node if claim is not None else None
        return query.node in (None, node) and query.state in (None, _state(view, shard, figures))

    found = [shard for shard in _known(view, identity, app, query.group) if wanted(shard)]
    return page_of(found, query, shard_key, lambda shard: _model(view, shard, serving, figures))


def find_shard(view: ClusterView, app: str, number: str, group: int | None, identity: Identity) -> ShardId:
    """The shard with this number; `group` None: of the group that serves. Raises NotFound, which says what there is."""
    served = serving_groups(view).get(app)
    if group is None:
        group = served.group if served is not None else 0
    shard = ShardId(app, group, int(number) if number.isascii() and number.isdecimal() and len(number) <= 9 else -1)
    there = [one.shard for one in _known(view, identity, app, group)]
    if shard.shard not in there:
        none = f"{app} has no shard {number[:16]} in group {group}; it has {format_ranges(there) or 'none'}"
        raise NotFound("shard", number, (), none)
    return shard


def shard_details(snapshot: Snapshot, shard: ShardId) -> ShardDetails:
    """The shard, with what the nodes that answer remember of it."""
    answers = [answer for answer in snapshot.answers.values() if isinstance(answer, NodeStatus)]
    of_it = shard.app, shard.shard
    failovers = [one for answer in answers for one in answer.failovers if (one.app, one.shard) == of_it]
    losses = [one for answer in answers for one in answer.losses if (one.app, one.shard) == of_it]
    return ShardDetails(
        shard=_model(snapshot.view, shard, serving_groups(snapshot.view), _figures(snapshot)),
        failovers=[
            ShardFailover.model_validate(msgspec.structs.asdict(one))
            for one in sorted(failovers, key=lambda one: -one.at)
        ],
        losses=[Loss.model_validate(msgspec.structs.asdict(one)) for one in sorted(losses, key=lambda one: -one.at)],
    )


def pins_page(view: ClusterView, app: str | None, query: PageQuery, identity: Identity) -> Page[Pin]:
    """The pins that the identity may see; of one application or (None) of all."""
    found = [row for row in pin_rows(view, app) if identity.sees(row["app"])]
    return page_of(
        found, query, lambda row: shard_key(ShardId(row["app"], row["group"], row["shard"])), Pin.model_validate
    )


def moves_of(planned: Iterable[PlannedMove]) -> list[Move]:
    """What a rebalance would move."""
    return [
        Move(
            app=one.shard.app,
            group=one.shard.group,
            shard=one.shard.shard,
            source=one.source or None,
            target=one.target,
            reason=one.reason,
        )
        for one in planned
    ]
