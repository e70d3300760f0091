"""The server that forks programs for tests: they end, fail and are killed as those that start by themselves."""

import os
from pathlib import Path

import pytest

from sandwich_sdk._version import __version__
from tests.support.processes import descendants
from tests.support.programs import run_command, start_program

ENV = {"PATH": os.environ["PATH"], "NO_COLOR": "1"}


async def test_a_command_says_what_it_says_and_ends_with_its_code(tmp_path: Path) -> None:
    assert await run_command("--version", env=ENV, directory=tmp_path) == (0, f"sandwich {__version__}\n", "")
    code, out, err = await run_command("cluster", "nothing", env=ENV, directory=tmp_path)
    assert (code, out, "nothing" in err) == (2, "", True)
    code, out, err = await run_command("cluster", "nothing", env=ENV, directory=tmp_path, merged=True)
    assert (code, "nothing" in out, err) == (2, True, "")
    missing = ("cluster", "apply", "-f", "not-there.yml", "--insecure-plaintext")
    code, _, err = await run_command(*missing, env=ENV, directory=tmp_path)
    assert (code, "not-there.yml" in err) == (1, True), err
    assert (await run_command("cluster", "init", env=ENV, directory=tmp_path))[0] == 0
    assert (tmp_path / "cluster.key").is_file()


async def test_a_program_is_a_process_of_its_own_and_is_killed_as_one(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    words = ("join", "--etcd", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--insecure-plaintext")
    node = await start_program("sandwich-node", words, env=ENV, directory=tmp_path, stdout=log, stderr=log)
    assert node.returncode is None
    assert node.pid in descendants(os.getpid())
    node.kill()
    assert await node.wait() == node.returncode == -9
    with pytest.raises(ProcessLookupError):
        node.kill()
