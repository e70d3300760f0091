"""What a node adds up of its shards' figures, and how its metrics show it."""

from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.problems import Code
from sandwich_coordinator.status import CacheStatus, InviteStatus, NodeStatus
from sandwich_node.agent.consumer_lag import ConsumerLag
from sandwich_node.agent.failover_history import History
from sandwich_node.agent.problems import cache_problems
from sandwich_node.agent.status import Figures, ShardFacts, node_status
from sandwich_node.http.metrics import render_metrics
from sandwich_node.ipc import CacheNumbers, InviteNumbers, ShardNumbers, WorkerStats
from tests.unit.node.test_view_changes import FakeWorker


def numbers(shard: int, events: int, invites: InviteNumbers | None) -> ShardNumbers:
    return ShardNumbers(key=ShardId("bot", 1, shard), events=events, invites=invites)


def test_how_joins_were_reported_is_added_up_over_shards_and_survives_them() -> None:
    figures = Figures()
    first = InviteNumbers(reported={"invite": 3, "timeout": 1}, late=1, requests=5, limited=1)
    second = InviteNumbers(reported={"invite": 1, "bot": 2}, requests=1)
    figures.note(1.0, 0, 0.0, [numbers(0, 10, first), numbers(1, 10, second), numbers(2, 10, None)])
    figures.forget(ShardId("bot", 1, 0))
    figures.note(2.0, 0, 0.0, [numbers(1, 2, InviteNumbers(reported={"vanity": 1}, requests=1))])
    by_source = {"invite": 4, "timeout": 1, "bot": 2, "vanity": 1}
    expected = InviteStatus(told_total=by_source, late_total=1, requests_total=7, limited_total=1)
    assert figures.of_app("bot").invites == expected


def test_metrics_show_joins_by_how_they_were_reported() -> None:
    figures = Figures()
    figures.note(1.0, 0, 0.0, [numbers(0, 10, InviteNumbers(reported={"invite": 3}, late=2, requests=5, limited=1))])
    status = NodeStatus(node="a", instance="1", version="0", uptime_s=1.0, apps={"bot": figures.of_app("bot")})
    page = render_metrics(lambda: status).decode()
    for line in (
        'sandwich_joins_total{app="bot",outcome="invite"} 3.0',
        'sandwich_joins_late_total{app="bot"} 2.0',
        'sandwich_rest_requests_total{app="bot"} 5.0',
        'sandwich_rest_limited_total{app="bot"} 1.0',
    ):
        assert line in page


def test_an_application_that_follows_no_joins_has_no_figures_of_them() -> None:
    figures = Figures()
    figures.note(1.0, 0, 0.0, [numbers(0, 10, None)])
    assert figures.of_app("bot").invites is None


def caching(shard: int, cache: CacheNumbers) -> ShardNumbers:
    return ShardNumbers(key=ShardId("bot", 1, shard), events=10, awaited=2, cache=cache)


def test_caches_are_added_up_over_shards_what_happened_for_good_and_what_waits_as_it_is() -> None:
    figures = Figures()
    lost = "Redis was emptied"
    behind = CacheNumbers(applied=9, late=2, backlog=3, behind=True, incomplete=lost, refilling=True, to_chunk=4)
    figures.note(1.0, 0, 0.0, [caching(0, CacheNumbers(applied=5, replayed=1, damaged=1)), caching(1, behind)])
    figures.forget(ShardId("bot", 1, 1))
    assert figures.of_app("bot").cache == CacheStatus(
        shards=1, awaited=2, applied_total=14, replayed_total=1, late_total=2, damaged_total=1
    )
    figures.note(2.0, 0, 0.0, [caching(1, behind)])
    cache = figures.of_app("bot").cache
    assert cache is not None
    assert (cache.shards, cache.backlog, cache.behind, cache.incomplete) == (2, 3, 1, 1)
    status = NodeStatus(node="a", instance="1", version="0", uptime_s=1.0, apps={"bot": figures.of_app("bot")})
    page = render_metrics(lambda: status).decode()
    for line in (
        'sandwich_cache_events_total{app="bot",outcome="applied"} 23.0',
        'sandwich_cache_events_total{app="bot",outcome="late"} 4.0',
        'sandwich_cache_damaged_total{app="bot"} 1.0',
        'sandwich_cache_failed_total{app="bot"} 0.0',
        'sandwich_cache_incomplete_shards{app="bot"} 1.0',
        'sandwich_cache_backlog_events{app="bot"} 3.0',
    ):
        assert line in page


def test_problems_of_caches_are_reported_once_a_reason() -> None:
    figures = Figures()
    lost = CacheNumbers(incomplete="Redis was emptied", refilling=True)
    waits = CacheNumbers(waiting="Redis does not answer", incomplete="Redis was emptied")
    figures.note(1.0, 0, 0.0, [caching(0, lost), caching(1, lost), caching(2, waits), caching(3, CacheNumbers())])
    found = cache_problems([ShardId("bot", 1, shard) for shard in range(5)], figures)
    assert [(one.code, one.subject, one.text) for one in found] == [
        (
            Code.CACHE_INCOMPLETE,
            "app/bot/shards/0-1",
            "bot: shards 0-1: the cache is incomplete: Redis was emptied (being read again)",
        ),
        (Code.CACHE_WAITING, "app/bot/shards/2", "bot: shards 2: the cache waits: Redis does not answer"),
    ]


def test_a_status_says_how_old_it_the_node_and_the_figures_of_its_workers_are() -> None:
    figures = Figures()
    figures.note(10.0, 1, 1.0, [numbers(0, 10, None)])
    figures.note(12.0, 1, 1.5, [numbers(0, 30, None)])
    silent, reporting = FakeWorker(), FakeWorker(index=1, stats=WorkerStats(4096, 1.5, [], at=12.0))
    status = node_status(
        node="a",
        instance="1",
        version="0",
        started_at=1_800_000_000.0,
        now=1_800_000_060.0,
        clock_s=12.5,
        leader=False,
        workers=[silent, reporting],
        shards={ShardId("bot", 1, 0): ShardFacts(worker=1, state="live", reason="", since=1_800_000_030.0)},
        figures=figures,
        history=History("a"),
        problems=[],
        consumers=ConsumerLag(),
        settings={},
        desired_shards={},
    )
    assert (status.at, status.uptime_s) == (1_800_000_060.0, 60.0)
    assert [(worker.figures_age_s, worker.cpu_percent) for worker in status.workers] == [(None, 0.0), (0.5, 25.0)]
    (shard,) = status.shards
    assert (shard.since, shard.events_per_s) == (1_800_000_030.0, 10.0)
