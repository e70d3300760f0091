"""The consumer's guarantees, tested against the cluster in memory."""

import asyncio

import pytest

from sandwich_sdk import Consumer, Event, Failure, Gap
from sandwich_sdk.testing import FakeCluster


def consumer_of(cluster: FakeCluster, **options: object) -> Consumer:
    return Consumer(app="app", source=cluster, nak_delay=0.0, **options)  # type: ignore[arg-type]


async def test_handlers_get_their_types_in_order_and_on_any_gets_all() -> None:
    cluster = FakeCluster()
    ids = cluster.dispatch_many([("A", {"n": 1}), ("B", {"n": 2}), ("A", {"n": 3})])
    consumer = Consumer(app="app")
    seen: list[tuple[str, int]] = []

    @consumer.on("A")
    async def on_a(event: Event) -> None:
        seen.append(("a", event.data["n"]))

    @consumer.on_any
    async def on_all(event: Event) -> None:
        seen.append(("any", event.data["n"]))

    await cluster.run(consumer)
    assert seen == [("a", 1), ("any", 1), ("any", 2), ("a", 3), ("any", 3)]
    assert cluster.handled == ids


async def test_a_failed_event_is_retried_and_the_others_of_its_frame_are_not() -> None:
    cluster = FakeCluster()
    ids = cluster.dispatch_many([("A", 1), ("A", 2), ("A", 3)])
    consumer = consumer_of(cluster)
    failures: list[Failure] = []
    consumer.on_error(failures.append)
    seen: list[int] = []

    @consumer.on("A")
    async def handle(event: Event) -> None:
        seen.append(event.data)
        if seen == [1, 2]:
            raise RuntimeError("once")

    await consumer.run(handle_signals=False)
    assert seen == [1, 2, 3, 2]
    assert cluster.handled == ids
    assert [failure.event and failure.event.data for failure in failures] == [2]
    assert not failures[0].given_up


async def test_an_ordered_consumer_retries_the_failed_event_before_it_continues() -> None:
    cluster = FakeCluster()
    cluster.dispatch_many([("A", 1), ("A", 2), ("A", 3)])
    consumer = consumer_of(cluster, ordered=True)
    consumer.on_error(lambda failure: None)
    seen: list[int] = []

    @consumer.on_any
    async def handle(event: Event) -> None:
        seen.append(event.data)
        if seen == [1, 2]:
            raise RuntimeError("once")

    await consumer.run(handle_signals=False)
    assert seen == [1, 2, 2, 3]
    assert cluster.delays == []


async def test_an_event_that_always_fails_is_reported_by_the_fake_cluster() -> None:
    cluster = FakeCluster(tries_max=2)
    bad = cluster.dispatch("A", None)
    good = cluster.dispatch("B", None)
    consumer = Consumer(app="app", nak_delay=3.0)
    consumer.on_error(lambda failure: None)

    @consumer.on("A")
    async def fail(event: Event) -> None:
        raise RuntimeError("always")

    @consumer.on("B")
    async def succeed(event: Event) -> None: ...

    await cluster.run(consumer)
    assert (cluster.failed, cluster.handled, cluster.delays) == ([bad], [good], [3.0, 6.0])


async def test_iterating_acknowledges_a_frame_when_the_event_after_its_last_is_requested() -> None:
    cluster = FakeCluster()
    ids = cluster.dispatch_many([("A", 1), ("A", 2)])
    ids += cluster.dispatch_many([("A", 3)])
    handled_at: list[int] = []
    async with consumer_of(cluster) as consumer:
        async for event in consumer:
            handled_at.append(len(cluster.handled))
            assert event.id == ids[len(handled_at) - 1]
    assert handled_at == [0, 0, 2]
    assert cluster.handled == ids


async def test_the_event_at_which_a_loop_ended_is_not_handled_and_comes_first_in_the_next_loop() -> None:
    cluster = FakeCluster()
    cluster.dispatch_many([("A", 1), ("A", 2), ("A", 3)])
    seen: list[int] = []
    async with consumer_of(cluster) as consumer:
        async for event in consumer:
            seen.append(event.data)
            if event.data == 2:
                break
        async for event in consumer:
            seen.append(event.data)
    assert seen == [1, 2, 2, 3]
    assert len(cluster.handled) == 3


async def test_closing_after_an_unfinished_loop_hands_the_frame_back() -> None:
    cluster = FakeCluster()
    cluster.dispatch_many([("A", 1), ("A", 2)])
    async with consumer_of(cluster) as consumer:
        async for _ in consumer:
            break
    assert cluster.handled == []
    assert cluster.delays == [0]


