"""Two shard groups side by side on virtual time: what consumers get of each guild is what Discord sent, once."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sandwich_coordinator.types import EventsSpec, LaneSpec
from sandwich_node.publishing.log import LogUnavailable
from sandwich_node.shards import hold
from sandwich_node.shards.features import ShardFeatures
from sandwich_node.shards.runner import FLUSH_BUDGET_S
from sandwich_node.shards.upcoming import READY_QUIET_S, RESUMED_MAX_S, RESUMED_QUIET_S
from sandwich_sdk.wire.frame import session_hash
from tests.support.two_groups import GUILD_0, SPREAD_S, Group, World, switch
from verification.simulation.loop import run_virtual

Fault = Callable[[World, Group, Group], Awaitable[None]]

PAIRS = [(2, 3), (3, 2), (4, 6), (1, 8), (8, 1), (3, 3), (1, 1)]


def play(story: Callable[[World], Awaitable[None]], *, seed: int = 1, guilds: int = 12) -> None:
    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            await story(World(tasks, seed=seed, guilds=guilds))

    run_virtual(run())


async def settled(world: World, *groups: Group) -> None:
    """Everything that was sent has been published; the shards are stopped."""
    await asyncio.sleep(3)
    async with asyncio.timeout(300):
        while any(runner.numbers().backlog_events for group in groups for runner in group.runners.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    for group in groups:
        for shard, runner in group.runners.items():
            if not group.tasks[shard].done():
                runner.stop("the test is over")
    await asyncio.sleep(10)
    assert all(task.done() for group in groups for task in group.tasks.values())


def check(world: World, old: Group, new: Group) -> None:
    got = world.published(old, new)
    for guild, numbers in world.discord.emitted.items():
        assert got[guild] == numbers, f"guild {guild}"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_a_switch_loses_and_doubles_nothing(before: int, after: int, seed: int) -> None:
    async def story(world: World) -> None:
        old = Group(world, 1, before)
        await old.serve()
        traffic = world.tasks.create_task(world.discord.traffic(40.0))
        new = Group(world, 2, after, previous=old)
        await asyncio.sleep(2)
        await switch(world, old, new)
        await asyncio.sleep(2)
        traffic.cancel()
        await settled(world, old, new)
        check(world, old, new)
        assert {stop.how for stop in old.stopped.values()} == {"ended"}
        assert not old.lost + new.lost
        for shard in range(before):
            assert world.kinds(old, shard)[-1] == "end"
        for shard in range(after):
            kinds = world.kinds(new, shard)
            assert kinds.count("switch") == 1
            assert "" not in kinds[: kinds.index("switch")]

    play(story, seed=seed)


async def _owner_of_new_dies(world: World, old: Group, new: Group) -> None:
    await new.crash(world.rng.randrange(new.count))


async def _owner_of_old_dies(world: World, old: Group, new: Group) -> None:
    shard = world.rng.randrange(old.count)
    if old.states[shard] != "ended":
        await old.crash(shard)


async def _all_owners_die(world: World, old: Group, new: Group) -> None:
    async with asyncio.TaskGroup() as tasks:
        for group in (old, new):
            for shard in range(group.count):
                if group.states.get(shard) not in (None, "ended"):
                    tasks.create_task(group.crash(shard))


async def _sockets_drop(world: World, old: Group, new: Group) -> None:
    for session in world.discord.sessions:
        if session.socket is not None:
            session.socket.end(world.rng.choice([None, 4000]))


async def _stream_is_away(world: World, old: Group, new: Group) -> None:
    world.log.away = True
    await asyncio.sleep(world.rng.uniform(0.1, 3.0))
    world.log.away = False


async def _answers_are_lost(world: World, old: Group, new: Group) -> None:
    for _ in range(30):
        world.log.fail_next.append((LogUnavailable("no answer"), world.rng.random() < 0.5))
        await asyncio.sleep(0.02)


async def _appends_are_slow(world: World, old: Group, new: Group) -> None:
    world.log.delay_s = 0.3
    await asyncio.sleep(3)
    world.log.delay_s = 0.0


async def _foreign_messages(world: World, old: Group, new: Group) -> None:
    for _ in range(10):
        for group in (old, new):
            world.log.intrude(f"sandwich.bot.events.all.{group.number}.{world.rng.randrange(group.count)}")
        await asyncio.sleep(0.1)


FAULTS = [
    _owner_of_new_dies,
    _owner_of_old_dies,
    _all_owners_die,
    _sockets_drop,
    _stream_is_away,
    _answers_are_lost,
    _appends_are_slow,
    _foreign_messages,
]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("step", ["preparing", "holding", "switching", "active"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.strip("_"))
def test_a_fault_in_any_phase_loses_and_doubles_nothing(fault: Fault, step: str, seed: int) -> None:
    async def story(world: World) -> None:
        before, after = world.rng.choice(PAIRS)
        old = Group(world, 1, before)
        await old.serve()
        traffic = world.tasks.create_task(world.discord.traffic(40.0))
        new = Group(world, 2, after, previous=old)

        async def later() -> None:
            await asyncio.sleep(world.rng.choice([0.0, world.rng.uniform(0, 0.3), world.rng.uniform(0, 2.0)]))
            await fault(world, old, new)

        def between(now: str) -> None:
            if now == step:
                world.tasks.create_task(later())

        await switch(world, old, new, between=between)
        await asyncio.sleep(4)
        traffic.cancel()
        await old.all_are("ended")
        await new.all_are("live")
        await settled(world, old, new)
        check(world, old, new)
        assert not old.lost + new.lost

    play(story, seed=seed)


def test_a_new_session_of_the_old_group_is_not_begun_to_end_a_chain() -> None:
    async def story(world: World) -> None:
        old = Group(world, 1, 2)
        new = Group(world, 2, 3, previous=old)
        await old.serve()
        identifies = old.identifies

        def between(now: str) -> None:
            if now == "switching":
                for shard in range(old.count):
                    session = old.session_of(shard)
                    session.is_dead = True
                    assert session.socket is not None
                    session.socket.end(4009)

        await switch(world, old, new, between=between)
        await settled(world, old, new)
        assert old.identifies == identifies
        lost = {loss.session for loss in old.lost}
        assert lost == {session_hash(old.session_of(shard).id) for shard in range(old.count)}
        for shard in range(old.count):
            assert world.kinds(old, shard)[-2:] == ["gap", "end"]

    play(story)


@pytest.mark.parametrize("step", ["preparing", "holding"])
def test_a_session_of_the_new_group_that_is_lost_before_the_switch_costs_nothing(step: str) -> None:
    async def story(world: World) -> None:
        old = Group(world, 1, 3)
        new = Group(world, 2, 2, previous=old)
        await old.serve()
        traffic = world.tasks.create_task(world.discord.traffic(40.0))
        new.start(phase="preparing")
        await new.all_are("ready")
        if step == "holding":
            new.set_phase("holding")
            await new.all_are("holding")
        session = new.session_of(1)
        session.is_dead = True
        assert session.socket is not None
        session.socket.end(4009)
        await asyncio.sleep(1)
        new.set_phase("holding")
        await new.all_are("holding")
        assert new.session_of(1) is not session
        new.set_phase("switching")
        old.set_phase("closing")
        await new.all_are("live")
        await asyncio.sleep(2)
        traffic.cancel()
        await settled(world, old, new)
        check(world, old, new)
        assert not old.lost + new.lost

    play(story)


async def _new_session(group: Group, shard: int) -> None:
    """Discord ends the shard's session, and the next one begins."""
    session = group.session_of(shard)
    session.is_dead = True
    assert session.socket is not None
    session.socket.end(4009)
    async with asyncio.timeout(300):
        while group.session_of(shard) is session:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def _none(group: Group, shard: int) -> None:
    """The owner stays."""


