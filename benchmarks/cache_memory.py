"""`python -m benchmarks.cache_memory`: Redis' memory for the guilds of one bot, compared with discord.py's.

Both have all intents and cache everything, including presences: discord.py always caches the presences that it gets,
and only with that intent Discord lists a guild's members in GUILD_CREATE. Simulator, cluster and discord.py are real
processes.
"""

import argparse
import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec
import redis.asyncio as redis

from benchmarks.nodes import all_live
from benchmarks.processes import ClientFailed, client, not_run, rss_mib, token, until
from sandwich_coordinator.intents import ALL
from sandwich_node.dev.cluster import DevBot, DevCluster, dev_cluster

SHARDS = 2
MIB = 1024**2
START_S = 900.0
SETTLE_S = 20.0
CACHED = {
    "guilds": {"members": False, "users": False},
    "members": {},
    "presences": {"presences": True},
}
"""The cache settings, with and without members and presences."""


@dataclass(frozen=True)
class Used:
    """Memory of one Redis in bytes, used and resident, each above the empty server's."""

    counted: int
    resident: int
    guilds: int


async def fill(cluster: DevCluster, empty: dict[str, Any]) -> Used:
    """Wait until the cache is complete; returns its memory."""

    async def complete() -> bool:
        _, text = await cluster.run_cli("cluster", "status", "--json")
        return all(app["cache"] == "complete" for app in msgspec.json.decode(text)["apps"])

    await until(lambda: all_live(cluster, SHARDS), START_S)
    async with redis.Redis.from_url(cluster.redis.url) as server:

        async def all_there() -> bool:
            return bool(await server.hlen("sw:bot:guilds:{bot}") == cluster.bots[0].guilds and await complete())

        await until(all_there, START_S)
        await asyncio.sleep(SETTLE_S)
        full = await server.info("memory")
        guilds = await server.hlen("sw:bot:guilds:{bot}")
    return Used(full["used_memory"] - empty["used_memory"], full["used_memory_rss"] - empty["used_memory_rss"], guilds)


async def measure(
    guilds: int, members: int, cache: dict[str, bool], *, other: bool
) -> tuple[Used, tuple[float, float] | ClientFailed | None]:
    """Redis' memory; with `other` discord.py's MiB without guilds and with the same number of them."""
    bot = DevBot(
        app="bot",
        token=token(1),
        guilds=guilds,
        members=members,
        shards=SHARDS,
        recommended=SHARDS,
        settings={"intents": ALL, "large_threshold": 250, "cache": cache},
    )
    async with dev_cluster((bot,), nodes=0, rate=0) as cluster:
        async with redis.Redis.from_url(cluster.redis.url) as server:
            empty = await server.info("memory")
        await cluster.start_node("a")
        used = await fill(cluster, empty)
        await cluster.stop_nodes()
        if not other:
            return used, None
        try:
            return used, (await discord_py(cluster, 2, 0, members), await discord_py(cluster, 3, guilds, members))
        except ClientFailed as failed:
            return used, failed


async def discord_py(cluster: DevCluster, number: int, guilds: int, members: int) -> float:
    """discord.py's MiB with this number of guilds. Raises ClientFailed."""
    body = {"token": token(number), "name": f"other{number}", "guilds": guilds, "members_per_guild": members}
    await cluster.simulator("bots", body | {"recommended_shards": SHARDS, "max_concurrency": SHARDS})
    api_url = f"{cluster.simulator_url}/api/v10"
    async with client("discord.py", api_url, token(number), timeout_s=START_S) as one, one.must_run():
        await asyncio.sleep(SETTLE_S)
        return rss_mib(one.pid)


async def main(guilds: int, members: int) -> None:
    used: dict[str, Used] = {}
    found: tuple[float, float] | ClientFailed | None = None
    for name, cache in CACHED.items():
        used[name], found = await measure(guilds, members, cache, other=name == "presences")
        assert used[name].guilds == guilds
    bare, people, whole = (used[name].counted for name in CACHED)
    resident = used["presences"].resident / MIB
    print(
        f"{guilds:,} guilds of {members} members. Redis: {bare / guilds:,.0f} bytes a guild without members,", end=" "
    )
    print(f"{(people - bare) / (guilds * members):,.0f} bytes a member with its user;", end=" ")
    print(f"{people / MIB:,.0f} MiB without presences, {whole / MIB:,.0f} MiB with them ({resident:,.0f} resident)")
    if isinstance(found, ClientFailed):
        print(f"discord.py: {not_run(found)}")
        return
    assert found is not None
    base, theirs = found
    print(f"discord.py: {theirs - base:,.0f} MiB more than without guilds ({theirs:,.0f} in all).", end=" ")
    print(f"Redis takes {resident / (theirs - base):.2f} of it")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache_memory", description=__doc__)
    parser.add_argument("--guilds", type=int, default=2000)
    parser.add_argument("--members", type=int, default=200)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.guilds, arguments.members))
