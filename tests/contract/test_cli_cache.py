"""`sandwich guild` and `sandwich user` against a real etcd and a real Redis."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis

from sandwich_coordinator.cli.main import main
from sandwich_node.dev.embedded import EmbeddedEtcd, EmbeddedRedis
from sandwich_sdk.cache.testing import guild_layout
from tests.support.cache_layout import ADA, BOB, CHANNEL, GUILD, OTHER_GUILD, VOICE, rich_guild, store

pytestmark = pytest.mark.contract
SECRET = "hunter2-canary"
FILE = """\
version: 1
nats: {servers: ["nats://127.0.0.1:4222"]}
redis: {url: "redis://127.0.0.1:%d/0", password: {env: REDIS_PASSWORD}}
apps:
  music: {token: {env: MUSIC_TOKEN}, intents: [GUILDS], shards: {count: 4}}
  other: {token: {env: OTHER_TOKEN}, intents: [GUILDS]}
"""


class Cli:
    """Run the command in this process; returns its exit code and output."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["sandwich", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        assert SECRET not in out + err
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    def json(self, *arguments: str) -> Any:
        code, out, _ = self(*arguments, "--json")
        assert code == 0
        return json.loads(out)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def etcd(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEtcd]:
    server = EmbeddedEtcd(Path(tmp_path_factory.mktemp("etcd")))
    runner.run(server.start())
    yield server
    runner.run(server.stop())


