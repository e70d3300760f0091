"""One run: a whole cluster, random traffic with faults, then no traffic, and the comparison."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sandwich_coordinator.intents import ALL
from sandwich_coordinator.operations import rows
from sandwich_node.dev.checker import DeliveryCheck, Verdict
from sandwich_node.dev.cluster import DevBot, DevCluster, dev_cluster
from sandwich_sdk import Consumer
from sandwich_sdk.wire.frame import session_hash
from verification.cache_check.compare import Comparison, compare
from verification.cache_check.discordpy_oracle import DiscordPyOracle
from verification.cache_check.faults import break_it, faults, settled
from verification.cache_check.reading import read_cache
from verification.cache_check.truth import GUILD_MEMBERS, GUILD_PRESENCES, PER_CHANNEL, GuildTruth, View

BURST = 200
"""Far below what Discord replays for a session of this size: events that a fault delays must not be lost."""
LIVE_S = 90.0
QUIET_S = 60.0
RESYNC_S = 400.0
EVENTS_A_FAULT = 4_000


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a run. `faults` False: traffic only. `shared`: two applications in one namespace.

    `discord_py`: also compare with discord.py's cache of the first application's stream.
    """

    events: int = 20_000
    seed: int = 1
    guilds: int = 200
    shards: int = 4
    faults: bool = True
    shared: bool = False
    discord_py: bool = True


@dataclass(slots=True)
class Outcome:
    """The result of a run."""

    events: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    comparison: Comparison = field(default_factory=Comparison)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    """By application."""

    @property
    def delivery(self) -> str:
        """The numbers of owed, lost and doubled events of all applications."""
        owed, lost, doubled = (
            sum(getattr(verdict, name) for verdict in self.verdicts.values()) for name in ("owed", "lost", "doubled")
        )
        return f"{owed} owed, {lost} lost, {doubled} doubled"

    @property
    def clean(self) -> bool:
        """Whether the cache is correct and all events arrived once and in order."""
        arrived = bool(self.verdicts) and all(verdict.clean for verdict in self.verdicts.values())
        return arrived and not self.comparison.different.total()


DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
CACHE = {"presences": True, "messages": {"per_channel": PER_CHANNEL, "ttl": "1h"}}
SHARED = "shared"
UNSEEN_INTENTS = GUILD_MEMBERS | GUILD_PRESENCES


def bots(options: Options) -> tuple[DevBot, ...]:
    """One bot with all intents and a full cache; with `shared` a second one without the intent GUILD_MEMBERS."""
    world = {
        "world": "one",
        "messages_kept": PER_CHANNEL,
        "silent_guilds": 0.01,
        "outage_stubs": options.seed % 2 == 0,
    }
    cache = CACHE | ({"namespace": SHARED} if options.shared else {})
    first = DevBot(
        app="welcomer",
        token="MTAwMDAwMDAwMDAx.GaaaaX.welcomer",
        guilds=options.guilds,
        shards=options.shards,
        recommended=options.shards,
        settings={"cache": cache, "large_threshold": 250},
        world=world,
    )
    second = replace(
        first,
        app="music",
        token="MTAwMDAwMDAwMDAy.GaaaaX.music",
        guilds=options.guilds * 3 // 4,
        settings={"cache": cache, "large_threshold": 250, "intents": ALL & ~UNSEEN_INTENTS},
    )
    return (first, second) if options.shared else (first,)


