"""Access with real processes: the first admin's token, the commands, TLS between nodes, and the audit log."""

import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sandwich_coordinator.addresses import node_url
from sandwich_coordinator.types import NodeRecord
from sandwich_node.dev.cluster import DevBot, DevCluster, dev_cluster
from tests.e2e.test_main_job import AT_ONCE_S, wait_until
from tests.unit.node.test_tls import make_pair

pytestmark = pytest.mark.e2e

BOT = DevBot(app="welcomer", token="MTAwMDAwMDAwMDAx.GaaaaX.canary", guilds=4, shards=2, recommended=2)
TOKEN = re.compile(r"swt_[a-z0-9]+_[\w-]{43}")


async def registered(cluster: DevCluster) -> list[NodeRecord]:
    view = (await cluster.snapshot()).view
    return [view.nodes[name].record for name in sorted(view.nodes)]


async def ask(record: NodeRecord, method: str, path: str, token: str = "") -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{node_url(record.address, record.tls)}{path}"
    pinned = aiohttp.Fingerprint(bytes.fromhex(record.tls)) if record.tls else True
    async with aiohttp.ClientSession() as http, http.request(method, url, headers=headers, ssl=pinned) as response:
        raw = await response.read()
        return response.status, json.loads(raw) if raw.startswith(b"{") else raw.decode()


async def test_access_of_a_running_cluster(tmp_path: Path) -> None:
    cert, key = make_pair(tmp_path)
    async with dev_cluster((BOT,), nodes=0, rate=0.0) as cluster:
        cluster.env |= {"SANDWICH_TLS_CERT": str(cert), "SANDWICH_TLS_KEY": str(key)}
        for name in ("a", "b"):
            await cluster.start_node(name)

        async def answering() -> bool:
            snapshot = await cluster.snapshot()
            return len(snapshot.answers) == 2 and not any(isinstance(each, str) for each in snapshot.answers.values())

        # Both nodes serve https with a certificate that no CA signed, and are asked through their registrations.
        await wait_until(cluster, "two nodes answer", answering)

        async def shown() -> list[str]:
            return [found for node in cluster.nodes.values() for found in TOKEN.findall(node.log.read_text())]

        (first,) = await wait_until(cluster, "a node shows the first token", shown)
        alpha, beta = await registered(cluster)
        assert len(alpha.tls) == 64
        assert alpha.status_key != beta.status_key
        for node in (alpha, beta):
            assert (await ask(node, "GET", "/api/v1/me"))[0] == 401
            status, me = await ask(node, "GET", "/api/v1/me", first)
            assert (status, me["name"], me["role"]) == (200, "first admin", "admin")
        assert (await ask(alpha, "POST", "/api/v1/nodes/b/cordon", first))[0] == 200

        code, output = await cluster.run_cli("token", "create", "ops", "--role", "admin", "--expires", "1h", "--json")
        assert code == 0, output
        made = json.loads(output)
        ops = made["token"]

        async def ended() -> bool:
            return all([(await ask(node, "GET", "/api/v1/me", first))[0] == 401 for node in (alpha, beta)])

        await wait_until(cluster, "the first token has ended", ended, AT_ONCE_S)
        assert (await ask(beta, "GET", "/api/v1/nodes/b", ops))[1]["state"] == "cordoned"

        code, output = await cluster.run_cli("user", "set", "80351110224678912", "--role", "operator")
        assert code == 0, output
        code, output = await cluster.run_cli("app", "set", "--yes", BOT.app, "route=x")
        assert code == 0, output
        code, output = await cluster.run_cli("audit", "--app", BOT.app, "--json")
        (entry,) = json.loads(output)
        assert (entry["what"], entry["path"]) == ("sandwich app set", {"app": BOT.app})
        code, output = await cluster.run_cli("audit", "--json")
        assert code == 0, output
        entries = [(entry["who"].partition(":")[0], entry["what"], entry["result"]) for entry in json.loads(output)]
        assert entries == [
            ("cli", "sandwich app set", "done"),
            ("cli", "sandwich user set 80351110224678912", "done"),
            ("cli", "sandwich token create ops", "done"),
            ("token", "POST /nodes/{node}/cordon", "done"),
            ("cli", "sandwich cluster apply", "done"),
        ]
        assert (await ask(alpha, "GET", "/api/v1/audit?limit=1", ops))[1]["items"][0]["what"] == entries[0][1]

        # The same over the API, from where neither etcd nor the cluster key is.
        cluster.env["SANDWICH_API_TOKEN"] = ops
        over_api = ("--api", node_url(alpha.address, alpha.tls), "--api-ca", str(cert))
        for words in (("token", "create", "two"), ("user", "list"), ("audit",), ("token", "list")):
            code, output = await cluster.run_cli(*over_api, *words, "--json")
            assert code == 0, output
        assert [row["name"] for row in json.loads(output)] == ["ops", "two"]
        code, output = await cluster.run_cli(*over_api, "token", "revoke", "two")
        assert code == 0, output
        assert (await cluster.run_cli(*over_api, "token", "revoke", "two"))[0] == 1
        code, output = await cluster.run_cli(*over_api, "token", "revoke", "ops")
        assert code == 0, output

        async def revoked() -> bool:
            return all([(await ask(node, "GET", "/api/v1/me", ops))[0] == 401 for node in (alpha, beta)])

        await wait_until(cluster, "the token is refused", revoked, AT_ONCE_S)
        logs = "".join(node.log.read_text() for node in cluster.nodes.values())
        assert logs.count(first) == 1
        assert ops not in logs
