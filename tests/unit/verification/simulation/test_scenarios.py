"""Faults that random seeds meet too rarely, each by itself."""

import asyncio

import pytest

from verification.simulation.loop import run_virtual
from verification.simulation.run import HOUR_S, Simulation


class GatewayAwayForMinutes(Simulation):
    """Nobody can connect for longer than Discord keeps a session (90 s here)."""

    async def befall(self) -> None:
        await asyncio.sleep(120.0)
        self.gateway_away(300.0)
        await asyncio.sleep(300.0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_gateway_away_for_minutes_costs_each_shard_one_session_start_and_a_named_gap(seed):
    """That every gap is named, that starts keep their distance and that all is live in time, the simulation checks."""
    simulation = GatewayAwayForMinutes(seed)
    outcome = run_virtual(simulation.run())
    assert outcome.violations == []
    assert outcome.identifies == 2 * simulation.shards


class GatewayAwayForAMoment(Simulation):
    """Nobody can connect, for less than Discord keeps a session."""

    async def befall(self) -> None:
        await asyncio.sleep(120.0)
        self.gateway_away(45.0)
        await asyncio.sleep(45.0)


def test_a_gateway_back_while_discord_keeps_the_sessions_costs_none():
    simulation = GatewayAwayForAMoment(1)
    outcome = run_virtual(simulation.run())
    assert (outcome.violations, outcome.identifies) == ([], simulation.shards)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("wrong_s", [-HOUR_S, HOUR_S])
def test_whoever_has_a_clock_that_is_an_hour_wrong_every_promise_is_kept(seed, wrong_s):
    """Node a is the first to lead; after it, nodes with right clocks lead and follow."""
    assert run_virtual(Simulation(seed, skews={"a": wrong_s}).run()).violations == []
    assert run_virtual(Simulation(seed, skews={"b": wrong_s, "c": -wrong_s}).run()).violations == []
