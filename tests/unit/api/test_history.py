"""Figures of the last hours: what a point holds, that it is bounded, and who sees what."""

import asyncio

from sandwich_coordinator.access.roles import Identity, Role
from sandwich_coordinator.operations.history import (
    APPS_MAX,
    KEPT_S,
    AppPoint,
    NodePoint,
    Point,
    point_of,
    read_points,
    write_point,
)
from sandwich_coordinator.store.base import Put
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_node.api.history import History
from tests.support.api import KEYS, StoredFacts, api_over
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


def test_a_point_is_bounded() -> None:
    assert APPS_MAX * 60 < 1_500_000 / 2
    assert KEPT_S >= 4 * 3600


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


async def test_only_a_leader_writes_and_readers_share_a_reading() -> None:
    store = MemoryStore()
    facts = StoredFacts(store)
    await facts.refresh()
    history = History(store, KEYS, facts, None, wall=lambda: 600.0)  # type: ignore[arg-type]
    running = asyncio.create_task(history.run())
    await asyncio.sleep(0.01)
    running.cancel()
    assert await history.points() == []
    await write_point(store, KEYS, point(600.0, "w"))
    assert await history.points() == []
