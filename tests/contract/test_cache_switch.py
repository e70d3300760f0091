"""The cache when one shard group replaces another: in real Redis, also in a Redis Cluster."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_coordinator.intents import ALL, INTENTS
from sandwich_coordinator.types import CacheSpec
from sandwich_node import ipc
from sandwich_node.cache import group_cleanup, group_switch, redis_store
from sandwich_node.cache.batch import Batch, EventOps, names_of
from sandwich_node.cache.errors import CacheError
from sandwich_node.cache.group_switch import PreviousShard, PreviousShards
from sandwich_node.cache.handover_drain import Standing
from sandwich_node.cache.locations import Destination, shard_of
from sandwich_node.cache.operations import Translator
from sandwich_node.cache.options import RedisOptions
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.cache.replies import Applied
from sandwich_node.cache.settings import CacheWriter
from sandwich_node.dev.embedded import EmbeddedRedis
from sandwich_sdk.wire.cache_keys import apps_key, collection_key, guild_key, locations_key
from tests.support.cache_layout import GUILD, rich_guild
from tests.support.redis_cluster import redis_cluster
from tests.support.starvation import PATIENT_S

pytestmark = pytest.mark.contract

APP, NS, OLD, NEW = "music", "shared", 3, 4
SETTINGS = CacheSpec(namespace=NS)
OLD_COUNT, NEW_COUNT = 2, 3
MINE = shard_of(GUILD, NEW_COUNT)
assert MINE is not None
assert shard_of(GUILD, OLD_COUNT) == 0
NEIGHBOUR, ELSEWHERE, JOINED = (str(int(GUILD) + (step << 22)) for step in (3, 1, 6))
"""Of GUILD's shard in the next group, of another one there, and of GUILD's again."""


@dataclass
class Owner:
    """The owner of one shard, with its session."""

    store: RedisCache
    writer: CacheWriter
    session: str = "old"
    seq: int = 0

    async def receive(self, event_type: str, data: Any) -> tuple[Applied, dict[str, Any]]:
        """Apply an event; returns the reply, and the fields that are added to the event."""
        self.seq += 1
        ops = Translator(self.writer).translate(event_type, msgspec.json.encode(data))
        events = (EventOps(self.seq, ops, 100),)
        applied = await self.store.apply(Batch(writer=self.writer, session=self.session, confirmed=0, events=events))
        assert (applied.failed, applied.damaged) == (0, 0), applied.failure
        extra = applied.extras.get(self.seq)
        return applied, msgspec.json.decode(b"{%b}" % extra.fields()) if extra else {}

    async def begin(self, *guilds: str) -> None:
        """READY and all guilds."""
        listed = [{"id": guild, "unavailable": True} for guild in guilds]
        await self.receive("READY", {"user": {"id": self.writer.bot}, "guilds": listed})
        for guild in guilds:
            await self.receive("GUILD_CREATE", rich_guild(guild) | {"unavailable": False})


class Groups:
    """An application's old group with a guild of each kind, and the next one, which has not begun."""

    def __init__(self, url: str, client: Any) -> None:
        self.url = url
        self.client = client
        self.store = RedisCache(RedisOptions(url=url, timeout_s=PATIENT_S), clock=time.monotonic)

    def owner(self, group: int, shard: int, *, fence: int, app: str = APP, session: str = "old") -> Owner:
        writer = CacheWriter(
            shard=ShardId(app, group, shard), fence=Fence(fence), bot="9", intents=ALL, settings=SETTINGS
        )
        return Owner(self.store, writer, session)

    async def begin(self) -> None:
        self.old = [self.owner(OLD, number, fence=10 + number) for number in range(OLD_COUNT)]
        for number, owner in enumerate(self.old):
            mine = [guild for guild in (GUILD, NEIGHBOUR, ELSEWHERE) if shard_of(guild, OLD_COUNT) == number]
            await owner.begin(*mine)
            await self.store.keep(owner.writer, "abc")
        assert MINE is not None
        self.new = self.owner(NEW, MINE, fence=20, session="new")
        self.new.seq = 40

    def before(self, **more: Any) -> PreviousShards:
        """What the new shard has to know of the old group. Its hold began behind sequence 40."""
        assert MINE is not None
        ends = tuple(
            PreviousShard(shard=number, end=Standing("old", owner.seq), behind=False, fence=Fence(owner.writer.fence))
            for number, owner in enumerate(self.old)
        )
        return replace(
            PreviousShards(
                group=OLD,
                count=OLD_COUNT,
                own_count=NEW_COUNT,
                shards=ends,
                session="new",
                seq=40,
                guilds=frozenset({GUILD, NEIGHBOUR}),
            ),
            **more,
        )

    async def take_over(self, **more: Any) -> str:
        return await group_switch.take_over(self.store, self.before(**more), self.new.writer)

    async def locations(self) -> dict[str, str]:
        held: dict[bytes, bytes] = await self.client.hgetall(locations_key(NS, APP))
        return {guild.decode(): at.decode() for guild, at in held.items()}

    async def topics(self, guild: str = GUILD) -> set[Any]:
        held: list[bytes] = await self.client.hvals(collection_key(NS, guild, "channels"))
        return {msgspec.json.decode(channel).get("topic") for channel in held}

    async def has(self, guild: str) -> bool:
        return bool(await self.client.exists(guild_key(NS, guild))) and bool(
            await self.client.sismember(apps_key(NS, guild), APP)
        )


