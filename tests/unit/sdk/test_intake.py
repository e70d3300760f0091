"""The queue of deliveries, and the ack floor."""

import asyncio

import pytest

from sandwich_sdk.delivery import Delivery, Intake
from sandwich_sdk.pull_consumer import NOWHERE, AckFloor, StreamPosition


class Unanswered:
    async def ack(self, *, confirm: bool) -> None: ...
    async def nak(self, delay_s: float) -> None: ...
    async def term(self) -> None: ...
    async def progress(self) -> None: ...


def delivery(seq: int, shard: int = 0) -> Delivery:
    subject = f"sandwich.app.events.all.0.{shard}"
    return Delivery(
        app="app", stream="S", subject=subject, headers=None, payload=b"", stream_seq=seq, tries=1, reply=Unanswered()
    )


async def take(intake: Intake) -> int:
    async with asyncio.timeout(60):
        taken = await intake.next()
    assert taken is not None
    return taken.stream_seq


async def test_one_frame_of_a_shard_is_handled_at_a_time_and_other_shards_continue() -> None:
    intake = Intake(limit=8)
    first, second, other = delivery(1), delivery(2), delivery(3, shard=1)
    for each in (first, second, other):
        intake.push(each)
    assert [await take(intake), await take(intake)] == [1, 3]
    waiting = asyncio.create_task(take(intake))
    intake.settle(other)
    await asyncio.sleep(0)
    assert not waiting.done()
    intake.settle(first)
    assert await waiting == 2


async def test_one_handler_takes_the_frames_in_the_order_in_which_they_arrived() -> None:
    intake = Intake(limit=8)
    frames = [delivery(seq, shard) for seq, shard in enumerate((0, 0, 1, 2, 1, 0), start=1)]
    for each in frames:
        intake.push(each)
    for each in frames:
        assert await take(intake) == each.stream_seq
        intake.settle(each)


async def test_a_frame_to_retry_later_comes_first_for_its_shard_which_waits_for_it() -> None:
    intake = Intake(limit=8)
    intake.patient = False
    first, second, other = delivery(1), delivery(2), delivery(3, shard=1)
    for each in (first, second, other):
        intake.push(each)
    assert await take(intake) == 1
    intake.retry_later(first, 60.0)
    assert await take(intake) == 3
    assert await take(intake) == 1
    intake.settle(first)
    assert await take(intake) == 2


async def test_only_deliveries_that_no_handler_has_begun_with_are_overdue() -> None:
    intake = Intake(limit=8)
    begun, waiting = delivery(1), delivery(2, shard=1)
    intake.push(begun)
    intake.push(waiting)
    assert await take(intake) == 1
    intake.retry_later(begun, 60.0)
    assert intake.overdue("S", 0.0) == [waiting]
    assert intake.overdue("S", 60.0) == []
    assert intake.overdue("T", 0.0) == []
    intake.settle(waiting)
    assert intake.held == [begun]
    intake.stop()
    assert await intake.next() is None


async def test_after_a_frame_was_handed_back_unbegun_the_next_one_of_its_shard_follows() -> None:
    intake = Intake(limit=8)
    first, second = delivery(1), delivery(2)
    intake.push(first)
    intake.push(second)
    intake.settle(first)
    assert await take(intake) == 2
    intake.settle(second)
    intake.push(first)
    assert await take(intake) == 1


async def test_waiting_for_room_returns_0_when_the_intake_stops() -> None:
    intake = Intake(limit=2)
    assert await intake.room("S") == 2
    for seq in (1, 2):
        intake.push(delivery(seq))
    waiting = asyncio.create_task(intake.room("S"))
    await asyncio.sleep(0)
    assert not waiting.done()
    intake.stop()
    assert await waiting == 0


async def test_the_error_of_the_source_is_raised_after_the_last_waiting_frame() -> None:
    intake = Intake(limit=8)
    first = delivery(1)
    intake.push(first)
    intake.end(RuntimeError("no more"))
    assert await take(intake) == 1
    with pytest.raises(RuntimeError, match="no more"):
        await intake.next()


def position(seq: int, published_ns: int = 0) -> StreamPosition:
    return StreamPosition(published_ns or 1000 + seq, seq)


def test_the_ack_floor_is_before_the_first_unacknowledged_frame() -> None:
    ack_floor = AckFloor()
    for seq in (5, 6, 7):
        ack_floor.take(position(seq))
    ack_floor.settle(position(5), redeliver=False)
    assert ack_floor.position.seq == 5
    ack_floor.settle(position(6), redeliver=True)
    ack_floor.settle(position(7), redeliver=False)
    assert ack_floor.position == position(7)


def test_the_ack_floor_of_a_one_at_a_time_durable_stays_before_a_frame_that_was_handed_back() -> None:
    ack_floor = AckFloor(one_at_a_time=True)
    ack_floor.take(position(5))
    ack_floor.settle(position(5), redeliver=True)
    assert ack_floor.position.seq == 4
    ack_floor.take(position(9))
    assert ack_floor.position.seq == 8
    ack_floor.settle(position(9), redeliver=False)
    assert ack_floor.position == position(9)


def test_frames_of_a_stream_created_again_are_newer_although_their_sequences_are_lower() -> None:
    ack_floor = AckFloor()
    assert ack_floor.position == NOWHERE
    for at in (position(9), position(1, 5000), position(2, 5001)):
        ack_floor.take(at)
    assert ack_floor.position == StreamPosition(1009, 8)
    ack_floor.settle(position(9), redeliver=False)
    assert ack_floor.position == StreamPosition(5000, 0)
    for at in (position(1, 5000), position(2, 5001)):
        ack_floor.settle(at, redeliver=False)
    assert ack_floor.position == StreamPosition(5001, 2)
