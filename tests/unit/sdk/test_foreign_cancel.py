"""A handler that awaits something cancelled by other code fails once; only its own cancellation ends the worker."""

import asyncio

import pytest

from sandwich_sdk import Consumer, Event, Failure, Gap, HandlerCancelled
from sandwich_sdk.testing import FakeCluster


async def await_what_is_cancelled() -> None:
    task = asyncio.create_task(asyncio.sleep(3600))
    asyncio.get_running_loop().call_soon(task.cancel)
    await task


def consumer_of(cluster: FakeCluster, **options: object) -> tuple[Consumer, list[Failure]]:
    consumer = Consumer(app="app", source=cluster, nak_delay=0.0, **options)  # type: ignore[arg-type]
    failures: list[Failure] = []
    consumer.on_error(failures.append)
    return consumer, failures


@pytest.mark.parametrize("timeout", [None, 30.0])
@pytest.mark.parametrize(("ordered", "concurrency"), [(False, 1), (True, 1), (False, 4), (True, 4)])
async def test_it_counts_as_a_failed_try_and_the_worker_continues(
    ordered: bool, concurrency: int, timeout: float | None
) -> None:
    cluster = FakeCluster(tries_max=9, shards=2)
    poisoned = [cluster.dispatch("BAD", None, shard=shard) for shard in (0, 1, 0, 1, 0)]
    good = [cluster.dispatch("GOOD", None, shard=shard) for shard in (0, 1)]
    consumer, failures = consumer_of(
        cluster, ordered=ordered, concurrency=concurrency, max_tries=2, handler_timeout=timeout
    )
    seen: list[str] = []

    @consumer.on_any
    async def handle(event: Event) -> None:
        if event.type == "BAD":
            await await_what_is_cancelled()
        seen.append(event.id)

    async with asyncio.timeout(10):
        await consumer.run(handle_signals=False)
    assert sorted(seen) == sorted(good)
    assert sorted(dead.id for dead in cluster.dead) == sorted(poisoned)
    assert {dead.tries for dead in cluster.dead} == {2}
    assert len(failures) == 2 * len(poisoned)
    assert all(isinstance(failure.error, HandlerCancelled) for failure in failures)
    assert all(isinstance(failure.error.__cause__, asyncio.CancelledError) for failure in failures)


async def test_a_bare_cancelled_error_is_a_failed_try_and_the_next_one_succeeds() -> None:
    cluster = FakeCluster()
    only = cluster.dispatch("A", None)
    consumer, failures = consumer_of(cluster)
    tries: list[str] = []

    @consumer.on_any
    async def handle(event: Event) -> None:
        tries.append(event.id)
        if len(tries) == 1:
            raise asyncio.CancelledError

    await consumer.run(handle_signals=False)
    assert (tries, cluster.handled, len(failures)) == ([only, only], [only], 1)


async def test_a_gap_handler_is_retried_and_then_its_gap_is_a_dead_letter() -> None:
    cluster = FakeCluster(tries_max=9)
    cluster.gap()
    good = cluster.dispatch("GOOD", None)
    consumer, failures = consumer_of(cluster, max_tries=3)

    @consumer.on_gap
    async def lost(gap: Gap) -> None:
        await await_what_is_cancelled()

    @consumer.on_any
    async def handle(event: Event) -> None: ...

    await consumer.run(handle_signals=False)
    assert cluster.handled == [good]
    assert [failure.given_up for failure in failures] == [False, False, True]


async def test_a_loop_continues_after_a_gap_handler_that_awaits_something_cancelled() -> None:
    cluster = FakeCluster(tries_max=9)
    cluster.gap()
    good = cluster.dispatch("GOOD", None)
    consumer, failures = consumer_of(cluster, max_tries=3)

    @consumer.on_gap
    async def lost(gap: Gap) -> None:
        await await_what_is_cancelled()

    async with consumer:
        assert [event.id async for event in consumer] == [good]
    assert len(failures) == 3


async def test_an_error_callback_that_reads_the_result_of_a_cancelled_task_does_not_end_the_worker() -> None:
    cluster = FakeCluster(tries_max=9)
    cluster.dispatch("BAD", None)
    good = cluster.dispatch("GOOD", None)
    consumer, _ = consumer_of(cluster, max_tries=2)
    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    consumer.on_error(lambda failure: cancelled.result())

    @consumer.on("BAD")
    async def bad(event: Event) -> None:
        raise RuntimeError("always")

    @consumer.on("GOOD")
    async def fine(event: Event) -> None: ...

    await consumer.run(handle_signals=False)
    assert cluster.handled == [good]
    assert len(cluster.dead) == 1


@pytest.mark.parametrize(("ordered", "concurrency"), [(False, 1), (True, 1), (False, 4)])
async def test_the_workers_own_cancellation_ends_it_and_counts_no_failure(ordered: bool, concurrency: int) -> None:
    cluster = FakeCluster()
    cluster.dispatch("A", None)
    consumer, failures = consumer_of(cluster, ordered=ordered, concurrency=concurrency)
    begun = asyncio.Event()

    @consumer.on_any
    async def handle(event: Event) -> None:
        begun.set()
        await asyncio.sleep(3600)

    running = asyncio.create_task(consumer.run(handle_signals=False))
    async with asyncio.timeout(10):
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert (failures, cluster.handled, cluster.dead) == ([], [], [])


