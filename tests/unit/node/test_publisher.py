"""A shard's publisher on virtual time: what its last frame says is where the next owner goes on."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_node.publishing.chain import Chain, Checkpoint
from sandwich_node.publishing.frames import Batch, EventBuffer, ShardOrigin
from sandwich_node.publishing.log import (
    Fenced,
    LogBusy,
    LogError,
    LogUnavailable,
    PayloadTooLarge,
    StreamMissing,
    WrongLast,
)
from sandwich_node.publishing.publisher import ENOUGH_EVENTS, UNPUBLISHED_MAX_S, ShardPublisher
from sandwich_node.publishing.ticks import WINDOW_S, Ticks
from sandwich_sdk.wire.headers import END
from tests.support.memory_log import MemoryLog
from verification.simulation.loop import run_virtual

ORIGIN = ShardOrigin(shard=ShardId("bot", 0, 3), count=16, route="7", bot="9")


def chain(log: MemoryLog, fence: int) -> Chain:
    return Chain(log, ORIGIN, fence=Fence(fence), pause=asyncio.sleep, rng=random.Random(fence))


class SlowEnricher:
    """Takes a second for each batch; publishes nothing that is not wanted."""

    is_whole = True

    def __init__(self) -> None:
        self.ttls: dict[str, float] = {}
        self.dropped = frozenset[int]()

    def begin(self, batch: Batch, confirmed: int, on_lines: Callable[[Sequence[bytes]], None]) -> bool:
        return False

    async def finish(self, batch: Batch, confirmed: int) -> Sequence[bytes]:
        await asyncio.sleep(1)
        return [b"" if item.seq in self.dropped else item.line for item in batch.items]


class Shard:
    """A running publisher with session "aa"."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.enricher = SlowEnricher()
        self.chain = chain(self.log, 1)
        given: Any = self.enricher
        self.publisher = ShardPublisher(EventBuffer(ORIGIN), self.chain, enricher=given)

    async def start(self, tasks: asyncio.TaskGroup) -> asyncio.Task[None]:
        await self.chain.take_over()
        self.publisher.buffer.start_session("aa", 0)
        return tasks.create_task(self.publisher.run())

    def read(self, first: int, last: int) -> None:
        for seq in range(first, last + 1):
            self.publisher.push(b'{"t":"MESSAGE_CREATE","s":%d,"op":0,"d":{}}' % seq, "MESSAGE_CREATE", seq)

    async def next_owner_begins_at(self) -> Checkpoint:
        return await chain(self.log, 2).take_over()


def test_a_marker_that_is_asked_for_while_events_wait_does_not_point_behind_them() -> None:
    async def play() -> None:
        shard = Shard()
        async with asyncio.TaskGroup() as tasks:
            running = await shard.start(tasks)
            shard.read(1, 5)
            await asyncio.sleep(0.5)
            shard.read(6, 9)
            shard.publisher.mark()
            await shard.publisher.flushed()
            assert await shard.next_owner_begins_at() == Checkpoint("aa", 9)
            running.cancel()

    run_virtual(play())


@pytest.mark.parametrize("asks", ["before", "while it is stored", "after"])
def test_nothing_comes_behind_the_end_of_a_chain(asks: str) -> None:
    """The next owner would take the shard for one that goes on, and publish what the next group published."""

    async def play() -> None:
        shard = Shard()
        publisher = shard.publisher
        async with asyncio.TaskGroup() as tasks:
            running = await shard.start(tasks)
            shard.read(1, 5)
            await publisher.flushed()
            if asks == "before":
                publisher.mark()
            for lane in ("all", "slow"):
                publisher.push_kind(END, b"{}", lane=lane)
            if asks == "while it is stored":
                await asyncio.sleep(0)
                publisher.mark()
            await publisher.flushed()
            if asks == "after":
                publisher.mark()
            await publisher.flushed()
            await asyncio.sleep(10 * UNPUBLISHED_MAX_S + 7200)
            assert (await shard.next_owner_begins_at()).end
            running.cancel()

    run_virtual(play())