def new_topic(topic: str, guild: str = GUILD) -> dict[str, Any]:
    channel = rich_guild(guild)["channels"][1]
    return channel | {"guild_id": guild, "topic": topic}  # type: ignore[no-any-return]


def released(**more: Any) -> ipc.CleanGroupCache:
    return ipc.CleanGroupCache(app=APP, group=OLD, count=OLD_COUNT, fence=90, cache=SETTINGS, **more)


def next_group(*, continues: bool = True, ids: str = "0-2") -> ipc.NextGroup:
    return ipc.NextGroup(group=NEW, count=NEW_COUNT, ids=ids, continues=continues)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    async with EmbeddedRedis(tmp_path) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Tests share it and begin with it empty: its servers need two seconds to agree."""
    async with redis_cluster(Path(tmp_path_factory.mktemp("cluster")), 2) as servers:
        yield servers[0].url


@pytest.fixture(params=["one server", "cluster"])
async def groups(request: pytest.FixtureRequest, cluster: str, tmp_path: Path) -> AsyncIterator[Groups]:
    if request.param == "cluster":
        async with RedisCluster.from_url(cluster) as client:
            await client.flushall()
            async for made in _begun(Groups(cluster, client)):
                yield made
    else:
        async with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
            async for made in _begun(Groups(server.url, client)):
                yield made


@pytest.fixture
async def single(server: EmbeddedRedis) -> AsyncIterator[Groups]:
    async with redis.Redis.from_url(server.url) as client:
        async for made in _begun(Groups(server.url, client)):
            yield made


async def _begun(made: Groups) -> AsyncIterator[Groups]:
    await made.begin()
    yield made
    await made.store.close()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for others."""
    monkeypatch.setattr(group_cleanup, "RETRY_S", 0.02)
    monkeypatch.setattr(group_cleanup, "WAIT_S", 0.0)


# --- a shard of the next group begins -------------------------------------------------------------------------------


async def test_a_late_write_of_the_old_group_is_refused(groups: Groups) -> None:
    assert await groups.take_over() == ""
    await groups.new.receive("CHANNEL_UPDATE", new_topic("of the new group"))
    for event, data in (
        ("CHANNEL_UPDATE", new_topic("late")),
        ("GUILD_CREATE", rich_guild() | {"unavailable": False}),
        ("GUILD_DELETE", {"id": GUILD}),
        ("READY", {"user": {"id": "9"}, "guilds": []}),
    ):
        applied, _ = await groups.old[0].receive(event, data)
        assert applied.newer >= 20, event
    assert "of the new group" in await groups.topics()
    assert "late" not in await groups.topics()
    assert (await groups.locations())[GUILD] == f"{NEW}:{MINE}"


async def test_an_old_shard_that_was_claimed_after_the_new_one_is_refused_too(groups: Groups) -> None:
    for owner in groups.old:
        owner.writer = replace(owner.writer, fence=Fence(30))
        await owner.receive("CHANNEL_UPDATE", new_topic("by the last owner"))
    assert await groups.take_over() == ""
    applied, _ = await groups.old[0].receive("CHANNEL_UPDATE", new_topic("late"))
    assert applied.newer == 31
    assert "by the last owner" in await groups.topics()


