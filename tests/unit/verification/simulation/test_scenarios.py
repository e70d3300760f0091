"""Single faults that random seeds produce too rarely."""

import asyncio

import pytest

from verification.simulation.loop import run_virtual
from verification.simulation.run import HOUR_S, Simulation


class GatewayAwayForMinutes(Simulation):
    """No shard can connect for longer than Discord keeps a session (90 s here)."""

    async def inject_faults(self) -> None:
        await asyncio.sleep(120.0)
        self.gateway_away(300.0)
        await asyncio.sleep(300.0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_gateway_away_for_minutes_costs_each_shard_one_session_start_and_a_named_gap(seed: int) -> None:
    """The simulation checks that gaps are named, that IDENTIFYs are spaced and that all shards are live in time."""
    simulation = GatewayAwayForMinutes(seed)
    outcome = run_virtual(simulation.run())
    assert outcome.violations == []
    assert outcome.identifies == 2 * simulation.shards


class GatewayAwayForAMoment(Simulation):
    """No shard can connect, for less time than Discord keeps a session."""

    async def inject_faults(self) -> None:
        await asyncio.sleep(120.0)
        self.gateway_away(45.0)
        await asyncio.sleep(45.0)


def test_a_gateway_that_returns_while_discord_keeps_the_sessions_costs_no_session_start() -> None:
    simulation = GatewayAwayForAMoment(1)
    outcome = run_virtual(simulation.run())
    assert (outcome.violations, outcome.identifies) == ([], simulation.shards)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("wrong_s", [-HOUR_S, HOUR_S])
def test_a_wall_clock_with_an_error_of_an_hour_violates_nothing(seed: int, wrong_s: float) -> None:
    """Node a leads first; after it, nodes with correct clocks lead."""
    assert run_virtual(Simulation(seed, skews={"a": wrong_s}).run()).violations == []
    assert run_virtual(Simulation(seed, skews={"b": wrong_s, "c": -wrong_s}).run()).violations == []
