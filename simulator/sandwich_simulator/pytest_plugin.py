"""A pytest plugin: `pytest_plugins = ["sandwich_simulator.pytest_plugin"]` provides the fixture `make_simulator`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest_asyncio

from .config import BotConfig, SimulatorConfig
from .simulator import Simulator

MakeSimulator = Callable[..., Awaitable[Simulator]]


@pytest_asyncio.fixture
async def make_simulator() -> AsyncIterator[MakeSimulator]:
    """`await make_simulator(*bots, **fields of SimulatorConfig)` starts one, with `identify_interval_s` 0.05."""
    async with AsyncExitStack() as stack:

        async def make(*bots: BotConfig, **fields: object) -> Simulator:
            settings = {"identify_interval_s": 0.05, **fields}
            config = SimulatorConfig(bots=list(bots), **settings)  # type: ignore[arg-type]
            return await stack.enter_async_context(Simulator(config))

        yield make
