"""Invite tracking of a shard, from the events read to the stream, also across owners. Virtual time."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from sandwich_coordinator.discord_api import DiscordUnavailable
from sandwich_coordinator.ids import Fence, ShardId
from sandwich_coordinator.types import CacheSpec, EventsSpec, InvitesSpec
from sandwich_node import ipc
from sandwich_node.cache.errors import CacheUnavailable
from sandwich_node.events.enrich import ShardEnricher
from sandwich_node.events.filters import EventFilter
from sandwich_node.events.unreadable import Unreadable
from sandwich_node.gateway.effects import State
from sandwich_node.invites.tracker import QUIET_S
from sandwich_node.publishing.chain import Chain
from sandwich_node.publishing.frames import EventBuffer, ShardOrigin
from sandwich_node.publishing.publisher import ShardPublisher
from sandwich_node.rest.limiter import Route
from sandwich_node.shards.intake import ShardIntake
from sandwich_node.shards.invite_tracking import MEMBER_INVITED, ShardInviteTracking
from sandwich_sdk.wire.frame import inflate, split_events
from tests.support.memory_log import MemoryLog
from verification.simulation.loop import run_virtual

ME, GUILD, SESSION = "9", "1", "discord-session"
TRACK = InvitesSpec(track=True, hold_ms=300)
OFF = InvitesSpec()


class FakeDiscord:
    """One guild's invites, answered after `delay`; replaces the worker's REST clients and the client itself."""

    def __init__(self) -> None:
        self.uses = {"a": 3, "b": 7}
        self.delay = 0.05
        self.fails = False
        self.asked = 0
        self.held = 0

    def take(self, token_hash: str, token: object, count: int) -> "FakeDiscord":
        self.held += 1
        return self

    def give_back(self, token_hash: str, count: int) -> None:
        self.held -= 1

    def wait_s(self, route: Route, *, urgent: bool) -> float:
        return 0.0

    async def get(self, route: Route, *, on_send: Callable[[], None], **_: object) -> bytes:
        on_send()
        self.asked += 1
        counts = [{"code": code, "uses": uses, "inviter": {"id": f"5{uses}"}} for code, uses in self.uses.items()]
        await asyncio.sleep(self.delay)
        if self.fails:
            raise DiscordUnavailable("no")
        if route.path.endswith("vanity-url"):
            return b'{"code":null,"uses":0}'
        return msgspec.json.encode(counts)


class FakeRedis:
    """The hash commands that `RedisCounts` uses."""

    def __init__(self) -> None:
        self.hashes: dict[str, dict[bytes, bytes]] = {}
        self.away = False
        self.delay = 0.001

    async def command(self, name: str, key: str, *words: Any) -> Any:
        await asyncio.sleep(self.delay)
        if self.away:
            raise CacheUnavailable("away")
        found = self.hashes.get(key, {})
        match name:
            case "EXISTS":
                return key in self.hashes
            case "RENAME":
                self.hashes[words[0]] = self.hashes.pop(key)
            case "HGETALL":
                return dict(found)
            case "HSET":
                pairs = {words[at].encode(): words[at + 1] for at in range(0, len(words), 2)}
                self.hashes[key] = found | pairs
            case "HDEL":
                for word in words:
                    found.pop(word.encode(), None)
            case "UNLINK":
                self.hashes.pop(key, None)
        return None

    def kept(self, fence: int) -> list[str]:
        """The guilds whose counts are saved."""
        found = self.hashes.get(f"sw:bot:invites:{{bot:1:0}}:{fence}", {})
        return [guild.decode() for guild, state in found.items() if state.startswith(b"{")]


class Shard:
    """One owner of the shard, without a socket."""

    def __init__(self, world: "World", fence: int, group: asyncio.TaskGroup) -> None:
        origin = ShardOrigin(shard=ShardId("bot", 1, 0), count=1, route="", bot=ME)
        self.chain = Chain(world.log, origin, fence=Fence(fence), pause=asyncio.sleep, rng=random.Random(1))
        self.publisher = ShardPublisher(EventBuffer(origin), self.chain)
        rules = EventFilter(world.events, ME)
        commands: Any = FakeCommands()
        unreadable = Unreadable("", clock=lambda: 0.0)
        self.intake = ShardIntake(self.publisher, commands, rules, unreadable, bot=ME, guilds=0)
        start: Any = StartShard(fence)
        self.inviting = ShardInviteTracking(
            start,
            world.discord,  # type: ignore[arg-type]
            world.redis if world.has_redis else None,  # type: ignore[arg-type]
            self.intake,
            self.publisher,
            group,
        )
        self.world = world
        self.group = group
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self, spec: InvitesSpec, *, seq: int | None = None) -> None:
        before = await self.chain.take_over()
        if seq is not None:
            self.world.seq = seq
            self.intake.begin_session(SESSION, seq)
        await self.inviting.open(spec, before)
        self.publisher.enricher = ShardEnricher(self.intake.rules, None, None, self.inviting.lookup)
        self.tasks.append(self.group.create_task(self.publisher.run()))

    def follow(self, spec: InvitesSpec) -> None:
        self.inviting.follow(spec)
        self.publisher.enricher = ShardEnricher(self.intake.rules, None, None, self.inviting.lookup)

    def live(self) -> None:
        self.inviting.state_changed(State.LIVE)

    def read(self, name: str, d: dict[str, Any]) -> None:
        self.world.seq += 1
        raw = msgspec.json.encode({"t": name, "s": self.world.seq, "op": 0, "d": d})
        data = msgspec.Raw(msgspec.json.encode(d))
        self.intake.dispatch(raw, data, name, self.world.seq, SESSION)

    def guild(self) -> None:
        own = {"user": {"id": ME}, "roles": ["7"]}
        roles = [{"id": "7", "permissions": "32"}]
        self.read("GUILD_CREATE", {"id": GUILD, "owner_id": "5", "roles": roles, "members": [own]})

    def join(self, user: str, code: str | None = None) -> None:
        if code is not None:
            self.world.discord.uses[code] += 1
        self.read("GUILD_MEMBER_ADD", {"guild_id": GUILD, "user": {"id": user}, "roles": []})

    def message(self) -> None:
        self.read("MESSAGE_CREATE", {"content": "hi"})

    async def give_away(self) -> None:
        self.inviting.part()
        await self.publisher.flushed()
        await self.inviting.drained()
        self.stop()

    def stop(self) -> None:
        self.inviting.stop()
        for task in self.tasks:
            task.cancel()


class FakeCommands:
    """No command ever arrives."""

    is_waiting = False


class StartShard:
    """The fields of a StartShard that tracking reads."""

    def __init__(self, fence: int) -> None:
        self.key = ShardId("bot", 1, 0)
        self.fence = fence
        self.token, self.token_hash, self.count = "token", "hash", 1
        self.options = ipc.ShardOptions(cache=CacheSpec(), events=EventsSpec(), invites=TRACK)


class World:
    """Everything that survives a change of owner."""

    def __init__(self, *, has_redis: bool = True, events: EventsSpec | None = None) -> None:
        self.log = MemoryLog()
        self.discord = FakeDiscord()
        self.redis = FakeRedis()
        self.has_redis = has_redis
        self.events = events or EventsSpec()
        self.seq = 0
        self.read_upto = 0

    def stream(self) -> list[dict[str, Any]]:
        """The events since the last call."""
        found = []
        for _, _, payload, headers in self.log.messages:
            if headers.count:
                found += [msgspec.json.decode(line) for line in split_events(inflate(payload))]
        new, self.read_upto = found[self.read_upto :], len(found)
        return new

    def joins(self) -> list[Any]:
        """The reported joins, in order."""
        reported: list[tuple[Any, ...]] = []
        for event in self.stream():
            if event["t"] == "GUILD_MEMBER_ADD":
                reported.append((event["d"]["user"]["id"], event.get("__extra", {}).get("invited_by")))
            if event["t"] == MEMBER_INVITED:
                assert event["__sandwich"]["id"].startswith("own:")
                reported.append((event["d"]["user_id"], event["d"]["invited_by"], "late"))
        return reported


def by(code: str, inviter: str) -> dict[str, Any]:
    return {"source": "invite", "code": code, "inviter": {"id": inviter}, "evidence": "uses"}


def unknown(reason: str, **more: Any) -> dict[str, Any]:
    return {"source": "unknown", "reason": reason} | more


def play(story: Callable[[World, Shard], Awaitable[Any]], world: World, spec: InvitesSpec = TRACK) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            shard = Shard(world, 10, group)
            await shard.start(spec)
            shard.live()
            shard.guild()
            await asyncio.sleep(3.0)
            world.stream()
            await story(world, shard)
            shard.stop()
        assert world.discord.held == 0

    run_virtual(main())


async def another(world: World, before: Shard, fence: int, *, seq: int | None = None) -> Shard:
    """The next owner resumes the session at the chain's checkpoint, or at `seq`."""
    shard = Shard(world, fence, before.group)
    await shard.start(TRACK, seq=before.chain.checkpoint.last_seq if seq is None else seq)
    shard.live()
    await asyncio.sleep(2.5)
    return shard


