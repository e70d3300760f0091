"""An operator drains a node and uses it again, with real processes and traffic, without a session start."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import msgspec
import pytest

from sandwich_coordinator.store.base import Put
from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import ClaimRecord, NodeRecord
from sandwich_node.dev.embedded import EmbeddedEtcd
from tests.e2e.test_main_job import assert_clean, job
from tests.support.processes import started

pytestmark = pytest.mark.e2e


async def test_a_drained_node_hands_over_its_shards_by_resume_and_gets_shards_when_uncordoned() -> None:
    async with job(nodes=3) as running:
        await running.until("all shards live on three nodes", lambda: running.settled({"a", "b", "c"}))
        started = await running.spent()
        assert started == (8, 0)

        code, output = await running.cluster.run_cli("node", "drain", "b", "--timeout", "60")
        assert (code, "node b is drained" in output) == (0, True), output
        await running.until("the drained node's shards live on the others", lambda: running.settled({"a", "c"}))
        assert running.cluster.nodes["b"].running, "a drained node keeps running without shards"

        assert (await running.cluster.run_cli("node", "uncordon", "b"))[0] == 0
        await running.until("the node has a share again", lambda: running.settled({"a", "b", "c"}))

        assert_clean(await running.verdicts())
        assert await running.spent() == started, "every shard moved by RESUME"


@pytest.mark.long
async def test_an_operator_moves_and_restarts_shards_and_restores_the_balance() -> None:
    async with job(nodes=2) as running:
        run = running.cluster.run_cli
        await running.until("all shards live on two nodes", lambda: running.settled({"a", "b"}))
        started = await running.spent()

        async def owner(shard: int) -> str:
            listed = msgspec.json.decode((await run("shard", "list", "--app", "welcomer", "--json"))[1])
            return str(next(row["node"] for row in listed if row["shard"] == shard))

        source = await owner(3)
        target = "b" if source == "a" else "a"
        code, output = await run("shard", "move", "welcomer", "3", "--to", target)
        assert (code, f"live on {target} after" in output) == (0, True), output
        assert await owner(3) == target
        await running.until("the other shards made room", lambda: running.settled({"a", "b"}))

        code, output = await run("shard", "restart", "welcomer", "0-5")
        assert (code, "live again after" in output) == (0, True), output
        assert await owner(3) == target, "a restarted shard stays on its node"

        for arguments, words in (
            (("move", "welcomer", "9", "--to", target), "welcomer has no shard 9; it has 0-5"),
            (("move", "unknown", "1", "--to", target), "there is no application unknown; there are: music, welcomer"),
            (("move", "welcomer", "1", "--to", "x"), "there is no node x; there are: a, b"),
            (("restart", "welcomer", "x"), "shards 'x'"),
        ):
            code, output = await run("shard", *arguments)
            assert (code, words in output) == (1, True), output
        assert (await run("node", "cordon", source))[0] == 0
        code, output = await run("shard", "move", "welcomer", "3", "--to", source)
        assert (code, f"node {source} is cordoned and takes no shards" in output) == (1, True), output
        assert (await run("node", "uncordon", source))[0] == 0

        code, output = await run("cluster", "rebalance", "--dry-run")
        assert (code, "nothing to move" in output) == (0, True), output
        code, output = await run("cluster", "rebalance")
        assert (code, "1 pins are taken away" in output, "balanced" in output) == (0, True, True), output

        assert_clean(await running.verdicts())
        assert await running.spent() == started, "every shard came back by RESUME"


async def put_nodes(store: EtcdStore, keys: Keys) -> None:
    """Two registrations without processes, and a claim of the first that is never released."""
    lease = await store.grant(60)
    nodes = [NodeRecord(node=name, instance="1", address="", version="1") for name in ("a", "b")]
    held = ClaimRecord(app="music", group=0, shard=0, node="a", instance="1", worker=0)
    writes = [Put(keys.node(record.node), record.encode(), lease) for record in nodes]
    await store.txn([], [*writes, Put(keys.claim("music", 0, 0), held.encode(), lease)])


async def test_ctrl_c_leaves_the_node_draining_and_reports_it(tmp_path: Path) -> None:
    keys = Keys()
    async with EmbeddedEtcd(tmp_path / "etcd") as etcd:
        store = EtcdStore([etcd.url])
        command = [sys.executable, "-m", "sandwich_coordinator.cli.main", "node", "drain", "a", "--etcd", etcd.url]
        try:
            await put_nodes(store, keys)
            pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.STDOUT}
            env = {**os.environ, "PYTHONUNBUFFERED": "1"}
            async with asyncio.timeout(60), started(*command, **pipes, env=env) as process:
                assert process.stdout is not None
                while b"1 to move (music 1)" not in (line := await process.stdout.readline()):
                    assert line, "the command ended before it waited"
                process.send_signal(signal.SIGINT)
                output, _ = await process.communicate()
            assert process.returncode == 130
            assert b"node a stays draining" in output
            assert b"Traceback" not in output
            found = await store.get(keys.node("a"))
            assert found is not None
            assert msgspec.json.decode(found.value, type=NodeRecord).state == "draining"
            assert found.lease != 0
        finally:
            await store.close()
