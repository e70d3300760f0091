"""An application is paused and resumed: what is stored, awaited and reported. Time is virtual."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Self

import msgspec
import pytest

from sandwich_coordinator.cli.progress import progress_lines
from sandwich_coordinator.operations.applications import change_app, read_app
from sandwich_coordinator.operations.errors import Conflict, NotFound, NotReached, Refused
from sandwich_coordinator.operations.pausing import ResumedShards, pause_app, resume_app
from sandwich_coordinator.operations.progress import AppPaused, AppResumed, Reached, Remaining, StoreSilent, ignore
from sandwich_coordinator.store.base import Delete, Put, StoreUnavailable
from sandwich_coordinator.types import AppRecord, RemovalRecord, SessionRecord
from tests.support.interfering_store import InterferingStore
from tests.unit.coordinator.test_shard_operations import KEYS, Cluster
from verification.simulation.loop import run_virtual


class Paused(Cluster):
    """As Cluster, with a session for each shard."""

    async def begin(self) -> Self:
        await super().begin()
        for shard in range(4):
            await self.session(shard, f"s{shard}")
        return self

    async def session(self, shard: int, name: str) -> None:
        record = SessionRecord(session_id=name, resume_url="u", intents=1, count=4, first_seq=1, token_hash="h")
        await self.store.txn([], [Put(KEYS.session("bot", 0, shard), record.encode())])

    async def release(self, *shards: int) -> None:
        await self.store.txn([], [Delete(KEYS.claim("bot", 0, shard)) for shard in shards])

    def pause(self, now: float = 100.0, timeout_s: float = 30) -> Coroutine[Any, Any, float]:
        return pause_app(self.store, KEYS, "bot", now=now, timeout_s=timeout_s, report=self.events.append)

    def resume(self, now: float = 160.0, timeout_s: float = 30) -> Coroutine[Any, Any, ResumedShards]:
        return resume_app(self.store, KEYS, "bot", now=now, timeout_s=timeout_s, report=self.events.append)

    async def app(self) -> AppRecord:
        return await read_app(self.store, KEYS, "bot")


def test_a_pause_waits_until_no_shard_is_claimed_and_a_second_one_changes_nothing() -> None:
    async def main() -> None:
        cluster = await Paused().begin()
        task = asyncio.create_task(cluster.pause())
        await asyncio.sleep(1)
        paused = await cluster.app()
        assert (paused.paused, paused.paused_at) == (True, 100.0)
        await cluster.release(0, 1, 2)
        cluster.store.fail(StoreUnavailable("cut"), times=1)
        await asyncio.sleep(1)
        await cluster.release(3)
        assert await task == 100.0
        assert cluster.events[0] == AppPaused("bot", 100.0, 4, 4, is_new=True)
        assert cluster.events[1:4] == [Remaining(4), StoreSilent("cut"), Remaining(1)]
        assert isinstance(cluster.events[-1], Reached)
        cluster.events.clear()
        assert await cluster.pause(now=200.0) == 100.0
        assert cluster.events[0] == AppPaused("bot", 100.0, 0, 4, is_new=False)
        assert await cluster.app() == paused
        assert progress_lines(cluster.events[0]) == [
            "bot is paused already, since 1970-01-01 00:01:40 UTC: sandwich app resume bot ends it"
        ]

    run_virtual(main())


def test_a_resume_says_which_sessions_were_continued() -> None:
    async def main() -> None:
        cluster = await Paused().begin()
        await cluster.release(0, 1, 2, 3)
        await cluster.pause()
        cluster.events.clear()
        task = asyncio.create_task(cluster.resume())
        await asyncio.sleep(1)
        assert await cluster.app() == AppRecord(
            app="bot", token="t", token_hash="h", intents=1, shards=(await cluster.app()).shards
        )
        await cluster.session(2, "another")
        for shard in range(4):
            await cluster.claim(shard, "a", "resuming")
        await asyncio.sleep(1)
        for shard in range(4):
            await cluster.claim(shard, "a")
        assert await task == ResumedShards(resumed=3, identified=1)
        assert cluster.events[0] == AppResumed("bot", 60.0, 4, None, is_new=True)
        assert progress_lines(cluster.events[0]) == [
            "bot is resumed after 1m: 4 sessions to continue; for each that Discord has forgotten a session start"
        ]
        cluster.events.clear()
        assert await cluster.resume() == ResumedShards(0, 0), "nothing was paused"
        assert cluster.events[0] == AppResumed("bot", None, 4, None, is_new=False)

    run_virtual(main())


def test_what_does_not_end_in_time_stays_stored_and_a_failed_shard_ends_the_wait() -> None:
    async def main() -> None:
        cluster = await Paused().begin()
        with pytest.raises(NotReached, match="shards 0-3 of bot are not closed after 2 s; the request stays stored"):
            await cluster.pause(timeout_s=2)
        assert (await cluster.app()).paused
        await cluster.claim(1, "b", "failed", "4004: no")
        with pytest.raises(NotReached, match="bot shard 1 failed: 4004: no"):
            await cluster.resume()
        await cluster.release(1)
        with pytest.raises(NotReached, match="shards 1 of bot are not live after 2 s"):
            await cluster.resume(timeout_s=2)

    run_virtual(main())


async def test_fields_of_a_newer_version_survive_and_two_operators_do_not_overwrite_each_other() -> None:
    store = InterferingStore()
    record = {"app": "bot", "token": "t", "token_hash": "h", "intents": 1, "of_tomorrow": [1]}
    raw = msgspec.json.encode(record)
    await store.txn([], [Put(KEYS.app("bot"), raw)])
    await pause_app(store, KEYS, "bot", now=5.0, timeout_s=1, report=ignore)
    item = await store.get(KEYS.app("bot"))
    assert item is not None
    assert msgspec.json.decode(item.value)["of_tomorrow"] == [1]
    store.other = Put(KEYS.app("bot"), raw)
    with pytest.raises(Conflict, match="another operator"):
        await resume_app(store, KEYS, "bot", now=6.0, timeout_s=1, report=ignore)


async def test_an_application_that_is_not_there_or_being_removed_is_not_paused() -> None:
    cluster = await Paused().begin()
    with pytest.raises(NotFound, match="there is no application bto"):
        await pause_app(cluster.store, KEYS, "bto", now=1.0, timeout_s=1, report=ignore)
    await cluster.store.txn([], [Put(KEYS.removal("bot"), RemovalRecord(at=1.0).encode())])
    for work in (cluster.pause(), cluster.resume()):
        with pytest.raises(Refused, match="bot is being removed"):
            await work


async def test_a_change_of_something_else_keeps_the_time_of_the_pause() -> None:
    cluster = await Paused().begin()
    await cluster.release(0, 1, 2, 3)
    await cluster.pause()
    await change_app(cluster.store, KEYS, "bot", {("route",): "r"})
    assert ((await cluster.app()).paused_at, (await cluster.app()).route) == (100.0, "r")
    await change_app(cluster.store, KEYS, "bot", {("paused",): False})
    assert ((await cluster.app()).paused_at, (await cluster.app()).paused) == (0.0, False)
