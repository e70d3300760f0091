"""What the node reports about itself: gathered from the agent's own state and the workers' last figures."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sandwich_coordinator.groups import planned_here
from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.problems import Problem, worst_first
from sandwich_coordinator.status import (
    AppStatus,
    CacheStatus,
    FailoverTotal,
    InviteStatus,
    NodeStatus,
    ShardStatus,
    WorkerStatus,
)
from sandwich_coordinator.view import ClusterView
from sandwich_node.agent.consumer_lag import ConsumerLag
from sandwich_node.agent.dependencies import Worker
from sandwich_node.agent.failover_history import History
from sandwich_node.ipc import CacheNumbers, InviteNumbers, ShardNumbers

RATE_WINDOW_S = 5.0


@dataclass(slots=True)
class _Rate:
    """Events a second over the last few seconds, from totals."""

    points: list[tuple[float, int]] = field(default_factory=list)

    def add(self, now: float, total: int) -> None:
        if self.points and total < self.points[-1][1]:
            self.points.clear()
        self.points.append((now, total))
        while len(self.points) > 2 and now - self.points[1][0] >= RATE_WINDOW_S:
            self.points.pop(0)

    def value(self) -> float:
        if len(self.points) < 2:
            return 0.0
        (start, first), (end, last) = self.points[0], self.points[-1]
        return (last - first) / (end - start) if end > start else 0.0


@dataclass(slots=True)
class Figures:
    """Totals that survive a shard's leaving this node or a worker's death, so that counters never go back."""

    _rates: dict[ShardId, _Rate] = field(default_factory=dict)
    _cpu: dict[int, tuple[float, float, float]] = field(default_factory=dict)
    _ended: dict[str, ShardNumbers] = field(default_factory=dict)
    _last: dict[ShardId, ShardNumbers] = field(default_factory=dict)

    def note(self, now: float, worker: int, cpu_s: float, shards: Iterable[ShardNumbers]) -> None:
        """Take a worker's once-a-second report. `now` is monotonic."""
        for numbers in shards:
            before = self._last.get(numbers.key)
            if before is not None and numbers.events < before.events:
                self._retire(before)
            self._last[numbers.key] = numbers
            self._rates.setdefault(numbers.key, _Rate()).add(now, numbers.events)
        _, last_at, last_cpu = self._cpu.get(worker, (0.0, now, cpu_s))
        percent = 100.0 * (cpu_s - last_cpu) / (now - last_at) if now > last_at and cpu_s >= last_cpu else 0.0
        self._cpu[worker] = (percent, now, cpu_s)

    def forget(self, key: ShardId) -> None:
        """The shard left this node; what it counted stays in the application's totals."""
        self._rates.pop(key, None)
        last = self._last.pop(key, None)
        if last is not None:
            self._retire(last)

    def _retire(self, numbers: ShardNumbers) -> None:
        app = numbers.key.app
        self._ended[app] = _sum([self._ended.get(app, ShardNumbers(key=ShardId(app, 0, 0))), numbers])

    def cpu_percent(self, worker: int) -> float:
        """CPU of one worker over its last report."""
        return self._cpu.get(worker, (0.0, 0.0, 0.0))[0]

    def of_shard(self, key: ShardId) -> ShardNumbers:
        """The shard's last report."""
        return self._last.get(key) or ShardNumbers(key=key)

    def events_per_s(self, key: ShardId) -> float:
        """The shard's rate over the last seconds."""
        rate = self._rates.get(key)
        return rate.value() if rate else 0.0

    def of_app(self, app: str) -> AppStatus:
        """An application's totals on this node."""
        present = [numbers for key, numbers in self._last.items() if key.app == app]
        ended = self._ended.get(app, ShardNumbers(key=ShardId(app, 0, 0)))
        total = _sum([ended, *present])
        return AppStatus(
            published_total=total.events,
            events_per_s=sum(self.events_per_s(numbers.key) for numbers in present),
            guilds=sum(numbers.guilds for numbers in present),
            publish_errors=total.retries,
            backlog_events=sum(numbers.backlog_events for numbers in present),
            replayed_total=total.replayed,
            gaps_total=total.gaps,
            unpublished_total=total.unpublished,
            unreadable_total=total.unreadable,
            passed_over_total=total.passed_over,
            foreign_total=total.foreign,
            cache=_cache_status(total.cache, present),
            invites=_invite_status(total.invites),
        )

    def apps(self) -> set[str]:
        """Every application that ever had a shard here."""
        return {key.app for key in self._last} | set(self._ended)


def _sum(parts: Iterable[ShardNumbers]) -> ShardNumbers:
    parts = list(parts)
    return ShardNumbers(
        key=parts[0].key,
        events=sum(part.events for part in parts),
        frames=sum(part.frames for part in parts),
        bytes=sum(part.bytes for part in parts),
        gaps=sum(part.gaps for part in parts),
        replayed=sum(part.replayed for part in parts),
        repeated=sum(part.repeated for part in parts),
        retries=sum(part.retries for part in parts),
        foreign=sum(part.foreign for part in parts),
        unpublished=sum(part.unpublished for part in parts),
        unreadable=_sum_counts(part.unreadable for part in parts),
        passed_over=sum(part.passed_over for part in parts),
        cache=_sum_caches([part.cache for part in parts if part.cache is not None]),
        invites=_sum_invites([part.invites for part in parts if part.invites is not None]),
    )


