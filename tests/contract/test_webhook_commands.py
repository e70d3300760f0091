"""`sandwich webhook` against real etcd, with a real server that receives."""

import json
from pathlib import Path

import pytest

from sandwich_node.dev.embedded import EmbeddedEtcd
from tests.contract.test_cli import FILE, Cli
from tests.support.hook_server import hook_server

pytestmark = pytest.mark.contract


async def test_webhooks_are_added_listed_tested_and_removed(tmp_path: Path) -> None:
    async with EmbeddedEtcd(tmp_path / "etcd") as etcd, hook_server() as server:
        run = Cli(tmp_path, etcd.url)
        (tmp_path / "cluster.yml").write_text(FILE)
        (tmp_path / "url").write_text(server.url)
        key = ("--key-file", "cluster.key")
        assert (await run("cluster", "init"))[0] == 0
        add = ("webhook", "add", "alerts", *key)
        assert "not configured" in (await run(*add, "--url-file", "url", "--allow-private"))[1]
        assert (await run("cluster", "apply", "-f", "cluster.yml", *key))[0] == 0
        code, text = await run(*add, "--url-file", "url")
        assert code == 1
        assert "must begin with https://" in text
        assert (await run(*add, "--url-file", "url", "--url-env", "X"))[0] == 2
        assert (await run(*add, "--allow-private", piped=server.url))[0] == 0
        assert (await run(*add, "--url-file", "url", "--allow-private"))[0] == 1
        (row,) = json.loads((await run("webhook", "list", "--json"))[1])
        assert (row["webhook"], row["type"], row["host"], row["ends_in"]) == ("alerts", "generic", "127.0.0.1", "hush")
        assert "127.0.0.1 (...hush)" in (await run("webhook", "list"))[1]
        assert (await run("webhook", "test", "alerts", *key)) == (0, "webhook alerts took the test message\n")
        server.answers = [(404, {}, "")]
        code, text = await run("webhook", "test", "alerts", *key)
        assert (code, "HTTP 404" in text) == (2, True)
        assert (await run("webhook", "remove", "alerts"))[0] == 0
        assert (await run("webhook", "remove", "alerts"))[0] == 1
        assert len(server.received) == 2
        assert "/hush" not in run.seen
