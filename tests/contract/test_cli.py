import asyncio
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.keys import Keys
from sandwich_node.dev.embedded import EmbeddedEtcd
from sandwich_simulator import BotConfig
from sandwich_simulator.pytest_plugin import MakeSimulator, make_simulator
from tests.support.processes import started
from tests.support.programs import run_command

pytestmark = pytest.mark.contract
CANARY = "canary-token-91c2"
TOKENS = {
    name: f"MTAwMDAwMDAwMDAwMDAwMDA.Gaaaa{number}.canary-of-{name}-0123456789"
    for number, name in enumerate(("one", "two", "three"))
}
__all__ = ["make_simulator"]
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
        self.env = {"WELCOMER_TOKEN": CANARY}

    async def __call__(self, *arguments: str, piped: str = "") -> tuple[int, str]:
        env = {"SANDWICH_ETCD": self.etcd, **self.env}
        code, output, _ = await run_command(*arguments, env=env, directory=self.directory, piped=piped, merged=True)
        self.seen += output
        return code, output


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
        assert [item.key for item in listing.items if item.key.startswith(Keys().prefix)] == [
            Keys().app("welcomer"),
            Keys().config,
        ]
        assert CANARY.encode() not in b"".join(item.value for item in listing.items)
        assert CANARY not in run.seen


async def test_a_stored_secret_need_not_be_in_the_shell_to_apply_another_change(tmp_path: Path) -> None:
    async with EmbeddedEtcd(tmp_path / "etcd") as etcd:
        run = Cli(tmp_path, etcd.url)
        (tmp_path / "cluster.yml").write_text(FILE)
        apply = ("cluster", "apply", "-f", "cluster.yml", "--key-file", "cluster.key")
        code, output = await run("cluster", "init", "--json")
        assert (code, json.loads(output).keys()) == (0, {"v", "key_id", "key_file"})
        assert (tmp_path / "cluster.key").read_text().strip() not in output
        del run.env["WELCOMER_TOKEN"]
        unset = "cluster.yml:5: apps.welcomer.token: the environment variable WELCOMER_TOKEN is not set"
        assert await run(*apply) == (1, f"sandwich: {unset}\n")
        run.env["WELCOMER_TOKEN"] = CANARY
        assert (await run(*apply))[0] == 0
        store = EtcdStore([etcd.url])
        try:
            before = await store.get(Keys().app("welcomer"))
            del run.env["WELCOMER_TOKEN"]
            (tmp_path / "cluster.yml").write_text(FILE + "policy: {lease_ttl: 7s}\n")
            code, output = await run(*apply)
            assert (code, f"{unset}: the stored secret stays" in output, "1 key applied" in output) == (0, True, True)
            assert await store.get(Keys().app("welcomer")) == before
        finally:
            await store.close()
        (tmp_path / "cluster.yml").write_text(FILE.replace("{env: WELCOMER_TOKEN}", "{file: nothing}"))
        code, output = await run(*apply)
        assert (code, "the file nothing cannot be read" in output) == (1, True), "a file that is named has to be there"
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
            assert "NATS is not reachable at 127.0.0.1:9: Connection refused" in said
            assert ("did you mean MESSAGE_CREATE?" in said) is (arguments[0] == "tail")
        (tmp_path / "empty.yml").write_text(f"{FILE.partition('apps:')[0]}apps: {{}}\n")
        prune = ("cluster", "apply", "-f", "empty.yml", "--insecure-plaintext", "--prune")
        code, said = await run(*prune)
        assert (code, "whether consumers read welcomer is not known: --force" in said) == (2, True), said
        code, said = await run(*prune, "--force", "--dry-run")
        assert (code, "- application welcomer" in said) == (0, True), said
        remove = ("app", "remove", "welcomer", "--yes", "welcomer")
        code, said = await run(*remove)
        assert (code, "NATS is not reachable at 127.0.0.1:9" in said) == (2, True), said
        code, said = await run(*remove, "--force", "--keep-cache")
        assert (code, "whether consumers read it is not known" in said) == (0, True), said
        assert "no applications yet" in (await run("app", "list"))[1]
        assert "Traceback" not in run.seen