_CACHE_TOTALS = ("applied", "replayed", "late", "dropped", "malformed", "lost", "refused", "damaged", "failed")


def _sum_counts(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)


def _sum_caches(parts: list[CacheNumbers]) -> CacheNumbers | None:
    if not parts:
        return None
    return CacheNumbers(**{name: sum(getattr(part, name) for part in parts) for name in _CACHE_TOTALS})


def _cache_status(total: CacheNumbers | None, present: list[ShardNumbers]) -> CacheStatus | None:
    caches = [numbers.cache for numbers in present if numbers.cache is not None]
    if not caches or total is None:
        return None
    return CacheStatus(
        shards=len(caches),
        incomplete=sum(bool(cache.incomplete) for cache in caches),
        refilling=sum(cache.refilling for cache in caches),
        awaited=sum(numbers.awaited for numbers in present),
        backlog=sum(cache.backlog for cache in caches),
        behind=sum(cache.behind for cache in caches),
        to_chunk=sum(cache.to_chunk for cache in caches),
        **{f"{name}_total": getattr(total, name) for name in _CACHE_TOTALS},
    )


def _sum_invites(parts: list[InviteNumbers]) -> InviteNumbers | None:
    if not parts:
        return None
    return InviteNumbers(
        reported=_sum_counts(part.reported for part in parts),
        late=sum(part.late for part in parts),
        requests=sum(part.requests for part in parts),
        limited=sum(part.limited for part in parts),
    )


def _invite_status(total: InviteNumbers | None) -> InviteStatus | None:
    if total is None:
        return None
    return InviteStatus(
        told_total=total.reported,
        late_total=total.late,
        requests_total=total.requests,
        limited_total=total.limited,
    )


def cache_trouble(cache: CacheNumbers | None) -> str:
    """What a shard's cache lacks or waits for, in words; "": nothing."""
    if cache is None:
        return ""
    if cache.waiting:
        return f"the cache waits: {cache.waiting}"
    if cache.incomplete:
        return f"the cache is incomplete: {cache.incomplete}" + (" (being read again)" if cache.refilling else "")
    return ""


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """A shard's state as the agent knows it. `since` is Unix seconds; `close_code` that of a failed shard."""

    worker: int
    state: str
    reason: str
    since: float
    close_code: int = 0


def planned_shards(view: ClusterView, node: str) -> int:
    """How many shards the leader wants this node to run; a plan that cannot be read counts as none."""
    return sum(len(planned_here(view, key, node)) for key in view.plans)


def node_status(
    *,
    node: str,
    instance: str,
    version: str,
    started_at: float,
    now: float,
    clock_s: float,
    leader: bool,
    workers: Iterable[Worker],
    shards: Mapping[ShardId, ShardFacts],
    figures: Figures,
    history: History,
    problems: Sequence[Problem],
    consumers: ConsumerLag,
    settings: Mapping[str, str],
    desired_shards: Mapping[str, int],
) -> NodeStatus:
    """Put it all together. `started_at` and `now` are Unix seconds, `clock_s` is the monotonic clock's time now."""
    return NodeStatus(
        node=node,
        instance=instance,
        version=version,
        uptime_s=now - started_at,
        leader=leader,
        workers=[
            WorkerStatus(
                id=worker.index,
                pid=worker.pid,
                rss_bytes=worker.stats.rss_bytes,
                cpu_percent=figures.cpu_percent(worker.index),
                figures_age_s=None if worker.stats.at is None else clock_s - worker.stats.at,
            )
            for worker in workers
        ],
        apps={app: figures.of_app(app) for app in sorted(figures.apps())},
        shards=[
            ShardStatus(
                app=key.app,
                group=key.group,
                shard=key.shard,
                worker=facts.worker,
                state=facts.state,
                reason=facts.reason or figures.of_shard(key).waiting,
                since=facts.since,
                latency_ms=figures.of_shard(key).latency_ms,
                guilds=figures.of_shard(key).guilds,
                events_per_s=figures.events_per_s(key),
                cache=cache_trouble(figures.of_shard(key).cache),
            )
            for key, facts in sorted(shards.items())
        ],
        problems=worst_first(problems),
        failovers=list(history.failovers),
        failover_totals=[
            FailoverTotal(app=app, cause=cause, how=how, count=count, seconds=history.seconds[app, cause, how])
            for (app, cause, how), count in sorted(history.counts.items())
        ],
        losses=list(history.losses),
        fenced_total=dict(history.fenced),
        consumers=list(consumers.groups),
        dead_letters=dict(consumers.dead_letters),
        desired_shards=dict(desired_shards),
        settings=dict(settings),
        at=now,
    )
