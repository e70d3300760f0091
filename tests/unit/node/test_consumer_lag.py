"""Which consumer groups fall behind, and how JetStream's answers about them are read."""

import msgspec

from sandwich_coordinator.problems import Code
from sandwich_coordinator.status import ConsumerStatus, NodeStatus
from sandwich_node.agent.consumer_lag import BEHIND_AFTER_S, LAG_FRAMES, STUCK_AFTER_S, ConsumerLag
from sandwich_node.http.metrics import render_metrics
from sandwich_node.publishing.consumption import PAGES_MAX, group_lags, messages_of, next_offset


def group(lag: int, floor: int = 0) -> ConsumerStatus:
    return ConsumerStatus(app="bot", group="greeter", lag=lag, floor=floor)


def test_a_group_with_a_large_lag_for_a_minute_is_behind() -> None:
    lag = ConsumerLag()
    lag.note([group(LAG_FRAMES - 1, 1)], {}, 1000.0)
    lag.note([group(LAG_FRAMES, 2)], {}, 1010.0)
    assert lag.problems(1000.0 + BEHIND_AFTER_S - 1) == []
    (found,) = lag.problems(1000.0 + BEHIND_AFTER_S)
    assert (found.code, found.subject, found.since) == (Code.CONSUMER_BEHIND, "app/bot/group/greeter", 1000.0)
    assert f"greeter has {LAG_FRAMES} unacknowledged frames" in found.summary
    lag.note([group(10, 3)], {}, 1070.0)
    assert lag.problems(1070.0) == []


def test_a_group_that_acknowledges_nothing_for_five_minutes_is_behind_whatever_its_lag() -> None:
    lag = ConsumerLag()
    lag.note([group(0, 7)], {}, 1000.0)
    lag.note([group(3, 7)], {}, 1010.0)
    assert lag.problems(1000.0 + STUCK_AFTER_S - 1) == []
    (found,) = lag.problems(1000.0 + STUCK_AFTER_S)
    assert (found.code, found.since) == (Code.CONSUMER_BEHIND, 1000.0)
    lag.note([group(3, 8)], {}, 1310.0)
    assert lag.problems(1310.0) == []


def test_a_quiet_group_is_not_behind_and_another_leader_starts_again() -> None:
    lag = ConsumerLag()
    for at in range(0, 1000, 10):
        lag.note([group(0, 7)], {"bot": 2}, float(at))
    assert [found.code for found in lag.problems(1000.0)] == [Code.DEAD_LETTERS]
    lag.forget()
    assert (lag.problems(2000.0), lag.groups, lag.dead_letters) == ([], (), {})


def test_dead_letters_are_a_problem_of_their_application() -> None:
    lag = ConsumerLag()
    lag.note([], {"bot": 2, "music": 0, "one": 1}, 1.0)
    bot, one = lag.problems(1.0)
    assert (bot.code, bot.subject, bot.summary) == (Code.DEAD_LETTERS, "app/bot", "bot: 2 dead letters wait")
    assert one.summary == "one: 1 dead letter waits"


def page(*consumers: tuple[str, int, int, int], total: int | None = None) -> bytes:
    found = [
        {
            "config": {"durable_name": name} if name else {},
            "num_pending": pending,
            "num_ack_pending": given,
            "ack_floor": {"consumer_seq": 1, "stream_seq": floor},
        }
        for name, pending, given, floor in consumers
    ]
    return msgspec.json.encode({"total": len(found) if total is None else total, "consumers": found})


def test_the_partitions_of_an_ordered_group_are_added_up_and_other_consumers_are_no_group() -> None:
    pages = [page(("g", 0, 0, 0), ("g@0", 5, 1, 10), ("", 9, 9, 9)), page(("g@1", 2, 0, 20), ("a", 1, 0, 3))]
    assert group_lags("bot", pages) == [
        ConsumerStatus(app="bot", group="a", lag=1, floor=3),
        ConsumerStatus(app="bot", group="g", lag=8, floor=30),
    ]


def test_pages_are_read_until_the_last_and_never_more_than_a_few() -> None:
    assert next_offset([]) == 0
    assert next_offset([page(("a", 0, 0, 0), total=2)]) == 1
    assert next_offset([page(("a", 0, 0, 0), total=2), page(("b", 0, 0, 0), total=2)]) is None
    assert next_offset([page(total=9)]) is None
    assert next_offset([b""]) is None
    assert next_offset([page(("a", 0, 0, 0), total=999)] * PAGES_MAX) is None


def test_damaged_answers_count_as_empty() -> None:
    assert group_lags("bot", [b"", b"{", b"[]"]) == []
    assert [messages_of(answer) for answer in (None, b"{", b"{}", b'{"state":{"messages":4}}')] == [0, 0, 0, 4]


def test_the_leaders_metrics_have_lag_and_dead_letters() -> None:
    status = NodeStatus(
        node="a", instance="1", version="0", uptime_s=1.0, consumers=[group(12)], dead_letters={"bot": 3}
    )
    shown = render_metrics(lambda: status).decode()
    assert 'sandwich_consumer_lag_frames{app="bot",group="greeter"} 12.0' in shown
    assert 'sandwich_dead_letters{app="bot"} 3.0' in shown
