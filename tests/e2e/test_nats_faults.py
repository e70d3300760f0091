"""Faults of NATS with real processes: slow, stream deleted, disk full. Events are delivered exactly once if possible.

Lost ones are counted, named and shown.
"""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import nats
import pytest
import yaml

from sandwich_node.dev.cluster import DevCluster, dev_cluster
from sandwich_sdk.wire.status import StreamRemade
from tests.e2e.test_faults import RSS_BYTES_MAX, SHARDS, FaultJob, ended, status_events
from tests.e2e.test_main_job import BOTS, assert_clean
from verification.chaos.proxy import Link

pytestmark = pytest.mark.e2e

NODES = {"a", "b"}
RATE = 300
DELAY_S = 0.3
DISK_BYTES = 48 * 1024 * 1024
KEPT_BY_DISCORD = {"welcomer": 600, "music": 450}
"""Events a shard (`sandwich_simulator.sessions.replay_capacity`): 8 and 6 guilds."""


async def problems(running: FaultJob) -> str:
    """The problems in the status, one on each line."""
    return "\n".join(problem["summary"] for problem in (await running.status())["problems"])


async def rss(running: FaultJob) -> list[int]:
    """The memory of each worker."""
    return [worker["rss_bytes"] for node in sorted(NODES) for worker in (await running.node_status(node))["workers"]]


@asynccontextmanager
async def nats_job(cluster: DevCluster) -> AsyncIterator[FaultJob]:
    """Two nodes on this cluster with all shards live. At the end they are stopped before their servers."""
    running = FaultJob(cluster)
    consuming = asyncio.create_task(running.consume())
    try:
        for name in sorted(NODES):
            await cluster.start_node(name)
        await running.until("all shards live", lambda: running.settled(NODES))
        assert await running.spent() == (SHARDS, 0)
        yield running
    finally:
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)
        await cluster.stop_nodes()


async def behind_a_link(cluster: DevCluster, link: Link) -> None:
    """Make later nodes reach NATS only over the link."""
    path = cluster.directory / "cluster.yml"
    config = yaml.safe_load(path.read_text())
    config["nats"]["servers"] = [f"nats://127.0.0.1:{link.port}"]
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    code, output = await cluster.run_cli("cluster", "apply", "-f", str(path))
    assert code == 0, output


async def test_a_slow_nats_costs_only_time_and_a_deleted_stream_is_made_again_and_announced() -> None:
    async with dev_cluster(BOTS, nodes=0, rate=RATE) as cluster:
        link = Link(cluster.nats.port)
        await link.open()
        await behind_a_link(cluster, link)
        async with nats_job(cluster) as running, status_events(running) as received:
            resumes = await running.resumes()
            link.delay_s = DELAY_S
            seen = running.consumed()
            await asyncio.sleep(6.0)
            assert running.consumed() - seen > RATE, "events arrive over a slow link"
            assert max(await rss(running)) < RSS_BYTES_MAX
            link.delay_s = 0.0
            assert_clean(await running.verdicts())
            assert (await running.spent(), await running.resumes()) == ((SHARDS, 0), resumes)

            await continues_behind_foreign_messages(running)
            await delete_stream(running, "welcomer")
            await running.cluster.simulator("traffic", {"rate": RATE})
            await running.until("events arrive again", running.flowing)

            async def shown() -> bool:
                return "welcomer: its stream was deleted" in await problems(running)

            await running.until("the deleted stream in the status", shown)
            assert (await running.cluster.run_cli("cluster", "status"))[0] == 1

            async def announced() -> list[str]:
                return [one.stream for one in received if isinstance(one, StreamRemade)]

            assert await running.until("the deleted stream is announced", announced) == ["SANDWICH_welcomer"]
            logs = "".join(running.cluster.nodes[name].log.read_text() for name in NODES)
            assert logs.count("stream SANDWICH_welcomer was deleted under its shards") == 1

            async def all_reported() -> bool:
                return {gap.shard for gap in running.gaps} == set(range(6))

            await running.until("a gap in each chain of the stream", all_reported)
            for gap in running.gaps:
                assert gap.app == "welcomer"
                assert "no consumer had read is lost" in gap.detail["reason"]
            # All events had been read when the stream was deleted, so no event may be lost.
            assert_clean(await running.verdicts())
            assert await running.spent() == (SHARDS, 0)
        await link.cut()


async def continues_behind_foreign_messages(running: FaultJob) -> None:
    """Another client publishes on the subject of each chain of an application."""
    client = await nats.connect(running.cluster.nats.url)
    for shard in range(6):
        await client.publish(f"sandwich.welcomer.events.all.0.{shard}", b"not a frame")
    await client.close()
    await running.cluster.simulator("traffic", {"rate": RATE})

    async def shown() -> bool:
        return "welcomer: a client that is no node published into its stream" in await problems(running)

    async def reported() -> bool:
        return {(gap.app, gap.shard) for gap in running.gaps} == {("welcomer", shard) for shard in range(6)}

    async def counted() -> bool:
        status = [await running.node_status(name) for name in sorted(NODES)]
        return sum(int(node["apps"]["welcomer"]["foreign_total"]) for node in status) == 6

    await running.until("foreign messages in the status", shown)
    await running.until("a gap in each chain", reported)
    assert all("nothing is lost" in gap.detail["reason"] for gap in running.gaps)
    await running.until("six foreign messages counted", counted)
    assert_clean(await running.verdicts())
    assert await running.spent() == (SHARDS, 0)
    running.gaps.clear()


