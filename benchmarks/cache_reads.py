"""`python -m benchmarks.cache_reads`: the time of the SDK's reads from a full Redis on this machine.

A plain PING over redis-py is measured too: if both are slow, the machine is. About two minutes.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import hiredis
import redis.asyncio as redis

from sandwich_node.dev.embedded import EmbeddedRedis
from sandwich_sdk.cache import Cache
from sandwich_sdk.cache.testing import guild_layout
from sandwich_sdk.wire import cache_keys

NAMESPACE, APPS = "bench", ("one", "two", "three")
GUILDS = 20_000
LARGE_GUILD, LARGE_MEMBERS = "4096", 20_000
SIZES = (1, 10, 100, 200)
ASKED_USERS = 100
"""The number of users of each size, read in turn."""
WRITE_AT_ONCE = 5_000
USER = b'{"id":"%d","username":"user number %d","global_name":"A User","avatar":"%032x","public_flags":0}'

Question = Callable[[Cache, int], Awaitable[Any]]


def guild_of(number: int) -> str:
    return str((1 << 58) + number * 7919)


def user_of(size: int, number: int) -> str:
    return str((1 << 56) + size * 1_000_000 + number)


def commands(users: int) -> Iterator[tuple[Any, ...]]:
    """The commands that fill the server: users, mostly in few guilds, and some in exactly the measured numbers."""
    rng = random.Random(1)
    guilds = [guild_of(number) for number in range(GUILDS)]
    for number, guild in enumerate(guilds):
        apps = APPS[: 1 + number % 3]
        yield "SADD", cache_keys.apps_key(NAMESPACE, guild), *apps
        yield "SET", cache_keys.guild_key(NAMESPACE, guild), b'{"id":"%b","name":"A guild"}' % guild.encode()
        for app in apps:
            yield "HSET", cache_keys.locations_key(NAMESPACE, app), guild, cache_keys.location(1, number % 16)
    for number in range(users):
        user = (1 << 57) + number
        yield "SET", cache_keys.user_key(NAMESPACE, user), USER % (user, number, number)
        shared = rng.sample(guilds, rng.choices((1, 2, 5, 10), (60, 25, 10, 5))[0])
        yield "SADD", cache_keys.mutual_key(NAMESPACE, user), *shared
    for size in SIZES:
        for number in range(ASKED_USERS):
            yield "SADD", cache_keys.mutual_key(NAMESPACE, user_of(size, number)), *rng.sample(guilds, size)
    yield from large_guild()


def large_guild() -> Iterator[tuple[Any, ...]]:
    channels = [{"id": str(n), "type": 0, "name": f"c{n}", "permission_overwrites": []} for n in range(1, 201)]
    members = [
        {"user": {"id": str(10_000 + n), "username": f"name {n}"}, "roles": ["1", "2"], "flags": 0}
        for n in range(LARGE_MEMBERS)
    ]
    roles = [{"id": role, "name": role, "permissions": "1024"} for role in (LARGE_GUILD, "1", "2")]
    guild = {"id": LARGE_GUILD, "owner_id": "9", "channels": channels, "members": members, "roles": roles}
    for key, value in guild_layout(NAMESPACE, guild, app=APPS[0]).items():
        if isinstance(value, bytes):
            yield "SET", key, value
        elif isinstance(value, set):
            yield "SADD", key, *value
        else:
            for field, item in value.items():
                yield "HSET", key, field, item


async def fill(client: redis.Redis, users: int) -> None:
    connection = await client.connection_pool.get_connection()
    packed: list[bytes] = []

    async def write() -> None:
        await connection.send_packed_command(packed)
        for _ in packed:
            await connection.read_response()
        packed.clear()

    for command in commands(users):
        packed.append(hiredis.pack_command(command))
        if len(packed) == WRITE_AT_ONCE:
            await write()
    await write()
    await client.connection_pool.release(connection)


async def mutual(size: int, app: str | None, cache: Cache, number: int) -> None:
    found = await cache.mutual_guilds(user_of(size, number % ASKED_USERS), app=app)
    assert app or len(found) == size


QUESTIONS: dict[str, tuple[Question, int]] = {
    **{f"mutual_guilds, {size} guilds": (partial(mutual, size, None), 1000) for size in SIZES},
    **{f"mutual_guilds(app=...), {size} guilds": (partial(mutual, size, "one"), 1000) for size in SIZES},
    "where_is_guild": (lambda cache, n: cache.where_is_guild(guild_of(n), "one"), 1000),
    "guild": (lambda cache, n: cache.guild(guild_of(n)), 1000),
    "guilds, 100 ids": (lambda cache, n: cache.guilds(guild_of(n + more) for more in range(100)), 300),
    "member": (lambda cache, n: cache.member(LARGE_GUILD, 10_000 + n), 1000),
    "permissions in a channel": (lambda cache, n: cache.permissions(LARGE_GUILD, 10_000 + n, 1 + n % 200), 1000),
    "channels, 200 of them": (lambda cache, n: cache.channels(LARGE_GUILD), 300),
    f"members(query=...), {LARGE_MEMBERS} members": (lambda cache, n: cache.members(LARGE_GUILD, query="name 1999"), 5),
}
"""By name: the read, and how often it runs in a round."""


async def measure(ask: Callable[[int], Awaitable[Any]], count: int) -> tuple[float, float, float]:
    """Milliseconds: median, 99th percentile, and CPU time of the reader."""
    took = []
    cpu = time.process_time()
    for number in range(count):
        started = time.perf_counter()
        await ask(number)
        took.append((time.perf_counter() - started) * 1000)
    cpu = (time.process_time() - cpu) * 1000 / count
    took.sort()
    return statistics.median(took), took[min(count - 1, int(count * 0.99))], cpu


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


async def main(users: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with EmbeddedRedis(Path(directory)) as server, redis.Redis.from_url(server.url, protocol=2) as client:
            started = time.perf_counter()
            await fill(client, users)
            memory = (await client.info("memory"))["used_memory_human"]
            keys, took = await client.dbsize(), time.perf_counter() - started
            print(f"{keys:,} keys, {users:,} users in {GUILDS:,} guilds, {memory}, filled in {took:.0f} s\n")
            async with Cache(server.url, namespace=NAMESPACE) as cache:
                asked: dict[str, tuple[Callable[[int], Awaitable[Any]], int]] = {
                    name: (partial(ask, cache), count) for name, (ask, count) in QUESTIONS.items()
                }
                asked = {"(PING)": (lambda _: client.ping(), 1000), **asked}
                for ask, _ in asked.values():
                    await ask(0)
                found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in asked}
                for _ in range(rounds):
                    for name, (ask, count) in asked.items():
                        found[name].append(await measure(ask, count))
    print(f"| question | p50 ms, median of {rounds} rounds (min to max) | p99 ms | CPU ms |\n|---|---|---|---|")
    for name, figures in found.items():
        print(f"| {name} | " + " | ".join(spread(list(column)) for column in zip(*figures, strict=True)) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache_reads", description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.users, arguments.rounds))
