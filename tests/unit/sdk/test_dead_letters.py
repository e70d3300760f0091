"""Tries of events, and dead letters; against the cluster in memory."""

import pytest

from sandwich_sdk import Consumer, Event, Failure
from sandwich_sdk.delivery import Delivery
from sandwich_sdk.testing import FakeCluster
from sandwich_sdk.wire.dead import ERROR_CHARACTERS_MAX, MESSAGE_ID, error_text, frame_of, pieces


def poisoned(*poison: int, **options: object) -> tuple[Consumer, list[int], list[Failure]]:
    """A consumer whose handler fails for these numbers; the events it received, and the failures it reported."""
    consumer = Consumer(app="app", **options)  # type: ignore[arg-type]
    seen: list[int] = []
    failures: list[Failure] = []
    consumer.on_error(failures.append)

    @consumer.on_any
    async def handle(event: Event) -> None:
        seen.append(event.data)
        if event.data in poison:
            raise RuntimeError("poison")

    return consumer, seen, failures


async def test_an_event_is_a_dead_letter_after_max_tries_and_its_frame_is_handled() -> None:
    cluster = FakeCluster()
    ids = cluster.dispatch_many([("A", 1), ("A", 2), ("A", 3)])
    consumer, seen, failures = poisoned(2, max_tries=3)
    await cluster.run(consumer)
    assert seen == [1, 2, 3, 2, 2]
    assert (cluster.handled, cluster.failed, cluster.delays) == ([ids[0], ids[2]], [], [1.0, 2.0])
    assert [(dead.id, dead.tries, dead.error) for dead in cluster.dead] == [(ids[1], 3, "RuntimeError: poison")]
    assert cluster.dead[0].event is not None
    assert cluster.dead[0].event.data == 2
    assert [(failure.tries, failure.given_up) for failure in failures] == [(1, False), (2, False), (3, True)]


async def test_an_ordered_shard_continues_after_its_dead_letter_without_delays() -> None:
    cluster = FakeCluster(shards=2)
    cluster.dispatch_many([("A", 1), ("A", 2)])
    cluster.dispatch("A", 3)
    cluster.dispatch("A", 4, shard=1)
    consumer, seen, _ = poisoned(1, ordered=True)
    await cluster.run(consumer)
    assert [n for n in seen if n != 4] == [1] * 10 + [2, 3]
    assert seen.index(4) < seen.index(2)
    assert len(cluster.dead) == 1
    assert cluster.delays == []


async def test_tries_are_counted_over_workers_and_an_event_that_was_not_begun_has_none() -> None:
    cluster = FakeCluster(tries_max=100)
    cluster.dispatch_many([("A", 1), ("A", 2)])
    first, _, _ = poisoned(2)
    reported: list[Failure] = []

    def stop(failure: Failure) -> None:
        reported.append(failure)
        first._stop()

    first.on_error(stop)
    await cluster.run(first)
    second, _, failures = poisoned(1, 2, max_tries=3)
    await cluster.run(second)
    assert [failure.tries for failure in reported] == [1]
    assert [(failure.event and failure.event.data, failure.tries, failure.given_up) for failure in failures] == [
        (1, 1, False), (2, 2, False), (1, 2, False), (2, 3, True), (1, 3, True),
    ]  # fmt: skip


async def test_without_max_tries_an_event_is_retried_without_limit_and_no_tries_are_saved() -> None:
    cluster = FakeCluster(tries_max=30)
    bad = cluster.dispatch("A", 1)
    consumer, seen, _ = poisoned(1, max_tries=None)
    await cluster.run(consumer)
    assert (len(seen), cluster.failed, cluster.dead) == (30, [bad], [])
    assert cluster._tries == {}


class Refusing(FakeCluster):
    """Refuses the first dead letters."""

    refusals = 2

    async def store(self, delivery: Delivery, *what: object) -> None:
        if self.refusals:
            self.refusals -= 1
            raise TimeoutError
        await super().store(delivery, *what)  # type: ignore[arg-type]


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("max_tries", [1, 2])
async def test_an_event_whose_dead_letter_is_not_stored_is_retried_and_never_lost(
    max_tries: int, ordered: bool
) -> None:
    cluster = Refusing(tries_max=10)
    ids = cluster.dispatch_many([("A", 1), ("A", 2)])
    consumer, seen, failures = poisoned(1, max_tries=max_tries, ordered=ordered, nak_delay=0.0)
    await cluster.run(consumer)
    assert seen.count(1) == max_tries + 2
    assert [failure.given_up for failure in failures] == [False] * (max_tries + 1) + [True]
    assert [dead.id for dead in cluster.dead] == ids[:1]
    assert cluster.handled == ids[1:]


async def test_an_event_that_left_its_loop_too_often_is_a_dead_letter() -> None:
    cluster = FakeCluster()
    bad = cluster.dispatch_many([("A", 1), ("A", 2)])[0]
    consumer = Consumer(app="app", source=cluster, max_tries=2)
    failures: list[Failure] = []
    consumer.on_error(failures.append)
    seen: list[int] = []
    async with consumer:
        for _ in range(3):
            async for event in consumer:
                seen.append(event.data)
                break
    assert seen == [1, 1, 2]
    assert [failure.given_up for failure in failures] == [True]
    assert [dead.id for dead in cluster.dead] == [bad]


def test_an_error_is_one_short_line_that_fits_in_a_header() -> None:
    assert error_text(ValueError("two\nlines\r\n and a \N{SNOWMAN}")) == "ValueError: two lines and a \\u2603"
    assert error_text(ValueError()) == "ValueError"
    assert len(error_text(ValueError("x" * 9999))) == ERROR_CHARACTERS_MAX


def test_the_frame_of_a_dead_letter_has_neither_its_headers_nor_those_of_nats() -> None:
    headers = {"Sandwich-Version": "1", "Sandwich-Dead-Id": "a", "Sandwich-Part": "1/2", "Nats-Msg-Id": "x"}
    assert frame_of({**headers, "Nats-Expected-Last-Subject-Sequence": "7"}) == {"Sandwich-Version": "1"}
    assert frame_of(None) == {}


def test_a_dead_letter_too_large_for_a_message_is_split_into_parts_with_message_ids_of_their_own() -> None:
    cut = list(pieces({MESSAGE_ID: "g/1/a"}, b"abcde", 2))
    assert [payload for _, payload in cut] == [b"ab", b"cd", b"e"]
    assert [headers for headers, _ in cut] == [
        {MESSAGE_ID: f"g/1/a/{index}", "Sandwich-Part": f"{index}/3"} for index in (1, 2, 3)
    ]
    assert list(pieces({MESSAGE_ID: "g/1/a"}, b"ab", 2)) == [({MESSAGE_ID: "g/1/a"}, b"ab")]
    assert list(pieces({MESSAGE_ID: "g/1/a"}, b"", 2)) == [({MESSAGE_ID: "g/1/a"}, b"")]


@pytest.mark.parametrize("max_tries", [0, -1])
def test_fewer_than_one_try_is_refused(max_tries: int) -> None:
    with pytest.raises(ValueError, match="max_tries"):
        Consumer(app="app", max_tries=max_tries)