def test_a_marker_of_a_quiet_shard_is_stored_at_once() -> None:
    async def play() -> None:
        shard = Shard()
        async with asyncio.TaskGroup() as tasks:
            running = await shard.start(tasks)
            shard.read(1, 1)
            await asyncio.sleep(5)
            frames = shard.publisher.counters.frames
            shard.enricher.is_whole = False
            shard.publisher.mark()
            await asyncio.sleep(0.1)
            assert shard.publisher.counters.frames == frames + 1
            assert await shard.next_owner_begins_at() == Checkpoint("aa", 1, behind=True)
            running.cancel()

    run_virtual(play())


def test_an_event_that_comes_while_a_marker_is_stored_does_not_wait_for_the_next() -> None:
    async def play() -> None:
        shard = Shard()
        shard.enricher.dropped = frozenset({1})
        async with asyncio.TaskGroup() as tasks:
            running = await shard.start(tasks)
            shard.read(1, 1)
            await asyncio.sleep(2)
            shard.log.delay_s = 1.0
            flushing = tasks.create_task(shard.publisher.flushed())
            await asyncio.sleep(0.5)
            shard.read(2, 2)
            async with asyncio.timeout(UNPUBLISHED_MAX_S / 2):
                await flushing
                while shard.publisher.counters.events < 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert await shard.next_owner_begins_at() == Checkpoint("aa", 2)
            running.cancel()

    run_virtual(play())


def test_an_event_that_comes_while_a_marker_is_stored_by_the_timer_is_waited_for() -> None:
    """A shard that stops then must not leave it behind."""

    async def play() -> None:
        shard = Shard()
        shard.enricher.dropped = frozenset({1})
        async with asyncio.TaskGroup() as tasks:
            running = await shard.start(tasks)
            shard.read(1, 1)
            await asyncio.sleep(2)
            shard.log.delay_s = 5.0
            await asyncio.sleep(UNPUBLISHED_MAX_S)
            shard.read(2, 2)
            async with asyncio.timeout(60):
                await shard.publisher.flushed()
            assert shard.publisher.counters.events == 1
            running.cancel()

    run_virtual(play())


def test_unpublished_events_that_come_one_by_one_do_not_put_the_marker_off() -> None:
    async def play() -> None:
        shard = Shard()
        shard.enricher.dropped = frozenset(range(1, 100))
        async with asyncio.TaskGroup() as tasks:
            running = await shard.start(tasks)
            for seq in range(1, 5):
                shard.read(seq, seq)
                await asyncio.sleep(UNPUBLISHED_MAX_S / 3)
            assert await shard.next_owner_begins_at() == Checkpoint("aa", 4)
            running.cancel()

    run_virtual(play())


class NoCache(SlowEnricher):
    """Publishes each event at once, as it came."""

    def begin(self, batch: Batch, confirmed: int, on_lines: Callable[[Sequence[bytes]], None]) -> bool:
        on_lines([b"" if item.seq in self.dropped else item.line for item in batch.items])
        return True


def ordinary() -> Shard:
    """A shard whose frames need no task."""
    shard = Shard()
    shard.enricher = shard.publisher.enricher = NoCache()
    return shard


@pytest.mark.parametrize("landed", [True, False])
@pytest.mark.parametrize("error", [LogUnavailable("no"), WrongLast("no"), LogBusy("no"), StreamMissing("no")])
def test_an_ordinary_append_that_fails_is_stored_once_and_what_follows_behind_it(error: LogError, landed: bool) -> None:
    async def play() -> None:
        shard = ordinary()
        async with asyncio.TaskGroup() as tasks:
            running = await shard.start(tasks)
            shard.log.delay_s = 0.1
            shard.log.fail_next = [(error, landed)]
            shard.read(1, 3)
            await asyncio.sleep(0.05)
            shard.read(4, 6)
            await shard.publisher.flushed()
            events = [headers for _, _, _, headers in shard.log.messages if not headers.kind]
            assert [(frame.first_seq, frame.last_seq) for frame in events] == [(1, 3), (4, 6)]
            assert await shard.next_owner_begins_at() == Checkpoint("aa", 6)
            running.cancel()

    run_virtual(play())


