"""What a worker reads of the group that is replaced."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable

import pytest
import zstandard

from sandwich_node.events.identity import identity
from sandwich_node.publishing.log import Append
from sandwich_node.publishing.old_chains import LOST_WAIT_S, Follower, identity_of_line
from sandwich_node.publishing.previous_group import PreviousGroup, PreviousGroups
from sandwich_sdk.wire.headers import EXPECTED_LAST_SUBJECT, FrameHeaders
from tests.support.memory_log import MemoryLog
from verification.simulation.loop import run_virtual

SHARDS = 4


class Old:
    """An old group of four shards in a stream, and a reader of it."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.reader = PreviousGroups(self.log, random.Random(1)).reader("bot", 1)
        self.seq = 0

    async def put(
        self, shard: int, kind: str, payload: bytes, *, count: int = 0, part: tuple[int, int] | None = None
    ) -> int:
        chain = f"sandwich.bot.events.*.1.{shard}"
        headers = FrameHeaders(session="aa", first_seq=1, last_seq=1, count=count, epoch=1, kind=kind, part=part)
        tail = await self.log.tail("SANDWICH_bot", chain)
        expected = tail.stream_seq if tail is not None else 0
        encoded = headers.encode() | {EXPECTED_LAST_SUBJECT: chain}
        subject = f"sandwich.bot.events.all.1.{shard}"
        return await self.log.append(Append(subject, payload, encoded, chain, expected))

    async def event(self, shard: int, guild: int, number: int, *, own: bool = False) -> int:
        return await self.put(shard, "", zstandard.compress(line(guild, number, own=own)), count=1)

    async def end(self, shard: int) -> int:
        return await self.put(shard, "end", b"{}")


def line(guild: int, number: int, *, own: bool = False, lazy: bool = False) -> bytes:
    data = {"id": str(number), "channel_id": "1", "guild_id": str(guild)}
    meta = {"id": f"own:{number}" if own else f"aa:{number}"}
    event = {"t": "MESSAGE_CREATE", "s": number, "op": 0, "d": data, "__sandwich": meta, "__extra": {"lazy": lazy}}
    return json.dumps(event).encode() + b"\n"


def guild_of(shard: int, count: int = SHARDS) -> int:
    return shard << 22


def numbers(follower: Follower, guild: int, last: int) -> list[int]:
    known = {
        identity("MESSAGE_CREATE", json.dumps({"id": str(n), "channel_id": "1", "guild_id": str(guild)}).encode()): n
        for n in range(last + 1)
    }
    return [known[one] for one in follower.published]


