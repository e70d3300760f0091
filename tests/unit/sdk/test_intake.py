"""Where deliveries wait."""

import asyncio

import pytest

from sandwich_sdk.delivery import Delivery, Intake
from sandwich_sdk.pull_consumer import NOWHERE, Place, Spot


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
    async with asyncio.timeout(5):
        taken = await intake.next()
    assert taken is not None
    return taken.stream_seq


async def test_one_frame_of_a_shard_is_in_hand_at_a_time_and_others_pass_it() -> None:
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


async def test_what_is_put_aside_comes_first_for_its_shard_and_holds_it_up_until_then() -> None:
    intake = Intake(limit=8)
    intake.patient = False
    first, second, other = delivery(1), delivery(2), delivery(3, shard=1)
    for each in (first, second, other):
        intake.push(each)
    assert await take(intake) == 1
    intake.put_aside(first, 60.0)
    assert await take(intake) == 3
    assert await take(intake) == 1
    intake.settle(first)
    assert await take(intake) == 2


async def test_only_what_nobody_has_begun_with_is_overdue() -> None:
    intake = Intake(limit=8)
    begun, waiting = delivery(1), delivery(2, shard=1)
    intake.push(begun)
    intake.push(waiting)
    assert await take(intake) == 1
    intake.put_aside(begun, 60.0)
    assert intake.overdue("S", 0.0) == [waiting]
    assert intake.overdue("S", 60.0) == []
    assert intake.overdue("T", 0.0) == []
    intake.settle(waiting)
    assert intake.held == [begun]
    intake.stop()
    assert await intake.next() is None


async def test_a_frame_that_is_handed_back_unbegun_leaves_its_shard_to_the_next() -> None:
    intake = Intake(limit=8)
    first, second = delivery(1), delivery(2)
    intake.push(first)
    intake.push(second)
    intake.settle(first)
    assert await take(intake) == 2
    intake.settle(second)
    intake.push(first)
    assert await take(intake) == 1


async def test_who_waits_for_room_learns_that_none_is_wanted_when_it_stops() -> None:
    intake = Intake(limit=2)
    assert await intake.room("S") == 2
    for seq in (1, 2):
        intake.push(delivery(seq))
    waiting = asyncio.create_task(intake.room("S"))
    await asyncio.sleep(0)
    assert not waiting.done()
    intake.stop()
    assert await waiting == 0


async def test_the_end_is_told_when_nothing_waits_any_more() -> None:
    intake = Intake(limit=8)
    first = delivery(1)
    intake.push(first)
    intake.end(RuntimeError("no more"))
    assert await take(intake) == 1
    with pytest.raises(RuntimeError, match="no more"):
        await intake.next()


def spot(seq: int, published_ns: int = 0) -> Spot:
    return Spot(published_ns or 1000 + seq, seq)


def test_a_place_is_behind_what_is_still_in_hand() -> None:
    place = Place()
    for seq in (5, 6, 7):
        place.take(spot(seq))
    place.settle(spot(5), again=False)
    assert place.passed.seq == 5
    place.settle(spot(6), again=True)
    place.settle(spot(7), again=False)
    assert place.passed == spot(7)


def test_a_place_of_a_durable_that_gives_out_one_by_one_stays_before_what_was_handed_back() -> None:
    place = Place(in_turn=True)
    place.take(spot(5))
    place.settle(spot(5), again=True)
    assert place.passed.seq == 4
    place.take(spot(9))
    assert place.passed.seq == 8
    place.settle(spot(9), again=False)
    assert place.passed == spot(9)


def test_frames_of_a_stream_made_again_are_newer_though_their_numbers_are_lower() -> None:
    place = Place()
    assert place.passed == NOWHERE
    for at in (spot(9), spot(1, 5000), spot(2, 5001)):
        place.take(at)
    assert place.passed == Spot(1009, 8)
    place.settle(spot(9), again=False)
    assert place.passed == Spot(5000, 0)
    for at in (spot(1, 5000), spot(2, 5001)):
        place.settle(at, again=False)
    assert place.passed == Spot(5001, 2)
