"""Invite tracking through a real shard and real HTTP against the simulator, which knows how each member joined."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest

from sandwich_node.cache.errors import CacheUnavailable
from sandwich_node.events.asks import ObserverAsk
from sandwich_node.gateway import effects as fx
from sandwich_node.gateway.events import IdentifyGranted, StopRequested
from sandwich_node.gateway.machine import ShardMachine
from sandwich_node.gateway.payloads import ShardConfig
from sandwich_node.gateway.session import Session
from sandwich_node.invites.lookup import InviteLookup, LookupCounters, MemberInvited
from sandwich_node.invites.tracker import CATCH_UP_S
from sandwich_node.invites.wire import EVENT_TYPES
from sandwich_node.rest.client import RestClient
from sandwich_node.rest.limiter import InvalidGuard, RestLimiter
from sandwich_node.secret import Secret
from sandwich_node.shards.connection import ShardConnection
from sandwich_simulator import BotConfig, Simulator, SimulatorConfig
from sandwich_simulator.actions.invites import drop_expired
from sandwich_simulator.visibility import MANAGE_GUILD, permissions_of
from tests.support.starvation import LoopClock

TOKEN = "simulated-token"
INTENTS = 1 | 1 << 1 | 1 << 6  # GUILDS, GUILD_MEMBERS, GUILD_INVITES
HOLD_S = 0.3
LOOP_S = 0.15
"""The simulator shares the loop: what may come on top."""
PATIENT_S = 5.0
"""A hold for tests in which no answer may be late: a loaded machine may delay it by more than the usual hold."""
Who = tuple[str, str]
"""A guild and a user: one user may join several guilds."""
Waiting = tuple[ObserverAsk | None, Who, float]


class MemoryStore:
    """What outlives a shard's owner."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.fails = False

    async def write(self, states: Mapping[str, bytes | None], *, clear: bool) -> None:
        if self.fails:
            raise CacheUnavailable("away")
        if clear:
            self.kept.clear()
        for guild, state in states.items():
            self.kept.pop(guild, None)
            if state is not None:
                self.kept[guild] = state

    async def renew(self) -> None:
        return


class Owner:
    """One owner of the shard: its connection, its lookup, and a publisher that does no more than hold and note."""

    def __init__(self, rig: "Rig", session: Session | None) -> None:
        self.rig = rig
        limiter = RestLimiter(rig.share_per_s, InvalidGuard())
        rest = RestClient(rig.http, rig.sim.api_url, Secret(TOKEN), limiter)
        self.lookup = InviteLookup(
            rest,
            LookupCounters(Counter()),
            hold_s=rig.hold_s,
            store=rig.store,
            kept=None if rig.store.fails else dict(rig.store.kept),
            report_late=self._late,
            caught_up=lambda: None,
        )
        self.waiting: list[Waiting] = []
        self.wake = asyncio.Event()
        self.session_id = session.id if session else ""
        if session is not None:
            self.lookup.begin(session.id, rig.bot)
        config = ShardConfig(token=Secret(TOKEN), shard=0, count=1, intents=INTENTS, gateway_url=rig.sim.url)
        self.machine = ShardMachine(config, session, random.Random(1))
        self.connection = ShardConnection(self.machine, http=rig.http, sink=self, observer=self, clock=time.monotonic)

    def dispatch(
        self, raw: bytes, data: msgspec.Raw, type: str, seq: int, session_id: str, *, damaged: bool = False
    ) -> bool:
        if session_id != self.session_id:
            self.session_id = session_id
            self.lookup.begin(session_id, self.rig.bot)
        self.rig.seq = seq
        ask = self.lookup.observe(type, bytes(data), is_published=True) if type in EVENT_TYPES else None
        d = msgspec.json.decode(data) if ask is not None else {}
        who = (d["guild_id"], d["user"]["id"]) if d else ("", "")
        self.waiting.append((ask, who, self.rig.clock.now))
        self.wake.set()
        return True

    async def drained(self) -> None:
        return

    def observe(self, report: fx.Report) -> None:
        if isinstance(report, fx.StateChanged):
            self.lookup.is_live(report.state is fx.State.LIVE)
        elif isinstance(report, fx.RequestIdentify):
            asyncio.get_running_loop().call_soon(self.connection.post, IdentifyGranted())

    async def publish(self) -> None:
        while True:
            await self.wake.wait()
            self.wake.clear()
            batch, self.waiting = self.waiting, []
            joins = [(ask, who) for ask, who, _ in batch if ask is not None]
            reported = await self.lookup.resolve([ask for ask, _ in joins])
            now = self.rig.clock.now
            self.rig.delays += [now - read_at for _, _, read_at in batch]
            for (_, who), how in zip(joins, reported, strict=True):
                self.rig.events[who] = msgspec.json.decode(how)
            if self.waiting:
                self.wake.set()

    def _late(self, reported: MemberInvited) -> None:
        self.rig.late[reported.guild, reported.user] = msgspec.json.decode(reported.invited_by)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(self.publish()), tasks.create_task(self.lookup.run())]
            await self.connection.run()
            self.lookup.part()
            await self.lookup.drained()
            for task in background:
                task.cancel()


