"""Shards moved, unpinned, restarted and rebalanced: what is refused, written and reported. Time is virtual."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Self

import pytest

from sandwich_coordinator.cli.progress import progress_lines
from sandwich_coordinator.ids import LeaderTerm
from sandwich_coordinator.operations.errors import Invalid, NotFound, NotReached, OperationError, Refused, Unavailable
from sandwich_coordinator.operations.progress import (
    AllUnpinned,
    Balanced,
    MovesPlanned,
    Pinned,
    Progress,
    Reached,
    Remaining,
    RestartRequested,
    StoreSilent,
    Unpinned,
    ignore,
)
from sandwich_coordinator.operations.shards import (
    Pin,
    move_shards,
    pins,
    planned_moves,
    restart_shards,
    restore_balance,
    unpin_shards,
)
from sandwich_coordinator.operations.waiting import read_view
from sandwich_coordinator.store.base import Delete, Put, StoreAmbiguous, StoreUnavailable
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import (
    AppRecord,
    ClaimRecord,
    GroupRecord,
    NodeRecord,
    PlanRecord,
    ShardsSpec,
    ShardState,
)
from verification.simulation.loop import run_virtual

KEYS = Keys()


class Cluster:
    """Four shards of one bot on nodes a and b; the test plays the nodes."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.events: list[Progress] = []

    async def begin(self) -> Self:
        self.lease = await self.store.grant(10_000)
        app = AppRecord(app="bot", token="t", token_hash="h", intents=1, shards=ShardsSpec(count=4))
        group = GroupRecord(app="bot", group=0, count=4, ids="0-3", term=LeaderTerm(1))
        await self.store.txn([], [Put(KEYS.app("bot"), app.encode()), Put(KEYS.group("bot", 0), group.encode())])
        for name in "ab":
            record = NodeRecord(node=name, instance=name, address="", version="1")
            await self.store.txn([], [Put(KEYS.node(name), record.encode(), self.lease)])
        await self.plan(a="0-1", b="2-3")
        for shard in range(4):
            await self.claim(shard, "a" if shard < 2 else "b")
        return self

    async def plan(self, **nodes: str) -> None:
        record = PlanRecord(app="bot", group=0, term=LeaderTerm(1), nodes=nodes)
        await self.store.txn([], [Put(KEYS.plan("bot", 0), record.encode())])

    async def claim(self, shard: int, node: str, state: ShardState = "live", reason: str = "") -> None:
        """As a new owner does it: the old claim goes, the new one is created."""
        record = ClaimRecord(
            app="bot", group=0, shard=shard, node=node, instance=node, worker=0, state=state, reason=reason
        )
        await self.store.txn([], [Delete(KEYS.claim("bot", 0, shard))])
        await self.store.txn([], [Put(KEYS.claim("bot", 0, shard), record.encode(), self.lease)])

    def move(self, ranges: str, node: str, app: str = "bot", timeout_s: float = 30) -> Coroutine[Any, Any, Any]:
        return move_shards(self.store, KEYS, app, ranges, node, timeout_s=timeout_s, report=self.events.append)

    async def pinned(self) -> list[tuple[int, str]]:
        return [(pin.shard.shard, pin.node) for pin in pins(await read_view(self.store, KEYS))]


def test_shards_are_pinned_and_awaited_where_they_are_wanted() -> None:
    async def main() -> None:
        cluster = await Cluster().begin()
        task = asyncio.create_task(cluster.move("0-1", "b"))
        await asyncio.sleep(1)
        assert await cluster.pinned() == [(0, "b"), (1, "b")]
        await cluster.claim(0, "b")
        cluster.store.fail(StoreUnavailable("cut"), times=1)
        await asyncio.sleep(1)
        await cluster.claim(1, "b", "resuming")
        await asyncio.sleep(1)
        await cluster.claim(1, "b")
        assert [shard.shard for shard in await task] == [0, 1]
        assert cluster.events[:3] == [Pinned("bot", (0, 1), "b"), StoreSilent("cut"), Remaining(1)]
        assert isinstance(cluster.events[-1], Reached)
        assert progress_lines(cluster.events[0]) == ["bot shards 0-1 are pinned to b"]
        assert progress_lines(cluster.events[2]) == ["1 left"]
        assert progress_lines(Reached("live on b", 2.04)) == ["live on b after 2.0 s"]

    run_virtual(main())


@pytest.mark.parametrize(
    ("app", "ranges", "node", "kind", "words"),
    [
        ("bto", "0", "b", NotFound, "there is no application bto (did you mean bot?); there are: bot"),
        ("bot", "0", "c", NotFound, "there is no node c; there are: a, b"),
        ("bot", "3-5", "b", NotFound, "bot has no shard 4-5; it has 0-3"),
        ("bot", "x", "b", Invalid, "shards 'x'"),
    ],
)
def test_a_move_that_names_what_is_not_there_is_refused(
    app: str, ranges: str, node: str, kind: type[OperationError], words: str
) -> None:
    async def main() -> None:
        cluster = await Cluster().begin()
        with pytest.raises(kind) as caught:
            await cluster.move(ranges, node, app)
        assert words in str(caught.value)
        assert await cluster.pinned() == []
        assert cluster.events == []

    run_virtual(main())


