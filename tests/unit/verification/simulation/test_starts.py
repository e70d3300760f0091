"""Session starts in the simulation: pace, order, budgets. Discord there counts every violation of its rules."""

import asyncio
import math

import pytest

from verification.simulation.loop import run_virtual
from verification.simulation.pace import measure_start
from verification.simulation.run import HOUR_S, Simulation


@pytest.mark.parametrize(("shards", "max_concurrency", "nodes"), [(20, 1, 3), (48, 8, 3), (30, 16, 1)])
def test_a_first_start_takes_at_most_five_percent_longer_than_discord_allows(
    shards: int, max_concurrency: int, nodes: int
) -> None:
    start = measure_start(shards, max_concurrency, nodes=nodes)
    assert start.violations == []
    assert start.last_s <= 1.05 * start.minimum_s
    for bucket in start.order:
        # The very first is of the node that was ready first.
        assert bucket[1:] == sorted(bucket[1:])


def test_identifies_that_travel_for_up_to_a_second_are_never_followed_too_early() -> None:
    start = measure_start(16, 1, slow_part=0.5)
    assert start.violations == []
    assert start.last_s > start.minimum_s, "they delay their bucket by as much"


class SessionsLost(Simulation):
    """Sessions are lost again and again, more often than the budget allows; leaders die and answers get lost."""

    async def inject_faults(self) -> None:
        self._world.conditions.store_answers_lost = 0.05
        for number in range(100):
            await asyncio.sleep(2.5)
            self._discord.forget()
            if number in (20, 45, 70):
                await self._leader_killed()
        self._world.conditions.store_answers_lost = 0.0


@pytest.mark.parametrize("seed", [3, 6])
@pytest.mark.parametrize("wrong_s", [-HOUR_S, HOUR_S])
def test_a_budget_is_never_exceeded_and_used_again_after_its_reset_whoever_leads_with_whatever_clock(
    seed: int, wrong_s: float
) -> None:
    total = math.ceil(Simulation(seed).shards / 0.8) + 1
    skews = {"a": wrong_s, "c": -wrong_s}
    outcome = run_virtual(SessionsLost(seed, skews=skews, total=total, window_s=120.0, shared_token=True).run())
    assert outcome.violations == []
    assert outcome.identifies > total, "the budget of a later window was used"


class SocketsDroppedWithoutStarts(Simulation):
    """No start is left but the reserve, and all connections drop."""

    async def inject_faults(self) -> None:
        await asyncio.sleep(150.0)
        for _ in range(3):
            self._discord.drop(1.0, None)
            await asyncio.sleep(5.0)
            for session in self._discord.current.values():
                if session.socket is None:
                    self._journal.violate(f"{session.id} was not resumed within 5 s")


def test_a_resume_waits_neither_for_a_bucket_nor_for_a_budget() -> None:
    total = math.ceil(Simulation(4).shards / 0.8)
    simulation = SocketsDroppedWithoutStarts(4, total=total, shared_token=True)
    outcome = run_virtual(simulation.run())
    assert (outcome.violations, outcome.identifies) == ([], simulation.shards)


@pytest.mark.parametrize("seed", [1, 5, 6])
def test_applications_with_one_token_share_its_buckets_through_faults(seed: int) -> None:
    assert run_virtual(Simulation(seed, shared_token=True).run()).violations == []