async def delete_stream(running: FaultJob, app: str) -> None:
    """Delete the stream as an operator could."""
    client = await nats.connect(running.cluster.nats.url)
    try:
        await client.jetstream().delete_stream(f"SANDWICH_{app}")
    finally:
        await client.close()


@asynccontextmanager
async def small_disk(cluster: DevCluster) -> AsyncIterator[None]:
    """JetStream stores on a separate small file system."""
    await cluster.nats.kill()
    mount(cluster.nats.store)
    try:
        await cluster.nats.start()
        yield
    finally:
        await cluster.nats.kill()
        unmount(cluster.nats.store)


def unmount(directory: Path) -> None:
    subprocess.run(["umount", str(directory)], check=True)


def mount(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted: {done.stderr.strip()}")


def fill(store: Path) -> None:
    """Use up the free space of the disk."""
    with contextlib.suppress(OSError), (store / "filler").open("wb", buffering=0) as file:
        while file.write(bytes(64 * 1024)):
            pass


def free(store: Path) -> None:
    """Free the space again."""
    (store / "filler").unlink()


async def restored(running: FaultJob) -> None:
    """What an operator does about a full disk: free space and restart the server."""
    free(running.cluster.nats.store)
    await running.cluster.nats.kill()
    await running.cluster.nats.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
@pytest.mark.long
async def test_a_full_disk_delays_events_and_lost_ones_are_counted_and_named() -> None:
    async with dev_cluster(BOTS, nodes=0, rate=RATE) as cluster, small_disk(cluster), nats_job(cluster) as running:
        await waits_for_space_and_continues(running)
        await loses_only_what_discord_dropped(running)


async def waits_for_space_and_continues(running: FaultJob) -> None:
    fill(running.cluster.nats.store)

    async def said() -> bool:
        found = await problems(running)
        return all(re.search(rf"{app}: shards .* wait: .*disk full", found) for app in running.checks)

    await running.until("the reason of the wait in the status", said)
    assert (await running.cluster.run_cli("cluster", "status"))[0] == 1
    assert await running.connected(), "heartbeats continue"
    assert max(await rss(running)) < RSS_BYTES_MAX
    await restored(running)
    await running.until("events arrive again", running.flowing)
    assert_clean(await running.verdicts())
    assert (await running.spent(), running.gaps) == ((SHARDS, 0), [])


async def loses_only_what_discord_dropped(running: FaultJob) -> None:
    """The disk is full again, Discord drops events from its replay buffer, and the workers that read them die."""
    sessions = running.checks["welcomer"].sessions
    before = {session: count.last_seq for session, count in sessions.items()}
    fill(running.cluster.nats.store)
    await running.cluster.simulator("happen", {"bot": "welcomer", "events": 10 * KEPT_BY_DISCORD["welcomer"]})
    await running.cluster.simulator("happen", {"bot": "music", "events": KEPT_BY_DISCORD["music"] // 2})
    await asyncio.sleep(1.0)
    for name in sorted(NODES):
        for pid in (await running.pids(name))[1]:
            os.kill(pid, signal.SIGKILL)
            await running.until("the worker is gone", partial(gone, pid))
    await restored(running)

    async def identified() -> bool:
        return len(running.gaps) == 6 and await running.settled(NODES)

    await running.until("a gap of each shard that Discord would not resume", identified)
    # A small frame can still fit into the last page of an open file, so a session may end shortly after `before`.
    ends = {session: sessions[session].last_seq for session in before}
    assert all(0 <= ends[session] - before[session] < KEPT_BY_DISCORD["welcomer"] for session in before)
    assert {(gap.app, gap.session): gap.last_seq for gap in running.gaps} == {
        ("welcomer", session): last_seq for session, last_seq in ends.items()
    }
    lost = (await running.status())["losses"]
    assert {(row["app"], row["session"], row["last_seq"]) for row in lost} == {
        ("welcomer", session, last_seq) for session, last_seq in ends.items()
    }
    _, text = await running.cluster.run_cli("cluster", "status")
    assert text.count("ended after sequence") == 6
    assert sum([await counted(running, name) for name in sorted(NODES)]) == 6
    await running.cluster.simulator("traffic", {"rate": RATE})
    await running.until("events arrive again", running.flowing)
    assert_clean(await running.verdicts_up_to_gaps())
    assert await running.spent_on_events() == (SHARDS + 6, 0)


async def gone(pid: int) -> bool:
    return ended(pid)


async def counted(running: FaultJob, node: str) -> int:
    """The node's metric of sessions that could not be resumed."""
    (address,) = [row["address"] for row in (await running.status())["nodes"] if row["node"] == node]
    async with aiohttp.ClientSession() as http, http.get(f"http://{address}/metrics") as response:
        found = re.findall(r"^sandwich_gaps_total\{.*\} (\S+)$", await response.text(), re.MULTILINE)
    return sum(int(float(value)) for value in found)
