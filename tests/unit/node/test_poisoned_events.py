"""Nothing that Discord can send ends a shard: damaged events of every type, through all that a shard does with them."""

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import WSMsgType

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_coordinator.intents import ALL
from sandwich_coordinator.types import CacheSpec, EventsSpec, LaneSpec, PrefixSpec
from sandwich_node.cache.batch import Batch
from sandwich_node.cache.errors import CacheUnavailable
from sandwich_node.cache.feed import CacheFeed
from sandwich_node.cache.settings import CacheWriter
from sandwich_node.events.enrich import ShardEnricher
from sandwich_node.events.filters import EventFilter
from sandwich_node.events.prefixes import GuildPrefixes
from sandwich_node.events.unreadable import Unreadable
from sandwich_node.gateway import effects as fx
from sandwich_node.gateway.events import IdentifyGranted, StopRequested
from sandwich_node.gateway.machine import ShardMachine
from sandwich_node.gateway.payloads import ShardConfig
from sandwich_node.invites.lookup import InviteLookup, LookupCounters
from sandwich_node.publishing.chain import Chain
from sandwich_node.publishing.frames import EventBuffer, ShardOrigin
from sandwich_node.publishing.own_events import OwnEvent
from sandwich_node.publishing.publisher import ShardPublisher
from sandwich_node.rpc.shard import ShardCommands
from sandwich_node.secret import Secret
from sandwich_node.shards.chunking import MemberChunking
from sandwich_node.shards.connection import ShardConnection
from sandwich_node.shards.intake import ShardIntake
from sandwich_sdk import Event
from sandwich_sdk.wire.frame import inflate, split_events
from tests.support.memory_log import MemoryLog
from tests.support.poison import BOT, RAW, damaged, happened
from tests.unit.node.test_cache_feed import FakeCache
from tests.unit.node.test_invite_tracking import FakeDiscord
from verification.simulation.loop import run_virtual

READY = {"session_id": "s", "user": {"id": BOT}, "resume_gateway_url": "ws://h", "guilds": [{"id": "100"}]}
EVERYTHING = EventsSpec(
    ignore_bots=True, prefixes=PrefixSpec(fallback="!"), lanes={"talk": LaneSpec(types=["MESSAGE_*"])}
)
_SEQUENCE = re.compile(rb'"id":"[0-9a-f]{16}:(\d+)"')


async def _relay(_: OwnEvent) -> str:
    return ""


class Discord:
    """One shard's gateway, which replays after a RESUME what was not taken, damaged as it was."""

    def __init__(self, ready: Sequence[bytes] = ()) -> None:
        self.readys = list(ready) or [json.dumps(READY).encode()]
        self.sent: dict[int, bytes] = {}
        self.noise: list[bytes] = []
        self.ops: list[int] = []
        self.socket: asyncio.Queue[Any] = asyncio.Queue()

    async def ws_connect(self, url: str, **_: Any) -> "Discord":
        self.socket = asyncio.Queue()
        self._send(b'{"op":10,"d":{"heartbeat_interval":40000}}')
        return self

    def _send(self, raw: bytes) -> None:
        self.socket.put_nowait((WSMsgType.TEXT, raw, None))

    def dispatch(self, name: str, d: bytes) -> None:
        seq = len(self.sent) + 2
        self.sent[seq] = b'{"t":"%b","s":%d,"op":0,"d":%b}' % (name.encode(), seq, d)
        self._send(self.sent[seq])

    async def receive(self) -> Any:
        return await self.socket.get()

    async def send_frame(self, payload: bytes, kind: WSMsgType) -> None:
        message = json.loads(payload)
        self.ops.append(message["op"])
        match message["op"]:
            case 1:
                self._send(b'{"op":11}')
            case 2:
                ready = self.readys.pop(0) if len(self.readys) > 1 else self.readys[0]
                self._send(b'{"t":"READY","s":1,"op":0,"d":%b}' % ready)
            case 6:
                for seq, raw in self.sent.items():
                    if seq > message["d"]["seq"]:
                        self._send(raw)
                self._send(b'{"t":"RESUMED","s":%d,"op":0,"d":{}}' % (len(self.sent) + 1))

    async def close(self, code: int) -> None:
        pass