def test_a_join_is_published_with_its_invite_and_before_later_events() -> None:
    async def story(world: World, shard: Shard) -> None:
        shard.join("100", "a")
        shard.message()
        await asyncio.sleep(0.2)
        events = world.stream()
        assert [(event["t"], event.get("__extra")) for event in events] == [
            ("GUILD_MEMBER_ADD", {"invited_by": by("a", "54")}),
            ("MESSAGE_CREATE", None),
        ]
        assert shard.inviting.numbers() == ipc.InviteNumbers(reported={"invite": 1}, requests=2)

    play(story, World())


def test_a_slow_discord_holds_the_shard_within_the_bound_and_the_invite_is_reported_late() -> None:
    async def story(world: World, shard: Shard) -> None:
        world.discord.delay = 2.0
        shard.join("100", "a")
        shard.message()
        await asyncio.sleep(0.29)
        assert world.stream() == []
        await asyncio.sleep(0.02)
        assert world.joins() == [("100", unknown("timeout", pending=True))]
        await asyncio.sleep(2.0)
        assert world.joins() == [("100", by("a", "54"), "late")]

    play(story, World())


def test_an_unavailable_discord_holds_no_event_and_the_invites_are_reported_once_it_is_back() -> None:
    async def story(world: World, shard: Shard) -> None:
        world.discord.fails = True
        shard.join("100", "b")
        await asyncio.sleep(0.1)
        assert world.joins() == [("100", unknown("unavailable", pending=True))]
        world.discord.fails = False
        await asyncio.sleep(5.0)
        assert world.joins() == [("100", by("b", "58"), "late")]

    play(story, World())