async def _crash(group: Group, shard: int) -> None:
    await group.crash(shard)


async def _two_crashes(group: Group, shard: int) -> None:
    await group.crash(shard)
    await asyncio.sleep(0.5)
    await group.crash(shard)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("outages", [True, False], ids=["outages", "no outage"])
@pytest.mark.parametrize("then", [_none, _crash, _two_crashes], ids=lambda then: then.__name__.strip("_"))
@pytest.mark.parametrize("lost", ["new", "old", "both"])
def test_a_guild_that_comes_again_in_a_hold_is_not_taken_for_the_announcement_of_a_session(
    lost: str, then: Callable[[Group, int], Awaitable[None]], outages: bool, seed: int
) -> None:
    """A session that begins while events are held announces its guilds: these GUILD_CREATEs look like the others."""

    async def story(world: World) -> None:
        discord, guilds = world.discord, world.discord.guilds
        old = Group(world, 1, 1)
        new = Group(world, 2, 2, previous=old)
        await old.serve()
        # What the old group lost, and what looks like it, cannot be distinguished.
        traffic = world.tasks.create_task(discord.traffic(40.0, repeated=0.6 if lost == "new" else 0.0))
        await new.prepare()
        losing = [group for group in (new, old) if lost in (("new" if group is new else "old"), "both")]
        for guild in guilds[::3] if outages else ():
            discord.outage(guild)
        await asyncio.sleep(1)
        for group in losing:
            await _new_session(group, 0)
            # No event is on its way to a session of neither group.
            await asyncio.sleep(SPREAD_S)
        for _ in range(2):
            for guild in guilds[:8]:
                discord.back(guild)
            await asyncio.sleep(0.5)
        for group in losing:
            await then(group, 0)
        await asyncio.sleep(1)
        for guild in guilds:
            discord.back(guild)
        await new.all_are("holding")
        await old.all_are("live")
        new.set_phase("switching")
        old.set_phase("closing")
        for guild in guilds[4:]:
            discord.back(guild)
        await new.all_are("live")
        await asyncio.sleep(2)
        traffic.cancel()
        await settled(world, old, new)
        got = world.published(old, new)
        for guild, numbers in discord.emitted.items():
            assert sorted(got[guild]) == numbers, f"guild {guild}"
        assert not new.lost

    play(story, seed=seed)


