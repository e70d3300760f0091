"""Single faults that random seeds produce too rarely."""

import asyncio
import itertools

import pytest

from sandwich_coordinator.problems import Code
from sandwich_coordinator.store.base import Delete, Put
from verification.simulation.loop import run_virtual
from verification.simulation.node import REFUSED_USER, SimWorker
from verification.simulation.run import HOUR_S, KEYS, Simulation, configuration
from verification.simulation.scaling import Scaling


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


class SettingsChange(Simulation):
    """The settings of NATS change while all shards are live: once to ones that no worker can use, then to others."""

    async def inject_faults(self) -> None:
        await asyncio.sleep(120.0)
        before = self.workers()
        await self._database.txn([], [configuration(REFUSED_USER)])
        await asyncio.sleep(60.0)
        assert self.workers() == before
        assert {code for node in self._nodes for code in node.problems()} >= {Code.SETTINGS_REFUSED}
        await self._database.txn([], [configuration("other")])
        await asyncio.sleep(60.0)
        assert not self.workers() & before
        assert len(self.workers()) == len(before)
        assert Code.SETTINGS_REFUSED not in {code for node in self._nodes for code in node.problems()}

    def workers(self) -> set[SimWorker]:
        """Those that hold shards."""
        return {worker for node in self._nodes for worker in node.workers if worker.shards()}


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_changed_settings_replace_every_worker_and_cost_no_session_start(seed: int) -> None:
    simulation = SettingsChange(seed)
    outcome = run_virtual(simulation.run())
    assert (outcome.violations, outcome.identifies) == ([], simulation.shards)


class SettingsChangeAmongFaults(Simulation):
    """The settings of NATS change again and again while other faults happen."""

    async def inject_faults(self) -> None:
        async with asyncio.TaskGroup() as group:
            changing = group.create_task(self._change_settings())
            await super().inject_faults()
            changing.cancel()
        await self._database.txn([], [configuration("last")])

    async def _settle(self) -> None:
        await super()._settle()
        assert {worker.nats_user for node in self._nodes for worker in node.workers if worker.shards()} == {"last"}

    async def _change_settings(self) -> None:
        for number in itertools.count():
            await asyncio.sleep(self._rng.uniform(2.0, 20.0))
            user = self._rng.choice([f"user{number}", f"user{number}", REFUSED_USER])
            self._journal.note(f"fault: the user of NATS is {user}")
            await self._database.txn([], [configuration(user)])


@pytest.mark.parametrize("seed", range(1, 9))
def test_settings_that_change_among_other_faults_violate_nothing(seed: int) -> None:
    assert run_virtual(SettingsChangeAmongFaults(seed).run()).violations == []


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("wrong_s", [-HOUR_S, HOUR_S])
def test_a_wall_clock_with_an_error_of_an_hour_violates_nothing(seed: int, wrong_s: float) -> None:
    """Node a leads first; after it, nodes with correct clocks lead."""
    assert run_virtual(Simulation(seed, skews={"a": wrong_s}).run()).violations == []
    assert run_virtual(Simulation(seed, skews={"b": wrong_s, "c": -wrong_s}).run()).violations == []


class AddedAgain(Scaling):
    """An application is scaled, removed while its stream stays, and added again.

    `forgets`: etcd is lost meanwhile, and with it which numbers its groups had.
    """

    def __init__(self, seed: int, *, forgets: bool) -> None:
        super().__init__(seed)
        self._forgets = forgets

    async def inject_faults(self) -> None:
        app = min(self._apps)
        await asyncio.sleep(120.0)
        await self.scale(app, self._apps[app] % 6 + 1)
        await self.until_live()
        key = KEYS.app(app)
        record = self._database.database.items[key].value
        await self._database.txn([], [Delete(key)])
        async with asyncio.timeout(120.0):
            while any(group.app == app for group in self._groups()):  # noqa: ASYNC110
                await asyncio.sleep(1.0)
        if self._forgets:
            await self._database.txn([], [Delete(KEYS.group_number(app))])
        await self._database.txn([], [Put(key, record)])
        await self.until_live()

    async def until_live(self) -> None:
        async with asyncio.timeout(300.0):
            while self._not_live():  # noqa: ASYNC110
                await asyncio.sleep(1.0)


@pytest.mark.parametrize("forgets", [False, True])
def test_an_application_that_is_removed_and_added_again_writes_no_chain_that_has_ended(forgets: bool) -> None:
    scaling = AddedAgain(1, forgets=forgets)
    outcome = run_virtual(scaling.run())
    # Sessions that Discord still had received what was sent between the two.
    kept_out = f"('{min(scaling._apps)}', "
    assert [one for one in outcome.violations if not ("lost outside of the gaps" in one and kept_out in one)] == []


class GivenUp(Scaling):
    """A change of the shard count is given up while the next group holds its events back, for another one."""

    async def inject_faults(self) -> None:
        app = min(self._apps)
        await asyncio.sleep(120.0)
        before, wanted = self._apps[app], self._apps[app] % 6 + 1
        await self.scale(app, wanted)
        async with asyncio.timeout(300.0):
            while not any(group.app == app and group.phase == "holding" for group in self._groups()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await self.scale(app, before)
        async with asyncio.timeout(60.0):
            while len([group for group in self._groups() if group.app == app]) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await self.scale(app, 1 if before > 1 else 5)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_group_does_not_go_on_with_the_hold_of_one_that_was_given_up(seed: int) -> None:
    scaling = GivenUp(seed)
    outcome = run_virtual(scaling.run())
    assert outcome.violations == []
    app = min(scaling._apps)
    assert sorted(
        {frame.subject.split(".")[4] for frame in scaling._stream.frames if frame.subject.split(".")[1] == app}
    ) == ["0", "1", "2"]
