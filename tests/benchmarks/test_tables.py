"""A peer that cannot run, or ends in the middle of a measurement, is a row with the reason; the other rows go on."""

import asyncio
import importlib.util
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from benchmarks import __main__ as bench
from benchmarks import peers, processes, steady, websockets
from benchmarks.peers import Peer, PeerMissing, Running
from benchmarks.processes import Client, ClientFailed, cpu_s, program
from benchmarks.steady import Cpu, Figures, Load
from benchmarks.websocket_readers import READERS

LOAD = Load(4, 100)
FIGURES = Figures(sent=100.0, taken=1.0, cpu=Cpu(1.0, 1.0, 0.0, 0.0))


def bot(then: str) -> Running:
    """A client that is ready, and then does this."""
    return program((sys.executable, "-c", f"import sys, time\nprint('ready', flush=True)\n{then}"), {})


def missing() -> None:
    raise PeerMissing("there is no cargo | npm")


@asynccontextmanager
async def no_cluster(*_: object, **__: object) -> AsyncIterator[SimpleNamespace]:
    yield SimpleNamespace(simulator_url="", nats=None)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the end of a process takes as long as it likes."""
    monkeypatch.setattr(processes, "END_S", 60.0)
    monkeypatch.setattr(processes, "QUIET_S", 0.01)


async def test_steady_traffic(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    mortal = set[int]()

    @asynccontextmanager
    async def dying(*_: object) -> AsyncIterator[Client]:
        async with bot("sys.exit('lost the gateway')") as client:
            mortal.add(client.pid)
            yield client

    async def figures(*args: Any) -> Figures:
        library: Client = args[-1]
        while library.pid in mortal:
            cpu_s(library.pid)
            await asyncio.sleep(0)
        return FIGURES

    wanted = (
        Peer("lacks", lambda *_: bot("time.sleep(1000)"), missing),
        Peer("dies", dying, str),
        Peer("lives", lambda *_: bot("time.sleep(1000)"), str),
    )
    monkeypatch.setattr(steady, "PEERS", {peer.name: peer for peer in wanted})
    monkeypatch.setattr(steady, "quiet_cluster", no_cluster)
    monkeypatch.setattr(steady, "_figures", figures)
    await steady.table([LOAD], [], [peer.name for peer in wanted], 0.0)
    ends = " |" * len(steady.HEAD)
    assert capsys.readouterr().out.splitlines()[2:] == [
        f"| 4 | 100 | lacks | not run: there is no cargo \\| npm{ends}",
        f"| 4 | 100 | dies | not run: ended with exit code 1: lost the gateway{ends}",
        steady.row(LOAD, "lives", FIGURES),
    ]


async def test_bursts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def simulator(*_: object) -> None: ...

    async def status(*_: object) -> dict[str, Any]:
        return {"workers": [{"pid": 0}]}

    @asynccontextmanager
    async def cluster(*_: object, **__: object) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(simulator_url="", simulator=simulator)

    async def done(*_: object) -> bool:
        return True

    async def cost(_: object, name: str, pid: int, events: int) -> tuple[float, int]:
        while name == "discord.py":
            cpu_s(pid)
            await asyncio.sleep(0)
        return 0.5, events

    monkeypatch.setattr(bench, "dev_cluster", cluster)
    monkeypatch.setattr(bench, "all_live", done)
    monkeypatch.setattr(bench, "node_status", status)
    monkeypatch.setattr(bench, "check_published", done)
    monkeypatch.setattr(bench, "burst_cost", cost)
    then = {"discord.py": "sys.exit('lost')", "hikari": "time.sleep(1000)"}
    monkeypatch.setattr(bench, "client", lambda library, *_: bot(then[library]))
    await bench.print_bursts(SimpleNamespace(rounds=2, events=1000))  # type: ignore[arg-type]
    head, _, ours, *theirs = capsys.readouterr().out.splitlines()
    assert head.startswith("| CPU µs an event, 2 bursts of 1000 |")
    assert ours == "| sandwich | 500.0 (500.0 to 500.0) | 2,000 | 1.0 |"
    assert theirs == [
        "| discord.py | not run: ended with exit code 1: lost | | |",
        "| hikari | not run: handled only 0% of the burst as messages | | |",
    ]


async def test_websocket_readers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    measured = []

    async def measure(reader: str, *_: object) -> float:
        measured.append(reader)
        if reader == "picows":
            raise ClientFailed("ended with exit code 1")
        return 5.0

    monkeypatch.setattr(websockets, "peers_python", str)
    monkeypatch.setattr(websockets, "measure", measure)
    await websockets.main([4], [1], 10, 3)
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].endswith(f"| {' | '.join(READERS)} |")
    wanted = ("not run: ended with exit code 1" if reader == "picows" else "5 (5 to 5)" for reader in READERS)
    assert rows[2] == f"| 4 sockets, plain, 1 at once | {' | '.join(wanted)} |"
    # It fails once with TLS and once without; the others have three rounds of each.
    assert Counter(measured) == {reader: 2 if reader == "picows" else 6 for reader in READERS}


async def test_websocket_readers_that_cannot_be_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(websockets, "peers_python", missing)
    await websockets.main([4], [1], 10, 1)
    assert capsys.readouterr().out == "not run: there is no cargo \\| npm\n"


def fresh_peers() -> ModuleType:
    """The module as a new process has it: what it made or missed is kept in it."""
    spec = importlib.util.spec_from_file_location("fresh_peers", peers.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("fault", [subprocess.TimeoutExpired("pip", 1.0), PermissionError(13, "Permission denied")])
def test_a_peer_is_prepared_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: Exception) -> None:
    steps = []

    def run(words: list[str], **_: object) -> None:
        steps.append(words)
        raise fault

    monkeypatch.setattr(subprocess, "run", run)
    module = fresh_peers()
    monkeypatch.setattr(module, "ENVIRONMENT", tmp_path)
    for name in ("discord.py[speed]", "hikari[speedups]", "discord.py[speed]"):
        with pytest.raises(module.PeerMissing, match=type(fault).__name__):
            module.PEERS[name].prepare()
    assert len(steps) == 1


def test_a_peer_whose_files_cannot_be_written_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = fresh_peers()
    monkeypatch.setattr(module.shutil, "which", lambda program: f"/bin/{program}")
    monkeypatch.setattr(module, "ENVIRONMENT", tmp_path / "file")
    (tmp_path / "file").write_text("in the way")
    for name in ("rust publisher", "discord.js"):
        with pytest.raises(module.PeerMissing, match="cannot be made"):
            module.PEERS[name].prepare()