class Redis(FakeCache):
    """A cache that takes everything which could be sent to Redis; it does not know prefixes."""

    async def apply(self, batch: Batch) -> Any:
        for event in batch.events:
            for op in event.ops:
                assert all(isinstance(part, bytes) or part.encode() is not None for part in op)
        return await super().apply(batch)

    async def read_sets(self, keys: Any) -> Any:
        raise CacheUnavailable("away")


class Caching:
    """As much of ShardCaching as the intake uses."""

    def __init__(self, feed: CacheFeed, chunking: MemberChunking) -> None:
        self.feed = feed
        self.observe = chunking.observe


class Shard:
    """All that is between the socket and the stream."""

    def __init__(self, discord: Discord, spec: EventsSpec) -> None:
        loop = asyncio.get_running_loop()
        rng = random.Random(1)
        origin = ShardOrigin(shard=ShardId("bot", 1, 0), count=1, route="", bot=BOT)
        self.discord, self.log, self.redis = discord, MemoryLog(), Redis()
        self.chain = Chain(self.log, origin, fence=Fence(1), pause=asyncio.sleep, rng=rng)
        self.publisher = ShardPublisher(EventBuffer(origin), self.chain)
        self.commands = ShardCommands(
            app="bot",
            namespace="bot",
            intents=ALL,
            bot=lambda: BOT,
            send=lambda op, data: None,
            relay=_relay,
            presence=lambda: None,
            cache=None,
            rng=rng,
            clock=loop.time,
        )
        writer = CacheWriter(shard=ShardId("bot", 1, 0), fence=Fence(1), bot=BOT, intents=ALL, settings=CacheSpec())
        cache: Any = self.redis
        self.feed = CacheFeed(writer, cache, rng=rng, caught_up=self.publisher.mark)
        rules = EventFilter(spec, BOT)
        self.unreadable = Unreadable("bot/1/0", clock=loop.time)
        self.intake = ShardIntake(self.publisher, self.commands, rules, self.unreadable, bot=BOT, guilds=0)
        caching: Any = Caching(self.feed, MemberChunking(writer, cache, self.commands))
        self.intake.caching = caching
        rest: Any = FakeDiscord()
        self.invites = InviteLookup(
            rest,
            LookupCounters(Counter()),
            hold_s=0.1,
            store=None,
            kept=None,
            report_late=lambda late: None,
            caught_up=self.publisher.mark,
        )
        self.intake.observer = self.invites
        prefixes = GuildPrefixes(cache, "bot", clock=loop.time)
        self.publisher.enricher = ShardEnricher(rules, self.feed, prefixes, self.invites)
        config = ShardConfig(
            token=Secret("t"), shard=0, count=1, intents=ALL, gateway_url="ws://gateway", compression="none"
        )
        self.machine = ShardMachine(config, None, rng)
        self.reports: list[fx.Report] = []
        http: Any = discord
        self.connection = ShardConnection(self.machine, http=http, sink=self.intake, observer=self, clock=loop.time)

    def observe(self, report: fx.Report) -> None:
        self.reports.append(report)
        if isinstance(report, fx.StateChanged):
            self.invites.is_live(report.state is fx.State.LIVE)
        if isinstance(report, fx.RequestIdentify):
            asyncio.get_running_loop().call_soon(self.connection.post, IdentifyGranted())

    def passed_over(self) -> list[fx.Malformed]:
        return [report for report in self.reports if isinstance(report, fx.Malformed)]

    async def settled(self) -> None:
        """Everything that was sent is stored."""
        last = len(self.discord.sent) + 1
        async with asyncio.timeout(600):
            while self.machine.state is not fx.State.LIVE or self.chain.checkpoint.last_seq < last:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    def lines(self) -> list[bytes]:
        """All events of the stream, in order."""
        frames = (inflate(payload) for _, _, payload, headers in self.log.messages if not headers.kind)
        return [line for frame in frames for line in split_events(frame)]

    def stored(self) -> dict[int, bytes]:
        """Events by their sequence; none may be there twice, or before another."""
        found = [(int(match[1]), line) for line in self.lines() if (match := _SEQUENCE.search(line)) is not None]
        assert [seq for seq, _ in found] == sorted({seq for seq, _ in found})
        return dict(found)


