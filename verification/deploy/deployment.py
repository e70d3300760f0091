"""The running machines: their start as an operator does it, what they say, and the consumers of their events."""

import asyncio
import contextlib
import os
import shutil
import ssl
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import nats
import nats.errors
import yaml

from sandwich_node.dev.checker import DeliveryCheck
from sandwich_node.dev.simulated_discord import SimulatedDiscord
from sandwich_sdk import Consumer, Event
from sandwich_sdk.wire.subjects import stream_name
from verification.deploy import podman
from verification.deploy.count import Count, Tally
from verification.deploy.podman import ROOT, Machine
from verification.deploy.status import Status, read_status

APPS = {"welcomer": 6, "music": 2}
"""The bots and how many shards each has."""
SIMULATOR = f"{podman.SUBNET}.10"
PORT = 8080
NAMES = ("a", "b", "c")
"""The machines with servers."""
SMALL_DISK = "c"
"""The machine whose data are on a small disk."""
FOURTH = "d"
GROUP = "greeter"
READY_S = 240.0
"""Three machines at once on two cores start slowly; a shard starts every five seconds."""
RECOVERY_S = 120.0
POLL_S = 0.5
ASKED_S, ASKED_TIMES = 15.0, 4
ELECTED_S = 60.0
"""How long, and how often, a NATS server is asked for the stream's leader."""

Say = Callable[[str], None]


class NotSo(RuntimeError):
    """The cluster did not become, or did not say, what it has to; the message has what it said."""


@dataclass(slots=True)
class Result:
    """Of a step. `figures`: seconds, by what they measure."""

    figures: dict[str, float] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)


