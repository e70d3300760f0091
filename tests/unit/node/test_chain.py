"""One shard's chain of frames: fences, settling of unknown outcomes, parts."""

import random

import pytest

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_node.publishing.chain import Chain, Checkpoint
from sandwich_node.publishing.frames import EventBuffer, Frame, ShardOrigin, frames_of
from sandwich_node.publishing.log import Fenced, LogBusy, LogUnavailable
from sandwich_sdk.wire.frame import inflate, split_events
from tests.support.memory_log import MemoryLog

ORIGIN = ShardOrigin(shard=ShardId("bot", 1, 7), count=8, route="bot", bot="42")


def chain(log: MemoryLog, fence: int) -> Chain:
    async def pause(_: float) -> None:
        return None

    return Chain(log, ORIGIN, fence=Fence(fence), pause=pause, rng=random.Random(1))


def event(seq: int, kind: str = "MESSAGE_CREATE", pad: str = "") -> bytes:
    return b'{"t":"%s","s":%d,"op":0,"d":{"x":"%s"}}' % (kind.encode(), seq, pad.encode())


def buffer(session: str = "aa", last: int = 0) -> EventBuffer:
    made = EventBuffer(ORIGIN)
    made.start_session(session, last)
    return made


def frame_of(events: EventBuffer) -> Frame:
    batch = events.take()
    assert batch is not None
    (frame,) = frames_of(batch, [item.line for item in batch.items], {})
    return frame


async def fill(log: MemoryLog, writer: Chain, first: int, last: int) -> None:
    events = buffer(last=first - 1)
    for seq in range(first, last + 1):
        events.push(event(seq), "MESSAGE_CREATE", seq)
    await writer.append(frame_of(events))


def stored(log: MemoryLog) -> list[int]:
    return [s for _, _, _, h in log.messages if h.count for s in range(h.first_seq, h.last_seq + 1)]


async def test_a_new_owner_continues_where_the_chain_ended() -> None:
    log = MemoryLog()
    first = chain(log, 10)
    assert await first.take_over() == Checkpoint("", 0)
    await fill(log, first, 1, 3)
    assert await chain(log, 11).take_over() == Checkpoint("aa", 3)
    assert await chain(log, 12).take_over() == Checkpoint("aa", 3)


async def test_an_older_owner_is_refused_after_the_fence() -> None:
    log = MemoryLog()
    old, new = chain(log, 10), chain(log, 11)
    await old.take_over()
    await fill(log, old, 1, 3)
    await new.take_over()
    with pytest.raises(Fenced):
        await fill(log, old, 4, 5)
    assert stored(log) == [1, 2, 3]


async def test_an_older_claim_cannot_take_over_from_a_newer_one() -> None:
    log = MemoryLog()
    await chain(log, 11).take_over()
    with pytest.raises(Fenced):
        await chain(log, 10).take_over()


@pytest.mark.parametrize("landed", [True, False])
async def test_an_append_without_an_answer_is_stored_once(landed: bool) -> None:
    log = MemoryLog()
    writer = chain(log, 10)
    await writer.take_over()
    log.fail_next = [(LogUnavailable("timeout"), landed), (LogBusy("again"), False)]
    await fill(log, writer, 1, 3)
    await fill(log, writer, 4, 4)
    assert stored(log) == [1, 2, 3, 4]


async def test_a_fence_without_an_answer_is_not_taken_for_another_owner() -> None:
    log = MemoryLog()
    writer = chain(log, 10)
    log.fail_next = [(LogUnavailable("timeout"), True)]
    await writer.take_over()
    await fill(log, writer, 1, 1)
    assert stored(log) == [1]


def gaps(log: MemoryLog) -> list[tuple[str, int]]:
    return [(h.session, h.last_seq) for _, _, _, h in log.messages if h.kind == "gap"]


async def test_a_stream_deleted_by_hand_is_made_again_and_the_chain_goes_on_behind_a_gap() -> None:
    log = MemoryLog()
    writer = chain(log, 10)
    await writer.take_over()
    await fill(log, writer, 1, 1)
    log.messages.clear()
    log.streams.clear()
    await fill(log, writer, 2, 2)
    assert [h.kind for _, _, _, h in log.messages] == ["gap", ""], "the gap is in the chain before events go on"
    assert (gaps(log), stored(log)) == ([("aa", 1)], [2])
    assert log.streams == {"SANDWICH_bot"}
    await fill(log, writer, 3, 3)
    assert (gaps(log), stored(log)) == ([("aa", 1)], [2, 3])
    assert await chain(log, 11).take_over() == Checkpoint("aa", 3)


async def test_a_stream_that_was_purged_before_a_session_began_owes_no_gap() -> None:
    log = MemoryLog()
    writer = chain(log, 10)
    await writer.take_over()
    log.messages.clear()
    await fill(log, writer, 1, 2)
    assert (gaps(log), stored(log)) == ([], [1, 2])