async def test_its_guilds_move_with_what_is_known_of_them_and_others_stay(groups: Groups) -> None:
    old = names_of(groups.old[0].writer)
    await groups.client.sadd(old.chunked, GUILD, ELSEWHERE)
    assert await groups.take_over() == ""
    assert await groups.take_over() == "", "a next owner does the same again"
    here, old_shard = f"{NEW}:{MINE}", shard_of(ELSEWHERE, OLD_COUNT)
    assert await groups.locations() == {GUILD: here, NEIGHBOUR: here, ELSEWHERE: f"{OLD}:{old_shard}"}
    new = names_of(groups.new.writer)
    assert await groups.client.smembers(new.index) == {GUILD.encode(), NEIGHBOUR.encode()}
    assert await groups.client.smembers(new.chunked) == {GUILD.encode()}
    assert await groups.client.smembers(old.chunked) == {ELSEWHERE.encode()}
    assert await groups.client.get(new.kept) == b"abc"


async def test_its_session_goes_on_and_a_replay_is_recognised(single: Groups) -> None:
    assert await single.take_over() == ""
    first, _ = await single.new.receive("CHANNEL_UPDATE", new_topic("first"))
    assert (first.is_first, first.stood) == (False, 40)
    assert await single.take_over() == "", "the shard's next owner begins too"
    single.new.writer = replace(single.new.writer, fence=Fence(21))
    single.new.seq = 40
    replayed, extra = await single.new.receive("CHANNEL_UPDATE", new_topic("first"))
    assert (replayed.replayed, replayed.stood) == (1, 41)
    assert extra["before"]["topic"] != "first"


async def test_a_guild_that_joined_or_left_since_the_hold_began(groups: Groups) -> None:
    # Published by the old group, and so dropped by the new one.
    await groups.old[shard_of(JOINED, OLD_COUNT) or 0].receive("GUILD_CREATE", rich_guild(JOINED))
    assert await groups.take_over() == ""
    assert (await groups.locations())[JOINED] == f"{NEW}:{MINE}"
    await groups.new.receive("GUILD_DELETE", {"id": NEIGHBOUR})
    _, extra = await groups.new.receive("GUILD_DELETE", {"id": JOINED})
    assert extra["before"]["id"] == JOINED
    assert not await groups.has(NEIGHBOUR)
    assert not await groups.has(JOINED)
    assert await groups.has(GUILD)
    _, extra = await groups.new.receive("GUILD_CREATE", rich_guild(NEIGHBOUR))
    assert (extra["lazy"], extra["unavailable"]) == (False, False)
    assert (await groups.locations())[NEIGHBOUR] == f"{NEW}:{MINE}"
    assert JOINED not in await groups.locations()


async def test_a_guild_in_an_outage_is_reported_as_back_by_the_next_group(groups: Groups) -> None:
    await groups.old[0].receive("GUILD_DELETE", {"id": GUILD, "unavailable": True})
    assert await groups.take_over() == ""
    _, extra = await groups.new.receive("GUILD_CREATE", rich_guild() | {"unavailable": False})
    assert (extra["lazy"], extra["unavailable"]) == (False, True)


async def test_another_application_in_the_namespace_keeps_its_guilds_and_locations(groups: Groups, soon: None) -> None:
    other = groups.owner(0, 0, fence=1, app="chess", session="other")
    await other.begin(GUILD)
    assert await groups.take_over() == ""
    await groups.new.receive("CHANNEL_UPDATE", new_topic("seen by both"))
    _, extra = await other.receive("CHANNEL_UPDATE", new_topic("seen by both"))
    assert extra["before"]["topic"] == 'é"}{'
    await group_cleanup.release_group(groups.store, released(next=next_group()))
    assert await groups.client.smembers(apps_key(NS, GUILD)) == {b"chess", b"music"}
    assert await groups.client.hget(locations_key(NS, "chess"), GUILD) == b"0:0"
    await groups.new.receive("GUILD_DELETE", {"id": GUILD})
    assert await groups.client.smembers(apps_key(NS, GUILD)) == {b"chess"}
    assert "seen by both" in await groups.topics()


