"""Bad input, with real processes: each gives a clear message and loses nothing."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from sandwich_coordinator.cli import render
from sandwich_coordinator.sealing import ClusterKey
from sandwich_node.dev.checker import DeliveryCheck
from sandwich_node.dev.cluster import ChildProcess, DevBot, DevCluster, command, dev_cluster
from sandwich_node.dev.embedded import EmbeddedEtcd, EmbeddedNats
from sandwich_node.dev.ports import free_ports
from sandwich_sdk import Consumer, Event
from tests.e2e.test_main_job import polling

REAL_PROGRAMS = True
pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

CANARY = "MTAwMDAwMDAwMDAx.GaaaaX.canary0123456789canary0123456789"
BOT = DevBot(app="welcomer", token=CANARY, guilds=12, shards=2, recommended=2, max_concurrency=2)


async def until(what: str, check: Callable[[], Awaitable[Any]], timeout_s: float = 60.0) -> Any:
    async for _ in polling(timeout_s):
        found = await check()
        if found:
            return found
    pytest.fail(f"not in {timeout_s:.0f} s: {what}")


async def live(cluster: DevCluster, count: int) -> bool:
    return [shard["state"] for shard in render.shard_rows(await cluster.snapshot())] == ["live"] * count


async def status_text(cluster: DevCluster) -> str:
    """The output of `sandwich cluster status`."""
    return render.status_text(await cluster.snapshot())


async def shard_states(cluster: DevCluster, app: str) -> list[str]:
    return [shard["state"] for shard in render.shard_rows(await cluster.snapshot(), app)]


async def live_of(cluster: DevCluster, app: str, count: int) -> bool:
    return await shard_states(cluster, app) == ["live"] * count


async def apply(cluster: DevCluster, change: Callable[[dict[str, Any]], None]) -> tuple[int, str]:
    path = cluster.directory / "cluster.yml"
    config = yaml.safe_load(path.read_text())
    change(config)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return await cluster.run_cli("cluster", "apply", "-f", str(path), "--yes")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[DevCluster]:
    """One cluster for all tests of this module. Each test leaves it with two live shards."""
    async with dev_cluster((BOT,), nodes=1, rate=50) as running:
        await until("two live shards", lambda: live(running, 2))
        yield running


async def test_invalid_data_on_the_socket_loses_and_doubles_nothing(cluster: DevCluster) -> None:
    check = DeliveryCheck()
    seen: dict[str, Event] = {}
    before = await bot_stats(cluster)
    resumes = before["resumes_ok"]

    async def consume() -> None:
        async with Consumer(cluster.nats.url, app="welcomer", group="bad", start="all") as consumer:
            async for event in consumer:
                check.take(event.id)
                if event.type == "BRAND_NEW_EVENT" or len(event.raw) > 10_000_000:
                    seen[event.type] = event

    consuming = asyncio.create_task(consume())
    try:
        await cluster.simulator("emit", {"bot": "welcomer", "shard": 0, "t": "BRAND_NEW_EVENT", "d": {"new": [1, "ü"]}})
        await cluster.simulator("raw", {"bot": "welcomer", "shards": [0], "text": '{"op": 0, "d": {'})
        await until("shard 0 back after malformed JSON", lambda: resumed(cluster, resumes + 1))
        await cluster.simulator("raw", {"bot": "welcomer", "shards": [1], "base64": "3q2+796tvu8="})
        await until("shard 1 back after a corrupt frame", lambda: resumed(cluster, resumes + 2))
        await cluster.simulator("raw", {"bot": "welcomer", "shards": [0], "bomb_mb": 300})
        await until("shard 0 back after a bomb", lambda: resumed(cluster, resumes + 3))
        await cluster.simulator("emit", {"bot": "welcomer", "big_guild_mb": 20})

        async def both_seen() -> bool:
            return set(seen) == {"BRAND_NEW_EVENT", "GUILD_CREATE"}

        await until("the unknown event and the large guild", both_seen)
        assert seen["BRAND_NEW_EVENT"].data == {"new": [1, "ü"]}
        await cluster.simulator("pause_traffic", {})

        async def clean() -> bool:
            return check.verdict(await cluster.owed("welcomer", check.sessions)).clean

        await until("everything owed, once and in order", clean)
    finally:
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)
    stats = await bot_stats(cluster)
    assert stats["identifies"] == before["identifies"]
    assert stats["violations"] == before["violations"] == {}
    memory = (await node_status(cluster))["workers"][0]["rss_bytes"]
    assert memory < 600 * 1024**2, "the bomb was not kept"


async def bot_stats(cluster: DevCluster) -> dict[str, Any]:
    """The simulator's counts of the bot."""
    return next(iter((await cluster.simulator("stats"))["bots"].values()))