def test_a_frame_that_is_above_a_lowered_limit_leaves_in_parts() -> None:
    async def play() -> None:
        shard = ordinary()
        async with asyncio.TaskGroup() as tasks:
            running = await shard.start(tasks)
            shard.log.fail_next = [(PayloadTooLarge("no"), False)]
            shard.read(1, 3)
            await shard.publisher.flushed()
            parts = [headers.part for _, _, _, headers in shard.log.messages if not headers.kind]
            assert parts == [(1, 2), (2, 2)]
            running.cancel()

    run_virtual(play())


def test_a_newer_owner_ends_the_publisher() -> None:
    async def play() -> None:
        shard = ordinary()
        await shard.chain.take_over()
        shard.publisher.buffer.start_session("aa", 0)
        running = asyncio.create_task(shard.publisher.run())
        await shard.next_owner_begins_at()
        shard.read(1, 1)
        with pytest.raises(Fenced):
            await running
        shard.read(2, 2)
        await asyncio.sleep(1)
        assert all(headers.kind for _, _, _, headers in shard.log.messages)

    run_virtual(play())


def test_an_acknowledgement_that_comes_after_the_end_does_nothing() -> None:
    async def play() -> None:
        shard = ordinary()
        shard.log.delay_s = 1.0
        async with asyncio.TaskGroup() as tasks:
            running = await shard.start(tasks)
            shard.read(1, 1)
            await asyncio.sleep(0.5)
            shard.read(2, 2)
            running.cancel()
        await asyncio.sleep(5)
        assert shard.publisher.counters.frames == 0
        assert len([headers for _, _, _, headers in shard.log.messages if not headers.kind]) == 1

    run_virtual(play())


def test_an_error_of_our_own_ends_the_shard_s_task_and_no_other_shard_s() -> None:
    async def play() -> None:
        ticks, shards = Ticks(), [ordinary(), ordinary()]
        runs = []
        for shard in shards:
            shard.publisher._ticks = ticks
            await shard.chain.take_over()
            shard.publisher.buffer.start_session("aa", 0)
            runs.append(asyncio.create_task(shard.publisher.run()))
        await asyncio.sleep(0.1)

        def fail(batch: Batch, confirmed: int, on_lines: object) -> bool:
            raise RuntimeError("of our own")

        shards[0].enricher.begin = fail  # type: ignore[method-assign]
        for shard in shards:
            shard.read(1, 1)
        with pytest.raises(RuntimeError):
            await runs[0]
        await shards[1].publisher.flushed()
        assert shards[1].publisher.counters.events == 1
        runs[1].cancel()

    run_virtual(play())


def test_lanes_of_one_batch_are_appended_in_order_though_the_first_fails() -> None:
    async def play() -> None:
        shard = ordinary()
        async with asyncio.TaskGroup() as tasks:
            running = await shard.start(tasks)
            shard.log.fail_next = [(LogUnavailable("no"), True)]
            for seq, lane in enumerate(("all", "slow", "all", "all"), start=1):
                shard.publisher.push(b'{"op":0,"d":{}}', "TYPING_START", seq, lane)
            await shard.publisher.flushed()
            events = [headers for _, _, _, headers in shard.log.messages if not headers.kind]
            assert [(frame.first_seq, frame.last_seq) for frame in events] == [(1, 1), (2, 2), (3, 4)]
            running.cancel()

    run_virtual(play())


