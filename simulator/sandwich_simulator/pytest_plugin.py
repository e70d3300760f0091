"""A simulator for tests: `pytest_plugins = ["sandwich_simulator.pytest_plugin"]` gives the fixture `make_simulator`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest_asyncio

from .config import BotConfig, SimulatorConfig
from .simulator import Simulator

MakeSimulator = Callable[..., Awaitable[Simulator]]


@pytest_asyncio.fixture
async def make_simulator() -> AsyncIterator[MakeSimulator]:
    """`await make_simulator(*bots, **fields of SimulatorConfig)`: it runs; identifies are 0.05 s apart unless told."""
    async with AsyncExitStack() as stack:

        async def make(*bots: BotConfig, **fields: object) -> Simulator:
            settings = {"identify_interval_s": 0.05, **fields}
            config = SimulatorConfig(bots=list(bots), **settings)  # type: ignore[arg-type]
            return await stack.enter_async_context(Simulator(config))

        yield make
