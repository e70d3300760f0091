"""How many descriptors there are for shards, and what is said when there are too few."""

import errno
import resource
import subprocess
import sys

import aiohttp
import pytest

from sandwich_coordinator.ids import LeaderTerm
from sandwich_coordinator.problems import Code
from sandwich_coordinator.store.base import KeyValue
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import PlanRecord
from sandwich_coordinator.view import ClusterView
from sandwich_node import open_files
from sandwich_node.agent.status import planned_shards
from sandwich_node.gateway import effects as fx
from sandwich_node.gateway import events as ev
from sandwich_node.open_files import RESERVE, SocketRoom, shortage, sockets_for_shards, too_few
from tests.unit.gateway.shard import BASE_URL, Shard

KEYS = Keys()


def test_a_process_raises_its_soft_limit_to_the_hard_one_and_says_what_it_has() -> None:
    code = (
        "import resource; from sandwich_node.open_files import raise_limit;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200));"
        "print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE), raise_limit())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["200", "200", "200", "200"]


def test_a_limit_that_may_not_be_raised_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 200))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert open_files.raise_limit() == 100


@pytest.mark.parametrize(("limit", "most"), [(1024, 960), (128, 64), (100, 50), (40, 20), (1, 1), (0, 1)])
def test_some_descriptors_are_kept_back_and_some_are_always_left_for_shards(limit: int, most: int) -> None:
    assert sockets_for_shards(limit) == most
    assert RESERVE == 64


def test_a_node_with_too_few_descriptors_for_its_plan_says_so_with_the_limit() -> None:
    assert too_few("a", 1920, 2, 1024) is None
    found = too_few("a", 1921, 2, 1024)
    assert found is not None
    assert (found.code, found.subject) == (Code.TOO_FEW_FILES, "node/a")
    assert "1921 shards" in found.summary
    assert "1024 file descriptors" in found.summary
    assert "1920" in found.summary


def test_the_plan_of_a_node_is_counted_over_all_applications() -> None:
    plans = {"a": {"n1": "0-3,7", "n2": "4-6"}, "b": {"n1": "0"}, "c": {"n1": "what"}}
    items = {
        KEYS.plan(app, 0): KeyValue(
            KEYS.plan(app, 0), PlanRecord(app=app, group=0, term=LeaderTerm(1), nodes=nodes).encode(), 1, 1, 1, 0
        )
        for app, nodes in plans.items()
    }
    view = ClusterView.from_items(KEYS, items)
    assert [planned_shards(view, node) for node in ("n1", "n2", "n3")] == [6, 3, 0]


def connector_error(code: int) -> aiohttp.ClientConnectorError:
    return aiohttp.ClientConnectorError(None, OSError(code, "?"))  # type: ignore[arg-type]


def caused(code: int) -> Exception:
    error = RuntimeError("wrapped")
    error.__cause__ = OSError(code, "?")
    return error


@pytest.mark.parametrize("make", [lambda code: OSError(code, "?"), connector_error, caused])
def test_an_error_for_want_of_descriptors_names_the_limit_however_it_is_wrapped(make) -> None:  # type: ignore[no-untyped-def]
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert f"this process may have {limit}" in shortage(make(errno.EMFILE))
    assert "fs.file-max" in shortage(make(errno.ENFILE))
    assert shortage(make(errno.ECONNREFUSED)) == ""


def test_sockets_of_shards_are_counted() -> None:
    room = SocketRoom(2)
    assert [room.take(), room.take()] == ["", ""]
    assert "limit of 2 sockets" in room.take()
    room.give_back()
    assert room.take() == ""


def test_a_shard_without_a_socket_tries_again_and_doubts_no_address() -> None:
    shard = Shard(None)
    shard.feed(ev.Started())
    for _ in range(12):
        shard.feed(ev.ConnectFailed("no file descriptor is free", ours=True))
        assert shard.reconnect().url.startswith(BASE_URL)
    assert not shard.all(fx.GatewayUnreachable)
    shard.feed(ev.ConnectFailed("refused"))
    assert not shard.all(fx.GatewayUnreachable), "the time without a socket does not count"
    shard = Shard()
    shard.feed(ev.Started())
    shard.feed(ev.ConnectFailed("no file descriptor is free", ours=True))
    assert shard.reconnect().url.startswith("wss://resume.example/"), "the session's own address was not tried"
