"""The consumer against a real nats-server; a small publisher writes frames with the SDK's wire contract."""

import asyncio
import base64
import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats
import pytest

from sandwich_node.dev.embedded import EmbeddedNats
from sandwich_sdk import Consumer, Event, Failure, Gap, GroupConflict, NewerWireVersion, Unreachable
from sandwich_sdk.wire.headers import FENCE, GAP, MARKER, VERSION, FrameHeaders
from tests.support.examples import example, settings
from tests.support.processes import started
from tests.support.publisher import Publisher, settled, take, until

pytestmark = pytest.mark.contract


async def test_everything_arrives_in_order_and_is_acknowledged(server: EmbeddedNats, publisher: Publisher) -> None:
    await publisher.control(FENCE)
    for _ in range(150):
        await publisher.events(4)
    await publisher.control(MARKER)
    consumer = Consumer(server.url, app="bot", group="g", start="all", max_in_flight=16)
    assert await take(consumer, 600) == list(range(1, 601))
    again = Consumer(server.url, app="bot", group="g")
    await publisher.events(1)
    assert await take(again, 1) == [601]
    await settled(publisher, "g")


async def test_frames_of_a_worker_that_vanished_are_delivered_to_the_next_one(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    await publisher.events(2)
    await publisher.events(2)
    dead = Consumer(server.url, app="bot", group="g", start="all", ack_wait=1.0)
    seen = [await anext(dead), await anext(dead), await anext(dead)]
    assert [event.seq for event in seen] == [1, 2, 3]
    # As after kill -9: the connection is gone, the current frame is neither handed back nor acknowledged.
    assert dead._pump is not None
    dead._pump.cancel()
    await dead._source.close()
    alive = Consumer(server.url, app="bot", group="g", ack_wait=1.0)
    assert await take(alive, 2) == [3, 4]


async def test_a_failed_frame_is_delivered_again_after_its_delay_without_the_events_already_handled(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    consumer = Consumer(server.url, app="bot", group="g", start="all", nak_delay=0.05)
    failures: list[Failure] = []
    consumer.on_error(failures.append)
    seen: list[int] = []

    @consumer.on("A")
    async def handle(event: Event) -> None:
        seen.append(event.data["n"])
        if seen == [1, 2]:
            raise RuntimeError("once")

    await publisher.events(3)
    await publisher.events(1)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(consumer.run(handle_signals=False))
        await until(lambda: len(seen) == 5)
        await settled(publisher, "g")
        await consumer.close()
    assert seen[:3] == [1, 2, 3]
    assert sorted(seen[3:]) == [2, 4]
    assert [failure.tries for failure in failures] == [1]


async def test_parts_make_one_event_and_a_fence_discards_an_unfinished_run(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    headers, payload = publisher.frame(1, pad=base64.b64encode(os.urandom(3000)))
    cuts = [payload[:1000], payload[1000:2000], payload[2000:]]

    async def parts(epoch: int, count: int) -> None:
        for index in range(1, count + 1):
            part = FrameHeaders(
                session="abc", first_seq=1, last_seq=1, count=1, epoch=epoch, types=headers.types, part=(index, 3)
            )
            await publisher.send(part.encode(), cuts[index - 1])

    await parts(1, 2)
    await publisher.control(FENCE, epoch=2)
    await parts(2, 3)
    await publisher.events(1)
    consumer = Consumer(server.url, app="bot", group="g", start="all")
    assert await take(consumer, 2) == [1, 2]
    await settled(publisher, "g")


async def test_parts_that_are_still_being_written_are_waited_for(server: EmbeddedNats, publisher: Publisher) -> None:
    headers, payload = publisher.frame(1)
    half = len(payload) // 2

    def part(index: int) -> dict[str, str]:
        return {**headers.encode(), "Sandwich-Part": f"{index}/2"}

    await publisher.send(part(1), payload[:half])
    consumer = Consumer(server.url, app="bot", group="g", start="all")
    async with asyncio.TaskGroup() as tasks:
        taken = tasks.create_task(take(consumer, 1))
        await until(lambda: len(consumer._intake.held) == 1)
        await publisher.send(part(2), payload[half:])
    assert taken.result() == [1]


async def test_only_wanted_types_arrive_and_the_rest_is_acknowledged(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    await publisher.events(5, types=("B", "C"))
    await publisher.send({**publisher.frame(1, types=("B",))[0].encode()}, b"never inflated")
    await publisher.events(2, types=("A", "B"))
    consumer = Consumer(server.url, app="bot", group="g", start="all", types=["A"])
    assert await take(consumer, 1) == [8]
    await settled(publisher, "g")


async def test_a_group_starts_at_a_time(server: EmbeddedNats, publisher: Publisher) -> None:
    await publisher.events(2)
    async with asyncio.timeout(60):
        before = datetime.now(UTC)
        while datetime.now(UTC) == before:  # noqa: ASYNC110
            await asyncio.sleep(0)
    middle = datetime.now(UTC)
    await publisher.events(2)
    consumer = Consumer(server.url, app="bot", group="g", start=middle)
    assert await take(consumer, 2) == [3, 4]


async def test_two_workers_of_a_group_share_the_events(server: EmbeddedNats, publisher: Publisher) -> None:
    seen: dict[int, list[int]] = {0: [], 1: []}

    def worker(number: int) -> Consumer:
        consumer = Consumer(server.url, app="bot", group="g", start="all", max_in_flight=2)

        @consumer.on_any
        async def handle(event: Event) -> None:
            seen[number].append(event.data["n"])
            await asyncio.sleep(0.001)

        return consumer

    workers = [worker(0), worker(1)]
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for each in workers:
            tasks.create_task(each.run(handle_signals=False))
        # Wait for both workers: one that has not joined yet receives nothing.
        while publisher.seq < 60 or not (seen[0] and seen[1]):
            await publisher.events(1)
        await until(lambda: len(seen[0]) + len(seen[1]) >= publisher.seq)
        await settled(publisher, "g")
        for each in workers:
            await each.close()
    assert sorted(seen[0] + seen[1]) == list(range(1, publisher.seq + 1))


async def test_a_slow_handler_is_not_overtaken_by_a_redelivery(server: EmbeddedNats, publisher: Publisher) -> None:
    await publisher.events(1)
    ack_wait = 1.5  # in-progress is sent every half second: a loaded machine may be late by a second
    consumer = Consumer(server.url, app="bot", group="g", start="all", ack_wait=ack_wait)
    other = Consumer(server.url, app="bot", group="g", start="all", ack_wait=ack_wait)
    seen: list[Event] = []

    async def handle(event: Event) -> None:
        seen.append(event)
        await asyncio.sleep(2.5 * ack_wait)

    for each in (consumer, other):
        each.on_any(handle)
    async with asyncio.TaskGroup() as tasks:
        for each in (consumer, other):
            tasks.create_task(each.run(handle_signals=False))
        await until(lambda: bool(seen))
        await settled(publisher, "g")
        for each in (consumer, other):
            await each.close()
    assert len(seen) == 1


async def test_a_corrupt_frame_is_given_up_and_the_others_continue(server: EmbeddedNats, publisher: Publisher) -> None:
    headers, payload = publisher.frame(1)
    broken = await publisher.send(headers.encode(), payload[:-3])
    await publisher.events(1)
    consumer = Consumer(server.url, app="bot", group="g", start="all", nak_delay=0.02, corrupt_tries=2)
    failures: list[Failure] = []
    consumer.on_error(failures.append)
    async with asyncio.TaskGroup() as tasks:
        taken = tasks.create_task(take(consumer, 2))
        await until(lambda: len(failures) == 2)
        await publisher.events(1)
    assert taken.result() == [2, 3]
    assert [(failure.stream_seq, failure.tries, failure.given_up) for failure in failures] == [
        (broken, 1, False),
        (broken, 2, True),
    ]
    await settled(publisher, "g")


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_foreign_message_is_given_up_and_delays_neither_frames_nor_parts(
    server: EmbeddedNats, publisher: Publisher, ordered: bool
) -> None:
    foreign = [
        {},
        {VERSION: "1"},
        {VERSION: "9" * 5000},
        {VERSION: "\u0663"},
        FrameHeaders(session="x", first_seq=1, last_seq=1, count=1, epoch=7).encode(),
    ]
    for of_others in foreign:
        await publisher.send(of_others, b"foreign")
    one_part = FrameHeaders(session="x", first_seq=1, last_seq=1, count=1, epoch=7, part=(1, 2)).encode()
    await publisher.client.jetstream().publish("sandwich.bot.events.all.nowhere", b"foreign", headers=one_part)
    headers, payload = publisher.frame(1, pad=b"x" * 100)
    half = len(payload) // 2
    await publisher.send({**headers.encode(), "Sandwich-Part": "1/2"}, payload[:half])
    await publisher.send(foreign[1], b"foreign")
    await publisher.send({**headers.encode(), "Sandwich-Part": "2/2"}, payload[half:])
    await publisher.events(1)
    options: dict[str, Any] = {"app": "bot", "group": "g", "start": "all", "nak_delay": 0.01, "ordered": ordered}
    consumer = Consumer(server.url, **options)
    failures: list[Failure] = []
    consumer.on_error(failures.append)

    def given_up() -> list[int]:
        return sorted(failure.stream_seq for failure in failures if failure.given_up)

    async with asyncio.TaskGroup() as tasks:
        taken = tasks.create_task(take(consumer, 3))
        await until(lambda: len(given_up()) == (6 if ordered else 7), 15)
        await publisher.events(1)
    assert taken.result() == [1, 2, 3]
    assert given_up() == [1, 2, 3, 4, 5, *([] if ordered else [6]), 8]


async def test_a_frame_of_a_newer_cluster_is_kept(server: EmbeddedNats, publisher: Publisher) -> None:
    headers, payload = publisher.frame(1)
    await publisher.send({**headers.encode(), VERSION: "2"}, payload)
    consumer = Consumer(server.url, app="bot", group="g", start="all", nak_delay=0.01, corrupt_tries=1)
    failures: list[Failure] = []
    consumer.on_error(failures.append)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(take(consumer, 1))
        await until(lambda: len(failures) >= 3)
        await consumer.close()
    assert waiting.result() == []
    assert isinstance(failures[0].error, NewerWireVersion)
    assert not any(failure.given_up for failure in failures)
    assert await publisher.unsettled("g") == 1


async def test_a_gap_is_reported_with_its_detail(server: EmbeddedNats, publisher: Publisher) -> None:
    await publisher.events(1)
    await publisher.control(GAP, b'{"at":1700000000}')
    consumer = Consumer(server.url, app="bot", group="g", start="all")
    gaps: list[Gap] = []

    @consumer.on_gap
    async def lost(gap: Gap) -> None:
        gaps.append(gap)
        await consumer.close()

    @consumer.on_any
    async def handle(event: Event) -> None: ...

    async with asyncio.timeout(60):
        await consumer.run(handle_signals=False)
    assert [(gap.last_seq, gap.detail) for gap in gaps] == [(1, {"at": 1700000000})]


async def test_a_stream_that_does_not_exist_yet_is_waited_for(
    server: EmbeddedNats, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    late = Publisher(publisher.client, "late")
    consumer = Consumer(server.url, app="late", group="g", start="all")
    async with asyncio.TaskGroup() as tasks:
        taken = tasks.create_task(take(consumer, 1))
        await until(lambda: "stream not found" in caplog.text)
        await late.make_stream()
        await late.events(1)
    assert taken.result() == [1]


async def test_it_continues_after_nats_restarted_and_after_the_group_was_deleted(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    consumer = Consumer(server.url, app="bot", group="g", start="new", ack_wait=1.0)
    seen: list[int] = []

    @consumer.on_any
    async def handle(event: Event) -> None:
        seen.append(event.data["n"])

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(consumer.run(handle_signals=False))
        async with asyncio.timeout(60):
            while True:
                try:
                    await publisher.unsettled("g")
                    break
                except nats.js.errors.NotFoundError:
                    await asyncio.sleep(0.01)
        await publisher.events(1)
        await until(lambda: seen == [1])
        await server.kill()
        await server.start()
        await until(lambda: publisher.client.is_connected)
        await publisher.events(1)
        await until(lambda: seen == [1, 2])
        await settled(publisher, "g")
        await publisher.client.jetstream().delete_consumer("SANDWICH_bot", "g")
        await publisher.events(1)
        await until(lambda: seen == [1, 2, 3])
        await consumer.close()


async def test_a_group_that_reads_another_lane_is_refused(server: EmbeddedNats, publisher: Publisher) -> None:
    async with asyncio.TaskGroup() as tasks:
        first = Consumer(server.url, app="bot", group="g", start="all")
        await publisher.events(1)
        tasks.create_task(take(first, 1))
    second = Consumer(server.url, app="bot", group="g", lane="chat")
    with pytest.raises(GroupConflict, match="chat"):
        await anext(second)
    await second.close()


async def test_sigint_ends_a_program_that_runs_handlers_with_its_events_acknowledged(
    server: EmbeddedNats, publisher: Publisher, tmp_path: Path
) -> None:
    await publisher.events(2)
    command = await example("sdk.py", tmp_path)
    piped = {"env": settings(server.url), "stdout": asyncio.subprocess.PIPE}
    async with asyncio.timeout(60), started(*command, "bot", "example", **piped) as process:
        assert process.stdout is not None
        await process.stdout.readline()
        await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
    assert await publisher.unsettled("example") == 0


async def test_a_missing_server_is_a_clear_error_after_the_timeout() -> None:
    consumer = Consumer("nats://user:hunter2@127.0.0.1:9", app="bot", connect_timeout=0.2)
    with pytest.raises(Unreachable, match=r"at 127\.0\.0\.1:9$") as caught:
        await anext(consumer)
    assert "hunter2" not in str(caught.value)
    await consumer.close()


async def test_closing_while_nats_is_away_ends_the_wait() -> None:
    consumer = Consumer("nats://127.0.0.1:9", app="bot")

    @consumer.on_any
    async def handle(event: Event) -> None: ...

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(consumer.run(handle_signals=False))
        await until(lambda: consumer._running)
        await asyncio.sleep(0)
        await consumer.close()
    assert running.done()
