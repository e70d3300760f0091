"""With real nodes: their logs are asked with signed requests, and a webhook outlives the leader that served it."""

import json
import signal

import aiohttp
import msgspec
import pytest

from sandwich_coordinator.operations.node_requests import ask_node
from sandwich_node.api.live.cluster_logs import PATH
from tests.e2e.cluster_fixture import cluster_fixture
from tests.support.hook_server import HookServer, hook_server

pytestmark = pytest.mark.e2e


def summaries(server: HookServer) -> list[str]:
    return [notice["summary"] for _, body in server.received for notice in json.loads(body)["notices"]]


async def test_every_node_answers_its_log_to_nodes_and_a_webhook_outlives_its_leader() -> None:
    async with hook_server() as server, cluster_fixture(nodes=2) as running, aiohttp.ClientSession() as http:
        cluster = running.cluster
        view = (await cluster.snapshot()).view
        of_workers = 0
        for name, entry in view.nodes.items():
            lines = msgspec.json.decode(await ask_node(http, entry.record, PATH))["lines"]
            assert any(f"as node {name}" in line["message"] for line in lines)
            of_workers += sum(line.get("worker") == 0 for line in lines)
        assert of_workers, "the worker that made the stream said so"

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
