"""Consumer groups at a switch between shard groups, on a real nats-server."""

import asyncio
import random
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import nats
import nats.js.errors
import pytest
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from sandwich_coordinator.cli import accounts
from sandwich_coordinator.operations.consumer_groups import GroupSpec, create_group
from sandwich_coordinator.operations.dead_letters import open_replays
from sandwich_node.dev.embedded import EmbeddedNats, nats_cluster
from sandwich_sdk import Consumer, Event, ordered, switching
from sandwich_sdk import jetstream as jetstream_source
from sandwich_sdk.streams import keep_streams
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.dead import REPLAY_SUBJECT
from sandwich_sdk.wire.headers import FrameHeaders
from sandwich_sdk.wire.switch import Switch
from tests.support import group_worker, processes
from tests.support.account_nats import AccountNats
from tests.support.generations import Generations
from tests.support.publisher import Publisher, running, settled, until

pytestmark = pytest.mark.contract
STREAM = subjects.stream_name("bot")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered, "DISCOVER_S", 0.05)
    monkeypatch.setattr(ordered, "HEARTBEAT_S", 0.05)


class Log:
    """What workers in this process begin and handle, as guild and n."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, int]] = []
        self.handled: list[tuple[int, int]] = []

    def worker(
        self, server: EmbeddedNats, chance: random.Random | None = None, *, group: str = "o", **options: object
    ) -> Consumer:
        """With `chance`: its handlers take a random time, and some fail."""
        # Nothing is repaired by a redelivery while a test waits.
        settings = {"start": "all", "ordered": True, "concurrency": 3, "nak_delay": 0.01, "ack_wait": 300.0, **options}
        consumer = Consumer(server.url, app="bot", group=group, **settings)  # type: ignore[arg-type]
        consumer.on_error(lambda failure: None)

        @consumer.on_any
        async def handle(event: Event) -> None:
            what = event.data["guild"], event.data["n"]
            self.begun.append(what)
            if chance is not None:
                await asyncio.sleep(chance.random() * 0.005)
                if chance.random() < 0.05:
                    raise RuntimeError("now and then")
            await self.handle(what)
            self.handled.append(what)

        return consumer

    async def handle(self, what: tuple[int, int]) -> None:
        """What the handler of a test does besides."""

    def of(self, guild: int) -> list[int]:
        return [n for where, n in self.handled if where == guild]


class Blocked(Log):
    """The handler of one event waits for `free`."""

    def __init__(self, event: tuple[int, int]) -> None:
        super().__init__()
        self.event = event
        self.free = asyncio.Event()

    async def handle(self, what: tuple[int, int]) -> None:
        if what == self.event:
            await self.free.wait()


def in_order(written: list[tuple[int, int]], guilds: range) -> dict[int, list[int]]:
    return {guild: [n for where, n in written if where == guild] for guild in guilds}


@pytest.mark.parametrize(
    ("counts", "workers", "lanes", "reads"),
    [
        ((2, 3), 1, ("all",), "all"),
        ((5, 2), 2, ("all", "chat"), "*"),
        ((3, 4), 3, ("all", "chat"), "all"),
        ((2, 3, 5, 2), 4, ("all", "chat", "voice"), "*"),
        ((33, 40), 2, ("all",), "all"),
    ],
)
async def test_each_guild_s_events_are_handled_once_in_the_order_of_the_stream(
    server: EmbeddedNats,
    publisher: Publisher,
    counts: tuple[int, ...],
    workers: int,
    lanes: tuple[str, ...],
    reads: str,
) -> None:
    chance = random.Random(str((counts, workers)))
    guilds = range(12)
    bot = Generations(publisher.client, counts[0], lanes=lanes)
    log = Log()
    first = [log.worker(server, chance, lane=reads) for _ in range(workers)]

    async def events(count: int) -> None:
        for _ in range(count):
            await bot.event(chance.choice(guilds), lane=chance.choice(lanes), parts=chance.choice([1, 1, 3]))

    await events(60)
    async with running(*first):
        for count in counts[1:]:
            await events(60)
            joining = log.worker(server, chance, lane=reads)
            async with running(joining):
                await bot.switch(count, guilds=guilds, chance=chance)
                await events(20)
                await until(lambda: len(log.handled) > len(bot.events_of(reads)) - 10)
        await events(20)
        expected = bot.events_of(reads)
        await until(lambda: len(log.handled) >= len(expected))
    assert in_order(log.handled, guilds) == in_order(expected, guilds)


def kept(*consumers: Consumer) -> int:
    """The number of `switch` frames that these workers keep. What a worker holds, it reports as in progress."""
    held = (delivery for consumer in consumers for delivery in consumer._intake.held)
    return sum((delivery.headers or {}).get("Sandwich-Kind") == "switch" for delivery in held)


async def test_events_of_the_new_group_wait_for_the_old_ones_of_their_shards_and_no_others(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    """2 shards become 4: those of guilds 1 and 3 follow shard 1, which does not get on."""
    bot = Generations(publisher.client, 2)
    log = Blocked((1, 1))
    workers = log.worker(server), log.worker(server)
    for guild in range(4):
        await bot.event(guild)
    await bot.switch(4)
    for guild in range(4):
        await bot.event(guild)
    async with running(*workers):
        await until(lambda: {(0, 2), (2, 2), (1, 1)} <= set(log.begun) and kept(*workers) == 1)
        assert not {(1, 2), (3, 1), (3, 2)} & set(log.begun)
        log.free.set()
        await until(lambda: len(log.handled) == 8)
    assert [log.of(guild) for guild in range(4)] == [[1, 2]] * 4


async def test_an_old_event_that_fails_delays_the_new_ones_of_its_shard_but_no_handler(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    """The worker has one handler. It keeps the switch frame of shard 2 while it handles the others."""
    bot = Generations(publisher.client, 2)
    log = Log()
    worker = log.worker(server, concurrency=1)

    async def fail(what: tuple[int, int]) -> None:
        if what == (0, 1) and ((1, 3) not in log.handled or not kept(worker)):
            raise RuntimeError("not yet")

    log.handle = fail  # type: ignore[method-assign]
    for guild in (0, 1):
        await bot.event(guild)
    await bot.switch(4)
    for guild in (0, 1, 2, 1):
        await bot.event(guild)
    async with running(worker):
        await until(lambda: len(log.handled) == 6)
    assert log.handled[:3] == [(1, 1), (1, 2), (1, 3)]
    assert log.of(0) == [1, 2]


async def test_a_stopping_worker_hands_a_switch_frame_over_while_its_handler_still_runs(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    bot = Generations(publisher.client, 2)
    log = Blocked((1, 1))
    await bot.event(1)
    await bot.switch(1)
    await bot.event(1)
    leaving, staying = log.worker(server), log.worker(server)
    async with running(leaving):
        await until(lambda: log.begun == [(1, 1)] and kept(leaving) == 1)
        async with running(staying):
            leaving._stop()
            await until(lambda: kept(staying) == 1 and kept(leaving) == 0)
            assert log.begun == [(1, 1)]
            log.free.set()
            await until(lambda: len(log.handled) == 2)
    assert log.of(1) == [1, 2]


async def test_switches_in_a_row_wait_for_each_other(server: EmbeddedNats, publisher: Publisher) -> None:
    bot = Generations(publisher.client, 3)
    log = Blocked((2, 1))
    workers = log.worker(server), log.worker(server)
    await bot.event(2)
    for count in (5, 2, 4):
        await bot.switch(count)
        await bot.event(2)
    async with running(*workers):
        # Partitions 0 to 4 have each the switch frame of group 1, but 2: it has the event.
        await until(lambda: bool(log.begun) and kept(*workers) == 4)
        assert log.begun == [(2, 1)]
        log.free.set()
        await until(lambda: len(log.handled) == 4)
    assert log.of(2) == [1, 2, 3, 4]


@pytest.mark.parametrize("partly", [False, True])
async def test_old_frames_that_the_stream_has_lost_are_not_waited_for(
    server: EmbeddedNats, publisher: Publisher, partly: bool
) -> None:
    """The group's durables are at the beginning. Partly: the end frames are still there."""
    bot = Generations(publisher.client, 2)
    for guild in (0, 1):
        await bot.event(guild)
    log = Log()
    async with running(log.worker(server)):
        await until(lambda: len(log.handled) == 2)
    last = [await bot.event(guild) for guild in (0, 1, 0, 1)][-1]
    await bot.switch(3)
    for guild in range(3):
        await bot.event(guild)
    jetstream = publisher.client.jetstream()
    await jetstream.purge_stream(STREAM, seq=last + 1 if partly else last + 3)
    async with running(log.worker(server)):
        await until(lambda: len(log.handled) == 5)
    assert [log.of(guild) for guild in range(3)] == [[1, 4], [1, 4], [1]]


