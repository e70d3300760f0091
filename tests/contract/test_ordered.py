"""Workers of groups join, leave, fail and are killed, on a real nats-server: no event is lost, shards are in order."""

import asyncio
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig

from sandwich_node.dev.embedded import EmbeddedNats
from sandwich_sdk import Consumer, Event, GroupConflict, ordered
from sandwich_sdk.partitioning import partition_filters
from sandwich_sdk.wire import subjects
from tests.support import group_worker, processes
from tests.support.publisher import Publisher, running, take, until

pytestmark = pytest.mark.contract
STREAM = subjects.stream_name("bot")


class Seen:
    """The events that in-process workers handled, by shard."""

    def __init__(self) -> None:
        self.by_shard: dict[int, list[int]] = defaultdict(list)
        self.by_worker: dict[str, int] = defaultdict(int)

    def worker(self, server: EmbeddedNats, name: str, handle: Callable[[Event], None] | None = None) -> Consumer:
        consumer = Consumer(server.url, app="bot", group="o", start="all", ordered=True, nak_delay=0.01, ack_wait=300.0)
        consumer.on_error(lambda failure: None)

        @consumer.on_any
        async def on_any(event: Event) -> None:
            if handle is not None:
                handle(event)
            await asyncio.sleep(0)
            self.by_shard[event.shard.id].append(event.data["n"])
            self.by_worker[name] += 1

        return consumer

    @property
    def total(self) -> int:
        return sum(map(len, self.by_shard.values()))


def shards(publisher: Publisher, ids: Sequence[int]) -> list[Publisher]:
    return [Publisher(publisher.client, shard=shard) for shard in ids]


async def publish(publishers: Sequence[Publisher], frames: int, *, count: int = 2) -> None:
    for _ in range(frames):
        await asyncio.gather(*(each.events(count) for each in publishers))


async def durables(jetstream: JetStreamContext) -> set[str]:
    return {info.name for info in await jetstream.consumers_info(STREAM)}


@pytest.mark.parametrize("mode", ["ordered", "unordered"])
async def test_a_worker_killed_during_a_handler_loses_no_event_and_ordered_groups_keep_the_order(
    server: EmbeddedNats, publisher: Publisher, tmp_path: Path, mode: str
) -> None:
    publishers = shards(publisher, range(8))
    log = tmp_path / "log"
    log.touch()

    async def start(name: str) -> asyncio.subprocess.Process:
        program = ["-m", group_worker.__name__, server.url, name, str(log), mode]
        return await processes.start(sys.executable, *program)

    def lines(kind: str, worker: str = "") -> list[tuple[int, int]]:
        words = (line.split() for line in log.read_text().splitlines())
        return [(int(shard), int(n)) for what, name, shard, n in words if what == kind and worker in ("", name)]

    workers = {name: await start(name) for name in ("victim", "b", "c")}
    try:
        while not lines("hang"):
            await publish(publishers, 2)
            await until(lambda: bool(lines("hang")) or len(lines("done")) + 40 > 8 * publishers[0].seq)
        await publish(publishers, 5)
        workers["victim"].kill()
        in_hand = lines("hang")[0]
        await until(lambda: len(set(lines("done"))) == sum(each.seq for each in publishers))
        for name in ("b", "c"):
            workers[name].terminate()
        async with asyncio.timeout(30):
            await asyncio.gather(workers["b"].wait(), workers["c"].wait())
    finally:
        for worker in workers.values():
            await processes.end(worker)
    assert in_hand not in lines("done", "victim")
    assert in_hand in lines("done")
    for shard in range(8):
        first_times = list(dict.fromkeys(n for where, n in lines("done") if where == shard))
        assert (first_times if mode == "ordered" else sorted(first_times)) == list(range(1, publishers[shard].seq + 1))


