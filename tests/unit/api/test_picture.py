"""A snapshot, and what follows from it, is made once while nothing changes."""

from typing import Any

import pytest

from sandwich_coordinator.operations.health import find_problems
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.problems import Problem
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.view import ClusterView
from sandwich_node.api import findings as findings_module
from sandwich_node.api import picture as picture_module
from sandwich_node.api.findings import Findings
from sandwich_node.api.picture import FRESH_S, ClusterPicture
from tests.support.api import KEYS, StoredFacts
from tests.support.api_cluster import answers, store_cluster


class Wall:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[ClusterView]:
    """The views whose nodes were asked."""
    found: list[ClusterView] = []

    async def ask_nodes(_http: Any, view: ClusterView) -> dict[str, Any]:
        found.append(view)
        return answers()

    async def ask_etcd(_store: Any) -> tuple[str, list[Any]]:
        return "3.5.21", []

    monkeypatch.setattr(picture_module, "ask_nodes", ask_nodes)
    monkeypatch.setattr(picture_module, "ask_etcd", ask_etcd)
    return found


async def test_readers_share_a_snapshot_until_the_view_or_the_time_changes(
    asked: list[ClusterView], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, wall = MemoryStore(), Wall()
    await store_cluster(store)
    facts = StoredFacts(store, KEYS)
    await facts.refresh()
    view = facts.view()
    assert view is not None
    picture = ClusterPicture(None, None, wall=wall)  # type: ignore[arg-type]  # not asked here
    first = await picture.snapshot(view)
    assert await picture.snapshot(view) is first
    assert len(asked) == 1
    await facts.refresh()
    newer = facts.view()
    assert newer is not None
    assert await picture.snapshot(newer) is not first
    again = await picture.snapshot(newer)
    wall.now += FRESH_S
    assert (await picture.snapshot(newer)).now == again.now + FRESH_S
    await picture.close()


async def test_problems_are_found_once_for_each_snapshot(
    asked: list[ClusterView], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    await store_cluster(store)
    facts = StoredFacts(store, KEYS)
    await facts.refresh()
    view = facts.view()
    assert view is not None
    picture = ClusterPicture(None, None, wall=Wall())  # type: ignore[arg-type]  # not asked here
    counted: list[object] = []

    def find(one: Snapshot) -> list[Problem]:
        counted.append(one)
        return find_problems(one)

    monkeypatch.setattr(findings_module, "find_problems", find)
    findings, snapshot = Findings(), await picture.snapshot(view)
    assert findings.problems(snapshot) is findings.problems(snapshot)
    assert [row["app"] for row in findings.apps(snapshot)] == ["music", "welcomer"]
    assert len(counted) == 1
    await facts.refresh()
    newer = facts.view()
    assert newer is not None
    assert findings.problems(await picture.snapshot(newer))
    assert len(counted) == 2
    await picture.close()