class Rig:
    """A simulator, and the shard that is handed from owner to owner."""

    def __init__(self, sim: Simulator, http: aiohttp.ClientSession, share_per_s: float, hold_s: float) -> None:
        self.sim = sim
        self.http = http
        self.share_per_s = share_per_s
        self.hold_s = hold_s
        self.bot = sim.config.bots[0].id
        self.store = MemoryStore()
        self.seq = 0
        self.events: dict[Who, dict[str, Any]] = {}
        self.late: dict[Who, dict[str, Any]] = {}
        self.delays: list[float] = []
        self.rng = random.Random(7)
        self.clock = LoopClock()
        self.ticking = asyncio.create_task(self.clock.run())
        self.owner = Owner(self, None)
        self.running = asyncio.create_task(self.owner.run())

    async def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                assert not self.running.done(), self.running.exception()
                await asyncio.sleep(0.01)

    async def hand_over(self) -> None:
        """Another owner RESUMEs the session."""
        self.owner.connection.post(StopRequested("moved"))
        await asyncio.wait_for(self.running, 60)
        session = Session(id=self.owner.session_id, sequence=self.seq, resume_url=self.sim.url)
        self.owner = Owner(self, session)
        self.running = asyncio.create_task(self.owner.run())
        await self.until(lambda: self.owner.machine.state is fx.State.LIVE)

    async def stop(self) -> None:
        self.running.cancel()
        self.ticking.cancel()
        await asyncio.wait([self.running, self.ticking], timeout=5)

    async def guilds(self) -> list[str]:
        return await self.sim.guild_ids(self.bot)

    async def join(self, guild_id: str, **way: Any) -> str | None:
        return await self.sim.join_member(bot=self.bot, guild_id=guild_id, **way)

    async def invite(self, guild_id: str, **fields: Any) -> str:
        return await self.sim.make_invite(bot=self.bot, guild_id=guild_id, **fields)

    async def judged(self) -> "Score":
        """What was said, against the truth, once everything was."""
        truths = {(truth["guild_id"], truth["user_id"]): truth for truth in await self.sim.joins(self.bot)}
        await self.until(lambda: all(self._final(who) is not None for who in truths))
        score = Score()
        for who, truth in truths.items():
            score.add(truth, self._final(who) or {}, late=who in self.late)
        return score

    def _final(self, who: Who) -> dict[str, Any] | None:
        """What consumers know of this join in the end; None while something is to come."""
        event = self.events.get(who)
        return self.late.get(who) if event is not None and event.get("pending") else event


class Score:
    """How well it went."""

    def __init__(self) -> None:
        self.wrong: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.all = self.right = self.late = self.with_code = 0
        self.unknown: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()

    def add(self, truth: dict[str, Any], said: dict[str, Any], *, late: bool) -> None:
        self.all += 1
        self.late += late
        self.with_code += truth["code"] is not None
        if said["source"] == "unknown":
            self.unknown[said["reason"]] += 1
            if truth["code"] is not None:
                self.missed[said["reason"]] += 1
            return
        inviter = (said["inviter"] or {}).get("id")
        is_right = (said["code"], inviter) == (truth["code"], truth["inviter_id"])
        if is_right and said["source"] == truth["how"]:
            self.right += 1
        else:
            self.wrong.append((truth, said))

    @property
    def share(self) -> float:
        return self.right / max(1, self.with_code)

    def __str__(self) -> str:
        return (
            f"{self.right} of {self.with_code} attributed ({self.share:.1%}), {len(self.wrong)} wrong,"
            f" {self.late} reported late; unknown: {dict(self.unknown)}, of which had a code: {dict(self.missed)}"
        )


