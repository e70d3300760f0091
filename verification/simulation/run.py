"""One seed: a cluster, its faults, and the checks while they happen and after they stopped."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from sandwich_coordinator.config import ClusterSettings, DiscordSettings, NatsSettings, RedisSettings
from sandwich_coordinator.operations.errors import OperationError
from sandwich_coordinator.operations.nodes import change_state
from sandwich_coordinator.store.base import LeaseLost, Put
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import AppRecord, ClaimRecord, PinRecord, RestartRecord, SessionRecord, ShardsSpec
from sandwich_sdk.wire.frame import session_hash
from verification.simulation.checks import Journal
from verification.simulation.discord import THRESHOLD_MIN, Discord, Shard
from verification.simulation.log import Conditions, Stream
from verification.simulation.loop import EPOCH_S, run_virtual
from verification.simulation.node import SimNode, World

SETTLE_S = 240.0
"""How long all shards may take to be live after the last fault. A bucket's IDENTIFYs are five seconds apart."""
QUIET_S = 30.0
REST_S = 120.0
"""How long the cluster may continue to balance after all shards are live."""
HOUR_S = 3600.0

KEYS = Keys("default")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one seed. `journal` is empty unless there are violations."""

    seed: int
    violations: list[str]
    journal: list[str]
    digest: str
    virtual_s: float
    faults: Counter[str]
    events: int
    identifies: int


def simulate(seed: int) -> Outcome:
    """Run one seed to its end on virtual time."""
    return run_virtual(Simulation(seed).run())


def configuration(nats_user: str = "") -> Put:
    """The write of a cluster's settings."""
    settings = ClusterSettings(
        nats=NatsSettings(servers=["nats://sim"], user=nats_user),
        redis=RedisSettings(url="redis://sim"),
        discord=DiscordSettings(api_url="http://discord.sim"),
    )
    return Put(KEYS.config, msgspec.json.encode(settings))


async def configure(database: MemoryStore, apps: Mapping[str, int], tokens: Mapping[str, str]) -> None:
    """Write the configuration of a cluster: applications with their number of shards and their token."""
    writes = [configuration()]
    for index, (app, count) in enumerate(sorted(apps.items())):
        record = AppRecord(
            app=app,
            token=f"plain:{tokens[app]}",
            token_hash=f"hash-{tokens[app]}",
            large_threshold=THRESHOLD_MIN + index,
            intents=1,
            shards=ShardsSpec(count=count),
            compression="none",
        )
        writes.append(Put(KEYS.app(app), record.encode()))
    await database.txn([], writes)


