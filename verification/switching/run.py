"""A cluster of three nodes under load, whose one bot gets one shard count after another.

Two consumers receive everything: a plain one that reads the whole stream at the end, and an ordered group of two
workers that runs all the time. Both are compared with the simulated Discord's journal, event by event.
"""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sandwich_coordinator.groups import serving_groups
from sandwich_coordinator.operations.errors import OperationError
from sandwich_coordinator.operations.progress import Progress, ScaleAdvanced
from sandwich_coordinator.operations.scaling import await_scale, plan_scale, store_request
from sandwich_coordinator.operations.waiting import read_view
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.store.base import StoreError
from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.keys import Keys
from sandwich_node.dev.cluster import DevBot, DevCluster, dev_cluster
from sandwich_node.dev.event_check import EventCheck, EventVerdict
from sandwich_sdk import Consumer, Event, Gap

APP = "welcomer"
FIRST_COUNT = 3
NODES = ("a", "b", "c")
SWITCH_MAX_S = 180.0
START_MAX_S = 90.0
READ_IDLE_S = 20.0
CATCH_UP_S = 60.0
GROUP_WORKERS = 2

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How long and how hard. `lag_s`: by how much one session may be behind another."""

    switches: int
    rate: float
    seed: int
    shards_max: int
    lag_s: float
    faults: bool


@dataclass(slots=True)
class Result:
    """What was measured. `seconds`: of each change, from the request to its end; `switch_s`: of each switch alone."""

    counts: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    switch_s: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    faults: int = 0
    stream: EventVerdict | None = None
    group: EventVerdict | None = None
    gaps: int = 0
    violations: int = 0

    @property
    def correct(self) -> bool:
        """Nothing lost, doubled or disordered, by either consumer, and every change came to its end."""
        verdicts = [self.stream, self.group]
        clean = all(verdict is not None and verdict.clean for verdict in verdicts)
        return clean and not self.problems and not self.violations


class Run:
    """The running cluster and what is recorded of it."""

    def __init__(self, cluster: DevCluster, options: Options, say: Say) -> None:
        self.result = Result()
        self._cluster = cluster
        self._options = options
        self._say = say
        self._rng = random.Random(options.seed)
        self._store = EtcdStore([server.url for server in cluster.etcds])
        self._keys = Keys()
        self._policy = Policy()
        self._group = EventCheck()

    async def started(self) -> bool:
        """Wait until the first group is live."""
        end = time.monotonic() + START_MAX_S
        while time.monotonic() < end:
            with contextlib.suppress(StoreError):
                view = await read_view(self._store, self._keys)
                live = [claim for claim in view.claims.values() if claim.record.state == "live"]
                if len(live) == FIRST_COUNT:
                    return True
            await asyncio.sleep(0.2)
        self.result.problems.append(f"not live {START_MAX_S:g} s after the start")
        return False

    async def switch(self, number: int) -> None:
        """Give the bot another shard count, and wait until it has it."""
        last = self.result.counts[-1] if self.result.counts else FIRST_COUNT
        count = self._rng.choice([n for n in range(1, self._options.shards_max + 1) if n != last])
        began, phases = time.monotonic(), dict[str, float]()

        def report(event: Progress) -> None:
            if isinstance(event, ScaleAdvanced):
                phases.setdefault(event.progress.phase, time.monotonic())

        try:
            request = await plan_scale(self._store, self._keys, APP, count, None, policy=self._policy)
            await store_request(self._store, request)
            await await_scale(self._store, self._keys, APP, policy=self._policy, timeout_s=SWITCH_MAX_S, report=report)
        except OperationError as error:
            view = await read_view(self._store, self._keys)
            states = sorted((*key, claim.record.node, claim.record.state) for key, claim in view.claims.items())
            self.result.problems.append(f"{last} -> {count}: {error}; claims: {states}")
            return
        ended = time.monotonic()
        self.result.counts.append(count)
        self.result.seconds.append(ended - began)
        self.result.switch_s.append(ended - phases.get("switching", ended))
        self._say(
            f"{number:4}  {last} -> {count} shards in {ended - began:.1f} s, "
            f"of these {self.result.switch_s[-1]:.2f} s the switch"
        )

    async def break_things(self) -> None:
        """One fault after another, until cancelled."""
        while True:
            await asyncio.sleep(self._rng.uniform(2.0, 8.0))
            self.result.faults += 1
            node = self._cluster.nodes[self._rng.choice(NODES)]
            match self._rng.choice(["sockets", "worker", "agent"]):
                case "sockets":
                    await self._cluster.simulator("faults", {"kind": "drop", "shards": "all"})
                case "worker":
                    with contextlib.suppress(OSError, ProcessLookupError):
                        for child in children(node.process.pid):
                            signal_process(child)
                case _:
                    node.signal(signal.SIGKILL)
                    await node.process.wait()
                    await asyncio.sleep(self._rng.uniform(0.0, 2.0))
                    await self._cluster.start_node(node.name)

    async def lag(self) -> None:
        """Let every session be behind by a random time, until cancelled: no two are alike."""
        while True:
            fault = {"kind": "delay_events", "shards": "all", "delay": self._options.lag_s, "seconds": 4.0}
            await self._cluster.simulator("faults", fault)
            await asyncio.sleep(1.0)

    async def consume(self) -> None:
        """An ordered group of two workers, until cancelled."""

        async def work() -> None:
            servers = [server.url for server in self._cluster.natses]
            consumer = Consumer(servers, apps=[APP], group="guilds", ordered=True, start="all")

            @consumer.on_any
            async def take(event: Event) -> None:
                self._group.take(event.id, event.shard.group)

            await consumer.run(handle_signals=False)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(GROUP_WORKERS):
                tasks.create_task(work())

    async def judge(self) -> None:
        """Stop the traffic, read the whole stream, and compare."""
        await self._cluster.simulator("pause_traffic", {})
        await asyncio.sleep(2.0)
        stream, gaps = await self._read_stream()
        self.result.gaps = len(gaps)
        async for entry in self._cluster.journal(APP):
            stream.sent(entry)
            self._group.sent(entry)
        ends, groups = ({gap.session: gap.last_seq for gap in gaps}, {gap.session: gap.group for gap in gaps})
        self.result.stream = stream.verdict(ends, groups)
        end = time.monotonic() + CATCH_UP_S
        while True:
            self.result.group = self._group.verdict(ends, groups)
            if not self.result.group.lost or time.monotonic() > end:
                break
            await asyncio.sleep(1.0)
        bots = (await self._cluster.simulator("stats"))["bots"].values()
        self.result.violations = sum(sum(bot["violations"].values()) for bot in bots)

    async def _read_stream(self) -> tuple[EventCheck, list[Gap]]:
        check, gaps = EventCheck(), list[Gap]()
        servers = [server.url for server in self._cluster.natses]
        async with Consumer(servers, apps=[APP], group="judge", start="all") as consumer:

            @consumer.on_gap
            async def keep(gap: Gap) -> None:
                gaps.append(gap)

            events, read = aiter(consumer), 0
            with contextlib.suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(5.0 if read else READ_IDLE_S):
                        event = await anext(events)
                    check.take(event.id, event.shard.group)
                    read += 1
        return check, gaps

    async def count(self) -> int:
        """The shard count that serves now."""
        view = await read_view(self._store, self._keys)
        return view.groups[serving_groups(view)[APP]].record.count

    async def close(self) -> None:
        """Close the connection to etcd."""
        await self._store.close()


async def cancelled(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for them."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def children(pid: int) -> list[int]:
    """The processes that a process started (proc(5))."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def signal_process(pid: int) -> None:
    """End a process at once."""
    os.kill(pid, signal.SIGKILL)