def test_a_join_in_a_hold_is_published_as_one_by_a_next_owner() -> None:
    async def story(world: World) -> None:
        old = Group(world, 1, 1)
        new = Group(world, 2, 2, previous=old)
        await old.serve()
        await new.prepare()
        await new.crash(0)
        await new.all_are("holding")
        new.set_phase("switching")
        joined = GUILD_0 + (50 << 22)
        # The old group does not get it any more.
        new.session_of(0).guilds.add(joined)
        world.discord.emit(joined, "GUILD_CREATE", id=str(joined))
        await asyncio.sleep(1)
        old.set_phase("closing")
        await new.all_are("live")
        await settled(world, old, new)
        extras = [event["__extra"] for event in world.events(new) if event["d"].get("id") == str(joined)]
        assert extras == [{"lazy": False, "unavailable": False}]
        assert new.runners[0].numbers().guilds == 7

    play(story)


@pytest.mark.parametrize("then", [_none, _crash], ids=lambda then: then.__name__.strip("_"))
def test_a_guild_that_does_not_come_is_waited_for_although_others_come_again(
    then: Callable[[Group, int], Awaitable[None]],
) -> None:
    """As long as no announced guild comes, and not longer."""

    async def story(world: World) -> None:
        discord, loop = world.discord, asyncio.get_running_loop()
        new = Group(world, 1, 1)

        async def others() -> None:
            while True:
                discord.back(discord.guilds[1])
                await asyncio.sleep(2)

        discord.down.add(discord.guilds[0])
        coming = world.tasks.create_task(others())
        new.start(phase="preparing")
        async with asyncio.timeout(300):
            while not discord.sessions:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        await then(new, 0)
        began = loop.time()
        await new.all_are("ready")
        waited = READY_QUIET_S if then is _none else RESUMED_QUIET_S
        assert waited - 2 <= loop.time() - began <= waited + 2
        coming.cancel()
        await settled(world, new)

    play(story)