class Simulation:
    """A cluster of three to five nodes with one to three applications, all decided by `seed`."""

    def __init__(
        self,
        seed: int,
        *,
        skews: Mapping[str, float] | None = None,
        total: int = 1000,
        window_s: float = 86_400.0,
        shared_token: bool | None = None,
    ) -> None:
        """`skews`: how wrong each node's wall clock is, in seconds. `shared_token`: all applications have one token.

        The seed decides both when they are not given. `total`, `window_s`: the budget of session starts.
        """
        self._seed = seed
        self._skews = skews
        rng = self._rng = random.Random(seed)
        self._apps = {f"app{index}": rng.randint(1, 6) for index in range(rng.randint(1, 3))}
        journal = self._journal = Journal()
        # Random numbers of their own: the histories of older seeds stay.
        shared = shared_token if shared_token is not None else random.Random(f"{seed}:token").random() < 0.25
        self._tokens = {app: next(iter(self._apps)) if shared else app for app in self._apps}
        discord = self._discord = Discord(
            journal,
            rng,
            apps=self._apps,
            concurrency=rng.choice([1, 1, 2]),
            tokens=self._tokens,
            total=total,
            window_s=window_s,
        )
        self._stream = Stream(journal, discord)
        self._faults: Counter[str] = Counter()
        self._fault_s = rng.choice([40.0, 60.0, 90.0])
        self._pace_s = rng.choice([2.0, 5.0, 10.0])
        self._down: set[str] = set()

    @property
    def shards(self) -> int:
        """The number of shards of all applications."""
        return sum(self._apps.values())

    async def run(self) -> Outcome:
        """Faults, then a time without faults, then the last checks."""
        loop = asyncio.get_running_loop()
        database = MemoryStore(loop.time)
        self._database = database
        self._discord.recorded = self._recorded
        self._world = World(database, self._stream, self._discord, self._journal, self._rng)
        await configure(database, self._apps, self._tokens)
        self._nodes = self._make_nodes()
        traffic = asyncio.create_task(self._discord.traffic())
        for node in self._nodes:
            node.start()
            await asyncio.sleep(self._rng.uniform(0, 1.5))
        await self.inject_faults()
        await self._settle()
        self._discord.quiet = True
        await asyncio.sleep(2.0)
        self._check_streams()
        await self._check_quiet()
        self._journal.note("end: all nodes are stopped")
        for node in self._nodes:
            node.shutdown()
        for node in self._nodes:
            await node.ended()
        self._check_streams()
        traffic.cancel()
        bad = self._journal.violations
        return Outcome(
            seed=self._seed,
            violations=bad,
            journal=self._journal.lines if bad else [],
            digest=self._journal.digest(),
            virtual_s=loop.time(),
            faults=self._faults,
            events=sum(session.seq for session in self._discord.sessions),
            identifies=self._discord.identifies,
        )

    def _make_nodes(self) -> list[SimNode]:
        skewed = self._rng.random() < 0.3
        skews = self._skews
        return [
            SimNode(
                name,
                self._world,
                workers=self._rng.choice([1, 2]),
                skew_s=skews.get(name, 0.0) if skews is not None else self._skew(skewed and name == "a"),
            )
            for name in "abcde"[: self._rng.randint(3, 5)]
        ]

    def _skew(self, skewed: bool) -> float:
        return self._rng.choice([-HOUR_S, HOUR_S]) if skewed else 0.0

    def _recorded(self, shard: Shard) -> str:
        app, number = shard
        for key, item in self._database.database.items.items():
            if key.startswith(f"{KEYS.sessions}{app}/") and key.endswith(f"/{number}"):
                return msgspec.json.decode(item.value, type=SessionRecord).session_id
        return ""

    # --- faults -------------------------------------------------------------------------------------------------

    async def inject_faults(self) -> None:
        """Inject random faults; scenarios override it."""
        kinds: list[tuple[str, Callable[[], Coroutine[Any, Any, None]]]] = [
            ("node killed", self._node_killed),
            ("node stopped", self._node_stopped),
            ("agent killed", self._agent_killed),
            ("leader killed", self._leader_killed),
            ("worker killed", self._worker_killed),
            ("node frozen", self._node_frozen),
            ("node cut off the store", self._node_cut_off),
            ("store away", self._store_away),
            ("store answers lost", self._store_answers_lost),
            ("history compacted", self._compacted),
            ("stream away", self._log_away),
            ("node cut off the stream", self._node_without_log),
            ("sockets dropped", self._dropped),
            ("op 7", self._op7),
            ("op 9 true", self._op9_true),
            ("session invalidated", self._forgotten),
            ("gateway refuses", self._refuses),
            ("node drained", self._drained),
            ("node cordoned", self._cordoned),
            ("shard moved", self._moved),
            ("shard restarted", self._restarted),
        ]
        loop = asyncio.get_running_loop()
        until = loop.time() + self._fault_s
        async with asyncio.TaskGroup() as group:
            await asyncio.sleep(self._rng.uniform(0, 20.0))
            while loop.time() < until:
                await asyncio.sleep(self._rng.expovariate(1 / self._pace_s))
                name, fault = self._rng.choice(kinds)
                self._faults[name] += 1
                self._journal.note(f"fault: {name}")
                group.create_task(fault())

    def _pick(self) -> SimNode | None:
        """A running node without a fault."""
        free = [node for node in self._nodes if node.running and node.name not in self._down]
        return self._rng.choice(free) if free else None

    async def _with(self, node: SimNode | None, fault: Callable[[SimNode], Awaitable[None]]) -> None:
        if node is None:
            return
        self._down.add(node.name)
        self._journal.note(f"  to {node.name}")
        await fault(node)
        self._journal.note(f"  {node.name} is over it")
        self._down.discard(node.name)

    async def _node_killed(self) -> None:
        async def kill(node: SimNode) -> None:
            node.kill()
            await asyncio.sleep(self._rng.uniform(0.5, 12.0))
            node.start()

        await self._with(self._pick(), kill)

    async def _node_stopped(self) -> None:
        async def stop(node: SimNode) -> None:
            node.shutdown()
            await node.ended()
            await asyncio.sleep(self._rng.uniform(0.1, 3.0))
            node.start()

        await self._with(self._pick(), stop)

    async def _kill_agent(self, node: SimNode) -> None:
        await node.kill_agent()
        await asyncio.sleep(self._rng.uniform(0.1, 4.0))
        node.start()

    async def _agent_killed(self) -> None:
        await self._with(self._pick(), self._kill_agent)

    async def _leader_killed(self) -> None:
        leader = next((node for node in self._nodes if node.leads and node.name not in self._down), None)
        await self._with(leader, self._kill_agent)

    async def _worker_killed(self) -> None:
        node = self._pick()
        if node is not None:
            self._journal.note(f"  to {node.name}")
            self._rng.choice(list(node.workers)).kill() if node.workers else None

    async def _node_frozen(self) -> None:
        async def freeze(node: SimNode) -> None:
            node.machine.frozen = True
            await asyncio.sleep(self._rng.uniform(1.0, 14.0))
            node.machine.thaw()

        await self._with(self._pick(), freeze)

    async def _without_store(self, conditions: Conditions, seconds: float) -> None:
        conditions.store_away = True
        await asyncio.sleep(seconds)
        conditions.store_away = False

    async def _without_log(self, conditions: Conditions, seconds: float) -> None:
        conditions.log_away = True
        await asyncio.sleep(seconds)
        conditions.log_away = False

    async def _node_cut_off(self) -> None:
        await self._with(self._pick(), lambda node: self._without_store(node.conditions, self._rng.uniform(1.0, 14.0)))

    async def _node_without_log(self) -> None:
        await self._with(self._pick(), lambda node: self._without_log(node.conditions, self._rng.uniform(1.0, 14.0)))

    async def _store_away(self) -> None:
        await self._without_store(self._world.conditions, self._rng.uniform(1.0, 25.0))

    async def _store_answers_lost(self) -> None:
        seconds = self._rng.uniform(1.0, 20.0)
        self._world.conditions.store_answers_lost = 0.3
        await asyncio.sleep(seconds)
        self._world.conditions.store_answers_lost = 0.0

    async def _compacted(self) -> None:
        database = self._database.database
        if database.compacted < database.revision:
            self._database.compact(database.revision)

    async def _log_away(self) -> None:
        await self._without_log(self._world.conditions, self._rng.uniform(1.0, 15.0))

    async def _dropped(self) -> None:
        self._discord.drop(self._rng.choice([0.3, 1.0]), self._rng.choice([None, 1006, 4000, 4009]))

    async def _op7(self) -> None:
        self._discord.say(self._rng.choice([0.3, 1.0]), '{"op":7,"t":null,"s":null,"d":null}')

    async def _op9_true(self) -> None:
        self._discord.say(self._rng.choice([0.3, 1.0]), '{"op":9,"t":null,"s":null,"d":true}')

    async def _forgotten(self) -> None:
        self._discord.forget()

    async def _refuses(self) -> None:
        self.gateway_away(self._rng.uniform(1.0, 15.0))

    def gateway_away(self, seconds: float) -> None:
        """Close every socket, and refuse new ones for so long."""
        self._discord.drop(1.0, None)
        self._discord.refuse_until = asyncio.get_running_loop().time() + seconds

    async def _state(self, node: SimNode | None, state: Any) -> None:
        if node is not None:
            self._journal.note(f"  {node.name} -> {state}")
            # Refused while it is not registered, or for the last node that takes shards.
            with contextlib.suppress(OperationError):
                await change_state(self._database, KEYS, node.name, state)

    async def _drained(self) -> None:
        node = self._pick()
        await self._state(node, "draining")
        await asyncio.sleep(self._rng.uniform(0.5, 15.0))
        await self._state(node, "ready")

    async def _cordoned(self) -> None:
        node = self._pick()
        await self._state(node, "cordoned")
        await asyncio.sleep(self._rng.uniform(0.5, 15.0))
        await self._state(node, "ready")

    def _any_claim(self) -> ClaimRecord | None:
        claims = [item for key, item in sorted(self._database.database.items.items()) if key.startswith(KEYS.claims)]
        return msgspec.json.decode(self._rng.choice(claims).value, type=ClaimRecord) if claims else None

    async def _moved(self) -> None:
        claim, node = self._any_claim(), self._pick()
        if claim is not None and node is not None:
            pin = PinRecord(node=node.name, at=EPOCH_S)
            await self._database.txn([], [Put(KEYS.pin(claim.app, claim.group, claim.shard), pin.encode())])

    async def _restarted(self) -> None:
        claim = self._any_claim()
        if claim is not None:
            key = KEYS.restart(claim.app, claim.group, claim.shard)
            with contextlib.suppress(LeaseLost):
                await self._database.txn([], [Put(key, RestartRecord(at=EPOCH_S).encode())])

    # --- the last checks ------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Set every node to ready, then wait until all shards are live; a violation when that takes too long."""
        self._journal.note("faults stop")
        for node in self._nodes:
            with contextlib.suppress(OperationError):
                await change_state(self._database, KEYS, node.name, "ready")
        loop = asyncio.get_running_loop()
        until = loop.time() + SETTLE_S
        while (wrong := self._not_live()) and loop.time() < until:  # noqa: ASYNC110 (nothing announces the change)
            await asyncio.sleep(1.0)
        if wrong:
            for line in wrong:
                self._journal.violate(f"{SETTLE_S:g} s after the last fault: {line}")
        self._journal.note("all is live")
        await asyncio.sleep(QUIET_S)

    def _not_live(self) -> list[str]:
        running = Counter((key.app, key.shard) for node in self._nodes for key in node.shards())
        wrong = []
        for app, count in self._apps.items():
            for number in range(count):
                session = self._discord.current.get((app, number))
                if running[app, number] != 1:
                    wrong.append(f"shard {app}/{number} runs {running[app, number]} times")
                elif session is None or session.dead or session.socket is None:
                    wrong.append(f"shard {app}/{number} has no live session")
        return wrong + self._claims_not_live()

    def _claims_not_live(self) -> list[str]:
        claims = {
            key: msgspec.json.decode(item.value, type=ClaimRecord).state
            for key, item in self._database.database.items.items()
            if key.startswith(KEYS.claims)
        }
        return [f"{key} is {state}" for key, state in claims.items() if state != "live"]

    def _check_streams(self) -> None:
        """The stream has each session whole, or a gap frame names what is missing."""
        for session in self._discord.sessions:
            app, number = session.shard
            name = session_hash(session.id)
            stored = self._discord.stored.get((session.shard, name), 0)
            if stored == session.seq:
                continue
            if session is self._discord.current[session.shard]:
                self._journal.violate(f"{session.id}: {session.seq} events owed, the stream has {stored}")
            elif stored and self._stream.gap_of(app, number, name) != stored:
                self._journal.violate(f"{session.id}: ends in the stream with {stored} of {session.seq} and no gap")

    async def _check_quiet(self) -> None:
        """When nothing happens, no node writes. Moves that balance the load may take a while to begin."""
        database, clock = self._database.database, asyncio.get_running_loop().time
        until = clock() + REST_S
        while True:
            before, at = database.revision, clock()
            await asyncio.sleep(QUIET_S)
            if database.revision == before:
                return
            if clock() > until:
                what = Counter(event.kv.key for event in database.since(KEYS.prefix, before + 1).events)
                self._journal.violate(f"from {at:.0f} s on, these keys were written without a reason: {dict(what)}")
                return
