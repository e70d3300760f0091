"""Figures of the last hours: what a point holds, that it is bounded, and who sees what."""

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from sandwich_coordinator.access.roles import Identity, Role
from sandwich_coordinator.operations.history import (
    APPS_MAX,
    NODES_MAX,
    AppPoint,
    NodePoint,
    Point,
    point_of,
    read_points,
    write_point,
)
from sandwich_coordinator.operations.snapshot import compose
from sandwich_coordinator.status import AppStatus, NodeStatus, ShardStatus
from sandwich_coordinator.store.base import KeyValue, Put
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import AppRecord
from sandwich_coordinator.view import ClusterView
from sandwich_node.api.history import History
from tests.support.api import KEYS, FixedPicture, StoredFacts, api_over
from tests.unit.top.test_top import snapshot_of


def point(at: float, *apps: str, events: float = 5.0) -> Point:
    return Point(
        at=at,
        apps=[AppPoint(app, events, 10, 2, 2, 40.0) for app in apps],
        nodes=[NodePoint("a", events, 2, 12.5, 2**20)],
        critical=1,
    )


def test_a_point_has_the_figures_of_a_snapshot() -> None:
    found = point_of(snapshot_of(), ())
    assert found.apps == [AppPoint("welcomer", 0.0, 0, 3, 3, 41.5)]
    assert [node.node for node in found.nodes] == ["alpha"]
    assert found.at == 1e9


async def test_one_point_a_minute_is_kept_and_goes_with_its_lease() -> None:
    store = MemoryStore()
    assert await write_point(store, KEYS, point(600.0, "w"))
    assert not await write_point(store, KEYS, point(659.9, "other"))
    assert await write_point(store, KEYS, point(660.0, "w"))
    await store.txn((), [Put(f"{KEYS.history}damaged", b"[]")])
    assert [one.at for one in await read_points(store, KEYS)] == [600.0, 660.0]
    items = (await store.list(KEYS.history)).items
    assert [item.lease > 0 for item in items] == [True, True, False]
    # Nothing of it is in what every node mirrors.
    assert (await store.list(KEYS.prefix)).items == ()


def test_a_point_has_the_largest_of_many_applications_and_nodes() -> None:
    """Its size is that of a value in etcd at most, whatever the cluster has."""
    apps = [f"app-{number:04d}" for number in range(APPS_MAX + 50)]
    records = {KEYS.app(app): AppRecord(app=app, token="", token_hash=app, intents=1).encode() for app in apps}
    items = {key: KeyValue(key, value, 5, 6, 1) for key, value in records.items()}
    view = ClusterView.from_items(KEYS, items, 9)
    answers: dict[str, NodeStatus | str] = {
        f"node-{number:04d}": NodeStatus(
            node=f"node-{number:04d}",
            instance="i",
            version="1",
            uptime_s=1.0,
            apps={app: AppStatus(guilds=rank) for rank, app in enumerate(apps)} if number == 0 else {},
            shards=[ShardStatus(app=apps[0], group=0, shard=0, worker=0, state="live")] * (number % 3),
        )
        for number in range(NODES_MAX + 50)
    }
    found = point_of(compose(view, answers, etcd_version="", etcd_found=(), now=600.0), ())
    assert [(one.app, one.guilds) for one in found.apps] == [(apps[rank], rank) for rank in range(249, 49, -1)]
    assert len(found.nodes) == NODES_MAX
    assert {one.shards for one in found.nodes[:83]} == {2}
    assert len(msgspec.json.encode(found)) < 25_000


async def test_figures_are_aligned_and_limited_to_what_the_identity_sees() -> None:
    store = MemoryStore()
    for one in (point(600.0, "w"), point(660.0, "w", "x"), point(720.0, "x", events=7.0)):
        await write_point(store, KEYS, one)
    facts = StoredFacts(store)
    async with api_over(store, history=History(store, KEYS, facts, None)) as api:  # type: ignore[arg-type]
        status, found = await api("GET", "/history")
        assert (status, found["at"]) == (200, [600.0, 660.0, 720.0])
        by_app = {one["app"]: one for one in found["app_figures"]}
        assert by_app["w"]["events_per_s"] == [5.0, 5.0, None]
        assert by_app["x"]["events_per_s"] == [None, 5.0, 7.0]
        assert found["node_figures"][0]["cpu_percent"] == [12.5, 12.5, 12.5]
        assert found["critical"] == [1, 1, 1]
        _, found = await api("GET", "/history?since=700&app=x")
        assert (found["at"], [one["app"] for one in found["app_figures"]]) == ([720.0], ["x"])
        api.identity = Identity("token", "t", Role.VIEWER, frozenset({"w"}))
        _, found = await api("GET", "/history")
        assert [one["app"] for one in found["app_figures"]] == ["w"]
        assert (found["node_figures"], found["critical"]) == ([], [])


class Facts(StoredFacts):
    """A node that leads, or does not."""

    leads = True

    def status(self) -> NodeStatus:
        return msgspec.structs.replace(super().status(), leader=self.leads)


@dataclass
class Clock:
    now: float

    def __call__(self) -> float:
        return self.now


async def a_history(wall: Clock) -> tuple[History, Facts, FixedPicture, MemoryStore]:
    store, picture = MemoryStore(), FixedPicture()
    facts = Facts(store)
    await facts.refresh()
    picture.now = wall.now
    return History(store, KEYS, facts, picture, wall=wall), facts, picture, store  # type: ignore[arg-type]


async def minutes(store: MemoryStore) -> list[float]:
    return [one.at for one in await read_points(store, KEYS)]


async def test_only_a_leader_writes() -> None:
    history, facts, _, store = await a_history(Clock(600.0))
    facts.leads = False
    assert await history.write(-1) == -1
    assert await minutes(store) == []
    facts.leads = True
    assert await history.write(-1) == 10
    assert await minutes(store) == [600.0]


async def test_a_leader_writes_as_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    history, _, _, store = await a_history(Clock(600.0))
    written, txn = asyncio.Event(), store.txn

    async def noted(compares: Any, writes: Any) -> Any:
        done = await txn(compares, writes)
        written.set()
        return done

    monkeypatch.setattr(store, "txn", noted)
    running = asyncio.create_task(history.run())
    async with asyncio.timeout(60):
        await written.wait()
    assert await minutes(store) == [600.0]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_snapshot_of_the_minute_before_takes_no_minute_away() -> None:
    wall = Clock(659.5)
    history, _, picture, store = await a_history(wall)
    wall.now = 660.0
    written = await history.write(9)
    assert (written, await minutes(store)) == (10, [659.5])
    picture.now = wall.now = 665.0
    written = await history.write(written)
    assert (written, await minutes(store)) == (11, [659.5, 665.0])
    picture.now = wall.now = 670.0
    assert await history.write(written) == 11
    assert await minutes(store) == [659.5, 665.0]


async def test_readers_share_a_reading() -> None:
    history, _, _, store = await a_history(Clock(600.0))
    await write_point(store, KEYS, point(600.0, "w"))
    assert [one.at for one in await history.points()] == [600.0]
    await write_point(store, KEYS, point(660.0, "w"))
    assert [one.at for one in await history.points()] == [600.0]
