"""Three machines made by `bootstrap` and compose, two bots under load, a power cut, a restart, and the count."""

import asyncio
import contextlib
import json
import os
import shutil
import ssl
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import nats
import nats.errors
import yaml

from sandwich_node.dev.checker import DeliveryCheck, Verdict
from sandwich_node.dev.simulated_discord import SimulatedDiscord
from sandwich_sdk import Consumer, Event, Gap
from sandwich_sdk.wire.subjects import stream_name
from verification.deploy import podman
from verification.deploy.podman import ROOT, Machine

APPS = {"welcomer": 6, "music": 2}
"""The bots and how many shards each has."""
SIMULATOR = f"{podman.SUBNET}.10"
PORT = 8080
NAMES = ("a", "b", "c")
GROUP = "greeter"
IGNORED = {"etcd-old", "node-gone"}
"""Problems that are not waited for: the etcd of the Python wheel, and a node that was killed for a while."""
READY_S = 240.0
"""Three machines at once on two cores start slowly; a shard starts every five seconds."""
RECOVERY_S = 120.0
DOWN_S = 15.0
"""How long a machine is without power: longer than a lease, so that the others take over."""
READ_IDLE_S = 20.0
ASKED_S, ASKED_TIMES = 15.0, 4
"""How long, and how often, a NATS server is asked for the stream's leader."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Outcome:
    """What was counted. `figures`: measured times in seconds, by what they measure."""

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    groups: dict[str, Verdict] = field(default_factory=dict)
    gaps: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    unrecovered: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Nothing is lost, doubled or out of order in the stream, the group got all, and all came back."""
        got_all = not any(verdict.lost for verdict in self.groups.values())
        return (
            bool(self.verdicts)
            and all(verdict.clean for verdict in self.verdicts.values())
            and got_all
            and not (self.gaps or self.unrecovered)
        )