async def run(options: Options, *, say: Say) -> Result:
    """One run. Raises EmbeddedServerError when the cluster cannot be started."""
    bot = DevBot(
        app=APP,
        token="MTAwMDAwMDAwMDAx.GaaaaX.welcomer",
        guilds=200,
        members=20,
        shards=FIRST_COUNT,
        recommended=FIRST_COUNT,
        max_concurrency=12,
        world={"session_limit": 100_000},
    )
    async with dev_cluster((bot,), nodes=len(NODES), rate=options.rate, seed=options.seed) as cluster:
        running = Run(cluster, options, say)
        result = running.result
        consuming = asyncio.create_task(running.consume())
        background: list[asyncio.Task[None]] = []
        try:
            if await running.started():
                if options.lag_s:
                    background.append(asyncio.create_task(running.lag()))
                if options.faults:
                    background.append(asyncio.create_task(running.break_things()))
                for number in range(1, options.switches + 1):
                    await running.switch(number)
                    if result.problems:
                        break
            await cancelled(background)
            await running.judge()
        finally:
            await cancelled(background)
            if consuming.done():
                result.problems.append(f"the ordered group ended: {consuming.exception()!r}")
            await cancelled([consuming])
            await running.close()
            if not result.correct:
                keep_logs(cluster, options.seed, say)
    return result


def keep_logs(cluster: DevCluster, seed: int, say: Say) -> None:
    """Keep the logs of a run that was not correct."""
    kept = Path(tempfile.mkdtemp(prefix=f"sandwich-switching-{seed}-"))
    for log in cluster.directory.rglob("*.log"):
        shutil.copy(log, kept / f"{log.parent.name}-{log.name}")
    say(f"the logs are kept in {kept}")


def report_lines(result: Result) -> list[str]:
    """The result as text."""
    lines = [f"{len(result.counts)} switches, {result.faults} faults, {result.gaps} gaps"]
    if result.seconds:
        lines.append(
            f"a change took {_median(result.seconds):.1f} s (most {max(result.seconds):.1f} s), "
            f"its switch {_median(result.switch_s):.2f} s (most {max(result.switch_s):.2f} s)"
        )
    for name, verdict in (("stream", result.stream), ("ordered group", result.group)):
        if verdict is not None:
            lines.append(
                f"{name}: {verdict.owed} owed, {verdict.lost} lost, {verdict.doubled} doubled, "
                f"{verdict.disordered} disordered, {verdict.one_sided} of one session, {verdict.in_gaps} in gaps"
            )
            lines += [f"  {note}" for note in verdict.notes]
    lines += [f"violations of Discord's rules: {result.violations}"] if result.violations else []
    return [*lines, *result.problems, "correct" if result.correct else "NOT CORRECT"]


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
