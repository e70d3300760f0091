"""Two shard groups side by side on virtual time: what consumers get of each guild is what Discord sent, once."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.support.two_groups import Group, World, switch
from verification.simulation.loop import run_virtual

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