def test_a_node_that_takes_no_shards_is_no_target_not_even_while_a_move_waits() -> None:
    async def main() -> None:
        cluster = await Cluster().begin()
        task = asyncio.create_task(cluster.move("0", "b"))
        await asyncio.sleep(1)
        record = NodeRecord(node="b", instance="b", address="", version="1", state="cordoned")
        await cluster.store.txn([], [Put(KEYS.node("b"), record.encode(), cluster.lease)])
        for attempt in (task, cluster.move("1", "b")):
            with pytest.raises(Refused, match="node b is cordoned and takes no shards: uncordon it first"):
                await attempt

    run_virtual(main())


def test_a_move_ends_with_the_reason_when_the_shard_fails_or_time_is_up() -> None:
    async def main() -> None:
        cluster = await Cluster().begin()
        with pytest.raises(NotReached, match="shards 0 are not live on b after 5 s; the request stays stored"):
            await cluster.move("0", "b", timeout_s=5)
        assert await cluster.pinned() == [(0, "b")]
        await cluster.claim(0, "b", "failed", "4014: disallowed intents")
        with pytest.raises(NotReached, match="bot shard 0 failed: 4014: disallowed intents"):
            await cluster.move("0", "b")

    run_virtual(main())


def test_a_pin_of_unknown_outcome_is_not_taken_for_stored() -> None:
    async def main() -> None:
        cluster = await Cluster().begin()
        cluster.store.fail(StoreAmbiguous("cut"), verbs=["txn"], times=1, applied=True)
        with pytest.raises(Unavailable, match="whether that was stored is unknown"):
            await cluster.move("0", "b")

    run_virtual(main())


def test_pins_are_removed() -> None:
    async def main() -> None:
        cluster = await Cluster().begin()
        await cluster.claim(0, "b")
        await cluster.move("0", "b")
        (pin,) = pins(await read_view(cluster.store, KEYS))
        assert isinstance(pin, Pin)
        for removed, words in ((1, "1 pins taken away"), (0, "no pins taken away")):
            events: list[Progress] = []
            await unpin_shards(cluster.store, KEYS, "bot", "0-1", report=events.append)
            assert events == [Unpinned("bot", (0, 1), removed)]
            assert words in progress_lines(events[0])[0]
        assert await cluster.pinned() == []

    run_virtual(main())


def test_a_restart_waits_for_a_newer_claim() -> None:
    async def main() -> None:
        cluster = await Cluster().begin()
        store, events = cluster.store, cluster.events
        task = asyncio.create_task(restart_shards(store, KEYS, "bot", "2", timeout_s=30, report=events.append))
        await asyncio.sleep(2)
        assert not task.done()
        assert (await store.get(KEYS.restart("bot", 0, 2))) is not None
        await cluster.claim(2, "b")
        await task
        assert events[0] == RestartRequested("bot", (2,))
        assert progress_lines(events[0]) == ["bot shards 2: restart requested"]
        assert isinstance(events[-1], Reached)
        await store.txn([], [Delete(KEYS.claim("bot", 0, 3))])
        with pytest.raises(Refused, match="bot shards 3 run nowhere"):
            await restart_shards(store, KEYS, "bot", "2-3", timeout_s=30, report=ignore)

    run_virtual(main())


def test_a_wait_for_the_balance_outlasts_a_store_that_does_not_answer_for_a_moment() -> None:
    async def main() -> None:
        cluster = await Cluster().begin()
        await cluster.claim(1, "b")
        events: list[Progress] = []
        task = asyncio.create_task(restore_balance(cluster.store, KEYS, timeout_s=30, report=events.append))
        await asyncio.sleep(1)
        assert not task.done()
        cluster.store.fail(StoreUnavailable("cut"), times=1)
        await asyncio.sleep(1)
        assert not task.done()
        await cluster.claim(1, "a")
        await task
        assert events[-2:] == [StoreSilent("cut"), Balanced()]

    run_virtual(main())


def test_the_balance_is_shown_and_restored() -> None:
    async def main() -> None:
        cluster = await Cluster().begin()
        await cluster.claim(2, "a")
        await cluster.move("2", "a")
        await cluster.plan(a="0-2", b="3")
        store = cluster.store
        shown: list[Progress] = []
        there = await planned_moves(store, KEYS, report=shown.append)
        assert shown == [MovesPlanned(tuple(there))]
        assert await cluster.pinned() == [(2, "a")]
        events: list[Progress] = []
        with pytest.raises(NotReached, match="shards are not moved after 3 s; the leader goes on"):
            await restore_balance(store, KEYS, timeout_s=3, report=events.append)
        assert events[0] == AllUnpinned(1)
        (planned,) = (event for event in events if isinstance(event, MovesPlanned))
        (move,) = planned.moves
        assert (move.source, move.target) == ("a", "b")
        await cluster.claim(move.shard.shard, "b")
        await cluster.plan(a="0-1", b="2-3")
        for shard in range(4):
            await cluster.claim(shard, "a" if shard < 2 else "b")
        again: list[Progress] = []
        assert await restore_balance(store, KEYS, timeout_s=3, report=again.append) == []
        assert again == [MovesPlanned(()), Balanced()]
        assert progress_lines(again[0]) == ["nothing to move: every shard is where it should be"]
        assert progress_lines(AllUnpinned(1)) == ["1 pins are taken away"]

    run_virtual(main())
