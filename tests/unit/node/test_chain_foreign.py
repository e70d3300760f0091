"""Messages that no node wrote, on the subjects of a shard's chain."""

import random
from contextlib import suppress

import pytest

from sandwich_coordinator.ids import Fence
from sandwich_node.publishing.chain import Chain, Checkpoint
from sandwich_node.publishing.foreign_messages import ChainEnd, Search, Walk
from sandwich_node.publishing.log import Fenced, Foreign, LogUnavailable, Tail
from sandwich_sdk.wire.headers import FrameHeaders
from tests.support.memory_log import MemoryLog
from tests.unit.node.test_chain import buffer, chain, event, fill, frame_of, gaps, stored

SUBJECT = "sandwich.bot.events.all.1.7"
OTHER_LANE = "sandwich.bot.events.anything.1.7"
OTHER_SHARD = "sandwich.bot.events.all.1.8"


def kinds(log: MemoryLog) -> list[str]:
    return [headers.kind for _, _, _, headers in log.messages]


async def started(log: MemoryLog, fence: int = 10) -> Chain:
    writer = chain(log, fence)
    await writer.take_over()
    return writer


@pytest.mark.parametrize("subject", [SUBJECT, OTHER_LANE])
@pytest.mark.parametrize("many", [1, 3, 500])
async def test_the_chain_goes_on_behind_what_no_node_wrote_and_says_so(subject: str, many: int) -> None:
    log = MemoryLog()
    writer = await started(log)
    await fill(log, writer, 1, 3)
    for _ in range(many):
        log.intrude(subject)
    await fill(log, writer, 4, 4)
    await fill(log, writer, 5, 5)
    assert (stored(log), gaps(log), writer.foreign) == ([1, 2, 3, 4, 5], [("aa", 4)], many)
    assert await chain(log, 11).take_over() == Checkpoint("aa", 5)


@pytest.mark.parametrize("many", [1, 3, 500])
async def test_a_new_owner_finds_the_last_frame_before_what_no_node_wrote(many: int) -> None:
    log = MemoryLog()
    await fill(log, await started(log), 1, 3)
    for index in range(many):
        log.intrude(SUBJECT if index % 2 else OTHER_SHARD)
    log.intrude(OTHER_LANE)
    new = chain(log, 11)
    assert await new.take_over() == Checkpoint("aa", 3)
    assert (kinds(log)[-2:], new.foreign) == (["fence", "gap"], many // 2 + 1)
    await fill(log, new, 4, 5)
    assert stored(log) == [1, 2, 3, 4, 5]


async def test_a_chain_of_nothing_but_foreign_messages_begins_behind_them() -> None:
    log = MemoryLog()
    log.intrude(SUBJECT)
    log.intrude(SUBJECT)
    writer = chain(log, 10)
    assert await writer.take_over() == Checkpoint("", 0)
    await fill(log, writer, 1, 2)
    assert (stored(log), writer.foreign) == ([1, 2], 2)


@pytest.mark.parametrize("landed", [True, False])
async def test_an_append_without_an_answer_behind_which_another_client_published_is_stored_once(landed: bool) -> None:
    log = MemoryLog()
    writer = await started(log)
    await fill(log, writer, 1, 1)
    log.fail_next = [(LogUnavailable("timeout"), landed)]
    reads = 0

    def publish_before_the_first_read() -> None:
        nonlocal reads
        # A landed append is the first request, its settling the next; one that did not land takes no effect.
        reads += 1
        if reads == (2 if landed else 1):
            log.intrude(SUBJECT)

    log.before = publish_before_the_first_read
    await fill(log, writer, 2, 3)
    assert (stored(log), writer.foreign) == ([1, 2, 3], 1)


async def test_a_foreign_message_does_not_hide_a_newer_owners_fence() -> None:
    log = MemoryLog()
    old, new = await started(log, 10), chain(log, 11)
    await fill(log, old, 1, 3)
    log.intrude(SUBJECT)
    await new.take_over()
    log.intrude(SUBJECT)
    with pytest.raises(Fenced):
        await fill(log, old, 4, 4)
    with pytest.raises(Fenced):
        await old.take_over()
    await fill(log, new, 4, 5)
    assert stored(log) == [1, 2, 3, 4, 5]


async def test_parts_go_on_behind_a_foreign_message_and_nothing_comes_between_but_it() -> None:
    log = MemoryLog(part_bytes=1000)
    writer = await started(log)
    events = buffer()
    pad = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=9000))
    events.push(event(1, pad=pad), "GUILD_CREATE", 1)
    appends = 0

    def publish_once() -> None:
        nonlocal appends
        appends += 1
        if appends == 3:
            log.intrude(SUBJECT)

    log.before = publish_once
    await writer.append(frame_of(events))
    found = [headers.part for _, _, _, headers in log.messages if headers.kind != "fence"]
    total = len(found) - 1
    assert (found, writer.foreign) == ([*((index, total) for index in range(1, total + 1)), None], 1)
    assert kinds(log)[-1] == "gap"