class Deployment:
    """The running machines, and the consumers of their events."""

    def __init__(self, directory: Path, outcome: Outcome, say: Say) -> None:
        self._made = directory / "made"
        self._token_directory = directory
        self.machines = tuple(
            Machine(name, f"{podman.SUBNET}.{11 + index}", directory / name) for index, name in enumerate(NAMES)
        )
        self.outcome = outcome
        self.say = say
        self.discord = SimulatedDiscord(f"http://{SIMULATOR}:{PORT}")
        self.groups = {app: DeliveryCheck() for app in APPS}

    # --- start ----------------------------------------------------------------------------------------------------

    async def bootstrap(self) -> None:
        """Run `bootstrap` as an operator does, and copy its directory to every machine."""
        words = [str(ROOT / "deploy" / "bootstrap"), str(self._made)]
        for machine in self.machines:
            words += ["--machine", f"{machine.name}={machine.address}"]
        for app in APPS:
            words += ["--app", app]
        await podman.run(*words, env={**os.environ, "SANDWICH": str(Path(sys.executable).with_name("sandwich"))})
        made = self._made / "sandwich"
        config = yaml.safe_load((made / "cluster.yml").read_text())
        config["discord"] = {"api_url": f"http://{SIMULATOR}:{PORT}/api/v10"}
        for app, shards in APPS.items():
            token = made / "secrets" / f"token-{app}"
            token.touch(mode=0o600)
            token.write_text(self.token(app) + "\n")
            os.chown(token, 10001, 10001)
            config["apps"][app] |= {"intents": 53608447, "shards": {"count": shards}}
        (made / "cluster.yml").write_text(yaml.safe_dump(config, sort_keys=False))
        for machine in self.machines:
            await podman.run("cp", "-a", str(made), str(machine.directory))

    def token(self, app: str) -> str:
        """A token of a real one's form."""
        return f"MTAwMDAwMDAw{app:0<12.12}.GaaaaX.{app:0<38}"

    async def start_simulator(self, rate: float) -> None:
        """The simulated Discord, in a container of the project's image."""
        bots = [
            {"token": self.token(app), "name": app, "guilds": 40 * shards, "recommended_shards": shards,
             "max_concurrency": 16, "members_per_guild": 20}
            for app, shards in APPS.items()
        ]  # fmt: skip
        config = self._token_directory / "bots.json"
        config.touch(mode=0o600)
        config.write_bytes(msgspec.json.encode(bots))
        os.chown(config, 10001, 10001)
        words = ("podman", "run", "-d", "--name", f"{podman.PREFIX}-discord", "--network", podman.NETWORK)
        options = (*words, "--ip", SIMULATOR, "-v", f"{config}:/bots.json:ro", "--entrypoint", "sandwich-simulator")
        arguments = ("--host", "0.0.0.0", "--port", str(PORT), "--advertise", f"{SIMULATOR}:{PORT}")
        await podman.run(*options, podman.SANDWICH, *arguments, "--rate", str(rate), "--config", "/bots.json")

    async def start(self, rate: float) -> None:
        """Everything up to live shards, and a consumer group for each bot."""
        await podman.remove_all()
        await podman.run("podman", "network", "create", "--subnet", f"{podman.SUBNET}.0/24", podman.NETWORK)
        await self.bootstrap()
        await self.start_simulator(rate)
        began = time.monotonic()
        # The order is not to matter: the machine whose Redis is the first master comes last.
        for machine in reversed(self.machines):
            await machine.create()
            await machine.up()
        self.say(f"three machines are up after {time.monotonic() - began:.0f} s; waiting for their servers")
        await self._until("the configuration is applied", self._applied, READY_S)
        await self._until("every shard is live", self._settled, READY_S)
        self.outcome.figures["first `up` to all shards live"] = time.monotonic() - began
        for app in APPS:
            await self.machines[0].sandwich("group", "create", app, GROUP, "--start", "all")

    async def _applied(self) -> bool:
        words = ("--profile", "operator", "run", "--rm", "sandwich", "cluster", "apply", "-f", "cluster.yml", "--yes")
        try:
            await self.machines[0].compose(*words)
        except podman.CommandFailed as error:
            self._why = str(error)
            return False
        return True

    _why = ""

    async def _settled(self) -> bool:
        """Whether all nodes are there, all shards live, and no problem is reported."""
        text = ""
        for machine in self.machines:
            if (await machine.services()).get("node", "").startswith("Up"):
                text = await machine.sandwich("cluster", "status", "--json", allowed=(0, 1, 2))
                break
        try:
            status = json.loads(text[text.index("{") :])
        except ValueError:
            self._why = text[-500:] or "no node runs"
            return False
        live = {app["app"]: app["shards"].get("live", 0) for app in status.get("apps", [])}
        nodes = {node["node"] for node in status.get("nodes", []) if node["answers"]}
        wrong = {problem["code"] for problem in status.get("problems", [])} - IGNORED
        self._why = f"live: {live}, nodes: {sorted(nodes)}, problems: {sorted(wrong)}"
        return live == APPS and nodes == set(NAMES) and not wrong

    async def _until(self, what: str, check: Callable[[], Awaitable[bool]], timeout_s: float) -> float:
        """Seconds until it is so. A failure is recorded and raised as TimeoutError."""
        began = time.monotonic()
        while not await check():
            if time.monotonic() - began > timeout_s:
                self.outcome.unrecovered.append(f"not within {timeout_s:.0f} s: {what} ({self._why})")
                raise TimeoutError(what)
            await asyncio.sleep(0.5)
        return time.monotonic() - began

    # --- consumers ------------------------------------------------------------------------------------------------

    def _login(self, user: str) -> dict[str, Any]:
        made = self._made / "sandwich"
        tls = ssl.create_default_context(cafile=str(made / "tls" / "client" / "ca.crt"))
        return {"user": user, "password": (made / "secrets" / f"nats-{user}").read_text().strip(), "tls": tls}

    @property
    def servers(self) -> list[str]:
        """The NATS servers, as `cluster.yml` names them."""
        return [f"tls://{machine.address}:4222" for machine in self.machines]

    async def consume(self, app: str) -> None:
        """A worker of the application's group, with the application's own NATS user."""
        consumer = Consumer(self.servers, app=app, group=GROUP, domain="sandwich", connection=self._login(app))

        @consumer.on_any
        async def take(event: Event) -> None:
            self.groups[app].take(event.id)

        await consumer.run(handle_signals=False)

    # --- faults ---------------------------------------------------------------------------------------------------

    async def cut_the_power_of(self, machine: Machine) -> None:
        """All of a machine, servers and node, is gone for a while."""
        self.say(f"power cut of machine {machine.name}")
        await machine.cut_power()
        await asyncio.sleep(DOWN_S)
        await machine.start()
        took = await self._until(f"all shards live after the power cut of {machine.name}", self._settled, RECOVERY_S)
        self.outcome.figures["power back to all as before"] = took

    async def restart_the_stream_leader(self) -> None:
        """Restart every service of the machine whose NATS server leads the first bot's stream."""
        leader = await self.stream_leader()
        self.say(f"restart of machine {leader.name}, whose NATS leads the stream")
        await leader.restart(*(await leader.services()))
        took = await self._until(f"all shards live after the restart of {leader.name}", self._settled, RECOVERY_S)
        self.outcome.figures["restart to all as before"] = took

    async def stream_leader(self) -> Machine:
        """The machine of the first bot's stream's leader. Raises TimeoutError."""
        leader = ""
        for _ in range(ASKED_TIMES):
            # nats-py can wait for ever on a server that ends its first handshake.
            with contextlib.suppress(TimeoutError, OSError, nats.errors.Error):
                async with asyncio.timeout(ASKED_S):
                    leader = await self._stream_leader()
                    break
        for machine in self.machines:
            if machine.name == leader:
                return machine
        raise TimeoutError(f"the stream's leader is not known: {leader!r}")

    async def _stream_leader(self) -> str:
        client = await nats.connect(self.servers, **self._login("operator"))
        try:
            info = await client.jetstream().stream_info(stream_name(next(iter(APPS))))
        finally:
            await client.close()
        return str(info.cluster.leader) if info.cluster is not None else ""

    # --- the count ------------------------------------------------------------------------------------------------

    async def judge(self) -> None:
        """Stop the traffic, read both streams from their start, and compare them with what Discord owed."""
        await self.discord.control("pause_traffic", {})
        await self._until("every shard is live at the end", self._settled, RECOVERY_S)
        everything = [await self.discord.owed(app, ()) for app in APPS]
        at_least = sum(len(sequences) for owed in everything for sequences in owed.values())
        checks, gaps = await self._read_streams(at_least)
        streamed = {session for check in checks.values() for session in check.sessions}
        self.outcome.gaps = len(gaps)
        for app, check in checks.items():
            owed = await self.discord.owed(app, streamed)
            self.outcome.verdicts[app] = check.verdict(owed)

            async def caught_up(app: str = app, owed: dict[str, list[int]] = owed) -> bool:
                self.outcome.groups[app] = self.groups[app].verdict(owed)
                self._why = str(self.outcome.groups[app])
                return not self.outcome.groups[app].lost

            await self._until(f"the group of {app} has everything", caught_up, RECOVERY_S)

    async def _read_streams(self, expected: int) -> tuple[dict[str, DeliveryCheck], list[Gap]]:
        checks = {app: DeliveryCheck() for app in APPS}
        gaps: list[Gap] = []
        login = self._login("operator")
        async with Consumer(self.servers, apps=list(APPS), group="judge", start="all", connection=login) as consumer:

            @consumer.on_gap
            async def keep(gap: Gap) -> None:
                gaps.append(gap)

            events = aiter(consumer)
            read = 0
            try:
                while True:
                    async with asyncio.timeout(READ_IDLE_S if read < expected else 3.0):
                        event = await anext(events)
                    checks[event.app].take(event.id)
                    read += 1
            except TimeoutError:
                return checks, gaps

    async def logs(self) -> str:
        """The ends of all logs."""
        found = []
        for machine in self.machines:
            for service, state in (await machine.services()).items():
                found.append(f"== {machine.name} {service} ({state})\n{await machine.log(service)}")
        return "\n".join(found)


