"""What a node adds up of its shards' figures, and how its metrics show it."""

from sandwich_coordinator.status import InviteStatus, NodeStatus
from sandwich_node.agent.status import Figures
from sandwich_node.http.metrics import render_metrics
from sandwich_node.ipc import InviteNumbers, ShardKey, ShardNumbers


def numbers(shard: int, events: int, invites: InviteNumbers | None) -> ShardNumbers:
    return ShardNumbers(key=ShardKey("bot", 1, shard), events=events, invites=invites)


def test_how_joins_were_told_is_added_up_over_shards_and_survives_them() -> None:
    figures = Figures()
    first = InviteNumbers(told={"invite": 3, "timeout": 1}, late=1, requests=5, limited=1)
    second = InviteNumbers(told={"invite": 1, "bot": 2}, requests=1)
    figures.note(1.0, 0, 0.0, [numbers(0, 10, first), numbers(1, 10, second), numbers(2, 10, None)])
    figures.forget(ShardKey("bot", 1, 0))
    figures.note(2.0, 0, 0.0, [numbers(1, 2, InviteNumbers(told={"vanity": 1}, requests=1))])
    told = {"invite": 4, "timeout": 1, "bot": 2, "vanity": 1}
    expected = InviteStatus(told_total=told, late_total=1, requests_total=7, limited_total=1)
    assert figures.of_app("bot").invites == expected


def test_metrics_show_joins_by_how_they_were_told() -> None:
    figures = Figures()
    figures.note(1.0, 0, 0.0, [numbers(0, 10, InviteNumbers(told={"invite": 3}, late=2, requests=5, limited=1))])
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