def test_successive_joins_hold_a_shard_within_the_bound_of_each_second() -> None:
    async def story(world: World, shard: Shard) -> None:
        world.discord.delay = 5.0
        loop, slow = asyncio.get_running_loop(), 0.0
        for number in range(40):
            shard.join(str(100 + number), "a")
            shard.message()
            started = loop.time()
            while not world.stream():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            slow += loop.time() - started
            await asyncio.sleep(0.05)
        assert slow < 0.3 * (slow + 40 * 0.05) + 40 * 0.01 + 0.3

    play(story, World())


def test_with_a_hold_of_zero_events_leave_at_once_and_the_invite_follows() -> None:
    async def story(world: World, shard: Shard) -> None:
        shard.join("100", "a")
        await asyncio.sleep(0.001)
        assert world.joins() == [("100", unknown("timeout", pending=True))]
        await asyncio.sleep(1.0)
        assert world.joins() == [("100", by("a", "54"), "late")]

    play(story, World(has_redis=False), InvitesSpec(track=True, hold_ms=0))


def test_tracking_is_switched_on_and_off_while_the_shard_runs() -> None:
    async def story(world: World, shard: Shard) -> None:
        shard.join("100", "a")
        await asyncio.sleep(0.1)
        assert (world.joins(), world.discord.asked, shard.inviting.numbers()) == ([("100", None)], 0, None)
        shard.follow(TRACK)
        await asyncio.sleep(2.5)
        shard.join("101", "a")
        await asyncio.sleep(4.0)
        shard.join("102", "a")
        await asyncio.sleep(QUIET_S + 2)
        assert world.joins() == [("101", unknown("no_baseline")), ("102", by("a", "56"))]
        assert world.redis.kept(10) == [GUILD]
        world.discord.delay = 1.0
        shard.join("103", "a")
        await asyncio.sleep(0.05)
        shard.follow(OFF)
        await asyncio.sleep(0.5)
        assert (world.joins(), world.redis.hashes) == ([("103", unknown("interrupted"))], {})
        assert world.discord.held == 0
        shard.follow(TRACK)
        await asyncio.sleep(2.5)
        shard.join("104", "a")
        await asyncio.sleep(0.5)
        assert world.joins() == [("104", unknown("no_baseline"))]

    play(story, World(), OFF)


def test_joins_that_are_not_published_are_still_counted() -> None:
    async def story(world: World, shard: Shard) -> None:
        shard.join("100", "a")
        await asyncio.sleep(5.0)
        world.stream()
        shard.intake.rules = EventFilter(EventsSpec(), ME)
        shard.join("101", "b")
        await asyncio.sleep(1.0)
        assert world.joins() == [("101", by("b", "58"))]

    play(story, World(events=EventsSpec(ignore=["GUILD_MEMBER_ADD", MEMBER_INVITED])))


