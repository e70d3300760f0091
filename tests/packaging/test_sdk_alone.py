"""The SDK installs and imports without the rest of the repository."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_OURS = ("sandwich_node", "sandwich_coordinator", "sandwich_simulator", "etcd3", "pydantic", "redis")


def project(path: Path) -> dict[str, list[str]]:
    return dict(tomllib.loads(path.read_text())["project"])


def test_every_dependency_of_the_sdk_is_one_of_the_application_with_the_same_bounds() -> None:
    sdk = project(ROOT / "consumer-sdk" / "pyproject.toml")["dependencies"]
    assert sdk
    assert set(sdk) <= set(project(ROOT / "pyproject.toml")["dependencies"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT / "consumer-sdk",
        check=True,
        capture_output=True,
        timeout=60,
    )
    return next(out.glob("sandwich_sdk-*.whl"))


def test_the_wheel_holds_the_sdk_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"sandwich_sdk"}
    assert "sandwich_sdk/py.typed" in names


def test_the_wheel_imports_where_nothing_of_the_application_is(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]; import sandwich_sdk, sandwich_sdk.testing\n"
        "assert sandwich_sdk.__file__.startswith(sys.argv[1]), sandwich_sdk.__file__\n"
        f"present = sorted(set(sys.modules) & set({NOT_OURS!r}))\n"
        "assert not present, present"
    )
    done = subprocess.run(
        # Without `site`, so that no .pth file brings the working tree in.
        [sys.executable, "-S", "-E", "-c", code, str(tmp_path), sysconfig.get_path("purelib")],
        cwd=tmp_path,
        env={**os.environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
