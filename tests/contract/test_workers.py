"""A worker's slot with real processes: the next one waits beside it, and nothing is left behind."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sandwich_node.dev.embedded import EmbeddedNats
from sandwich_node.ipc import LogLines, ToAgent, WorkerReady, WorkerSettings
from sandwich_node.log_lines import LogLine
from sandwich_node.nats_options import NatsOptions
from sandwich_node.worker_process import WorkerProcess

pytestmark = pytest.mark.contract


class Slot:
    """A slot that runs, and the pids of the workers that were ready in it, in order."""

    def __init__(self, server: EmbeddedNats) -> None:
        self.ready: list[int] = []
        settings = WorkerSettings(
            worker=0, node="a", nats=NatsOptions(servers=(server.url,)), api_url="http://127.0.0.1:9/api/v10"
        )
        self.worker = WorkerProcess(
            settings,
            on_message=self._received,
            on_started=lambda worker: None,
            on_gone=lambda worker: None,
            spare_after_s=0.1,
        )

    def _received(self, worker: WorkerProcess, message: ToAgent) -> None:
        if isinstance(message, WorkerReady):
            self.ready.append(worker.pid)


SECRETS = {
    "SANDWICH_CLUSTER_KEY": "hush-1",
    "WELCOMER_TOKEN": "hush-2",
    "NATS_PASSWORD": "hush-3",
    "REDIS_PASSWORD": "hush-4",
    "SANDWICH_ETCD_PASSWORD_FILE": "hush-5",
    "HTTPS_PROXY": "http://user:hush-6@proxy.test",
}


@pytest.fixture
async def slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Slot]:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    async with EmbeddedNats(tmp_path) as server:
        slot = Slot(server)
        running = asyncio.create_task(slot.worker.run())
        yield slot
        slot.worker.stop()
        async with asyncio.timeout(60):
            await running


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def spare_of(slot: Slot) -> int:
    spare = slot.worker._spare
    return spare.process.pid if spare is not None else 0


def environment_of(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_the_spare_takes_the_place_of_a_worker_that_dies_and_is_replaced(slot: Slot) -> None:
    for number in (1, 2):
        await until(lambda number=number: len(slot.ready) == number and spare_of(slot))  # type: ignore[misc]
        spare = spare_of(slot)
        os.kill(slot.worker.pid, signal.SIGKILL)
        await until(lambda number=number: len(slot.ready) == number + 1)  # type: ignore[misc]
        assert slot.worker.pid == spare


async def test_a_worker_and_its_spare_inherit_no_secret_of_the_agents_environment(slot: Slot) -> None:
    await until(lambda: slot.ready and spare_of(slot))
    for pid in (slot.worker.pid, spare_of(slot)):
        variables = environment_of(pid)
        names = {variable.partition(b"=")[0].decode() for variable in variables if variable}
        assert "PATH" in names
        assert not names & SECRETS.keys()
        assert not any(b"hush" in variable for variable in variables)


async def test_a_spare_that_died_is_not_missed(slot: Slot) -> None:
    await until(lambda: slot.ready and spare_of(slot))
    spare = spare_of(slot)
    os.kill(spare, signal.SIGKILL)
    await until(lambda: slot.worker._spare is not None and slot.worker._spare.process.returncode is not None)
    os.kill(slot.worker.pid, signal.SIGKILL)
    await until(lambda: len(slot.ready) == 2)
    assert slot.worker.pid not in (spare, slot.ready[0])


async def test_a_slot_that_ends_takes_its_spare_along(slot: Slot) -> None:
    await until(lambda: slot.ready and spare_of(slot))
    pids = spare_of(slot), slot.worker.pid
    slot.worker.stop()
    async with asyncio.timeout(60):
        await slot.worker.ended.wait()
    assert not any(is_there(pid) for pid in pids)


async def test_a_spare_whose_agent_is_gone_ends_by_itself(slot: Slot) -> None:
    await until(lambda: slot.ready and spare_of(slot))
    spare = slot.worker._spare
    assert spare is not None
    spare.socket.close()
    await until(lambda: spare.process.returncode is not None)
    assert spare.process.returncode == 0


async def test_a_worker_reports_what_it_logs_without_secrets() -> None:
    lines: list[LogLine] = []

    def received(_worker: WorkerProcess, message: ToAgent) -> None:
        if isinstance(message, LogLines):
            lines.extend(message.lines)

    settings = WorkerSettings(
        worker=0,
        node="a",
        nats=NatsOptions(servers=("nats://sandwich:hush-7@127.0.0.1:1",)),
        api_url="http://127.0.0.1:9/api/v10",
    )
    worker = WorkerProcess(settings, on_message=received, on_started=lambda worker: None, on_gone=lambda worker: None)
    running = asyncio.create_task(worker.run())
    await until(lambda: any("waiting for NATS" in line.message for line in lines))
    worker.stop()
    async with asyncio.timeout(60):
        await running
    assert all("hush-7" not in line.message for line in lines)