async def test_a_lane_without_end_frames_is_not_waited_for(server: EmbeddedNats, publisher: Publisher) -> None:
    """The lane is younger than the old group's shards; nothing follows on their chains in it."""
    bot = Generations(publisher.client, 2, lanes=("all", "chat"))
    for lane in ("all", "chat", "all"):
        await bot.event(1, lane=lane)
    ends = {shard: await bot.end(shard, lanes=("all",)) for shard in (0, 1)}
    bot.group, bot.count = 1, 1
    await bot.begin(1, 0, Switch(old_group=0, after=ends).encode())
    await bot.event(1, lane="chat")
    log = Log()
    async with running(log.worker(server, lane="chat")):
        await until(lambda: len(log.handled) == 2)
    assert log.of(1) == [2, 4]


async def test_a_partition_that_no_worker_knows_yet_is_created_and_looked_at(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    bot = Generations(publisher.client, 1)
    await bot.event(0)
    last = await bot.end(0)
    await bot.begin(1, 0, Switch(old_group=0, after={0: last, 9: last}).encode())
    await bot.event(0)
    log = Log()
    async with running(log.worker(server)):
        await until(lambda: len(log.handled) == 2)
        assert {"o@0", "o@9"} <= {info.name for info in await publisher.client.jetstream().consumers_info(STREAM)}
    assert log.of(0) == [1, 2]


@pytest.mark.parametrize("payload", [b"", b'{"from":"x"}', b'{"from":0,"after":{}}'])
async def test_a_switch_frame_without_what_it_follows_is_passed_over(
    server: EmbeddedNats, publisher: Publisher, caplog: pytest.LogCaptureFixture, payload: bytes
) -> None:
    bot = Generations(publisher.client, 1)
    await bot.event(0)
    await bot.begin(1, 0, payload)
    await bot.event(0)
    log = Log()
    async with running(log.worker(server)):
        await until(lambda: len(log.handled) == 2)
    assert log.of(0) == [1, 2]
    assert ("bot.1.0: bad switch frame" in caplog.text) == (b"after" not in payload)


async def test_a_durable_that_is_deleted_while_a_switch_frame_waits_for_it_is_waited_for_again(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    bot = Generations(publisher.client, 2)
    for _ in range(3):
        await bot.event(1)
    await bot.switch(1)
    await bot.event(1)
    log = Blocked((1, 1))
    worker = log.worker(server)
    async with running(worker):
        await until(lambda: (1, 1) in log.begun and kept(worker) == 1)
        await publisher.client.jetstream().delete_consumer(STREAM, "o@1")
        log.free.set()
        await until(lambda: (1, 4) in log.handled)
    assert list(dict.fromkeys(log.of(1))) == [1, 2, 3, 4]


@pytest.mark.parametrize("members", [1, 3])
async def test_a_group_that_begins_behind_the_old_frames_does_not_wait_for_them(tmp_path: Path, members: int) -> None:
    """On a replicated stream the durables' ack floor is 0 until they have settled a frame."""
    servers = nats_cluster(tmp_path, members) if members > 1 else [EmbeddedNats(tmp_path / "nats")]
    async with AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(each) for each in servers))
        client = await nats.connect(servers[0].url)
        stack.push_async_callback(client.close)
        config = StreamConfig(name=STREAM, subjects=subjects.stream_subjects("bot"), num_replicas=members)
        await made(client.jetstream(), config)
        bot = Generations(client, 3)
        for guild in range(3):
            await bot.event(guild)
        ends = {shard: await bot.end(shard) for shard in range(3)}
        log = Log()
        async with running(log.worker(servers[0], start="new")):
            await all_exist(client.jetstream(), {"o@0", "o@1", "o@2"})
            bot.group, bot.count = 1, 2
            for shard in range(2):
                await bot.begin(1, shard, Switch(old_group=0, after=ends).encode())
            for guild in range(3):
                await bot.event(guild)
            await until(lambda: len(log.handled) == 3)
    assert [log.of(guild) for guild in range(3)] == [[2]] * 3


