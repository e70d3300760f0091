"""Fetching all members: paced, tried again with a bound, and taken up by the next owner. Virtual time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_coordinator.types import CacheSpec
from sandwich_node.cache.batch import names_of
from sandwich_node.cache.errors import CacheUnavailable
from sandwich_node.cache.settings import CacheWriter
from sandwich_node.shards.chunking import PACE_S, TRIES_MAX, MemberChunking
from sandwich_sdk.wire.rpc import LIMITED, TIMEOUT, RpcError
from verification.simulation.loop import run_virtual

WRITER = CacheWriter(
    shard=ShardId("bot", 0, 0), fence=Fence(1), bot="9", intents=1, settings=CacheSpec(chunk_members=True)
)
INDEX = names_of(WRITER).index


class FakeRedis:
    """Sets only."""

    def __init__(self) -> None:
        self.sets: dict[str, set[str]] = {INDEX: set()}
        self.away = False

    @property
    def complete(self) -> set[str]:
        return self.sets.get(INDEX + ":chunked", set())

    async def read_sets(self, keys: Sequence[str]) -> list[frozenset[str]]:
        self._check()
        return [frozenset(self.sets.get(key, ())) for key in keys]

    async def command(self, word: str, key: str, *members: str) -> None:
        self._check()
        match word:
            case "DEL":
                self.sets.pop(key, None)
            case "SADD":
                self.sets.setdefault(key, set()).update(members)
            case "SREM":
                self.sets.get(key, set()).difference_update(members)

    def _check(self) -> None:
        if self.away:
            raise CacheUnavailable("Redis does not answer")


class FakeCommands:
    """Notes who is asked when; `answers` are errors to raise first, by guild."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, str]] = []
        self.answers: dict[str, list[RpcError]] = {}

    async def chunk(self, guild: str, timeout_s: float) -> None:
        self.asked.append((asyncio.get_running_loop().time(), guild))
        if self.answers.get(guild):
            raise self.answers[guild].pop(0)

    @property
    def guilds(self) -> list[str]:
        return [guild for _, guild in self.asked]


def create(guild: str, members: int, listed: int) -> tuple[str, bytes]:
    data = {"id": guild, "member_count": members, "members": [{}] * listed}
    return "GUILD_CREATE", msgspec.json.encode(data)


def play(
    story: Callable[[MemberChunking, FakeRedis, FakeCommands], Awaitable[Any]], *, known: Sequence[str] = ()
) -> None:
    async def main() -> None:
        redis, commands = FakeRedis(), FakeCommands()
        redis.sets[INDEX] |= set(known)
        chunking = MemberChunking(WRITER, redis, commands)  # type: ignore[arg-type]
        running = asyncio.create_task(chunking.run())
        try:
            await story(chunking, redis, commands)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run_virtual(main())


def test_a_new_session_asks_for_each_guild_that_is_not_whole_once_and_in_order() -> None:
    async def story(chunking: MemberChunking, redis: FakeRedis, commands: FakeCommands) -> None:
        redis.sets[INDEX + ":chunked"] = {"gone"}
        chunking.observe("READY", b"{}")
        for guild, members, listed in (("1", 300, 50), ("2", 10, 10), ("3", 400, 50)):
            chunking.observe(*create(guild, members, listed))
        assert chunking.left == 2
        await asyncio.sleep(10)
        assert commands.guilds == ["1", "3"]
        assert commands.asked[1][0] - commands.asked[0][0] >= PACE_S
        assert redis.complete == {"1", "2", "3"}
        assert chunking.left == 0
        # A guild that comes back after an outage has its first members only.
        chunking.observe(*create("1", 300, 50))
        chunking.observe("GUILD_DELETE", b'{"id":"3"}')
        chunking.observe("GUILD_DELETE", b'{"id":"2","unavailable":true}')
        await asyncio.sleep(10)
        assert commands.guilds == ["1", "3", "1"]
        assert redis.complete == {"1", "2"}

    play(story)


def test_a_guild_whose_members_cannot_be_read_is_asked_for_them() -> None:
    async def story(chunking: MemberChunking, redis: FakeRedis, commands: FakeCommands) -> None:
        chunking.observe("READY", b"{}")
        chunking.observe("GUILD_CREATE", b'{"id":"1","member_count":3,"members":null}')
        chunking.observe("GUILD_CREATE", b'{"id":"2","member_count":3,"members":[],"unavailable":null}')
        chunking.observe("GUILD_CREATE", b'{"id":"3","members":7,"unavailable":true}')
        chunking.observe("GUILD_CREATE", b'{"id":4,"members":null}')
        await asyncio.sleep(10)
        assert commands.guilds == ["1", "2"]

    play(story)


def test_the_next_owner_goes_on_where_the_last_one_stopped() -> None:
    async def story(chunking: MemberChunking, redis: FakeRedis, commands: FakeCommands) -> None:
        redis.sets[INDEX + ":chunked"] = {"2"}
        await asyncio.sleep(10)
        assert sorted(commands.guilds) == ["1", "3"]
        assert redis.complete == {"1", "2", "3"}

    play(story, known=["1", "2", "3"])


def test_a_guild_that_fails_is_asked_again_behind_the_others_and_not_for_ever() -> None:
    async def story(chunking: MemberChunking, redis: FakeRedis, commands: FakeCommands) -> None:
        commands.answers["1"] = [RpcError(TIMEOUT, "no answer")] * 9
        commands.answers["2"] = [RpcError(LIMITED, "too soon")] * 9
        chunking.observe("READY", b"{}")
        for guild in "123":
            chunking.observe(*create(guild, 300, 50))
        await asyncio.sleep(60)
        assert commands.guilds[:4] == ["1", "2", "3", "1"]
        assert commands.guilds.count("1") == TRIES_MAX
        assert commands.guilds.count("2") == 10, "to wait for its turn is no failure"
        assert redis.complete == {"2", "3"}

    play(story)


def test_it_waits_for_redis_and_forgets_nothing_meanwhile() -> None:
    async def story(chunking: MemberChunking, redis: FakeRedis, commands: FakeCommands) -> None:
        redis.away = True
        chunking.observe("READY", b"{}")
        chunking.observe(*create("1", 300, 50))
        await asyncio.sleep(30)
        assert not commands.asked
        redis.away = False
        await asyncio.sleep(10)
        assert redis.complete == {"1"}

    play(story)


def test_what_is_no_guild_is_passed_over() -> None:
    async def story(chunking: MemberChunking, redis: FakeRedis, commands: FakeCommands) -> None:
        for data in (b"{}", b"[]", b"{", b'{"id":7}', b'{"id":"1","members":[{}],"member_count":"x"}'):
            chunking.observe("GUILD_CREATE", data)
        await asyncio.sleep(10)
        assert not commands.asked
        assert not chunking.left

    play(story)
