"""An application is removed step by step, and a removal that was interrupted is finished. Time is virtual.

The test plays the nodes, the leader and Redis; JetStream is in the end-to-end test.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.progress import progress_lines
from sandwich_coordinator.cli.remove_app import confirm, footprint_lines
from sandwich_coordinator.operations.errors import Conflict, NotFound, NotReached, Refused, Unavailable
from sandwich_coordinator.operations.progress import AppRemoved, AppRemoving, GuildsLeft
from sandwich_coordinator.operations.removal import (
    ASK_AGAIN_S,
    Footprint,
    ReadingGroup,
    RemovalChoice,
    StreamContent,
    check_unread,
    remove_app,
)
from sandwich_coordinator.operations.waiting import read_view
from sandwich_coordinator.store.base import Delete, Put
from sandwich_coordinator.types import CacheSpec, GroupNumberRecord, RemovalRecord
from tests.unit.coordinator.test_shard_operations import KEYS, Cluster
from verification.simulation.loop import run_virtual

DELETED = RemovalChoice()
KEPT = RemovalChoice(keep_cache=True)


class Removing(Cluster):
    """As Cluster, with guilds in the cache."""

    def __init__(self) -> None:
        super().__init__()
        self.guilds = 5
        self.asked: list[tuple[str, str]] = []

    async def count(self, namespace: str, app: str) -> int:
        self.asked.append((namespace, app))
        return self.guilds

    def remove(self, choice: RemovalChoice = DELETED, timeout_s: float = 120) -> Coroutine[Any, Any, RemovalChoice]:
        return remove_app(
            self.store,
            KEYS,
            "bot",
            choice,
            client=None,
            guilds=self.count,
            now=100.0,
            timeout_s=timeout_s,
            report=self.events.append,
            force=True,
        )

    async def release(self) -> None:
        await self.store.txn([], [Delete(KEYS.claims, prefix=True)])

    async def lead(self) -> None:
        """The leader removes what has no application."""
        if await self.store.get(KEYS.app("bot")) is None:
            await self.store.txn([], [Delete(KEYS.groups, prefix=True), Delete(KEYS.plans, prefix=True)])

    async def removal(self) -> RemovalRecord | None:
        entry = (await read_view(self.store, KEYS)).removals.get("bot")
        return entry.record if entry is not None else None


def test_shards_are_released_before_anything_is_deleted_and_the_cache_before_the_removal_ends() -> None:
    async def main() -> None:
        cluster = await Removing().begin()
        await cluster.store.txn([], [Put(KEYS.group_number("bot"), GroupNumberRecord(newest=3).encode())])
        task = asyncio.create_task(cluster.remove())
        await asyncio.sleep(1)
        view = await read_view(cluster.store, KEYS)
        assert view.apps["bot"].record.paused
        assert view.removals["bot"].record == RemovalRecord(at=100.0, groups={0: 4})
        assert len(view.groups) == 1
        await cluster.release()
        await asyncio.sleep(1)
        view = await read_view(cluster.store, KEYS)
        assert (list(view.apps), len(view.groups)) == ([], 1)
        assert cluster.asked == [], "the cache is not touched while a group is there"
        await cluster.lead()
        await asyncio.sleep(1)
        record = await cluster.removal()
        assert record is not None
        assert record.clean == 1
        cluster.guilds = 2
        await asyncio.sleep(1)
        cluster.guilds = 0
        assert await task == DELETED
        assert cluster.asked[0] == ("bot", "bot")
        left = [item.key for item in (await cluster.store.list(KEYS.prefix)).items if "bot" in item.key]
        assert left == [KEYS.group_number("bot")], "the stream stays, and its chains"
        assert cluster.events[0] == AppRemoving("bot", 4, is_new=True)
        assert [one for one in cluster.events if isinstance(one, GuildsLeft)] == [
            GuildsLeft("bot", 5),
            GuildsLeft("bot", 2),
        ]
        assert cluster.events[-1] == AppRemoved("bot", kept_cache=False, deleted_stream=False)
        assert progress_lines(cluster.events[-1]) == [
            "bot is removed: its guilds have left the cache, its stream stays until its messages are too old"
        ]

    run_virtual(main())


def test_a_removal_that_was_cut_off_is_finished_as_it_was_chosen() -> None:
    async def main() -> None:
        cluster = await Removing().begin()
        with pytest.raises(NotReached, match="shards 0-3 of bot are not closed after 2 s"):
            await cluster.remove(KEPT, timeout_s=2)
        await cluster.release()
        with pytest.raises(NotReached, match="shard groups 0 of bot are not removed after 2 s"):
            await cluster.remove(DELETED, timeout_s=2)
        await cluster.lead()
        cluster.events.clear()
        assert await cluster.remove(DELETED) == KEPT
        assert cluster.events[0] == AppRemoving("bot", 0, is_new=False)
        assert cluster.asked == []
        with pytest.raises(NotFound, match="there is no application bot"):
            await cluster.remove()

    run_virtual(main())


def test_a_leader_that_did_not_see_the_request_is_asked_again_and_a_cache_that_stays_is_said() -> None:
    async def main() -> None:
        cluster = await Removing().begin()
        await cluster.release()
        task = asyncio.create_task(cluster.remove(timeout_s=2.5 * ASK_AGAIN_S))
        await asyncio.sleep(1)
        await cluster.lead()
        await asyncio.sleep(1.5 * ASK_AGAIN_S)
        record = await cluster.removal()
        assert record is not None
        assert record.clean == 2
        with pytest.raises(NotReached, match=r"5 guilds of bot are in the cache after .*app remove bot goes on"):
            await task
        cluster.guilds = 0
        assert await cluster.remove() == DELETED

    run_virtual(main())


def test_without_redis_a_removal_waits_and_ends_by_force_with_the_cache_kept() -> None:
    async def main() -> None:
        cluster = await Removing().begin()
        await cluster.release()

        async def silent(namespace: str, app: str) -> int:
            raise Unavailable("Redis does not answer")

        cluster.count = silent  # type: ignore[method-assign]
        task = asyncio.create_task(cluster.remove())
        await asyncio.sleep(1)
        await cluster.lead()
        with pytest.raises(Unavailable, match=r"Redis does not answer; .* ends with --force --keep-cache"):
            await task
        assert await cluster.removal() is not None
        assert await cluster.remove(KEPT) == KEPT
        assert await cluster.removal() is None

    run_virtual(main())


async def test_a_removal_is_refused_while_consumers_read_and_when_that_is_not_known() -> None:
    cluster = await Removing().begin()
    with pytest.raises(Unavailable, match="not known whether consumers read it"):
        await remove_app(
            cluster.store,
            KEYS,
            "bot",
            DELETED,
            client=None,
            guilds=cluster.count,
            now=1.0,
            timeout_s=1,
            report=cluster.events.append,
        )
    assert await cluster.removal() is None
    groups = (ReadingGroup("worker", 3, True), ReadingGroup("old", 70, False))
    with pytest.raises(Refused, match=r"consumers still read bot: worker \(lag 3\). Stop them first"):
        check_unread("bot", StreamContent(groups=groups))
    check_unread("bot", StreamContent(groups=groups[1:]))


def test_what_another_caller_finished_meanwhile_is_done() -> None:
    """A node goes on with a removal after its answer: the same request elsewhere ends well, too."""

    async def main() -> None:
        cluster = await Removing().begin()
        await cluster.release()
        task = asyncio.create_task(cluster.remove())
        await asyncio.sleep(1)
        await cluster.lead()
        await asyncio.sleep(1)
        await cluster.store.txn([], [Delete(KEYS.removal("bot"))])
        assert await task == DELETED

    run_virtual(main())


def test_an_application_that_was_added_again_meanwhile_stays() -> None:
    async def main() -> None:
        cluster = await Removing().begin()
        added = await cluster.store.get(KEYS.app("bot"))
        assert added is not None
        task = asyncio.create_task(cluster.remove())
        await asyncio.sleep(1)
        # Another caller finished it, and an operator added it again.
        await cluster.store.txn([], [Delete(KEYS.removal("bot")), Put(KEYS.app("bot"), added.value)])
        await cluster.release()
        with pytest.raises(Conflict):
            await task
        assert await cluster.store.get(KEYS.app("bot")) is not None

    run_virtual(main())


FOUND = Footprint(
    app="bot",
    shards_live=3,
    shards=4,
    namespace="shared",
    sharers=("music",),
    guilds=12,
    stream=StreamContent(2000, 3 * 1024**2, 86_400.0, 2, (ReadingGroup("worker", 7, True),)),
    stored=None,
)


@pytest.mark.parametrize(
    ("choice", "lines"),
    [
        (
            DELETED,
            [
                "  cache          12 guilds in namespace shared, shared with music, which keep theirs: removed",
                "  stream         2000 messages, 3 MiB: kept until they are older than 1d 0h",
                "  dead letters   2: kept for 30 days",
            ],
        ),
        (
            RemovalChoice(keep_cache=True, delete_stream=True),
            [
                "  cache          12 guilds in namespace shared, shared with music, which keep theirs: "
                "kept, and not updated any more",
                "  stream         2000 messages, 3 MiB: deleted now, with 2 dead letters",
            ],
        ),
    ],
)
def test_what_goes_and_what_stays_is_shown_first(choice: RemovalChoice, lines: list[str]) -> None:
    shown = footprint_lines(FOUND, choice)
    assert shown[:2] == ["removing bot:", "  shards         3 of 4 live; they close first"]
    assert shown[2 : 2 + len(lines)] == lines
    assert "  group worker: reads now, lag 7" in shown


@pytest.mark.parametrize(("answer", "words"), [("bto", "that is not bot: nothing was removed"), (None, "--yes bot")])
def test_the_name_is_given_or_nothing_is_removed(
    answer: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    with pytest.raises(CommandError) as caught:
        confirm("bot", answer)
    assert (words in str(caught.value), caught.value.code) == (True, 1)
    confirm("bot", "bot")


def test_a_cache_that_is_off_is_not_asked() -> None:
    async def main() -> None:
        cluster = await Removing().begin()
        view = await read_view(cluster.store, KEYS)
        record = view.apps["bot"].record
        off = RemovalRecord(at=1.0, cache=CacheSpec(enabled=False), groups={0: 4})
        await cluster.store.txn([], [Put(KEYS.app("bot"), record.encode()), Put(KEYS.removal("bot"), off.encode())])
        await cluster.release()
        task = asyncio.create_task(cluster.remove())
        await asyncio.sleep(1)
        await cluster.lead()
        await task
        assert cluster.asked == []

    run_virtual(main())
