"""What the API shows of the cluster as a whole: its figures, problems, session starts, and what happened lately."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from operator import itemgetter
from statistics import median_high
from typing import Any, Literal

import msgspec
from pydantic import Field

from sandwich_coordinator.access.roles import Identity
from sandwich_coordinator.operations.rows import failover_rows, is_about, loss_rows
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.problems import Problem as FoundProblem
from sandwich_coordinator.problems import Severity, degraded
from sandwich_coordinator.start_progress import start_progress
from sandwich_coordinator.status import NodeStatus
from sandwich_node.api.models import Model, Page, PageQuery
from sandwich_node.api.paging import page_of

_ORDER = list(Severity)
_LATEST_MS = 10**14 - 1
"""Later than any time in milliseconds."""


class Latency(Model):
    """Of the shards that have measured one: the median, and the worst with its shard. Milliseconds."""

    median_ms: float
    worst_ms: float
    app: str
    group: int
    shard: int


class Cluster(Model):
    """The cluster in figures. An identity that is limited to applications gets the figures of these.

    `healthy`: no problem is critical or a warning. `problems`: how many there are, by severity. `revision`: of what is
    stored. `nodes`, `nodes_answering`, `leader`, `versions`: null or empty for an identity that is limited. `latency`:
    between a heartbeat and Discord's answer; null while no shard has one.
    """

    cluster: str
    healthy: bool
    problems: dict[str, int]
    revision: int
    now: float
    leader: str | None
    nodes: int | None
    nodes_answering: int | None
    versions: list[str]
    etcd_version: str
    apps: int
    shards_wanted: int
    shards_live: int
    guilds: int
    events_per_s: float
    latency: Latency | None


class Problem(Model):
    """One thing that is wrong (docs/reference/problems.md). `since`: Unix seconds; null where that is not known."""

    code: str
    severity: str
    subject: str
    summary: str
    advice: str
    since: float | None
    nodes: list[str]


class ProblemQuery(PageQuery):
    """Which problems."""

    severity: Literal["critical", "warning", "notice"] | None = None
    code: str | None = Field(default=None, max_length=64)
    app: str | None = Field(default=None, max_length=64, description="Only problems of this application.")
    node: str | None = Field(default=None, max_length=256, description="Of this node, or reported by it.")


class Start(Model):
    """How far the start of a shard group is.

    wanted, started, failed   shards of the group: all, those with a session, those that Discord refused for good
    waiting                   those without a session yet
    per_minute                session starts that Discord allows for the shards that wait
    eta_s                     seconds until the last one has its session; null while that is not known
    starts_left               session starts that this group may use until the reset; null when that is not known
    blocked_until             Unix seconds: there are too few session starts for all that wait; null: there are enough
    """

    app: str
    group: int
    wanted: int
    started: int
    failed: int
    waiting: int
    per_minute: float
    eta_s: float | None
    starts_left: int | None
    blocked_until: float | None


class Budget(Model):
    """The session starts of one bot. `reserve` of them are kept for failover; `fetched_at`, `reset_at`: Unix seconds.

    `error`: why Discord refused the token; "" when it did not.
    """

    apps: list[str]
    bot_id: str
    bot_name: str
    remaining: int
    total: int
    reserve: int
    reset_at: float
    max_concurrency: int
    recommended_shards: int
    fetched_at: float
    error: str
    starts: list[Start]


class Failover(Model):
    """Shards that were lost at one place (`source`) and are back. `shards`: ranges; `silent_s`: without any frame."""

    at: float
    app: str
    group: int
    shards: str
    count: int
    cause: str
    source: str
    nodes: list[str]
    resumed: int
    identified: int
    replayed: int
    took_s: float
    silent_s: float | None


class Loss(Model):
    """A session (its public name) that could not be resumed: what Discord sent after `last_seq` is lost."""

    at: float
    app: str
    group: int
    shard: int
    node: str
    session: str
    last_seq: int
    reason: str


class Recent(Model):
    """What the nodes remember of failovers, newest first. A node forgets it when it restarts.

    A page of both lists together: it has at most `limit` items, and the next page goes on in time.
    """

    failovers: list[Failover]
    losses: list[Loss]
    next: str | None = None


class RecentQuery(PageQuery):
    """Of which application, and of which kind; null: of all."""

    app: str | None = Field(default=None, max_length=64)
    kind: Literal["failovers", "losses"] | None = None


def seen_problems(found: Sequence[FoundProblem], identity: Identity) -> Sequence[FoundProblem]:
    """The problems that an identity may see, worst first: all, or those of its applications."""
    if identity.apps is None:
        return found
    return [one for one in found if any(is_about(one, app) for app in identity.apps)]


def problem_model(found: FoundProblem) -> Problem:
    """As the API shows it."""
    return Problem.model_validate(msgspec.to_builtins(found))


def cluster_figures(
    snapshot: Snapshot, problems: Sequence[FoundProblem], app_rows: Sequence[Mapping[str, Any]], identity: Identity
) -> Cluster:
    """The cluster in figures, of what the identity may see. `problems`, `app_rows`: all of the snapshot's."""
    view = snapshot.view
    found = seen_problems(problems, identity)
    apps = [row for row in app_rows if identity.sees(row["app"])]
    whole = identity.apps is None
    answering = sum(isinstance(answer, NodeStatus) for answer in snapshot.answers.values())
    return Cluster(
        cluster=snapshot.cluster,
        healthy=not degraded(found),
        problems={severity.value: sum(one.severity is severity for one in found) for severity in Severity},
        revision=view.revision,
        now=snapshot.now,
        leader=view.leader.record.node if whole and view.leader is not None else None,
        nodes=len(view.nodes) if whole else None,
        nodes_answering=answering if whole else None,
        versions=sorted({entry.record.version for entry in view.nodes.values()}) if whole else [],
        etcd_version=snapshot.etcd_version if whole else "",
        apps=len(apps),
        shards_wanted=sum(row["shards_wanted"] for row in apps),
        shards_live=sum(row["shards"].get("live", 0) for row in apps),
        guilds=sum(row["guilds"] for row in apps),
        events_per_s=round(sum(row["events_per_s"] for row in apps), 1),
        latency=_latency(snapshot, identity),
    )