async def test_a_redis_that_was_emptied_before_the_switch_is_noticed(groups: Groups) -> None:
    await groups.client.flushall()
    assert await groups.take_over() == group_switch.LOST
    assert await groups.take_over() == group_switch.LOST, "also by a second try"
    late, _ = await groups.old[0].receive("CHANNEL_UPDATE", new_topic("late"))
    assert late.newer >= 20, "the fences hold without a record"
    assert await groups.topics() == set()


async def test_ids_that_are_no_guilds_do_not_stop_the_take_over(groups: Groups) -> None:
    await groups.client.sadd(names_of(groups.old[0].writer).index, "x", "-1")
    assert await groups.take_over(guilds=frozenset({GUILD, "y", ""})) == ""
    assert (await groups.locations())[GUILD] == f"{NEW}:{MINE}"


async def test_a_shard_that_has_no_guilds_is_complete(groups: Groups) -> None:
    lonely = replace(
        groups.new.writer, shard=ShardId(APP, NEW, shard_of(str(int(ELSEWHERE) + (1 << 22)), NEW_COUNT) or 0)
    )
    assert lonely.shard.shard not in (MINE, shard_of(ELSEWHERE, NEW_COUNT))
    before = groups.before(guilds=frozenset())
    assert await group_switch.take_over(groups.store, before, lonely) == ""


async def test_a_redis_that_is_emptied_during_the_switch_is_noticed_with_the_first_event(single: Groups) -> None:
    assert await single.take_over() == ""
    await single.client.flushall()
    applied, _ = await single.new.receive("CHANNEL_UPDATE", new_topic("alone"))
    assert applied.is_first


# --- all guilds of the old group ------------------------------------------------------------------------------------