def test_the_next_owner_continues_after_a_crash_and_after_a_move() -> None:
    async def story(world: World, shard: Shard) -> None:
        await asyncio.sleep(QUIET_S + 2)
        shard.stop()
        second = await another(world, shard, 11)
        second.join("100", "a")
        await asyncio.sleep(0.5)
        await second.give_away()
        third = await another(world, second, 12)
        third.join("101", "b")
        await asyncio.sleep(0.5)
        assert world.joins() == [("100", by("a", "54")), ("101", by("b", "58"))]
        third.stop()

    play(story, World())


def test_a_move_in_the_middle_of_a_round_reports_every_join_before_it() -> None:
    async def story(world: World, shard: Shard) -> None:
        world.discord.delay = 2.0
        shard.join("100", "a")
        await asyncio.sleep(0.5)
        shard.join("101", "a")
        await shard.give_away()
        assert world.joins() == [
            ("100", unknown("timeout", pending=True)),
            ("101", unknown("interrupted")),
            ("100", unknown("interrupted"), "late"),
        ]
        world.discord.delay = 0.05
        second = await another(world, shard, 11)
        second.join("102", "b")
        await asyncio.sleep(0.5)
        assert world.joins() == [("102", by("b", "58"))]
        second.stop()

    play(story, World())


def test_after_a_crash_before_redis_removed_outdated_counts_no_owner_uses_them() -> None:
    async def story(world: World, shard: Shard) -> None:
        await asyncio.sleep(QUIET_S + 2)
        world.redis.away = True
        shard.join("100", "a")
        await asyncio.sleep(0.5)
        shard.message()
        await asyncio.sleep(0.5)
        assert world.joins() == [("100", by("a", "54"))]
        shard.stop()
        world.redis.away = False
        assert world.redis.kept(10) == [GUILD], "the count before the join, which is in the stream"
        second = await another(world, shard, 11)
        third = await another(world, second, 12)
        second.stop()
        third.join("101")
        await asyncio.sleep(0.5)
        assert world.joins() == [("101", unknown("no_baseline"))]
        third.stop()

    play(story, World())


def test_events_wait_once_for_an_unavailable_redis_and_the_chain_records_its_return() -> None:
    async def story(world: World, shard: Shard) -> None:
        await asyncio.sleep(QUIET_S + 2)
        world.redis.away = True
        shard.join("100", "a")
        await asyncio.sleep(0.31)
        assert len(world.stream()) == 1
        for _ in range(20):
            shard.message()
            await asyncio.sleep(0.002)
            assert len(world.stream()) == 1
        assert world.log.messages[-1][3].behind
        world.redis.away = False
        await asyncio.sleep(2.0)
        assert not world.log.messages[-1][3].behind
        assert world.redis.kept(10) == []

    play(story, World())


def test_counts_saved_by_an_overtaken_owner_are_not_used() -> None:
    async def story(world: World, shard: Shard) -> None:
        await asyncio.sleep(QUIET_S + 2)
        # Cut off from the stream and from Discord, but not from Redis.
        shard.read("INVITE_CREATE", {"code": "c", "channel_id": "1", "guild_id": GUILD})
        await asyncio.sleep(0.1)
        shard.tasks[0].cancel()
        second = await another(world, shard, 11)
        assert world.redis.kept(10) == []
        second.join("100", "a")
        await asyncio.sleep(QUIET_S + 2)
        assert world.redis.kept(10) == [GUILD], "the count before the join"
        third = await another(world, second, 12)
        second.stop()
        third.join("101")
        await asyncio.sleep(0.5)
        assert world.joins() == [("100", by("a", "54")), ("101", unknown("no_invite"))]
        third.stop()

    play(story, World())


def test_a_redis_that_hangs_delays_the_take_over_only_briefly() -> None:
    async def story(world: World, shard: Shard) -> None:
        await asyncio.sleep(QUIET_S + 2)
        await shard.give_away()
        world.redis.delay = 30.0
        started = asyncio.get_running_loop().time()
        second = await another(world, shard, 11)
        assert asyncio.get_running_loop().time() - started < 3.0
        second.join("100", "a")
        await asyncio.sleep(0.5)
        assert world.joins() == [("100", unknown("no_baseline"))]
        second.stop()

    play(story, World())
