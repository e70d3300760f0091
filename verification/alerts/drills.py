"""The drills: which alert, by which cause, and how the cause ends.

Each fault is a context manager: it causes the trouble as soon as it is entered, and ends it as soon as it is left, so
that times are counted from there. What has to come before belongs to its drill; what it cannot cause alone, such as a
load, to its stage.
"""

import asyncio
import base64
import contextlib
import os
import signal
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import nats
import redis.asyncio as redis

from sandwich_node.dev.cluster import DevBot
from sandwich_sdk import Consumer, Event
from sandwich_sdk.wire.cache_keys import collection_key
from sandwich_sdk.wire.subjects import stream_name
from verification.alerts.field import DrillError, Field, until

Fault = Callable[[Field], AbstractAsyncContextManager[None]]
LASTING_S = 600.0
"""Of a fault of the simulated Discord that the drill ends itself."""
MAIN = "main"
CAUGHT_UP_FRAMES = 1000
_SLEEPER: dict[str, Any] = {"app": "unread", "group": "sleeper", "start": "all"}
HELD_EVENTS, HELD_BYTES = 66, 240_000
"""For each shard: just under the 16 MiB that it holds back for Redis."""

LASTING = frozenset(
    {
        "SandwichNodeDown",
        "SandwichNoLeader",
        "SandwichShardsFailed",
        "SandwichShardsNotLive",
        "SandwichHeartbeatSlow",
        "SandwichNoEvents",
        "SandwichBacklogGrows",
        "SandwichPublishRetries",
        "SandwichUnstableConnections",
        "SandwichConsumerBehind",
        "SandwichDeadLetters",
        "SandwichCacheIncomplete",
        "SandwichCacheBehind",
    }
)
"""Alerts about a state: they have to fire as long as it lasts. The others are about what happened within some time, or
about less or more than some time ago, and clear when that is past."""


