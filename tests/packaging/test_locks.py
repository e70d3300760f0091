"""What is installed where: the two locks, the image, the recipe."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "requirements.lock"
DEV = ROOT / "requirements-dev.lock"
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()

IMPORT_ALL = """
import importlib, pkgutil, sys
from importlib.metadata import packages_distributions
from packaging.utils import canonicalize_name
allowed, packages = set(sys.argv[1].split(",")), sys.argv[2].split(",")
barred = {
    module for module, names in packages_distributions().items()
    if module not in packages and not any(canonicalize_name(name) in allowed for name in names)
}
for module in [module for module in sys.modules if module.split(".")[0] in barred]:
    del sys.modules[module]
class Barred:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in barred:
            raise ImportError("not in requirements.lock: " + name)
sys.meta_path.insert(0, Barred())
for package in packages:
    found = importlib.import_module(package)
    for each in pkgutil.walk_packages(found.__path__, package + "."):
        if not each.name.endswith(("__main__", ".pytest_plugin")):
            importlib.import_module(each.name)
"""


def entries(text: str) -> dict[str, str]:
    """Each distribution's lines, by its name."""
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip()):
        found[canonicalize_name(entry.partition("==")[0])] = entry
    return found


def named(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(each).name) for each in requirements}


def test_the_runtime_lock_has_every_dependency_and_no_tool() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    locked = set(entries(RUNTIME.read_text()))
    assert named(project["project"]["dependencies"]) <= locked
    tools = named(project["project"]["optional-dependencies"]["dev"]) | named(project["dependency-groups"]["test"])
    assert locked.isdisjoint(tools)
    assert tools <= set(entries(DEV.read_text()))


def test_what_runs_is_what_was_tested() -> None:
    runtime, dev = entries(RUNTIME.read_text()), entries(DEV.read_text())
    assert runtime.keys() < dev.keys()
    version = re.compile(r"==([^ ;]+)")
    for name, entry in runtime.items():
        assert version.findall(entry)[:1] == version.findall(dev[name])[:1], name
        assert set(re.findall(r"sha256:\w{64}", entry)) == set(re.findall(r"sha256:\w{64}", dev[name])), name


def test_every_distribution_is_locked_by_hash_and_no_index_is_named() -> None:
    for lock in (RUNTIME, DEV):
        text = lock.read_text()
        assert "://" not in text
        assert not re.search(r"--(extra-)?index-url", text)
        for name, entry in entries(text).items():
            assert "--hash=sha256:" in entry, name


def test_nothing_of_ours_imports_what_the_runtime_lock_lacks() -> None:
    packages = "sandwich_node,sandwich_coordinator,sandwich_sdk,sandwich_simulator"
    allowed = ",".join(entries(RUNTIME.read_text()))
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, allowed, packages], cwd="/", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_the_image_takes_the_build_tool_whole_and_by_hash(tmp_path: Path) -> None:
    (script,) = re.findall(r"RUN (awk '[^']*') ", DOCKERFILE)
    (tmp_path / "requirements-dev.lock").write_text(DEV.read_text())
    done = subprocess.run(
        ["sh", "-c", f"{script} requirements-dev.lock"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    taken, dev = entries(done.stdout), entries(DEV.read_text())
    needed, open_names = set[str](), ["hatchling"]
    while open_names:
        name = canonicalize_name(open_names.pop())
        if name not in needed:
            needed.add(name)
            for text in distribution(name).requires or ():
                requirement = Requirement(text)
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    open_names.append(requirement.name)
    assert {name: dev[name] for name in needed} == taken


def test_machines_and_images_install_the_runtime_lock() -> None:
    recipe = (ROOT / "deploy" / "README.md").read_text()
    assert "-r requirements.lock" in recipe
    assert "-r requirements-dev.lock" not in recipe + DOCKERFILE
    assert "ARG PYTHON_IMAGE=python:" in DOCKERFILE
    assert DOCKERFILE.count("FROM ${PYTHON_IMAGE}") == 2
    assert "--only-binary :all:" in DOCKERFILE, "a source distribution would need a compiler"