async def made(jetstream: JetStreamContext, config: StreamConfig) -> None:
    """Create the stream as soon as the cluster has a leader."""
    async with asyncio.timeout(60):
        while True:
            try:
                await jetstream.add_stream(config)
            except (TimeoutError, nats.js.errors.ServiceUnavailableError):
                continue
            return


async def all_exist(jetstream: JetStreamContext, durables: set[str]) -> None:
    async with asyncio.timeout(60):
        while not durables <= {info.name for info in await jetstream.consumers_info(STREAM)}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_partition_that_no_worker_can_read_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator created the group for 256 shards, and the old group had more."""
    monkeypatch.setattr(switching, "MISSING_MAX_S", 0.2)
    async with AccountNats(tmp_path / "nats", {"bot": ""}) as server:
        client = await nats.connect(server.url, user="node", password="node")
        await client.jetstream().add_stream(StreamConfig(name=STREAM, subjects=subjects.stream_subjects("bot")))
        await create_group(client, GroupSpec(app="bot", group="o", start="all", ordered=True))
        bot = Generations(client, 301)
        await bot.event(300)
        last = await bot.end(300)
        bot.group, bot.count = 1, 1
        await bot.begin(1, 0, Switch(old_group=0, after={300: last}).encode())
        await bot.event(0)
        log = Log()
        login = {"user": "bot", "password": "bot"}
        async with running(log.worker(server, domain=accounts.DOMAIN, connection=login, ack_wait=30.0)):
            await until(lambda: len(log.handled) == 1)
        await client.close()
    assert "no worker reads partition 44" in caplog.text


async def test_one_handler_of_a_plain_group_follows_the_stream_over_shards_and_groups(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    chance = random.Random(1)
    bot = Generations(publisher.client, 2)
    for count in (3, 5, 2):
        for _ in range(20):
            await bot.event(chance.randrange(6))
        await bot.switch(count, guilds=range(6), chance=chance)
    log = Log()
    worker = log.worker(server, ordered=False, concurrency=1)
    async with running(worker):
        await until(lambda: len(log.handled) == len(bot.written))
        await settled(publisher, "o")
    assert log.handled == bot.events_of("all")


@pytest.mark.parametrize("kind", ["switch", "end", "of a later version"])
async def test_a_replay_of_a_frame_without_events_is_acknowledged(
    server: EmbeddedNats, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(jetstream_source, "REPLAY_POLL_S", 0.05)
    jetstream = publisher.client.jetstream()
    await keep_streams(jetstream, "bot", replicas=1)
    await open_replays(publisher.client, "bot", "o")
    headers = FrameHeaders(session="s", first_seq=1, last_seq=1, count=0, epoch=1, kind=kind).encode()
    named = headers | {REPLAY_SUBJECT: "sandwich.bot.events.all.1.0"}
    payload = Switch(old_group=0, after={0: 10**9}).encode()
    await jetstream.publish(subjects.replay_subject("bot", "o", 1), payload, headers=named)
    async with running(Log().worker(server)), asyncio.timeout(60):
        while True:
            info = await jetstream.consumer_info(subjects.replay_stream_name("bot"), "o")
            if not info.num_pending and not info.num_ack_pending:
                break
            await asyncio.sleep(0.01)


async def test_a_worker_that_is_killed_at_a_switch_leaves_the_order_and_loses_nothing(
    server: EmbeddedNats, publisher: Publisher, tmp_path: Path
) -> None:
    chance = random.Random(2)
    guilds = range(12)
    bot = Generations(publisher.client, 3)
    path = tmp_path / "log"
    path.touch()

    async def start(name: str) -> asyncio.subprocess.Process:
        return await processes.start(
            sys.executable, "-m", group_worker.__name__, server.url, name, str(path), "ordered"
        )

    def lines(kind: str) -> list[tuple[int, int]]:
        words = (line.split() for line in path.read_text().splitlines())
        return [(int(guild), int(n)) for what, _, guild, n in words if what == kind]

    workers = {name: await start(name) for name in ("victim", "b")}
    try:
        while not lines("hang"):
            await bot.event(chance.choice(guilds))
            await until(lambda: bool(lines("hang")) or len(lines("done")) + 40 > len(bot.written))
        await bot.switch(4, guilds=guilds, chance=chance)
        for _ in range(40):
            await bot.event(chance.choice(guilds))
        workers["victim"].kill()
        workers["c"] = await start("c")
        await until(lambda: set(lines("done")) == set(bot.events_of("all")))
        for name in ("b", "c"):
            workers[name].terminate()
        async with asyncio.timeout(30):
            await asyncio.gather(workers["b"].wait(), workers["c"].wait())
    finally:
        for worker in workers.values():
            await processes.end(worker)
    first_times = list(dict.fromkeys(lines("done")))
    assert in_order(first_times, guilds) == in_order(bot.events_of("all"), guilds)
