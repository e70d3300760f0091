"""With real nodes: streams go on at another one, logs are asked with signatures, a webhook outlives its leader."""

import asyncio
import json
import re
import signal
from typing import Any

import aiohttp
import msgspec
import pytest

from sandwich_coordinator.addresses import node_url
from sandwich_coordinator.operations.node_requests import ask_node
from sandwich_node.api.live.cluster_logs import PATH
from tests.e2e.cluster_fixture import APP, cluster_fixture
from tests.support.hook_server import HookServer, hook_server

pytestmark = pytest.mark.e2e
TOKEN = re.compile(r"swt_[a-z0-9]+_[\w-]{43}")


async def stream(http: aiohttp.ClientSession, url: str, wanted: str, last: str = "") -> tuple[str, Any]:
    """Id and data of the first event of this kind."""
    found: dict[str, str] = {}
    async with asyncio.timeout(60), http.get(url, headers={"Last-Event-ID": last} if last else {}) as response:
        assert response.status == 200, await response.text()
        async for raw in response.content:
            name, _, value = raw.decode().rstrip("\n").partition(": ")
            if name:
                found[name] = value
            elif found.get("event") == wanted:
                return found.get("id", ""), json.loads(found["data"])
            elif not name and not raw.strip():
                found = {}
    raise AssertionError(f"the stream ended before {wanted}")


async def test_streams_are_served_by_any_node_and_go_on_at_another() -> None:
    async with cluster_fixture(nodes=2) as running:
        cluster = running.cluster

        async def shown() -> list[str]:
            return [found for node in cluster.nodes.values() for found in TOKEN.findall(node.log.read_text())]

        (token,) = await running.until("a node shows the first token", shown)
        urls = {
            name: node_url(entry.record.address, "") for name, entry in (await cluster.snapshot()).view.nodes.items()
        }
        a, b = (f"{urls[name]}/api/v1" for name in ("a", "b"))
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:
            last, body = await stream(http, f"{a}/changes", "snapshot")
            assert {"leader", "node/a", "node/b", "app/welcomer", "shard/welcomer/0/1"} <= body["objects"].keys()
            assert body["objects"]["shard/welcomer/0/1"]["state"] == "live"
            assert (await cluster.run_cli("node", "cordon", "b"))[0] == 0
            _, body = await stream(http, f"{b}/changes", "resumed", last)
            changed = {one["object"]: one.get("set") for one in body["changes"]}
            assert changed["node/b"]["state"] == "cordoned"
            assert "shard/welcomer/0/1" not in changed

            async with http.get(f"{a}/logs?limit=1000") as response:
                page = await response.json()
            assert {line["node"] for line in page["lines"]} == {"a", "b"}
            assert page["silent"] == {}
            assert token not in json.dumps(page)

            guild = (await running.guild_ids())[0]
            watching = asyncio.create_task(stream(http, f"{b}/events?app={APP}&type=MESSAGE_CREATE", "event"))
            said = 0
            while not watching.done():
                said += 1
                await running.said(guild, f"hello {said}")
                await asyncio.wait([watching], timeout=0.5)
            _, event = watching.result()
            assert event["d"]["content"].startswith("hello ")


def summaries(server: HookServer) -> list[str]:
    return [notice["summary"] for _, body in server.received for notice in json.loads(body)["notices"]]


async def test_every_node_answers_its_log_to_nodes_and_a_webhook_outlives_its_leader() -> None:
    async with hook_server() as server, cluster_fixture(nodes=2) as running, aiohttp.ClientSession() as http:
        cluster = running.cluster
        view = (await cluster.snapshot()).view

        async def lines_of_workers() -> int:
            of_workers = 0
            for name, entry in view.nodes.items():
                lines = msgspec.json.decode(await ask_node(http, entry.record, PATH))["lines"]
                assert any(f"as node {name}" in line["message"] for line in lines)
                of_workers += sum(line.get("worker") == 0 for line in lines)
            return of_workers

        await running.until("the worker that made the stream says so", lines_of_workers)

        (cluster.directory / "url").write_text(server.url)
        events = [word for kind in ("leader", "nodes", "failovers") for word in ("--event", kind)]
        code, output = await cluster.run_cli(
            "webhook", "add", "alerts", "--url-file", str(cluster.directory / "url"), "--allow-private", *events
        )
        assert code == 0, output

        async def begun() -> bool:
            return "alerts" in (await cluster.snapshot()).view.webhook_states

        await running.until("the leader has the webhook", begun)
        assert view.leader is not None
        leader = view.leader.record.node
        cluster.nodes[leader].signal(signal.SIGKILL)

        async def reported() -> bool:
            text = "\n".join(summaries(server))
            return f"leads now, after {leader}" in text and f"node {leader} is gone" in text

        await running.until("the next leader reports the loss of the last one", reported)
        code, output = await cluster.run_cli("webhook", "list")
        assert (code, "alerts" in output, "/hush" in output) == (0, True, False), output
