import asyncio
import stat
import sys
from pathlib import Path

import pytest

from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_node.dev.embedded import EmbeddedEtcd
from tests.support.processes import started

pytestmark = pytest.mark.contract
CANARY = "canary-token-91c2"
FILE = """\
version: 1
nats: {servers: ["nats://127.0.0.1:4222"]}
redis: {url: "redis://127.0.0.1:6379/0"}
apps:
  welcomer: {token: {env: WELCOMER_TOKEN}, intents: [GUILDS]}
"""


class Cli:
    def __init__(self, directory: Path, etcd: str) -> None:
        self.directory = directory
        self.etcd = etcd
        self.seen = ""

    async def __call__(self, *arguments: str) -> tuple[int, str]:
        async with asyncio.timeout(30), started(
            sys.executable, "-m", "sandwich_coordinator.cli.main", *arguments,
            cwd=self.directory, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env={"SANDWICH_ETCD": self.etcd, "WELCOMER_TOKEN": CANARY},
        ) as process:  # fmt: skip
            output, _ = await process.communicate()
        self.seen += output.decode()
        assert process.returncode is not None
        return process.returncode, output.decode()


async def test_a_cluster_is_configured_from_a_file_and_the_token_never_shows(tmp_path: Path) -> None:
    async with EmbeddedEtcd(tmp_path / "etcd") as etcd:
        run = Cli(tmp_path, f"http://127.0.0.1:1,{etcd.url}")
        (tmp_path / "cluster.yml").write_text(FILE)
        apply = ("cluster", "apply", "-f", "cluster.yml", "--key-file", "cluster.key")
        assert (await run(*apply))[0] == 1
        assert (await run("cluster", "init"))[0] == 0
        assert stat.S_IMODE((tmp_path / "cluster.key").stat().st_mode) == 0o600
        assert (await run("cluster", "init"))[0] == 1
        assert "2 keys would change" in (await run(*apply, "--dry-run"))[1]
        assert (await run("cluster", "status"))[0] == 1
        assert "2 keys applied" in (await run(*apply))[1]
        assert "no changes" in (await run(*apply))[1]
        code, status = await run("cluster", "status", "--etcd", etcd.url)
        assert (code, "no nodes" in status, "not configured" in status) == (1, True, False)
        assert "GUILDS" in (await run("cluster", "export"))[1]
        (tmp_path / "cluster.yml").write_text(FILE.replace("intents", "intnets"))
        code, output = await run(*apply)
        assert (code, "cluster.yml:5: apps.welcomer.intnets" in output) == (1, True)
        store = EtcdStore([etcd.url])
        listing = await store.list("/")
        await store.close()
        assert len(listing.items) == 2
        assert CANARY.encode() not in b"".join(item.value for item in listing.items)
        assert CANARY not in run.seen


async def test_a_dead_store_and_bad_usage_exit_with_2_and_no_traceback(tmp_path: Path) -> None:
    run = Cli(tmp_path, "http://127.0.0.1:1")
    assert (await run("cluster", "status"))[0] == 2
    assert (await run("cluster", "statsu"))[0] == 2
    assert "Traceback" not in run.seen


async def test_a_name_that_is_not_there_and_a_nats_that_refuses_are_said_by_every_command(tmp_path: Path) -> None:
    async with EmbeddedEtcd(tmp_path / "etcd") as etcd:
        run = Cli(tmp_path, etcd.url)
        (tmp_path / "cluster.yml").write_text(FILE.replace("127.0.0.1:4222", "127.0.0.1:9"))
        assert (await run("cluster", "apply", "-f", "cluster.yml", "--insecure-plaintext"))[0] == 0
        for arguments in (
            ("shard", "list", "--app"),
            ("tail", "--app"),
            ("dead", "list", "--app"),
            ("guild", "where", "81384788765712384", "--app"),
            ("guild", "show", "81384788765712384", "--app"),
            ("user", "mutual", "81384788765712384", "--app"),
            ("app", "show"),
            ("shard", "restart"),
        ):
            code, said = await run(*arguments, "welcomr", *(["0"] if "restart" in arguments else []))
            assert code == 1, arguments
            assert "there is no application welcomr (did you mean welcomer?); there are: welcomer" in said, arguments
        assert (await run("shard", "list", "--app", "welcomer"))[0] == 0
        for arguments in (("tail", "--type", "MESAGE_CREATE"), ("dead", "list")):
            code, said = await run(*arguments)
            assert code == 2
            assert "NATS does not answer at nats://127.0.0.1:9: Connection refused" in said
            assert ("did you mean MESSAGE_CREATE?" in said) is (arguments[0] == "tail")
        assert "Traceback" not in run.seen