@asynccontextmanager
async def running(discord: Discord, spec: EventsSpec = EVERYTHING) -> AsyncIterator[Shard]:
    shard = Shard(discord, spec)
    await shard.chain.take_over()
    async with asyncio.TaskGroup() as group:
        works = [
            group.create_task(work)
            for work in (shard.publisher.run(), shard.feed.run(), shard.invites.run(), shard.connection.run())
        ]
        yield shard
        shard.connection.post(StopRequested("the end"))
        await works[-1]
        await shard.commands.close()
        for work in works[:-1]:
            work.cancel()


def play(story: Callable[[Shard], Any], discord: Discord | None = None, spec: EventsSpec = EVERYTHING) -> Any:
    async def main() -> Any:
        async with running(discord or Discord(), spec) as shard:
            await shard.settled()
            return await story(shard)

    return run_virtual(main())


def as_published(raw: bytes) -> bytes:
    """How an event's line has to begin: as it came, in UTF-8."""
    return raw.decode(errors="replace").encode()[:-1]


@pytest.mark.parametrize("seed", range(6))
def test_damaged_events_of_every_type_are_published_once_in_order_and_cost_no_session(seed: int) -> None:
    rng = random.Random(seed)

    async def story(shard: Shard) -> None:
        discord = shard.discord
        for number, (name, data) in enumerate(happened(seed, 900)):
            is_damaged = rng.random() < 0.6
            discord.dispatch(name, damaged(rng, data) if is_damaged else json.dumps(data).encode())
            if number % 50 == 0:
                await asyncio.sleep(0.01)
        await shard.settled()
        stored = shard.stored()
        hidden = {seq for seq, raw in discord.sent.items() if b'{"t":"MESSAGE_' in raw and b'"bot":' in raw}
        assert discord.sent.keys() - stored.keys() <= hidden
        for seq in stored.keys() & discord.sent.keys():
            assert stored[seq].startswith(as_published(discord.sent[seq]))
        assert discord.ops.count(2) == 1
        assert 6 not in discord.ops
        assert sum(shard.unreadable.totals.values()) > 50
        assert shard.feed.incomplete
        assert shard.passed_over() == []

    play(story)


@pytest.mark.parametrize("what", RAW)
def test_whatever_the_whole_of_an_event_is_it_is_published(what: str) -> None:
    async def story(shard: Shard) -> None:
        for name in ("MESSAGE_CREATE", "GUILD_CREATE", "GUILD_DELETE", "GUILD_MEMBER_ADD", "RATE_LIMITED", "NEW_TYPE"):
            shard.discord.dispatch(name, RAW[what])
            shard.discord.dispatch("TYPING_START", b'{"user_id":"1"}')
        await shard.settled()
        assert shard.stored().keys() == {1, *shard.discord.sent}
        assert 6 not in shard.discord.ops

    play(story)


def test_a_message_of_no_guild_id_passes_a_prefix_rule_and_is_counted() -> None:
    async def story(shard: Shard) -> None:
        shard.discord.dispatch("MESSAGE_CREATE", b'{"id":"1","channel_id":"2","guild_id":"x","content":"hello"}')
        await shard.settled()
        assert shard.lines()[-1].startswith(as_published(shard.discord.sent[2]))
        assert shard.unreadable.totals == {"MESSAGE_CREATE": 1}
        assert shard.feed.incomplete
        assert not shard.feed.is_urgent

    play(story)


def test_half_a_surrogate_pair_reaches_consumers_as_it_came_and_the_cache_as_text() -> None:
    async def story(shard: Shard) -> None:
        message = rb'{"id":"1","channel_id":"2","guild_id":"100","content":"!\ud83d","author":{"id":"3"}}'
        shard.discord.dispatch("MESSAGE_CREATE", message)
        await shard.settled()
        assert json.loads(shard.lines()[-1])["d"]["content"] == "!\ud83d"
        assert json.loads(shard.lines()[-1])["__extra"]["prefix"] == "!"
        assert Event(shard.lines()[-1]).data["content"] == "!\ufffd"
        assert 2 in shard.redis.applied
        assert not shard.feed.incomplete
        assert shard.unreadable.totals == {"MESSAGE_CREATE": 1}

    play(story)


