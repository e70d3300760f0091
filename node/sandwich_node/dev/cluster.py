"""A whole cluster as child processes on this machine: servers, simulator, nodes, all with ephemeral ports.

Everything lives in one temporary directory and ends with the context, in the order in which it must: nodes first, so
that they can release what they hold.
"""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Container, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import yaml

from sandwich_coordinator.operations.snapshot import Snapshot, take_snapshot
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.status import NodeStatus
from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.keys import Keys
from sandwich_node.dev.embedded import (
    EmbeddedEtcd,
    EmbeddedNats,
    EmbeddedRedis,
    EmbeddedServer,
    EmbeddedServerError,
    die_with_parent,
    etcd_cluster,
    nats_cluster,
)
from sandwich_node.dev.event_check import JournalEntry
from sandwich_node.dev.ports import free_ports
from sandwich_node.dev.simulated_discord import SimulatedDiscord

NODE_STOP_TIMEOUT_S = 30.0
SIMULATOR_START_TIMEOUT_S = 30.0
FIGURES_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DevBot:
    """A bot of the demonstration. `shards` None: as many as the simulated Discord recommends."""

    app: str
    token: str
    guilds: int
    shards: int | None
    recommended: int
    max_concurrency: int = 16
    compression: str = "zstd-stream"
    members: int = 20
    """In each guild."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """More keys of the application in cluster.yml: cache, events ..."""
    world: Mapping[str, Any] = field(default_factory=dict)
    """More fields of the bot in the simulator: how its guilds are, which other bots share them ..."""


@dataclass(slots=True)
class ChildProcess:
    """A child with its output in a log file; killed with us."""

    name: str
    log: Path
    process: asyncio.subprocess.Process

    @classmethod
    async def start(
        cls, name: str, words: list[str], *, directory: Path, env: Mapping[str, str], cwd: Path | None = None
    ) -> "ChildProcess":
        """Start a command; its output goes to `<directory>/<name>.log`."""
        log = directory / f"{name}.log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *words,
                cwd=cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(env),
                preexec_fn=_own_group,
            )
        return cls(name, log, process)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def stop(self, timeout_s: float) -> None:
        """SIGTERM, then SIGKILL after `timeout_s`."""
        if not self.running:
            return
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout_s):
                await self.process.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.process.wait()

    def tail(self, lines: int = 15) -> str:
        """The end of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def _own_group() -> None:
    """A group of its own, so that Ctrl-C in the terminal reaches only us and children end in good order."""
    os.setpgid(0, 0)
    die_with_parent()


@dataclass(slots=True)
class DevCluster:
    """Addresses and processes of a running development cluster."""

    directory: Path
    etcd: EmbeddedEtcd
    nats: EmbeddedNats
    redis: EmbeddedRedis
    simulator_url: str
    env: dict[str, str]
    bots: tuple[DevBot, ...]
    nodes: dict[str, ChildProcess] = field(default_factory=dict)
    etcds: tuple[EmbeddedEtcd, ...] = ()
    natses: tuple[EmbeddedNats, ...] = ()
    labels: tuple[str, ...] = ()
    """NAME=VALUE, of every node."""

    @property
    def key_file(self) -> Path:
        """The cluster key, for commands outside `run_cli`."""
        return self.directory / "cluster.key"

    @property
    def etcd_urls(self) -> str:
        """Every etcd member's client URL, as `--etcd` takes them."""
        return ",".join(server.url for server in self.etcds)

    async def start_node(
        self,
        name: str,
        *,
        workers: int = 1,
        etcd: str = "",
        capacity: int = 100,
        max_shards: int = 0,
        listen: str = "127.0.0.1:0",
    ) -> ChildProcess:
        """Start one more node and return it; it is not ready yet. `etcd`: other endpoints than the members'."""
        words = [command("sandwich-node"), "join", "--node-id", name, "--workers", str(workers)]
        words += ["--listen", listen, "--etcd", etcd or self.etcd_urls, "--capacity", str(capacity)]
        if max_shards:
            # Earlier releases do not know the option: tests of upgrades start them here.
            words += ["--max-shards", str(max_shards)]
        words += [word for label in self.labels for word in ("--label", label)]
        child = await ChildProcess.start(f"node-{name}", words, directory=self.directory, env=self.env)
        self.nodes[name] = child
        return child

    async def run_cli(self, *arguments: str) -> tuple[int, str]:
        """Run the `sandwich` command; returns its exit code and its output."""
        process = await asyncio.create_subprocess_exec(
            command("sandwich"),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**self.env, "SANDWICH_ETCD": self.etcd_urls},
            preexec_fn=die_with_parent,
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return process.returncode, output.decode(errors="replace")

    async def snapshot(self) -> Snapshot:
        """What the cluster stores and its nodes answer, as `sandwich ... list` and `status` read it. Raises StoreError.

        For questions that are repeated: a start of the command takes most of a second of a core.
        """
        store = EtcdStore([server.url for server in self.etcds])
        try:
            return await take_snapshot(store, Keys())
        finally:
            await store.close()

    async def fresh_snapshot(self) -> Snapshot:
        """As `snapshot`, of figures that all workers took after this call: nodes answer with up to a second old ones.

        For a question about what went before, such as whether the cache has it. TimeoutError when no such figures come.
        """
        since = time.monotonic()
        async with asyncio.timeout(FIGURES_TIMEOUT_S):
            while True:
                asked = time.monotonic()
                snapshot = await self.snapshot()
                if all(_is_younger(answer, asked - since) for answer in snapshot.answers.values()):
                    return snapshot
                await asyncio.sleep(0.1)

    async def simulator(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Call the simulator's control API: GET without a body, else POST."""
        return await SimulatedDiscord(self.simulator_url).control(path, body)

    def journal(self, app: str) -> AsyncIterator[JournalEntry]:
        """All dispatches that the simulated Discord sent to the application's sessions, for an `EventCheck`."""
        return SimulatedDiscord(self.simulator_url).journal(app)

    async def owed(self, app: str, streamed: Container[str]) -> dict[str, list[int]]:
        """What the simulated Discord owed the application: see `SimulatedDiscord.owed`."""
        return await SimulatedDiscord(self.simulator_url).owed(app, streamed)

    async def stop_nodes(self) -> None:
        """Stop every node, all at once, each with its sessions kept."""
        await asyncio.gather(*(child.stop(NODE_STOP_TIMEOUT_S) for child in self.nodes.values()))


def _is_younger(answer: NodeStatus | str, seconds: float) -> bool:
    if isinstance(answer, str):
        return False
    return all(worker.figures_age_s is not None and worker.figures_age_s <= seconds for worker in answer.workers)


def command(name: str) -> str:
    """One of our commands, as installed beside the interpreter that runs us."""
    return str(Path(sys.executable).with_name(name))


@asynccontextmanager
async def dev_cluster(
    bots: tuple[DevBot, ...],
    *,
    nodes: int = 3,
    workers: int = 1,
    rate: float = 500.0,
    seed: int = 1,
    members: int = 1,
    redis_args: Sequence[str] = (),
    labels: tuple[str, ...] = (),
) -> AsyncIterator[DevCluster]:
    """Start everything; the nodes are starting when this yields. Raises EmbeddedServerError naming what failed.

    `members`: how many etcd members and NATS servers there are; streams have as many replicas. `redis_args`: more
    arguments for redis-server. `labels`: of every node, NAME=VALUE.
    """
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sandwich-dev-")))
        etcds = etcd_cluster(directory, members) if members > 1 else [EmbeddedEtcd(directory / "etcd")]
        natses = nats_cluster(directory, members) if members > 1 else [EmbeddedNats(directory / "nats")]
        redis = EmbeddedRedis(directory / "redis", extra=redis_args)
        servers: list[EmbeddedServer] = [*etcds, *natses, redis]
        for server in servers:
            stack.push_async_exit(server)
        await asyncio.gather(*(server.start() for server in servers))
        key = ClusterKey.generate().to_base64()
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SANDWICH_")},
            "SANDWICH_CLUSTER_KEY": key,
            **{_token_variable(bot): bot.token for bot in bots},
        }
        simulator_url = await _start_simulator(stack, directory, bots, rate=rate, seed=seed, env=env)
        cluster = DevCluster(
            directory,
            etcds[0],
            natses[0],
            redis,
            simulator_url,
            env,
            bots,
            etcds=tuple(etcds),
            natses=tuple(natses),
            labels=labels,
        )
        cluster.key_file.touch(mode=0o600)
        cluster.key_file.write_text(key + "\n")
        await _apply(cluster)
        stack.push_async_callback(cluster.stop_nodes)
        for index in range(nodes):
            await cluster.start_node(_node_name(index), workers=workers)
        yield cluster


