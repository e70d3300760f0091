"""What of the node's environment goes on to workers, what stays, and what is not used."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from sandwich_coordinator.sealing import ClusterKey
from sandwich_node.environment import for_worker, unused_proxies
from sandwich_node.main import _cluster_key


def test_a_worker_gets_what_python_and_the_system_need_and_nothing_else() -> None:
    needed = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "PYTHONPATH": "/x",
        "LD_LIBRARY_PATH": "/y",
        "SSL_CERT_FILE": "/z",
        "TZ": "UTC",
    }
    secret = {
        "SANDWICH_CLUSTER_KEY": "k",
        "WELCOMER_TOKEN": "t",
        "BOT": "t",
        "NATS_PASSWORD": "p",
        "REDIS_URL": "redis://h?password=p",
        "AWS_SECRET_ACCESS_KEY": "a",
        "https_proxy": "http://u:p@h",
    }
    assert for_worker(needed | secret) == needed


def test_the_proxy_variables_that_are_set_are_named() -> None:
    found = unused_proxies(
        {"https_proxy": "http://u:p@h", "HTTP_PROXY": "h", "ALL_PROXY": "", "NO_PROXY": "x", "A": "b"}
    )
    assert found == ["HTTP_PROXY", "https_proxy"]


def test_the_cluster_key_is_taken_out_of_the_environment_once_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    key = ClusterKey.generate()
    monkeypatch.setenv("SANDWICH_CLUSTER_KEY", key.to_base64())
    read = _cluster_key(None, insecure=False)
    assert read is not None
    assert read.key_id == key.key_id
    assert "SANDWICH_CLUSTER_KEY" not in os.environ
    monkeypatch.setenv("SANDWICH_CLUSTER_KEY", "damaged")
    with pytest.raises(typer.Exit):
        _cluster_key(None, insecure=True)


def test_a_node_says_that_a_proxy_variable_is_not_used_and_shows_no_value(tmp_path: Path) -> None:
    words = [str(Path(sys.executable).with_name("sandwich-node")), "join", "--node-id", "a"]
    environment = {**os.environ, "HTTPS_PROXY": "http://user:hush@proxy.test", "SANDWICH_CLUSTER_KEY": "damaged"}
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "HTTPS_PROXY is set and not used" in done.stderr
    assert "discord.proxy" in done.stderr
    assert "hush" not in done.stdout + done.stderr


def test_an_etcd_password_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("hush")
    password.chmod(0o644)
    environment = {**os.environ, "SANDWICH_CLUSTER_KEY": ClusterKey.generate().to_base64()}
    node = [str(Path(sys.executable).with_name("sandwich-node")), "join", "--etcd-user", "u"]
    command = [str(Path(sys.executable).with_name("sandwich")), "--etcd-user", "u"]
    option = ["--etcd-password-file", str(password)]
    for words in ([*node, *option], [*command, *option, "node", "list"]):
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0
        assert "chmod 600" in done.stderr
        assert "hush" not in done.stderr