@asynccontextmanager
async def rig(*, share_per_s: float = 30.0, hold_s: float = HOLD_S, **bot: Any) -> AsyncIterator[Rig]:
    fields = {"guilds": 30, "members_per_guild": 4, "vanity_guilds": 0.4, "unmanaged_guilds": 0.2} | bot
    config = SimulatorConfig(bots=[BotConfig(token=TOKEN, **fields)], identify_interval_s=0.05)
    async with Simulator(config) as sim, aiohttp.ClientSession() as http:
        made = Rig(sim, http, share_per_s, hold_s)
        try:
            yield made
        finally:
            await made.stop()


async def known(made: Rig, seconds: float = 60.0) -> int:
    """Waits until the counts of every guild that may be asked for are known; how many those are."""
    world = made.sim.gateway.bot_named(made.bot).world
    may = [g for g in world.guild_ids if _manages(made, g)]
    guilds = made.owner.lookup._tracker._guilds
    await made.until(lambda: sum(not guild.is_blind for guild in guilds.values()) == len(may), seconds)
    return len(may)


def _manages(made: Rig, guild_id: int) -> bool:
    return bool(permissions_of(made.sim.gateway.bot_named(made.bot).world.guild(guild_id), made.bot) & MANAGE_GUILD)


async def some_joins(made: Rig, joins: int, *, pause_s: float, guilds: list[str]) -> None:
    """Joins of every kind, each after a pause; invites come, expire, are used up and deleted between them."""
    rng, world = made.rng, made.sim.gateway.bot_named(made.bot).world
    for _ in range(joins):
        guild_id, kind = rng.choice(guilds), rng.random()
        guild = world.guild(int(guild_id))
        drop_expired(guild, time.time_ns() // 1_000_000)
        invites = guild.invites
        if kind < 0.10:
            await made.invite(guild_id, max_uses=rng.choice((0, 1, 1, 5)), used=rng.random() < 0.5)
        elif kind < 0.14:
            await made.invite(guild_id, max_age=2)
        elif kind < 0.17 and (endless := [code for code, invite in invites.items() if not invite["max_uses"]]):
            await made.sim.delete_invite(bot=made.bot, guild_id=guild_id, code=rng.choice(endless))
        elif kind < 0.27 and guild.base["vanity_url_code"]:
            await made.join(guild_id, vanity=True)
        elif kind < 0.33:
            await made.join(guild_id, as_bot=True)
        elif kind < 0.45:
            await made.join(guild_id)
        else:
            await made.join(guild_id, code=rng.choice(list(invites)) if invites else await made.invite(guild_id))
        await asyncio.sleep(pause_s * rng.uniform(0.2, 1.8))


async def test_occasional_joins_are_attributed_with_the_event_and_never_wrongly() -> None:
    async with rig(share_per_s=40.0, guilds=40, hold_s=PATIENT_S) as made:
        await made.sim.fault("http_delay", delay=0.08, seconds=600, path="/guilds/")
        await known(made)
        await some_joins(made, 40, pause_s=0.5, guilds=await made.guilds())
        score = await made.judged()
        print(f"\nnow and then: {score}")
        assert score.wrong == []
        # Where the bot may ask; a fifth of the guilds do not let it.
        assert score.right > 0.75 * (score.with_code - score.missed["no_permission"])
        assert score.late < 0.1 * score.all


async def spend(made: Rig) -> None:
    """A consumer of the bot's asks for the same with the same token, all the time."""
    headers = {"Authorization": f"Bot {TOKEN}"}
    while True:
        for guild_id in await made.guilds():
            async with made.http.get(f"{made.sim.api_url}/guilds/{guild_id}/invites", headers=headers):
                await asyncio.sleep(0.1)


async def test_bursts_beside_a_consumer_that_uses_up_the_limits_meet_429s_and_are_never_attributed_wrongly() -> None:
    async with rig(share_per_s=200.0, guilds=3, unmanaged_guilds=0.0, vanity_guilds=1.0) as made:
        await made.sim.fault("http_delay", delay=0.02, seconds=600, path="/guilds/")
        await known(made)
        spending = asyncio.create_task(spend(made))
        for _ in range(2):
            await some_joins(made, 30, pause_s=0.03, guilds=await made.guilds())
            await asyncio.sleep(3.0)
        spending.cancel()
        await some_joins(made, 30, pause_s=0.1, guilds=await made.guilds())
        score = await made.judged()
        print(f"\nbursts: {score}; {made.owner.lookup.counters}")
        assert score.wrong == []
        assert made.owner.lookup.counters.limited > 0
        assert max(made.delays) < HOLD_S + LOOP_S


async def test_a_raid_by_one_invite_does_not_hold_the_shard_and_is_attributed_in_the_end() -> None:
    async with rig(guilds=3, members_per_guild=400, unmanaged_guilds=0.0) as made:
        await made.sim.fault("http_delay", delay=0.08, seconds=600, path="/guilds/")
        await known(made)
        guild_id = (await made.guilds())[0]
        code = await made.invite(guild_id)
        for _ in range(300):
            await made.join(guild_id, code=code)
            await asyncio.sleep(0.005)
        score = await made.judged()
        print(f"\nraid: {score}")
        assert (score.wrong, score.share) == ([], 1.0)
        assert sum(made.delays) / len(made.delays) < HOLD_S / 3
        assert max(made.delays) < HOLD_S + LOOP_S


async def test_with_no_hold_nothing_waits_and_every_join_is_attributed_later() -> None:
    async with rig(guilds=5, unmanaged_guilds=0.0, hold_s=0.0) as made:
        await known(made)
        await some_joins(made, 40, pause_s=0.1, guilds=await made.guilds())
        score = await made.judged()
        assert score.wrong == []
        assert score.right > 0
        assert all(said["source"] == "unknown" for said in made.events.values())
        assert max(made.delays) < LOOP_S


async def test_a_failing_discord_delays_nothing_for_long_and_causes_no_wrong_attribution() -> None:
    async with rig(guilds=6, unmanaged_guilds=0.0) as made:
        await known(made)
        await made.sim.fault("http_status", status=503, seconds=3.0, path="/guilds/")
        await some_joins(made, 20, pause_s=0.1, guilds=await made.guilds())
        await asyncio.sleep(2.0)
        await some_joins(made, 20, pause_s=0.1, guilds=await made.guilds())
        score = await made.judged()
        assert score.wrong == []
        assert max(made.delays) < HOLD_S + LOOP_S


async def test_broken_connections_cause_no_wrong_attribution() -> None:
    async with rig(guilds=4, unmanaged_guilds=0.0) as made:
        await made.sim.fault("http_delay", delay=0.05, seconds=600, path="/guilds/")
        await known(made)
        for kind in ("op7", "drop", "reset"):
            await some_joins(made, 8, pause_s=0.05, guilds=await made.guilds())
            await made.sim.fault(kind)
            await some_joins(made, 8, pause_s=0.05, guilds=await made.guilds())
            await made.until(lambda: made.owner.machine.state is fx.State.LIVE)
        score = await made.judged()
        print(f"\nbroken connections: {score}")
        assert score.wrong == []


async def test_the_next_owner_of_a_shard_goes_on_with_the_counts_that_were_kept() -> None:
    async with rig(guilds=5, unmanaged_guilds=0.0, vanity_guilds=0.0, hold_s=PATIENT_S) as made:
        await known(made)
        guild_ids = await made.guilds()
        codes = [await made.invite(guild_id) for guild_id in guild_ids]
        await made.until(lambda: len(made.delays) >= 11)
        await made.hand_over()
        asked = made.sim.gateway.ledger.count("violation")
        await asyncio.sleep(CATCH_UP_S)
        for guild_id, code in zip(guild_ids, codes, strict=True):
            await made.join(guild_id, code=code)
        score = await made.judged()
        assert (score.wrong, score.share, score.late) == ([], 1.0, 0)
        assert max(made.delays) < HOLD_S + LOOP_S
        assert made.sim.gateway.ledger.count("violation") == asked
        assert made.sim.gateway.ledger.count("identify") == 1


async def test_without_its_store_the_next_owner_is_ignorant_and_not_wrong() -> None:
    async with rig(guilds=5, unmanaged_guilds=0.0) as made:
        await known(made)
        made.store.fails = True
        await made.hand_over()
        await some_joins(made, 30, pause_s=0.05, guilds=await made.guilds())
        made.store.fails = False
        await asyncio.sleep(CATCH_UP_S)
        await some_joins(made, 30, pause_s=0.1, guilds=await made.guilds())
        score = await made.judged()
        assert score.wrong == []
        assert score.unknown["no_baseline"] > 0


async def test_no_log_shows_the_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with rig(guilds=3, unmanaged_guilds=0.0) as made:
        await known(made)
        await made.sim.change_bot(made.bot, token="another")
        await made.stop()
        await made.sim.fault("http_status", status=500, seconds=5, path="/guilds/")
    assert TOKEN not in caplog.text