async def resumed(cluster: DevCluster, times: int) -> bool:
    stats = await bot_stats(cluster)
    return bool(stats["resumes_ok"] >= times and stats["connected"] == 2)


async def node_status(cluster: DevCluster) -> dict[str, Any]:
    async with aiohttp.ClientSession() as http, http.get(f"{await address(cluster)}/status") as response:
        return await response.json()  # type: ignore[no-any-return]


async def address(cluster: DevCluster) -> str:
    (node,) = (await cluster.snapshot()).view.nodes.values()
    return f"http://{node.record.address}"


def command_lines() -> list[str]:
    """The arguments of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found


async def test_no_output_contains_a_token(cluster: DevCluster) -> None:
    secret = CANARY.rpartition(".")[2]
    shown = []
    for words in (("cluster", "status", "--json"), ("cluster", "export"), ("shard", "list"), ("app", "list")):
        shown.append((await cluster.run_cli(*words))[1])
    async with aiohttp.ClientSession() as http:
        for page in ("status", "metrics", "healthz", "readyz"):
            async with http.get(f"{await address(cluster)}/{page}") as response:
                shown.append(await response.text())
    shown.append(cluster.nodes["a"].log.read_text())
    shown.append("".join(command_lines()))
    raw = b"".join(path.read_bytes() for path in (cluster.directory / "etcd").rglob("*") if path.is_file())
    shown.append(raw.decode("latin-1"))
    assert all(shown)
    assert not any(secret in text for text in shown)


async def test_a_second_node_with_the_same_id_refuses_to_start(cluster: DevCluster) -> None:
    arguments = [command("sandwich-node"), "join", "--node-id", "a", "--workers", "1", "--listen", "127.0.0.1:0"]
    arguments += ["--etcd", f"http://127.0.0.1:{free_ports(1)[0]},{cluster.etcd.url}"]
    second = await ChildProcess.start("second", arguments, directory=cluster.directory, env=cluster.env)
    async with asyncio.timeout(60):
        code = await second.process.wait()
    assert code == 1
    assert "the node id 'a' is in use" in second.tail()
    assert "Traceback" not in second.log.read_text()
    assert await live(cluster, 2)


async def test_a_node_with_another_cluster_key_refuses_to_start(cluster: DevCluster) -> None:
    arguments = [command("sandwich-node"), "join", "--node-id", "b", "--workers", "1", "--listen", "127.0.0.1:0"]
    env = {**cluster.env, "SANDWICH_CLUSTER_KEY": ClusterKey.generate().to_base64()}
    other = await ChildProcess.start(
        "other", [*arguments, "--etcd", cluster.etcd.url], directory=cluster.directory, env=env
    )
    async with asyncio.timeout(60):
        assert await other.process.wait() == 1
    assert "was sealed with cluster key" in other.tail()
    assert "Traceback" not in other.log.read_text()
    assert await live(cluster, 2)


async def test_wrong_token_and_disallowed_intents_are_reported_and_not_retried(cluster: DevCluster) -> None:
    cluster.env["WRONG_TOKEN"] = "MTAwMDAwMDAwMDA5.GwrongX.unknown"
    wrong = {"token": {"env": "WRONG_TOKEN"}, "intents": ["GUILDS"], "shards": {"count": "auto"}}
    code, output = await apply(cluster, lambda config: config["apps"].update(wrong=wrong))
    assert code == 0, output

    async def reported() -> bool:
        return "wrong" in (text := await status_text(cluster)) and "refused the token" in text

    await until("the refused token in the status", reported)
    code, output = await cluster.run_cli("cluster", "status")
    assert (code, "refused the token" in output) == (1, True), output
    await cluster.simulator("bots", {"bot": "welcomer", "allowed_intents": 1})
    code, output = await apply(
        cluster, lambda config: config["apps"]["welcomer"].update(intents=["GUILDS", "GUILD_MEMBERS"])
    )
    assert code == 0, output

    async def failed() -> bool:
        return "4014" in (text := await status_text(cluster)) and "privileged intent" in text

    await until("the disallowed intents in the status", failed)
    before = (await bot_stats(cluster))["identifies"]
    await asyncio.sleep(6)
    after = (await bot_stats(cluster))["identifies"]
    assert after == before, "a fatal close is not tried again"

    # Only the first shard of the next group tried it; the present group serves as before.
    text = await status_text(cluster)
    assert "sandwich shard restart welcomer 0; or take the change back" in text
    assert len([row for row in await shard_states(cluster, "welcomer") if row == "live"]) == 2
    await cluster.simulator("bots", {"bot": "welcomer", "allowed_intents": 53608447})
    code, output = await apply(cluster, lambda config: None)
    assert (code, "application welcomer: failed shards 0 try again" in output) == (0, True), output
    await until("live again with intents that are allowed by now", lambda: live_of(cluster, "welcomer", 2))
    code, output = await apply(cluster, lambda config: config["apps"]["welcomer"].update(intents=["GUILDS"]))
    assert code == 0, output
    await until("live again with intents that are allowed", lambda: live(cluster, 2))


async def test_a_node_waits_for_etcd_and_for_nats_and_reports_it(tmp_path: Path) -> None:
    etcd, nats = EmbeddedEtcd(tmp_path / "etcd"), EmbeddedNats(tmp_path / "nats")
    etcd.take_ports(free_ports(2))
    nats.take_ports(free_ports(2))
    (http_port,) = free_ports(1)
    env = {**os.environ, "SANDWICH_CLUSTER_KEY": ClusterKey.generate().to_base64(), "SANDWICH_ETCD": etcd.url}
    arguments = [command("sandwich-node"), "join", "--node-id", "a", "--workers", "1"]
    node = await ChildProcess.start(
        "node", [*arguments, "--listen", f"127.0.0.1:{http_port}"], directory=tmp_path, env=env
    )

    async def waits_for(word: str) -> bool:
        assert node.running, node.tail()
        try:
            async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{http_port}/readyz") as response:
                return response.status == 503 and word in await response.text()
        except aiohttp.ClientError:
            return False

    try:
        await until("waiting for etcd", lambda: waits_for("etcd"))
        await etcd.start()
        await until("waiting for the configuration", lambda: waits_for("sandwich cluster apply"))
        config = {
            "version": 1,
            "cluster": "default",
            "nats": {"servers": [nats.url]},
            "redis": {"url": f"redis://127.0.0.1:{free_ports(1)[0]}/0"},
            "apps": {},
        }
        (tmp_path / "cluster.yml").write_text(yaml.safe_dump(config))
        cli = await ChildProcess.start(
            "cli",
            [command("sandwich"), "cluster", "apply", "-f", "cluster.yml"],
            directory=tmp_path,
            env=env,
            cwd=tmp_path,
        )
        assert await cli.process.wait() == 0, cli.tail()
        await until("waiting for NATS", lambda: waits_for("NATS"))
        await until("waiting for Redis", lambda: waits_for("Redis"))
        await nats.start()

        async def nats_found() -> bool:
            return not await waits_for("NATS")

        await until("NATS found", nats_found)
        node.signal(signal.SIGINT)
        async with asyncio.timeout(60):
            assert await node.process.wait() == 0
        assert "Traceback" not in node.log.read_text()
    finally:
        await node.stop(5)
        await nats.kill()
        await etcd.kill()