class Run:
    """A running cluster and the events received from it."""

    def __init__(self, cluster: DevCluster, options: Options, say: Callable[[str], None]) -> None:
        self.cluster = cluster
        self.options = options
        self.say = say
        self.rng = random.Random(options.seed)
        self.outcome = Outcome()
        self.checks = {bot.app: DeliveryCheck() for bot in cluster.bots}
        self.oracle = DiscordPyOracle(cluster.bots[0].app, options.shards) if options.discord_py else None

    async def play(self) -> Outcome:
        """Run all steps in order."""
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            consuming = group.create_task(self._consume())
            await self._live()
            await self._traffic()
            await self._quiet()
            await self._compare()
            consuming.cancel()
        self.outcome.seconds = time.monotonic() - started
        return self.outcome

    async def _consume(self) -> None:
        async with Consumer(self.cluster.nats.url, apps=list(self.checks), group="check", start="all") as consumer:
            async for event in consumer:
                self.checks[event.app].take(event.id)
                if self.oracle is not None and event.app == self.oracle.app:
                    self.oracle.take(event.type, event.raw)

    async def _live(self) -> None:
        what = "all shards are live on all nodes"
        await self._until(what, lambda: settled(self.cluster, self.options.shards, spread=True), LIVE_S)
        await self._until("everything has arrived", self._all_arrived, LIVE_S)

    async def _traffic(self) -> None:
        deck = faults(self.options.seed)
        left, until_fault = self.options.events, EVENTS_A_FAULT
        breaking: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as group:
            while left > 0:
                for bot in self.cluster.bots:
                    number = min(BURST, left)
                    await self.cluster.simulator("happen", {"bot": bot.app, "events": number})
                    left, until_fault = left - number, until_fault - number
                    self.outcome.events += number
                if breaking is not None and not breaking.done():
                    # A fault is active: slow down, so that Discord can replay all delayed events.
                    await asyncio.sleep(0.5)
                    continue
                await self._until("consumers keep up", self._keeping_up, QUIET_S)
                if self.options.faults and until_fault <= 0:
                    fault = next(deck)
                    self.say(f"{self.outcome.events:>8} events: {fault}")
                    self.outcome.faults.append(fault)
                    breaking = group.create_task(break_it(self.cluster, fault, self.options.shards, self.rng))
                    until_fault = EVENTS_A_FAULT

    async def _owed(self, app: str) -> dict[str, list[int]]:
        """The events that Discord owed, without ended sessions that only filled the cache.

        A node never resumes such a session after a lost connection, although Discord still keeps it for a while.
        """
        owed = await self.cluster.owed(app, self.checks[app].sessions)
        sessions = await self.cluster.simulator(f"sessions?bot={app}")
        alive = {session_hash(one["session"]) for one in sessions if one["connected"]}
        return {name: seqs for name, seqs in owed.items() if name in self.checks[app].sessions or name in alive}

    async def _keeping_up(self) -> bool:
        behind = 0
        for app, check in self.checks.items():
            for one in await self.cluster.simulator(f"sessions?bot={app}"):
                received = check.sessions.get(session_hash(one["session"]))
                behind += 0 if received is None else one["seq"] - received.last_seq
        return behind < 4 * BURST

    async def _all_arrived(self) -> bool:
        for bot in self.cluster.bots:
            self.outcome.verdicts[bot.app] = self.checks[bot.app].verdict(await self._owed(bot.app))
        return not any(verdict.lost for verdict in self.outcome.verdicts.values())

    async def _complete(self) -> bool:
        apps = rows.app_rows(await self.cluster.fresh_snapshot())
        return all([await self._is_complete(row["app"], row["cache"]) for row in apps])

    async def _is_complete(self, app: str, state: str) -> bool:
        """Whether the cluster waits for no guild except those in an outage, which Discord does not send."""
        awaited = state.removesuffix(" guilds to come")
        if state == "complete" or not awaited.isdecimal():
            return state == "complete"
        guilds = await self.cluster.simulator(f"guilds?bot={app}")
        seen = [await self.cluster.simulator(f"guild?bot={app}&guild_id={guild}&as=seen") for guild in guilds]
        return int(awaited) <= sum(bool(guild["unavailable"]) for guild in seen)

    async def _quiet(self) -> None:
        await self.cluster.simulator("pause_traffic", {})
        await self._until("everything has arrived", self._all_arrived, QUIET_S)
        await self._until("the cache says that it is complete", self._complete, RESYNC_S)

    async def _until(self, what: str, check: Callable[[], "asyncio.Future[bool] | object"], timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        while not await check():  # type: ignore[misc]
            if time.monotonic() > end:
                logs = "\n".join(f"{child.name}:\n{child.tail(20)}" for child in self.cluster.nodes.values())
                raise TimeoutError(f"not in {timeout_s:.0f} s: {what} ({self.outcome.delivery})\n{logs}")
            await asyncio.sleep(0.1)

    async def _compare(self) -> None:
        """Compare the namespace (the first application's, or the shared one) with the applications' views."""
        namespace = SHARED if self.options.shared else self.cluster.bots[0].app
        cached = await read_cache(self.cluster.redis.url, namespace)
        compare(self.outcome.comparison, cached, await self._truths())
        if self.oracle is not None:
            self.oracle.compare(self.outcome.comparison, cached, is_shared=self.options.shared)

    async def _resynced(self, app: str) -> set[int]:
        """The shards with a resync: a session of theirs has nothing in the stream."""
        begun = await self.cluster.simulator(f"ledger?bot={app}&kind=identify")
        streamed = self.checks[app].sessions
        return {one["shard"] for one in begun if one["session"] and session_hash(one["session"]) not in streamed}

    async def _truths(self) -> list[GuildTruth]:
        views: dict[str, list[View]] = {}
        for bot in self.cluster.bots:
            alive = await self.cluster.simulator(f"sessions?bot={bot.app}")
            resynced = await self._resynced(bot.app)
            listening = {one["shard"]: one for one in alive if one["connected"]}
            for guild in await self.cluster.simulator(f"guilds?bot={bot.app}"):
                shard = (int(guild) >> 22) % self.options.shards
                session = listening[shard]
                state = await self.cluster.simulator(f"guild?bot={bot.app}&guild_id={guild}&as=seen")
                view = View(
                    *(bot.app, session["bot"], session["intents"], session["moment"], state),
                    was_resynced=shard in resynced,
                )
                views.setdefault(guild, []).append(view)
        return [GuildTruth(tuple(of_guild)) for of_guild in views.values()]


async def run(options: Options, say: Callable[[str], None]) -> Outcome:
    """Start a cluster, run all steps and compare."""
    async with dev_cluster(bots(options), nodes=2, rate=0.0, seed=options.seed, redis_args=DURABLE) as cluster:
        return await Run(cluster, options, say).play()