async def test_unwanted_types_are_neither_iterated_nor_left_unacknowledged() -> None:
    cluster = FakeCluster()
    skipped = cluster.dispatch("B", 0)
    mixed = cluster.dispatch_many([("A", 1), ("B", 2)])
    async with consumer_of(cluster, types=["A"]) as consumer:
        assert [event.data async for event in consumer] == [1]
    assert cluster.handled == [skipped, *mixed]


async def test_a_gap_is_reported_once_with_its_shard_and_sequence() -> None:
    cluster = FakeCluster(shards=2)
    cluster.dispatch("A", 1, shard=1)
    cluster.gap(shard=1)
    consumer = consumer_of(cluster)
    gaps: list[Gap] = []

    @consumer.on_gap
    async def lost(gap: Gap) -> None:
        gaps.append(gap)

    @consumer.on_any
    async def handle(event: Event) -> None: ...

    await consumer.run(handle_signals=False)
    assert [(gap.app, gap.group, gap.shard, gap.last_seq) for gap in gaps] == [("app", 0, 1, 1)]


async def test_one_shard_stays_in_order_while_others_run_at_the_same_time() -> None:
    cluster = FakeCluster(shards=8)
    for n in range(5):
        for shard in range(8):
            cluster.dispatch("A", n, shard=shard)
    consumer = consumer_of(cluster, concurrency=4)
    seen: dict[int, list[int]] = {}
    running = most = 0

    @consumer.on_any
    async def handle(event: Event) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        seen.setdefault(event.shard.id, []).append(event.data)
        running -= 1

    await consumer.run(handle_signals=False)
    assert seen == {shard: [0, 1, 2, 3, 4] for shard in range(8)}
    assert 1 < most <= 4


async def test_closing_from_a_handler_finishes_its_frame_and_hands_the_rest_back() -> None:
    cluster = FakeCluster()
    ids = cluster.dispatch_many([("A", 1), ("A", 2)])
    cluster.dispatch("A", 3)
    consumer = consumer_of(cluster)
    seen: list[int] = []

    @consumer.on_any
    async def handle(event: Event) -> None:
        seen.append(event.data)
        await consumer.close()

    await consumer.run(handle_signals=False)
    assert seen == [1, 2]
    assert cluster.handled == ids
    assert cluster.delays == [0]


async def test_closing_from_another_task_lets_a_loop_finish_its_frame() -> None:
    cluster = FakeCluster()
    ids = cluster.dispatch_many([("A", 1), ("A", 2)])
    cluster.dispatch("A", 3)
    consumer = consumer_of(cluster)
    seen: list[int] = []
    async with asyncio.TaskGroup() as tasks:
        async for event in consumer:
            seen.append(event.data)
            if len(seen) == 1:
                tasks.create_task(consumer.close())
            await asyncio.sleep(0)
    assert seen == [1, 2]
    assert cluster.handled == ids


async def test_handlers_that_do_not_end_are_cancelled_after_the_drain_timeout() -> None:
    cluster = FakeCluster()
    cluster.dispatch("A", 1)
    consumer = consumer_of(cluster, drain_timeout=0.05)

    @consumer.on_any
    async def hang(event: Event) -> None:
        tasks.create_task(consumer.close())
        await asyncio.Event().wait()

    # Without the option it would be 30 s.
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(5):
        await consumer.run(handle_signals=False)
    assert cluster.handled == []
    assert cluster.delays == [0]


async def test_a_handler_over_its_timeout_fails() -> None:
    cluster = FakeCluster(tries_max=1)
    bad = cluster.dispatch("A", 1)
    consumer = consumer_of(cluster, handler_timeout=0.01)
    failures: list[Failure] = []
    consumer.on_error(failures.append)

    @consumer.on_any
    async def hang(event: Event) -> None:
        await asyncio.Event().wait()

    await consumer.run(handle_signals=False)
    assert cluster.failed == [bad]
    assert isinstance(failures[0].error, TimeoutError)


def test_a_handler_that_is_not_a_coroutine_function_is_refused_at_once() -> None:
    consumer = Consumer(app="app")
    with pytest.raises(TypeError, match="async def"):
        consumer.on_any(lambda event: None)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"app": "a", "apps": ["b"]},
        {"apps": []},
        {"app": "UPPER"},
        {"app": "a", "group": "a.b"},
        {"app": "a", "start": "yesterday"},
        {"app": "a", "types": "MESSAGE_CREATE"},
        {"app": "a", "max_in_flight": 0},
        {"app": "a", "ack_wait": 0},
    ],
)
def test_invalid_arguments_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Consumer(**options)  # type: ignore[arg-type]
