"""A node's metrics, made from its status at the time they are asked for (Prometheus text format).

One label set a shard at most: event types times shards would be too many series. What could not be read is counted by
application and type, of the documented types that it happened to.
"""

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from sandwich_coordinator.status import NodeStatus

_APP_COUNTERS = {
    "published_total": ("sandwich_events_published", "Events stored in JetStream."),
    "publish_errors": ("sandwich_publish_retries", "Appends that had to be settled or sent again."),
    "replayed_total": ("sandwich_events_replayed", "Events that Discord replayed after a RESUME."),
    "gaps_total": ("sandwich_gaps", "Sessions that could not be resumed."),
    "unpublished_total": ("sandwich_events_unpublished", "Events that filters kept from consumers."),
    "passed_over_total": ("sandwich_events_passed_over", "Dispatches without a usable name or sequence."),
    "foreign_total": ("sandwich_foreign_messages", "Messages in the stream that no node wrote."),
}
_APP_GAUGES = {
    "guilds": ("sandwich_guilds", "Guilds of the shards on this node."),
    "backlog_events": ("sandwich_backlog_events", "Events read and not yet stored."),
}


class _StatusCollector(Collector):
    """Turns one status into metric families."""

    def __init__(self, status: Callable[[], NodeStatus]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        yield GaugeMetricFamily("sandwich_leader", "1 on the node that leads.", value=float(status.leader))
        yield GaugeMetricFamily("sandwich_uptime_seconds", "Seconds since the agent started.", value=status.uptime_s)
        for field, (name, text) in _APP_COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=["app"])
            for app, numbers in status.apps.items():
                counter.add_metric([app], float(getattr(numbers, field)))
            yield counter
        for field, (name, text) in _APP_GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=["app"])
            for app, numbers in status.apps.items():
                gauge.add_metric([app], float(getattr(numbers, field)))
            yield gauge
        yield from _unreadable(status)
        yield from _caches(status)
        yield from _invites(status)
        yield from _consumers(status)
        yield from _demand(status)
        yield from _failovers(status)
        yield from _workers(status)
        yield from _shards(status)


def _unreadable(status: NodeStatus) -> Iterator[Metric]:
    events = CounterMetricFamily(
        "sandwich_events_unreadable", "Events published as they came, not read wholly.", labels=["app", "type"]
    )
    for app, numbers in status.apps.items():
        for event_type, count in sorted(numbers.unreadable_total.items()):
            events.add_metric([app, event_type], float(count))
    yield events


_CACHE_COUNTERS = ("applied", "replayed", "late", "dropped", "malformed", "refused")


def _caches(status: NodeStatus) -> Iterator[Metric]:
    caches = {app: numbers.cache for app, numbers in status.apps.items() if numbers.cache is not None}
    events = CounterMetricFamily("sandwich_cache_events", "Events by what the cache did.", labels=["app", "outcome"])
    damaged = CounterMetricFamily("sandwich_cache_damaged", "Values in Redis that were not ours.", labels=["app"])
    lost = CounterMetricFamily("sandwich_cache_lost", "Parts of events that could not be read.", labels=["app"])
    failed = CounterMetricFamily("sandwich_cache_failed", "Changes that Redis refused.", labels=["app"])
    incomplete = GaugeMetricFamily("sandwich_cache_incomplete_shards", "Shards whose cache lacks some.", labels=["app"])
    backlog = GaugeMetricFamily("sandwich_cache_backlog_events", "Events that wait for Redis.", labels=["app"])
    for app, cache in caches.items():
        for outcome in _CACHE_COUNTERS:
            events.add_metric([app, outcome], float(getattr(cache, f"{outcome}_total")))
        damaged.add_metric([app], float(cache.damaged_total))
        lost.add_metric([app], float(cache.lost_total))
        failed.add_metric([app], float(cache.failed_total))
        incomplete.add_metric([app], float(cache.incomplete))
        backlog.add_metric([app], float(cache.backlog))
    yield from (events, damaged, lost, failed, incomplete, backlog)


