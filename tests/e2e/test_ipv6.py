"""A cluster in which every address is an IPv6 literal: etcd, NATS, Redis, Discord, the node itself."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest

from sandwich_coordinator.sealing import ClusterKey
from sandwich_node.dev.cluster import ChildProcess, command
from sandwich_node.dev.embedded import EmbeddedEtcd, EmbeddedNats, EmbeddedRedis
from sandwich_simulator import BotConfig, Simulator, SimulatorConfig
from tests.e2e.test_bad_input import until

pytestmark = pytest.mark.e2e

TOKEN = "MTAwMDAwMDAwMDAx.GaaaaX.welcomer"
FILE = """\
version: 1
nats: {{servers: ["nats://[::1]:{nats}"]}}
redis: {{url: "redis://[::1]:{redis}/0"}}
discord: {{api_url: "{api}"}}
apps:
  welcomer: {{token: {{env: BOT}}, intents: [GUILDS], shards: {{count: 1}}}}
"""


@asynccontextmanager
async def over_ipv6(port: int) -> AsyncIterator[int]:
    """Make the server on 127.0.0.1 at `port` available on ::1; yields the port there."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

    server = await asyncio.start_server(take, "::1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_every_command_finds_a_cluster_of_ipv6_addresses(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        servers = EmbeddedEtcd(tmp_path / "etcd"), EmbeddedNats(tmp_path / "nats"), EmbeddedRedis(tmp_path / "redis")
        etcd, nats, redis = [
            await stack.enter_async_context(over_ipv6((await stack.enter_async_context(server)).port))
            for server in servers
        ]
        bot = BotConfig(token=TOKEN, name="welcomer", guilds=2, recommended_shards=1)
        sim = await stack.enter_async_context(Simulator(SimulatorConfig(host="::1", bots=[bot])))
        assert sim.url.startswith("ws://[::1]:")
        (tmp_path / "cluster.yml").write_text(FILE.format(nats=nats, redis=redis, api=sim.api_url))
        env = {**os.environ, "SANDWICH_ETCD": f"http://[::1]:{etcd}", "BOT": TOKEN}
        env["SANDWICH_CLUSTER_KEY"] = ClusterKey.generate().to_base64()

        async def run(*words: str) -> tuple[int, str]:
            process = await asyncio.create_subprocess_exec(
                command("sandwich"),
                *words,
                env=env,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await process.communicate()
            return process.returncode or 0, output.decode()

        code, output = await run("cluster", "apply", "-f", str(tmp_path / "cluster.yml"))
        assert code == 0, output
        words = [command("sandwich-node"), "join", "--node-id", "a", "--workers", "1", "--listen", "[::1]:0"]
        node = await ChildProcess.start("node", words, directory=tmp_path, env=env)
        stack.push_async_callback(node.stop, 20.0)

        async def healthy() -> bool:
            return (await run("cluster", "status"))[0] == 0

        await until("a healthy cluster", healthy)
        (row,) = msgspec.json.decode((await run("node", "list", "--json"))[1])
        assert row["address"].startswith("[::1]:")
        assert row["answers"]
        async with aiohttp.ClientSession() as http, http.get(f"http://{row['address']}/readyz") as response:
            assert await response.text() == "ok\n"
        guild = (await sim.guild_ids(sim.config.bots[0].id))[0]
        # A command for each server: etcd, Redis, NATS, and the shard's connection to Discord.
        lines = (
            ("cluster", "export"),
            ("guild", "where", guild),
            ("dead", "list"),
            ("shard", "restart", "welcomer", "0"),
        )
        refused = "cluster", "export", "--etcd", "http://[fe80::1%eth0]:2379"
        *done, (code, output) = await asyncio.gather(*(run(*line) for line in (*lines, refused)))
        assert [code for code, _ in done] == [0] * len(lines), done
        assert (code, "zone" in output) == (2, True), output
