"""A measurement waits until a node's start is over."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks import nodes
from sandwich_node.dev.cluster import DevCluster
from verification.simulation.loop import run_virtual

AGENT = 10
WORKER, SPARE = 11, 12
NODE = SimpleNamespace(process=SimpleNamespace(pid=AGENT))
CLUSTER = cast(DevCluster, SimpleNamespace(nodes={"a": NODE}))


def now() -> float:
    return asyncio.get_running_loop().time()


def test_the_spare_worker_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def children(pid: int) -> list[int]:
        assert pid == AGENT
        return [WORKER, SPARE] if now() >= 6 else [WORKER]

    async def status(cluster: DevCluster) -> dict[str, Any]:
        # Before the node has joined, and when a busy machine has no answer, nothing is known of its workers.
        return {"workers": [{"pid": WORKER}]} if 1 <= now() < 4 or now() >= 8 else {}

    async def main() -> float:
        await nodes.until_spares(CLUSTER)
        assert nodes.node_pids(CLUSTER) == [AGENT, WORKER, SPARE]
        return now()

    monkeypatch.setattr(nodes, "children", children)
    monkeypatch.setattr(nodes, "node_status", status)
    assert 8 <= run_virtual(main()) < 9


def test_a_spare_worker_that_never_comes_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def status(cluster: DevCluster) -> dict[str, Any]:
        return {"workers": [{"pid": WORKER}]}

    monkeypatch.setattr(nodes, "children", lambda pid: [WORKER])
    monkeypatch.setattr(nodes, "node_status", status)
    with pytest.raises(TimeoutError):
        run_virtual(nodes.until_spares(CLUSTER))
