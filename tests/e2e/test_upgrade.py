"""Nodes of an older version are replaced while events flow: nothing is lost, and no session is thrown away."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sandwich_node.dev import cluster as dev
from sandwich_node.dev.cluster import dev_cluster
from tests.e2e.test_faults import SHARDS
from tests.e2e.test_main_job import BOTS, assert_clean
from tests.e2e.test_nats_faults import NODES, nats_job

pytestmark = [pytest.mark.e2e, pytest.mark.long]

LAST_OF = {"0.1.0": "448e0dd", "0.2.0": "e650623"}
"""The last commit of each version."""
ROOT = Path(__file__).parents[2]
PARTS = ("node", "coordinator", "consumer-sdk")
STOP_S = 40.0


@pytest.fixture(params=sorted(LAST_OF))
def old(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """An older version, and the directory of its programs. Its bounds of libraries are ours: it runs with the same."""
    version: str = request.param
    archive = subprocess.run(["git", "archive", LAST_OF[version]], cwd=ROOT, capture_output=True, timeout=60)
    if archive.returncode != 0:
        pytest.skip(f"the history of {version} is not here: {archive.stderr.decode(errors='replace')[:80]}")
    subprocess.run(["tar", "-x", "-C", str(tmp_path)], input=archive.stdout, check=True, timeout=60)
    assert libraries(tmp_path) <= libraries(ROOT)
    path = os.pathsep.join(str(tmp_path / part) for part in PARTS)
    program = tmp_path / "bin" / "sandwich-node"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={path} exec {sys.executable} -m sandwich_node.main "$@"\n')
    program.chmod(0o755)
    return version, program.parent


def libraries(root: Path) -> set[str]:
    """What a version needs, with its bounds."""
    return set(tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"])


async def test_nodes_are_upgraded_one_after_another_without_a_lost_event_or_a_new_session(
    old: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    version, programs = old
    ours = dev.command

    def of_old_nodes(name: str) -> str:
        return str(programs / name) if name == "sandwich-node" else ours(name)

    monkeypatch.setattr(dev, "command", of_old_nodes)
    async with dev_cluster(BOTS, nodes=0, rate=300) as cluster, nats_job(cluster) as running:
        await running.until("events of each application arrive", running.all_receiving)

        nodes = (await cluster.snapshot()).view.nodes.values()
        assert [entry.record.version for entry in nodes] == [version] * len(NODES)
        monkeypatch.setattr(dev, "command", ours)
        for name in sorted(NODES):
            await cluster.nodes[name].stop(STOP_S)
            await running.until("all shards live on the other node", lambda: running.settled(NODES - {name}))  # noqa: B023
            await cluster.start_node(name)
            await running.until("all shards live on both nodes", lambda: running.settled(NODES))
            assert await running.flowing()

        async def healthy() -> bool:
            return (await cluster.run_cli("cluster", "status"))[0] == 0

        await running.until("nothing is wrong", healthy)
        assert_clean(await running.verdicts())
        assert running.gaps == []
        assert await running.spent() == (SHARDS, 0), "no session start but the first ones, no rule of Discord violated"
