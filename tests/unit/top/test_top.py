"""`sandwich top`, driven by keys on a terminal that textual simulates."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Static, Tabs

from sandwich_coordinator.cli.cluster_access import ClusterAccess
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.top.screen import Details, Question, Top, Typed
from sandwich_coordinator.operations.errors import Refused, Unavailable
from sandwich_coordinator.operations.progress import Drained, Report
from sandwich_coordinator.operations.snapshot import Snapshot, compose
from sandwich_coordinator.status import NodeStatus, ShardStatus
from sandwich_coordinator.store.base import KeyValue
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import AppRecord, ClaimRecord, GroupRecord, LeaderRecord, NodeRecord, Record
from sandwich_coordinator.view import ClusterView

KEYS = Keys("prod")


def snapshot_of(shards: int = 3, state: str = "ready") -> Snapshot:
    records: dict[str, tuple[Record, int]] = {
        KEYS.leader: (LeaderRecord(node="alpha", instance="i"), 7),
        KEYS.app("welcomer"): (AppRecord(app="welcomer", token="t", token_hash="ab", intents=1), 0),
        KEYS.group("welcomer", 1): (
            GroupRecord(app="welcomer", group=1, count=shards, ids="", term=5, state="live"),  # type: ignore[arg-type]
            0,
        ),
    }
    for name in ("alpha", "beta"):
        node = NodeRecord(node=name, instance="i", address=f"10.0.0.1:{len(name)}", version="1", state=state)  # type: ignore[arg-type]
        records[KEYS.node(name)] = (node, 7)
    for shard in range(shards):
        owner = "alpha" if shard % 2 == 0 else "beta"
        records[KEYS.claim("welcomer", 1, shard)] = (
            ClaimRecord(app="welcomer", group=1, shard=shard, node=owner, instance="i", worker=0, state="live"),
            7,
        )
    items = {key: KeyValue(key, one.encode(), 5, 6, 1, lease) for key, (one, lease) in records.items()}
    figures = ShardStatus(app="welcomer", group=1, shard=0, worker=0, state="live", guilds=1234, latency_ms=41.5)
    answers: dict[str, NodeStatus | str] = {
        "alpha": NodeStatus(node="alpha", instance="i", version="1", uptime_s=1, leader=True, shards=[figures]),
        "beta": "connection refused\x1b[2J",
    }
    return compose(ClusterView.from_items(KEYS, items, 9), answers, etcd_version="3.5.13", etcd_found=(), now=1e9)


class Cluster:
    """Says what the test says, and keeps what it is asked for."""

    def __init__(self) -> None:
        self.now: Snapshot | Exception = snapshot_of()
        self.asked: list[tuple[Any, ...]] = []
        self.refusal: Exception | None = None

    async def snapshot(self) -> Snapshot:
        if isinstance(self.now, Exception):
            raise self.now
        return self.now

    async def drain(self, node: str, *, force: bool, timeout_s: float, report: Report) -> None:
        self.asked.append(("drain", node, force))
        if self.refusal is not None:
            raise self.refusal
        report(Drained(node))

    async def change_state(self, node: str, wanted: str, *, report: Report) -> None:
        self.asked.append((wanted, node))

    async def move_shards(self, app: str, ranges: str, node: str, *, timeout_s: float, report: Report) -> list[int]:
        self.asked.append(("move", app, ranges, node))
        return [int(ranges)]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@asynccontextmanager
async def running(cluster: Cluster) -> AsyncIterator[tuple[Top, Pilot[None]]]:
    @asynccontextmanager
    async def open_cluster() -> AsyncIterator[ClusterAccess]:
        yield cast(ClusterAccess, cluster)

    top = Top(open_cluster)
    async with top.run_test(size=(140, 40)) as pilot:
        await until(pilot, lambda: "prod" in text_of(top, "#head"))
        yield top, pilot


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await pilot.pause(0.05)


def text_of(top: Top, name: str) -> str:
    return str(top.screen_stack[0].query_one(name, Static).render())


def rows_of(top: Top) -> list[list[str]]:
    table = top.screen_stack[0].query_one(DataTable)
    return [[str(cell) for cell in table.get_row_at(number)] for number in range(table.row_count)]


async def test_problems_come_first_and_the_tables_follow_the_keys(cluster: Cluster) -> None:
    async with running(cluster) as (top, pilot):
        assert "degraded" in text_of(top, "#head")
        assert "shards 3/3 live" in text_of(top, "#head")
        problems = rows_of(top)
        assert ("critical", "node/beta") in [(row[0], row[1]) for row in problems]
        assert all(cell.isprintable() for row in problems for cell in row)
        await pilot.press("2")
        await until(pilot, lambda: len(rows_of(top)) == 2)
        assert [row[:3] for row in rows_of(top)] == [["alpha *", "ready", "2"], ["beta", "silent", "1"]]
        await pilot.press("3")
        await until(pilot, lambda: rows_of(top)[0][0] == "welcomer")
        assert rows_of(top)[0][2] == "3/3"
        await pilot.press("4")
        await until(pilot, lambda: len(rows_of(top)) == 3)
        assert rows_of(top)[0][5:7] == ["41.5", "1,234"]


async def test_a_filter_leaves_what_has_the_text_and_escape_ends_it(cluster: Cluster) -> None:
    cluster.now = snapshot_of(shards=30)
    async with running(cluster) as (top, pilot):
        await pilot.press("4")
        await until(pilot, lambda: len(rows_of(top)) == 30)
        await pilot.press("slash", *"beta", "enter")
        await until(pilot, lambda: len(rows_of(top)) == 15)
        await pilot.press("escape")
        await until(pilot, lambda: len(rows_of(top)) == 30)


async def test_enter_opens_the_shards_of_a_node_and_then_one_shard(cluster: Cluster) -> None:
    async with running(cluster) as (top, pilot):
        await pilot.press("2", "down", "enter")
        await until(pilot, lambda: [row[2] for row in rows_of(top)] == ["1"])
        assert top.query_one(Tabs).active == "shards"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(top.screen, Details))
        await pilot.press("escape", "escape")
        await until(pilot, lambda: top.query_one(Tabs).active == "nodes")


async def test_a_drain_is_asked_about_first(cluster: Cluster) -> None:
    async with running(cluster) as (top, pilot):
        await pilot.press("2", "d")
        await until(pilot, lambda: isinstance(top.screen, Question))
        await pilot.press("n")
        await until(pilot, lambda: not isinstance(top.screen, Question))
        assert cluster.asked == []
        await pilot.press("d")
        await until(pilot, lambda: isinstance(top.screen, Question))
        await pilot.press("y")
        await until(pilot, lambda: "is drained" in text_of(top, "#done"))
        assert cluster.asked == [("drain", "alpha", False)]


async def test_a_refusal_is_shown_and_ends_nothing(cluster: Cluster) -> None:
    cluster.refusal = Refused("node alpha is not drained: it is the only node\x1b[2J")
    async with running(cluster) as (top, pilot):
        await pilot.press("2", "d")
        await until(pilot, lambda: isinstance(top.screen, Question))
        await pilot.press("y")
        await until(pilot, lambda: "it is the only node" in text_of(top, "#done"))
        assert text_of(top, "#done").isprintable()
        await pilot.press("c")
        await until(pilot, lambda: cluster.asked[-1] == ("cordoned", "alpha"))


async def test_a_shard_is_moved_to_the_node_that_is_typed(cluster: Cluster) -> None:
    async with running(cluster) as (top, pilot):
        await pilot.press("4", "down", "m")
        await until(pilot, lambda: isinstance(top.screen, Typed))
        await pilot.press(*"alpha", "enter")
        await until(pilot, lambda: bool(cluster.asked))
        assert cluster.asked == [("move", "welcomer", "1", "alpha")]


async def test_the_last_picture_stays_while_the_cluster_cannot_be_asked(cluster: Cluster) -> None:
    async with running(cluster) as (top, pilot):
        await pilot.press("2")
        await until(pilot, lambda: len(rows_of(top)) == 2)
        cluster.now = Unavailable("etcd does not answer")
        await until(pilot, lambda: bool(top.query_one("#stale").display))
        assert "etcd does not answer" in text_of(top, "#stale")
        assert len(rows_of(top)) == 2
        cluster.now = snapshot_of(state="draining")
        await until(pilot, lambda: not top.query_one("#stale").display)
        assert rows_of(top)[0][1] == "draining"


async def test_the_cursor_stays_on_its_row_while_others_come_and_go(cluster: Cluster) -> None:
    cluster.now = snapshot_of(shards=5)
    async with running(cluster) as (top, pilot):
        await pilot.press("4")
        await until(pilot, lambda: len(rows_of(top)) == 5)
        await pilot.press("down", "down", "down")
        cluster.now = snapshot_of(shards=9)
        await until(pilot, lambda: len(rows_of(top)) == 9)
        table = top.query_one(DataTable)
        assert rows_of(top)[table.cursor_row][2] == "3"


async def test_what_the_api_forbids_is_shown(cluster: Cluster) -> None:
    cluster.refusal = CommandError("this needs the role operator; you have viewer", 1)
    async with running(cluster) as (top, pilot):
        await pilot.press("2", "d")
        await until(pilot, lambda: isinstance(top.screen, Question))
        await pilot.press("y")
        await until(pilot, lambda: "role operator" in text_of(top, "#done"))
    assert top.refusal is None


async def test_it_ends_with_the_reason_when_it_has_no_access(cluster: Cluster) -> None:
    async with running(cluster) as (top, pilot):
        cluster.now = CommandError("the API does not know you")
        await until(pilot, lambda: top.refusal is not None)
    assert str(top.refusal) == "the API does not know you"


async def test_numbers_of_shards_are_found_as_they_are_typed(cluster: Cluster) -> None:
    cluster.now = snapshot_of(shards=1001)
    async with running(cluster) as (top, pilot):
        await pilot.press("4", "slash", *"1000")
        await until(pilot, lambda: [row[2] for row in rows_of(top)] == ["1000"])
