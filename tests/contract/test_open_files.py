"""A worker with fewer descriptors than shards: some live, the others wait and say why; nothing dies. Real processes."""

import asyncio
import errno
import resource
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.types import CacheSpec, EventsSpec, InvitesSpec
from sandwich_node import ipc
from sandwich_node.dev.embedded import EmbeddedNats
from sandwich_node.nats_options import NatsOptions
from sandwich_node.worker_process import Child, WorkerProcess, spawn_worker
from sandwich_simulator import BotConfig, Simulator, SimulatorConfig

pytestmark = pytest.mark.contract

TOKEN = "simulated-token"
SHARDS = 40
FILES = 48
DEADLINE_S = 60.0


class Slot:
    """A worker with all the shards of one bot; every IDENTIFY is granted at once."""

    def __init__(self, server: EmbeddedNats, sim: Simulator, proxy: str = "") -> None:
        self.sim = sim
        self.states: dict[int, tuple[str, str]] = {}
        self.ready: list[int] = []
        self.start_failures: list[OSError] = []
        nats = NatsOptions(servers=(server.url,))
        settings = ipc.WorkerSettings(worker=0, node="a", nats=nats, api_url=sim.api_url, proxy=proxy)
        self.worker = WorkerProcess(
            settings,
            on_message=self._received,
            on_started=lambda worker: None,
            on_gone=lambda worker: None,
            spawn=self._spawn,
        )

    async def _spawn(self) -> Child:
        if self.start_failures:
            raise self.start_failures.pop()
        return await spawn_worker()

    def _received(self, worker: WorkerProcess, message: ipc.ToAgent) -> None:
        match message:
            case ipc.WorkerReady():
                self.ready.append(worker.pid)
            case ipc.ShardChanged(key, state, reason):
                self.states[key.shard] = state, reason
            case ipc.IdentifyWanted(key):
                worker.send(ipc.IdentifyGranted(key))

    def live(self) -> set[int]:
        return {shard for shard, (state, _) in self.states.items() if state == "live"}

    def start(self, shard: int) -> None:
        self.worker.send(
            ipc.StartShard(
                key=ShardId("bot", 0, shard),
                run=shard + 1,
                fence=1,
                count=SHARDS,
                route="bot",
                bot="1",
                token=TOKEN,
                token_hash="h",
                gateway_url=self.sim.url,
                intents=1,
                compression="none",
                large_threshold=50,
                presence=None,
                session=None,
                stream_max_age_s=3600.0,
                stream_max_bytes=0,
                stream_replicas=1,
                options=ipc.ShardOptions(cache=CacheSpec(enabled=False), events=EventsSpec(), invites=InvitesSpec()),
            )
        )


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.fixture
async def slot(tmp_path: Path) -> AsyncIterator[Slot]:
    bots = [BotConfig(token=TOKEN, guilds=1, max_concurrency=SHARDS)]
    async with (
        EmbeddedNats(tmp_path) as server,
        Simulator(SimulatorConfig(bots=bots, identify_interval_s=0.01)) as sim,
    ):
        slot = Slot(server, sim)
        running = asyncio.create_task(slot.worker.run())
        await until(lambda: slot.ready)
        yield slot
        slot.worker.stop()
        async with asyncio.timeout(20):
            await running


def limit(pid: int, files: int) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (files, hard))


async def test_shards_without_a_socket_wait_while_others_live_and_the_worker_goes_on(slot: Slot) -> None:
    limit(slot.worker.pid, FILES)
    for shard in range(SHARDS):
        slot.start(shard)
    await until(
        lambda: (
            len(slot.states) == SHARDS
            and all(state == "live" or "no file descriptor is free" in reason for state, reason in slot.states.values())
        )
    )
    live = slot.live()
    assert 0 < len(live) < SHARDS
    assert f"this process may have {FILES}" in next(reason for state, reason in slot.states.values() if state != "live")
    reports = slot.worker.stats
    await until(lambda: slot.worker.stats is not reports)
    assert slot.live() >= live, "no shard lost its socket"
    assert slot.ready == [slot.worker.pid]

    limit(slot.worker.pid, 512)
    await until(lambda: len(slot.live()) == SHARDS)
    assert slot.ready == [slot.worker.pid], "it is the same process"


async def test_a_worker_that_cannot_be_started_is_tried_again_and_the_agent_goes_on(slot: Slot) -> None:
    slot.start_failures = [OSError(errno.EMFILE, "Too many open files"), BlockingIOError(errno.EAGAIN, "no")]
    process = slot.worker._process
    assert process is not None
    process.kill()
    await until(lambda: "no file descriptor is free" in slot.worker.waiting or len(slot.ready) == 2)
    await until(lambda: len(slot.ready) == 2)
    assert not slot.start_failures