@pytest.mark.parametrize("drop_every_s", [0.0, 8.0])
def test_guilds_that_come_again_and_again_do_not_keep_the_next_owner_of_a_session_from_being_ready(
    drop_every_s: float,
) -> None:
    """A shard with hundreds of guilds sees one that it has not met every few seconds, for minutes."""

    async def story(world: World) -> None:
        discord, loop = world.discord, asyncio.get_running_loop()
        new = Group(world, 1, 1)

        async def joins() -> None:
            for number in itertools.count(1000):
                guild = GUILD_0 + (number << 22)
                new.session_of(0).guilds.add(guild)
                discord.emit(guild, "GUILD_CREATE", id=str(guild))
                await asyncio.sleep(RESUMED_QUIET_S / 2)

        async def drops() -> None:
            while True:
                await asyncio.sleep(drop_every_s)
                await _sockets_drop(world, new, new)

        new.start(phase="preparing")
        await new.all_are("ready")
        await new.crash(0)
        faults = [world.tasks.create_task(joins())]
        if drop_every_s:
            faults.append(world.tasks.create_task(drops()))
        began = loop.time()
        await new.all_are("ready")
        assert loop.time() - began <= RESUMED_MAX_S + 10
        for fault in faults:
            fault.cancel()
        await settled(world, new)

    play(story)


def test_a_hold_that_is_lost_with_its_session_after_the_switch_is_reported() -> None:
    async def story(world: World) -> None:
        old = Group(world, 1, 1)
        new = Group(world, 2, 1, previous=old)
        await old.serve()
        await new.prepare()
        new.set_phase("switching")
        session = new.session_of(0)
        new.kill(0)
        session.is_dead = True
        new.start([0])
        await asyncio.sleep(1)
        old.set_phase("closing")
        await new.all_are("live")
        await settled(world, old, new)
        assert [loss.session for loss in new.lost] == [session_hash(session.id)]
        kinds = world.kinds(new, 0)
        assert kinds.index("switch") < kinds.index("gap") < kinds.index("")

    play(story)


def test_a_full_hold_stops_reading_and_is_released_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        old = Group(world, 1, 2)
        new = Group(world, 2, 1, previous=old)
        await old.serve()
        traffic = world.tasks.create_task(world.discord.traffic(40.0))
        await new.prepare()
        await asyncio.sleep(20)
        assert new.runners[0].numbers().held == 50
        new.set_phase("switching")
        old.set_phase("closing")
        await new.all_are("live")
        await asyncio.sleep(2)
        traffic.cancel()
        await settled(world, old, new)
        got = world.published(old, new)
        for guild, numbers in world.discord.emitted.items():
            assert set(got[guild]) == set(numbers)

    monkeypatch.setattr(hold, "HELD_EVENTS_MAX", 50)
    play(story)


@pytest.mark.parametrize("appended", [1, 2, 3])
def test_end_frames_that_an_owner_did_not_come_to_are_appended_by_the_next(appended: int) -> None:
    async def story(world: World) -> None:
        lanes = EventsSpec(lanes={"voice": LaneSpec(types=["VOICE_*"]), "other": LaneSpec(types=["TYPING_START"])})
        old = Group(world, 1, 1, events=lanes)
        await old.serve()

        world.log.delay_s = 1.0
        old.set_phase("closing")
        async with asyncio.timeout(300):
            while world.kinds(old, 0).count("end") < appended:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        old.kill(0)
        old.start()
        await old.all_are("ended")
        ends = [subject.split(".")[3] for _, subject, _, headers in world.log.messages if headers.kind == "end"]
        assert ends == ["all", "voice", "other"]
        before = len(world.log.messages)
        old.start()
        await old.all_are("ended")
        assert len(world.log.messages) == before, "nothing is appended to a chain that has ended"

    play(story)


