"""What JetStream's answers say about consumer groups."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from sandwich_coordinator.cli.group_text import group_row, groups_text, removal_lines
from sandwich_coordinator.operations.errors import NotFound, Refused
from sandwich_coordinator.operations.group_states import (
    OLDEST_OF_MAX,
    ConsumerGroup,
    Durable,
    check_unread,
    find,
    groups_of,
    to_look_at,
)

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def durable(name: str, *, config: dict[str, Any] | None = None, **fields: Any) -> Durable:
    """As JetStream answers it."""
    made = {"durable_name": name, "filter_subject": "sandwich.bot.events.all.>", "max_ack_pending": 10_000}
    answer = {"created": NOW, "ts": NOW, "config": made | (config or {}), **fields}
    return msgspec.json.decode(msgspec.json.encode(answer), type=Durable)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def test_an_answer_of_the_server_is_read() -> None:
    answer = b"""{"stream_name":"S","name":"g","created":"2026-12-01T02:45:11.015518897Z","config":{"durable_name":"g",
        "deliver_policy":"by_start_sequence","opt_start_seq":7,"ack_wait":30000000000,"max_deliver":-1,"num_replicas":0,
        "filter_subject":"sandwich.bot.events.all.\\u003e","metadata":{"sandwich.kept":"1"},"max_ack_pending":10000},
        "delivered":{"consumer_seq":3,"stream_seq":9,"last_active":"2026-12-01T02:45:11.106009565Z"},
        "ack_floor":{"consumer_seq":0,"stream_seq":0},"num_ack_pending":3,"num_waiting":0,"num_pending":4,
        "ts":"2026-12-01T02:45:11.613604866Z"}"""
    read = msgspec.json.decode(answer, type=Durable)
    assert (read.group, read.lag, read.settled, read.is_read) == ("g", 7, 6, True)
    assert read.filters == ["sandwich.bot.events.all.>"]


def test_the_durables_of_an_ordered_group_are_one_group() -> None:
    anchor = {"metadata": {"sandwich.ordered": "1"}, "filter_subject": "sandwich.bot.events.chat.none.none"}
    of_shard = {"filter_subject": "", "filter_subjects": ["sandwich.bot.events.chat.*.0"], "max_ack_pending": 1}
    (found,) = groups_of(
        "bot",
        [
            durable("g", config=anchor, created=ago(50)),
            durable("g@0", config=of_shard, num_pending=4),
            durable("g@1", config=of_shard, num_pending=2, num_ack_pending=1),
            durable(""),
        ],
        [durable("g", num_pending=1, num_ack_pending=1)],
        {"sandwich.bot.dead.g": 3},
    )
    assert found == ConsumerGroup(
        app="bot", group="g", ordered=True, partitions=2, lane="chat", lag=7, in_hand=1, dead_letters=3, replays=2,
        created_at=ago(50).timestamp(),
    )  # fmt: skip


def test_what_a_group_left_behind_is_listed_too() -> None:
    found = groups_of("bot", [durable("a")], [durable("b", num_pending=1)], {"sandwich.bot.dead.c": 2})
    assert [(one.group, one.lag, one.dead_letters, one.replays, one.created_at is None) for one in found] == [
        ("a", 0, 0, 0, False),
        ("b", None, 0, 1, True),
        ("c", None, 2, 0, True),
    ]


def test_a_dead_letter_on_a_wildcard_s_literal_subject_is_of_no_group() -> None:
    assert (
        groups_of("bot", [], [], {"sandwich.bot.dead.*": 1, "sandwich.bot.dead.>": 1, "sandwich.bot.dead.A": 1}) == []
    )


@pytest.mark.parametrize(
    ("filters", "lane"),
    [
        (["sandwich.bot.events.*.>"], "*"),
        (["sandwich.bot.events.all.*.0", "sandwich.bot.events.all.*.32"], "all"),
        (["sandwich.bot.events.all.*.0", "sandwich.bot.events.chat.*.0"], None),
        (["sandwich.>"], None),
        ([], None),
    ],
)
def test_the_lane_of_a_group_follows_from_its_filters(filters: list[str], lane: str | None) -> None:
    (found,) = groups_of("bot", [durable("g", config={"filter_subject": "", "filter_subjects": filters})], [], {})
    assert found.lane == lane


@pytest.mark.parametrize(
    ("fields", "is_read"),
    [
        ({}, False),
        ({"num_waiting": 1}, True),
        ({"push_bound": True}, True),
        ({"num_pending": 9, "delivered": {"last_active": ago(1)}}, False),
        ({"num_ack_pending": 1}, False),
        ({"num_ack_pending": 1, "delivered": {"last_active": ago(59)}}, True),
        ({"num_ack_pending": 1, "delivered": {"last_active": ago(61)}}, False),
        ({"num_ack_pending": 1, "delivered": {"last_active": ago(61)}, "ack_floor": {"last_active": ago(2)}}, True),
        ({"num_ack_pending": 1, "delivered": {"last_active": ago(61)}, "config": {"ack_wait": 40_000_000_000}}, True),
    ],
)
def test_a_worker_is_there_while_a_request_waits_or_a_frame_in_hand_moved_lately(
    fields: dict[str, Any], is_read: bool
) -> None:
    assert durable("g", **fields).is_read is is_read


@pytest.mark.parametrize(
    ("in_hand", "max_ack_pending", "settled"),
    [(0, 10_000, 20), (3, 10_000, 12), (1, 1, 19)],
)
def test_what_is_settled_follows_from_what_is_in_hand(in_hand: int, max_ack_pending: int, settled: int) -> None:
    reached = {"delivered": {"stream_seq": 20}, "ack_floor": {"stream_seq": 12}}
    found = durable("g", config={"max_ack_pending": max_ack_pending}, num_ack_pending=in_hand, **reached)
    assert found.settled == settled


def test_no_frame_is_older_than_where_the_group_began() -> None:
    assert durable("g").starts_at == 0
    assert durable("g", config={"deliver_policy": "new"}).starts_at == NOW.timestamp()
    by_time = {"deliver_policy": "by_start_time", "opt_start_time": ago(9)}
    assert durable("g", config=by_time).starts_at == ago(9).timestamp()


def test_the_oldest_frame_is_looked_for_in_the_durables_with_the_most() -> None:
    many = [durable(f"g@{number}", num_pending=number) for number in range(50)]
    looked_at = to_look_at([*many, durable("other", num_pending=99)], "g")
    assert [one.lag for one in looked_at] == list(range(49, 49 - OLDEST_OF_MAX, -1))


def test_a_group_that_is_read_or_not_there_is_refused() -> None:
    idle = ConsumerGroup(app="bot", group="b", in_hand=2)
    read = replace(idle, group="a", reads=True)
    check_unread(idle)
    with pytest.raises(Refused, match=r"workers read group a of bot now, with 2 frames in hand: stop them first"):
        check_unread(read)
    assert find("a", [read, idle]) is read
    with pytest.raises(
        NotFound, match=r"there is no consumer group workr \(did you mean worker\?\); there are: worker"
    ):
        find("workr", [ConsumerGroup(app="bot", group="worker")])


# --- as the command shows them --------------------------------------------------------------------------------------


def test_groups_are_a_table_and_rows_with_numbers() -> None:
    assert "bot has no consumer groups" in groups_text("bot", [], 0.0)
    worker = ConsumerGroup(
        app="bot", group="worker", lane="all", lag=1204, in_hand=4, behind_since=1000.0, created_at=0.0, reads=True
    )
    left = ConsumerGroup(app="bot", group="old", dead_letters=3)
    ordered = ConsumerGroup(app="bot", group="index", ordered=True, partitions=32, lane="*", lag=0, created_at=0.0)
    lines = [line.split() for line in groups_text("bot", [worker, left, ordered], 8200.0).splitlines()]
    assert lines[0] == [
        "GROUP",
        "LAG",
        "BEHIND",
        "IN",
        "HAND",
        "READS",
        "ORDERED",
        "LANE",
        "DEAD",
        "LETTERS",
        "CREATED",
    ]
    assert lines[1] == ["worker", "1204", "2h", "0m", "4", "yes", "no", "all", "0", "1970-01-01", "00:00:00"]
    assert lines[2] == ["old", "-", "-", "0", "no", "no", "-", "3", "-"]
    assert lines[3] == ["index", "0", "-", "0", "no", "32", "partitions", "*", "0", "1970-01-01", "00:00:00"]
    assert (group_row(worker)["lag_frames"], group_row(left)["lag_frames"]) == (1204, None)


def test_what_goes_with_a_group_is_said_before_it_does() -> None:
    found = ConsumerGroup(app="bot", group="index", partitions=32, lag=7, in_hand=2, dead_letters=3, replays=1)
    said = "\n".join(removal_lines(found))
    assert "of 32 partitions; not acknowledged: 7 frames, 2 of them in hand" in said
    assert "3, and 1 on their way back to it" in said
    assert "position" not in "\n".join(removal_lines(ConsumerGroup(app="bot", group="old", dead_letters=3)))
