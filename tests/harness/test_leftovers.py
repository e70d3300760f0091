"""The plugin that ends processes left by tests, in separate pytest runs."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.support.processes import started

ROOT = Path(__file__).parents[2]
SETTINGS = "from tests.support import leftovers\nleftovers.GRACE_S = 0.3\n"
LEAVES = """
import subprocess, sys, time
def start(name):
    # A shell starts it and ends: then it is a child of pytest.
    print(subprocess.run(["sh", "-c", f"sleep 600 >/dev/null 2>&1 & echo $! >{name}"], check=True))
"""


async def run(where: Path, test: str, *, interrupt_at: str = "") -> tuple[int, str]:
    """Run one test file with the plugin; send SIGINT when the file `interrupt_at` exists."""
    (where / "conftest.py").write_text(SETTINGS)
    (where / "test_it.py").write_text(LEAVES + test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.leftovers", "-p", "no:cacheprovider", "."]
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.STDOUT}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    async with asyncio.timeout(60), started(*command, cwd=where, env=environment, **pipes) as process:
        while interrupt_at and not (where / interrupt_at).exists():  # noqa: ASYNC110 (another process)
            await asyncio.sleep(0.02)
        if interrupt_at:
            process.send_signal(signal.SIGINT)
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


def is_there(where: Path, name: str) -> bool:
    return Path(f"/proc/{(where / name).read_text().strip()}").exists()


async def test_a_process_left_by_a_test_is_killed_and_the_test_fails(tmp_path: Path) -> None:
    code, output = await run(tmp_path, "def test_a(): start('pid')\n")
    assert (code, "processes were left behind" in output, "sleep 600" in output) == (1, True, True), output
    assert not is_there(tmp_path, "pid")


async def test_a_process_left_by_a_failing_test_is_killed_too(tmp_path: Path) -> None:
    code, output = await run(tmp_path, "def test_a():\n    start('pid')\n    assert False, 'its own reason'\n")
    assert (code, "its own reason" in output) == (1, True), output
    assert not is_there(tmp_path, "pid")


async def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    test = "def test_a():\n    start('pid')\n    open('ready', 'w').close()\n    time.sleep(60)\n"
    code, output = await run(tmp_path, test, interrupt_at="ready")
    assert (code, "KeyboardInterrupt" in output) == (2, True), output
    assert not is_there(tmp_path, "pid")


async def test_a_process_that_ends_soon_or_is_shared_by_a_module_is_allowed(tmp_path: Path) -> None:
    test = """
import pytest
@pytest.fixture(scope="module")
def shared():
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()
def test_a(shared): subprocess.run(["sh", "-c", "sleep 0.1 >/dev/null 2>&1 &"], check=True)
def test_b(shared): assert shared.poll() is None
"""
    code, output = await run(tmp_path, test)
    assert (code, "2 passed" in output) == (0, True), output
