"""What Sandwich is compared with: other libraries, and a publisher in Rust. Each runs as one process.

A peer that cannot run on this machine (no cargo, no npm, no package registry) is left out, with the reason.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import cache, wraps
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import nats

from benchmarks.processes import Client, ClientFailed, application_id, client, program
from sandwich_node.dev.cluster import DevCluster
from sandwich_sdk.wire.subjects import stream_name, stream_subjects

HERE = Path(__file__).parent
ENVIRONMENT = Path(sys.prefix) / "peers"
"""Where other libraries and built programs are: beside our own packages, outside the tree."""
BUILD_TIMEOUT_S = 1800.0
START_TIMEOUT_S = 180.0
TICK_MS = 8
"""How long the publisher in Rust lets events of a shard wait for each other: as long as `policy.linger_ms`."""

Running = AbstractAsyncContextManager[Client]


_Made = TypeVar("_Made")


class PeerMissing(ClientFailed):
    """A peer cannot run here; the text says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """`prepare` installs or builds what it needs, and raises PeerMissing. `stores`: it writes frames into a stream."""

    name: str
    run: Callable[[DevCluster, str, str, int], Running] = field(repr=False)
    prepare: Callable[[], object] = field(repr=False)
    stores: bool = False


def _once(make: Callable[[], _Made]) -> Callable[[], _Made]:
    """Make it once in this process. PeerMissing is kept as well: without a network each attempt takes minutes."""

    @cache
    def outcome() -> _Made | PeerMissing:
        try:
            return make()
        except PeerMissing as missing:
            return missing
        except OSError as error:
            return PeerMissing(f"cannot be made: {error}")

    @wraps(make)
    def made() -> _Made:
        found = outcome()
        if isinstance(found, PeerMissing):
            raise PeerMissing(*found.args)
        return found

    return made


def _have(program: str, *elsewhere: Path) -> str:
    """The path of a program. Raises PeerMissing."""
    found = shutil.which(program) or next((str(path) for path in elsewhere if path.exists()), None)
    if found is None:
        raise PeerMissing(f"there is no {program}")
    return found


def _do(words: list[str], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Run a step of an installation. Raises PeerMissing with the end of its output."""
    print(f"({' '.join([Path(words[0]).name, *words[1:3]])} ...)", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            words, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerMissing(f"{Path(words[0]).name} {words[1]}: {type(error).__name__}") from error
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise PeerMissing(f"{Path(words[0]).name} {words[1]}: {last[0][:200]}")


@_once
def peers_python() -> str:
    """The interpreter of an environment with requirements.txt, made if it is not there. Raises PeerMissing."""
    wanted = (HERE / "requirements.txt").read_text()
    directory = ENVIRONMENT / "python"
    python, stamp = str(directory / "bin" / "python"), directory / "installed.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        _do([sys.executable, "-m", "venv", "--clear", str(directory)])
        _do([python, "-m", "pip", "install", "--disable-pip-version-check", "-r", str(HERE / "requirements.txt")])
        stamp.write_text(wanted)
    return python


@_once
def rust_publisher() -> str:
    """The built publisher. Raises PeerMissing."""
    cargo = _have("cargo", Path.home() / ".cargo" / "bin" / "cargo")
    target = ENVIRONMENT / "cargo"
    # Outside the tree, since cargo writes Cargo.lock beside Cargo.toml.
    source = ENVIRONMENT / "rust-publisher"
    shutil.copytree(HERE / "rust-publisher", source, dirs_exist_ok=True)
    _do([cargo, "build", "--release", "--quiet"], cwd=source, env={"CARGO_TARGET_DIR": str(target)})
    return str(target / "release" / "rust-publisher")


@_once
def discord_js() -> Path:
    """A directory with discord.js and a program that uses it. Raises PeerMissing."""
    _have("node")
    npm, directory = _have("npm"), ENVIRONMENT / "discordjs"
    shutil.copytree(HERE / "discordjs", directory, dirs_exist_ok=True)
    _do([npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"], cwd=directory)
    return directory


def _api_url(cluster: DevCluster) -> str:
    return f"{cluster.simulator_url}/api/v10"


def _discord_py(cluster: DevCluster, app: str, token: str, shards: int) -> Running:
    return client("discord.py", _api_url(cluster), token, timeout_s=START_TIMEOUT_S)


def _discord_py_speed(cluster: DevCluster, app: str, token: str, shards: int) -> Running:
    words = (peers_python(), "-m", "benchmarks.clients", "discord.py", _api_url(cluster))
    return program(words, {"BENCH_TOKEN": token}, timeout_s=START_TIMEOUT_S)


def _hikari(cluster: DevCluster, app: str, token: str, shards: int) -> Running:
    words = (peers_python(), "-OO", "-m", "benchmarks.clients", "hikari-uvloop", _api_url(cluster))
    return program(words, {"BENCH_TOKEN": token}, timeout_s=START_TIMEOUT_S)


def _discord_js(cluster: DevCluster, app: str, token: str, shards: int) -> Running:
    words = (_have("node"), str(discord_js() / "client.mjs"))
    env = {"BENCH_TOKEN": token, "BENCH_API": f"{cluster.simulator_url}/api"}
    return program(words, env, timeout_s=START_TIMEOUT_S)


def _rust(cluster: DevCluster, app: str, token: str, shards: int) -> Running:
    env = {
        "PEER_TOKEN": token,
        "PEER_BOT": application_id(token),
        "PEER_GATEWAY": f"ws://{urlsplit(cluster.simulator_url).netloc}",
        "PEER_SHARDS": str(shards),
        "PEER_NATS": cluster.nats.url,
        "PEER_APP": app,
        "PEER_TICK_MS": str(TICK_MS),
    }
    return program((rust_publisher(),), env, timeout_s=START_TIMEOUT_S)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("rust publisher", _rust, rust_publisher, stores=True),
        Peer("discord.py", _discord_py, str),
        Peer("discord.py[speed]", _discord_py_speed, peers_python),
        Peer("hikari[speedups]", _hikari, peers_python),
        Peer("discord.js", _discord_js, discord_js),
    )
}


async def make_stream(cluster: DevCluster, app: str) -> None:
    """The application's stream as a node makes it: on disk, no replicas."""
    connection = await nats.connect(cluster.nats.url)
    try:
        await connection.jetstream().add_stream(name=stream_name(app), subjects=stream_subjects(app))
    finally:
        await connection.close()
