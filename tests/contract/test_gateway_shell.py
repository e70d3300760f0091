"""The shell of a shard against the simulator: every dispatch owed arrives once, in order, byte for byte."""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import pytest

from sandwich_node.gateway import effects as fx
from sandwich_node.gateway.events import CommandQueued, IdentifyGranted, StopRequested
from sandwich_node.gateway.machine import ShardMachine
from sandwich_node.gateway.payloads import ShardConfig
from sandwich_node.gateway.session import Session
from sandwich_node.secret import Secret
from sandwich_node.shards.connection import ShardConnection
from sandwich_simulator import BotConfig, Simulator, SimulatorConfig
from tests.support.starvation import fair_time

TOKEN = "simulated-token"
MIB = 1024 * 1024
INTENTS = 1 | 1 << 9
_Report = TypeVar("_Report")


class Eager(random.Random):
    """Waits as short as the rules allow."""

    def uniform(self, a: float, b: float) -> float:
        return a


class Recorder:
    """Sink and observer of one shard."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int, str]] = []
        self.types: list[str] = []
        self.reports: list[fx.Report] = []
        self.room = asyncio.Event()
        self.room.set()
        self.granting = True
        self.post: Callable[[Any], None] = lambda _: None

    def dispatch(self, raw: bytes, data: bytes, type: str, seq: int, session_id: str, *, damaged: bool = False) -> bool:
        self.events.append((session_id, seq, hashlib.blake2b(raw, digest_size=8).hexdigest()))
        self.types.append(type)
        return self.room.is_set()

    async def drained(self) -> None:
        await self.room.wait()

    def observe(self, report: fx.Report) -> None:
        self.reports.append(report)
        if isinstance(report, fx.RequestIdentify) and self.granting:
            asyncio.get_running_loop().call_soon(self.post, IdentifyGranted())

    def all(self, kind: type[_Report]) -> list[_Report]:
        return [report for report in self.reports if isinstance(report, kind)]


class Rig:
    """A simulator and one shard on it."""

    def __init__(self, sim: Simulator, http: aiohttp.ClientSession) -> None:
        self.sim = sim
        self.http = http
        self.bot = sim.config.bots[0].id
        self.seen = Recorder()
        self.connection: ShardConnection
        self.machine: ShardMachine
        self.running: asyncio.Task[fx.Stopped | fx.Failed]

    def start(self, session: Session | None = None, compression: str = "zstd-stream", token: str = TOKEN) -> None:
        config = ShardConfig(
            token=Secret(token),
            shard=0,
            count=1,
            intents=INTENTS,
            gateway_url=self.sim.url,
            compression=compression,
        )
        self.machine = ShardMachine(config, session, Eager(1))
        self.connection = ShardConnection(
            self.machine,
            http=self.http,
            sink=self.seen,
            observer=self.seen,
            clock=time.monotonic,
            inflated_bytes_max=4 * MIB,
        )
        self.seen.post = self.connection.post
        self.running = asyncio.create_task(self.connection.run())

    async def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if self.running.done():
                raise AssertionError(f"the shard ended: {self.running.result()}")
            assert time.monotonic() < deadline, self.seen.reports[-12:]
            await asyncio.sleep(0.005)

    async def live(self) -> None:
        await self.until(lambda: self.machine.state is fx.State.LIVE)

    async def resumed(self, times: int = 1) -> None:
        await self.until(lambda: len(self.seen.all(fx.Resumed)) == times)

    async def complete(self, seconds: float = 30.0) -> None:
        """All that the simulator owes has come: once, in order, unchanged."""
        ends = time.monotonic() + seconds
        while self.seen.events != (owed := await self._owed()):
            assert self.seen.events == owed[: len(self.seen.events)]
            assert time.monotonic() < ends, f"{len(self.seen.events)} of {len(owed)} came"
            await asyncio.sleep(0.005)

    async def _owed(self) -> list[tuple[str, int, str]]:
        return [(e["session"], e["seq"], e["digest"]) for e in await self.sim.journal(bot=self.bot)]

    async def announced(self) -> None:
        """Every guild has come, one by one behind READY; nothing more does by itself."""
        guilds = len(await self.sim.guild_ids(self.bot))
        await self.until(lambda: self.seen.types.count("GUILD_CREATE") == guilds)
        await self.complete()

    async def happen(self, number: int = 20) -> None:
        await self.sim.act(self.bot, number)

    async def outcomes(self, kind: str) -> int:
        return len(await self.sim.ledger(bot=self.bot, kind=kind))

    async def stop(self) -> fx.Stopped | fx.Failed:
        self.connection.post(StopRequested("released"))
        return await asyncio.wait_for(self.running, 30)


@asynccontextmanager
async def rig(**changes: Any) -> AsyncIterator[Rig]:
    bots = [BotConfig(token=TOKEN, guilds=3, members_per_guild=3)]
    # The tolerance is for a loaded machine: simulator and shard share a loop, and either may find that it was late.
    settings = {"heartbeat_interval_ms": 1000, "heartbeat_tolerance": 5.0, "identify_interval_s": 0.2}
    settings["close_after_invalid_session"] = False
    async with (
        Simulator(SimulatorConfig(bots=bots, **(settings | changes))) as sim,
        aiohttp.ClientSession() as http,
    ):
        made = Rig(sim, http)
        try:
            yield made
        finally:
            if hasattr(made, "running") and not made.running.done():
                made.running.cancel()
                await asyncio.wait([made.running], timeout=5)


@pytest.mark.parametrize("compression", ["zstd-stream", "zlib-stream", "none"])
async def test_a_shard_becomes_ready_and_streams(compression: str) -> None:
    async with rig() as shard:
        shard.start(compression=compression)
        await shard.live()
        await shard.happen()
        await shard.complete()
        assert shard.seen.types[0] == "READY"
        started = shard.seen.all(fx.SessionStarted)[0]
        assert (started.first_seq, len(started.guild_ids), started.user_id) == (1, 3, shard.bot)
        kinds = [type(report) for report in shard.seen.reports]
        assert kinds.index(fx.RequestIdentify) < kinds.index(fx.IdentifySent) < kinds.index(fx.SessionStarted)
        end = await shard.stop()
        assert end == fx.Stopped(shard.machine.session)
        assert shard.machine.session is not None
        assert shard.machine.session.sequence == shard.seen.events[-1][1]
        assert await shard.outcomes("violation") == 0


async def test_a_released_session_is_resumed_by_the_next_owner() -> None:
    async with rig() as shard:
        shard.start()
        await shard.live()
        await shard.complete()
        end = await shard.stop()
        assert isinstance(end, fx.Stopped)
        await shard.happen()
        shard.start(session=end.session)
        await shard.resumed()
        await shard.complete()
        assert await shard.outcomes("identify") == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "drop"},
        {"kind": "reset"},
        {"kind": "op7"},
        {"kind": "op9", "resumable": True},
        {"kind": "close", "code": 4000},
        {"kind": "close", "code": 1000},
        {"kind": "close", "code": 1001},
    ],
    ids=lambda fault: "-".join(str(value) for value in fault.values()),
)
async def test_a_broken_connection_is_resumed_with_nothing_missing_or_twice(fault: dict[str, Any]) -> None:
    async with rig() as shard:
        shard.start()
        await shard.live()
        await shard.complete()
        assert await shard.sim.fault(**fault) == 1
        await shard.until(lambda: shard.machine.state is not fx.State.LIVE)
        await shard.happen()
        await shard.resumed()
        await shard.happen()
        await shard.complete()
        assert await shard.outcomes("identify") == 1
        assert await shard.outcomes("violation") == 0
        assert not shard.seen.all(fx.SessionLost)


@pytest.mark.parametrize(
    "raw",
    [
        {"data": b"\xfe not zstd"},
        {"payload": '{"t":"MESSAGE_CREATE","s":'},
        {"payload": "[" * 50_000},
        {"text": "garbage"},
        {"bomb_mb": 16},
    ],
    ids=["corrupt", "half", "deep", "text", "bomb"],
)
async def test_a_message_that_cannot_be_read_ends_the_connection_not_the_session(raw: dict[str, Any]) -> None:
    async with rig() as shard:
        shard.start()
        await shard.live()
        await shard.complete()
        await shard.sim.send_raw(bot=shard.bot, **raw)
        await shard.happen()
        await shard.resumed()
        await shard.complete()
        assert await shard.outcomes("identify") == 1


async def test_a_name_that_is_unsafe_outside_is_passed_over_and_counted() -> None:
    async with rig() as shard:
        shard.start()
        await shard.live()
        await shard.announced()
        await shard.sim.emit(bot=shard.bot, t="EV.*", d={}, shard=0)
        await shard.until(lambda: bool(shard.seen.all(fx.Malformed)))
        assert "EV.*" not in shard.seen.types
        assert shard.machine.session is not None
        assert shard.machine.session.sequence == shard.seen.all(fx.Malformed)[0].sequence


async def test_a_lost_session_is_reported_and_replaced() -> None:
    async with rig() as shard:
        shard.start()
        await shard.live()
        await shard.announced()
        last = shard.seen.events[-1]
        await shard.sim.fault("op9", resumable=False)
        await shard.until(lambda: len(shard.seen.all(fx.SessionStarted)) == 2)
        lost = shard.seen.all(fx.SessionLost)
        assert [(report.session.id, report.session.sequence) for report in lost] == [last[:2]]
        await shard.complete()


@pytest.mark.parametrize(("token", "code"), [("another-token", 4004)])
async def test_a_refused_token_ends_in_failed_without_a_second_try(token: str, code: int) -> None:
    async with rig() as shard:
        shard.start(token=token)
        end = await asyncio.wait_for(shard.running, 30)
        assert isinstance(end, fx.Failed)
        assert end.code == code
        assert token not in repr(shard.seen.reports)


async def test_a_silent_server_is_left_and_resumed() -> None:
    async with rig(heartbeat_interval_ms=300, heartbeat_tolerance=50.0) as shard:
        shard.start()
        await shard.live()
        await shard.complete()
        await shard.sim.fault("stall", seconds=30.0)
        await shard.happen()
        await shard.resumed()
        await shard.complete()
        reasons = [report.reason for report in shard.seen.all(fx.StateChanged)]
        assert "no sign of life between two heartbeats" in reasons


async def test_a_full_sink_stops_the_reading_while_heartbeats_go_on() -> None:
    async with rig(heartbeat_interval_ms=200) as shard:
        shard.start()
        await shard.live()
        await shard.complete()
        shard.seen.room.clear()
        held = len(shard.seen.events) + 1
        await shard.happen(200)
        # The simulator closes after five intervals without a heartbeat.
        ends = time.monotonic() + 1.5
        await shard.until(lambda: time.monotonic() > ends)
        assert len(shard.seen.events) == held
        assert shard.machine.state is fx.State.LIVE
        shard.seen.room.set()
        await shard.complete()
        assert len(shard.seen.all(fx.Resumed)) == 0
        assert await shard.outcomes("violation") == 0


async def test_a_stop_while_the_sink_is_full_or_the_server_is_away_returns_at_once() -> None:
    async with rig() as shard:
        shard.start()
        await shard.live()
        shard.seen.room.clear()
        full = len(shard.seen.events) + 1
        await shard.happen(50)
        await shard.until(lambda: len(shard.seen.events) == full)
        begun = fair_time()
        end = await shard.stop()
        assert isinstance(end, fx.Stopped)
        shard.seen.room.set()
        await shard.sim.fault("refuse_connections", seconds=30.0)
        shard.start(session=end.session)
        await shard.until(lambda: shard.machine.state is fx.State.WAITING)
        assert await shard.stop() == end
        assert fair_time() - begun < 4


async def test_a_permit_is_withdrawn_when_the_connection_goes_and_asked_for_again() -> None:
    async with rig(identify_timeout_s=0.5) as shard:
        shard.seen.granting = False
        shard.start()
        await shard.until(lambda: bool(shard.seen.all(fx.IdentifyWithdrawn)))
        shard.seen.granting = True
        await shard.live()
        assert await shard.outcomes("identify") == 1


async def test_a_command_is_answered() -> None:
    async with rig() as shard:
        shard.start()
        await shard.live()
        guild = (await shard.sim.guild_ids(shard.bot))[0]
        shard.connection.post(CommandQueued(8, {"guild_id": guild, "query": "a", "limit": 1}))
        await shard.until(lambda: "GUILD_MEMBERS_CHUNK" in shard.seen.types)
        assert await shard.outcomes("violation") == 0


async def test_a_reconnect_asked_for_instead_of_hello_keeps_the_session() -> None:
    async with rig() as shard:
        shard.start()
        await shard.live()
        await shard.complete()
        await shard.sim.fault("op7_before_hello", seconds=0.3)
        await shard.sim.fault("drop")
        await shard.happen()
        await shard.resumed()
        await shard.complete()
        assert len([report for report in shard.seen.all(fx.StateChanged) if "op 7" in report.reason]) >= 1
        assert await shard.outcomes("identify") == 1


async def test_a_refused_resume_becomes_a_new_session_with_the_loss_reported_first() -> None:
    async with rig() as shard:
        shard.start(session=Session("unknown", 5, ""))
        await shard.until(lambda: bool(shard.seen.all(fx.SessionStarted)))
        assert shard.seen.all(fx.SessionLost)[0].session == Session("unknown", 5, "")
        kinds = [type(report) for report in shard.seen.reports]
        assert kinds.index(fx.SessionLost) < kinds.index(fx.RequestIdentify)
        await shard.complete()


async def test_a_cancelled_shard_leaves_its_session_to_the_next() -> None:
    async with rig() as shard:
        shard.start()
        await shard.live()
        await shard.complete()
        session = shard.machine.session
        shard.running.cancel()
        await asyncio.wait([shard.running], timeout=5)
        assert shard.running.cancelled()
        await shard.happen()
        shard.start(session=session)
        await shard.resumed()
        await shard.complete()