def _latency(snapshot: Snapshot, identity: Identity) -> Latency | None:
    found = [
        (shard.latency_ms, shard.app, shard.group, shard.shard)
        for answer in snapshot.answers.values()
        if isinstance(answer, NodeStatus)
        for shard in answer.shards
        if shard.latency_ms is not None and identity.sees(shard.app)
    ]
    if not found:
        return None
    worst, app, group, number = max(found)
    median = median_high([latency for latency, *_ in found])
    return Latency(median_ms=median, worst_ms=worst, app=app, group=group, shard=number)


def problems_page(problems: Sequence[FoundProblem], query: ProblemQuery, identity: Identity) -> Page[Problem]:
    """The problems that are asked for and that the identity may see, worst first."""
    found = [one for one in seen_problems(problems, identity) if _matches(one, query)]
    return page_of(sorted(found, key=_problem_key), query, _problem_key, problem_model)


def _matches(found: FoundProblem, query: ProblemQuery) -> bool:
    node = query.node
    return (
        query.severity in (None, found.severity.value)
        and query.code in (None, found.code.value)
        and (query.app is None or is_about(found, query.app))
        and (node is None or found.subject == f"node/{node}" or node in found.nodes)
    )


def _problem_key(found: FoundProblem) -> str:
    """Worst first. Its text, which is long and can change, is in it as a digest."""
    digest = hashlib.sha256(f"{found.subject}\n{found.summary}".encode()).hexdigest()[:16]
    return f"{_ORDER.index(found.severity)}-{found.code}-{digest}"


def budgets_page(snapshot: Snapshot, query: PageQuery, identity: Identity) -> Page[Budget]:
    """The session starts of each bot, by the first of its applications that the identity may see."""
    view, policy = snapshot.view, snapshot.policy
    apps: dict[str, list[str]] = {}
    for name, entry in sorted(view.apps.items()):
        if identity.sees(name) and entry.record.token_hash in view.budgets:
            apps.setdefault(entry.record.token_hash, []).append(name)
    starts = start_progress(view, policy, snapshot.now)

    def model(token_hash: str) -> Budget:
        record, names = view.budgets[token_hash].record, apps[token_hash]
        return Budget(
            apps=names,
            bot_id=record.bot_id,
            bot_name=record.bot_name,
            remaining=record.remaining,
            total=record.total,
            reserve=policy.reserve_of(record.total),
            reset_at=record.reset_at,
            max_concurrency=record.max_concurrency,
            recommended_shards=record.shards,
            fetched_at=record.fetched_at,
            error=record.error,
            starts=[Start.model_validate(asdict(one)) for one in starts if one.app in names],
        )

    ordered = sorted(apps, key=lambda token_hash: apps[token_hash][0])
    return page_of(ordered, query, lambda token_hash: apps[token_hash][0], model)


def recent_page(answers: Sequence[NodeStatus | str], query: RecentQuery, identity: Identity) -> Recent:
    """What the nodes that answer remember, newest first, of what is asked for and the identity may see."""
    app, kind = query.app, query.kind

    def wanted(name: str) -> bool:
        return identity.sees(name) and app in (None, name)

    kinds: tuple[tuple[str, type[Failover | Loss], list[dict[str, Any]]], ...] = (
        ("failovers", Failover, failover_rows(answers)),
        ("losses", Loss, loss_rows(answers)),
    )
    rows = [(model, row) for name, model, rows in kinds if kind in (None, name) for row in rows if wanted(row["app"])]
    found = [(_recent_key(row), model, row) for model, row in rows]
    found.sort(key=itemgetter(0))
    page = page_of(found, query, itemgetter(0), lambda one: one[1].model_validate(one[2]))
    return Recent(
        failovers=[one for one in page.items if isinstance(one, Failover)],
        losses=[one for one in page.items if isinstance(one, Loss)],
        next=page.next,
    )


def _recent_key(row: Mapping[str, Any]) -> str:
    """Newest first: what is new moves nothing on later pages.

    A failover that further shards join later keeps its key. One whose first shard's node answers no longer does not.
    """
    names = ("app", "group", "shard", "source", "cause")
    digest = hashlib.sha256("\n".join(str(row.get(name)) for name in names).encode()).hexdigest()[:16]
    return f"{_LATEST_MS - round(row['at'] * 1000):014}-{digest}"
