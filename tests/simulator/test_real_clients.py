"""Unmodified discord.py and hikari against the simulator: ready, events, member chunks, resume."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import discord
import hikari
import pytest
from discord.gateway import DiscordWebSocket
from discord.http import Route
from yarl import URL

from sandwich_simulator import BotConfig, Simulator
from sandwich_simulator.pytest_plugin import MakeSimulator

TOKEN = "MTIzNDU2Nzg5MDEyMzQ1Njc4.a.client"  # hikari reads the id 123456789012345678 in it
DEADLINE_S = 60.0
EVENTS = 1500


class ZlibContext:
    """The context that discord.py uses when zstandard is not installed."""

    COMPRESSION_TYPE = "zlib-stream"

    def __init__(self) -> None:
        self._context = zlib.decompressobj()

    def decompress(self, data: bytes, /) -> str:
        assert data.endswith(b"\x00\x00\xff\xff")
        return self._context.decompress(data).decode()


class DiscordPyClient(discord.AutoShardedClient):
    """discord.py as its users run it, without its wait of five seconds before each further shard's IDENTIFY."""

    def __init__(self, shard_count: int | None = None) -> None:
        super().__init__(intents=discord.Intents.all(), guild_ready_timeout=0.05, shard_count=shard_count)
        self.is_chunked = asyncio.Event()
        self.messages: list[discord.Message] = []
        self.resumed: list[int] = []

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        await asyncio.sleep(0.3)

    async def on_ready(self) -> None:
        self.is_chunked.set()

    async def on_message(self, message: discord.Message) -> None:
        self.messages.append(message)

    async def on_shard_resumed(self, shard_id: int) -> None:
        self.resumed.append(shard_id)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition of real sockets, within the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 (real sockets)
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running_discord_py(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, shard_count: int | None = None
) -> AsyncIterator[DiscordPyClient]:
    """A started client; stopped, whatever happens. With a shard count it does not ask for the gateway's address."""
    monkeypatch.setattr(Route, "BASE", sim.api_url)
    monkeypatch.setattr(DiscordWebSocket, "DEFAULT_GATEWAY", URL(sim.url))
    client = DiscordPyClient(shard_count)
    task = asyncio.create_task(client.start(TOKEN))
    try:
        async with asyncio.timeout(DEADLINE_S):
            done, _ = await asyncio.wait(
                {task, asyncio.create_task(client.is_chunked.wait())}, return_when=asyncio.FIRST_COMPLETED
            )
        if task in done:
            await task
        yield client
    finally:
        await client.close()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def resumes(sim: Simulator) -> int:
    """The number of accepted RESUMEs."""
    return sim.gateway.ledger.count("resume", outcome="ok")


