"""What benchmarks install for comparison: exact versions, since there is no lock file of them. The locks have some."""

import json
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "benchmarks" / "peers"
EXACT = re.compile(r"=?[0-9]+(\.[0-9]+)+")


def python_packages() -> dict[str, str]:
    lines = [line for line in (PEERS / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def test_crates_have_exact_versions() -> None:
    manifest = tomllib.loads((PEERS / "rust-publisher" / "Cargo.toml").read_text())
    versions = {
        name: wanted if isinstance(wanted, str) else wanted["version"]
        for name, wanted in manifest["dependencies"].items()
    }
    assert versions
    assert {name: version for name, version in versions.items() if not re.fullmatch(r"=[0-9.]+", version)} == {}


def test_python_and_npm_packages_have_exact_versions() -> None:
    wanted = python_packages() | json.loads((PEERS / "discordjs" / "package.json").read_text())["dependencies"]
    assert {name: version for name, version in wanted.items() if not EXACT.fullmatch(version)} == {}


def test_peers_use_what_sandwich_uses_in_the_same_version() -> None:
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE))
    wanted = {canonicalize_name(Requirement(name).name): version for name, version in python_packages().items()}
    shared = locked.keys() & wanted.keys()
    assert {"aiohttp", "uvloop"} <= shared, "benchmarks/websockets.py compares them as a node has them"
    assert {name: wanted[name] for name in shared} == {name: locked[name] for name in shared}