def play(story: Callable[[Old], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(600):
            await story(Old())

    run_virtual(run())


def test_a_follower_gets_its_guilds_events_behind_its_hold_up_to_the_ends() -> None:
    async def story(old: Old) -> None:
        mine, others = 5 << 22, 1 << 22
        await old.event(1, mine, 1)
        hold = await old.event(1, mine, 2)
        follower = old.reader.follow(5, 8, SHARDS, frozenset({1}), hold)
        await old.event(1, mine, 3)
        await old.event(1, others, 4)
        await old.event(1, mine, 5, own=True)
        await old.event(2, mine, 6)
        await old.event(1, mine, 7)
        end = await old.end(1)
        await old.reader.ended(follower)
        assert numbers(follower, mine, 9) == [3, 7]
        assert {chain: ended.stream_seq for chain, ended in follower.ends.items()} == {1: end}

    play(story)


def test_one_reader_serves_followers_that_begin_at_different_places() -> None:
    async def story(old: Old) -> None:
        guild = guild_of(1)
        places = [await old.event(1, guild, number) for number in range(12)]
        late = old.reader.follow(1, 4, SHARDS, frozenset({1}), places[8])
        waiting = asyncio.create_task(old.reader.ended(late))
        await asyncio.sleep(1)
        early = old.reader.follow(1, 4, SHARDS, frozenset({1}), places[2])
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(old.reader.ended(early))
            await asyncio.sleep(1)
            await old.end(1)
        await waiting
        assert numbers(late, guild, 12) == [9, 10, 11]
        assert numbers(early, guild, 12) == list(range(3, 12))

    play(story)


def test_parts_are_joined_and_what_cannot_be_read_is_counted() -> None:
    async def story(old: Old) -> None:
        guild = guild_of(1)
        whole = zstandard.compress(line(guild, 1))
        follower = old.reader.follow(1, 4, SHARDS, frozenset({1}), 0)
        await old.put(1, "", whole[:9], count=1, part=(1, 2))
        await old.event(3, guild_of(3), 5)
        await old.put(1, "", whole[9:], count=1, part=(2, 2))
        await old.put(1, "", b"no zstd", count=1)
        await old.put(1, "", zstandard.compress(b"no json\n" + line(guild, 2)), count=2)
        await old.end(1)
        await old.reader.ended(follower)
        assert numbers(follower, guild, 3) == [1, 2]
        assert old.reader.unreadable == 2

    play(story)


def test_a_log_that_is_away_is_waited_for() -> None:
    async def story(old: Old) -> None:
        follower = old.reader.follow(1, 4, SHARDS, frozenset({1}), 0)
        old.log.away = True
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(old.reader.ended(follower))
            await asyncio.sleep(60)
            assert (waiting.done(), old.reader.waiting) == (False, "no answer")
            old.log.away = False
            await old.end(1)
        assert (old.reader.waiting, follower.trouble) == ("", "")

    play(story)


def test_a_stream_that_lost_what_was_not_read_is_reported_and_waited_for_no_longer_than_bounded() -> None:
    async def story(old: Old) -> None:
        loop = asyncio.get_running_loop()
        for number in range(5):
            await old.event(1, guild_of(1), number)
        follower = old.reader.follow(1, 4, SHARDS, frozenset({1}), 4)
        old.log.messages.clear()
        old.log._next = 1
        began = loop.time()
        await old.reader.ended(follower)
        assert LOST_WAIT_S <= loop.time() - began < LOST_WAIT_S + 5
        assert "made again" in follower.trouble

    play(story)


def test_frames_that_were_removed_before_they_were_read_are_reported() -> None:
    async def story(old: Old) -> None:
        for number in range(5):
            await old.event(1, guild_of(1), number)
        await old.end(1)
        del old.log.messages[:4]
        follower = old.reader.follow(1, 4, SHARDS, frozenset({1}), 1)
        await old.reader.ended(follower)
        assert numbers(follower, guild_of(1), 5) == [4]
        assert "removed" in follower.trouble

    play(story)


def test_a_group_is_read_once_for_all_and_forgotten_when_another_is_read() -> None:
    groups = PreviousGroups(MemoryLog(), random.Random(1))
    first = groups.reader("bot", 1)
    follower = first.follow(0, 1, 1, frozenset({0}), 0)
    assert groups.reader("bot", 1) is first
    groups.reader("bot", 2)
    assert groups.reader("bot", 1) is first
    first.leave(follower)
    groups.reader("bot", 3)
    assert isinstance(groups.reader("bot", 1), PreviousGroup)
    assert groups.reader("bot", 1) is not first


@pytest.mark.parametrize(
    ("extra", "is_comparable"),
    [
        ({"lazy": True, "unavailable": False}, False),
        ({"lazy": True, "unavailable": True}, True),
        ({"lazy": False, "unavailable": True}, True),
        ({"lazy": False, "unavailable": False}, True),
    ],
)
def test_a_published_guild_is_compared_unless_it_is_the_announcement_of_a_session(
    extra: dict[str, bool], is_comparable: bool
) -> None:
    data = {"id": str(5 << 22), "unavailable": False}
    event = {"t": "GUILD_CREATE", "s": 1, "op": 0, "d": data, "__sandwich": {"id": "aa:1"}, "__extra": extra}
    wanted = identity("GUILD_CREATE", json.dumps(data).encode()) if is_comparable else None
    assert identity_of_line(json.dumps(event).encode()) == wanted