def test_events_that_are_not_published_cost_no_append_until_a_marker_is_due() -> None:
    async def play() -> None:
        shard = ordinary()
        shard.enricher.dropped = frozenset(range(1, 40))
        async with asyncio.TaskGroup() as tasks:
            running = await shard.start(tasks)
            for seq in range(1, 40):
                shard.read(seq, seq)
                await asyncio.sleep(0.01)
            assert shard.publisher.counters.frames == 0
            await asyncio.sleep(UNPUBLISHED_MAX_S + 1)
            assert await shard.next_owner_begins_at() == Checkpoint("aa", 39)
            running.cancel()

    run_virtual(play())


def test_an_answer_that_is_no_error_of_the_log_ends_the_shard_and_does_not_keep_it_waiting() -> None:
    async def play() -> None:
        shard = ordinary()
        await shard.chain.take_over()
        shard.publisher.buffer.start_session("aa", 0)
        running = asyncio.create_task(shard.publisher.run())
        error: Any = ValueError("an answer of JetStream that cannot be read")
        shard.log.fail_next = [(error, False)]
        shard.read(1, 1)
        with pytest.raises(ValueError, match="cannot be read"):
            await running

    run_virtual(play())


def test_a_frame_whose_first_try_landed_is_not_sent_again_in_parts_when_the_limit_fell() -> None:
    async def play() -> None:
        shard = ordinary()
        async with asyncio.TaskGroup() as tasks:
            running = await shard.start(tasks)
            shard.log.fail_next = [(LogUnavailable("no"), True)]
            shard.log.before = lambda: setattr(shard.log, "_part_bytes", 50)
            shard.read(1, 3)
            await shard.publisher.flushed()
            events = [headers for _, _, _, headers in shard.log.messages if not headers.kind]
            assert [(frame.first_seq, frame.last_seq, frame.part) for frame in events] == [(1, 3, None)]
            running.cancel()

    run_virtual(play())


def test_a_cache_that_answers_after_the_shard_was_released_appends_nothing() -> None:
    async def play() -> None:
        shard = ordinary()
        kept: list[Callable[[], None]] = []

        def begin(batch: Batch, confirmed: int, on_lines: Callable[[Sequence[bytes]], None]) -> bool:
            kept.append(lambda: on_lines([item.line for item in batch.items]))
            return True

        shard.enricher.begin = begin  # type: ignore[method-assign]
        async with asyncio.TaskGroup() as tasks:
            running = await shard.start(tasks)
            await asyncio.sleep(0.1)
            shard.read(1, 1)
            await asyncio.sleep(0.1)
            running.cancel()
        (answer,) = kept
        answer()
        await asyncio.sleep(1)
        assert all(headers.kind for _, _, _, headers in shard.log.messages)

    run_virtual(play())


def test_shards_of_a_busy_worker_leave_at_its_tick_and_flushed_does_not_wait_for_it() -> None:
    async def play() -> None:
        ticks = Ticks(100.0)
        shards = [ordinary(), ordinary()]
        async with asyncio.TaskGroup() as tasks:
            runs = []
            for shard in shards:
                shard.publisher._ticks = ticks
                runs.append(await shard.start(tasks))
            await asyncio.sleep(1.0)
            now = asyncio.get_running_loop().time()
            ticks.took(0, now - 2 * WINDOW_S)
            ticks.took(10_000, now)
            for shard in shards:
                shard.read(1, 2)
            await asyncio.sleep(1.0)
            assert [shard.publisher.counters.events for shard in shards] == [0, 0]
            async with asyncio.timeout(1.0):
                await shards[0].publisher.flushed()
            assert [shard.publisher.counters.events for shard in shards] == [2, 0]
            # What is full enough when the append before it ends does not wait for a tick.
            shards[1].log.delay_s = 0.5
            await asyncio.sleep(100.0)
            shards[1].read(3, ENOUGH_EVENTS + 3)
            await asyncio.sleep(100.0)
            assert shards[1].publisher.counters.events == ENOUGH_EVENTS + 3
            for run in runs:
                run.cancel()

    run_virtual(play())
