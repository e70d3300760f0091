"""One run of a shard at a time in a worker, whatever the agent says in which order."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.types import CacheSpec, EventsSpec, InvitesSpec
from sandwich_node import ipc
from sandwich_node.shards.shard_set import ShardSet

KEY = ShardId("bot", 0, 3)


class FakeRunner:
    """Runs until it is stopped and allowed to end."""

    def __init__(self, start: ipc.StartShard) -> None:
        self.key, self.number = start.key, start.run
        self.stops: list[str] = []
        self.may_end = asyncio.Event()
        self.crash = False
        self.left_behind: FakeRest | None = None

    async def run(self) -> ipc.ShardStopped:
        await self.may_end.wait()
        if self.crash:
            raise RuntimeError("a bug")
        return ipc.ShardStopped(self.key, self.number, "released", self.stops[-1] if self.stops else "")

    def stop(self, reason: str) -> None:
        self.stops.append(reason)


class Harness:
    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.made: list[FakeRunner] = []
        self.sent: list[Any] = []
        self.shards = ShardSet(group, self._make, self.sent.append)

    def _make(self, start: ipc.StartShard) -> Any:
        self.made.append(FakeRunner(start))
        return self.made[-1]

    def start(self, run: int) -> None:
        self.shards.receive(
            ipc.StartShard(
                key=KEY,
                run=run,
                fence=run,
                count=4,
                route="bot",
                bot="1",
                token="t",
                token_hash="h",
                gateway_url="ws://x",
                intents=1,
                compression="none",
                large_threshold=50,
                presence=None,
                session=None,
                stream_max_age_s=0.0,
                stream_max_bytes=0,
                stream_replicas=1,
                options=ipc.ShardOptions(cache=CacheSpec(), events=EventsSpec(), invites=InvitesSpec()),
            )
        )


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run(story: Callable[[Harness], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            harness = Harness(group)
            await story(harness)
            for runner in harness.made:
                runner.may_end.set()

    asyncio.run(main())


def test_a_shard_claimed_again_waits_for_its_old_run_and_then_starts() -> None:
    async def story(harness: Harness) -> None:
        harness.start(1)
        harness.start(2)
        await turns()
        assert [runner.number for runner in harness.made] == [1]
        assert harness.made[0].stops == ["the shard was claimed again"]
        harness.made[0].may_end.set()
        await turns()
        assert [message.run for message in harness.sent] == [1]
        assert [runner.number for runner in harness.shards.runners] == [2]

    run(story)


def test_a_stop_of_the_waiting_run_is_answered_at_once_and_it_never_starts() -> None:
    async def story(harness: Harness) -> None:
        harness.start(1)
        harness.start(2)
        harness.shards.receive(ipc.StopShard(KEY, "moved"))
        assert harness.sent == [ipc.ShardStopped(KEY, 2, "released", "moved")]
        harness.made[0].may_end.set()
        await turns()
        assert [runner.number for runner in harness.made] == [1]
        assert [message.run for message in harness.sent] == [2, 1]

    run(story)


def test_a_crash_is_reported_with_its_run_and_spares_the_others() -> None:
    async def story(harness: Harness) -> None:
        harness.start(7)
        harness.made[0].crash = True
        harness.made[0].may_end.set()
        await turns()
        (message,) = harness.sent
        assert (message.run, message.how) == (7, "crashed")
        assert harness.shards.runners == []

    run(story)


def test_what_is_late_when_all_stop_is_cut_off() -> None:
    async def story(harness: Harness) -> None:
        harness.start(1)
        await turns()
        await harness.shards.stop_all("the worker ends", 0.01)
        await turns()
        assert harness.made[0].stops == ["the worker ends"]
        assert harness.shards.runners == []

    run(story)


class FakeRest:
    """What a shard left to be written, until it `may_end`."""

    def __init__(self, crash: bool = False) -> None:
        self.may_end = asyncio.Event()
        self.crash = crash
        self.ended = ""

    async def finish(self) -> None:
        try:
            await self.may_end.wait()
            if self.crash:
                raise RuntimeError("a bug")
            self.ended = "written"
        except asyncio.CancelledError:
            self.ended = "cut off"
            raise


def leaving(harness: Harness, rest: FakeRest) -> None:
    harness.start(1)
    harness.made[0].left_behind = rest
    harness.made[0].may_end.set()


def test_what_a_shard_left_is_written_when_it_has_moved_on_and_the_workers_end_waits_for_it() -> None:
    async def story(harness: Harness) -> None:
        rest = FakeRest()
        leaving(harness, rest)
        await turns()
        assert [message.how for message in harness.sent] == ["released"], "the agent does not wait for the rest"
        ending = asyncio.create_task(harness.shards.stop_all("the worker ends", 5.0))
        await turns()
        assert not ending.done()
        rest.may_end.set()
        await ending
        assert rest.ended == "written"

    run(story)


def test_the_rest_is_cut_off_with_everything_else_that_is_late_and_its_failure_spares_the_others() -> None:
    async def story(harness: Harness) -> None:
        late = FakeRest()
        leaving(harness, late)
        await turns()
        await harness.shards.stop_all("the worker ends", 0.01)
        await turns()
        assert late.ended == "cut off"
        crashed = FakeRest(crash=True)
        crashed.may_end.set()
        harness.start(2)
        harness.made[1].left_behind = crashed
        harness.made[1].may_end.set()
        await turns()
        await turns()
        assert [message.how for message in harness.sent] == ["released", "released"]

    run(story)