async def test_a_foreign_message_that_is_removed_again_is_no_loss() -> None:
    log = MemoryLog()
    writer = await started(log)
    await fill(log, writer, 1, 1)
    log.intrude(SUBJECT)
    requests = 0

    def expire() -> None:
        # The refused append, the two reads that settle it, and gone before the append behind it.
        nonlocal requests
        requests += 1
        if requests == 5:
            log.foreign.clear()

    log.before = expire
    await fill(log, writer, 2, 2)
    await fill(log, writer, 3, 3)
    assert (stored(log), gaps(log)) == ([1, 2, 3], [("aa", 2)])


async def test_a_stream_that_lost_its_end_before_a_foreign_message_says_so() -> None:
    log = MemoryLog()
    writer = await started(log)
    await fill(log, writer, 1, 3)
    await fill(log, writer, 4, 6)
    log.intrude(SUBJECT)
    del log.messages[-1]
    await fill(log, writer, 7, 7)
    assert (gaps(log), stored(log)) == ([("aa", 3), ("aa", 7)], [1, 2, 3, 7])


async def test_a_purged_stream_with_a_foreign_message_alone_says_that_nothing_is_left() -> None:
    log = MemoryLog()
    writer = await started(log)
    await fill(log, writer, 1, 1)
    log.messages.clear()
    log.intrude(SUBJECT)
    await fill(log, writer, 2, 2)
    assert (gaps(log), stored(log)) == ([("aa", 1), ("aa", 2)], [2])


@pytest.mark.parametrize("seed", range(25))
async def test_nothing_is_lost_or_doubled_whatever_is_published_among_faults_and_moves(seed: int) -> None:
    rng, log = random.Random(seed), MemoryLog()

    def weather() -> None:
        if rng.random() < 0.2:
            log.intrude(rng.choice([SUBJECT, OTHER_LANE, OTHER_SHARD]))

    log.before = weather
    writers, fence = [await started(log, 1)], 1
    for _ in range(25):
        if rng.random() < 0.2:
            fence += 1
            writers.append(chain(log, fence))
            await writers[-1].take_over()
        if rng.random() < 0.3:
            log.fail_next = [(LogUnavailable("timeout"), rng.random() < 0.5)]
        for old in writers[-3:-1]:
            with suppress(Fenced):
                await fill(log, old, 900, 900)
        last = writers[-1].checkpoint.last_seq
        await fill(log, writers[-1], last + 1, last + rng.randint(1, 3))
    assert stored(log) == list(range(1, writers[-1].checkpoint.last_seq + 1))


def headers(fence: int, last: int = 1) -> FrameHeaders:
    return FrameHeaders(session="aa", first_seq=last, last_seq=last, count=1, epoch=fence)


def test_a_walk_distinguishes_our_append_from_what_others_wrote() -> None:
    walk = Walk(Fence(10), headers(10, 5))
    for message in (Foreign(3), Tail(4, headers(10, 5)), Foreign(6), Tail(7, headers(9))):
        walk.see(message)
    assert (walk.landed, walk.foreign, walk.left) == (4, 2, Tail(7, headers(9)))
    with pytest.raises(Fenced):
        walk.see(Tail(8, headers(11)))


@pytest.mark.parametrize("at", [1, 2, 900, 936, 999])
def test_a_search_finds_the_last_frame_at_any_distance(at: int) -> None:
    search, last = Search(1000), Tail(at, headers(10))
    messages: dict[int, Tail | Foreign] = {
        at: last,
        **{seq: Foreign(seq) for seq in range(at + 1, 1001)},
    }
    while True:
        look = search.start
        while look:
            look = search.see(next((messages[seq] for seq in range(look, 1001) if seq in messages), None))
        if search.is_over:
            break
        search.widen()
    assert search.chain_end == ChainEnd(last, 1000, 1000 - at)


@pytest.mark.parametrize("events", [1, 40, 600])
@pytest.mark.parametrize("garbage", [0, 3])
async def test_a_stream_that_was_copied_to_other_servers_goes_on_where_it_was(events: int, garbage: int) -> None:
    log = MemoryLog()
    writer = await started(log)
    for seq in range(1, events + 1):
        await fill(log, writer, seq, seq)
    log.copied = {seq for seq, _, _, _ in log.messages}
    for _ in range(garbage):
        log.intrude(SUBJECT)
    new = chain(log, 11)
    assert await new.take_over() == Checkpoint("aa", events)
    assert new.foreign == garbage
    await fill(log, new, events + 1, events + 1)
    assert await chain(log, 12).take_over() == Checkpoint("aa", events + 1)
    assert stored(log) == list(range(1, events + 2))


async def test_copied_frames_behind_a_node_s_own_are_not_believed_however_many() -> None:
    log = MemoryLog()
    writer = await started(log)
    await fill(log, writer, 1, 3)
    forged = await started(MemoryLog(), 10**9)
    for seq in range(1000, 1600):
        await fill(forged._store, forged, seq, seq)  # type: ignore[arg-type]
    for _, subject, payload, headers in forged._store.messages:  # type: ignore[attr-defined]
        log.copied.add(log._next)
        log.messages.append((log._next, subject, payload, headers))
        log._next += 1
    new = chain(log, 11)
    assert await new.take_over() == Checkpoint("aa", 3)
    await fill(log, new, 4, 4)
    assert await chain(log, 12).take_over() == Checkpoint("aa", 4)