async def test_the_drain_timeout_ends_a_gap_handler_and_counts_no_failure() -> None:
    cluster = FakeCluster()
    cluster.gap()
    consumer, failures = consumer_of(cluster, drain_timeout=0.01)

    @consumer.on_gap
    async def lost(gap: Gap) -> None:
        consumer._stop()
        await asyncio.sleep(3600)

    @consumer.on_any
    async def handle(event: Event) -> None: ...

    async with asyncio.timeout(10):
        await consumer.run(handle_signals=False)
    assert failures == []


async def test_a_handler_over_its_timeout_still_fails_by_its_timeout() -> None:
    cluster = FakeCluster()
    cluster.dispatch("A", None)
    consumer, failures = consumer_of(cluster, handler_timeout=0.01, max_tries=1)

    @consumer.on_any
    async def handle(event: Event) -> None:
        await asyncio.sleep(3600)

    await consumer.run(handle_signals=False)
    assert [type(failure.error) for failure in failures] == [TimeoutError]


async def _fail() -> None:
    raise ValueError


@pytest.mark.parametrize(("ordered", "concurrency"), [(False, 1), (True, 1), (False, 4)])
async def test_a_handler_that_outlived_a_failed_task_group_and_then_gets_a_cancellation_has_failed(
    ordered: bool, concurrency: int
) -> None:
    """On Python 3.11 the group leaves its task's cancellation count one too high."""
    cluster = FakeCluster(tries_max=9)
    poisoned = cluster.dispatch("BAD", None)
    good = cluster.dispatch("GOOD", None)
    consumer, failures = consumer_of(cluster, ordered=ordered, concurrency=concurrency, max_tries=3)

    @consumer.on("BAD")
    async def bad(event: Event) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_fail())
        except* ValueError:
            await await_what_is_cancelled()

    @consumer.on("GOOD")
    async def fine(event: Event) -> None: ...

    async with asyncio.timeout(10):
        await consumer.run(handle_signals=False)
    assert (cluster.handled, [dead.id for dead in cluster.dead]) == ([good], [poisoned])
    assert [type(failure.error) for failure in failures] == [HandlerCancelled] * 3


@pytest.mark.parametrize("others", [(), (ValueError("x"),)])
async def test_a_cancellation_in_a_group_is_one_too(others: tuple[Exception, ...]) -> None:
    """As it leaves an `except*` block, before Python 3.11.4 always."""
    cluster = FakeCluster(tries_max=9)
    poisoned = cluster.dispatch("BAD", None)
    cluster.gap()
    good = cluster.dispatch("GOOD", None)
    consumer, failures = consumer_of(cluster, max_tries=2)
    group = BaseExceptionGroup("", [BaseExceptionGroup("", [asyncio.CancelledError()]), *others])

    @consumer.on("BAD")
    async def bad(event: Event) -> None:
        raise group

    @consumer.on_gap
    async def lost(gap: Gap) -> None:
        if len(failures) < 3:
            raise group

    @consumer.on("GOOD")
    async def fine(event: Event) -> None: ...

    async with asyncio.timeout(10):
        await consumer.run(handle_signals=False)
    assert (cluster.handled, [dead.id for dead in cluster.dead]) == ([good], [poisoned])
    assert {type(failure.error) for failure in failures} == {HandlerCancelled}


async def test_a_timeout_that_ends_in_a_group_is_a_timeout() -> None:
    cluster = FakeCluster()
    cluster.dispatch("A", None)
    consumer, failures = consumer_of(cluster, handler_timeout=0.01, max_tries=1)

    @consumer.on_any
    async def handle(event: Event) -> None:
        try:
            raise ExceptionGroup("", [ValueError()])
        except* ValueError:
            await asyncio.sleep(3600)

    await consumer.run(handle_signals=False)
    assert [type(failure.error) for failure in failures] == [TimeoutError]


async def test_a_run_that_is_cancelled_after_a_failed_task_group_ends() -> None:
    cluster = FakeCluster()
    cluster.dispatch("A", None)
    consumer, failures = consumer_of(cluster)
    begun = asyncio.Event()

    @consumer.on_any
    async def handle(event: Event) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_fail())
        except* ValueError:
            begun.set()
            await asyncio.sleep(3600)

    async with asyncio.timeout(10):
        running = asyncio.create_task(consumer.run(handle_signals=False))
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert failures == []


async def test_a_worker_that_fails_ends_the_others_and_run_raises_its_error() -> None:
    cluster = FakeCluster(shards=2)
    cluster.dispatch("WAIT", None, shard=0)
    cluster.dispatch("EXIT", None, shard=1)
    consumer, failures = consumer_of(cluster, concurrency=2)
    begun = asyncio.Event()

    @consumer.on("WAIT")
    async def wait(event: Event) -> None:
        begun.set()
        await asyncio.sleep(3600)

    @consumer.on("EXIT")
    async def leave(event: Event) -> None:
        await begun.wait()
        consumer._intake.end(RuntimeError("the source broke"))

    async with asyncio.timeout(10):
        with pytest.raises(RuntimeError, match="the source broke"):
            await consumer.run(handle_signals=False)
    assert failures == []


async def test_a_loop_that_is_cancelled_in_its_gap_handler_ends() -> None:
    cluster = FakeCluster()
    cluster.gap()
    cluster.dispatch("A", None)
    consumer, failures = consumer_of(cluster)
    begun = asyncio.Event()

    @consumer.on_gap
    async def lost(gap: Gap) -> None:
        begun.set()
        await asyncio.sleep(3600)

    async def loop() -> None:
        async with consumer:
            async for _ in consumer:
                raise AssertionError("no event before the gap is handled")

    async with asyncio.timeout(10):
        looping = asyncio.create_task(loop())
        await begun.wait()
        looping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looping
    assert failures == []