@pytest.mark.parametrize("compression", ["zstd", "zlib"])
async def test_discord_py_becomes_ready_receives_events_and_chunks_and_resumes(
    make_simulator: MakeSimulator, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    if compression == "zlib":
        monkeypatch.setattr(discord.utils, "_ActiveDecompressionContext", ZlibContext)
    bot = BotConfig(token=TOKEN, name="b", guilds=6, members_per_guild=70, recommended_shards=2)
    sim = await make_simulator(bot, identify_interval_s=0.2)
    async with running_discord_py(sim, monkeypatch) as client:
        assert {guild.id for guild in client.guilds} == {int(key) for key in await sim.guild_ids("b")}
        assert client.shard_count == 2
        for guild in client.guilds:
            state = await sim.guild_state("b", guild.id)
            assert {str(member.id) for member in guild.members} == set(state["members"])
            assert {str(role.id) for role in guild.roles} == set(state["roles"])
            assert {str(channel.id) for channel in guild.channels} == set(state["channels"])
        await sim.act("b", EVENTS)
        await until(lambda: len(client.messages) > 100)
        await sim.fault("op7")
        await until(lambda: resumes(sim) == 2)
        await until(lambda: len(client.resumed) == 2)
        await sim.fault("drop", shards=[1])
        await sim.act("b", 100)
        await until(lambda: resumes(sim) == 3)
        await until(lambda: len(client.resumed) == 3)
        await assert_same_members(sim, client)
    assert sim.gateway.ledger.count("identify", outcome="ok") == 2
    assert sim.gateway.ledger.count("violation") == 0


async def assert_same_members(sim: Simulator, client: DiscordPyClient) -> None:
    """After joins, leaves and changes of guilds, the client's cache equals the simulator's world."""
    world = sim.gateway.bot_named("b").world
    await until(lambda: {guild.id for guild in client.guilds} == set(world.guild_ids))

    def same() -> bool:
        return all(
            {str(member.id) for member in guild.members} == set(world.guild(guild.id).members)
            and {str(channel.id) for channel in guild.channels} == set(world.guild(guild.id).channels)
            and has_its_threads(sim, guild)
            and {str(role.id) for role in guild.roles} == set(world.guild(guild.id).roles)
            for guild in client.guilds
            if not guild.unavailable and not world.guild(guild.id).unavailable
        )

    await until(same)


def has_its_threads(sim: Simulator, guild: discord.Guild) -> bool:
    """Whether the client has all threads that it sees. discord.py also keeps threads that it was removed from."""
    world = sim.gateway.bot_named("b").world
    state, seen = world.guild(guild.id), set(world.guild_state(guild.id, as_seen=True)["threads"])
    mine = {str(thread.id) for thread in guild.threads}
    return seen <= mine and not any(state.sees(world.id, thread) for thread in mine - seen)


@asynccontextmanager
async def running_hikari(sim: Simulator, shard_count: int | None = None) -> AsyncIterator[hikari.GatewayBot]:
    """A started bot; closed, whatever happens."""
    bot = hikari.GatewayBot(
        TOKEN, rest_url=sim.api_url, banner=None, logs=None, intents=hikari.Intents.ALL, auto_chunk_members=True
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            await bot.start(check_for_updates=False, shard_count=shard_count)
        yield bot
    finally:
        await bot.close()


async def test_hikari_becomes_ready_receives_events_and_chunks_and_resumes(make_simulator: MakeSimulator) -> None:
    config = BotConfig(token=TOKEN, name="b", guilds=4, members_per_guild=70, recommended_shards=2, max_concurrency=2)
    sim = await make_simulator(config)
    async with running_hikari(sim) as bot:
        received: list[hikari.MessageCreateEvent] = []
        chunks: list[hikari.MemberChunkEvent] = []
        bot.subscribe(hikari.MemberChunkEvent, _appender(chunks))
        bot.subscribe(hikari.GuildMessageCreateEvent, _appender(received))
        await until(lambda: len(bot.cache.get_available_guilds_view()) == 4)
        assert {str(guild) for guild in bot.cache.get_available_guilds_view()} == set(await sim.guild_ids("b"))
        for guild_id in await sim.guild_ids("b"):
            await bot.request_guild_members(hikari.Snowflake(guild_id), users=[config.application_id])
        await until(lambda: len(chunks) >= 4)
        await sim.act("b", EVENTS)
        await until(lambda: len(received) > 100)
        await sim.fault("op7")
        await until(lambda: resumes(sim) == 2)
        await sim.fault("drop", shards=[0])
        await until(lambda: resumes(sim) == 3)
    assert sim.gateway.ledger.count("identify", outcome="ok") == 2


async def test_clients_with_two_shard_counts_work_side_by_side(
    make_simulator: MakeSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """discord.py with 2 shards, hikari with 3: as while an application changes its count."""
    config = BotConfig(token=TOKEN, name="b", guilds=6, members_per_guild=40, max_concurrency=4)
    sim = await make_simulator(config, identify_interval_s=0.2)
    received: list[hikari.MessageCreateEvent] = []

    def counts() -> set[int]:
        return {session.count for session in sim.gateway.bot_named("b").sessions}

    async with running_hikari(sim, 3) as bot:
        bot.subscribe(hikari.MessageCreateEvent, _appender(received))
        await until(lambda: len(bot.cache.get_available_guilds_view()) == 6)
        async with running_discord_py(sim, monkeypatch, 2) as client:
            assert client.shard_count == 2
            assert {guild.id for guild in client.guilds} == set(bot.cache.get_available_guilds_view())
            await sim.act("b", EVENTS)
            assert await sim.emit(bot="b", t="MESSAGE_CREATE", d=direct_message(sim)) == 2
            sent = {int(entry["event"]) for entry in await sim.journal() if entry["t"] == "MESSAGE_CREATE"}
            await until(lambda: len(received) == len(client.messages) == len(sent))
            assert {message.id for message in client.messages} == {event.message_id for event in received}
            assert counts() == {2, 3}
        await until(lambda: counts() == {3})  # discord.py closed its own with 1000
        before = len(received)
        await sim.act("b", EVENTS)
        await until(lambda: len(received) > before + 100)
        assert sim.gateway.ledger.count("presence", outcome="offline") == 0
    await until(lambda: counts() == set())
    assert sim.gateway.ledger.count("presence", outcome="offline") > 0
    ledger = sim.gateway.ledger
    assert (ledger.count("identify", outcome="ok"), ledger.count("violation")) == (5, 0)
    assert sim.gateway.bot_named("b").budget.remaining(0.0) == config.session_limit - 5


def direct_message(sim: Simulator) -> dict[str, Any]:
    """A message of the simulated world, in a direct channel instead of its guild."""
    guilds = sim.gateway.bot_named("b").world.known_guilds()
    found = next(message for guild in guilds for place in guild.channels for message in guild.messages.of(place))
    bare = {key: value for key, value in found.items() if key not in ("guild_id", "member", "channel_type")}
    return bare | {"id": "1", "channel_id": "2"}


def _appender(target: list[Any]) -> Callable[[Any], Coroutine[Any, Any, None]]:
    async def append(event: Any) -> None:
        target.append(event)

    return append