def _node_name(index: int) -> str:
    return chr(ord("a") + index) if index < 26 else f"n{index}"


def _token_variable(bot: DevBot) -> str:
    return f"{bot.app.upper().replace('-', '_')}_TOKEN"


async def _start_simulator(
    stack: AsyncExitStack,
    directory: Path,
    bots: tuple[DevBot, ...],
    *,
    rate: float,
    seed: int,
    env: Mapping[str, str],
) -> str:
    (port,) = free_ports(1)
    words = [command("sandwich-simulator"), "--port", str(port), "--rate", str(rate), "--seed", str(seed)]
    # Tokens go through a file, here as everywhere: arguments are in the process list.
    config = directory / "bots.json"
    config.touch(mode=0o600)
    config.write_bytes(
        msgspec.json.encode(
            [
                {
                    "token": bot.token,
                    "name": bot.app,
                    "guilds": bot.guilds,
                    "recommended_shards": bot.recommended,
                    "max_concurrency": bot.max_concurrency,
                    "members_per_guild": bot.members,
                    **bot.world,
                }
                for bot in bots
            ]
        )
    )
    words += ["--config", str(config)]
    child = await ChildProcess.start("simulator", words, directory=directory, env=env)
    stack.push_async_callback(child.stop, 10.0)
    url = f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession() as http:
        try:
            async with asyncio.timeout(SIMULATOR_START_TIMEOUT_S):
                while not await _answers(http, f"{url}/api/v10/gateway"):
                    if not child.running:
                        raise EmbeddedServerError(f"the simulator ended at start:\n{child.tail()}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise EmbeddedServerError(f"the simulator did not answer:\n{child.tail()}") from None
    return url


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url, timeout=aiohttp.ClientTimeout(total=1.0)) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _apply(cluster: DevCluster) -> None:
    config = {
        "version": 1,
        "cluster": "default",
        "nats": {"servers": [server.url for server in cluster.natses], "replicas": len(cluster.natses)},
        "redis": {"url": cluster.redis.url},
        "discord": {"api_url": f"{cluster.simulator_url}/api/v10"},
        "apps": {
            bot.app: {
                "token": {"env": _token_variable(bot)},
                "intents": 53608447,
                "shards": {"count": bot.shards or "auto"},
                "compression": bot.compression,
                **bot.settings,
            }
            for bot in cluster.bots
        },
    }
    path = cluster.directory / "cluster.yml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    code, output = await cluster.run_cli("cluster", "apply", "-f", str(path))
    if code != 0:
        raise EmbeddedServerError(f"`sandwich cluster apply` refused the demonstration's configuration:\n{output}")