@pytest.mark.parametrize("has_session", [True, False])
def test_a_closing_shard_that_is_to_stop_is_released_while_the_stream_is_away(
    has_session: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def opened(features: ShardFeatures, config: object, checkpoint: object, group: Any, **_: object) -> None:
        """As with a cache: a task runs until the features stop."""
        ends[features] = asyncio.Event()
        group.create_task(ends[features].wait())
        worlds[0].log.away = not has_session

    def stopped(features: ShardFeatures) -> None:
        ends[features].set()

    async def story(world: World) -> None:
        worlds.append(world)
        old = Group(world, 1, 1)
        if has_session:
            await old.serve()
            world.discord.emit(world.discord.guilds[0], "MESSAGE_CREATE", id="1", channel_id="1")
            world.log.away = True
            old.set_phase("closing")
        else:
            old.start(phase="closing")
        await asyncio.sleep(20)
        assert not old.tasks[0].done()
        old.runners[0].stop("the node stops")
        await asyncio.sleep(FLUSH_BUDGET_S + 5)
        assert old.stopped[0].how == "released"

    worlds: list[World] = []
    ends: dict[ShardFeatures, asyncio.Event] = {}
    monkeypatch.setattr(ShardFeatures, "open", opened)
    monkeypatch.setattr(ShardFeatures, "stop", stopped)
    play(story)


def test_a_shard_without_a_session_ends_its_chain_without_connecting() -> None:
    async def story(world: World) -> None:
        old = Group(world, 1, 1)
        old.start(phase="closing")
        await old.all_are("ended")
        assert (world.kinds(old, 0), world.discord.sessions) == (["fence", "end"], [])

    play(story)


def test_the_session_of_a_chain_that_ended_is_closed_for_good() -> None:
    async def story(world: World) -> None:
        old = Group(world, 1, 1)
        await old.serve()
        socket = old.session_of(0).socket
        assert socket is not None
        old.set_phase("closing")
        await old.all_are("ended")
        assert (socket.closed_with, old.records[0]) == (1000, None)

    play(story)


def test_a_stream_that_is_deleted_during_the_switch_does_not_hold_it_up_for_ever() -> None:
    async def story(world: World) -> None:
        old = Group(world, 1, 1)
        new = Group(world, 2, 1, previous=old)
        await old.serve()
        world.discord.emit(world.discord.guilds[0], "MESSAGE_CREATE", id="1", channel_id="1")
        await asyncio.sleep(1)
        await new.prepare()
        old.set_phase("closing")
        await old.all_are("ended")
        world.log.messages.clear()
        world.log._next = 1
        number = world.discord.emit(world.discord.guilds[0], "MESSAGE_CREATE", id="2", channel_id="1")
        new.set_phase("switching")
        await new.all_are("live")
        await settled(world, new)
        assert world.published(new)[world.discord.guilds[0]] == [number]

    play(story)


def test_requests_to_a_shard_of_the_new_group_wait_for_the_switch() -> None:
    async def story(world: World) -> None:
        old = Group(world, 1, 1)
        new = Group(world, 2, 1, previous=old)
        await old.serve()
        new.start(phase="preparing")
        await new.all_are("ready")
        commands = new.runners[0]._port.commands
        relay = world.tasks.create_task(commands.handle("relay", b'{"type":"SONG_ENDED","data":{}}'))
        new.set_phase("holding")
        await new.all_are("holding")
        new.set_phase("switching")
        old.set_phase("closing")
        assert not relay.done()
        await new.all_are("live")
        assert b"own:" in await relay
        await settled(world, old, new)

    play(story)
