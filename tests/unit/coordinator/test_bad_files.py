"""Invalid cluster files and secret files: each is refused at once, with file, line and reason."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from sandwich_coordinator.cli.changes import parse_changes
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.load import ConfigError, load_config, parse_config
from sandwich_coordinator.sealing import ClusterKey, SealingError
from sandwich_coordinator.small_files import read_small_file

HEAD = 'version: 1\nnats: {servers: ["nats://h:1"]}\nredis: {url: "redis://h/0"}\n'
APP = HEAD + "apps:\n  a: {token: {env: T}, intents: 1, %s}\n"
BOMB = "".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}' if n else 'x'] * 9)}]\n" for n in range(9))
MERGE_BOMB = "k0: &k0 {a: 1}\n" + "".join(
    f"k{n}: &k{n} {{<<: [{', '.join([f'*k{n - 1}'] * 9)}]}}\n" for n in range(1, 9)
)
SECRET = "hunter2hunter2"


def parse(text: str) -> Any:
    return parse_config(text, source="c.yml", env={"T": "token-of-a"}, directory=Path("/nonexistent"))


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert SECRET not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOMB, "c.yml:5: more than 200000 values, with aliases written out"),
        (MERGE_BOMB, "more than 200000 values, with aliases written out"),
        ("a: 1\nb: &b [*b]\n", "c.yml:2: the value contains an alias of itself"),
        ("a: 1\nb: " + "[" * 5000, "c.yml:2: nested more than 32 deep"),
        ("a: 1\nb: " + "[" * 50 + "]" * 50, "c.yml:2: nested more than 32 deep"),
        ("a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 60)), "nested more than 32 deep"),
        ("a: *b\n", "c.yml:1: not valid YAML: found undefined alias"),
        (HEAD + "x: !ENV FOO", "c.yml:4: not usable: the tag !ENV"),
        (HEAD + "x: !!python/object/apply:os.system [id]", "c.yml:4: not usable: the tag"),
        (HEAD + "x: !!binary aGk=", "c.yml:4: not usable: the tag"),
        (HEAD + "x: !!set {a}", "c.yml:4: not usable: the tag"),
        (HEAD + "x: 2024-13-45", "c.yml:4: not usable: a date"),
        (HEAD + "x: " + "9" * 5000, "c.yml:4: a number of more than 64 characters"),
        (HEAD + 'x: "\x1b"', "c.yml:4: not valid YAML: the character U+001B"),
        ("a: 1\n\x00", "c.yml:2: not valid YAML: the character U+0000"),
        ('a: "\\UFFFFFFFF"', "c.yml:1: not valid YAML"),
        (HEAD + "---\na: 1\n", "c.yml:4: not valid YAML: expected a single document"),
        ("", "c.yml:1: is empty"),
        ("# nothing\n", "c.yml:1: is empty"),
        ("- a\n", "c.yml:1: is not a cluster file"),
        (HEAD + "1: x", "c.yml:4: the key 1 is not text"),
        (HEAD + "apps: {no: {}}", "c.yml:4: apps: the key no is not text"),
        (HEAD + "? [a]\n: 1", "c.yml:4: not valid YAML: found unhashable key"),
        (HEAD + "x" * 500 + ": 1", f"c.yml:4: {'x' * 64}: unknown key"),
        (HEAD + '"a\\u001b[2J\\nb": 1', "c.yml:4: a\\x1b[2J\\nb: unknown key"),
    ],
)
def test_unintended_yaml_is_refused_with_its_line(text: str, expected: str) -> None:
    assert expected in refusal(text)


@pytest.mark.parametrize("version", ["true", "1.0", '"1"', "2", "null", "[1]"])
def test_only_the_number_1_is_the_version(version: str) -> None:
    assert "c.yml:1: version: must be 1" in refusal(HEAD.replace("version: 1", f"version: {version}"))


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (f"stream: {{max_bytes: {'9' * 400}GiB}}", "apps.a.stream.max_bytes: has a number of more than 32"),
        (f"stream: {{max_bytes: 1.{'9' * 400}GiB}}", "apps.a.stream.max_bytes: has a number of more than 32"),
        (f"stream: {{max_bytes: {2**70}}}", "apps.a.stream.max_bytes: is too large"),
        (f"stream: {{max_bytes: {2**63}}}", "apps.a.stream.max_bytes: is too large"),
        ("stream: {max_bytes: 8388608TiB}", "apps.a.stream.max_bytes: is too large"),
        ("stream: {max_bytes: -1}", "apps.a.stream.max_bytes: write a size"),
        ("stream: {max_bytes: true}", "apps.a.stream.max_bytes: write a size"),
        ("stream: {max_bytes: .inf}", "apps.a.stream.max_bytes: write a size"),
        ("stream: {max_bytes: ١GiB}", "apps.a.stream.max_bytes: write a size"),
        (f"stream: {{max_age: {'9' * 400}h}}", "apps.a.stream.max_age: has a number of more than 32"),
        ("stream: {max_age: false}", "apps.a.stream.max_age: write a duration"),
        ("stream: {max_age: ٩٩h}", "apps.a.stream.max_age: write a duration"),
        ("stream: {replicas: true}", "apps.a.stream.replicas: must be a whole number"),
        ("paused: 1", "apps.a.paused: must be true or false"),
        ('paused: "yes"', "apps.a.paused: must be true or false"),
        ('large_threshold: "50"', "apps.a.large_threshold: must be a whole number"),
        ("large_threshold: 50.0", "apps.a.large_threshold: must be a whole number"),
        ("large_threshold: .nan", "apps.a.large_threshold: must be a whole number"),
        ("shards: {count: true}", "apps.a.shards.count: must be auto, or a number"),
        ("shards: {ids: 1-99999999999999999999}", "apps.a.shards.ids: bad shard range"),
        ("shards: {ids: 0-65536}", "apps.a.shards.ids: bad shard range"),
        ('route: "\\ud83d"', "apps.a.route: has a lone surrogate"),
    ],
)
def test_a_value_of_another_type_or_out_of_range_is_refused(setting: str, expected: str) -> None:
    assert f"c.yml:5: {expected}" in refusal(APP % setting)


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "true", '"5"', "1001"])
def test_a_number_is_finite_and_a_number(value: str) -> None:
    assert "c.yml:4: policy.linger_ms: must be" in refusal(HEAD + f"policy: {{linger_ms: {value}}}\n")


def test_the_largest_size_is_accepted() -> None:
    assert parse(APP % f"stream: {{max_bytes: {2**63 - 1}}}").config.apps["a"].stream.max_bytes == 2**63 - 1


@pytest.mark.parametrize(
    ("section", "hint"),
    [
        (f'nats: {{servers: ["nats://{SECRET}@h:1"]}}', "nats.password: {env: NAME}"),
        (f'nats: {{servers: ["nats://user:{SECRET}@h:1"]}}', "nats.password: {env: NAME}"),
        (f'nats: {{servers: ["nats://ok:1", "tls://:{SECRET}@h:1"]}}', "nats.password: {env: NAME}"),
        (f'nats: {{servers: ["nats://h:1?token={SECRET}"]}}', "nats.password: {env: NAME}"),
        (f'nats: {{servers: ["wss://h:1#{SECRET}"]}}', "nats.password: {env: NAME}"),
        (f'redis: {{url: "redis://h/0?password={SECRET}"}}', "redis.password: {env: NAME}"),
        (f'redis: {{url: "redis://h/0?db=1&PASSWORD={SECRET}"}}', "redis.password: {env: NAME}"),
        (f'redis: {{url: "unix:///run/redis?{SECRET}"}}', "redis.password: {env: NAME}"),
        (f'redis: {{url: "redis://h/{SECRET}"}}', "redis.url: has a database that is not a number"),
        (f'redis: {{url: "redis://h?db={SECRET}"}}', "redis.url: has a database that is not a number"),
        (f'redis: {{url: "redis://{SECRET}@h/0/1"}}', "redis.url: has a database that is not a number"),
        (f'discord: {{api_url: "https://{SECRET}@discord.com/api"}}', "apps.NAME.token: {env: NAME}"),
        (f'discord: {{api_url: "https://discord.com/api?token={SECRET}"}}', "apps.NAME.token: {env: NAME}"),
    ],
)
def test_a_secret_in_a_url_is_refused_with_the_key_it_belongs_to(section: str, hint: str) -> None:
    name = section.split(":")[0]
    rest = "".join(line + "\n" for line in HEAD.splitlines() if not line.startswith(name))
    assert hint in refusal(rest + section)


def test_a_password_in_a_redis_url_is_removed_and_decoded() -> None:
    loaded = parse(HEAD.replace("redis://h/0", "redis://ada:p%40ss@h/0?db=1"))
    assert (loaded.redis_url, loaded.redis_password) == ("redis://ada@h/0?db=1", "p@ss")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://h:99999", "has the port 99999: ports are 1 to 65535"),
        ("nats://h:0", "has the port 0"),
        ("nats://h:4222x", "has a port that is not a number"),
        ("nats://::1", "write an IPv6 address in brackets"),
        ("nats://[::1", "write an IPv6 address in brackets"),
        ("nats://", "names no host"),
        ("nats://a:1,nats://b:1", "names several servers: write one URL for each"),
        ("http://h:1", "must be a URL that starts with nats:// or tls://"),
        ("h:1", "must be a URL that starts with nats:// or tls://"),
        ("nats://h\\n:1", "must not contain spaces, line breaks"),
        ("nats://h" + "h" * 3000, "is longer than 2048 characters"),
    ],
)
def test_an_invalid_url_is_reported_with_its_reason(url: str, expected: str) -> None:
    said = refusal(HEAD.replace("nats://h:1", url))
    assert expected in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("text", [HEAD.replace("\n", "\r\n"), "\ufeff" + HEAD, "---\n" + HEAD + "...\n"])
def test_windows_line_ends_a_byte_order_mark_and_document_marks_are_accepted(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_bytes(text.encode())
    assert load_config(tmp_path / "c.yml", {}).config.cluster == "default"


def strange_files(directory: Path) -> dict[str, Path]:
    os.mkfifo(directory / "pipe")
    (directory / "huge").write_bytes(b"")
    os.truncate(directory / "huge", 2**40)
    (directory / "latin").write_bytes(b"caf\xe9")
    (directory / "utf16").write_bytes(HEAD.encode("utf-16"))
    (directory / "loop").symlink_to(directory / "loop")
    return {
        "device": Path("/dev/zero"),
        "directory": directory,
        "pipe": directory / "pipe",
        "larger than": directory / "huge",
        "not text": directory / "latin",
        "not text ": directory / "utf16",
        "No such file": directory / "nothing",
        "Too many levels": directory / "loop",
        "Not a directory": directory / "latin" / "x",
    }


def test_a_secret_comes_from_a_small_regular_file_only(tmp_path: Path) -> None:
    for reason, path in strange_files(tmp_path).items():
        said = refusal(APP.replace("{env: T}", f'{{file: "{path}"}}') % "paused: false")
        assert said.startswith(f"c.yml:5: apps.a.token: the file {path} cannot be read: ")
        assert reason.strip() in said


@pytest.mark.parametrize("content", [b"", b" \n", b"\x00" * 8, f"{SECRET}\n{SECRET}".encode(), b"x" * 20_000])
def test_a_file_without_a_secret_is_refused_without_its_content(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(content)
    said = refusal(secret_of_nats(tmp_path / "secret"))
    assert "c.yml:2: nats.password: the file" in said


def secret_of_nats(path: Path) -> str:
    return HEAD.replace('"]}', f'"], password: {{file: "{path}"}}}}')


@pytest.mark.parametrize("file", ['""', '"a\\0b"', "5", "null"])
def test_a_path_is_a_path(file: str) -> None:
    assert "c.yml:5: apps.a.token" in refusal(APP.replace("{env: T}", f"{{file: {file}}}") % "paused: false")


def test_a_cluster_file_is_small_and_regular_or_comes_through_a_pipe(tmp_path: Path) -> None:
    for reason, path in strange_files(tmp_path).items():
        with pytest.raises(ConfigError, match=reason.strip() if reason != "pipe" else "is empty"):
            load_config(path, {})
    ours, theirs = os.pipe()

    def write() -> None:
        os.write(theirs, HEAD.encode())
        os.close(theirs)

    writer = threading.Thread(target=write)
    writer.start()
    assert load_config(Path(f"/dev/fd/{ours}"), {}).config.cluster == "default"
    writer.join()
    os.close(ours)


def test_a_pipe_whose_writer_is_silent_times_out() -> None:
    ours, theirs = os.pipe()
    with pytest.raises(ValueError, match="its writer is silent"):
        read_small_file(Path(f"/dev/fd/{ours}"), 10, pipe_allowed=True, pipe_timeout_s=0.01)
    os.close(ours)
    os.close(theirs)


def test_a_key_file_is_checked_in_the_same_way(tmp_path: Path) -> None:
    for path in strange_files(tmp_path).values():
        if path.exists() and path.owner() != "root":
            path.chmod(0o700)
        with pytest.raises(SealingError):
            ClusterKey.load({}, path)


@pytest.mark.parametrize("value", ["9" * 5000, "&a [*a]", "!ENV x", "[" * 3000, "2024-99-99", "\x1b"])
def test_values_of_app_set_are_read_with_the_same_limits(value: str) -> None:
    with pytest.raises(CommandError, match="route: the value is not valid YAML"):
        parse_changes([f"route={value}"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_another_user_is_named_with_both_users(tmp_path: Path) -> None:
    path = tmp_path / "cluster.key"
    path.write_text(ClusterKey.generate().to_base64())
    os.chown(path, 1000, 1000)
    path.chmod(0o600)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:-2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    os.seteuid(10001)
    try:
        with pytest.raises(
            SealingError, match="Permission denied: it belongs to user 1000, and this process is user 10"
        ):
            ClusterKey.load({}, path)
    finally:
        os.seteuid(0)
