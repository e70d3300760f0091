"""Two shard groups side by side on virtual time: what consumers get of each guild is what Discord sent, once."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sandwich_node.publishing.log import LogUnavailable
from tests.support.two_groups import Group, World, switch
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
        old.start()
        await old.all_are("live")
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
        old.start()
        await old.all_are("live")
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