async def test_a_stream_that_lost_its_end_says_after_which_event() -> None:
    log = MemoryLog()
    writer = chain(log, 10)
    await writer.take_over()
    await fill(log, writer, 1, 3)
    await fill(log, writer, 4, 6)
    del log.messages[-1]
    await fill(log, writer, 7, 7)
    assert (gaps(log), stored(log)) == ([("aa", 3)], [1, 2, 3, 7])


async def test_an_older_owner_that_writes_into_an_emptied_stream_does_not_hold_up_the_newer_one() -> None:
    log = MemoryLog()
    old, new = chain(log, 10), chain(log, 11)
    await old.take_over()
    await fill(log, old, 1, 1)
    await new.take_over()
    log.messages.clear()
    log._next = 50
    await fill(log, old, 2, 2)
    await fill(log, new, 2, 3)
    assert stored(log)[-2:] == [2, 3]
    with pytest.raises(Fenced):
        await fill(log, old, 3, 3)


async def test_parts_whose_stream_is_deleted_between_them_are_all_sent_again() -> None:
    log = MemoryLog(part_bytes=1000)
    writer = chain(log, 10)
    await writer.take_over()
    await fill(log, writer, 1, 1)
    events = buffer(last=1)
    pad = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=9000))
    events.push(event(2, pad=pad), "GUILD_CREATE", 2)
    frame = frame_of(events)
    log.forget_after = 3
    await writer.append(frame)
    parts = [h.part for _, _, _, h in log.messages if h.part]
    total = len(parts)
    assert parts == [(i + 1, total) for i in range(total)]
    assert total > 3
    assert gaps(log) == [("aa", 1)]


async def test_a_large_event_travels_in_parts_that_share_its_sequence() -> None:
    log = MemoryLog(part_bytes=1000)
    writer = chain(log, 10)
    await writer.take_over()
    events = buffer()
    pad = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=9000))
    events.push(event(1, pad=pad), "GUILD_CREATE", 1)
    await writer.append(frame_of(events))
    parts = [(h.part, h.first_seq, h.last_seq) for _, _, _, h in log.messages[1:]]
    total = len(parts)
    assert total > 2
    assert parts == [((i + 1, total), 1, 1) for i in range(total)]
    assert len(split_events(inflate(b"".join(p for _, _, p, _ in log.messages[1:])))) == 1


async def test_parts_cut_short_by_a_crash_do_not_count_as_stored() -> None:
    log = MemoryLog(part_bytes=1000)
    writer = chain(log, 10)
    await writer.take_over()
    await fill(log, writer, 1, 4)
    events = buffer(last=4)
    pad = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=9000))
    events.push(event(5, pad=pad), "GUILD_CREATE", 5)
    await writer.append(frame_of(events))
    del log.messages[-1]
    assert await chain(log, 11).take_over() == Checkpoint("aa", 4)


def end_frame(last_seq: int) -> Frame:
    return Frame("aa", last_seq, last_seq, kind="end", note=b"{}")


@pytest.mark.parametrize("landed", [True, False])
async def test_an_end_frame_of_unknown_outcome_is_stored_once(landed: bool) -> None:
    log = MemoryLog()
    writer = chain(log, 10)
    await writer.take_over()
    await fill(log, writer, 1, 3)
    log.fail_next = [(LogUnavailable("timeout"), landed)]
    assert await writer.append(end_frame(3)) == 3
    assert [h.kind for _, _, _, h in log.messages] == ["fence", "", "end"]


async def test_nothing_is_appended_to_a_chain_that_has_ended_whatever_lies_behind_its_end() -> None:
    log = MemoryLog()
    writer = chain(log, 10)
    await writer.take_over()
    await fill(log, writer, 1, 3)
    await writer.append(end_frame(3))
    log.intrude("sandwich.bot.events.all.1.7")
    log.intrude("sandwich.bot.events.voice.1.7")
    ended = await chain(log, 11).take_over()
    assert (ended, ended.end) == (Checkpoint("aa", 3), 3)
    assert [h.kind for _, _, _, h in log.messages] == ["fence", "", "end"]


async def test_the_hold_of_a_chain_is_in_every_frame_and_in_the_next_owners_fence() -> None:
    log = MemoryLog()
    writer = chain(log, 10)
    await writer.take_over()
    writer.hold = 0
    await writer.append(Frame("aa", 3, 3, kind="marker"))
    after = chain(log, 11)
    assert (await after.take_over()).hold == 0
    after.hold = None
    await fill(log, after, 4, 4)
    assert [h.hold for _, _, _, h in log.messages] == [None, 0, 0, None]
    assert (await chain(log, 12).take_over()).hold is None


async def test_a_marker_of_which_parts_are_missing_is_a_checkpoint_all_the_same() -> None:
    log = MemoryLog(part_bytes=100)
    writer = chain(log, 10)
    await writer.take_over()
    await writer.append(Frame("aa", 3, 3, kind="marker", note=b"x" * 250))
    del log.messages[-1]
    assert await chain(log, 11).take_over() == Checkpoint("aa", 3)
