"""`python -m benchmarks.cache_ticks`: what a worker's tick costs without and with the cache, also on a busy machine.

The publishers of 64 shards over a real NATS and Redis in one process, without a gateway. At each tick some shards have
events, three MESSAGE_CREATE to one GUILD_MEMBER_UPDATE; the next tick begins when all are stored. So the work is the
same on a busy machine, and CPU is that of this process, per event: the least of all samples. Redis: the mean.
"""

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from benchmarks.processes import cpu_s
from sandwich_coordinator.ids import Fence, ShardId
from sandwich_coordinator.intents import ALL
from sandwich_coordinator.types import CacheSpec, EventsSpec
from sandwich_node.cache.feed import CacheFeed
from sandwich_node.cache.options import RedisOptions
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.cache.settings import CacheWriter
from sandwich_node.dev.embedded import EmbeddedNats, EmbeddedRedis
from sandwich_node.events.enrich import ShardEnricher
from sandwich_node.events.filters import EventFilter
from sandwich_node.nats_connection import NatsConnection
from sandwich_node.nats_options import NatsOptions
from sandwich_node.publishing.chain import Chain
from sandwich_node.publishing.frames import EventBuffer, ShardOrigin
from sandwich_node.publishing.jetstream import JetStreamLog
from sandwich_node.publishing.publisher import ShardPublisher

APP, BOT, SHARDS = "bench", "9", 64
TICKS = ((17, 1), (4, 5), (4, 500))
"""Shards that have events, and how many each has."""
PATIENT_S = 30.0
"""No frame leaves without its cache changes, and no call fails, because the machine is busy."""
_EVENTS_A_SAMPLE = 700


class Shard:
    """A shard's publisher and its cache."""

    def __init__(self, number: int, log: JetStreamLog, cache: RedisCache) -> None:
        origin = ShardOrigin(shard=ShardId(APP, 0, number), count=SHARDS, route="", bot=BOT)
        self.chain = Chain(log, origin, fence=Fence(1), pause=asyncio.sleep, rng=random.Random(number))
        buffer = EventBuffer(origin)
        buffer.start_session(f"s{number}", 0, bot=BOT)
        writer = CacheWriter(shard=origin.shard, fence=Fence(1), bot=BOT, intents=ALL, settings=CacheSpec())
        self.feed = CacheFeed(writer, cache, rng=random.Random(1), caught_up=lambda: None, wait_s=PATIENT_S)
        self.enricher = ShardEnricher(EventFilter(EventsSpec(), BOT))
        self.publisher = ShardPublisher(buffer, self.chain, enricher=self.enricher)
        self.guild = str(1000 + number)
        self.seq = 0

    def push(self, event_type: str, data: dict[str, Any]) -> None:
        """Take one event."""
        self.seq += 1
        d = msgspec.json.encode(data)
        raw = b'{"t":"%b","s":%d,"op":0,"d":%b}' % (event_type.encode(), self.seq, d)
        ops = self.feed.translate(event_type, d) if self.enricher.cache is not None else ()
        self.publisher.push(raw, event_type, self.seq, ops=ops, size=len(d) if ops else 0)

    async def begin(self) -> None:
        """The session's first events."""
        await self.chain.take_over()
        channel = {"id": f"7{self.guild}", "type": 0, "name": "general", "topic": "t" * 40, "last_message_id": "1"}
        members = [{"user": _user(str(user)), "roles": []} for user in range(5)]
        self.enricher.cache = self.feed
        self.push("READY", {"user": _user(BOT), "guilds": [{"id": self.guild}]})
        self.push("GUILD_CREATE", {"id": self.guild, "member_count": 5, "channels": [channel], "members": members})


def _user(user_id: str) -> dict[str, Any]:
    return {"id": user_id, "username": f"name{user_id}", "global_name": "x" * 12, "avatar": "a" * 32}


def _event(shard: Shard, rng: random.Random, number: int) -> tuple[str, dict[str, Any]]:
    user, roles = _user(str(rng.randrange(5))), ["1" * 18] * 3
    if rng.random() < 0.25:
        return "GUILD_MEMBER_UPDATE", {"guild_id": shard.guild, "user": user, "roles": roles, "nick": f"n{number}"}
    message = {"id": str(10**17 + number), "channel_id": f"7{shard.guild}", "guild_id": shard.guild, "author": user}
    more = {"content": "word " * 20, "member": {"roles": roles, "nick": None}, "mentions": [], "embeds": []}
    return "MESSAGE_CREATE", message | more


async def _stored(shards: list[Shard]) -> None:
    """Wait until everything is in the stream."""
    for shard in shards:
        await shard.publisher.flushed()


async def _cost(shards: list[Shard], busy: int, each: int, samples: int) -> tuple[float, int]:
    """(µs of CPU an event, events sent)."""
    rng, best, sent = random.Random(busy * each), float("inf"), 0
    for _ in range(samples):
        used, events = 0.0, 0
        while events < _EVENTS_A_SAMPLE:
            some = rng.sample(shards, busy)
            made = [(shard, _event(shard, rng, sent + number)) for shard in some for number in range(each)]
            began = time.process_time()
            for shard, event in made:
                shard.push(*event)
            await _stored(some)
            used += time.process_time() - began
            events += len(made)
            sent += len(made)
        best = min(best, used / events)
    return best * 1e6, sent


async def table(samples: int) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as directory:
        async with EmbeddedRedis(Path(directory, "redis")) as redis, EmbeddedNats(Path(directory, "nats")) as nats:
            connection = NatsConnection(NatsOptions(servers=(nats.url,)))
            log = JetStreamLog(connection)
            await connection.connect()
            await log.ensure_stream(APP)
            cache = RedisCache(RedisOptions(url=redis.url, timeout_s=PATIENT_S), clock=time.monotonic)
            shards = [Shard(number, log, cache) for number in range(SHARDS)]
            async with asyncio.TaskGroup() as group:
                runs = []
                for shard in shards:
                    await shard.begin()
                    runs += [group.create_task(shard.feed.run()), group.create_task(shard.publisher.run())]
                await _stored(shards)
                await _print(shards, redis.pid, samples)
                for run in runs:
                    run.cancel()
            await cache.close()
            await connection.close()


async def _print(shards: list[Shard], redis: int, samples: int) -> None:
    print("| shards with events at a tick | events of each | without, µs an event | with the cache | Redis |")
    print("|---|---|---|---|---|")
    for busy, each in TICKS:
        for shard in shards:
            shard.enricher.cache = None
        plain, _ = await _cost(shards, busy, each, samples)
        for shard in shards:
            shard.enricher.cache = shard.feed
        before = cpu_s(redis)
        cached, sent = await _cost(shards, busy, each, samples)
        of_redis = (cpu_s(redis) - before) / sent * 1e6
        print(f"| {busy} | {each} | {plain:.1f} | {cached:.1f} | {of_redis:.1f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache_ticks", description=__doc__)
    parser.add_argument("--samples", type=int, default=10)
    uvloop.run(table(parser.parse_args().samples))