async def test_a_worker_that_joins_gets_its_share_and_the_order_is_kept(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    publishers = shards(publisher, range(6))
    seen = Seen()
    first, second = seen.worker(server, "first"), seen.worker(server, "second")
    await publish(publishers, 3)
    async with running(first):
        await until(lambda: seen.total == 36)
        assert seen.by_worker == {"first": 36}
        async with running(second):
            while not seen.by_worker["second"]:
                await publish(publishers, 1)
            before = dict(seen.by_worker)
            total = 2 * sum(each.seq // 2 for each in publishers)
            await until(lambda: seen.total == total)
            assert before["first"]
        await publish(publishers, 2)
        await until(lambda: seen.total == total + 24)
    assert seen.by_shard == {shard: list(range(1, publishers[0].seq + 1)) for shard in range(6)}


async def test_no_shard_waits_for_ack_wait_when_workers_join_and_leave(
    server: EmbeddedNats, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame sent to a worker that has just unsubscribed is delivered again only after `ack_wait`, 300 s here."""
    monkeypatch.setattr(ordered, "HEARTBEAT_S", 0.05)
    publishers = shards(publisher, range(16))
    seen = Seen()
    moving = True

    async def keep_busy() -> None:
        while moving:
            await publish(publishers, 1, count=1)

    async with running(seen.worker(server, "stays")), asyncio.TaskGroup() as tasks:
        busy = tasks.create_task(keep_busy())
        for turn in range(8):
            name = f"guest {turn}"
            async with running(seen.worker(server, name)):
                await until(lambda: seen.by_worker[name] > 100)  # noqa: B023 (awaited in this turn)
        moving = False
        await busy
        await until(lambda: seen.total == sum(each.seq for each in publishers))
    assert seen.by_shard == {shard: list(range(1, publishers[shard].seq + 1)) for shard in range(16)}


def hanging(server: EmbeddedNats) -> tuple[Consumer, list[int], asyncio.Event]:
    """A worker whose handler waits for the event, and the shards that it has begun with."""
    consumer = Consumer(server.url, app="bot", group="o", start="all", ordered=True)
    begun: list[int] = []
    free = asyncio.Event()

    @consumer.on_any
    async def hang(event: Event) -> None:
        begun.append(event.shard.id)
        await free.wait()

    return consumer, begun, free


async def test_a_stopping_worker_hands_back_frames_it_has_not_begun_while_its_handler_still_runs(
    server: EmbeddedNats, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered, "HEARTBEAT_S", 0.05)
    publishers = shards(publisher, range(6))
    leaving, begun, free = hanging(server)
    seen = Seen()
    await publish(publishers, 2, count=1)
    async with running(leaving):
        await until(lambda: len(leaving._intake.held) == 6)
        async with running(seen.worker(server, "other")):
            leaving._stop()
            await until(lambda: seen.total == 10)
            assert begun == [shard for shard in range(6) if shard not in seen.by_shard]
            free.set()
            await until(lambda: seen.total == 11)
    assert seen.by_shard == {shard: [2] if shard in begun else [1, 2] for shard in range(6)}


async def test_a_shard_that_waits_for_its_failed_event_delays_no_other(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    failing, fine = shards(publisher, [0, 1])
    await publish([failing], 3)
    await publish([fine], 20)
    seen = Seen()

    def fail_until_the_other_is_through(event: Event) -> None:
        if event.shard.id == 0 and len(seen.by_shard[1]) < 40:
            raise RuntimeError("not yet")

    async with running(seen.worker(server, "only", fail_until_the_other_is_through)):
        await until(lambda: seen.total == 46)
    assert seen.by_shard == {0: list(range(1, 7)), 1: list(range(1, 41))}


async def test_a_busy_worker_hands_back_frames_it_has_not_begun(
    server: EmbeddedNats, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(ordered, "BUSY_AFTER_S", 0.2)
    publishers = shards(publisher, range(6))
    stuck, begun, free = hanging(server)
    seen = Seen()
    other = seen.worker(server, "other")
    await publish(publishers, 1, count=1)
    async with running(stuck):
        await until(lambda: len(stuck._intake.held) == 6)
        async with running(other):
            await until(lambda: seen.total == 5)
            assert begun[0] not in seen.by_shard
            free.set()
            await until(lambda: not stuck._intake.held)


async def test_a_loop_over_two_workers_keeps_the_order(server: EmbeddedNats, publisher: Publisher) -> None:
    publishers = shards(publisher, range(4))
    await publish(publishers, 5)
    seen: dict[int, list[int]] = defaultdict(list)
    consumers = [Consumer(server.url, app="bot", group="o", start="all", ordered=True) for _ in range(2)]

    async def loop(consumer: Consumer) -> None:
        async for event in consumer:
            await asyncio.sleep(0)
            seen[event.shard.id].append(event.data["n"])

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for consumer in consumers:
            tasks.create_task(loop(consumer))
        await until(lambda: sum(map(len, seen.values())) >= 40)
        for consumer in consumers:
            await consumer.close()
    assert seen == {shard: list(range(1, 11)) for shard in range(4)}


async def test_shards_that_appear_later_lose_no_events(
    server: EmbeddedNats, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered, "DISCOVER_S", 0.05)
    old = shards(publisher, [0, 1])
    await publish(old, 1)
    consumer = Consumer(server.url, app="bot", group="o", start="new", ordered=True)
    seen: dict[int, list[int]] = defaultdict(list)

    @consumer.on_any
    async def handle(event: Event) -> None:
        seen[event.shard.id].append(event.data["n"])

    jetstream = publisher.client.jetstream()
    async with running(consumer):
        async with asyncio.timeout(60):
            while not {"o", "o@0", "o@1"} <= await durables(jetstream):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        grown = shards(publisher, [2, 35, 300])
        await publish([*old, *grown], 2)
        await until(lambda: sum(map(len, seen.values())) == 20)
        assert await durables(jetstream) == {"o", "o@0", "o@1", "o@2", "o@3", "o@44"}
    assert seen == {0: [3, 4, 5, 6], 1: [3, 4, 5, 6], 2: [1, 2, 3, 4], 35: [1, 2, 3, 4], 300: [1, 2, 3, 4]}


async def test_a_group_that_starts_at_a_time_starts_there_for_every_shard(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    early, late = shards(publisher, [0, 9])
    await publish([early, late], 1)
    async with asyncio.timeout(60):
        before = datetime.now(UTC)
        while datetime.now(UTC) == before:  # noqa: ASYNC110
            await asyncio.sleep(0)
    middle = datetime.now(UTC)
    await publish([early], 1)
    first = Consumer(server.url, app="bot", group="o", start=middle, ordered=True, types=["A"])
    assert await take(first, 2) == [3, 4]
    await publish([late], 1)
    again = Consumer(server.url, app="bot", group="o", ordered=True, ack_wait=5.0)
    assert await take(again, 2) == [3, 4]


async def test_a_group_that_is_deleted_is_created_again_at_its_ack_floor(
    server: EmbeddedNats, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered, "DISCOVER_S", 0.05)
    publishers = shards(publisher, range(3))
    await publish(publishers, 2)
    seen = Seen()
    jetstream = publisher.client.jetstream()
    async with running(seen.worker(server, "only")):
        await until(lambda: seen.total == 12)
        for durable in await durables(jetstream):
            await jetstream.delete_consumer(STREAM, durable)
        await publish(publishers, 2)
        await until(lambda: seen.total == 24)
        async with asyncio.timeout(60):
            while await durables(jetstream) != {"o", "o@0", "o@1", "o@2"}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert seen.by_shard == {shard: list(range(1, 9)) for shard in range(3)}


async def test_a_stream_created_again_is_read_from_its_beginning_wherever_the_group_started_in_the_old_one(
    server: EmbeddedNats, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group received no frame of shard 1, and shard 2 has none: only the anchor knows where they start."""
    monkeypatch.setattr(ordered, "DISCOVER_S", 0.05)
    old = shards(publisher, [0, 1])
    await publish(old, 20)
    seen: dict[int, list[int]] = defaultdict(list)
    consumer = Consumer(server.url, app="bot", group="o", start="new", ordered=True)

    @consumer.on_any
    async def handle(event: Event) -> None:
        seen[event.shard.id].append(event.data["n"])

    jetstream = publisher.client.jetstream()
    async with running(consumer):
        async with asyncio.timeout(60):
            while not {"o@0", "o@1"} <= await durables(jetstream):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await publish(old[:1], 1)
        await until(lambda: seen[0] == [41, 42])
        await jetstream.delete_stream(STREAM)
        await publisher.make_stream()
        new = shards(publisher, [0, 1, 2])
        await publish(new, 2)
        await until(lambda: sum(map(len, seen.values())) == 14)
    assert seen == {0: [41, 42, 1, 2, 3, 4], 1: [1, 2, 3, 4], 2: [1, 2, 3, 4]}


@pytest.mark.parametrize("ordered", [False, True])
async def test_every_lane_is_read_in_the_order_of_its_shard(
    server: EmbeddedNats, publisher: Publisher, ordered: bool
) -> None:
    publishers = shards(publisher, range(3))
    for lane in ("all", "chat", "chat", "voice", "all") * 4:
        await asyncio.gather(*(each.events(1, lane=lane) for each in publishers))
    seen: dict[int, list[int]] = defaultdict(list)

    def reader(lane: str) -> Consumer:
        consumer = Consumer(server.url, app="bot", group="o", start="all", lane=lane, ordered=ordered)

        @consumer.on_any
        async def handle(event: Event) -> None:
            seen[event.shard.id].append(event.data["n"])

        return consumer

    async with running(reader("*")):
        await until(lambda: sum(map(len, seen.values())) == 60)
    assert seen == {shard: list(range(1, 21)) for shard in range(3)}
    with pytest.raises(GroupConflict, match=r"events\.\*\..*, not .*events\.chat\."):
        await reader("chat").run(handle_signals=False)


async def test_a_foreign_durable_that_delivers_several_frames_at_once_is_refused(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    await publisher.events(1)
    made = ConsumerConfig(name="o@0", durable_name="o@0", filter_subjects=partition_filters("bot", "all", 0))
    await publisher.client.jetstream().add_consumer(STREAM, made)
    consumer = Consumer(server.url, app="bot", group="o", ordered=True)
    with pytest.raises(GroupConflict, match="max_ack_pending 1"):
        await anext(consumer)
    await consumer.close()


async def test_ordered_and_plain_workers_cannot_share_a_group(server: EmbeddedNats, publisher: Publisher) -> None:
    await publisher.events(1)
    assert await take(Consumer(server.url, app="bot", group="o", start="all", ordered=True), 1) == [1]
    assert await take(Consumer(server.url, app="bot", group="p", start="all"), 1) == [1]
    plain = Consumer(server.url, app="bot", group="o")
    with pytest.raises(GroupConflict, match="is ordered: give every worker of it ordered=True"):
        await anext(plain)
    await plain.close()
    strict = Consumer(server.url, app="bot", group="p", ordered=True)
    with pytest.raises(GroupConflict, match="is not ordered: leave out ordered=True"):
        await anext(strict)
    await strict.close()