async def test_an_application_is_added_from_a_pipe_a_file_and_a_terminal_and_no_token_is_seen(
    tmp_path: Path, make_simulator: MakeSimulator
) -> None:
    bots = enumerate(TOKENS.items(), start=10**17)
    simulator = await make_simulator(
        *(BotConfig(token=token, name=name, application_id=number, guilds=3) for number, (name, token) in bots)
    )
    async with EmbeddedEtcd(tmp_path / "etcd") as etcd:
        run = Cli(tmp_path, etcd.url)
        head, _, _ = FILE.partition("apps:")
        (tmp_path / "cluster.yml").write_text(f"{head}discord: {{api_url: {simulator.api_url}}}\napps: {{}}\n")
        assert (await run("cluster", "init"))[0] == 0
        key = ("--key-file", "cluster.key")
        assert (await run("cluster", "apply", "-f", "cluster.yml", *key))[0] == 0

        add = ("app", "add", "one", "--intents", "GUILDS", *key)
        code, said = await run(*add, piped="wrong.token\n")
        assert (code, "Discord refused the token (401)" in said) == (1, True), said
        assert (await run(*add))[0] == 1, "no token at all"
        assert (await run(*add[:-2], piped=TOKENS["one"]))[0] == 1, "no cluster key"
        code, said = await run(*add, "--shards", "2", "--ids", "0-2", piped=TOKENS["one"])
        assert (code, "apps.one.shards.ids: bad shard range '0-2'" in said) == (1, True), said
        code, said = await run(*add, "--shards", "2", piped=f"{TOKENS['one']}\n")
        assert code == 0, said
        assert "token of bot one (" in said
        assert "about 3 guilds, recommends 1 shards, 1000 of 1000 session starts left" in said
        assert "there is an application one already" in (await run(*add, piped=TOKENS["one"]))[1]

        (tmp_path / "two.token").write_text(TOKENS["two"])
        (tmp_path / "two.yml").write_text("token: {file: two.token}\nintents: [GUILDS]\nshards: {count: 1}\n")
        code, said = await run("app", "add", "two", "--from", "two.yml", *key, "--json")
        assert (code, json.loads(said)["bot"]["name"]) == (0, "two"), said
        code, said = await typed(run, ("app", "add", "three", *key), ("GUILDS", "auto", TOKENS["three"]))
        assert (code, "three is added" in said) == (0, True), said

        code, said = await run("cluster", "apply", "-f", "cluster.yml", *key)
        assert code == 0
        assert said.count("is not in the file and stays; --prune removes it") == 3
        code, said = await run("app", "set", "one", "--token-file", "two.token", *key)
        assert (code, "~ application one: token: changed" in said) == (0, True), said
        code, said = await run("app", "show", "one", "--all")
        assert "compression: zstd-stream   # default" in said
        assert "  count: 2\n" in said

        store = EtcdStore([etcd.url])
        stored = b"".join(item.value for item in (await store.list("/")).items).decode()
        await store.close()
        for token in TOKENS.values():
            assert token not in stored
            assert token not in run.seen
        assert "Traceback" not in run.seen


async def typed(run: Cli, arguments: tuple[str, ...], answers: tuple[str, ...]) -> tuple[int, str]:
    """Run a command on a terminal and type these answers, each when it is asked for."""
    terminal, end = os.openpty()
    prompts = ("Which intents", "How many shards", "(not shown): ")
    try:
        async with asyncio.timeout(60), started(
            sys.executable, "-m", "sandwich_coordinator.cli.main", *arguments, cwd=run.directory, stdin=end,
            stdout=end, stderr=end, env={"SANDWICH_ETCD": run.etcd, "TERM": "dumb"}, start_new_session=True,
        ) as process:  # fmt: skip
            os.close(end)
            seen = ""
            for prompt, answer in zip(prompts, answers, strict=True):
                while prompt not in seen:
                    seen += await asyncio.to_thread(_read, terminal)
                os.write(terminal, f"{answer}\n".encode())
            while chunk := await asyncio.to_thread(_read, terminal):
                seen += chunk
            code = await process.wait()
    finally:
        os.close(terminal)
    run.seen += seen
    return code, seen


def _read(terminal: int) -> str:
    """What the command has written; "" once it has ended (EIO)."""
    try:
        return os.read(terminal, 4096).decode()
    except OSError:
        return ""


async def test_watching_the_status_survives_a_restart_of_etcd(tmp_path: Path) -> None:
    async with EmbeddedEtcd(tmp_path / "etcd") as etcd, asyncio.timeout(120), started(
        sys.executable, "-m", "sandwich_coordinator.cli.main", "cluster", "status", "--watch", "--json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={"SANDWICH_ETCD": etcd.url},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None

        async def until(stream: asyncio.StreamReader, text: bytes) -> None:
            while text not in (line := await stream.readline()):
                assert line, process.returncode

        await until(process.stdout, b"not-configured")
        await etcd.kill()
        await until(process.stderr, b"the cluster cannot be asked, trying again")
        await etcd.start()
        await until(process.stdout, b"not-configured")
        assert process.returncode is None