async def test_a_hundred_thousand_guilds_move_in_bounded_steps(
    server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with redis.Redis.from_url(server.url) as client:
        groups, to = Groups(server.url, client), Destination(group=NEW, count=160, ids=frozenset(range(160)))
        writer, key = groups.owner(OLD, 0, fence=1).writer, locations_key(NS, APP)
        guilds = [str((175928847299 + step * 1741) << 22 | step) for step in range(100_000)]
        for start in range(0, len(guilds), 10_000):
            await client.hset(key, mapping=dict.fromkeys(guilds[start : start + 10000], f"{OLD}:7"))
        steps: list[int] = []
        run = groups.store._run_script

        async def counted(script: Any, keys: Any, args: Any) -> Any:
            steps.append((len(args) - 4) // 2)
            return await run(script, keys, args)

        monkeypatch.setattr(groups.store, "_run_script", counted)
        assert await groups.store.relocate(writer, OLD, to) == 100_000
        assert max(steps) <= redis_store.PIECE
        assert await client.hgetall(key) == {
            guild.encode(): f"{NEW}:{shard_of(guild, 160)}".encode() for guild in guilds
        }
        assert await client.scard(f"{key}:{NEW}:{shard_of(guilds[0], 160)}") > 1
        assert await groups.store.relocate(writer, OLD, to) == 0
        await groups.store.close()


async def test_two_leaders_may_ask_at_once_while_the_new_shards_write(single: Groups) -> None:
    writer, to = single.old[0].writer, Destination(group=NEW, count=NEW_COUNT, ids=frozenset(range(NEW_COUNT)))
    many = [str(int(GUILD) + (step << 22)) for step in range(100, 3000)]
    for guild in many:
        await single.client.hset(locations_key(NS, APP), guild, f"{OLD}:{shard_of(guild, OLD_COUNT)}")

    async def write() -> None:
        await single.new.receive("GUILD_DELETE", {"id": NEIGHBOUR})
        for _ in range(50):
            await single.new.receive("GUILD_CREATE", rich_guild(JOINED))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(single.store.relocate(writer, OLD, to)) for _ in range(2)]
        group.create_task(write())
    assert sum(task.result() for task in tasks) in (len(many) + 2, len(many) + 3)
    wanted = {guild: f"{NEW}:{shard_of(guild, NEW_COUNT)}" for guild in (*many, GUILD, ELSEWHERE, JOINED)}
    assert {guild: at for guild, at in (await single.locations()).items() if guild != NEIGHBOUR} == wanted


async def test_guilds_whose_new_shard_does_not_run_are_left(single: Groups) -> None:
    to = Destination(group=NEW, count=NEW_COUNT, ids=frozenset(range(NEW_COUNT)) - {MINE or 0})
    assert await single.store.relocate(single.old[0].writer, OLD, to) == 1
    found = await single.locations()
    assert found[ELSEWHERE] == f"{NEW}:{shard_of(ELSEWHERE, NEW_COUNT)}"
    assert found[GUILD] == f"{OLD}:0"


async def test_locations_that_no_node_wrote_do_not_stop_the_pass(single: Groups) -> None:
    await single.client.hset(
        locations_key(NS, APP), mapping={"1": "??", "x": f"{OLD}:0", "2": b"\xff", b"\xfe": f"{OLD}:1"}
    )
    await single.client.set(f"{locations_key(NS, APP)}:{NEW}:{MINE}", "not a set")
    to = Destination(group=NEW, count=NEW_COUNT, ids=frozenset(range(NEW_COUNT)))
    assert await single.store.relocate(single.old[0].writer, OLD, to) == 3
    assert await single.client.smembers(f"{locations_key(NS, APP)}:{NEW}:{MINE}") == {
        GUILD.encode(),
        NEIGHBOUR.encode(),
    }


async def test_the_answer_comes_when_redis_is_back(tmp_path: Path, soon: None) -> None:
    async with EmbeddedRedis(tmp_path, extra=("--appendonly", "yes", "--appendfsync", "always")) as server:
        async with redis.Redis.from_url(server.url) as client:
            groups = Groups(server.url, client)
            await groups.begin()
        await server.stop()
        asked = ipc.RelocateGuilds(app=APP, group=OLD, to=next_group(), cache=SETTINGS)
        asking = asyncio.create_task(group_cleanup.relocate_group(groups.store, asked))
        done, _ = await asyncio.wait([asking], timeout=0.3)
        assert not done
        await server.start()
        assert await asking == ipc.GuildsRelocated(app=APP, group=OLD, to=NEW, moved=3)
        async with redis.Redis.from_url(server.url) as client:
            groups.client = client
            wanted = {guild: f"{NEW}:{shard_of(guild, NEW_COUNT)}" for guild in (GUILD, NEIGHBOUR, ELSEWHERE)}
            assert await groups.locations() == wanted
        await groups.store.close()


async def test_a_redis_that_is_emptied_in_the_middle_gets_nothing_back(
    single: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [str(int(GUILD) + (step << 22)) for step in range(100, 3000)]
    await single.client.hset(locations_key(NS, APP), mapping=dict.fromkeys(many, f"{OLD}:0"))
    move, steps = single.store.move_guilds, []

    async def emptied_at_second(*args: Any, **more: Any) -> int:
        steps.append(args)
        if len(steps) == 2:
            await single.client.flushall()
        return await move(*args, **more)

    monkeypatch.setattr(single.store, "move_guilds", emptied_at_second)
    to = Destination(group=NEW, count=NEW_COUNT, ids=frozenset(range(NEW_COUNT)))
    moved = await single.store.relocate(single.old[0].writer, OLD, to)
    assert 0 < moved < len(many)
    assert len(steps) >= 2
    assert await single.client.dbsize() == 0


async def test_a_worker_that_gives_up_says_why(
    single: Groups, server: EmbeddedRedis, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_cleanup, "TRY_FOR_S", 0.1)
    await server.stop()
    asked = ipc.RelocateGuilds(app=APP, group=OLD, to=next_group(), cache=SETTINGS)
    answer = await group_cleanup.relocate_group(single.store, asked)
    assert (answer.app, answer.group, answer.to, answer.moved) == (APP, OLD, NEW, 0)
    assert "Redis" in answer.error


async def test_an_application_without_a_cache_is_done_at_once() -> None:
    away = RedisCache(RedisOptions(url="redis://127.0.0.1:1/0"), clock=time.monotonic)
    asked = ipc.RelocateGuilds(app=APP, group=OLD, to=next_group(), cache=CacheSpec(enabled=False))
    assert await group_cleanup.relocate_group(away, asked) == ipc.GuildsRelocated(app=APP, group=OLD, to=NEW)


# --- the old group is deleted ---------------------------------------------------------------------------------------


async def test_a_deleted_group_takes_no_guild_of_the_next_one_with_it(groups: Groups, soon: None) -> None:
    # No one located its guilds at the next group: the leader died, or Redis was away.
    await group_cleanup.release_group(groups.store, released(next=next_group()))
    assert await groups.locations() == {
        guild: f"{NEW}:{shard_of(guild, NEW_COUNT)}" for guild in (GUILD, NEIGHBOUR, ELSEWHERE)
    }
    assert [await groups.has(guild) for guild in (GUILD, NEIGHBOUR, ELSEWHERE)] == [True] * 3
    assert not await groups.client.exists(names_of(groups.old[0].writer).kept)
    late, _ = await groups.old[0].receive("GUILD_DELETE", {"id": GUILD})
    assert late.newer == 90


async def test_a_deleted_group_takes_the_guilds_that_no_shard_has_with_it(groups: Groups, soon: None) -> None:
    others = ",".join(str(shard) for shard in range(NEW_COUNT) if shard != MINE)
    await group_cleanup.release_group(groups.store, released(next=next_group(ids=others)))
    assert [await groups.has(guild) for guild in (GUILD, NEIGHBOUR, ELSEWHERE)] == [False, False, True]


async def test_without_a_next_group_all_guilds_are_removed(groups: Groups, soon: None) -> None:
    await group_cleanup.release_group(groups.store, released())
    assert await groups.locations() == {}
    assert not await groups.has(GUILD)


async def test_a_group_that_was_replaced_at_once_leaves_its_guilds_until_a_ready_says_which_are_gone(
    groups: Groups, soon: None
) -> None:
    begun = groups.owner(NEW, shard_of(ELSEWHERE, NEW_COUNT) or 0, fence=30, session="s")
    # The bot left ELSEWHERE meanwhile: the READY of its shard does not list it.
    await begun.begin()
    await group_cleanup.release_group(groups.store, released(next=next_group(continues=False)))
    assert [await groups.has(guild) for guild in (GUILD, NEIGHBOUR, ELSEWHERE)] == [True, True, False]
    new = groups.owner(NEW, MINE or 0, fence=31, session="t")
    await new.begin(GUILD)
    assert await groups.locations() == {GUILD: f"{NEW}:{MINE}"}
    assert [await groups.has(guild) for guild in (GUILD, NEIGHBOUR)] == [True, False]


async def test_nothing_is_removed_while_redis_cannot_say_what_the_next_group_has(
    single: Groups, server: EmbeddedRedis, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_cleanup, "TRY_FOR_S", 0.1)
    held = await single.client.hgetall(locations_key(NS, APP))

    async def refuse(*args: Any, **more: Any) -> int:
        raise CacheError("refused")

    monkeypatch.setattr(single.store, "relocate", refuse)
    await group_cleanup.release_group(single.store, released(next=next_group()))
    assert await single.client.hgetall(locations_key(NS, APP)) == held
    assert await single.has(GUILD)


# --- what the new shard must know -----------------------------------------------------------------------------------


def test_a_shard_depends_on_the_old_shards_that_can_have_its_guilds() -> None:
    for old_count, count in ((2, 3), (4, 6), (8, 4), (1, 5), (5, 5)):
        for shard in range(count):
            guilds = [str(step << 22) for step in range(old_count * count) if step % count == shard]
            wanted = {shard_of(guild, old_count) for guild in guilds}
            assert set(group_switch.shards_before(shard, count, old_count, f"0-{old_count - 1}")) == wanted
    assert group_switch.shards_before(1, 4, 8, "0-4") == [1]
    assert group_switch.shards_before(1, 4, 8, "not ranges") == [1, 5]


async def test_what_the_old_group_could_not_leave_in_the_cache(single: Groups) -> None:
    before = single.before()
    assert group_switch.missing(single.new.writer, before) == ""
    assert (
        group_switch.missing(single.new.writer, replace(before, shards=before.shards[:1])) == group_switch.NOT_ALL_RAN
    )
    fewer = ALL & ~INTENTS["GUILD_MEMBERS"]
    assert group_switch.missing(single.new.writer, replace(before, intents=fewer)) == group_switch.OTHER_INTENTS
    assert group_switch.missing(single.new.writer, replace(before, intents=ALL)) == ""
    other = ALL & ~INTENTS["GUILD_MESSAGE_TYPING"]
    assert group_switch.missing(single.new.writer, replace(before, intents=other)) == "", "it changes nothing cached"