def test_what_not_every_reader_can_read_takes_no_other_event_along() -> None:
    async def story(shard: Shard) -> None:
        for text in (rb'"a"', rb'"\ud83d"', rb'"b"', rb'"c"'):
            shard.discord.dispatch("TYPING_START", b'{"a":%b}' % text)
        await shard.settled()
        counts = [headers.count for _, _, _, headers in shard.log.messages if not headers.kind]
        assert counts[-3:] == [1, 1, 2] or counts[-4:] == [1, 1, 1, 1]

    play(story)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"t":"X","op":0,"d":{}}',
        b'{"t":null,"s":2,"op":0,"d":{}}',
        b'{"t":7,"s":2,"op":0,"d":{}}',
        b'{"t":"a b","s":2,"op":0,"d":{}}',
        rb'{"t":"\ud83d","s":2,"op":0,"d":{}}',
        b'{"t":"X","s":"2","op":0,"d":{}}',
        b'{"t":"X","s":-1,"op":0,"d":{}}',
        b'{"t":"X","s":1e3,"op":0,"d":{}}',
        b'{"t":"X","s":99999999999999999999,"op":0,"d":{}}',
        b'{"t":"READY","s":2,"op":0,"d":{}}',
        b'{"t":"RESUMED","op":0,"d":[]}',
    ],
)
def test_a_dispatch_that_has_no_place_is_passed_over_and_counted(raw: bytes) -> None:
    async def story(shard: Shard) -> None:
        shard.discord._send(raw)
        shard.discord.sent[2] = raw
        shard.discord.dispatch("TYPING_START", b"{}")
        await shard.settled()
        assert shard.stored().keys() == {1, 3}
        assert len(shard.passed_over()) == 1
        assert 6 not in shard.discord.ops

    play(story)


@pytest.mark.parametrize("raw", [b'{"op":11,"d":"\xff"}', b'{"op":"0","d":{}}', b'{"op":1.5}', b'{"op":99,"d":[]}'])
def test_other_messages_that_are_damaged_are_signs_of_life(raw: bytes) -> None:
    async def story(shard: Shard) -> None:
        shard.discord._send(raw)
        shard.discord.dispatch("TYPING_START", b"{}")
        await shard.settled()
        assert 6 not in shard.discord.ops

    play(story)


@pytest.mark.parametrize("damage", [b'{"t":"X","s":3,"op":0,"d":{"a":NaN}}', b'{"t":"X","s":3,"op":0,"d":', b"\x00"])
def test_what_is_no_json_is_asked_for_once_more_and_then_passed_over(damage: bytes) -> None:
    async def story(shard: Shard) -> None:
        shard.discord.dispatch("TYPING_START", b"{}")
        await shard.settled()
        shard.discord.sent[3] = damage
        shard.discord._send(damage)
        for _ in range(3):
            shard.discord.dispatch("TYPING_START", b"{}")
        await shard.settled()
        assert shard.stored().keys() == {1, 2, 4, 5, 6}
        assert shard.discord.ops.count(6) == 1
        assert shard.discord.ops.count(2) == 1
        assert len(shard.passed_over()) == 1

    play(story)


@pytest.mark.parametrize(
    "damage",
    [
        {"user": None},
        {"user": {"id": 5}},
        {"user": {"id": "x"}},
        {"guilds": None},
        {"guilds": [None, {"id": 1}, {"id": "y"}, {"id": "100"}]},
        {"resume_gateway_url": 5},
        {"resume_gateway_url": "wss://["},
        {"user": {"id": BOT, "username": None}},
    ],
    ids=str,
)
def test_a_damaged_ready_begins_the_session_all_the_same(damage: dict[str, Any]) -> None:
    async def story(shard: Shard) -> None:
        shard.discord.dispatch("TYPING_START", b"{}")
        await shard.settled()
        assert shard.stored().keys() == {1, 2}
        assert shard.discord.ops.count(2) == 1

    play(story, Discord([json.dumps(READY | damage).encode()]))


