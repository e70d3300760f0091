"""The scenarios, one after the other on the same cluster, and what each of them cost."""

import asyncio
import math
import statistics
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from sandwich_coordinator.config import ClusterSettings, DiscordSettings, NatsSettings, PolicySettings, RedisSettings
from sandwich_coordinator.store.base import Put
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import AppRecord, CacheSpec, ShardsSpec
from verification.scale.fleet import Discord, Fleet, ScaleNode, shared_views, until

KEYS = Keys("default")
QUIET_S = 20.0


@dataclass(frozen=True, slots=True)
class Size:
    """How large the cluster is. `concurrency`: Discord's max_concurrency. `lost`: nodes that die at once.

    `scale_percent`: the shard counts after the scale, compared with those before.
    """

    shards: int = 10_000
    nodes: int = 100
    apps: int = 20
    workers: int = 4
    concurrency: int = 16
    lost: int = 10
    scale_percent: int = 160
    moves_in_flight: int = 32
    seed: int = 1

    @property
    def of_app(self) -> int:
        """The shards of one application."""
        return self.shards // self.apps

    @property
    def of_app_after_scale(self) -> int:
        """The shards of one application after the scale."""
        return self.of_app * self.scale_percent // 100

    @property
    def after_scale(self) -> int:
        """All shards after the scale."""
        return self.of_app_after_scale * self.apps


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one scenario cost. Times of decisions are real CPU seconds, all others virtual ones."""

    name: str
    seconds: float
    moves: int
    identifies: int
    writes: int
    busiest: dict[str, int]
    keys: int
    bytes: int
    largest: int
    largest_request: int
    list_bytes: int
    plans: list[float]
    decisions: list[float]
    kinds: dict[str, int]
    broken: int

    @property
    def peak(self) -> int:
        """The writes of the busiest second."""
        return sum(self.busiest.values())

    @property
    def plan_ms(self) -> float:
        """The longest plan."""
        return max(self.plans, default=0.0) * 1e3

    @property
    def decision_ms(self) -> tuple[float, float]:
        """Median and maximum of the leader's decisions."""
        return statistics.median(self.decisions or [0.0]) * 1e3, max(self.decisions, default=0.0) * 1e3


class Run:
    """One run over all scenarios."""

    def __init__(self, size: Size, report: Callable[[Row], None]) -> None:
        self._size = size
        self._report = report
        self._discord = Discord(size.of_app, size.concurrency)
        self._fleet = Fleet(nodes=size.nodes, workers=size.workers, discord=self._discord, seed=size.seed)

    async def run(self) -> None:
        """All scenarios. Raises ExceptionGroup: one does not come to its end (TimeoutError), or the feed fails."""
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(self._fleet.feed.run())
            with shared_views(), self._fleet.meter.timing():
                await self._run()
            feeding.cancel()

    async def _run(self) -> None:
        await self._configure()
        for name, scenario in (
            ("start-up", self._start_up),
            ("quiet", self._quiet),
            (f"{self._size.lost} nodes lost at once", self._nodes_lost),
            ("they come back", self._nodes_back),
            ("rolling upgrade", self._rolling_upgrade),
            (f"scale to {self._size.after_scale}", self._scale),
        ):
            await self._measure(name, scenario)

    async def _measure(self, name: str, scenario: Callable[[], Awaitable[float]]) -> None:
        fleet, discord = self._fleet, self._discord
        fleet.meter.reset()
        identifies, resumes, broken = discord.identifies, discord.resumes, discord.broken
        seconds = await scenario()
        # What it leaves to be written counts as its own.
        await asyncio.sleep(QUIET_S)
        meter = fleet.meter
        self._report(
            Row(
                name=name,
                seconds=seconds,
                moves=discord.resumes - resumes,
                identifies=discord.identifies - identifies,
                writes=meter.writes,
                busiest=dict(meter.busiest.most_common()),
                keys=meter.keys,
                bytes=meter.bytes,
                largest=meter.largest,
                largest_request=meter.largest_request,
                list_bytes=meter.list_bytes,
                plans=meter.seconds["plan"],
                decisions=meter.seconds["reconcile"],
                kinds=dict(meter.kinds.most_common()),
                broken=discord.broken - broken,
            )
        )

    async def _configure(self) -> None:
        settings = ClusterSettings(
            nats=NatsSettings(servers=["nats://sim"]),
            redis=RedisSettings(url="redis://sim"),
            discord=DiscordSettings(api_url="http://discord.sim"),
            policy=PolicySettings(moves_in_flight_max=self._size.moves_in_flight),
        )
        await self._fleet.store.txn([], [Put(KEYS.config, msgspec.json.encode(settings))])
        for node in self._fleet.nodes:
            node.start()
            await asyncio.sleep(0.05)
        await asyncio.sleep(QUIET_S)

    @property
    def _live(self) -> int:
        return self._size.of_app * self._size.apps

    async def _start_up(self) -> float:
        """All applications are applied at once."""
        return await self._apply(self._size.of_app)

    async def _scale(self) -> float:
        """All applications get more shards at once: their next groups start beside those that serve."""
        return await self._apply(self._size.of_app_after_scale)

    async def _apply(self, shards: int) -> float:
        for number in range(self._size.apps):
            app = f"app{number:02d}"
            record = AppRecord(
                app=app,
                token=f"plain:{app}",
                token_hash=f"hash-{app}",
                intents=1,
                shards=ShardsSpec(count=shards),
                compression="none",
                cache=CacheSpec(enabled=False),
            )
            await self._fleet.store.txn([], [Put(KEYS.app(app), record.encode())])
        least = math.ceil(shards / self._size.concurrency) * 5.0
        return await self._fleet.until_live(shards * self._size.apps, limit_s=120.0 + 2 * least)

    async def _quiet(self) -> float:
        """Nothing happens for two minutes."""
        await asyncio.sleep(120.0)
        return 120.0

    async def _nodes_lost(self) -> float:
        for node in self._lost:
            node.kill()
        await asyncio.sleep(1.0)
        return 1.0 + await self._fleet.until_live(self._live, limit_s=120.0)

    @property
    def _lost(self) -> list[ScaleNode]:
        step = max(1, self._size.nodes // max(1, self._size.lost))
        return self._fleet.nodes[::step][: self._size.lost]

    async def _nodes_back(self) -> float:
        """The lost nodes start again and get their share."""
        clock = asyncio.get_running_loop().time
        began = clock()
        for node in self._lost:
            node.start()
        share = self._live // self._size.nodes
        await until(lambda: min(self._loads().values()) >= share, limit_s=1800.0)
        await self._fleet.until_live(self._live, limit_s=60.0)
        return clock() - began

    def _loads(self) -> dict[str, int]:
        loads = {node.name: 0 for node in self._fleet.nodes}
        for name in self._discord.live.values():
            loads[name] += 1
        return loads

    async def _rolling_upgrade(self) -> float:
        """Each node is stopped with SIGTERM and started again, one after the other."""
        clock = asyncio.get_running_loop().time
        began = clock()
        for node in self._fleet.nodes:
            await node.shut_down()
            node.start()
            await self._fleet.until_live(self._live, limit_s=120.0)
        return clock() - began
