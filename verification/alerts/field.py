"""The running cluster of a stage, as the drills use it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp

from sandwich_coordinator.status import NodeStatus
from sandwich_node.dev.cluster import ChildProcess, DevCluster

READY_S = 120.0
STARTED_S = 60.0


class DrillError(Exception):
    """A drill could not be made as intended; the message says what was missing."""


def now() -> float:
    """Seconds of the loop's clock, which a test may run ahead."""
    return asyncio.get_running_loop().time()


async def until(what: str, check: Callable[[], Awaitable[Any]], timeout_s: float = READY_S) -> Any:
    """Poll `check` until it is true, and return it. Raises DrillError."""
    end = now() + timeout_s
    while now() < end:
        found = await check()
        if found:
            return found
        await asyncio.sleep(0.2)
    raise DrillError(f"not in {timeout_s:.0f} s: {what}")


class Field:
    """A cluster whose nodes have fixed ports, so that Prometheus finds a restarted one as the same instance.

    shards   how many each application has
    """

    def __init__(self, cluster: DevCluster, ports: Mapping[str, int], shards: Mapping[str, int]) -> None:
        self.cluster = cluster
        self.shards = shards
        self._ports = ports
        self._live_since = 0.0

    @property
    def targets(self) -> list[str]:
        """The addresses that Prometheus scrapes."""
        return [f"127.0.0.1:{port}" for port in self._ports.values()]

    async def start_node(self, name: str) -> ChildProcess:
        """Start a node and wait until it answers. Raises DrillError."""
        address = f"127.0.0.1:{self._ports[name]}"
        child = await self.cluster.start_node(name, listen=address)

        async def answers() -> bool:
            try:
                async with (
                    aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1.0)) as http,
                    http.get(f"http://{address}/healthz") as response,
                ):
                    return response.status == 200
            except (aiohttp.ClientError, TimeoutError):
                return False

        await until(f"node {name} answers", answers, STARTED_S)
        return child

    async def all_live(self) -> None:
        """Wait until each shard of each application is live. Raises DrillError."""

        async def live() -> bool:
            counts = dict.fromkeys(self.shards, 0)
            for status in (await self._statuses()).values():
                for shard in status.shards:
                    counts[shard.app] += shard.state == "live"
            return counts == self.shards

        await until("every shard is live", live)
        self._live_since = self._live_since or now()

    async def history(self, seconds: float) -> None:
        """Wait until all shards were first live this long ago: some rules compare with what was."""
        await asyncio.sleep(max(0.0, self._live_since + seconds - now()))

    async def workers(self, node: str) -> list[int]:
        """Process ids of a node's workers."""
        status = (await self._statuses())[node]
        return [worker.pid for worker in status.workers if worker.pid]

    async def _statuses(self) -> dict[str, NodeStatus]:
        answers = (await self.cluster.snapshot()).answers
        return {node: answer for node, answer in answers.items() if isinstance(answer, NodeStatus)}

    async def sim(self, path: str, /, **body: Any) -> Any:
        """Ask the simulated Discord for something."""
        return await self.cluster.simulator(path, body)

    async def fault(self, kind: str, /, **more: Any) -> None:
        """Make the simulated Discord misbehave (docs/reference/simulator.md)."""
        await self.sim("faults", kind=kind, **more)

    async def guilds(self, app: str) -> list[str]:
        """The ids of an application's guilds."""
        return [str(guild) for guild in await self.cluster.simulator(f"guilds?bot={app}")]

    async def command(self, *words: str) -> str:
        """Run a `sandwich` command. Raises DrillError when it fails."""
        code, output = await self.cluster.run_cli(*words)
        if code != 0:
            raise DrillError(f"sandwich {' '.join(words)} ended with {code}:\n{output}")
        return output
