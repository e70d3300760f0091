"""The programs of docs/examples, as commands."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


async def example(program: str, directory: Path) -> list[str]:
    """The command of a Python or JavaScript program, without its arguments. Skips the test without npm's packages."""
    if program.endswith(".py"):
        return [sys.executable, str(EXAMPLES / "python" / program)]
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")
    copy = directory / "javascript"
    shutil.copytree(EXAMPLES / "javascript", copy)
    install = await asyncio.to_thread(
        subprocess.run,
        [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if install.returncode != 0:
        pytest.skip("npm could not install the example's packages")
    return [node, str(copy / program)]


def settings(url: str, **more: str) -> dict[str, str]:
    """The environment of an example: this process', with these settings for NATS and no others."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("NATS_")}
    return {**own, "NATS_URL": url, **more}