def _invites(status: NodeStatus) -> Iterator[Metric]:
    joins = CounterMetricFamily("sandwich_joins", "Joins by how they were attributed.", labels=["app", "outcome"])
    late = CounterMetricFamily("sandwich_joins_late", "Joins reported in an event of their own.", labels=["app"])
    requests = CounterMetricFamily("sandwich_rest_requests", "Requests to Discord's REST API.", labels=["app"])
    limited = CounterMetricFamily("sandwich_rest_limited", "Requests that Discord answered 429.", labels=["app"])
    for app, numbers in status.apps.items():
        if numbers.invites is None:
            continue
        for outcome, count in sorted(numbers.invites.told_total.items()):
            joins.add_metric([app, outcome], float(count))
        late.add_metric([app], float(numbers.invites.late_total))
        requests.add_metric([app], float(numbers.invites.requests_total))
        limited.add_metric([app], float(numbers.invites.limited_total))
    yield from (joins, late, requests, limited)


def _consumers(status: NodeStatus) -> Iterator[Metric]:
    """The leader alone asks JetStream: the other nodes have no such series."""
    lag = GaugeMetricFamily(
        "sandwich_consumer_lag_frames", "Frames that a consumer group has not acknowledged.", labels=["app", "group"]
    )
    letters = GaugeMetricFamily("sandwich_dead_letters", "Dead letters that wait.", labels=["app"])
    for group in status.consumers:
        lag.add_metric([group.app, group.group], float(group.lag))
    for app, count in status.dead_letters.items():
        letters.add_metric([app], float(count))
    yield from (lag, letters)


def _demand(status: NodeStatus) -> Iterator[Metric]:
    """The leader alone knows it: the other nodes have no such series."""
    desired = GaugeMetricFamily(
        "sandwich_desired_shards", "Shards that the cluster should have room for.", labels=["app"]
    )
    for app, count in status.desired_shards.items():
        desired.add_metric([app], float(count))
    yield desired


def _failovers(status: NodeStatus) -> Iterator[Metric]:
    labels = ["app", "cause", "how"]
    count = CounterMetricFamily("sandwich_failovers", "Shards that came back on this node.", labels=labels)
    seconds = CounterMetricFamily("sandwich_failover_seconds", "From a loss noticed to streaming.", labels=labels)
    for total in status.failover_totals:
        values = [total.app, total.cause, total.how]
        count.add_metric(values, float(total.count))
        seconds.add_metric(values, total.seconds)
    yield count
    yield seconds
    fenced = CounterMetricFamily("sandwich_fenced", "Shards taken over while they ran here.", labels=["app"])
    for app, refused in status.fenced_total.items():
        fenced.add_metric([app], float(refused))
    yield fenced


def _workers(status: NodeStatus) -> Iterator[Metric]:
    memory = GaugeMetricFamily("sandwich_worker_rss_bytes", "Resident memory of a worker.", labels=["worker"])
    for worker in status.workers:
        memory.add_metric([str(worker.id)], float(worker.rss_bytes))
    yield memory


def _shards(status: NodeStatus) -> Iterator[Metric]:
    states = GaugeMetricFamily("sandwich_shards", "Shards on this node by state.", labels=["app", "state"])
    counts: dict[tuple[str, str], int] = {}
    latency = GaugeMetricFamily(
        "sandwich_heartbeat_latency_seconds", "Time to the last heartbeat's ACK.", labels=["app", "group", "shard"]
    )
    for shard in status.shards:
        counts[shard.app, shard.state] = counts.get((shard.app, shard.state), 0) + 1
        if shard.latency_ms is not None:
            latency.add_metric([shard.app, str(shard.group), str(shard.shard)], shard.latency_ms / 1000)
    for (app, state), count in counts.items():
        states.add_metric([app, state], float(count))
    yield states
    yield latency


def render_metrics(status: Callable[[], NodeStatus]) -> bytes:
    """The metrics page."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_StatusCollector(status))
    return generate_latest(registry)