class Deployment:
    """Machines in place of an operator's, in a directory that `bootstrap` filled."""

    def __init__(self, directory: Path, rate: float, say: Say) -> None:
        self.directory = directory
        self.rate = rate
        self.say = say
        self.machines = {
            name: Machine(name, f"{podman.SUBNET}.{11 + index}", directory / name) for index, name in enumerate(NAMES)
        }
        self.fourth = Machine(FOURTH, f"{podman.SUBNET}.{11 + len(NAMES)}", directory / FOURTH, only_node=True)
        self.discord = SimulatedDiscord(f"http://{SIMULATOR}:{PORT}")
        self.groups = {app: DeliveryCheck() for app in APPS}
        self.result = Result()
        """Of the present step."""
        self._made = directory / "made"
        self._count: Count | None = None
        self._before = Tally()

    # --- start ----------------------------------------------------------------------------------------------------

    async def bootstrap(self) -> None:
        """Run `bootstrap` as an operator does, and copy its directory to every machine."""
        words = [str(ROOT / "deploy" / "bootstrap"), str(self._made)]
        for machine in self.machines.values():
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
            os.chown(token, podman.USER, podman.USER)
            config["apps"][app] |= {"intents": 53608447, "shards": {"count": shards}}
        (made / "cluster.yml").write_text(yaml.safe_dump(config, sort_keys=False))
        for machine in self.machines.values():
            await self.copy_to(machine)
            shutil.copy(machine.directory / "machines" / f"{machine.name}.env", machine.directory / ".env")

    async def copy_to(self, machine: Machine) -> None:
        """What goes to every machine unchanged."""
        await podman.run("cp", "-a", str(self._made / "sandwich"), str(machine.directory))

    def token(self, app: str) -> str:
        """A token of a real one's form."""
        return f"MTAwMDAwMDAw{app:0<12.12}.GaaaaX.{app:0<38}"

    async def start_simulator(self) -> None:
        """The simulated Discord, in a container of the project's image."""
        bots = [
            {"token": self.token(app), "name": app, "guilds": 40 * shards, "recommended_shards": shards,
             "max_concurrency": 16, "members_per_guild": 20}
            for app, shards in APPS.items()
        ]  # fmt: skip
        config = self.directory / "bots.json"
        config.touch(mode=0o600)
        config.write_bytes(msgspec.json.encode(bots))
        os.chown(config, podman.USER, podman.USER)
        words = ("podman", "run", "-d", "--name", f"{podman.PREFIX}-discord", "--network", podman.NETWORK)
        options = (*words, "--ip", SIMULATOR, "-v", f"{config}:/bots.json:ro", "--entrypoint", "sandwich-simulator")
        arguments = ("--host", "0.0.0.0", "--port", str(PORT), "--advertise", f"{SIMULATOR}:{PORT}")
        await podman.run(*options, podman.LATEST, *arguments, "--rate", str(self.rate), "--config", "/bots.json")

    async def start(self) -> None:
        """Everything up to live shards, and a consumer group for each bot."""
        await podman.run("podman", "network", "create", "--subnet", f"{podman.SUBNET}.0/24", podman.NETWORK)
        await self.bootstrap()
        await self.start_simulator()
        await self.machines[SMALL_DISK].make_small_disk()
        began = time.monotonic()
        # The order is not to matter: the machine whose Redis is the first master comes last.
        for machine in reversed(self.machines.values()):
            await machine.create()
            await machine.up()
        self.say(f"three machines are up after {time.monotonic() - began:.0f} s; waiting for their servers")
        await self._apply()
        await self.as_before("applied to all shards live", timeout_s=READY_S)
        self.result.figures["first `up` to all shards live"] = time.monotonic() - began
        for app in APPS:
            code, text = await self.machines["a"].sandwich("group", "create", app, GROUP, "--start", "all")
            if code:
                raise NotSo(text)
        self._count = Count(self.discord, self.servers, self._login("operator"), list(APPS), self.groups)

    async def _apply(self) -> None:
        words = ("--profile", "operator", "run", "--rm", "sandwich", "cluster", "apply", "-f", "cluster.yml", "--yes")
        until = time.monotonic() + READY_S
        while True:
            try:
                await self.machines["a"].compose(*words)
                return
            except podman.CommandFailed as error:
                if time.monotonic() > until:
                    raise NotSo(f"the configuration is not applied: {error}") from None
                await asyncio.sleep(POLL_S)

    # --- what it says ---------------------------------------------------------------------------------------------

    async def status(self, at: Machine) -> Status:
        """What `sandwich cluster status` says on a machine."""
        return read_status(*await at.sandwich("cluster", "status", "--json"))

    async def until(
        self, what: str, at: Machine, check: Callable[[Status], bool], timeout_s: float = RECOVERY_S
    ) -> tuple[float, Status]:
        """Seconds until the status on a machine is so, and that status. Raises NotSo."""
        began = time.monotonic()
        while True:
            status = await self.status(at)
            if check(status):
                return time.monotonic() - began, status
            if time.monotonic() - began > timeout_s:
                why = "".join(f"\n  {summary}" for summary in status.summaries)
                raise NotSo(f"not within {timeout_s:.0f} s: {what} (on {at.name}: {status}){why}")
            await asyncio.sleep(POLL_S)

    async def says(self, at: Machine, problems: Iterable[str], *, live: bool = True) -> None:
        """Wait until the status on a machine has these problems and ends with 1; and all shards are live, if `live`."""
        wanted = frozenset(problems)

        def is_so(status: Status) -> bool:
            return status.code == 1 and wanted <= status.problems and (not live or dict(status.live) == APPS)

        took, status = await self.until(f"{', '.join(sorted(wanted))} in the status", at, is_so)
        self.result.figures["until the status says it"] = took
        self.note(f"on {at.name}: {status}")

    async def as_before(self, what: str, *, at: Machine | None = None, timeout_s: float = RECOVERY_S) -> Status:
        """Wait until all nodes answer, all shards are live, and the status ends with 0: that time is noted."""
        names = frozenset(self.machines)

        def is_so(status: Status) -> bool:
            return status.code == 0 and status.answering == names and dict(status.live) == APPS

        took, status = await self.until(what, at or self.machines["b"], is_so, timeout_s)
        self.result.figures[what] = took
        self.note(f"{what}: {status}")
        return status

    def note(self, text: str) -> None:
        """Print what belongs to the present step."""
        self.say(f"  {text}")

    def another(self, machine: Machine) -> Machine:
        """A machine with servers that is not this one."""
        return next(one for one in self.machines.values() if one.name != machine.name and not one.only_node)

    # --- consumers ------------------------------------------------------------------------------------------------

    def _login(self, user: str) -> dict[str, Any]:
        made = self._made / "sandwich"
        tls = ssl.create_default_context(cafile=str(made / "tls" / "client" / "ca.crt"))
        return {"user": user, "password": (made / "secrets" / f"nats-{user}").read_text().strip(), "tls": tls}

    @property
    def servers(self) -> list[str]:
        """The NATS servers, as `cluster.yml` names them."""
        return [f"tls://{self.machines[name].address}:4222" for name in NAMES]

    async def consume(self, app: str) -> None:
        """A worker of the application's group, with the application's own NATS user."""
        consumer = Consumer(self.servers, app=app, group=GROUP, domain="sandwich", connection=self._login(app))

        @consumer.on_any
        async def take(event: Event) -> None:
            self.groups[app].take(event.id)

        await consumer.run(handle_signals=False)

    # --- who does what --------------------------------------------------------------------------------------------

    async def redis_master(self) -> Machine:
        """The machine whose Redis is the master. Raises NotSo."""
        script = (
            "REDISCLI_AUTH=$(sed -n 's/^requirepass //p' /etc/redis.conf) redis-cli -p 26379 --tls "
            "--cacert /tls/ca.crt --no-auth-warning sentinel get-master-addr-by-name sandwich"
        )
        container = self.machines["b"].container("sentinel")
        answer = (await podman.run("podman", "exec", container, "sh", "-c", script)).splitlines()
        for machine in self.machines.values():
            if answer[:1] == [machine.address]:
                return machine
        raise NotSo(f"Sentinel names no machine as the master: {answer}")

    async def stream_leader(self) -> Machine:
        """The machine of the first bot's stream's leader. Raises NotSo."""
        leader = ""
        for _ in range(ASKED_TIMES):
            if leader := await self._stream_leader(next(iter(APPS))):
                break
        if leader not in self.machines:
            raise NotSo(f"the stream's leader is not known: {leader!r}")
        return self.machines[leader]

    async def lead_streams(self, machine: Machine) -> None:
        """Make the machine's NATS the leader of both streams. Raises NotSo."""
        body = msgspec.json.encode({"placement": {"preferred": machine.name}})
        for app in APPS:
            if await self._stream_leader(app) == machine.name:
                continue
            async with asyncio.timeout(ASKED_S):
                client = await nats.connect(self.servers, **self._login("operator"))
                try:
                    await client.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{stream_name(app)}", body, timeout=ASKED_S)
                finally:
                    await client.close()
            until = time.monotonic() + ELECTED_S
            while (leader := await self._stream_leader(app)) != machine.name:
                if time.monotonic() > until:
                    raise NotSo(f"NATS of machine {machine.name} does not lead the stream of {app}, but {leader!r}")
                await asyncio.sleep(POLL_S)

    async def _stream_leader(self, app: str) -> str:
        """The machine that leads the application's stream; "" while they elect, or when none answers."""
        # nats-py can wait for ever on a server that ends its first handshake.
        with contextlib.suppress(TimeoutError, OSError, nats.errors.Error):
            async with asyncio.timeout(ASKED_S):
                client = await nats.connect(self.servers, **self._login("operator"))
                try:
                    info = await client.jetstream().stream_info(stream_name(app))
                finally:
                    await client.close()
                return str(info.cluster.leader or "") if info.cluster is not None else ""
        return ""

    # --- the count ------------------------------------------------------------------------------------------------

    async def count(self) -> Tally:
        """Pause the traffic, count, and go on: what the present step added. Raises NotSo."""
        assert self._count is not None, "the machines run"
        await self.discord.control("pause_traffic", {})
        await self.as_before("all quiet")
        until = time.monotonic() + RECOVERY_S
        while (total := await self._count.tally()).missed and time.monotonic() < until:
            await asyncio.sleep(POLL_S)
        wrong = total.wrong(sum(APPS.values()))
        added, self._before = total - self._before, total
        self.result.tally = added
        if wrong:
            raise NotSo(f"the count is wrong ({', '.join(wrong)}): {total}")
        await self.discord.control("traffic", {"rate": self.rate})
        return added

    async def logs(self) -> str:
        """The ends of all logs."""
        found = []
        for machine in self.machines.values():
            for service, state in (await machine.services()).items():
                found.append(f"== {machine.name} {service} ({state})\n{await machine.log(service)}")
        return "\n".join(found)