@pytest.fixture(scope="module")
def cache(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(Path(tmp_path_factory.mktemp("redis")))
    runner.run(server.start())
    runner.run(fill(server.url))
    yield server
    runner.run(server.stop())


async def fill(url: str) -> None:
    async with redis.Redis.from_url(url) as client:
        await store(client, guild_layout("music", rich_guild(), app="music", group=1, shard=3))
        await store(client, guild_layout("music", rich_guild(OTHER_GUILD), app="music", group=1, shard=0))
        await store(client, guild_layout("other", rich_guild(), app="other", group=2, shard=0))
        await client.config_set("requirepass", SECRET)


@pytest.fixture
def run(
    etcd: EmbeddedEtcd, cache: EmbeddedRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Cli:  # fmt: skip
    """The command with a configured cluster."""
    monkeypatch.chdir(tmp_path)
    settings = {"SANDWICH_ETCD": etcd.url, "SANDWICH_CLUSTER": tmp_path.name[:32].lower(), "REDIS_PASSWORD": SECRET}
    for name, value in {**settings, "MUSIC_TOKEN": "token-1", "OTHER_TOKEN": "token-2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SANDWICH_CLUSTER_KEY", raising=False)
    made = Cli(monkeypatch, capsys)
    assert made("cluster", "init")[0] == 0
    monkeypatch.setenv("SANDWICH_CLUSTER_KEY", (tmp_path / "cluster.key").read_text().strip())
    apply(made, tmp_path, cache.port)
    return made


def apply(run: Cli, directory: Path, port: int, *options: str) -> None:
    text = f"cluster: {directory.name[:32].lower()}\n" + FILE % port
    (directory / "cluster.yml").write_text(text)
    code, out, err = run("cluster", "apply", "-f", "cluster.yml", *options)
    assert code == 0, out + err


def test_the_location_of_a_guild_for_all_applications_or_one(run: Cli) -> None:
    code, out, _ = run("guild", "where", GUILD)
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert lines[1:] == [
        ["music", "music", "1", "3", "runs", "nowhere", "-"],
        ["other", "other", "2", "0", "runs", "nowhere", "-"],
    ]
    rows = run.json("guild", "where", OTHER_GUILD)
    assert [(row["app"], row["group"], row["shard"], row["node"]) for row in rows] == [("music", 1, 0, None)]
    assert len(run.json("guild", "where", GUILD, "--app", "other")) == 1


def test_a_guild_in_the_cache_is_shown(run: Cli) -> None:
    code, out, _ = run("guild", "show", GUILD, "--channels", "--roles", "--members", "--app", "music")
    assert code == 0
    for text in ("Chess", "namespace  music", "members 3", "@everyone", "ada (Countess)", "voice", "endgames"):
        assert (text in out) == (text != "endgames"), text
    assert max(map(len, out.splitlines())) <= 80
    found = run.json("guild", "show", GUILD, "--channels")
    assert [one["namespace"] for one in found] == ["music", "other"]
    assert found[0]["guild"]["features"] == ["COMMUNITY"]
    assert [channel["id"] for channel in found[0]["channels"]] == [CHANNEL, VOICE]
    assert "members" not in found[0]


def test_mutual_guilds_of_all_applications_one_application_and_one_namespace(run: Cli) -> None:
    code, out, _ = run("user", "mutual", ADA)
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["GUILD", "NAMESPACE", "APPLICATIONS", "NAME"],
        [GUILD, "music", "music", "Chess"],
        [OTHER_GUILD, "music", "music", "Chess"],
        [GUILD, "other", "other", "Chess"],
    ]
    for option, expected in ((("--app", "other"), [GUILD]), (("--namespace", "music"), [GUILD, OTHER_GUILD])):
        found = run.json("user", "mutual", BOB, *option)
        assert (found["user"], [row["guild"] for row in found["guilds"]]) == (BOB, expected)
    code, out, _ = run("user", "mutual", "12345")
    assert (code, out) == (0, "user 12345 shares no cached guild with music, other\n")
    assert run.json("user", "mutual", "12345") == {"v": 1, "user": "12345", "guilds": []}


def test_missing_objects_are_reported_with_exit_code_1(run: Cli) -> None:
    for command in ("where", "show"):
        code, out, err = run("guild", command, "4194304", "--json")
        assert (code, json.loads(out)) == (1, [])
        assert "no application of this cluster is in guild 4194304" in err
    for arguments, said in (
        (("guild", "where", GUILD, "--app", "nope"), "there is no application nope; there are: music, other"),
        (("user", "mutual", ADA, "--namespace", "nope"), "no application uses the cache namespace nope"),
    ):
        code, out, err = run(*arguments)
        assert (code, out, said in err) == (1, "", True)


def test_bad_usage_is_reported_with_exit_code_2(run: Cli) -> None:
    for arguments, said in (
        (("guild", "where", "chess"), "'chess' is not a Discord id"),
        (("guild", "show", "-1"), ""),
        (("user", "mutual", ""), "is not a Discord id"),
        (("user", "mutual", ADA, "--app", "music", "--namespace", "music"), "not both"),
    ):
        code, out, err = run(*arguments)
        assert (code, out, said in err, "Traceback" in err) == (2, "", True, False)


def test_an_unavailable_redis_is_reported_without_its_password(
    run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: EmbeddedRedis
) -> None:
    monkeypatch.delenv("SANDWICH_CLUSTER_KEY")
    code, _, err = run("guild", "where", GUILD)
    assert (code, "no cluster key" in err) == (1, True)
    assert run("guild", "where", GUILD, "--key-file", "cluster.key")[0] == 0
    monkeypatch.setenv("REDIS_PASSWORD", SECRET + "x")
    apply(run, tmp_path, cache.port, "--insecure-plaintext", "--rekey")
    code, _, err = run("user", "mutual", ADA)
    assert (code, "refuses the user or the password" in err) == (2, True)
    apply(run, tmp_path, 1, "--insecure-plaintext")
    code, _, err = run("guild", "show", GUILD)
    assert (code, "the cache at 127.0.0.1:1 is unavailable: no connection" in err) == (2, True)


def test_a_cluster_without_configuration_or_applications_is_reported(
    run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDWICH_CLUSTER", "absent")
    code, _, err = run("guild", "where", GUILD)
    assert (code, "the cluster is not configured" in err) == (1, True)
    (tmp_path / "cluster.yml").write_text("cluster: absent\n" + FILE.partition("apps:")[0] % 1)
    assert run("cluster", "apply", "-f", "cluster.yml")[0] == 0
    code, _, err = run("user", "mutual", ADA)
    assert (code, "there are no applications yet" in err) == (1, True)
