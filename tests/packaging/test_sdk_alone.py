"""The SDK installs and imports without the rest of the repository."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
APPLICATION = ("sandwich_node", "sandwich_coordinator", "sandwich_simulator", "etcd3", "pydantic")
PATHS = "import sys; sys.path[:0] = sys.argv[1:3]\n"


def project(path: Path) -> dict[str, Any]:
    return dict(tomllib.loads(path.read_text())["project"])


def test_every_dependency_of_the_sdk_is_one_of_the_application_with_the_same_bounds() -> None:
    sdk = project(ROOT / "consumer-sdk" / "pyproject.toml")
    extra = sdk["optional-dependencies"]["cache"]
    assert sdk["dependencies"]
    assert extra
    assert {*sdk["dependencies"], *extra} <= set(project(ROOT / "pyproject.toml")["dependencies"])


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


@pytest.mark.parametrize(
    ("modules", "not_there"),
    [
        ("sandwich_sdk, sandwich_sdk.testing", {*APPLICATION, "redis", "hiredis"}),
        ("sandwich_sdk.cache, sandwich_sdk.cache.testing", set(APPLICATION)),
    ],
)
def test_the_wheel_imports_where_nothing_of_the_application_is(
    wheel: Path, tmp_path: Path, modules: str, not_there: set[str]
) -> None:
    done = run(
        wheel,
        tmp_path,
        f"import {modules}\n"
        "assert sandwich_sdk.__file__.startswith(sys.argv[1]), sandwich_sdk.__file__\n"
        f"present = sorted(set(sys.modules) & {not_there!r})\n"
        "assert not present, present",
    )
    assert done.returncode == 0, done.stderr


def test_without_its_extra_the_cache_says_what_to_install(wheel: Path, tmp_path: Path) -> None:
    done = run(wheel, tmp_path, "sys.modules['redis'] = None; import sandwich_sdk; import sandwich_sdk.cache")
    assert "pip install 'sandwich-sdk[cache]'" in done.stderr.splitlines()[-1]


def run(wheel: Path, directory: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Python that finds the unpacked wheel, and what it depends on."""
    zipfile.ZipFile(wheel).extractall(directory)
    return subprocess.run(
        # Without `site`, so that no .pth file brings the working tree in.
        [sys.executable, "-S", "-E", "-c", PATHS + code, str(directory), sysconfig.get_path("purelib")],
        cwd=directory,
        env={**os.environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
