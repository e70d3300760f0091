"""What benchmarks install for comparison: exact versions, since there is no lock file of them."""

import json
import re
import tomllib
from pathlib import Path

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"
EXACT = re.compile(r"=?[0-9]+(\.[0-9]+)+")


def test_crates_have_exact_versions() -> None:
    manifest = tomllib.loads((PEERS / "rust-publisher" / "Cargo.toml").read_text())
    versions = {
        name: wanted if isinstance(wanted, str) else wanted["version"]
        for name, wanted in manifest["dependencies"].items()
    }
    assert versions
    assert {name: version for name, version in versions.items() if not re.fullmatch(r"=[0-9.]+", version)} == {}


def test_python_and_npm_packages_have_exact_versions() -> None:
    lines = [line for line in (PEERS / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    wanted = dict(line.split("==") for line in lines)
    wanted |= json.loads((PEERS / "discordjs" / "package.json").read_text())["dependencies"]
    assert {name: version for name, version in wanted.items() if not EXACT.fullmatch(version)} == {}