@pytest.mark.parametrize("text", [rb'"\ud83d"', b'"\xff"'])
def test_a_ready_with_a_text_that_is_none_begins_the_session(text: bytes) -> None:
    async def story(shard: Shard) -> None:
        assert shard.discord.ops.count(2) == 1

    ready = json.dumps(READY | {"user": {"id": BOT, "username": "@"}}).encode().replace(b'"@"', text)
    play(story, Discord([ready]))


def test_readys_without_a_session_do_not_spend_the_days_identifies() -> None:
    discord = Discord([b"{}"])

    async def main() -> None:
        async with running(discord):
            await asyncio.sleep(24 * 3600.0)

    run_virtual(main())
    assert 3 <= discord.ops.count(2) <= 30


def test_one_good_ready_after_damaged_ones_is_taken() -> None:
    discord = Discord([b"[]", b'{"session_id":7}', json.dumps(READY).encode()])

    async def story(shard: Shard) -> None:
        assert discord.ops.count(2) == 3

    play(story, discord)


@pytest.mark.parametrize("d", [b'"true"', b"1", b"{}", b"[false]", rb'"\ud83d"'])
def test_a_damaged_op_9_is_answered_by_a_resume(d: bytes) -> None:
    async def story(shard: Shard) -> None:
        shard.discord._send(b'{"op":9,"d":%b}' % d)
        await asyncio.sleep(20)
        await shard.settled()
        assert shard.discord.ops.count(2) == 1
        assert shard.discord.ops.count(6) == 1

    play(story)


class Broken(Exception):
    """A fault of our own code."""


@pytest.mark.parametrize(
    ("part", "method"),
    [
        ("rules", "judge"),
        ("commands", "is_for_cache"),
        ("caching", "observe"),
        ("guilds", "take"),
        ("invites", "observe"),
        ("translator", "translate"),
        ("prefixes", "of"),
        ("redis", "apply"),
        ("invites", "resolve"),
    ],
)
def test_a_fault_of_our_own_code_costs_what_it_adds_and_nothing_else(
    part: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(shard: Shard) -> None:
        enricher: Any = shard.publisher.enricher
        parts: dict[str, Any] = {
            "rules": shard.intake.rules,
            "commands": shard.commands,
            "caching": shard.intake.caching,
            "guilds": shard.intake.guilds,
            "invites": shard.invites,
            "translator": shard.feed._translator,
            "prefixes": enricher.prefixes,
            "redis": shard.redis,
        }

        def broken(*_: Any, **__: Any) -> Any:
            raise Broken("content of an event")

        holder = parts[part]
        monkeypatch.setattr(type(holder) if part != "caching" else holder, method, broken)
        guild = b'{"id":"100","guild_id":"100","user":{"id":"3"},"members":[],"content":"!"}'
        for name in ("GUILD_CREATE", "MESSAGE_CREATE", "GUILD_MEMBER_ADD", "GUILD_MEMBERS_CHUNK", "GUILD_DELETE"):
            shard.discord.dispatch(name, guild)
        await shard.settled()
        assert shard.stored().keys() == {1, *shard.discord.sent}
        assert 6 not in shard.discord.ops

    play(story)


def test_the_log_names_the_type_and_not_the_content_and_not_with_every_event(caplog: pytest.LogCaptureFixture) -> None:
    async def story(shard: Shard) -> None:
        for _ in range(500):
            shard.discord.dispatch("MESSAGE_CREATE", b'{"guild_id":"secret words","content":"secret words"}')
            shard.discord.dispatch("SOMETHING_NEW", rb'{"content":"secret words \ud83d"}')
        await shard.settled()
        assert shard.unreadable.totals == {"MESSAGE_CREATE": 500, "other": 500}

    play(story)
    assert "MESSAGE_CREATE" in caplog.text
    assert "secret" not in caplog.text
    assert len(caplog.records) < 12


def test_events_of_any_number_of_types_are_counted_under_few_names() -> None:
    unreadable = Unreadable("bot/1/0", clock=lambda: 0.0)
    for number in range(5000):
        unreadable.note(f"TYPE_{number}", "not JSON")
    assert unreadable.totals == {"other": 5000}