@dataclass(frozen=True, slots=True)
class Drill:
    """One cause and the alerts that it has to fire.

    app     of the alerts' label, "" where they have none
    before  what has to be done, or to have lasted, before the cause
    """

    alerts: tuple[str, ...]
    cause: str
    fault: Fault
    app: str = ""
    before: Callable[[Field], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """A cluster and its drills.

    at_once  the drills have an application each and run together; otherwise one after another
    factor   by which the rules' durations are divided
    rates    events a second by application
    """

    name: str
    bots: tuple[DevBot, ...]
    drills: tuple[Drill, ...]
    rates: Mapping[str, float]
    nodes: tuple[str, ...] = ("a", "b")
    factor: float = 60.0
    at_once: bool = False
    max_shards: int = 0
    """Of each node; 0: no limit."""


# --- faults of one application -----------------------------------------------------------------------------------


@asynccontextmanager
async def token_revoked(field: Field) -> AsyncIterator[None]:
    """Discord knows another token (4004), until the old one counts again and the shards are restarted."""
    app, token = "revoked", _token("revoked")
    await field.sim("bots", bot=app, token=token + "x")
    yield
    await field.sim("bots", bot=app, token=token)
    await field.command("shard", "restart", app, "0")


@asynccontextmanager
async def guilds_left(field: Field) -> AsyncIterator[None]:
    """A third of the guilds removes the bot."""
    app = "removed"
    for guild in (await field.guilds(app))[::3]:
        await field.sim("emit", bot=app, t="GUILD_DELETE", d={"id": guild}, guild_id=guild)
    yield


@asynccontextmanager
async def no_events(field: Field) -> AsyncIterator[None]:
    """Discord sends nothing, with all shards connected."""
    await field.sim("traffic", bot="quiet", rate=0.0)
    yield
    await field.sim("traffic", bot="quiet", rate=APP_RATE)


@asynccontextmanager
async def connections_break(field: Field) -> AsyncIterator[None]:
    """The sockets of all shards are cut every second."""

    async def cut() -> None:
        while True:
            await field.fault("drop", bot="unstable")
            await asyncio.sleep(1.0)

    async with _meanwhile(cut()):
        yield


@asynccontextmanager
async def stranger_publishes(field: Field) -> AsyncIterator[None]:
    """A client publishes on the subject of a shard, once."""
    client = await nats.connect(field.cluster.nats.url)
    try:
        await client.publish("sandwich.foreign.events.all.0.0", b"not a frame")
        await client.flush()
    finally:
        await client.close()
    yield


@asynccontextmanager
async def nameless_dispatch(field: Field) -> AsyncIterator[None]:
    """Discord sends a dispatch without a sequence, once."""
    await field.sim("raw", bot="nameless", shards=[0], payload='{"op":0,"t":"MESSAGE_CREATE","s":null,"d":{}}')
    yield


@asynccontextmanager
async def unreadable_event(field: Field) -> AsyncIterator[None]:
    """Discord sends a channel whose id is an object, once."""
    guild = (await field.guilds("unreadable"))[0]
    data = {"id": {}, "guild_id": guild, "type": "x"}
    await field.sim("emit", bot="unreadable", t="CHANNEL_UPDATE", d=data, guild_id=guild)
    yield


async def worker_read(field: Field) -> None:
    """The only worker of a new consumer group reads an event, and ends."""
    async with Consumer(field.cluster.nats.url, **_SLEEPER) as consumer:
        await anext(aiter(consumer))


@asynccontextmanager
async def no_worker(field: Field) -> AsyncIterator[None]:
    """A consumer group has no worker, until one reads again."""
    yield
    client = await nats.connect(field.cluster.nats.url)

    async def caught_up() -> bool:
        found = await _api(client, f"CONSUMER.LIST.{stream_name('unread')}")
        return all(one["num_pending"] < CAUGHT_UP_FRAMES for one in found["consumers"])

    try:
        async with Consumer(field.cluster.nats.url, **_SLEEPER) as consumer, _meanwhile(_read(consumer)):
            await until("the group has caught up", caught_up)
    finally:
        await client.close()


@asynccontextmanager
async def handler_fails(field: Field) -> AsyncIterator[None]:
    """A handler fails with every event until it is ended, and its dead letters are discarded."""
    options: dict[str, Any] = {"app": "letters", "group": "broken", "start": "new", "max_tries": 2, "nak_delay": 0.1}
    consumer = Consumer(field.cluster.nats.url, **options)

    @consumer.on_any
    async def fail(event: Event) -> None:
        raise ValueError("a handler with a mistake")

    async with _meanwhile(consumer.run()):
        await asyncio.sleep(10.0)
    yield
    await field.command("dead", "discard", "letters", "--all", "--yes")


@asynccontextmanager
async def rest_limited(field: Field) -> AsyncIterator[None]:
    """Discord answers 429 to requests for invites while members join."""
    guild = (await field.guilds("limited"))[0]
    code = (await field.sim("invite", bot="limited", guild_id=guild))["code"]
    await field.fault("http_status", status=429, path="/guilds", seconds=LASTING_S)
    await field.sim("join", bot="limited", guild_id=guild, code=code)
    yield
    await field.fault("http_status", status=200, path="/guilds", seconds=0.0)


@asynccontextmanager
async def values_damaged(field: Field) -> AsyncIterator[None]:
    """Another client overwrites all cached channels with what is no JSON, once."""
    async with redis.Redis.from_url(field.cluster.redis.url, decode_responses=True) as client:
        for guild in await field.guilds("damaged"):
            key = collection_key("damaged", guild, "channels")
            for channel in await client.hkeys(key):
                await client.hset(key, channel, "not JSON")
                data = {"id": channel, "guild_id": guild, "type": 0, "name": "x"}
                await field.sim("emit", bot="damaged", t="CHANNEL_UPDATE", d=data, guild_id=guild)
    yield


# --- faults of nodes and servers ---------------------------------------------------------------------------------


@asynccontextmanager
async def node_killed(field: Field) -> AsyncIterator[None]:
    """Every process of a node is killed, and the others have no room; then it starts again."""
    await _kill_node(field, "c")
    yield
    await field.start_node("c")
    await field.all_live()


@asynccontextmanager
async def etcd_stopped(field: Field) -> AsyncIterator[None]:
    """etcd is stopped; then it starts again."""
    await field.cluster.etcd.stop()
    yield
    await field.cluster.etcd.start()
    await field.all_live()


@asynccontextmanager
async def node_crashes(field: Field) -> AsyncIterator[None]:
    """A node is killed and started three times."""
    for _ in range(3):
        await _kill_node(field, "a")
        await field.start_node("a")
        # Prometheus has to see it twice between two starts.
        await asyncio.sleep(3.0)
    yield
    await field.all_live()


@asynccontextmanager
async def discord_refuses_connections(field: Field) -> AsyncIterator[None]:
    """All sockets are cut, and Discord accepts no other ones for a while."""
    await field.fault("refuse_connections", seconds=LASTING_S)
    await field.fault("drop", bot=MAIN)
    yield
    await field.fault("refuse_connections", seconds=0.0)
    await field.all_live()


@asynccontextmanager
async def acks_late(field: Field) -> AsyncIterator[None]:
    """Discord answers heartbeats up to 15 s late."""
    await field.fault("delay_events", bot=MAIN, delay=15.0, seconds=LASTING_S)
    yield
    await field.fault("delay_events", bot=MAIN, delay=0.0, seconds=0.0)


@asynccontextmanager
async def sessions_refused(field: Field) -> AsyncIterator[None]:
    """A worker is killed, and Discord refuses every RESUME for a while."""
    await field.fault("resume_invalid", seconds=LASTING_S)
    for pid in await field.workers("a"):
        os.kill(pid, signal.SIGKILL)
    yield
    await field.fault("resume_invalid", seconds=0.0)
    await field.all_live()


@asynccontextmanager
async def stream_full(field: Field) -> AsyncIterator[None]:
    """The stream refuses messages because it is full and keeps the old ones; then it has room again."""
    client = await nats.connect(field.cluster.nats.url)
    try:
        await _limit_stream(client, full=True)
        yield
        await _limit_stream(client, full=False)
    finally:
        await client.close()


@asynccontextmanager
async def redis_frozen(field: Field) -> AsyncIterator[None]:
    """Redis answers nothing, with many events for one shard and some for two others; then it goes on."""
    await field.cluster.redis.pause()
    await field.sim("burst", bot=MAIN, events=12_000, shards=[1, 2])
    await field.sim("burst", bot=MAIN, events=60_000, shards=[0])
    try:
        yield
    finally:
        field.cluster.redis.unpause()


@asynccontextmanager
async def redis_full(field: Field) -> AsyncIterator[None]:
    """Redis has reached its maxmemory; then it may have more."""
    async with redis.Redis.from_url(field.cluster.redis.url) as client:
        await client.config_set("maxmemory", "1")
        yield
        await client.config_set("maxmemory", "0")


@asynccontextmanager
async def memory_used(field: Field) -> AsyncIterator[None]:
    """Redis answers nothing, and each shard holds back as much as it may; then the node is restarted."""
    await field.cluster.redis.pause()
    try:
        for _ in range(HELD_EVENTS):
            data = {"id": "1", "guild_id": "1", "type": 0, "topic": "x" * HELD_BYTES}
            shards = range(field.shards[MAIN])
            await asyncio.gather(*(field.sim("emit", bot=MAIN, t="CHANNEL_UPDATE", d=data, shard=at) for at in shards))
        yield
    finally:
        field.cluster.redis.unpause()
    await field.cluster.nodes["a"].stop(40.0)
    await field.start_node("a")


# --- parts of faults ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def _meanwhile(work: Any) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _read(consumer: Consumer) -> None:
    async for _ in consumer:
        pass


async def _kill_node(field: Field, node: str) -> None:
    pids = [field.cluster.nodes[node].process.pid, *await field.workers(node)]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await field.cluster.nodes[node].process.wait()


async def _limit_stream(client: Any, *, full: bool) -> None:
    name = stream_name(MAIN)
    found = await _api(client, f"STREAM.INFO.{name}")
    limits = {"discard": "new", "max_msgs": found["state"]["messages"]} if full else {"discard": "old", "max_msgs": -1}
    await _api(client, f"STREAM.UPDATE.{name}", found["config"] | limits)


async def _api(client: Any, what: str, body: Mapping[str, Any] | None = None) -> Any:
    """A request to JetStream. Raises DrillError."""
    request = b"" if body is None else msgspec.json.encode(body)
    answer = await client.request(f"$JS.API.{what}", request, timeout=5.0)
    found = msgspec.json.decode(answer.data)
    if "error" in found:
        raise DrillError(f"JetStream answers to {what}: {found['error']}")
    return found


# --- stages ------------------------------------------------------------------------------------------------------

APP_RATE = 10.0


def _token(app: str) -> str:
    # The first part is the application's id.
    number = 10**11 + zlib.crc32(app.encode())
    return f"{base64.b64encode(str(number).encode()).decode().rstrip('=')}.GaaaaX.{app}"


def _bot(app: str, *, shards: int = 1, guilds: int = 12, **settings: Any) -> DevBot:
    return DevBot(app=app, token=_token(app), guilds=guilds, shards=shards, recommended=shards, settings=settings)


def _live_for(seconds: float) -> Callable[[Field], Awaitable[None]]:
    return lambda field: field.history(seconds)


_CACHE: dict[str, Any] = {"cache": {"enabled": True}}
_OF_APPS = {
    "revoked": Drill(("SandwichShardsFailed",), "Discord refuses the token (4004)", token_revoked, "revoked"),
    "removed": Drill(
        ("SandwichGuildsDropped",),
        "a third of the guilds removes the bot",
        guilds_left,
        "removed",
        before=_live_for(75.0),
    ),
    "quiet": Drill(("SandwichNoEvents",), "Discord sends nothing", no_events, "quiet", before=_live_for(75.0)),
    "unstable": Drill(
        ("SandwichUnstableConnections",), "the sockets are cut every second", connections_break, "unstable"
    ),
    "foreign": Drill(
        ("SandwichForeignMessages",), "another client publishes on a shard's subject", stranger_publishes, "foreign"
    ),
    "nameless": Drill(("SandwichEventsPassedOver",), "a dispatch without a sequence", nameless_dispatch, "nameless"),
    "unreadable": Drill(
        ("SandwichEventsUnreadable",), "a channel whose id is an object", unreadable_event, "unreadable"
    ),
    "unread": Drill(
        ("SandwichConsumerBehind",), "the only worker of a group ends", no_worker, "unread", before=worker_read
    ),
    "letters": Drill(("SandwichDeadLetters",), "a handler fails with every event", handler_fails, "letters"),
    "limited": Drill(("SandwichRestLimited",), "requests for invites get 429", rest_limited, "limited"),
    "damaged": Drill(("SandwichCacheDamaged",), "cached channels are overwritten", values_damaged, "damaged"),
}
_SETTINGS: dict[str, dict[str, Any]] = {
    "limited": {"invites": {"track": True}, **_CACHE},
    "unread": {"shards": 8, "guilds": 160},
}

APPS = Stage(
    "applications",
    bots=tuple(_bot(app, **_SETTINGS.get(app, {} if app == "unread" else _CACHE)) for app in _OF_APPS),
    drills=tuple(_OF_APPS.values()),
    rates={app: 400.0 if app == "unread" else APP_RATE for app in _OF_APPS},
    at_once=True,
)
SERVERS = Stage(
    "nodes and servers",
    bots=(_bot(MAIN, shards=9, guilds=90, **_CACHE),),
    nodes=("a", "b", "c"),
    max_shards=3,
    rates={MAIN: 800.0},
    drills=(
        Drill(
            ("SandwichNodeDown", "SandwichShardsLost"),
            "a node is killed, the others have no room",
            node_killed,
            MAIN,
            before=_live_for(20.0),
        ),
        Drill(("SandwichNoLeader",), "etcd is stopped", etcd_stopped),
        Drill(("SandwichShardsNotLive",), "Discord refuses connections", discord_refuses_connections, MAIN),
        Drill(("SandwichHeartbeatSlow",), "Discord's ACKs are up to 15 s late", acks_late),
        Drill(
            ("SandwichSessionsLost", "SandwichGaps"),
            "a worker is killed, and Discord refuses RESUMEs",
            sessions_refused,
            MAIN,
        ),
        Drill(
            ("SandwichBacklogGrows", "SandwichPublishRetries"),
            "the stream is full and refuses messages",
            stream_full,
            MAIN,
        ),
        Drill(("SandwichCacheRefused",), "Redis is full", redis_full, MAIN),
        Drill(
            ("SandwichCacheBehind", "SandwichCacheDropped", "SandwichCacheIncomplete"),
            "Redis is frozen",
            redis_frozen,
            MAIN,
        ),
    ),
)
RESTARTS = Stage(
    "restarts",
    bots=(_bot(MAIN, shards=1),),
    nodes=("a",),
    # An hour has to be long enough for three starts on a busy machine.
    factor=20.0,
    rates={MAIN: 10.0},
    drills=(Drill(("SandwichNodeRestarts",), "a node is killed and started three times", node_crashes),),
)
MEMORY = Stage(
    "memory",
    bots=(_bot(MAIN, shards=40, guilds=80, **_CACHE),),
    nodes=("a",),
    factor=1440.0,
    rates={MAIN: 20.0},
    drills=(
        Drill(
            ("SandwichWorkerMemoryGrows",),
            "Redis is frozen, and shards hold back what they may",
            memory_used,
            before=_live_for(70.0),
        ),
    ),
)
STAGES = (APPS, SERVERS, RESTARTS, MEMORY)


def drilled() -> list[str]:
    """The alerts that have a drill."""
    return [alert for stage in STAGES for drill in stage.drills for alert in drill.alerts]
