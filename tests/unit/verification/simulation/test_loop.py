"""Virtual time gives equal runs, whatever the process did before."""

import asyncio

from verification.simulation.loop import run_virtual


async def order_of_cancellation() -> list[int]:
    ended: list[int] = []

    async def wait(number: int) -> None:
        try:
            await asyncio.sleep(10.0)
        finally:
            ended.append(number)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wait(number)) for number in range(64)]
        await asyncio.sleep(1.0)
        for task in set(tasks):
            task.cancel()
    return ended


def test_tasks_in_sets_have_the_same_order_wherever_they_are_in_memory() -> None:
    first = run_virtual(order_of_cancellation())
    kept = [[object()] * number for number in range(1000)]
    assert run_virtual(order_of_cancellation()) == first
    del kept[::3]
    assert run_virtual(order_of_cancellation()) == first