async def run(*, seconds: float, rate: float, keep: bool, say: Say) -> Outcome:
    """The whole check. The containers are removed at the end unless `keep`."""
    outcome = Outcome()
    directory = Path(tempfile.mkdtemp(prefix="sandwich-deploy-"))
    deployment = Deployment(directory, outcome, say)
    consuming: list[asyncio.Task[None]] = []
    try:
        await deployment.start(rate)
        say(f"all shards are live after {outcome.figures['first `up` to all shards live']:.0f} s")
        consuming = [asyncio.create_task(deployment.consume(app)) for app in APPS]
        await asyncio.sleep(seconds)
        # The first machine: its Redis is the master, so that Sentinel has to choose another one.
        await deployment.cut_the_power_of(deployment.machines[0])
        await asyncio.sleep(seconds)
        await deployment.restart_the_stream_leader()
        await asyncio.sleep(seconds)
        await deployment.judge()
    except (TimeoutError, podman.CommandFailed, aiohttp.ClientError) as error:
        outcome.unrecovered.append(str(error))
    finally:
        for task in consuming:
            task.cancel()
        await asyncio.gather(*consuming, return_exceptions=True)
        if not outcome.is_clean:
            say(await deployment.logs())
        if keep:
            say(f"kept: {directory}")
        else:
            await podman.remove_all()
            shutil.rmtree(directory)
    return outcome
